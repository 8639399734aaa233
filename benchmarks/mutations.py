"""Edit true reports, and count the edits that `etude verify RUN` tells, and tells by their kind.

A run of every kind of training is trained, its report is verified as it is, and then with one edit at a time:
a digit, a unit, points for percent, the last value for the best, training for validation, another run, a
rounding of what was rounded, or a claim that nothing supports.

    python -m benchmarks.mutations --number 300 --out benchmarks/results/mutations.json
"""

import argparse
import json
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

from etude.records.store import Run
from etude.report.history import History, read_history
from etude.report.verifying import verify_run
from etude.report.write import Report, make_report

# Words of a report that stand for each other in a false one.
UNITS = (
    ("s", "min"), ("min", "h"), ("MB", "GB"), ("kB", "MB"), ("tokens/s", "samples/s"), ("steps", "epochs"),
    ("targets", "samples"), ("samples", "rows"), ("tokens", "targets"), ("parameters", "tokens"),
)  # fmt: skip
STATISTICS = (("best", "last"), ("last", "best"), ("lowest", "last"), ("first", "last"), ("mean", "median"))
CLAIMS = (
    "It generalizes well to code of every language.", "The loss fell by 43 % on held-out repositories.",
    "Validation loss reached 0.412.", "The model is ready for production.", "It beats CodeLlama 7B by 6 points.",
    "The training took 3 h on an A100.", "It was trained on 1.2 B tokens.", "Pass@1 on HumanEval is 31.7 %.",
    "No overfitting was seen.", "A second seed gave the same result within 0.01.", "Accuracy is 97 %.",
    "The run was repeated five times.", "Memory stayed below 2 GB.", "The learning rate was found by a sweep.",
)  # fmt: skip
_NUMBER = re.compile(r"(?<![\w.,`-])-?\d[\d,]*(?:\.\d+)?(?![\w.,`]*\w)")
_MOST_TRIES = 30

Mutation = tuple[str, str]  # the name of its kind, and the text with it
Edit = Callable[[str, Report, History, random.Random], Iterator[str]]


def mutate(kind: str, report: Report, history: History, draw: random.Random) -> str | None:
    """The text of a report with one edit of a kind; None where it has nothing of that kind."""
    for _ in range(_MOST_TRIES):
        start = report.text.index("## ")  # the front matter says no figure
        text = next(EDITS[kind](report.text[start:], report, history, draw), None)
        if text is not None and report.text[:start] + text != report.text:
            return report.text[:start] + text
    return None


def digit(text: str, report: Report, history: History, draw: random.Random) -> Iterator[str]:
    """One digit of a number is another."""
    found = draw.choice([*_NUMBER.finditer(text)])
    place = draw.choice([n for n in range(found.start(), found.end()) if text[n].isdecimal()])
    other = draw.choice([each for each in "123456789" if each != text[place]])
    yield text[:place] + other + text[place + 1 :]


def unit(text: str, report: Report, history: History, draw: random.Random) -> Iterator[str]:
    """A figure has another unit."""
    one, other = draw.choice(UNITS)
    yield from _exchange(rf"(?<=\d ){one}(?![\w/])", other, text, draw)


def points(text: str, report: Report, history: History, draw: random.Random) -> Iterator[str]:
    """A share in percent becomes points."""
    yield from _exchange(r"(?<=\d )%", "points", text, draw)


def statistic(text: str, report: Report, history: History, draw: random.Random) -> Iterator[str]:
    """The last value stands for the best, or the word does."""
    if draw.random() < 0.5:
        one, other = draw.choice(STATISTICS)
        yield from _exchange(rf"\b{one}\b(?! window)", other, text, draw)
    elif history.best:
        best, last = history.best, history.evaluations[-1]
        pairs = [(best.loss, last.loss), (best.perplexity, last.perplexity)]
        pairs += [(best.metrics[name], last.metrics[name]) for name in best.metrics if name in last.metrics]
        yield from _put_value(text, *draw.choice(pairs), draw)


def split(text: str, report: Report, history: History, draw: random.Random) -> Iterator[str]:
    """A loss of training stands for that of validation, or the word does."""
    if draw.random() < 0.5:
        yield from _exchange(r"\bvalidation (?=loss|samples|rows)", "training ", text, draw)
    elif history.evaluations:
        each = draw.choice(history.evaluations)
        window = next((w for w in history.windows if w.step >= each.step), history.windows[-1])
        yield from _put_value(text, each.loss, window.loss, draw)


def run(text: str, report: Report, history: History, draw: random.Random) -> Iterator[str]:
    """Another run stands for this one."""
    name, _, end = history.run.name.rpartition("-")
    other = f"{name}-{draw.randrange(16**6):06x}"
    yield from _exchange(rf"\b{name}-{end}\b", other, text, draw)


