"""One pass of several adapted models gives each what it computes alone."""

from pathlib import Path

import torch
from torch import nn

from etude.models.catalogue import decoder_config
from etude.models.decoder import Decoder
from etude.models.lora import add_adapter, find_layers
from etude.models.parts import find_targets
from etude.models.stacked import OnePass, draws, share_frozen, stack, why_not_stacked
from etude.recipe.load import recipe_from
from etude.recipe.model import Adapter
from tests.recipes import tiny


def make(seed: int, rank: int, dropout: float = 0.0, base: int = 0) -> Decoder:
    """A decoder with an adapter that already changes something."""
    model = Decoder(decoder_config(recipe_from(tiny(Path("none"))).model, vocab_size=50, seq_len=32))
    model.init_weights(base)
    recipe = Adapter(rank=rank, alpha=4.0 * rank + seed, dropout=dropout)
    add_adapter(model, dict.fromkeys(find_targets(model, "all-linear"), recipe), seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in find_layers(model).values():
        nn.init.normal_(layer.lora_B.weight, std=0.1, generator=generator)
    return model


def test_rows_of_each_model_are_its_own_with_ranks_and_dropout() -> None:
    models = [make(1, rank=2, dropout=0.3), make(2, rank=5, dropout=0.3), make(3, rank=3, dropout=0.3)]
    torch.manual_seed(0)
    tokens = torch.randint(0, 50, (1, 12))
    given = {"positions": torch.tensor([[*range(7), *range(5)]]), "lengths": (7, 5)}
    assert draws(models[0]) and why_not_stacked(models[0]) is None
    alone = []
    for model in models:
        torch.manual_seed(7)
        alone.append(model(tokens, **given))
    assert not torch.allclose(alone[0], alone[1], atol=1e-2)
    assert share_frozen(models[1], models[0]) and share_frozen(models[2], models[0])
    assert models[1].model.embed_tokens.weight.data_ptr() == models[0].model.embed_tokens.weight.data_ptr()
    torch.manual_seed(7)
    one, drawn = OnePass(stack(models), models), []
    for place, model in enumerate(models):
        with one.called_by(place):
            hidden = model(tokens, **given)
        torch.testing.assert_close(hidden, alone[place], rtol=1e-5, atol=1e-5)
        drawn.append(torch.rand(1))
    assert drawn[0] == drawn[1] == drawn[2], "what a head draws follows on the pass, for each model alike"
    assert "forward" not in vars(models[0])


def test_models_of_other_bases_share_nothing() -> None:
    one, other = make(1, rank=2), make(1, rank=2, base=1)
    assert not share_frozen(other, one)


def test_a_model_that_is_trained_whole_in_part_is_not_stacked() -> None:
    model = make(1, rank=2)
    model.model.norm.weight.requires_grad_(True)
    assert why_not_stacked(model) == "model.norm.weight is trained whole"
    assert why_not_stacked(nn.Linear(2, 2)) == "only decoders that etude computes itself are stacked"
