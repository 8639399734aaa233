"""Quantised exports: what other readers compute from them, what they cost, and what is refused without a trace."""

import errno
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from etude import durable
from etude.errors import FaultError, InputError, StorageError
from etude.evaluate.generate import generate
from etude.export import export, load_model
from etude.models.compressed import Scheme
from etude.models.pretrained import inspect_model
from etude.quantize.export import export_quantized
from etude.quantize.packed import Settings
from etude.recipe.load import recipe_from
from etude.records.store import Run
from etude.report.quantized import Packed, Quantized
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_corpus, write_gptj, write_instructions, write_labelled, write_pairs, write_qwen2
from tests.recipes import classification, finetuning, seq2seq, tiny

Made = Callable[..., tuple[Quantized, Path]]
TOKENS = torch.arange(5, 45).reshape(2, 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(cache))
        yield tmp_path_factory.mktemp("quantize")


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    """A decoder from scratch."""
    values = tiny(write_corpus(folder / "corpus.jsonl", 60))
    return run_recipe(recipe_from(values), Options(runs=folder / "runs")).run


@pytest.fixture(scope="module")
def tuned(folder: Path) -> Run:
    """An adapter on a base in bf16, whose answers are scored."""
    base = write_qwen2(folder / "qwen2", dtype=torch.bfloat16)
    rows = write_instructions(folder / "rows.jsonl")
    changes = {"adapter": {"rank": 4, "alpha": 8.0}, "train.steps": 6, "evaluate.answers": 4}
    recipe = finetuning(rows, base, {**changes, "evaluate.answer_tokens": 8})
    return run_recipe(recipe, Options(runs=folder / "runs")).run


@pytest.fixture(scope="module")
def four(run: Run, folder: Path) -> tuple[Quantized, Path]:
    """The decoder in four bits."""
    out = folder / "four"
    return export_quantized(str(run.path), Settings(bits=4, most_loss=1.0), out), out


