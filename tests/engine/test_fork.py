"""A fork goes on as its parent does, bit for bit, and is a run of its own."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.engine.fork import fork
from etude.errors import DamageError, InputError
from etude.recipe.load import recipe_from
from etude.records.events import Attempt, Control, Evaluation, Finding, Generation, Scores, Step, to_json
from etude.records.lineage import Origin
from etude.records.store import Run, find_unfinished, list_runs
from etude.report.summary import run_table, summarize
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_labelled
from tests.conftest import tiny, write_corpus

KEPT = {"checkpoint.keep": "all", "checkpoint.every_steps": 4, "train.steps": 12, "evaluate.every_steps": 4}
TEXT = {"model.dropout": 0.1, "evaluate.prompts": ["def "], "evaluate.sample_tokens": 4}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("forks")
    recipe = recipe_from(tiny(write_corpus(folder / "corpus.jsonl"), {**TEXT, **KEPT}))
    return run_recipe(recipe, Options(runs=folder / "runs")).run


def classifier(folder: Path) -> Run:
    rows = write_labelled(folder / "rows.jsonl")
    changes = {
        "model": {"kind": "encoder", "n_layer": 2, "n_embd": 32, "n_head": 2, "dropout": 0.1},
        "train.objective": "classification", "train.seq_len": 32, "evaluate.metric": "f1",
        "tokenizer": {"train_vocab_size": 300}, "data.train": [{"path": str(rows), "label": "label"}], **KEPT,
    }  # fmt: skip
    recipe = recipe_from(tiny(write_corpus(folder / "corpus.jsonl"), changes))
    return run_recipe(recipe, Options(runs=folder / "runs")).run


def records(run: Run) -> list[dict[str, Any]]:
    """All records that training makes, without what clocks say."""
    made = [
        to_json(entry.event, 0.0)
        for entry in run.ledger().entries
        if isinstance(entry.event, Step | Evaluation | Generation | Scores)
    ]
    return [{key: value for key, value in each.items() if not key.endswith("seconds")} for each in made]


def tensors(run: Run) -> dict[str, bytes]:
    last = max(run.checkpoints.iterdir())
    return {path.name: path.read_bytes() for path in last.glob("*.safetensors")}


def go_on(run: Run) -> Run:
    return run_recipe(run.recipe, Options(runs=run.path.parent, resume=run)).run


@pytest.mark.parametrize("step", [4, 8])
def test_a_fork_of_a_language_model_ends_with_the_bits_of_its_parent(
    parent: Run, tmp_path: Path, step: int
) -> None:
    child = fork(parent, step, tmp_path)
    assert child.name != parent.name and child.is_unfinished
    assert [each["step"] for each in records(child) if each["type"] == "step"] == list(range(1, step + 1))
    assert not any(isinstance(entry.event, Control) for entry in child.ledger().entries)
    ended = go_on(child)
    assert tensors(ended) == tensors(parent) and records(ended) == records(parent)
    assert ended.best == parent.best and ended.state == "finished"


def test_a_fork_of_a_classifier_keeps_the_predictions_before_training_and_the_best(tmp_path: Path) -> None:
    run = classifier(tmp_path)
    ended = go_on(fork(run, 8, tmp_path / "forks"))
    assert tensors(ended) == tensors(run) and records(ended) == records(run) and ended.best == run.best
    assert any(each["type"] == "scores" and "before" in each["systems"] for each in records(ended))
    kept = {path.name: path.read_bytes() for path in (run.path / "predictions").iterdir()}
    assert {path.name: path.read_bytes() for path in (ended.path / "predictions").iterdir()} == kept


def test_a_fork_names_its_parent_and_is_continued_by_name_only(parent: Run, tmp_path: Path) -> None:
    child = fork(parent, 4, tmp_path)
    assert Origin(**child.info["origin"]) == Origin(parent.info["id"], 4) and "origin" not in parent.info
    assert child.day == parent.day
    assert find_unfinished(tmp_path, parent.recipe) is None
    again = fork(child, 4, tmp_path)
    assert Origin(**again.info["origin"]) == Origin(child.info["id"], 4)
    attempts = [entry.event for entry in go_on(again).ledger().entries if isinstance(entry.event, Attempt)]
    assert [(attempt.number, attempt.from_step) for attempt in attempts] == [(1, 0), (2, 4)]


def test_a_fork_may_live_otherwise_and_is_replayed_all_the_same(parent: Run, tmp_path: Path) -> None:
    child = fork(parent, 4, tmp_path, changes={"run.grace": "30s", "run.mirror": str(tmp_path / "mirror")})
    assert (child.recipe.run.grace, child.info["origin"]["changes"]) == ("30s", {})
    table = run_table([summarize(parent), summarize(child)])
    assert [row[-1] for row in table] == ["comes from", "–", f"step 4 of {parent.name}"]
    assert run_table([summarize(parent)])[0][-1] == "created"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def lead_elsewhere(path: Path, kind: str) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere") if kind == "link" else os.mkfifo(path)


@pytest.mark.parametrize(
    "spoil, error, text",
    [
        (lambda run: flip(run / "checkpoints/step-000004/model.safetensors"), DamageError, "not what was written"),
        (lambda run: flip(run / "checkpoints/step-000004/state.json"), DamageError, "not what was written"),
        (lambda run: (run / "checkpoints/step-000004/manifest.json").unlink(), InputError, "no checkpoint of step 4"),
        (lambda run: lead_elsewhere(run / "checkpoints/step-000004/model.safetensors", "link"), InputError, "link"),
        (lambda run: lead_elsewhere(run / "journal.jsonl", "pipe"), InputError, "plain file"),
        (lambda run: lead_elsewhere(run / "resolved.toml", "link"), InputError, "link"),
        (lambda run: (run / "resolved.toml").write_text("seed = 5"), InputError, "changed after"),
        (lambda run: (run / "run.json").write_text("{"), InputError, "run.json"),
    ],
)  # fmt: skip
def test_a_parent_that_is_not_whole_is_refused_and_nothing_is_left(
    parent: Run, tmp_path: Path, spoil: Callable[[Path], object], error: type[Exception], text: str
) -> None:
    copy = tmp_path / "copies" / parent.name
    shutil.copytree(parent.path, copy)
    spoil(copy)
    with pytest.raises(error, match=text):
        fork(Run(copy), 4, tmp_path / "forks")
    assert list_runs(tmp_path / "forks") == []
    assert not list((tmp_path / "forks").glob("*")) if (tmp_path / "forks").exists() else True


@pytest.mark.parametrize(
    ("spoil", "evidence"),
    [
        (lambda lines: lines, None),
        (lambda lines: [line.replace(b'"loss"', b'"l0ss"') if b'"step": 3,' in line else line for line in lines],
         "has 7 of 8 steps until here, and 1 damaged line"),
        (lambda lines: lines[:5], "has 1 of 8 steps until here, and 0 damaged lines"),
        (lambda lines: [b"x" * 500 + b"\n"], "has 0 of 8 steps until here, and 1 damaged line"),
    ],
)  # fmt: skip
def test_a_fork_says_which_records_its_parent_lacks(
    parent: Run, tmp_path: Path, spoil: Callable[[list[bytes]], list[bytes]], evidence: str | None
) -> None:
    copy = tmp_path / "copies" / parent.name
    shutil.copytree(parent.path, copy)
    lines = (copy / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (copy / "journal.jsonl").write_bytes(b"".join(spoil(lines)))
    entries = fork(Run(copy), 8, tmp_path / "forks").ledger().entries
    found = [entry.event.evidence for entry in entries if isinstance(entry.event, Finding)]
    assert [each for each in found if "until here" in each] == (
        [f"the journal of {parent.name} {evidence}"] if evidence else []
    )


def test_a_moment_whose_best_checkpoint_is_gone_is_refused(tmp_path: Path) -> None:
    changes = {**KEPT, "optim.learning_rate": 1e-30}  # so that no evaluation is better than the first
    recipe = recipe_from(tiny(write_corpus(tmp_path / "corpus.jsonl"), changes))
    run = run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    assert run.best and run.best["checkpoint"] == "step-000004"
    assert fork(run, 12, tmp_path / "forks").best == run.best
    shutil.rmtree(run.checkpoints / "step-000004")
    with pytest.raises(InputError, match="no longer has step-000004, the best checkpoint at step 12"):
        fork(run, 12, tmp_path / "forks")
