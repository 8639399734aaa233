"""Score the watch on the curves of its benchmark: recall by delay, false alarms, causes; in seconds.

python benchmarks/watch/score.py [--wrong FILE] [--curves FOLDER]

The detectors of today read the figures of each curve. What needs the model, the tests before the first step
and those during the run, is taken from the records of the run. A false alarm is a warning or an error with
the name of a fault, in a healthy run; an info is none. A run without a fault whose validation lost over half of
what it had gained is set aside: it is listed, and counts on neither side. Combinations of model and data are halved by a hash:
thresholds may be tuned on one half, the other is held out. Writes results/watch_score.json.
"""

import argparse
import hashlib
import math
import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import write_result

from etude.records.events import Finding
from etude.watch.watcher import DETECTORS, Watcher
from watch.cases import COMBINATIONS, VERSION
from watch.curve import CURVES, Curve, first_alarms, read_curves
from watch.faults import FAULTS, Fault

DELAYS = (1, 10, 50, 200)
STRENGTHS = ("severe", "middling", "mild")
CLAIM = "watch: faults of a known kind and step put into real runs, and healthy runs beside them"
_BY_CURVE = {detector.kind for detector in DETECTORS}
_NEAR = 20  # steps between a finding of the run and the same one of the curve


@dataclass(frozen=True)
class Verdict:
    """Findings of the watch on one curve, beside the truth.

    early  alarms before the onset of the fault; of a healthy run, all
    delay  from the onset to the first alarm that names a condition of the fault, in steps; None: none did
    cause  whether the first alarm after the onset names the true cause; None where there was none
    """

    curve: Curve
    early: list[Finding]
    late: list[Finding]
    delay: int | None = None
    cause: bool | None = None

    @property
    def is_healthy(self) -> bool:
        return bool(self.curve.case["is_healthy"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=Path, default=CURVES)
    parser.add_argument("--wrong", type=Path, help="write what the watch got wrong into this file")
    options = parser.parse_args()
    curves = read_curves(options.curves)
    aside = [each for each in curves if each.case["is_healthy"] and each.has_lost]
    verdicts = [judge(curve) for curve in curves if curve not in aside]
    if not verdicts:
        raise SystemExit(f"{options.curves} has no curves; make them by benchmarks/watch/grid.py")
    tuned = tuning_half()
    parts = {
        "tuned on": [each for each in verdicts if each.curve.case["combination"] in tuned],
        "held out": [each for each in verdicts if each.curve.case["combination"] not in tuned],
        "all": verdicts,
    }
    scores = {name: score(part) for name, part in parts.items() if part}
    older = sum(each.curve.version < VERSION for each in verdicts)
    print(f"{len(verdicts)} curves, {older} of an earlier version of the cases; set aside: {len(aside)}")
    result: dict[str, Any] = {
        "curves": len(curves),
        "set_aside": {each.name: [found.kind for found in judge(each).early] for each in aside},
        "of_an_earlier_version": older,
        "scores": scores,
        "by_fault": by_fault(verdicts),
        "healthy": by_condition(verdicts),
    }
    if options.wrong:
        options.wrong.write_text("\n".join(wrong(verdicts)) + "\n")
    write_result("watch_score", CLAIM, {"tuned_on": sorted(tuned), **result}, table(scores))
    for row in fault_table(result["by_fault"]):
        print("| " + " | ".join(row) + " |")


def tuning_half() -> set[str]:
    """The half of the combinations that comes first by hash."""
    ordered = sorted(COMBINATIONS, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return set(ordered[: len(ordered) // 2])


def judge(curve: Curve) -> Verdict:
    """The alarms of a curve beside the truth."""
    alarms = first_alarms(findings_of(curve))
    if curve.case["is_healthy"]:
        return Verdict(curve, alarms, [])
    fault = FAULTS[curve.case["condition"]]
    early = [each for each in alarms if each.step < curve.onset]
    late = [each for each in alarms if each.step >= curve.onset]
    delays = [each.step - curve.onset for each in late if each.kind in fault.kinds]
    cause = names_cause(late[0], fault) if late else None
    return Verdict(curve, early, late, min(delays, default=None), cause)


def findings_of(curve: Curve) -> list[Finding]:
    """Findings of today's detectors, with the causes that tests of the run decided, and what only those could find."""
    watcher = Watcher.of(curve.facts)
    for point in curve.points:
        watcher.add(point)
    found = [
        next(
            (
                mine
                for mine in curve.recorded
                if mine.kind == each.kind and mine.decided_by and abs(mine.step - each.step) <= _NEAR
            ),
            each,
        )
        for each in watcher.findings
    ]
    known = {id(each) for each in found}
    return found + [
        each
        for each in curve.recorded
        if each.kind not in _BY_CURVE or (each.decided_by and id(each) not in known)
    ]


def names_cause(finding: Finding, fault: Fault) -> bool:
    """True if a finding, or the first of its causes, is the true cause."""
    first = " ".join(finding.causes[:1])
    return finding.kind in fault.named or bool(re.search(fault.words, first, re.IGNORECASE))


def score(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The figures of one half, each share with its Wilson interval."""
    healthy = [each for each in verdicts if each.is_healthy]
    faulty = [each for each in verdicts if not each.is_healthy]
    severe = [each for each in faulty if each.curve.case["strength"] == 0]
    delays = sorted(each.delay for each in faulty if each.delay is not None)
    alarms = sum(len(each.early) for each in healthy)
    evaluations = sum(point.eval_loss is not None for each in healthy for point in each.curve.points)
    points = sum(len(each.curve.points) for each in healthy)
    said = [each for each in faulty if each.cause is not None]
    return {
        "recall_severe": {str(delay): _recall(severe, delay) for delay in DELAYS},
        "recall_all": {str(delay): _recall(faulty, delay) for delay in DELAYS},
        "any_alarm_severe": share(sum(bool(each.late) for each in severe), len(severe)),
        "any_alarm_all": share(sum(bool(each.late) for each in faulty), len(faulty)),
        "delay_median": statistics.median(delays) if delays else None,
        "delay_p90": delays[math.ceil(0.9 * len(delays)) - 1] if delays else None,
        "cause_first_of_alarmed": share(sum(bool(each.cause) for each in said), len(said)),
        "cause_first_of_all": share(sum(bool(each.cause) for each in faulty), len(faulty)),
        "healthy_runs_flagged": share(sum(bool(each.early) for each in healthy), len(healthy)),
        "false_alarms": alarms,
        "false_alarms_per_1000_evaluations": round(1000 * alarms / max(evaluations, 1), 2),
        "false_alarms_per_1000_points": round(1000 * alarms / max(points, 1), 3),
        "alarms_before_onset": share(
            sum(bool(each.early) for each in faulty if each.curve.onset),
            sum(each.curve.onset > 0 for each in faulty),
        ),
    }


def by_fault(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """Found of the runs of each fault and strength, and what the first alarm was."""
    table: dict[str, Any] = {}
    for name, fault in FAULTS.items():
        mine = [each for each in verdicts if each.curve.case["condition"] == name]
        rows: dict[str, Any] = {"origin": fault.origin}
        for place, word in enumerate(STRENGTHS):
            runs = [each for each in mine if each.curve.case["strength"] == place]
            rows[word] = [sum(each.delay is not None for each in runs), len(runs)]
        rows["cause"] = [sum(bool(each.cause) for each in mine), len(mine)]
        rows["first"] = dict(
            Counter(each.late[0].kind if each.late else "nothing" for each in mine).most_common(4)
        )
        table[name] = rows
    return table


def by_condition(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """Flagged of the healthy runs of each kind, and the kinds of their false alarms."""
    table: dict[str, Any] = {}
    for each in verdicts:
        if each.is_healthy:
            rows = table.setdefault(each.curve.case["condition"], {"runs": 0, "flagged": 0, "kinds": {}})
            rows["runs"] += 1
            rows["flagged"] += bool(each.early)
            for finding in each.early:
                rows["kinds"][finding.kind] = rows["kinds"].get(finding.kind, 0) + 1
    return table


def wrong(verdicts: Iterable[Verdict]) -> list[str]:
    """Lines of a table for what the watch got wrong: case, expected and found."""
    tuned, lines = tuning_half(), ["| case | half | expected | found |", "| --- | --- | --- | --- |"]
    for each in verdicts:
        case = each.curve.case
        if each.is_healthy and each.early:
            expected = "nothing: healthy"
        elif not each.is_healthy and (each.delay is None or not each.cause or each.early):
            fault = FAULTS[case["condition"]]
            kinds = ", ".join(sorted(fault.named or fault.kinds))
            expected = f"{fault.cause}, from step {each.curve.onset}: {kinds}"
        else:
            continue
        found = "; ".join(
            f"{one.severity} {one.kind}@{one.step}: {one.evidence}" for one in [*each.early, *each.late][:4]
        )
        half = "tuned on" if case["combination"] in tuned else "held out"
        lines.append(f"| {each.curve.name} | {half} | {expected} | {found or 'nothing'} |")
    return lines


def share(count: int, of: int) -> list[Any]:
    """A count, of how many, and the Wilson interval of the share."""
    return [count, of, *wilson(count, of)]


def wilson(count: int, of: int, z: float = 1.96) -> list[float]:
    """Interval of 95 % of a share. Source: Wilson 1927."""
    if not of:
        return [0.0, 1.0]
    part, spread = count / of, z * z / of
    middle = (part + spread / 2) / (1 + spread)
    margin = z * math.sqrt(part * (1 - part) / of + spread / (4 * of)) / (1 + spread)
    return [round(middle - margin, 3), round(middle + margin, 3)]


def table(scores: dict[str, Any]) -> list[list[str]]:
    rows = [["", *scores]]
    for name in ("recall_severe", "recall_all"):
        for delay in DELAYS:
            cells = [_cell(part[name][str(delay)]) for part in scores.values()]
            rows.append([f"{name.replace('_', ', ')}, within {delay} steps", *cells])
    for name in (
        "any_alarm_severe", "any_alarm_all", "delay_median", "delay_p90", "cause_first_of_alarmed",
        "cause_first_of_all", "healthy_runs_flagged", "false_alarms_per_1000_evaluations",
        "false_alarms_per_1000_points", "alarms_before_onset",
    ):  # fmt: skip
        rows.append([name.replace("_", " "), *(_cell(part[name]) for part in scores.values())])
    return rows


def fault_table(faults: dict[str, Any]) -> list[list[str]]:
    rows = [["fault", *STRENGTHS, "cause", "first alarm"], ["---"] * 6]
    for name, row in faults.items():
        first = ", ".join(f"{kind} {count}" for kind, count in row["first"].items())
        rows.append([name, *("/".join(map(str, row[word])) for word in (*STRENGTHS, "cause")), first])
    return rows


def _recall(verdicts: Sequence[Verdict], delay: int) -> list[Any]:
    return share(sum(each.delay is not None and each.delay <= delay for each in verdicts), len(verdicts))


def _cell(value: Any) -> str:
    if isinstance(value, list):
        count, of, low, high = value
        return f"{count}/{of} = {count / max(of, 1):.0%} [{low:.2f}, {high:.2f}]"
    return str(value)


if __name__ == "__main__":
    main()