def dequantized(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a folder by the description of the layout, number by number, without etude."""
    tensors, config = (
        load_file(folder / "model.safetensors"),
        json.loads((folder / "config.json").read_text()),
    )
    bits = config["quantization_config"]["config_groups"]["group_0"]["weights"]["num_bits"]
    whole = {name: tensor for name, tensor in tensors.items() if ".weight_" not in name}
    for name in [name for name in tensors if name.endswith("weight_packed")]:
        stem = name.removesuffix("_packed")
        outputs, inputs = tensors[f"{stem}_shape"].tolist()
        words, scales = tensors[name].tolist(), tensors[f"{stem}_scale"]
        rows = []
        for row in words:
            stream = sum((word & 0xFFFFFFFF) << (32 * place) for place, word in enumerate(row))
            raised = [(stream >> (bits * place)) & ((1 << bits) - 1) for place in range(inputs)]
            rows.append([each - (1 << (bits - 1)) for each in raised])
        assert len(rows) == outputs
        each = scales.repeat_interleave(inputs // scales.shape[1], dim=1)
        whole[stem] = torch.tensor(rows).to(scales.dtype) * each
    return whole


def theirs(folder: Path, kind: Any) -> Any:
    """A model of transformers with the weights that the layout describes."""
    from transformers import AutoConfig

    values = json.loads((folder / "config.json").read_text())
    values.pop("quantization_config")
    config = AutoConfig.for_model(**values)
    model = kind.from_config(config).float().eval()
    state = {name: tensor.float() for name, tensor in dequantized(folder).items()}
    found = model.load_state_dict(state, strict=False)
    assert not found.unexpected_keys
    model.tie_weights()
    return model


def test_transformers_computes_the_logits_that_etude_reads_back(four: tuple[Quantized, Path]) -> None:
    from transformers import AutoModelForCausalLM

    _, out = four
    ours = load_model(out, dtype=torch.float32)
    with torch.no_grad():
        expected = theirs(out, AutoModelForCausalLM)(input_ids=TOKENS).logits
        torch.testing.assert_close(ours.logits(TOKENS), expected, atol=1e-4, rtol=1e-4)  # type: ignore[operator]


def test_the_package_computes_the_same_logits(four: tuple[Quantized, Path]) -> None:
    pytest.importorskip("compressed_tensors", reason="the oracle is installed by hand")
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(four[1], dtype=torch.float32).eval()
    with torch.no_grad():
        ours = load_model(four[1], dtype=torch.float32).logits(TOKENS)  # type: ignore[operator]
        torch.testing.assert_close(model(input_ids=TOKENS).logits, ours, atol=1e-3, rtol=0)


def test_the_loss_and_its_difference_are_those_of_the_folder(four: tuple[Quantized, Path], run: Run) -> None:
    result, out = four
    loss = result.figures["loss"]
    assert loss.difference is not None and loss.difference[0] == pytest.approx(
        loss.made[0] - loss.original[0]
    )
    assert loss.difference[1] <= loss.difference[0] <= loss.difference[2]
    best = [record for record in run.ledger().entries if getattr(record.event, "loss", None)]
    assert best and result.figures["bits_per_byte"].difference is not None
    assert {"loss", "bits_per_byte"} <= result.figures.keys() and result.samples > 0
    card = (out / "README.md").read_text()
    assert result.form.title in card and "## Quantisation" in card
    assert "(before it was quantised)" in card and "(this model)" not in card


def test_a_file_has_the_size_of_the_arithmetic(four: tuple[Quantized, Path], run: Run, folder: Path) -> None:
    result, out = four
    whole = load_file(export(str(run.path), "hf", folder / "whole") / "model.safetensors")
    assert isinstance(result.form, Packed)
    scheme, total = Scheme(4, result.form.group), 0
    for name, tensor in whole.items():
        is_quantized = "layers." in name and name.endswith("proj.weight")
        total += scheme.stored_bytes(*tensor.shape, 4) if is_quantized else tensor.nbytes
    head = 8 + int.from_bytes((out / "model.safetensors").read_bytes()[:8], "little")
    assert result.file_bytes[1] == total + head
    assert (out / "model.safetensors").stat().st_size == result.file_bytes[1]


def test_eight_bits_cost_half_a_percent_at_most(run: Run, folder: Path) -> None:
    result = export_quantized(str(run.path), Settings(bits=8), folder / "eight")
    assert isinstance(result.form, Packed) and abs(result.loss) < 0.005
    assert result.form.method == "round" and result.form.group is None


def test_an_adapter_is_merged_and_its_answers_are_scored(tuned: Run, folder: Path) -> None:
    out = folder / "tuned"
    result = export_quantized(str(tuned.path), Settings(bits=8, group=32), out)
    assert {"loss", "stop_rate", "bleu"} <= result.figures.keys()
    tensors = load_file(out / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    assert tensors[f"{name}.weight_scale"].dtype == torch.bfloat16  # as the base's
    assert {"tokenizer.json", "generation_config.json"} <= {path.name for path in out.iterdir()}
    model = load_model(out, dtype=torch.float32)
    assert len(generate(model, [[5, 6, 7]], max_tokens=4, end_ids=())[0].ids) == 4


def test_a_classifier_keeps_its_head(folder: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    recipe = classification(write_labelled(folder / "labels.jsonl"))
    run = run_recipe(recipe, Options(runs=folder / "runs")).run
    out = folder / "classifier"
    result = export_quantized(str(run.path), Settings(bits=4, most_loss=0.5), out)
    assert "f1" in result.figures and result.figures["f1"].difference is not None
    model: Any = load_model(out, dtype=torch.float32)
    assert {"classifier.weight", "bert.pooler.dense.weight"} <= load_file(out / "model.safetensors").keys()
    ignored = json.loads((out / "config.json").read_text())["quantization_config"]["ignore"]
    assert {"classifier", "bert.pooler.dense"} <= set(ignored)
    with torch.no_grad():
        ours = model.classify(model(TOKENS.reshape(1, -1), lengths=(20, 20)), (20, 20))
        expected = theirs(out, AutoModelForSequenceClassification)(
            input_ids=TOKENS, attention_mask=torch.ones_like(TOKENS)
        ).logits
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_an_encoder_decoder_is_quantised_on_both_sides(folder: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM

    run = run_recipe(seq2seq(write_pairs(folder / "pairs.jsonl")), Options(runs=folder / "runs")).run
    out = folder / "pairs"
    result = export_quantized(str(run.path), Settings(bits=4, most_loss=0.5), out)
    assert "bleu" in result.figures
    packed = [name for name in load_file(out / "model.safetensors") if name.endswith("weight_packed")]
    assert {name.split(".")[0] for name in packed} == {"encoder", "decoder"}
    model = theirs(out, AutoModelForSeq2SeqLM)
    ours = generate(load_model(out, dtype=torch.float32), [[5, 6, 7, 8]], max_tokens=6, end_ids=())
    with torch.no_grad():
        theirs_ids = model.generate(
            torch.tensor([[5, 6, 7, 8]]), max_new_tokens=6, min_new_tokens=6, do_sample=False
        )
    assert ours[0].ids == theirs_ids[0, 1:].tolist()


def test_a_loss_that_is_too_large_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etude.quantize.packed.choose_whole", lambda *_: ([], {}))
    monkeypatch.setattr(
        "etude.quantize.rounding.choose_scales", lambda weight, *_: torch.full((len(weight), 1), 0.5)
    )
    with pytest.raises(
        FaultError, match=r"costs .* of its validation loss, and --max-loss allows 0\.00%"
    ) as why:
        export_quantized(
            str(run.path), Settings(bits=4, method="round", group=0, most_loss=0.0), tmp_path / "out"
        )
    assert why.value.exit_code == 1 and not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(run: Run, tmp_path: Path) -> None:
    with durable.faults(durable.FaultPlan()) as plan:
        export_quantized(str(run.path), Settings(bits=8), tmp_path / "whole")
    writes = [at for at, (_, name) in enumerate(plan.calls) if "model.safetensors" in name]
    full = durable.FaultPlan(at=writes[-1], error=errno.ENOSPC)
    with durable.faults(full), pytest.raises(StorageError):
        export_quantized(str(run.path), Settings(bits=8), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"bits": 3}, "no weights of 3 bits; use 4 or 8"),
        ({"bits": 4, "group": 48}, "--group 48 does not divide the 32 inputs of"),
        ({"bits": 4, "group": -1}, "--group is -1"),
        ({"bits": 4, "method": "awq"}, "--method awq is not known; use gptq or round"),
        ({"bits": 4, "calibration": 0}, "--calibration is 0"),
        ({"bits": 4, "most_loss": float("nan")}, "--max-loss is nan"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(settings: dict[str, Any], expected: str, run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=expected):
        export_quantized(str(run.path), Settings(**settings), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_and_one_within_a_run_are_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out, expected in ((tmp_path, "is there already"), (run.path / "out", "is inside the folder of run")):
        with pytest.raises(InputError, match=expected):
            export_quantized(str(run.path), Settings(bits=8), out)


def test_a_quantised_folder_is_used_and_not_trained(four: tuple[Quantized, Path]) -> None:
    with pytest.raises(InputError, match="holds quantised weights; give the model they were made of"):
        inspect_model(four[1])
    with pytest.raises(InputError, match="holds quantised weights"):
        rows = four[1].parent / "corpus.jsonl"
        run_recipe(finetuning(rows, four[1]), Options(runs=four[1].parent / "runs"))


def test_rows_that_are_gone_or_others_are_named(folder: Path, tmp_path: Path) -> None:
    rows = write_corpus(tmp_path / "own.jsonl", 60)
    run = run_recipe(recipe_from(tiny(rows, {"name": "gone"})), Options(runs=folder / "runs")).run
    write_corpus(rows, 50)
    with pytest.raises(InputError, match="is not what it was trained on"):
        export_quantized(str(run.path), Settings(bits=8), tmp_path / "out")
    rows.unlink()
    with pytest.raises(InputError, match=r"own\.jsonl"):
        export_quantized(str(run.path), Settings(bits=8), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_run_without_validation_and_a_model_of_transformers_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    values = tiny(folder / "corpus.jsonl", {"name": "blind", "data.validation": "none"})
    del values["data"]["validation_ratio"], values["evaluate"]
    blind = run_recipe(recipe_from(values), Options(runs=folder / "runs")).run
    base = write_gptj(folder / "gptj")
    recipe = finetuning(folder / "rows.jsonl", base, {"train.steps": 2, "name": "gptj"})
    theirs = run_recipe(recipe, Options(runs=folder / "runs")).run
    for run, expected in ((blind, "has no validation samples"), (theirs, "runs through transformers")):
        with pytest.raises(InputError, match=expected):
            export_quantized(str(run.path), Settings(bits=8), tmp_path / "out")


def test_an_adapter_without_its_base_is_refused(tuned: Run, folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "qwen2", folder / "away")
    try:
        with pytest.raises(InputError, match="qwen2"):
            export_quantized(str(tuned.path), Settings(bits=8), tmp_path / "out")
    finally:
        shutil.move(folder / "away", folder / "qwen2")
    assert not list(tmp_path.iterdir())


def test_quantised_layers_are_linear_and_nothing_else_changes(
    four: tuple[Quantized, Path], run: Run, tmp_path: Path
) -> None:
    whole = load_file(export(str(run.path), "hf", tmp_path / "whole") / "model.safetensors")
    tensors = load_file(four[1] / "model.safetensors")
    model = load_model(four[1], dtype=torch.float32)
    for name, tensor in whole.items():
        if name in tensors:
            assert torch.equal(tensors[name], tensor)
        else:
            assert isinstance(model.get_submodule(name.removesuffix(".weight")), nn.Linear)
