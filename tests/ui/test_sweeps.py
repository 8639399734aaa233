import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.ui import sweeps as module
from etude.ui.library import Library
from etude.ui.programs import Programs
from etude.ui.sweeps import Sweeps, documents_of, left_of
from tests.conftest import Outcome
from tests.sweeps import sweep_values, write_sweep


def test_the_page_of_a_sweep_has_the_results_of_its_report(
    swept: Path, etude: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = swept / "sweep.toml", swept / "sweeps" / "tiny"
    told = json.loads(etude("sweep", "report", path, "--folder", folder, "--json").out)
    library = Library([swept / "sweeps"])
    (identity,) = library.sweeps()
    page = Sweeps(Programs()).page(library, identity)
    assert (page["name"], page["best"], page["metric"]) == ("tiny-sweep", told["best"], "loss")
    assert [(each["name"], each["value"], each["run"]) for each in page["trials"]] == [
        (each["trial"], each["value"], each["run"]) for each in told["trials"]
    ]
    assert {each["id"] for each in page["trials"]} == set(library.runs())
    assert page["standing"] == told["models"]
    assert page["recommendations"] == told["recommendations"]
    axes = {each["key"]: each for each in page["axes"]}
    assert axes["optim.learning_rate"]["values"] == [1e-3, 1e-1]
    assert axes["optim.learning_rate"]["log"]
    assert (page["heat"]["x"], page["heat"]["y"], len(page["heat"]["cells"])) == (
        "train.steps", "optim.learning_rate", 4
    )  # fmt: skip
    assert page["best"] in page["front"]
    assert page["counts"] == {"finished": 4}
    assert (page["left"]["trials"], page["eta_seconds"]) == (0, 0.0)
    titles = [each["title"] for each in page["documents"]]
    assert titles[:2] == ["Verdict", "1. Optimal configurations"]
    assert b"## 4. Recommendations" in Sweeps(Programs()).report(library, identity)
    monkeypatch.setattr(module, "_MANY", 0)
    elsewhere = Sweeps(Programs()).page(library, identity)
    for name in ("trials", "standing", "front", "axes", "heat", "recommendations"):
        assert elsewhere[name] == page[name], name


def test_a_sweep_whose_trials_are_not_begun_has_a_page(
    tmp_path: Path, corpus: Path, etude: Callable[..., Outcome]
) -> None:
    from etude.sweep.folder import SweepFolder
    from etude.sweep.grid import load_sweep

    loaded = load_sweep(write_sweep(tmp_path / "s.toml", sweep_values(corpus, {"seed": [1, 2]})))
    folder = SweepFolder(tmp_path / "sweeps" / "new")
    with folder.hold():
        folder.write(loaded)
    library = Library([tmp_path / "sweeps"])
    page = Sweeps(Programs()).page(library, next(iter(library.sweeps())))
    assert page["counts"] == {"missing": 2}
    assert page["front"] == []
    assert page["left"] == {"trials": 2, "seconds": None, "basis": "", "words": ""}


def test_the_time_that_is_left_follows_from_the_trials_that_ended() -> None:
    ended: dict[str, Any] = {"is_final": True, "state": "finished", "wall_seconds": 100.0}
    open_: dict[str, Any] = {"is_final": False, "wall_seconds": None}
    trials = [ended, {**ended, "wall_seconds": 200.0}, *({**open_, "state": "running"} for _ in range(2)),
              *({**open_, "state": "missing"} for _ in range(4)), {**open_, "state": "not started: budget"}]  # fmt: skip
    left = left_of(trials)
    assert (left["trials"], left["seconds"]) == (6, 450.0)
    assert left["words"] == "about 7 min 30 s left, by the mean of 2 trials that ended, 2 at once"


def test_documents_hold_no_markup_of_their_own() -> None:
    (verdict, one) = documents_of("# x: results\n\n<script>a</script>\n\n## 1. A & B\n\n[x](javascript:b)\n")
    assert "<script" not in verdict["html"]
    assert (one["name"], one["title"]) == ("1-a-b", "1. A & B")
    assert "href" not in one["html"]
