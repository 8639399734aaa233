"""The code bias against a slow loop, and the encoder with it against the plain one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from etude.data import lexer
from etude.errors import InputError
from etude.models.code_bias import _REACH, KINDS, LEVELS, CodeBias
from etude.models.encoder import Encoder
from etude.models.encoder_config import CODE_ENCODER, EncoderConfig
from etude.models.families.table import family_of

PLAIN = EncoderConfig(
    vocab_size=97, n_layer=2, n_head=4, n_embd=32, n_ffn=64, context=24, type_vocab_size=2, pad_id=0,
    family="bert", labels=3, dropout=0.0, attention_dropout=0.0,
)  # fmt: skip
LENGTHS = (7, 24, 1, 7, 12)
FORMS: tuple[Any, ...] = ("inside", "after")


def encoder(form: Any, *, drawn: bool = False, dropout: float = 0.0) -> Encoder:
    model = Encoder(replace(PLAIN, code_bias=form, dropout=dropout, attention_dropout=dropout))
    model.init_weights(3)
    if drawn:
        torch.manual_seed(9)
        for table in model.code_bias.parameters():
            torch.nn.init.normal_(table, std=0.1)
    return model


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(4)
    tokens = torch.randint(1, 97, (1, sum(LENGTHS)))
    columns = [torch.randint(0, most, tokens.shape) for most in (KINDS, LEVELS, LEVELS, 4)]
    return tokens, torch.stack(columns, dim=-1)


def test_data_and_model_count_kinds_and_levels_alike() -> None:
    assert (len(lexer.KINDS), lexer.LEVELS) == (KINDS, LEVELS)
    assert (lexer.KIND, lexer.BRACKETS, lexer.INDENTATION, lexer.IDENTIFIER) == (0, 1, 2, 3)


def test_the_bias_is_that_of_a_slow_loop() -> None:
    model, (_, code) = encoder("inside", drawn=True).code_bias, batch()
    with torch.no_grad():
        ours = model(code[0, :24], [(2, 12)])[0]
    code = code[:, :24].view(2, 12, 4)
    tables = {name: table.detach().double().numpy() * _REACH for name, table in model.named_parameters()}
    expected = np.zeros((2, 4, 12, 12))
    for sample, head, query, key in np.ndindex(*expected.shape):
        a, b = code[sample, query].tolist(), code[sample, key].tolist()
        expected[sample, head, query, key] = (
            tables["kinds"][head, a[0], b[0]]
            + tables["brackets"][head, a[1] - b[1] + LEVELS - 1]
            + tables["indentation"][head, a[2] - b[2] + LEVELS - 1]
            + (tables["same"][head] if a[3] == b[3] and a[3] > 0 else 0.0)
        )
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-5)


def test_training_starts_at_the_plain_encoder() -> None:
    tokens, code = batch()
    plain, inside, after = encoder("off"), encoder("inside"), encoder("after")
    with torch.no_grad():
        hidden = plain(tokens, lengths=LENGTHS)
        torch.testing.assert_close(inside(tokens, lengths=LENGTHS, code=code), hidden, atol=1e-5, rtol=1e-5)
        runs = after(tokens, lengths=LENGTHS, code=code)
        torch.testing.assert_close(runs, after(tokens, lengths=LENGTHS, code=torch.zeros_like(code)))
    for model in (inside, after):
        weights = model.state_dict()
        assert all(torch.equal(weights[name], value) for name, value in plain.state_dict().items())
        assert not any(table.any() for table in model.code_bias.parameters())


def test_the_bias_inside_is_that_of_an_additive_mask_in_transformers() -> None:
    from transformers import BertConfig, BertModel

    tokens, code = batch()
    model = encoder("inside", drawn=True)
    theirs = BertModel(BertConfig(**encoder("off").config.to_hf(), attn_implementation="eager")).eval()
    state = model.state_dict()
    theirs.load_state_dict({name: state[f"bert.{name}"] for name in theirs.state_dict()})
    with torch.no_grad():
        ours = model(tokens, lengths=LENGTHS, code=code).split(LENGTHS, dim=1)
        biases = model.code_bias(code[0], [(1, length) for length in LENGTHS])
        for hidden, part, bias in zip(ours, tokens.split(LENGTHS, dim=1), biases, strict=True):
            expected = theirs(part, attention_mask=bias).last_hidden_state
            torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_other_code_gives_other_states(form: Any) -> None:
    (tokens, code), model = batch(), encoder(form, drawn=True)
    with torch.no_grad():
        ours, other = (model(tokens, lengths=LENGTHS, code=each) for each in (code, torch.zeros_like(code)))
    assert not torch.allclose(ours, other, atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_samples_do_not_see_how_they_are_laid_out(form: Any) -> None:
    tokens, code = batch()
    model = encoder(form, drawn=True)
    with torch.no_grad():
        whole = model(tokens, lengths=LENGTHS, code=code).split(LENGTHS, dim=1)
        for part, *alone in zip(whole, tokens.split(LENGTHS, dim=1), code.split(LENGTHS, dim=1)):
            torch.testing.assert_close(part, model(alone[0], code=alone[1]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_gradients_reach_every_table_also_with_checkpointed_activations(form: Any, dropout: float) -> None:
    tokens, code = batch()
    model = encoder(form, drawn=True, dropout=dropout).train()
    gradients = []
    for model.checkpoint_activations in (False, True):
        model.zero_grad()
        torch.manual_seed(5)
        model.classify(model(tokens, lengths=LENGTHS, code=code), LENGTHS).logsumexp(1).sum().backward()
        gradients.append(
            [table.grad.clone() for table in model.code_bias.parameters() if table.grad is not None]
        )
    assert len(gradients[0]) == 4
    assert all(
        bool(plain.any()) and torch.equal(plain, again) for plain, again in zip(*gradients, strict=True)
    )


def test_parameters_are_counted_exactly() -> None:
    tables = PLAIN.n_head * (1 + 2 * (2 * LEVELS - 1) + KINDS**2)
    layer = 4 * (32 * 32 + 32) + 2 * 32
    plain, inside, after = (
        family_of(PLAIN).measure(replace(PLAIN, code_bias=form), PLAIN.labels, 1, 0)[0]["total"]
        for form in ("off", *FORMS)
    )
    assert (inside - plain, after - plain) == (tables, tables + layer)
    assert sum(table.numel() for table in CodeBias(8).parameters()) == 8 * 144


@pytest.mark.parametrize("form", FORMS)
def test_config_json_says_that_it_is_no_bert(form: Any) -> None:
    plain, values = (replace(PLAIN, code_bias=kind).to_hf() for kind in ("off", form))
    assert plain["model_type"] == "bert" and "code_bias" not in plain
    assert (values["model_type"], values["code_bias"]) == (CODE_ENCODER, form) and "Bert" not in str(values)
    with pytest.raises(InputError, match="etude_code_encoder"):
        EncoderConfig.from_hf(values)
