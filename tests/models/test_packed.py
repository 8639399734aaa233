"""Generation by the packed layout."""

from dataclasses import replace

import pytest
import torch

from etude.models.cache import Cache
from etude.models.decoder_config import DecoderConfig
from etude.models.lora import add_adapter
from etude.models.packed import TokenReader, is_worth_it
from etude.recipe.model import Adapter
from tests.models.decoders import CONFIGS, assert_equal_logits, random_decoder, random_tokens


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_logits_are_those_of_one_pass(config: DecoderConfig) -> None:
    model, tokens, lengths = random_decoder(config), random_tokens(config, 3, 24), (9, 1, 14)
    cache = Cache(config, 3, 24, dtype=torch.float32, device=torch.device("cpu"))
    assert is_worth_it(model, 3)
    with torch.no_grad():
        expected = model.logits(tokens)
        prompts = torch.cat([row[:length] for row, length in zip(tokens, lengths)])[None]
        positions = torch.cat([torch.arange(length) for length in lengths])[None]
        model(prompts, positions=positions, lengths=lengths, cache=cache)
        read = TokenReader(model, cache)
        for step in range(10):
            places = torch.tensor(lengths) + step
            assert_equal_logits(
                read(tokens.gather(1, places[:, None])[:, 0]), expected[torch.arange(3), places]
            )


def test_adapters_half_precision_and_many_rows_take_the_plain_way() -> None:
    config = replace(CONFIGS["llama"], tied=True)
    model = random_decoder(config)
    assert is_worth_it(model, 32) and not is_worth_it(model, 33)
    assert not is_worth_it(random_decoder(config).bfloat16(), 1)
    add_adapter(model, {"model.layers.0.self_attn.q_proj": Adapter(rank=2)}, seed=1)
    assert not is_worth_it(model, 1)
