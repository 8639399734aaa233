"""Cure rate of the watch: train a fault, let `etude improve` write version two, train that, and look.

python benchmarks/watch/cure.py [--limit-seconds 1800] [--only duplicates] [--part 1/2] [--again]

All runs of a case are judged by one yardstick (watch/yardstick.py): their last weights on the held-out rows of
the healthy twin under its settings. A run is well if its loss is within two standard errors of the twins' and
it has no alarm of the fault. Version three is improved from version two where that is not well. Two placebos
are judged the same way: another seed, and half the learning rate whatever was found. A fault that changed
nothing, by the same rule, is left out and counted. Cases that are in results/watch_cure.json are not run again.
"""

import argparse
import contextlib
import dataclasses
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from measure import FOLDER, write_result

from etude.errors import EtudeError
from etude.improve import improve
from etude.recipe.load import flatten, with_changes
from etude.recipe.schema import Recipe
from etude.records.events import plain
from etude.records.store import Run
from watch.cases import COMBINATIONS, HOME, Case, present, recipe_of
from watch.curve import is_alarm
from watch.grid import curve_of, fast_folder, quick, train
from watch.ills import ILLS
from watch.score import findings_of, share
from watch.yardstick import Yardstick, keep, kept, measure

RESULT = FOLDER / "results" / "watch_cure.json"
CLAIM = "watch: faults that version two of the recipe takes away, beside two placebos"
TREATMENTS = ("version two", "version three", "another seed", "half the rate")
TWINS = (1, 2, 3)  # seeds
Judged = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit-seconds", type=float, default=float("inf"))
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--part", default="1/1", help="of the cases, where several processes share them")
    parser.add_argument("--again", action="store_true", help="run cases again that have a result")
    parser.add_argument("--keep", type=Path, help="folder to keep the runs in")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    chosen = [case for case in curable_cases() if options.only in case.name][part - 1 :: parts]
    started = time.monotonic()
    with quick():
        for work in (treat, give_placebos):
            for case in chosen:
                row = {} if options.again and work is treat else read_rows().get(case.name, {})
                if _LAST[work] in row:
                    continue
                if time.monotonic() - started > options.limit_seconds:
                    print("time is up; run it again to go on")
                    return
                with home_of(case, options.keep) as home:
                    row = work(case, row, home)
                print(case.name, json.dumps(row), flush=True)
                rows = {**read_rows(), case.name: row}  # of other processes too
                rows = {each.name: rows[each.name] for each in curable_cases() if each.name in rows}
                write_result("watch_cure", CLAIM, {"cured": summary(rows), "cases": rows}, table(rows))


@contextlib.contextmanager
def home_of(case: Case, keep_in: Path | None) -> Iterator[Path]:
    """A folder for the runs of a case, which is removed unless they are to be kept."""
    if keep_in:
        yield keep_in / case.name
        return
    with tempfile.TemporaryDirectory(prefix="cure-", dir=fast_folder()) as folder:
        yield Path(folder)


def read_rows() -> dict[str, Judged]:
    return dict(json.loads(RESULT.read_text())["cases"]) if RESULT.exists() else {}


def curable_cases() -> list[Case]:
    """Every fault at two severities, each on a combination; the severe ones first."""
    there = {each.name for each in present()}
    cases = [
        Case(ill.on[strength], name, strength, 1, False) for strength in (0, 1) for name, ill in ILLS.items()
    ]
    return [each for each in cases if each.combination in there]


def treat(case: Case, row: Judged, home: Path) -> Judged:
    """Train a fault, version two and, if need be, version three; all by one yardstick."""
    stick = yardstick(case)
    judged: Judged = {"twin": [round(stick.loss, 4), round(stick.scatter, 4)]}
    run, judged["fault"] = trial(case, ill_recipe(case), stick, home / "fault")
    before = "fault"
    for name in ("version two", "version three"):
        judged[name] = judged[before]
        if not judged[before]["is_well"]:
            try:
                better = improve(run).recipe
                judged[f"changes of {name}"] = changed(run.recipe, better)
                run, judged[name] = trial(case, better, stick, home / name.replace(" ", "-"))
            except EtudeError as error:
                judged[f"changes of {name}"] = f"none: {error}"
        before = name
    return judged


def give_placebos(case: Case, row: Judged, home: Path) -> Judged:
    """Train an ill recipe with another seed, and with half its rate."""
    judged, recipe = dict(row), ill_recipe(case)
    placebos: dict[str, Any] = {"another seed": {"seed": case.seed + 50}}
    placebos["half the rate"] = {"optim.learning_rate": recipe.optim.learning_rate / 2}
    for name, values in placebos.items():
        judged[name] = judged["fault"]
        if not judged["fault"]["is_well"]:
            changes = with_changes(recipe, values)
            _, judged[name] = trial(case, changes, yardstick(case), home / name.replace(" ", "-"))
    return judged


