"""A true run of every kind of training and of every way to go on or end, each with its report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from etude.forking import fork
from etude.recipe.load import recipe_from
from etude.recipe.schema import Recipe
from etude.records.store import Run
from etude.report.write import write_report
from etude.run import run_recipe
from etude.start import Options
from tests.bases import (
    write_corpus,
    write_encoder,
    write_instructions,
    write_labelled,
    write_pairs,
    write_qwen2,
)
from tests.faults import Allocator
from tests.recipes import classification, finetuning, masked, seq2seq, tasks, tiny
from tests.sweeps import execute, make


def train_every_kind(folder: Path) -> dict[str, str]:
    """Train them in a folder; their paths by what they are."""
    makers: dict[str, Callable[[Path], Run]] = {
        "causal": lambda place: _train(_tiny(place), place),
        "LoRA": _lora,
        "classification": lambda place: _train(classification(write_labelled(place / "rows.jsonl")), place),
        "seq2seq": lambda place: _train(seq2seq(write_pairs(place / "rows.jsonl")), place),
        "masked": _masked,
        "several tasks": lambda place: _train(tasks(place), place),
        "trial": _trial,
        "forked": _forked,
        "resumed": _resumed,
        "out of memory": _short,
        "stopped": lambda place: _train(_tiny(place), place, stop_at=5),
    }
    paths = {}
    for what, train in makers.items():
        place = folder / what.replace(" ", "-")
        place.mkdir()
        run = train(place)
        write_report(run, html=True)
        paths[what] = str(run.path)
    return paths


def _train(recipe: Recipe, place: Path, **options: Any) -> Run:
    return run_recipe(recipe, Options(runs=place / "runs", **options)).run


def _tiny(place: Path, changes: dict[str, Any] | None = None) -> Recipe:
    kept = {"checkpoint.keep": "all", "model.dropout": 0.1}
    return recipe_from(tiny(write_corpus(place / "corpus.jsonl"), {**kept, **(changes or {})}))


def _lora(place: Path) -> Run:
    rows, base = write_instructions(place / "rows.jsonl"), write_qwen2(place / "base")
    return _train(finetuning(rows, base, {"adapter": {"rank": 4}, "train.steps": 10}), place)


def _masked(place: Path) -> Run:
    base = write_encoder(place / "base", masked=True)
    return _train(masked(write_labelled(place / "rows.jsonl"), base), place)


def _trial(place: Path) -> Run:
    corpus = write_corpus(place / "corpus.jsonl")
    path = make(place, corpus, {"optim.learning_rate": [1e-3, 3e-3]})
    execute(path, place / "sweep")
    return Run(min((place / "sweep/runs").glob("*-??????")))


def _forked(place: Path) -> Run:
    parent = _train(_tiny(place, {"schedule.kind": "constant"}), place)
    made = fork(f"{parent.path}@4", {"optim.learning_rate": 1e-4})
    return _train(made.recipe, place, resume=made)


def _resumed(place: Path) -> Run:
    run = _train(_tiny(place), place, stop_at=5)
    return _train(run.recipe, place, resume=run)


def _short(place: Path) -> Run:
    """A run that has no memory at an operation of its third step or so."""
    allocator = Allocator()
    allocator.left = 9000
    with allocator:
        run = _train(_tiny(place, {"train.micro_batch_size": 8}), place)
    assert allocator.failed == 1
    return run
