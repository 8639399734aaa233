"""The encoder-decoder against transformers, and against itself by other ways."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from etude.models.t5 import T5, T5Cache
from etude.models.t5_config import T5Config
from etude.models.weights import keeps_fp32

V10 = T5Config(
    vocab_size=97,
    n_layer=3,
    n_decoder_layer=2,
    n_head=4,
    n_embd=32,
    n_ffn=80,
    head_dim=8,
    buckets=8,
    max_distance=20,
)
CONFIGS = {
    "t5": V10,
    "t5 1.1": replace(V10, activation="gated-gelu", tied=False, scaled=False, n_decoder_layer=4),
    "t5 wide heads": replace(V10, n_head=3, head_dim=12, buckets=32, max_distance=128, norm_eps=1e-5),
    "t5 narrow heads": replace(V10, n_head=2, head_dim=4, activation="gated-silu", scaled=False),
    "t5 untied and scaled": replace(V10, activation="gelu", tied=False, buckets=9),
}
EVERY = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
SOURCES, TARGETS = (9, 30, 9, 1, 17, 9), (5, 12, 5, 7, 5, 1)


@EVERY
def test_folder_loads_in_transformers_with_equal_logits_loss_and_gradients(
    config: T5Config, tmp_path: Path
) -> None:
    model = _model(config).train()
    theirs = _load_in_transformers(model, tmp_path).train()
    sources, targets = _samples(config, SOURCES), _samples(config, TARGETS)
    labels = _samples(config, TARGETS, seed=3)
    hidden = model(_row(sources), _row(targets), source_lengths=SOURCES, target_lengths=TARGETS)
    loss = functional.cross_entropy(hidden[0] @ model.head_weight().T, _row(labels)[0])
    loss.backward()
    output = theirs(
        input_ids=_pad(sources), attention_mask=_pad(sources, mask=True), decoder_input_ids=_pad(targets),
        decoder_attention_mask=_pad(targets, mask=True), labels=_pad(labels, fill=-100),
    )  # fmt: skip
    output.loss.backward()
    expected = torch.cat([row[:length] for row, length in zip(output.logits, TARGETS)])
    _assert_close(hidden[0] @ model.head_weight().T, expected)
    _assert_close(loss, output.loss)
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert gradients.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        _assert_close(parameter.grad, gradients[name])


@EVERY
def test_folder_of_transformers_loads_strictly(config: T5Config, tmp_path: Path) -> None:
    model = _model(config)
    theirs = _load_in_transformers(model, tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    tensors = load_file(tmp_path / "theirs" / "model.safetensors")
    values = json.loads((tmp_path / "theirs" / "config.json").read_text())
    read = T5Config.from_hf(values, has_head="lm_head.weight" in tensors)
    assert read == config
    loaded = T5(read)
    loaded.load_state_dict(tensors, strict=True)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())


@EVERY
def test_encoder_equals_that_of_transformers(config: T5Config, tmp_path: Path) -> None:
    model, sources = _model(config), _samples(config, SOURCES)
    theirs = _load_in_transformers(model, tmp_path).encoder
    with torch.no_grad():
        expected = theirs(input_ids=_pad(sources), attention_mask=_pad(sources, mask=True)).last_hidden_state
        _assert_close(
            model.encode(_row(sources), SOURCES)[0], torch.cat([e[:n] for e, n in zip(expected, SOURCES)])
        )
        _assert_close(model.encode(sources[1][None])[0], expected[1, : SOURCES[1]])


@EVERY
def test_greedy_tokens_by_the_cache_equal_those_of_generate(config: T5Config, tmp_path: Path) -> None:
    # The cache of transformers has no room for more decoder than encoder blocks.
    model = _model(replace(config, n_decoder_layer=min(config.n_layer, config.n_decoder_layer)))
    with torch.no_grad():  # new weights say the same token again and again
        for name, parameter in model.decoder.named_parameters():
            parameter *= 10 if name.endswith((".wo.weight", ".o.weight")) else 1
    sources = _samples(config, SOURCES)
    theirs = _load_in_transformers(model, tmp_path)
    expected = theirs.generate(
        _pad(sources), attention_mask=_pad(sources, mask=True), max_new_tokens=25, do_sample=False,
        num_beams=1, eos_token_id=None,
    )  # fmt: skip
    assert len(expected.unique()) > 10
    assert _greedy(model, sources, 25) == expected[:, 1:].tolist()


@EVERY
def test_cached_logits_equal_those_of_one_pass(config: T5Config) -> None:
    model, sources, targets = (
        _model(config),
        _samples(config, SOURCES),
        _samples(config, (11,) * len(SOURCES)),
    )
    with torch.no_grad():
        hidden = model(
            _row(sources), _row(targets), source_lengths=SOURCES, target_lengths=(11,) * len(SOURCES)
        )
        expected = model.head(hidden).view(len(SOURCES), 11, -1)
        cache = model.start(_row(sources), SOURCES, 11)
        for place, tokens in enumerate(torch.stack(targets).T):
            _assert_close(model.advance(tokens, cache), expected[:, place])


def test_selected_rows_go_on_as_they_would_alone() -> None:
    """Rows are dropped, doubled and reordered, within a source and across sources."""
    model, sources = _model(V10), _samples(V10, (4, 9, 6))
    row_sources, read = [0, 1, 2], [[], [], []]  # type: tuple[list[int], list[list[int]]]
    with torch.no_grad():
        cache = model.start(_row(sources), (4, 9, 6), 8)
        for step, rows in enumerate([[0, 1, 2], [0, 0, 2, 1, 1], [1, 0, 2, 4, 3], [4, 2, 2], [1, 0, 0]]):
            cache.select(rows)
            row_sources, read = [row_sources[row] for row in rows], [[*read[row]] for row in rows]
            tokens = torch.tensor([(7 * step + 11 * row) % 97 for row in range(len(rows))])
            for row, token in zip(read, tokens.tolist()):
                row.append(token)
            logits = model.advance(tokens, cache)
            for row, (source, prefix) in enumerate(zip(row_sources, read)):
                _assert_close(logits[row], _alone(model, sources[source], torch.tensor(prefix))[-1])


def test_refilled_rows_begin_anew_and_the_others_go_on() -> None:
    """A shorter and a longer source come later, more than once, and the cache grows beyond its
    first columns."""
    model, sources = _model(V10), _samples(V10, (4, 9, 6, 3, 12))
    row_sources, read = [0, 1, 2], [[], [], []]  # type: tuple[list[int], list[list[int]]]
    with torch.no_grad():
        cache = model.start(_row(sources[:3]), (4, 9, 6), 80)
        for step in range(150):
            for place, source in {40: [(1, 3)], 70: [(0, 4), (2, 1)], 120: [(1, 0)]}.get(step, []):
                cache.refill([place], model.start(sources[source][None], (len(sources[source]),), 80))
                row_sources[place], read[place] = source, []
            tokens = torch.tensor([(7 * step + 11 * row) % 97 for row in range(3)])
            for row, token in zip(read, tokens.tolist()):
                row.append(token)
            logits = model.advance(tokens, cache)
            if step % 29 == 0 or step in (40, 70, 120, 121):
                for row, (source, prefix) in enumerate(zip(row_sources, read)):
                    _assert_close(logits[row], _alone(model, sources[source], torch.tensor(prefix))[-1])


def test_samples_are_kept_apart() -> None:
    model = _model(V10)
    sources, targets = _samples(V10, SOURCES), _samples(V10, TARGETS)
    together = model(_row(sources), _row(targets), source_lengths=SOURCES, target_lengths=TARGETS)
    alone = [_alone(model, source, target) for source, target in zip(sources, targets)]
    _assert_close(model.head(together)[0], torch.cat(alone))
    changed = [sources[0], *(torch.full_like(source, 5) for source in sources[1:])]
    apart = model(_row(changed), _row(targets), source_lengths=SOURCES, target_lengths=TARGETS)
    assert torch.equal(apart[:, : TARGETS[0]], together[:, : TARGETS[0]])
    assert not torch.allclose(apart[:, TARGETS[0] :], together[:, TARGETS[0] :])


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_checkpointed_activations_give_identical_gradients(dropout: float) -> None:
    model = _model(replace(V10, dropout=dropout)).train()
    gradients = []
    for model.checkpoint_activations in (False, True):
        torch.manual_seed(1)
        _loss(model).backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        model.zero_grad(set_to_none=True)
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_dropout_stands_where_that_of_transformers_stands(tmp_path: Path) -> None:
    """Mean and spread of the logits over many draws are the same, with the same weights."""
    config = replace(V10, dropout=0.3)
    model = _model(config).train()
    theirs = _load_in_transformers(model, tmp_path).train()
    source, target = _samples(config, (6,))[0].repeat(2000, 1), _samples(config, (4,))[0].repeat(2000, 1)
    torch.manual_seed(2)
    with torch.no_grad():
        hidden = model(
            source.view(1, -1), target.view(1, -1), source_lengths=(6,) * 2000, target_lengths=(4,) * 2000
        )
        ours = model.head(hidden).view(2000, 4, -1)
        expected = theirs(input_ids=source, decoder_input_ids=target).logits
    error = expected.std(0) / 2000**0.5
    assert ((ours.mean(0) - expected.mean(0)) / error).square().mean() < 2.5  # 2 where both are alike
    assert ((ours.std(0) - expected.std(0)) / error).square().mean() < 1.5  # 1 where both are alike
    assert (ours.std(0).mean() / expected.std(0).mean() - 1).abs() < 0.01


@pytest.mark.parametrize("activation", ["relu", "gated-gelu"])
def test_weights_that_overflow_in_fp16_give_finite_results_under_autocast(activation: str) -> None:
    model = _model(replace(V10, activation=activation))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".wo." in name:
                parameter *= 3e5
    expected = _logits(model).detach()
    plain = _model(model.config).half()
    plain.load_state_dict(model.state_dict())
    assert not _logits(plain).isfinite().all()
    with torch.autocast("cpu", torch.float16):
        ours = _logits(model)
        loss = _loss(model)
    assert ours.isfinite().all()
    assert (ours.float() - expected).abs().max() < 0.01 * expected.abs().max()
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    with torch.autocast("cpu", torch.float16), torch.no_grad():
        cached = _cached(model)
    assert (cached - expected[0, : TARGETS[0]]).abs().max() < 0.01 * expected.abs().max()


def test_weights_in_half_precision_keep_norms_and_fp16_wo_in_fp32() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        model = _model(V10)
        expected = _logits(model)
        for name, parameter in model.named_parameters():
            parameter.data = parameter.data.to(torch.float32 if keeps_fp32(name, dtype) else dtype)
        kept = {name for name, parameter in model.named_parameters() if parameter.dtype == torch.float32}
        assert any(".wo." in name for name in kept) is (dtype == torch.float16)
        assert all("norm" in name or ".wo." in name for name in kept)
        with torch.autocast("cpu", dtype):
            logits = _logits(model)
        assert (logits - expected).abs().max() < 0.03 * expected.abs().max()


def test_new_weights_have_the_spread_that_transformers_gives_them() -> None:
    from transformers import T5Config as TheirConfig
    from transformers import T5ForConditionalGeneration

    config = replace(
        V10, n_embd=64, n_ffn=256, head_dim=32, vocab_size=500, buckets=32, activation="gated-gelu"
    )
    ours, again, other = T5(config), T5(config), T5(config)
    for model, seed in ((ours, 1), (again, 1), (other, 2)):
        model.init_weights(seed)
    theirs = T5ForConditionalGeneration(TheirConfig(**config.to_hf(eos_id=1, pad_id=0)))
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert torch.equal(parameter, dict(again.named_parameters())[name])
        if "norm" in name:
            assert torch.equal(parameter, expected[name])
        else:
            assert not torch.equal(parameter, dict(other.named_parameters())[name])
            tolerance = 5 / parameter.numel() ** 0.5
            assert abs(parameter.std().item() / expected[name].std().item() - 1) < tolerance, name


def _model(config: T5Config) -> T5:
    """All weights random, norms too, and small enough that scores are not one-hot."""
    model = T5(config)
    model.init_weights(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
            if "relative" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.eval()


def _load_in_transformers(model: T5, folder: Path) -> Any:
    from transformers import AutoModelForSeq2SeqLM

    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model.config.to_hf(eos_id=1, pad_id=0)))
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    theirs, report = AutoModelForSeq2SeqLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    return theirs


def _samples(config: T5Config, lengths: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed + sum(lengths))
    return [torch.randint(2, config.vocab_size, (length,), generator=generator) for length in lengths]


def _row(samples: list[Tensor]) -> Tensor:
    return torch.cat(samples)[None]


def _pad(samples: list[Tensor], *, fill: int = 0, mask: bool = False) -> Tensor:
    rows = [torch.ones_like(sample) if mask else sample for sample in samples]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill)


def _alone(model: T5, source: Tensor, target: Tensor) -> Tensor:
    lengths = {"source_lengths": (len(source),), "target_lengths": (len(target),)}
    return model.head(model(source[None], target[None], **lengths))[0]


def _logits(model: T5) -> Tensor:
    sources, targets = _samples(model.config, SOURCES), _samples(model.config, TARGETS)
    return model.head(model(_row(sources), _row(targets), source_lengths=SOURCES, target_lengths=TARGETS))


def _loss(model: T5) -> Tensor:
    labels = _row(_samples(model.config, TARGETS, seed=3))[0]
    return functional.cross_entropy(_logits(model)[0].float(), labels)


def _greedy(model: T5, sources: list[Tensor], steps: int) -> list[list[int]]:
    drawn = []
    with torch.no_grad():
        cache = model.start(_row(sources), tuple(map(len, sources)), steps)
        tokens = torch.full((len(sources),), model.config.start_id)
        for _ in range(steps):
            tokens = model.advance(tokens, cache).argmax(dim=-1)
            drawn.append(tokens)
    return torch.stack(drawn, dim=1).tolist()


def _cached(model: T5) -> Tensor:
    """Logits of the first sample's target, a token at a time beside the other samples' sources."""
    sources, target = _samples(model.config, SOURCES), _samples(model.config, TARGETS)[0]
    cache: T5Cache = model.start(_row(sources), SOURCES, len(target))
    return torch.stack([model.advance(token.expand(len(sources)), cache)[0] for token in target])


def _assert_close(ours: Tensor | None, expected: Tensor) -> None:
    assert ours is not None and ours.shape == expected.shape
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()
