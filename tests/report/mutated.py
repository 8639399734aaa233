"""Edits of a true report: a digit, a unit, points for percent, a statistic, a split, a run, a rounding, a claim."""

import random
import re
from collections.abc import Callable, Iterator
from decimal import ROUND_HALF_UP, Decimal

from etude.report.history import History
from etude.report.write import Report

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
