"""Other tools on the curves of the watch: the faults they find, how late, and what they say of healthy runs.

python benchmarks/watch/peers.py [--curves FOLDER] [--real FOLDER] [--made 300] [--wrong FILE]

Four log doctors run in an environment of their own, made on first use (watch/doctors.py); rules of other
tools are written anew (watch/rules.py). No peer names a cause, so a fault is found by any alarm from its
onset on. A peer that reads a finished log has no delay, and any alarm of it counts as found, wherever it
points. In healthy runs every alarm is a false one. All get the same points; the watch has the facts of a run
too, as its recipe gives them, and in one of its two rows what the tests with the model found. Writes
results/watch_peers.json.
"""

import argparse
import csv
import hashlib
import json
import math
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import FOLDER, WORK, peer_python, write_result

from etude.records.events import Finding
from etude.watch.point import Facts, Point
from etude.watch.watcher import Watcher
from tests.watch.curves import story
from watch import curves as real
from watch import doctors, made
from watch.curve import CURVES, Curve, first_alarms, is_alarm, read_curves
from watch.rules import RULES
from watch.score import DELAYS, judge, share, tuning_half

CLAIM = "the watch beside other tools on the same curves: faults found, delay, and alarms in healthy runs"
WITH_TESTS, ALONE = "etude, with its tests of the model", "etude, curve alone"
GROWING = {
    "trainspotter": "trainspotter watch", "losslint": "losslint watch", "gradsnitch": "gradsnitch live",
}  # fmt: skip
SPEED = {  # rules that may be right of a healthy run, when the machine had other work to do
    "slowdown", "slow_steps", "input_bound", "throughput: Throughput regression", "stall", "data_starvation",
}  # fmt: skip
STORY = "story 3"
_NAMES = {
    "step": "step", "epoch": "epoch", "loss": "loss", "grad_norm": "grad_norm", "learning_rate": "learning_rate",
    "seconds": "step_time", "wait_seconds": "data_time", "tokens_per_second": "tokens_per_second",
    "memory_bytes": "host_memory", "update_ratio": "update_ratio", "eval_loss": "eval_loss",
}  # fmt: skip
_LIMIT_SECONDS = 2 * 3600
Alarm = tuple[int | None, str]  # step, unknown where a finished log was read, and rule
Answers = dict[str, dict[str, list[Alarm]]]  # of each tool on each log


@dataclass(frozen=True)
class Log:
    """A curve that the tools are given, and the truth: healthy, the name of a fault, or a label."""

    name: str
    group: str
    truth: str
    points: Sequence[Point]
    facts: Facts = field(default_factory=Facts)
    onset: int = 0
    curve: Curve | None = None

    @property
    def is_healthy(self) -> bool:
        return bool(self.curve.case["is_healthy"]) if self.curve else self.truth == "healthy"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=Path, default=CURVES, help="of the grid")
    parser.add_argument("--real", type=Path, default=real.CURVES, help="labelled ones, if they are there")
    parser.add_argument(
        "--made", type=int, default=300, help="healthy made curves; half as many with a fault"
    )
    parser.add_argument("--wrong", type=Path, help="write what a peer got right and the watch did not")
    options = parser.parse_args()
    logs = [*grid(options.curves), *real_logs(options.real), *made_logs(options.made), story_log()]
    answers, errors = ask_doctors(logs)
    answers |= {name: {log.name: list(rule(log.points)) for log in logs} for name, rule in RULES.items()}
    answers |= ask_etude(logs)
    result = results(logs, answers)
    if options.wrong:
        options.wrong.write_text("\n".join(wrong(logs, answers)) + "\n")
    given = {"packages": doctors.PACKAGES, "figures": _NAMES, "errors": errors, "curves": count(logs)}
    write_result("watch_peers", CLAIM, {**given, **result}, table(result))
    print(f"\nerrors of the log doctors: {errors or 'none'}")


def grid(folder: Path) -> Iterator[Log]:
    for curve in read_curves(folder):
        truth = curve.case["condition"]
        if not (curve.case["is_healthy"] and curve.has_lost):
            yield Log(curve.name, "grid", truth, curve.points, curve.facts, curve.onset, curve)


def real_logs(folder: Path) -> Iterator[Log]:
    index = folder / "index.csv"
    for row in csv.DictReader(index.open()) if index.exists() else ():
        yield Log(row["id"], "real", row["label"], real.points_of(folder / "dev" / f"{row['id']}.jsonl"))


def made_logs(healthy: int) -> Iterator[Log]:
    for number in range(healthy):
        points, facts = made.healthy_run(number)
        yield Log(f"made healthy {number}", "made", "healthy", points, facts)
    for kind in made.FAULTS:
        for number in range(math.ceil(healthy / 2 / len(made.FAULTS))):
            points, facts, onset = made.faulty_run(kind, number)
            yield Log(f"made {kind} {number}", "made", kind, points, facts, points[onset].step)


def story_log() -> Log:
    """The first 225 of 5,064 steps of a run whose loss fell from 3.64 to 0.005, as its log stood then."""
    points = [Point(step=at.step, epoch=at.epoch, loss=at.loss, learning_rate=2e-5 * (1 - at.step / 5064))
              for at in story()]  # fmt: skip
    return Log(STORY, "story", "first_pass_collapse", points, Facts(steps=5064, objective="causal"))


