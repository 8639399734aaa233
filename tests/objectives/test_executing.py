"""pass@k at evaluations: recorded, resumed and shared between ranks as if nothing had happened."""

import json
from pathlib import Path
from typing import Any

import pytest

from etude.confine.room import Tier, strongest
from etude.errors import InputError
from etude.evaluate import sandbox
from etude.plan import make_plan
from etude.recipe.schema import Recipe
from etude.records.events import Evaluation, Execution, Finding
from etude.records.store import list_runs
from etude.report.compare import compare_runs
from etude.report.history import History, read_history
from etude.report.programs import compare_programs
from etude.run import run_recipe
from etude.scores.pass_at_k import figure
from etude.start import Options
from tests.bases import write_qwen2
from tests.programs import run_program
from tests.recipes import finetuning

_TIER = strongest()
needs_kernel = pytest.mark.skipif(not _TIER.confines, reason=f"this kernel confines nothing ({_TIER})")
# Whether the third passes depends on the letters that are drawn behind a comment sign.
_ROWS: list[dict[str, Any]] = [
    {"task_id": "never", "prompt": "def f(x):\n", "tests": "assert f(1) == 2", "entry_point": "f",
     "solution": "def f(x):\n    return x"},
    {"task_id": "always", "prompt": "x = 1\n# ", "tests": "pass"},
    {"task_id": "by chance", "prompt": "# ", "tests": "assert True"},
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("executing")
    (made / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _ROWS))
    write_qwen2(made / "base")
    rows = [{"text": f"def f{n}(x):\n    return x + {n}\n"} for n in range(40)]
    (made / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


def recipe(folder: Path, changes: dict[str, Any] | None = None) -> Recipe:
    execute = {"path": str(folder / "problems.jsonl"), "k": [1, 2], "samples": 3, "max_tokens": 6}
    values = {
        "train.epochs": None, "train.steps": 4, "evaluate.every_steps": 2, "evaluate.execute": execute,
        "evaluate.metric": "pass@1", "checkpoint.every_steps": 1, **(changes or {}),
    }  # fmt: skip
    return finetuning(folder / "rows.jsonl", folder / "base", values)


def executed(history: History) -> list[Execution]:
    return history.events(Execution)


@needs_kernel
def test_programs_are_measured_before_and_during_training_and_choose_the_best(
    folder: Path, tmp_path: Path
) -> None:
    run = run_recipe(recipe(folder), Options(runs=tmp_path)).run
    history = read_history(run)
    found = executed(history)
    assert [each.step for each in found] == [0, 2, 4] and run.best is not None
    assert run.best["metric"] == "pass@1"
    for each, evaluation in zip(found, history.events(Evaluation)):
        assert each.passed[0] == 0 and each.sandbox == str(_TIER) and sum(each.outcomes.values()) == 9
        counts = [(3, passed) for passed in each.passed]
        for k in (1, 2):
            assert evaluation.metrics[f"pass@{k}"] == figure(counts, k)[0]
    (finding,) = (each for each in history.events(Finding) if each.what == "problems without a solution")
    assert finding.evidence.endswith("does not pass here: never")
    report = (run.path / "report" / "report.md").read_text()
    assert "## Programs" in report and "intervals of 95 % are over problems" in report
    assert "less step 0:" in report
    sentences = compare_programs([history, history])
    assert len(sentences) == 1 and "+0.000" in sentences[0] and "3 problems" in sentences[0]
    assert sentences[0] in " ".join(compare_runs([run, run]).to_dict()["sentences"])


@needs_kernel
def test_a_run_that_goes_on_draws_the_same_programs(folder: Path, tmp_path: Path) -> None:
    whole = run_recipe(recipe(folder), Options(runs=tmp_path / "whole")).run
    for stop in (1, 3, None):
        run = run_recipe(recipe(folder), Options(runs=tmp_path / "parts", stop_at=stop)).run
    assert executed(read_history(run)) == executed(read_history(whole))


@needs_kernel
def test_ranks_share_the_problems_and_find_the_same(folder: Path, tmp_path: Path, cache: Path) -> None:
    alone = run_recipe(recipe(folder), Options(runs=tmp_path / "alone")).run
    made = recipe(folder, {"train.devices": 2, "train.micro_batch_size": 2}).to_dict()
    (tmp_path / "recipe.json").write_text(json.dumps(made))
    done = run_program("steered", [tmp_path / "recipe.json", tmp_path / "two", "{}"], cache, ranks=2)
    assert done.code == 0, done.err[-2000:]
    (run,) = list_runs(tmp_path / "two")
    found = executed(read_history(run))
    assert [each.step for each in found] == [0, 2, 4]
    assert found[0] == executed(read_history(alone))[0]


@needs_kernel
def test_other_problems_are_refused_when_a_run_goes_on(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text((folder / "problems.jsonl").read_text())
    changed = {"evaluate.execute": {"path": str(path), "max_tokens": 2}}
    run_recipe(recipe(folder, changed), Options(runs=tmp_path / "runs", stop_at=1))
    path.write_text(json.dumps(_ROWS[1]))
    with pytest.raises(InputError, match="data"):
        run_recipe(recipe(folder, changed), Options(runs=tmp_path / "runs"))


def test_a_kernel_that_confines_nothing_begins_no_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "strongest", Tier)
    with pytest.raises(InputError, match="cannot confine"):
        run_recipe(recipe(folder), Options(runs=tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"evaluate.execute.k": [4]}, "above the 3 samples"),
        ({"evaluate.execute.k": []}, "at least 1"),
        ({"evaluate.execute.k": [-1]}, "k"),
        ({"evaluate.execute.samples": 0}, "samples"),
        ({"evaluate.execute.temperature": 0.0}, "all samples of a problem are the same"),
        ({"evaluate.execute.temperature": float("nan")}, "temperature"),
        ({"evaluate.execute.problems": 10**9}, "problems"),
        ({"data.validation": "none", "evaluate.metric": "loss"}, "evaluate.execute"),
        ({"evaluate.metric": "pass@3"}, "pass@1"),
        ({"evaluate.execute.path": "/nowhere.jsonl"}, "does not exist"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_training(
    folder: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        make_plan(recipe(folder, change))