def rounding(text: str, report: Report, history: History, draw: random.Random) -> Iterator[str]:
    """A figure as it is told is rounded once more, or told with digits that it does not have."""
    found = draw.choice([each for each in _NUMBER.finditer(text) if "." in each[0]])
    number, digits = found[0].replace(",", ""), len(found[0].partition(".")[2])
    if digits > 1:
        rounded = Decimal(number).quantize(Decimal(1).scaleb(1 - digits), ROUND_HALF_UP)
        yield f"{text[: found.start()]}{rounded}{text[found.end() :]}"


def orphan(text: str, report: Report, history: History, draw: random.Random) -> Iterator[str]:
    """A claim that nothing supports stands at the end of a paragraph, in a list, or by itself."""
    lines, claim = text.split("\n"), draw.choice(CLAIMS)
    place = draw.randrange(1, len(lines))
    if lines[place].endswith(".") and not lines[place].startswith("|"):
        lines[place] += f" {claim}"
    elif lines[place].startswith("- "):
        lines.insert(place, f"- {claim}")
    elif not lines[place]:
        lines[place : place + 1] = ["", claim, ""]
    else:
        return
    yield "\n".join(lines)


EDITS: dict[str, Edit] = {
    each.__name__: each for each in (digit, unit, points, statistic, split, run, rounding, orphan)
}


def _exchange(pattern: str, other: str, text: str, draw: random.Random) -> Iterator[str]:
    """The text with one of the matches of a pattern exchanged."""
    if found := [*re.finditer(pattern, text)]:
        each = draw.choice(found)
        yield text[: each.start()] + other + text[each.end() :]


def _put_value(text: str, value: float, other: float, draw: random.Random) -> Iterator[str]:
    """The text with one value in the place of another, printed with as many digits."""
    found = []
    for each in _NUMBER.finditer(text):
        digits = len(each[0].partition(".")[2])
        if digits > 1 and f"{value:.{digits}f}" == each[0] != f"{other:.{digits}f}":
            found.append((each, f"{other:.{digits}f}"))
    if found:
        each, printed = draw.choice(found)
        yield text[: each.start()] + printed + text[each.end() :]


def main() -> None:
    """Train, mutate, verify, and write what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--number", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, help="JSON of paths by kind, as an earlier call trained them")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/mutations.json"))
    given = parser.parse_args()
    from tests.every_kind import train_every_kind

    with tempfile.TemporaryDirectory() as folder:
        paths = json.loads(given.runs.read_text()) if given.runs else train_every_kind(Path(folder))
        result = measure({what: Run(Path(path)) for what, path in paths.items()}, given.number, given.seed)
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    print({key: value for key, value in result.items() if key != "misses"})


def measure(runs: dict[str, Run], number: int, seed: int) -> dict[str, Any]:
    """Counts of the mutations of reports of runs that are found, and found by their kind."""
    draw, counts, misses = random.Random(seed), dict[str, dict[str, int]](), []
    true = {what: [str(each) for each in verify_run(run.path).deviations] for what, run in runs.items()}
    histories = {what: read_history(run) for what, run in runs.items()}
    reports = {what: make_report(history) for what, history in histories.items()}
    started = time.perf_counter()
    made = 0
    while made < number:
        kind, what = list(EDITS)[made % len(EDITS)], draw.choice(list(runs))
        text = mutate(kind, reports[what], histories[what], draw)
        if text is None:
            continue
        made += 1
        path = runs[what].path / "report/report.md"
        path.write_text(text)
        told = verify_run(runs[what].path).deviations
        path.write_text(reports[what].text)
        count = counts.setdefault(kind, {"mutations": 0, "found": 0, "named": 0})
        is_named = [each.kind for each in told] == [kind]
        count["mutations"] += 1
        count["found"] += bool(told)
        count["named"] += is_named
        if not is_named:
            misses.append({"kind": kind, "run": what, "told": [str(each)[:300] for each in told]})
    totals = {key: sum(each[key] for each in counts.values()) for key in ("mutations", "found", "named")}
    return {
        "true reports": {"runs": len(runs), "flags": sum(map(len, true.values()))},
        "all": totals, "by kind": counts, "misses": misses,
        "seconds a verification": (time.perf_counter() - started) / number,
    }  # fmt: skip


def sample(report: Report, history: History, seed: int) -> Mutation | None:
    """One mutation drawn by a number."""
    draw = random.Random(seed)
    kind = draw.choice(list(EDITS))
    text = mutate(kind, report, history, draw)
    return None if text is None else (kind, text)


if __name__ == "__main__":
    main()
