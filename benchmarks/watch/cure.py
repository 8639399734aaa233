"""Cure rate of the watch: train a fault, let `etude improve` write version two, train that, and look.

python benchmarks/watch/cure.py [--limit-seconds 1800] [--only duplicates]

A fault is cured if version two has no alarm of its kinds any more, and its last validation loss is within two
standard errors of that of the healthy twin, the same seed without the fault. Two placebos are judged the same
way: another seed, and half the learning rate whatever was found. A fault that changed nothing, by the same
rule, is left out and counted. Results are kept as they come, in results/watch_cure.json; a case that is there
is not run again.
"""

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import FOLDER, write_result

from etude.errors import EtudeError
from etude.improve import improve
from etude.recipe.load import flatten
from etude.recipe.schema import Recipe
from etude.records.events import plain
from watch.cases import COMBINATIONS, Case, present
from watch.curve import Curve, is_alarm
from watch.faults import FAULTS
from watch.grid import curve_of, quick, recipe_of_case, run_case, train
from watch.score import findings_of, share

RESULT = FOLDER / "results" / "watch_cure.json"
CLAIM = "watch: faults that version two of the recipe takes away, beside two placebos"
TREATMENTS = ("version two", "another seed", "half the rate")
ON = ("alpaca-scratch", "comments-scratch", "shakespeare-scratch", "alpaca-lora")
Judged = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit-seconds", type=float, default=float("inf"))
    parser.add_argument("--only", default="", help="cases whose name holds this")
    options = parser.parse_args()
    rows: dict[str, Judged] = json.loads(RESULT.read_text())["cases"] if RESULT.exists() else {}
    started = time.monotonic()
    with quick():
        for case in curable_cases():
            if case.name in rows or options.only not in case.name:
                continue
            if time.monotonic() - started > options.limit_seconds:
                print("time is up; run it again to go on")
                break
            rows[case.name] = treat(case)
            print(case.name, json.dumps(rows[case.name]), flush=True)
            write_result("watch_cure", CLAIM, {"cured": summary(rows), "cases": rows}, table(rows))


def curable_cases() -> list[Case]:
    """Every fault that a recipe can cure, at each strength, on combinations in turn; the severe ones first."""
    cases = []
    for strength in (0, 1, 2):
        for place, (name, fault) in enumerate(FAULTS.items()):
            able = [
                each.name
                for each in present()
                if each.name in ON and any(need <= each.traits for need in fault.traits)
            ]
            if fault.is_curable and able:
                cases.append(Case(able[(place + strength) % len(able)], name, strength, 1, False))
    return cases


def treat(case: Case) -> Judged:
    """Train a fault, its healthy twin, version two and the placebos; each is judged by the same rule."""
    fault = FAULTS[case.condition]
    twin = run_case(Case(case.combination, "plain", 0, case.seed, True))
    home = Path(tempfile.mkdtemp(prefix="cure-"))
    try:
        ending, run = train(case, fault, recipe_of_case(case, fault, {}), home)
        first = curve_of(case, fault, run, ending)
        judged: Judged = {"twin": _round(twin.final_loss), "fault": judge(first, twin, case)}
        judged["changes"], changes = "none", None
        try:
            second = improve(run).recipe
            changes = changed(run.recipe, second)
            judged["changes"] = changes
        except EtudeError as error:
            judged["changes"] = f"none: {error}"
        rate = recipe_of_case(case, fault, {}).optim.learning_rate
        treatments = {
            "another seed": ({}, case.seed + 50),
            "half the rate": ({"optim.learning_rate": rate / 2}, 1),
        }
        for name, (values, seed) in treatments.items():
            judged[name] = judge(run_case(replace(case, seed=seed), changes=values), twin, case)
        curve = run_case(case, changes=changes) if changes else first
        judged["version two"] = judge(curve, twin, case)
        return judged
    finally:
        shutil.rmtree(home, ignore_errors=True)


def changed(old: Recipe, new: Recipe) -> dict[str, Any]:
    """The keys that version two has otherwise, but its name and its parent."""
    before, after = flatten(old.to_dict()), flatten(new.to_dict())
    return {
        key: value
        for key, value in after.items()
        if before.get(key) != value and key not in ("name", "records.parent") and key not in _NOT_TREATED
    }


_NOT_TREATED = {"records.log_every_steps"}


def judge(curve: Curve, twin: Curve, case: Case) -> Judged:
    """True if a run has no alarm of its fault, and the loss of its healthy twin."""
    kinds = FAULTS[case.condition].kinds
    alarms = sorted({each.kind for each in findings_of(curve) if is_alarm(each) and each.kind in kinds})
    (loss, _), (right, error) = curve.final_loss, twin.final_loss
    distance = (loss - right) / error if math.isfinite(loss) else math.inf
    is_near = abs(distance) <= 2 if case.condition == "validation_leak" else distance <= 2
    return {
        "alarms": alarms, "loss": plain(loss), "errors_above_twin": plain(round(distance, 2)),
        "is_well": bool(is_near and not alarms),
    }  # fmt: skip


def summary(rows: Mapping[str, Judged]) -> dict[str, Any]:
    """Cured of the faults that had an effect, with Wilson intervals."""
    ill = [row for row in rows.values() if not row["fault"]["is_well"]]
    cured = {name: share(sum(row[name]["is_well"] for row in ill), len(ill)) for name in TREATMENTS}
    return {**cured, "faults without effect": len(rows) - len(ill)}


def table(rows: Mapping[str, Judged]) -> list[list[str]]:
    """A row for each case: what was changed, and which treatments made it well."""
    lines = [["case", "fault", *TREATMENTS, "changes"]]
    for name, row in rows.items():
        cells = [
            f"{'well' if row[each]['is_well'] else 'ill'} {row[each]['errors_above_twin']}"
            for each in ("fault", *TREATMENTS)
        ]
        lines.append([name, *cells, json.dumps(row["changes"])[:120]])
    return lines


def _round(values: tuple[float, float]) -> list[float]:
    return [round(value, 4) for value in values]


if __name__ == "__main__":
    if not {each.name for each in present()} & set(ON):
        raise SystemExit(f"none of {', '.join(COMBINATIONS)} has its data on this machine")
    main()