_LAST = {treat: "version three", give_placebos: "half the rate"}


def ill_recipe(case: Case) -> Recipe:
    fault, usual = ILLS[case.condition].fault, COMBINATIONS[case.combination].learning_rate
    strength = fault.strengths[case.strength]

    def change_rows(train: Any, held_out: Any, draw: Any) -> Any:
        return fault.rows(train, held_out, draw, strength) if fault.rows else (train, held_out)

    return recipe_of(
        case, changes=fault.recipe(strength, usual) if fault.recipe else {}, change_rows=change_rows
    )


def trial(case: Case, recipe: Recipe, stick: Yardstick, home: Path) -> tuple[Run, Judged]:
    """Train a recipe, and judge the run."""
    ill = ILLS[case.condition]
    fault = dataclasses.replace(ill.fault, onset=0)
    ending, run = train(case, fault, recipe, home)
    curve = curve_of(case, fault, run, ending)
    found = findings_of(curve)
    alarms = sorted({each.kind for each in found if is_alarm(each) and each.kind in fault.kinds})
    losses = stick.measure(run)
    more, errors = stick.distance(losses)
    loss = stick.loss + more
    is_near = abs(errors) <= 2 if ill.is_low else errors <= 2
    return run, {
        "alarms": alarms, "loss": plain(round(loss, 4)), "errors_above_twin": plain(round(errors, 1)),
        "is_well": bool(is_near and not alarms),
        "found": sorted({f"{each.kind}@{each.step}" for each in found}),
    }  # fmt: skip


def yardstick(case: Case) -> Yardstick:
    """Train the healthy twins of a case, once, and score them."""
    ill = ILLS[case.condition]

    def change_rows(train: Any, held_out: Any, draw: Any) -> Any:
        return ill.rows(train, held_out, ill.fault.strengths[case.strength]) if ill.rows else train, held_out

    def twin(seed: int) -> Recipe:
        healthy = Case(case.combination, "plain", 0, seed, True)
        return recipe_of(healthy, changes=dict(ill.twin), change_rows=change_rows)

    name = f"{case.condition}-{case.strength}-" if ill.twin or ill.rows else ""
    file = HOME / "twins" / f"{name}{case.combination}.json"
    found = kept(file)
    if found is None:
        scored = []
        for seed in TWINS:
            home = Path(tempfile.mkdtemp(prefix="twin-", dir=fast_folder()))
            _, run = train(Case(case.combination, "plain", 0, seed, True), None, twin(seed), home)
            parts = measure(run, twin(seed))
            shutil.rmtree(home, ignore_errors=True)
            assert parts is not None
            scored.append(parts)
        found = np.stack([losses for losses, _ in scored]), scored[0][1]
        keep(file, *found)
    return Yardstick(twin(TWINS[0]), found[0][: len(TWINS)], found[1])


def changed(old: Recipe, new: Recipe) -> dict[str, Any]:
    """The keys that the next version has otherwise, but its name and its parent."""
    before, after = flatten(old.to_dict()), flatten(new.to_dict())
    return {
        key: after.get(key)
        for key in dict.fromkeys((*after, *before))
        if before.get(key) != after.get(key) and key not in ("name", "records.parent")
    }


def summary(rows: Mapping[str, Judged]) -> dict[str, Any]:
    """Cured of the faults that had an effect, with Wilson intervals; of cases, and of faults in all their cases."""
    ill = {name: row for name, row in rows.items() if not row["fault"]["is_well"]}
    cured: dict[str, Any] = {"without effect": [name for name in rows if name not in ill]}
    for name in TREATMENTS:
        had = {key: row[name]["is_well"] for key, row in ill.items() if name in row}
        faults = dict.fromkeys(_fault_of(key) for key in had)
        whole = [all(well for key, well in had.items() if _fault_of(key) == fault) for fault in faults]
        cured[name] = {"cases": share(sum(had.values()), len(had)), "faults": share(sum(whole), len(whole))}
    return cured


def _fault_of(name: str) -> str:
    return next(fault for fault in ILLS if name.startswith(f"{fault}-"))


def table(rows: Mapping[str, Judged]) -> list[list[str]]:
    """A row for each case: what was changed, and which treatments made it well."""
    lines = [["case", "fault", *TREATMENTS, "changes"]]
    for name, row in rows.items():
        cells = [
            f"{'well' if row[each]['is_well'] else 'ill'} {row[each]['errors_above_twin']}"
            if each in row
            else ""
            for each in ("fault", *TREATMENTS)
        ]
        changes = "; ".join(json.dumps(row[key]) for key in row if key.startswith("changes"))
        lines.append([name, *cells, changes[:160]])
    return lines


if __name__ == "__main__":
    if not present():
        raise SystemExit(f"none of {', '.join(COMBINATIONS)} has its data on this machine")
    main()
