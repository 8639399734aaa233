"""A classifier of code with a code bias: from the recipe to the checkpoint, and nothing of it where it is
off.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from etude.data.prepared import prepare
from etude.errors import EtudeError
from etude.plan import make_plan
from etude.recipe.load import recipe_from, with_changes
from etude.recipe.schema import Recipe
from etude.run import Training
from etude.start import Options
from tests.bases import write_encoder

FORMS = ("inside", "after")


def code_rows(path: Path, rows: int = 40) -> Path:
    """Little functions of unequal length, some of which return what they were given."""
    with path.open("w") as file:
        for number in range(rows):
            same, body = number % 3 == 0, "    total += 1\n" * (number % 4)
            code = f"def f{number % 7}(left, right):\n{body}    return {'left' if same else 'other'}[right]\n"
            file.write(
                json.dumps({"code": code, "query": f"left {number}", "label": "same" if same else "new"})
                + "\n"
            )
    return path


def recipe_of(rows: Path, changes: dict[str, Any] | None = None) -> Recipe:
    values: dict[str, Any] = {
        "name": "code",
        "model": {"kind": "encoder", "n_layer": 2, "n_embd": 32, "n_head": 4},
        "tokenizer": {"train_vocab_size": 300},
        "data": {"train": [{"path": str(rows), "field": "code", "label": "label"}], "validation": "none"},
        "train": {
            "objective": "classification", "steps": 4, "seq_len": 48, "global_batch_size": 8,
            "micro_batch_size": 8, "device": "cpu", "precision": "fp32",
        },
        "optim": {"kind": "adam", "learning_rate": 1e-2},
        "checkpoint": {"every_steps": 2},
    }  # fmt: skip
    return with_changes(recipe_from(values), changes or {})


def train(recipe: Recipe, runs: Path, *, until: int | None = None) -> tuple[list[float], Path]:
    """The losses of all steps, and the last checkpoint."""
    training, losses = Training(recipe, Options(runs=runs)), []
    for step in training:
        losses.append(float(step.measured[0] / step.measured[1]))
        if len(losses) == until:
            break
    return losses, max(training.run.checkpoints.iterdir())


def test_off_is_the_plain_encoder_to_the_bit(tmp_path: Path) -> None:
    rows = code_rows(tmp_path / "rows.jsonl")
    plain, off = recipe_of(rows), recipe_of(rows, {"model.code_bias": "off"})
    assert prepare(plain).summary["folder"] == prepare(off).summary["folder"]
    assert not (Path(prepare(off).summary["folder"]) / "code.npy").exists()
    assert prepare(off).train.sample(0).code is None
    (losses, folder), (again, other) = train(plain, tmp_path / "a"), train(off, tmp_path / "b")
    assert losses == again
    assert (folder / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert (folder / "config.json").read_bytes() == (other / "config.json").read_bytes()


def test_on_reads_the_same_tokens_and_begins_at_the_same_loss(tmp_path: Path) -> None:
    rows = code_rows(tmp_path / "rows.jsonl")
    plain, inside = recipe_of(rows), recipe_of(rows, {"model.code_bias": "inside"})
    assert prepare(plain).fingerprint != prepare(inside).fingerprint
    for index in range(5):
        one, other = prepare(plain).train.sample(index), prepare(inside).train.sample(index)
        assert one.tokens.tolist() == other.tokens.tolist() and other.code is not None
        assert other.code.shape == (len(one.tokens), 4)
    ours, theirs = train(inside, tmp_path / "a")[0], train(plain, tmp_path / "b")[0]
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5) and ours[1:] != theirs[1:]


@pytest.mark.parametrize(("form", "pair"), [("inside", "query"), ("after", None)])
def test_micro_batches_change_no_loss(form: str, pair: str | None, tmp_path: Path) -> None:
    rows = code_rows(tmp_path / "rows.jsonl")
    changes = {"model.code_bias": form, "data.train.0.pair": pair}
    losses = [
        train(recipe_of(rows, {**changes, "train.micro_batch_size": size}), tmp_path / str(size))[0]
        for size in (8, 1)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_a_stopped_run_goes_on_to_the_same_bits(form: str, tmp_path: Path) -> None:
    recipe = recipe_of(code_rows(tmp_path / "rows.jsonl"), {"model.code_bias": form, "model.dropout": 0.1})
    losses, folder = train(recipe, tmp_path / "whole")
    first, _ = train(recipe, tmp_path / "parts", until=3)
    rest, other = train(recipe, tmp_path / "parts")
    assert first + rest == losses
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()


def test_a_checkpoint_says_what_it_is(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    rows = code_rows(tmp_path / "rows.jsonl")
    _, plain = train(recipe_of(rows), tmp_path / "off")
    assert (
        type(AutoModelForSequenceClassification.from_pretrained(plain)).__name__
        == "BertForSequenceClassification"
    )
    _, folder = train(recipe_of(rows, {"model.code_bias": "after"}), tmp_path / "after")
    values = json.loads((folder / "config.json").read_text())
    assert (values["model_type"], values["code_bias"]) == ("etude_code_encoder", "after")
    assert any(
        bool(value.any())
        for name, value in load_file(folder / "model.safetensors").items()
        if "code_bias" in name
    )
    with pytest.raises(ValueError, match="etude_code_encoder"):
        AutoModelForSequenceClassification.from_pretrained(folder)
    with pytest.raises(EtudeError, match="etude_code_encoder") as caught:
        make_plan(recipe_of(rows, {"model": {"from": str(folder)}, "tokenizer": {}}))
    assert "\n" not in str(caught.value)


def test_its_weights_are_a_start_for_another_run(tmp_path: Path) -> None:
    recipe = recipe_of(code_rows(tmp_path / "rows.jsonl"), {"model.code_bias": "inside"})
    losses, folder = train(recipe, tmp_path / "first")
    training = Training(recipe, Options(runs=tmp_path / "second", weights=str(folder)))
    first = next(iter(training))
    assert float(first.measured[0] / first.measured[1]) < losses[0]


@pytest.mark.parametrize("kind", ["from", "decoder"])
def test_it_belongs_to_an_encoder_from_scratch(kind: str, tmp_path: Path) -> None:
    rows = code_rows(tmp_path / "rows.jsonl")
    changes: dict[str, Any] = {
        "model": {"from": str(write_encoder(tmp_path / "base")), "code_bias": "inside"}
    }
    changes["tokenizer"] = {}
    if kind == "decoder":
        changes = {"model": {"code_bias": "inside"}}
    with pytest.raises(
        EtudeError, match=r"model.code_bias .recipe. (is for an encoder from scratch|belongs to a model from)"
    ):
        make_plan(recipe_of(rows, changes))
