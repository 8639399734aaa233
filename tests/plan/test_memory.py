"""The memory of a step that is traced without numbers is that of the step when it is run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from etude.data.batch import Batch
from etude.engine.precision import has_native_bf16
from etude.models.decoder_config import DecoderConfig
from etude.models.families.table import family_of
from etude.models.pretrained import inspect_model, load_pretrained
from etude.objectives.causal import Causal
from etude.objectives.classification import Classification
from etude.objectives.masked import Masked
from etude.objectives.seq2seq import Seq2Seq
from etude.plan import make_plan, memory
from etude.plan.memory import (
    Subject,
    UntraceableError,
    about_memory,
    estimate_memory,
    full_rows,
    memory_of,
)
from etude.recipe.schema import Recipe
from tests.bases import write_model
from tests.models.folders import THEIRS

from .steps import (
    CPU,
    LORA,
    RECOMPUTED,
    decoder,
    encoder,
    encoder_decoder,
    end_to_end,
    measured_peak,
    pairs,
    recipe_of,
    rows,
    subject,
)

Make = Callable[..., Recipe]
ENCODER, T5 = {"kind": "encoder"}, {"kind": "encoder-decoder"}
MASKED = recipe_of(train={"objective": "masked"}, model=ENCODER)
SEQ2SEQ = recipe_of(train={"objective": "seq2seq"}, model=T5)
LENGTHS = (40, 9, 40, 70)

CASES: dict[str, Subject] = {
    "decoder": subject(recipe_of(), decoder(), Causal(), rows(4, 64)),
    "packed, grouped heads": subject(
        recipe_of(), decoder(n_kv_head=2, qk_norm=True), Causal(), end_to_end(LENGTHS)
    ),
    "recomputed": subject(recipe_of(**RECOMPUTED), decoder(), Causal(), rows(8, 64)),
    "accumulated": subject(recipe_of(), decoder(), Causal(), rows(4, 64), accumulates=True),
    "adapter": subject(recipe_of(**LORA), decoder(qkv_bias=True, tied=False), Causal(), rows(4, 64)),
    "window": subject(recipe_of(), decoder(sliding_window=16), Causal(), rows(4, 64)),
    "muon": subject(recipe_of(optim={"kind": "muon"}), decoder(), Causal(), rows(4, 64)),
    "labels": subject(recipe_of(), decoder(), Classification(False), rows(4, 64, labels=3), labels=3),
    "encoder": subject(MASKED, encoder(dropout=0.1, attention_dropout=0.1), Masked(), end_to_end(LENGTHS, every=7)),
    "encoder with labels, recomputed": subject(
        recipe_of(**RECOMPUTED), encoder(labels=3), Classification(True), rows(4, 64, labels=3), labels=3
    ),
    "encoder-decoder": subject(SEQ2SEQ, encoder_decoder(dropout=0.1), Seq2Seq(), pairs(LENGTHS, (9, 9, 30, 20))),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_traced_peak_is_the_measured_one(name: str) -> None:
    case = CASES[name]
    traced, measured = estimate_memory(case), measured_peak(case)
    assert traced.peak == pytest.approx(measured, rel=0.005), (traced, measured)
    assert sum(traced.parts.values()) == traced.peak == max(traced.phases.values())


@pytest.mark.skipif(not has_native_bf16(CPU), reason="this CPU emulates bf16")
@pytest.mark.parametrize("name", ["decoder", "packed, grouped heads", "adapter", "recomputed"])
def test_so_it_is_in_bf16(name: str) -> None:
    case = replace(CASES[name], precision="bf16")
    assert estimate_memory(case).peak == pytest.approx(measured_peak(case), rel=0.01)


@pytest.mark.skipif(not has_native_bf16(CPU), reason="this CPU emulates bf16")
@pytest.mark.parametrize(("count", "length"), [(1, 32), (2, 64), (2, 128), (4, 128), (1, 250)])
@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_in_bf16_takes_no_more_than_is_said(count: int, length: int, dora: bool) -> None:
    """oneDNN lays out the head anew for each chunk of the loss, which is much beside few tokens."""
    recipe = recipe_of(model=LORA["model"], adapter=LORA["adapter"] | {"dora": dora})
    case = subject(recipe, decoder(n_embd=128, n_ffn=256), Causal(), rows(count, length), precision="bf16")
    traced, measured = estimate_memory(case).peak, measured_peak(case)
    assert 0.99 * measured < traced < 1.03 * measured


@pytest.mark.parametrize("name", CASES)
def test_weights_and_their_state_are_counted_exactly(name: str) -> None:
    case = CASES[name]
    parts = estimate_memory(case).parts
    model = family_of(case.model).empty(case.model, case.labels)
    count = sum(parameter.numel() for parameter in model.parameters())
    if case.recipe.adapter is None:
        assert parts["weights"] == 4 * count
        assert parts["optimizer state"] >= 4 * count
    else:
        adapter = parts["weights"] - 4 * count
        assert 0 < adapter < count
        tensors = 2 * sum(each.dim() == 2 and "embed" not in name for name, each in model.named_parameters())
        assert parts["optimizer state"] == 2 * adapter + 4 * (tensors - 2)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_more_rows_and_longer_ones_take_more(device: str) -> None:
    one = replace(CASES["decoder"], device=torch.device(device), precision="bf16")

    def peak(count: int, length: int) -> int:
        return estimate_memory(replace(one, batch=rows(count, length))).peak

    sizes = [peak(1, 32), peak(2, 32), peak(4, 32), peak(4, 64), peak(4, 128)]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("name", ["decoder", "labels", "encoder", "encoder-decoder"])
def test_recomputation_never_keeps_more(name: str) -> None:
    case = CASES[name]
    train = case.recipe.train.model_copy(update={"activation_checkpointing": True})
    less = replace(case, recipe=case.recipe.model_copy(update={"train": train}))
    before, after = estimate_memory(case), estimate_memory(less)
    assert after.parts.get("saved activations", 0) < before.parts["saved activations"]
    assert after.peak <= before.peak


def test_a_gpu_needs_not_be_there() -> None:
    plain = replace(CASES["decoder"], device=torch.device("cuda"), precision="bf16")
    for case in (plain, replace(plain, batch=end_to_end(LENGTHS))):
        made = estimate_memory(case)
        assert made.reserved >= made.peak == sum(made.parts.values())
        assert made.parts["cast weights"] > 0


# Measured on an H100 with torch 2.11: torch.cuda.max_memory_allocated of three steps with bf16 autocast.
GPU_CASES = {
    "full, 4 rows": (4, False, False, 16, 7_206_182_400),
    "full, 2 times 4 rows": (4, True, False, 16, 7_916_048_896),
    "full, 16 rows": (16, False, False, 16, 19_064_233_472),
    "full, 16 rows, recomputed": (16, False, True, 16, 5_583_796_224),
    "full, grouped heads": (4, False, False, 4, 6_639_951_360),
}


@pytest.mark.parametrize("name", GPU_CASES)
def test_the_traced_peak_is_that_of_a_gpu(name: str) -> None:
    count, accumulates, recomputed, heads, measured = GPU_CASES[name]
    config = DecoderConfig(
        vocab_size=50_257, n_layer=12, n_head=16, n_kv_head=heads, n_embd=1024, n_ffn=2048, head_dim=64,
        context=2048, tied=True,
    )  # fmt: skip
    ids = np.zeros((count, 2048), dtype=np.int64)
    case = subject(
        recipe_of(train={"activation_checkpointing": recomputed}), config, Causal(),
        Batch(tokens=ids, labels=ids), accumulates=accumulates, device=torch.device("cuda"), precision="bf16",
    )  # fmt: skip
    assert estimate_memory(case).peak == pytest.approx(measured, rel=0.002)


def test_layers_that_differ_are_all_traced() -> None:
    apart = replace(CASES["decoder"], model=decoder(sliding_window=16, n_layer=4))
    whole = replace(CASES["decoder"], model=decoder(n_layer=4))
    assert estimate_memory(apart).peak != estimate_memory(whole).peak


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "gpt_neox"])
def test_models_of_transformers_are_traced(kind: str, tmp_path: Path) -> None:
    write_model(tmp_path, *THEIRS[kind])
    pretrained = inspect_model(tmp_path, "causal")
    recipe = recipe_of(model={"from": str(tmp_path)})
    ids = end_to_end((20, 9, 30))
    batch = replace(ids, tokens=ids.tokens % 61, labels=ids.labels % 61)
    case = subject(recipe, pretrained.config, Causal(), batch)

    def load() -> Any:
        return load_pretrained(pretrained, dtype=torch.float32, dropout=0.0)[0]

    assert estimate_memory(case).peak == pytest.approx(measured_peak(case, load), rel=0.01)


def test_a_model_that_looks_at_numbers_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path, *THEIRS["mixtral with a window"])
    pretrained = inspect_model(tmp_path, "causal")
    recipe = recipe_of(model={"from": str(tmp_path)})
    with pytest.raises(UntraceableError, match="cannot be traced for this model"):
        estimate_memory(subject(recipe, pretrained.config, Causal(), rows(2, 16)))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("size", [1, 4, 8])
def test_one_and_two_layers_tell_about_the_others(make_recipe: Make, device: str, size: int) -> None:
    wide = {"model.n_embd": 64, "model.n_ffn": 256, "model.n_layer": 8, "train.seq_len": 128}
    plan = replace(make_plan(make_recipe(wide)), device=torch.device(device), precision="bf16")
    assert about_memory(plan, size) == pytest.approx(memory_of(plan, size).device_bytes, rel=0.02)
    assert about_memory(make_plan(make_recipe()), size) is None


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_ranks_take_no_copy_of_the_gradients_beside_them(device: str) -> None:
    alone = replace(CASES["decoder"], device=torch.device(device))
    train = alone.recipe.train.model_copy(update={"devices": 2})
    several = replace(alone, recipe=alone.recipe.model_copy(update={"train": train}))
    one, two = estimate_memory(alone), estimate_memory(several)
    assert two.phases["optimizer"] == pytest.approx(one.phases["optimizer"], rel=0.001)
    assert two.peak == pytest.approx(one.peak, rel=0.001)


def test_no_random_number_is_taken() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    estimate_memory(CASES["encoder"])
    assert torch.equal(before, torch.get_rng_state())


def test_rows_are_assumed_full_without_data() -> None:
    assert full_rows(recipe_of(), 3).tokens.shape == (3, 64)
    assert full_rows(SEQ2SEQ, 3).target_lengths == (64, 64, 64)
    scored = full_rows(MASKED, 4).scored
    assert scored is not None and len(scored) == int(0.15 * 4 * 64)
    labelled = full_rows(recipe_of(), 2, labels=5)
    assert labelled.classes is not None and np.shape(labelled.classes) == (2, 5)


def test_the_largest_tensors_at_the_peak_are_named() -> None:
    shares = estimate_memory(CASES["decoder"]).shares
    assert [share.nbytes for share in shares] == sorted((share.nbytes for share in shares), reverse=True)
    assert any(share.place == "model.layers.*.mlp" and share.count == 3 for share in shares)


@pytest.mark.parametrize("changes", [{}, RECOMPUTED, LORA], ids=["whole", "recomputed", "adapter"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_very_many_layers_take_what_their_whole_trace_does(
    changes: dict[str, Any], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = subject(recipe_of(**changes), decoder(n_layer=14), Causal(), rows(4, 64))
    case = replace(case, device=torch.device(device))
    whole = estimate_memory(case)
    monkeypatch.setattr(memory, "_MANY_LAYERS", 8)
    monkeypatch.setattr(memory, "_SOME_LAYERS", (4, 7))
    line = memory._memory_by_layers(case)
    assert (line.phase, line.shares) == (whole.phase, ()) and sum(line.parts.values()) == line.peak
    assert line.peak == pytest.approx(whole.peak, rel=0.005)
    assert line.device_bytes == pytest.approx(whole.device_bytes, rel=0.02)
