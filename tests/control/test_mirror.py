"""A mirror takes copies beside the loop, trusts what it read back, and costs a run nothing where it fails."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from etude.control.copy import LARGE_BYTES
from etude.control.mirror import Mirror
from etude.control.place import open_place
from etude.control.restore import restore
from etude.recipe.schema import Recipe
from etude.records.folder import list_checkpoints
from etude.records.store import Run
from etude.run import Training, run_recipe
from etude.start import Options
from tests.places import Odd
from tests.processes import in_a_fork

MakeRecipe = Callable[..., Recipe]
SETTLE = 0.02


@pytest.fixture(autouse=True)
def _settle_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs too read back what their mirror has soon after it was written."""
    monkeypatch.setitem(Mirror.__init__.__kwdefaults__, "settle", SETTLE)


@pytest.fixture
def run(make_recipe: MakeRecipe, tmp_path: Path) -> Run:
    """A run that was stopped after step 8, with checkpoints at 4 and 8."""
    training = Training(make_recipe(), Options(runs=tmp_path / "runs"))
    for step in training:
        if step.number == 8:
            break
    return training.run


def odd(tmp_path: Path, run: Run, **faults: object) -> Odd:
    (tmp_path / "mirror").mkdir(exist_ok=True)
    return Odd(open_place(str(tmp_path / "mirror"), run.name), **faults)  # type: ignore[arg-type]


def copy_again(mirror: Mirror, times: int) -> None:
    """Have a run copied several times, each of which is read back."""
    for _ in range(times):
        mirror.note()
        deadline = time.monotonic() + 60
        while not mirror.is_idle:
            assert time.monotonic() < deadline
            time.sleep(0.005)


def contents(run: Run) -> dict[str, bytes]:
    files = (path for path in sorted(run.path.rglob("*")) if path.is_file())
    left_out = ("lease.json", ".lock", "journal.index", "report", "step-000004")
    return {
        str(path.relative_to(run.path)): path.read_bytes()
        for path in files
        if not set(path.relative_to(run.path).parts) & set(left_out)
    }


def test_a_copy_restores_the_run_folder_byte_for_byte(run: Run, tmp_path: Path) -> None:
    place = odd(tmp_path, run)
    Mirror(run, place, settle=SETTLE).close("stopped", 60)
    again, problems = restore(str(tmp_path / "mirror"), tmp_path / "other")
    assert problems == [] and again.name == run.name and again.state == "stopped"
    newest, best = list_checkpoints(run.checkpoints)[-1].name, (run.best or {})["checkpoint"]
    assert {path.name for path in list_checkpoints(again.checkpoints)} == {newest, best}
    assert contents(again) == {
        path: content
        for path, content in contents(run).items()
        if not path.startswith("checkpoints") or newest in path or best in path
    }


def test_a_copy_takes_20_operations_at_most_and_two_of_them_stay(run: Run, tmp_path: Path) -> None:
    for path in list_checkpoints(run.checkpoints):  # large files, each a part of its own
        for name in ("model.safetensors", "optimizer.safetensors"):
            (path / name).write_bytes(bytes(LARGE_BYTES + 1))
    place = odd(tmp_path, run)
    mirror = Mirror(run, place, settle=SETTLE)
    used = []
    for _ in range(6):
        before = len(place.operations)
        newest = list_checkpoints(run.checkpoints)[-1]
        (newest / "model.safetensors").touch()  # as of another checkpoint
        (newest / "optimizer.safetensors").touch()
        copy_again(mirror, 1)
        used.append(len(place.operations) - before)
    assert max(used) <= 20
    names = place.names()
    assert sum("manifest" in name for name in names) == 2
    assert sum(name.endswith("records") for name in names) == 2
    assert not any(name.endswith(".tmp") for name in names)
    written = [each.split()[1] for each in place.operations if each.startswith("write")]
    assert len(written) == len(set(written))  # whole files under new names
    gone = [
        each.split()[1] for each in place.operations if each.startswith("remove") and "safetensors" in each
    ]
    assert gone and all(f"truncate {name}" in place.operations for name in gone)
    mirror.close("stopped", 60)
    assert mirror.findings(1) == []


def test_files_that_stay_hidden_for_a_while_are_waited_for(run: Run, tmp_path: Path) -> None:
    place = odd(tmp_path, run, hidden=0.1)
    mirror = Mirror(run, place, settle=0.06)
    copy_again(mirror, 3)
    mirror.close("stopped", 60)
    assert mirror.findings(1) == [] and len(mirror._copies) == 2
    assert restore(str(tmp_path / "mirror"), tmp_path / "other")[0].name == run.name


