"""`etude sweep` plans a sweep on the command line."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Outcome
from tests.sweeps import sweep_values, write_sweep


def test_plan_lists_each_trial_when_asked(
    etude: Callable[..., Outcome], tmp_path: Path, corpus: Path
) -> None:
    values = sweep_values(corpus, {"train.steps": [4, 8]}, {"schedule.kind": "constant"})
    shown = etude("sweep", "plan", write_sweep(tmp_path / "sweep.toml", values), "--trials")
    assert (
        "net-steps8 at step 4" in shown.out and "forecast" in shown.out and "of memory a trial" in shown.out
    )
    told = json.loads(etude("sweep", "plan", tmp_path / "sweep.toml", "--json").out)
    assert told["trials"] == 2 and told["trunks"] == 1


def test_a_bad_sweep_is_an_error_of_one_line_and_code_2(
    etude: Callable[..., Outcome], tmp_path: Path, corpus: Path
) -> None:
    path = write_sweep(tmp_path / "sweep.toml", sweep_values(corpus, {"optim.lr": [1e-3]}))
    refused = etude("sweep", "plan", path, "--out", tmp_path / "plan.md")
    assert refused.code == 2 and "did you mean learning_rate" in refused.err and not refused.out
    assert len(refused.err.splitlines()) == 1 and not (tmp_path / "plan.md").exists()


def test_plan_names_trials_that_can_never_fit(
    etude: Callable[..., Outcome], tmp_path: Path, corpus: Path
) -> None:
    values = sweep_values(corpus, {"train.steps": [4, 8]})
    path = write_sweep(tmp_path / "sweep.toml", values, {"resources.memory_gb": 1e-300})
    assert "! net" in (shown := etude("sweep", "plan", path)).out and "no device gives more" in shown.out
    assert len(json.loads(etude("sweep", "plan", path, "--json").out)["problems"]) == 1
    write_sweep(path, values, {"resources.memory_gb": 4.0})
    assert not json.loads(etude("sweep", "plan", path, "--json").out)["problems"]