def rows_of(points: Iterable[Point]) -> list[doctors.Row]:
    """Points as the rows of a log, under names that all log doctors know; a step may have several."""
    return [
        {_NAMES[name]: value for name in _NAMES if (value := getattr(point, name)) is not None}
        for point in points
    ]


def ask_doctors(logs: Sequence[Log]) -> tuple[Answers, dict[str, dict[str, str]]]:
    """Alarms of the log doctors, and what went wrong in them; that counts as silence."""
    python = peer_python("watch-peers", [*doctors.PACKAGES, *doctors.NEEDED])
    given = {log.name: {"rows": rows_of(log.points), "grows": log.group in ("grid", "story")} for log in logs}
    answers: Answers = {}
    errors: dict[str, dict[str, str]] = {}
    for tool in doctors.TOOLS:
        told = ask(python, tool, given)
        answers[tool] = {
            name: [(None, alarm["rule"]) for alarm in each["finished"]] for name, each in told.items()
        }
        if tool in GROWING:
            answers[GROWING[tool]] = {
                name: sorted((alarm["step"], alarm["rule"]) for alarm in each["growing"])
                for name, each in told.items()
                if given[name]["grows"]
            }
        if failed := {name: each["error"] for name, each in told.items() if each["error"]}:
            errors[tool] = failed
    return answers, errors