@pytest.mark.parametrize("lost", range(6))
def test_a_write_that_is_lost_is_noticed_and_never_trusted(run: Run, tmp_path: Path, lost: int) -> None:
    place = odd(tmp_path, run, lose=lambda number: number == lost)
    mirror = Mirror(run, place, settle=SETTLE)
    copy_again(mirror, 3)
    mirror.close("stopped", 60)
    (finding,) = mirror.findings(8)
    assert finding.what == "the mirror lost a write" and place.lost[0] in finding.evidence
    assert all(place.lost[0] not in (name, *manifest.parts) for name, manifest in mirror._copies)
    again, _ = restore(str(tmp_path / "mirror"), tmp_path / "other")
    assert contents(again)["journal.jsonl"] == contents(run)["journal.jsonl"]


def test_a_place_that_keeps_nothing_is_given_up(run: Run, tmp_path: Path) -> None:
    mirror = Mirror(run, odd(tmp_path, run, lose=lambda number: True), settle=SETTLE)
    mirror.close("stopped", 60)
    assert [each.what for each in mirror.findings(8)] == ["the mirror lost a write"]
    assert mirror._copies == []


@pytest.mark.parametrize(
    ("refusal", "advice"),
    [
        ("cannot write x: No space left on device; free some", "free some space there"),
        ("cannot write x: Read-only file system; mount it", "make it writable"),
        ("cannot write x: No such file or directory; run", "mount it again"),
        ("cannot write x: Transport endpoint is not connected", "the run goes on"),
    ],
)
def test_a_failure_is_one_finding_with_what_to_do(
    run: Run, tmp_path: Path, refusal: str, advice: str
) -> None:
    place = odd(tmp_path, run)
    mirror = Mirror(run, place, settle=SETTLE)
    copy_again(mirror, 1)
    place.refuse = refusal
    copy_again(mirror, 2)
    (finding,) = mirror.findings(8)
    assert finding.what == "the run is not mirrored" and finding.advice.startswith(advice)
    place.refuse = None  # as when there is room again
    copy_again(mirror, 2)
    mirror.close("stopped", 60)
    assert mirror.findings(8) == [] and len(mirror._copies) == 2


def test_a_run_goes_on_where_its_mirror_disappears(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    folder = tmp_path / "disk" / "mirror"
    folder.parent.mkdir()
    recipe = make_recipe({"run.mirror": str(folder), "checkpoint.every_steps": 2})
    training = Training(recipe, Options(runs=tmp_path / "runs"))
    for step in training:
        if step.number == 6:
            folder.parent.rename(tmp_path / "away")  # at once: the mirror may be writing
    assert training.ending.state == "finished"
    said = [
        each.event
        for each in training.run.ledger().entries
        if getattr(each.event, "what", "") == "the run is not mirrored"
    ]
    assert said and len({each.advice for each in said}) == len(said)
    assert not folder.exists()  # nothing is written to the disk that is there instead


def test_two_processes_with_one_mirror_are_noticed(run: Run, tmp_path: Path) -> None:
    place = odd(tmp_path, run)
    one, other = (Mirror(run, place, settle=SETTLE) for _ in range(2))
    copy_again(one, 3)
    copy_again(other, 1)
    copy_again(one, 1)
    assert [each.what for each in one.findings(8)] == ["two processes mirror one run"]
    one.close("stopped", 60)
    other.close("stopped", 60)
    assert restore(str(tmp_path / "mirror"), tmp_path / "other")[0].name == run.name


def test_a_mirror_that_is_killed_anywhere_has_a_whole_copy(run: Run, tmp_path: Path) -> None:
    def mirror_until(kill_at: int) -> Iterator[int]:
        place = odd(tmp_path, run, kill_at=kill_at)
        mirror = Mirror(run, place, settle=0.0)
        copy_again(mirror, 4)
        yield len(place.operations)

    whole = next(mirror_until(-1))
    for kill_at in range(2, whole, 3):
        assert in_a_fork(lambda kill_at=kill_at: next(mirror_until(kill_at))) == -9  # type: ignore[misc]
        again, _ = restore(str(tmp_path / "mirror"), tmp_path / f"other-{kill_at}")
        assert contents(again)["journal.jsonl"] == contents(run)["journal.jsonl"]
        assert max(again.checkpoints.iterdir()).name == "step-000008"


def test_the_mirror_of_a_run_restores_it_with_the_bits_of_the_unbroken_one(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    whole = run_recipe(make_recipe(), Options(runs=tmp_path / "whole")).run
    recipe = make_recipe({"run.mirror": str(tmp_path / "mirror")})
    training = Training(recipe, Options(runs=tmp_path / "runs"))
    for step in training:
        if step.number == 9:
            break
    shutil.rmtree(tmp_path / "runs")
    again, _ = restore(str(tmp_path / "mirror"), tmp_path / "elsewhere")
    ended = run_recipe(recipe, Options(runs=tmp_path / "elsewhere", resume=again))
    assert ended.ending.state == "finished"
    for name in ("model.safetensors", "optimizer.safetensors"):
        of = [run.checkpoints / "step-000012" / name for run in (whole, ended.run)]
        assert of[0].read_bytes() == of[1].read_bytes()
    shutil.rmtree(tmp_path / "elsewhere")
    assert restore(str(tmp_path / "mirror"), tmp_path / "last")[0].state == "finished"
