"""The encoder against transformers, and against itself by other ways."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from etude.models.encoder import Encoder
from etude.models.encoder_config import EncoderConfig
from tests.models.encoders import CONFIGS, HEADS, ROBERTA, masked_logits, with_head

EVERY = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
EVERY_HEAD = pytest.mark.parametrize("head", HEADS)
LENGTHS = (7, 32, 1, 7, 12, 1, 7, 32)


@EVERY
@EVERY_HEAD
def test_outputs_equal_those_of_padded_rows_in_transformers(
    config: EncoderConfig, head: str, tmp_path: Path
) -> None:
    model, tokens, types = _model(config, head), _tokens(config), _types(config)
    theirs = _load_in_transformers(model, head, tmp_path)
    family = {"roberta": "Roberta", "bert": "Bert"}[config.family]
    kind = {"masked": "ForMaskedLM", "classification": "ForSequenceClassification", "none": "Model"}[head]
    assert type(theirs).__name__ == family + kind
    for token_types in (None, types):
        with torch.no_grad():
            hidden = model(tokens, lengths=LENGTHS, token_types=token_types)
            mask = _padded(torch.ones_like(tokens), 0)
            padded_types = None if token_types is None else _padded(token_types, 0)
            outputs = theirs(_padded(tokens, config.pad_id), attention_mask=mask, token_type_ids=padded_types)
        if head == "classification":
            _assert_close(model.classify(hidden, LENGTHS), outputs.logits)
        elif head == "masked":
            _assert_close(masked_logits(model, hidden)[0], outputs.logits[mask.bool()])
        else:
            _assert_close(hidden[0], outputs.last_hidden_state[mask.bool()])


@EVERY
def test_padding_tokens_within_a_text_are_counted_as_transformers_does(
    config: EncoderConfig, tmp_path: Path
) -> None:
    model = _model(config, "classification")
    theirs = _load_in_transformers(model, "classification", tmp_path)
    tokens = _tokens(config)[:, :24].view(2, 12).clone()
    tokens[0, 3:5] = tokens[1, 11] = config.pad_id
    with torch.no_grad():
        _assert_close(
            model.classify(model(tokens)), theirs(tokens, attention_mask=torch.ones_like(tokens)).logits
        )


@EVERY
@EVERY_HEAD
def test_what_transformers_saves_loads_here(config: EncoderConfig, head: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

    auto = {
        "masked": AutoModelForMaskedLM,
        "classification": AutoModelForSequenceClassification,
        "none": AutoModel,
    }[head]
    torch.manual_seed(3)
    extra = {} if head != "none" else {"add_pooling_layer": False}
    theirs = auto.from_config(
        AutoConfig.for_model(**with_head(config, head).to_hf()), attn_implementation="eager", **extra
    )
    theirs = theirs.apply(_noise).eval()
    theirs.save_pretrained(tmp_path)
    read = EncoderConfig.from_hf(json.loads((tmp_path / "config.json").read_text()))
    assert read == replace(with_head(config, head), tasks=())
    state = load_file(tmp_path / "model.safetensors")
    if head == "none":  # a body alone is saved without its name
        state = {f"{config.family}.{name}": tensor for name, tensor in state.items()}
    model = Encoder(with_head(config, head)).eval()
    tasks = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("tasks.")}
    model.load_state_dict(state | tasks, strict=True)
    tokens = _tokens(config)[:, :24].view(2, 12)
    with torch.no_grad():
        output, hidden = theirs(tokens), model(tokens)
    if head == "none":
        _assert_close(hidden, output.last_hidden_state)
    else:
        _assert_close(
            masked_logits(model, hidden) if head == "masked" else model.classify(hidden), output.logits
        )


@EVERY
@EVERY_HEAD
def test_gradients_reach_every_parameter_and_equal_those_of_transformers(
    config: EncoderConfig, head: str, tmp_path: Path
) -> None:
    model, tokens, types = _model(config, head), _tokens(config), _types(config)
    theirs = _load_in_transformers(model, head, tmp_path)
    mask = _padded(torch.ones_like(tokens), 0).bool()
    outputs = theirs(
        _padded(tokens, config.pad_id), attention_mask=mask.long(), token_type_ids=_padded(types, 0)
    )
    hidden = model(tokens, lengths=LENGTHS, token_types=types)
    if head == "none":
        ours, expected = hidden[0], outputs.last_hidden_state[mask]
    elif head == "masked":
        ours, expected = masked_logits(model, hidden)[0], outputs.logits[mask]
    else:
        ours, expected = model.classify(hidden, LENGTHS), outputs.logits
    for logits in (ours, expected):
        functional.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[1]).backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in model.named_parameters():
        if name.startswith("tasks."):
            continue
        expected_grad = gradients[name.removeprefix(f"{config.family}.") if head == "none" else name]
        assert parameter.grad is not None and expected_grad is not None, name
        # What is added to all keys alike changes no attention, so that its gradient is zero but for rounding.
        assert parameter.grad.abs().max() > 1e-5 or name.endswith("key.bias"), name
        assert (parameter.grad - expected_grad).abs().max() < 1e-5 * max(expected_grad.abs().max(), 0.1), name


@EVERY
def test_samples_do_not_see_each_other(config: EncoderConfig) -> None:
    model, tokens = _model(config, "classification"), _tokens(config)
    changed = tokens.clone()
    changed[0, 7:39] = changed[0, 7:39].flip(0)
    with torch.no_grad():
        before, after = (model.classify(model(row, lengths=LENGTHS), LENGTHS) for row in (tokens, changed))
        alone = torch.cat([model.classify(model(part)) for part in tokens.split(LENGTHS, dim=1)])
    others = [0, 2, 3, 4, 5, 6, 7]
    assert (after[1] - before[1]).abs().max() > 1e-3
    assert (after[others] - before[others]).abs().max() < 1e-6
    _assert_close(before, alone)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_checkpointed_activations_give_identical_gradients(dropout: float) -> None:
    model = _model(replace(ROBERTA, dropout=dropout, attention_dropout=dropout), "masked").train()
    gradients = []
    for checkpointed in (False, True):
        model.checkpoint_activations = checkpointed
        model.zero_grad()
        torch.manual_seed(5)
        masked_logits(model, model(_tokens(ROBERTA), lengths=LENGTHS)).logsumexp(-1).sum().backward()
        gradients.append(
            [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        )
    assert len(gradients[0]) == len(list(model.parameters()))
    assert all(torch.equal(plain, again) for plain, again in zip(*gradients, strict=True))


@EVERY
@pytest.mark.parametrize("name", ["dropout", "attention_dropout", "classifier_dropout"])
def test_each_dropout_acts_only_while_training(config: EncoderConfig, name: str) -> None:
    none: dict[str, Any] = {"dropout": 0.0, "attention_dropout": 0.0, "classifier_dropout": 0.0}
    model, tokens = _model(replace(config, **none | {name: 0.3}), "classification"), _tokens(config)

    def logits() -> Tensor:
        return model.classify(model(tokens, lengths=LENGTHS), LENGTHS)

    assert torch.equal(logits(), logits())
    model.train()
    assert not torch.equal(logits(), logits())


@EVERY
def test_autocast_keeps_the_stream_in_fp32_and_the_logits_near(config: EncoderConfig) -> None:
    model, tokens = _model(config, "masked"), _tokens(config)
    with torch.no_grad():
        exact = masked_logits(model, model(tokens, lengths=LENGTHS))
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model(tokens, lengths=LENGTHS)
            rough = masked_logits(model, hidden)
    assert hidden.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()


@EVERY
@EVERY_HEAD
def test_new_weights_follow_the_seed_and_are_spread_as_in_transformers(
    config: EncoderConfig, head: str
) -> None:
    from transformers import AutoConfig, AutoModelForMaskedLM

    model, again = (Encoder(with_head(config, head)) for _ in range(2))
    model.init_weights(7)
    again.init_weights(7)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters()))
    again.init_weights(8)
    assert not torch.equal(model.head_weight(), again.head_weight())
    if head == "masked":
        torch.manual_seed(0)
        theirs = AutoModelForMaskedLM.from_config(
            AutoConfig.for_model(**with_head(config, head).to_hf())
        ).state_dict()
        for name, parameter in model.named_parameters():
            error = 5 * 0.02 * math.sqrt(2 / parameter.numel())  # of the difference of two draws
            assert abs(parameter.mean() - theirs[name].mean()) < error, name
            assert abs(parameter.std(correction=0) - theirs[name].std(correction=0)) < error, name
            assert torch.equal(parameter == 0, theirs[name] == 0), name
        assert model.head_weight()[config.pad_id].abs().max() == 0


def test_state_holds_parameters_alone_and_the_tied_matrix_once() -> None:
    model = Encoder(with_head(ROBERTA, "masked"))
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
    assert {name for name in model.state_dict() if name.startswith("lm_head")} == {
        "lm_head.bias", "lm_head.dense.weight", "lm_head.dense.bias", "lm_head.layer_norm.weight",
        "lm_head.layer_norm.bias",
    }  # fmt: skip
    assert model.head_weight() is model.get_parameter("roberta.embeddings.word_embeddings.weight")


def _model(config: EncoderConfig, head: str) -> Encoder:
    """With weights large enough that a mistake shows."""
    model = Encoder(with_head(config, head))
    model.init_weights(3)
    return model.apply(_noise).eval()


@torch.no_grad()
def _noise(module: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(11)
    for parameter in module.parameters(recurse=False):
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def _tokens(config: EncoderConfig) -> Tensor:
    """(1, N), without the padding token."""
    generator = torch.Generator().manual_seed(5)
    return torch.randint(config.pad_id + 1, config.vocab_size, (1, sum(LENGTHS)), generator=generator)


def _types(config: EncoderConfig) -> Tensor:
    return torch.arange(sum(LENGTHS))[None] // 3 % config.type_vocab_size


def _padded(row: Tensor, value: int) -> Tensor:
    """The samples of a row (1, N) as rows, filled to the longest."""
    return torch.nn.utils.rnn.pad_sequence(row[0].split(LENGTHS), batch_first=True, padding_value=value)


def _load_in_transformers(model: Encoder, head: str, folder: Path) -> Any:
    from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

    auto = {
        "masked": AutoModelForMaskedLM,
        "classification": AutoModelForSequenceClassification,
        "none": AutoModel,
    }[head]
    (folder / "config.json").write_text(json.dumps(model.config.to_hf()))
    state = {name: part for name, part in model.state_dict().items() if not name.startswith("tasks.")}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    extra = {} if head != "none" else {"add_pooling_layer": False}
    loaded, report = auto.from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True, **extra
    )
    assert not any(report.values()), report
    return loaded.eval()


def _assert_close(ours: Tensor, expected: Tensor) -> None:
    """Within 1e-5 of the largest."""
    assert ours.shape == expected.shape
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()