def ask(python: Path, tool: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Answers of a log doctor to each log; to one that it has read before, the answer of then."""
    worker = FOLDER / "watch" / "doctors.py"
    kept, asked, said = (WORK / f"watch-peers-{tool}{end}.json" for end in ("", "-asked", "-said"))
    known = json.loads(kept.read_text()) if kept.exists() else {}
    keys = {
        name: hashlib.sha256((worker.read_text() + json.dumps(each)).encode()).hexdigest()
        for name, each in given.items()
    }
    new = {keys[name]: each for name, each in given.items() if keys[name] not in known}
    print(f"{tool} reads {len(new)} of {len(given)} logs, and has read the others before", flush=True)
    asked.write_text(json.dumps(new))
    command = [str(python), "-I", "-W", "ignore", str(worker), tool, str(asked), str(said)]
    subprocess.run(command, check=True, timeout=_LIMIT_SECONDS, stdin=subprocess.DEVNULL)
    known |= json.loads(said.read_text())
    kept.write_text(json.dumps(known))
    asked.unlink()
    said.unlink()
    return {name: known[key] for name, key in keys.items()}


def ask_etude(logs: Sequence[Log]) -> Answers:
    """Alarms of the watch: from the points alone, and with what the run found by its tests of the model."""
    alone: dict[str, list[Alarm]] = {}
    tested: dict[str, list[Alarm]] = {}
    for log in logs:
        watcher = Watcher.of(log.facts)
        for point in log.points:
            watcher.add(point)
        alone[log.name] = _alarms(watcher.findings)
        if log.curve:
            verdict = judge(log.curve)
            tested[log.name] = _alarms([*verdict.early, *verdict.late])
    return {WITH_TESTS: tested, ALONE: alone}


def results(logs: Sequence[Log], answers: Answers) -> dict[str, Any]:
    tuned = tuning_half()
    of_grid = [log for log in logs if log.group == "grid"]
    held_out = [log for log in of_grid if log.curve and log.curve.case["combination"] not in tuned]
    tools = [*(tool for tool in answers if tool not in (WITH_TESTS, ALONE)), ALONE, WITH_TESTS]
    result: dict[str, Any] = {"grid": {}, "held_out": {}, "made": {}, "real": {}, "story": {}, "by_fault": {}}
    result["false_alarms_by_rule"] = {}
    for tool in tools:
        said = answers[tool]
        for name, part in (("grid", of_grid), ("held_out", held_out), ("made", of("made", logs))):
            heard = [log for log in part if log.name in said]
            if heard:
                result[name][tool] = score(heard, said)
        result["by_fault"][tool] = by_truth(of_grid, said)
        if named := by_truth(of("real", logs), said):
            result["real"][tool] = named
        if STORY in said:
            result["story"][tool] = list(dict.fromkeys(rule for _, rule in said[STORY]))
        healthy = [log for log in logs if log.group != "made" and log.is_healthy and log.name in said]
        rules = Counter(rule for log in healthy for rule in {rule for _, rule in said[log.name]})
        result["false_alarms_by_rule"][tool] = dict(rules.most_common())
    return result


def of(group: str, logs: Iterable[Log]) -> list[Log]:
    return [log for log in logs if log.group == group]


def score(logs: Sequence[Log], said: Mapping[str, Sequence[Alarm]]) -> dict[str, Any]:
    """The figures of one tool on healthy and faulty logs, each share with its Wilson interval."""
    healthy, faulty = [log for log in logs if log.is_healthy], [log for log in logs if not log.is_healthy]
    severe = [log for log in faulty if log.curve and log.curve.case["strength"] == 0]
    alarms = sum(len(said[log.name]) for log in healthy)
    evaluations = sum(point.eval_loss is not None for log in healthy for point in log.points)
    late = [log for log in faulty if log.onset]
    delays = {log.name: delay for log in faulty if (delay := delay_of(log, said)) is not None}
    return {
        "found_severe": share(sum(is_found(log, said) for log in severe), len(severe)),
        "found": share(sum(is_found(log, said) for log in faulty), len(faulty)),
        "found_within": {
            str(most): share(sum(delay <= most for delay in delays.values()), len(faulty)) for most in DELAYS
        } if delays else None,
        "delay_median": statistics.median(delays.values()) if delays else None,
        "healthy_flagged": share(sum(bool(said[log.name]) for log in healthy), len(healthy)),
        "healthy_flagged_but_for_speed": share(
            sum(any(rule not in SPEED for _, rule in said[log.name]) for log in healthy), len(healthy)
        ),
        "false_alarms": alarms,
        "false_alarms_per_1000_evaluations": round(1000 * alarms / max(evaluations, 1), 1),
        "alarms_before_onset": share(
            sum(any(at is not None and at < log.onset for at, _ in said[log.name]) for log in late), len(late)
        ),
    }  # fmt: skip


def is_found(log: Log, said: Mapping[str, Sequence[Alarm]]) -> bool:
    return any(at is None or at >= log.onset for at, _ in said[log.name])


def delay_of(log: Log, said: Mapping[str, Sequence[Alarm]]) -> int | None:
    """Steps from the onset to the first alarm after it; None without one, or where the log was finished."""
    return min(
        (at - log.onset for at, _ in said[log.name] if at is not None and at >= log.onset), default=None
    )


def by_truth(logs: Sequence[Log], said: Mapping[str, Sequence[Alarm]]) -> dict[str, list[int]]:
    """Logs with an alarm from the onset on, and all, for each truth."""
    counts: dict[str, list[int]] = {}
    for log in logs:
        if log.name in said:
            found = counts.setdefault(log.truth, [0, 0])
            found[0] += is_found(log, said)
            found[1] += 1
    return counts


def count(logs: Iterable[Log]) -> dict[str, int]:
    kinds = Counter(f"{log.group}, {'healthy' if log.is_healthy else 'with a fault'}" for log in logs)
    return dict(kinds)


def wrong(logs: Sequence[Log], answers: Answers) -> list[str]:
    """Lines of a table for what the watch got wrong and a peer right, with the rules of that peer."""
    lines = ["| curve | truth and onset | the watch | peers that were right |", "| --- | --- | --- | --- |"]
    for log in logs:
        mine = answers[WITH_TESTS if log.curve else ALONE][log.name]
        if log.truth == "undecided" or _is_named(log, mine):
            continue
        right = []
        for tool in answers:
            if tool in (WITH_TESTS, ALONE) or log.name not in answers[tool]:
                continue
            said = [rule for at, rule in answers[tool][log.name] if at is None or at >= log.onset]
            if bool(said) != log.is_healthy:
                right.append(f"{tool}: {', '.join(dict.fromkeys(said)) or 'silent'}")
        found = "; ".join(f"{rule}@{at}" for at, rule in mine)
        if right:
            lines.append(
                f"| {log.name} | {log.truth}, {log.onset} | {found or 'silent'} | {'; '.join(right)} |"
            )
    return lines


def _is_named(log: Log, alarms: Sequence[Alarm]) -> bool:
    """True if the watch is silent on a healthy log, or names a condition of the fault."""
    if log.is_healthy:
        return not alarms
    if log.curve:
        return judge(log.curve).delay is not None
    kinds = real.ANSWERS.get(log.truth, {log.truth})
    return any(rule in kinds for _, rule in alarms)


def table(result: Mapping[str, Any]) -> list[list[str]]:
    labels = ("healthy", *real.ANSWERS)
    rows = [["tool", "severe", "all", "median delay", "healthy flagged", "per 1,000 evaluations",
             "made: faults", "made: healthy", *(f"real: {label}" for label in labels), "story 3"]]  # fmt: skip
    for tool, cells in result["held_out"].items():
        drawn = result["made"].get(tool)
        told = result["real"].get(tool, {})
        rows.append([
            tool, _share(cells["found_severe"]), _share(cells["found"]),
            "" if cells["delay_median"] is None else f"{cells['delay_median']:g}", _share(cells["healthy_flagged"]),
            f"{cells['false_alarms_per_1000_evaluations']:g}",
            _share(drawn["found"]) if drawn else "", _share(drawn["healthy_flagged"]) if drawn else "",
            *("/".join(map(str, told[label])) if label in told else "" for label in labels),
            ", ".join(result["story"].get(tool, ["not asked"])) or "silent",
        ])  # fmt: skip
    return rows


def _alarms(findings: Iterable[Finding]) -> list[Alarm]:
    return [(each.step, each.kind or "") for each in first_alarms(filter(is_alarm, findings))]


def _share(value: Sequence[Any]) -> str:
    found, of_all, low, high = value
    return f"{found}/{of_all} = {found / max(of_all, 1):.0%} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
