"""No tensor that is not finite is trained from, saved, chosen as the best, exported or asked."""

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from etude.engine import checkpoint as checkpoints
from etude.errors import FaultError, InputError
from etude.evaluate.judge import Judge
from etude.models.parts import find_non_finite
from etude.recipe.metric import ChosenMetric
from etude.recipe.schema import Evaluate, Recipe
from etude.records.events import Finding
from etude.records.store import Run, list_runs
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_qwen2
from tests.bigram import Bigram, bigram_loss
from tests.conftest import Outcome
from tests.engine.states import make_state, snapshot

Make = Callable[..., Recipe]


def all_finite(run: Run) -> bool:
    files = list(run.checkpoints.glob("step-*/*.safetensors"))
    return all(tensor.isfinite().all() for file in files for tensor in load_file(file).values())


class MaskedBigram(Bigram):
    """A model that is none of ours, with a mask of infinities as its kin have."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.full((4, 4), -math.inf).triu(1))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("validation", ["none", None])
def test_the_step_that_breaks_the_weights_is_named_and_nothing_of_it_is_saved(
    tmp_path: Path, make_recipe: Make, kind: str, validation: str | None
) -> None:
    # Decay of 3e38 x 0.1 takes any weight beyond fp32; the loss of the step that does it is still finite.
    recipe = make_recipe({
        "optim.kind": kind, "optim.learning_rate": 3e38, "schedule.kind": "constant",
        "checkpoint.every_steps": 1, "evaluate.every_steps": 1,
        **({"data.validation": validation} if validation else {}),
    })  # fmt: skip
    with pytest.raises(
        FaultError, match=r"the update of step [12] made some weights .* not saved, .*learning_rate"
    ):
        run_recipe(recipe, Options(runs=tmp_path))
    (run,) = list_runs(tmp_path)
    assert run.state == "failed" and all_finite(run)
    assert run.best is None or math.isfinite(run.best["value"])
    found = [entry.event.what for entry in run.ledger().entries if isinstance(entry.event, Finding)]
    before = ["each update is larger than the weights"] if kind == "adamw" else []
    assert found == [*before, "non-finite weights"]


def test_the_last_finite_checkpoint_stays_when_a_later_step_breaks(
    tmp_path: Path, make_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from etude.engine.optim import Adam

    original, calls = Adam.step, Counter[Adam]()  # the trace of a step has one of its own

    def step(self: Adam, rate: float, *rest: Any) -> None:
        calls[self] += 1
        original(self, 3e38 if calls[self] > 6 else rate, *rest)

    monkeypatch.setattr(Adam, "step", step)
    with pytest.raises(FaultError, match=r"the update of step 7 made some weights"):
        run_recipe(make_recipe(), Options(runs=tmp_path))
    (run,) = list_runs(tmp_path)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-000004", "step-000006"]
    assert all_finite(run)


@pytest.mark.parametrize("part", ["weights", "optimizer"])
def test_a_snapshot_that_is_not_finite_is_not_written(tmp_path: Path, part: str) -> None:
    taken = snapshot(make_state(), 3)
    next(iter(getattr(taken, part).values())).view(-1)[-1] = math.inf
    with pytest.raises(FaultError, match="is not finite after step 3"):
        checkpoints.write_checkpoint(tmp_path, taken)
    assert list(tmp_path.iterdir()) == []


def test_masks_of_infinities_are_saved_and_loaded(tmp_path: Path, make_recipe: Make) -> None:
    options = Options(runs=tmp_path, model=MaskedBigram(), loss=bigram_loss)
    run = run_recipe(make_recipe({"train.steps": 2}), options).run
    saved = load_file(run.checkpoints / "step-000002" / "model.safetensors")
    assert saved["mask"].isinf().any()
    checkpoints.load_weights(run.checkpoints / "step-000002" / "model.safetensors", MaskedBigram())


def test_what_is_not_finite_is_never_the_best() -> None:
    for metric, value in (("loss", -math.inf), ("accuracy", math.inf), ("loss", math.inf), ("f1", math.nan)):
        judge = Judge(Evaluate(metric=metric), ChosenMetric.parse(metric))
        assert not judge.judge(value, 1) and judge.best is None
        assert judge.judge(0.5, 2) and not judge.judge(value, 3)


def broken_base(folder: Path, value: float = math.nan) -> Path:
    base = write_qwen2(folder)
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = value
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    return base


@pytest.mark.parametrize("adapter", [True, False])
def test_a_base_that_is_not_finite_is_refused_before_anything_is_written(
    tmp_path: Path, make_recipe: Make, etude: Callable[..., Outcome], adapter: bool
) -> None:
    base = broken_base(tmp_path / "base")
    recipe = make_recipe(
        {"model": {"from": str(base)}, "tokenizer": {}, **({"adapter": {"rank": 2}} if adapter else {})}
    )
    with pytest.raises(
        InputError, match=r"model.from: .*model.layers.0.mlp.up_proj.weight holds NaN or infinity"
    ):
        run_recipe(recipe, Options(runs=tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()
    outcome = etude("generate", base, "--prompt", "def")
    assert outcome.code == 2 and "holds NaN or infinity" in outcome.err


def test_checkpoints_that_are_not_finite_are_neither_begun_from_nor_exported(
    tmp_path: Path, make_recipe: Make, etude: Callable[..., Outcome]
) -> None:
    run = run_recipe(make_recipe({"train.steps": 2}), Options(runs=tmp_path)).run
    folder = run.checkpoints / "step-000002"
    tensors = load_file(folder / "model.safetensors")
    tensors[min(tensors)].view(-1)[0] = math.inf
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    manifest = json.loads((folder / "manifest.json").read_text())
    from etude import durable

    path = folder / "model.safetensors"
    manifest["files"][path.name] = {"size": path.stat().st_size, "sha256": durable.sha256_file(path)}
    durable.write_json(folder / "manifest.json", manifest)
    with pytest.raises(InputError, match="holds NaN or infinity"):
        run_recipe(make_recipe({"seed": 3}), Options(runs=tmp_path / "new", weights=str(folder)))
    for words in (
        ["export", f"{run.path}@last", tmp_path / "out", "--to", "hf"],
        ["generate", f"{run.path}@last", "--prompt", "a"],
    ):
        outcome = etude(*words)
        assert outcome.code == 2 and "holds NaN or infinity" in outcome.err, outcome.err
    assert not (tmp_path / "out").exists() and not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2", "bfloat16", "float64"])
def test_what_is_not_finite_is_found_in_numbers_of_any_size(kind: str) -> None:
    good = torch.ones(3, 3).to(getattr(torch, kind))
    bad = torch.full((3, 3), torch.nan).to(getattr(torch, kind))
    assert find_non_finite([("a", good)]) is None
    assert find_non_finite([("a", good), ("b", bad)]) == "b"
    assert find_non_finite([("a", torch.full((3, 3), 3e38).bfloat16())]) is None  # a sum beyond float32
