"""Differences between a text as it stands and that which follows from the records, by its sentences."""

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from typing import Any

from etude.text import one_line

MOST = 200  # told of one file
_MOST_LINES = 4000  # that differ and are still paired
_ALIKE = 0.5  # of the words of two lines, for one to be the other after an edit
_LONGEST = 300
_LARGEST = 10**15  # of a number that is looked at for its rounding
_WAYS = (ROUND_HALF_EVEN, ROUND_HALF_UP, ROUND_DOWN)
_NUMBER = r"\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
_TOKEN = re.compile(rf"{_NUMBER}|[^\W\d_]+|\S")
_RUN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}-[0-9a-f]{6}\b")
_UNITS = {
    "s", "ms", "min", "h", "d", "B", "kB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB", "nats", "bits",
    "tokens", "targets", "steps", "epochs", "samples", "rows", "GFLOP", "TFLOP",
}  # fmt: skip
_STATISTICS = {
    "first", "last", "best", "lowest", "highest", "mean", "median", "minimum", "maximum", "min", "max", "end",
    "start", "final",
}  # fmt: skip
_SPLITS = {"training", "train", "validation", "test"}


@dataclass(frozen=True)
class Deviation:
    """Something that stands in a file of ours and does not follow from the records.

    kind     chain, line, checkpoint, data, value, chart, or of a sentence: digit, rounding, statistic, split,
             unit, points, run, words, orphan (it has no counterpart), missing (it was left out)
    line     of the file, where it has lines
    stated   as it stands; follows: from the records; "" where there is nothing
    rule     why they should be the same
    """

    file: str
    kind: str
    stated: str
    follows: str
    rule: str
    line: int | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        stands = f"stands: {self.stated}" if self.stated else "nothing stands there"
        follows = f"follows: {self.follows}" if self.follows else "nothing like it follows"
        return one_line(f"{place} ({self.kind}): {stands}; {follows}; {self.rule}", 4 * _LONGEST)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Known:
    """A figure as the text that follows prints it, to tell which another one was put in its place.

    value  unrounded, where it is a number
    """

    text: str
    name: str
    value: Any = None


def compare_texts(file: str, stated: str, follows: str, known: Sequence[Known] = ()) -> Iterator[Deviation]:
    """Deviations of a text from that which follows, by sentences and cells; empty lines are none."""
    mine = {number: line for number, line in enumerate(stated.split("\n"), 1) if line.strip()}
    ours, theirs = [*mine.values()], [line for line in follows.split("\n") if line.strip()]
    start = next((n for n, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
    most = min(len(ours), len(theirs)) - start
    tail = next((n for n in range(most) if ours[-1 - n] != theirs[-1 - n]), most)
    numbers = [*mine, max(mine, default=0) + 1][start:]
    ours, theirs = ours[start : len(ours) - tail], theirs[start : len(theirs) - tail]
    if max(len(ours), len(theirs)) > _MOST_LINES:
        rule = f"{len(ours):,} lines differ from the {len(theirs):,} that the records give"
        first = (each[0][:_LONGEST] if each else "" for each in (ours, theirs))
        yield Deviation(file, "words", next(first), next(first), rule, numbers[0])
        return
    matcher = difflib.SequenceMatcher(None, ours, theirs, autojunk=False)
    for tag, low, high, first_of, last_of in matcher.get_opcodes():
        if tag != "equal":
            for place, one, other in _pair(ours[low:high], theirs[first_of:last_of]):
                yield from _compare_lines(file, numbers[low + place], one, other, known)


def compare_values(file: str, stated: Any, follows: Any, rule: str, at: str = "") -> Iterator[Deviation]:
    """Deviations of plain values from those that follow, by their paths."""
    if type(stated) is type(follows) and isinstance(stated, dict):
        for name in {**follows, **stated}:
            here = f"{at}.{name}" if at else str(name)
            yield from compare_values(file, stated.get(name), follows.get(name), rule, here)
    elif type(stated) is type(follows) and isinstance(stated, list) and len(stated) == len(follows):
        for place, (mine, other) in enumerate(zip(stated, follows)):
            yield from compare_values(file, mine, other, rule, f"{at}[{place}]")
    elif stated != follows or isinstance(stated, bool) != isinstance(follows, bool):
        yield Deviation(file, "value", _shown(at, stated), _shown(at, follows), rule)


def kind_of_edit(stated: str, follows: str, known: Sequence[Known] = ()) -> tuple[str, str]:
    """The kind of the difference of two sentences, and a few words on it."""
    if _RUN.findall(stated) != _RUN.findall(follows):
        return "run", "it names another run"
    mine, other = _TOKEN.findall(stated), _TOKEN.findall(follows)
    changes = [
        (mine[low:high], other[first:last])
        for tag, low, high, first, last in difflib.SequenceMatcher(
            None, mine, other, autojunk=False
        ).get_opcodes()
        if tag != "equal"
    ]
    before, after = ({word for each in changes for word in each[side]} for side in (1, 0))
    for words, kind, what in (
        (_STATISTICS, "statistic", "it names another statistic"),
        (_SPLITS, "split", "it names other rows"),
    ):
        if before & words and after & words:
            return kind, what
    if "%" in before and "%" not in after and not any(map(_is_number, before | after)):
        return "points", "a share in percent is no number of points"
    if before & _UNITS and (after & _UNITS or not after):
        return "unit", "it has another unit"
    numbers = [
        (a[0], b[0]) for a, b in changes if len(a) == len(b) == 1 and _is_number(a[0]) and _is_number(b[0])
    ]
    if len(numbers) == len(changes) and numbers:
        return _kind_of_number(*numbers[0], known)
    return "words", "the words are others"


def _kind_of_number(stated: str, follows: str, known: Sequence[Known]) -> tuple[str, str]:
    """The kind of the difference of two numbers: rounded again, a figure of another name, or a digit."""
    values: list[float | str] = [
        each.value
        for each in known
        if isinstance(each.value, float) and _has(each.text, follows) and _is_printed(each.value, follows)
    ]
    if any(_is_rounded_again(stated, each) for each in (follows.replace(",", ""), *values)):
        return "rounding", "a figure was rounded from one that was rounded, or to other digits"
    names = {each.name for each in known if _has(each.text, follows)}
    others = [each.name for each in known if each.name not in names and _has(each.text, stated)]
    if len(stated.strip("0.,")) < 2 or not others:
        return "digit", "the number is another"
    rows, of_others = ({_split(name) for name in each} - {""} for each in (names, others))
    kind = "split" if rows and of_others and not rows & of_others else "statistic"
    return kind, f"it is the value of {others[0].replace('_', ' ')}"


def _is_rounded_again(stated: str, value: float | str) -> bool:
    """True if a number comes of a value by rounding it twice, to other digits, or by cutting digits off."""
    exact, digits = Decimal(str(value)), _decimals(stated)
    if not exact.is_finite() or abs(exact) > _LARGEST or -int(exact.as_tuple().exponent) <= digits:
        return False
    first = {_rounded(exact, digits + more, way) for more in range(4) for way in _WAYS}
    return Decimal(stated.replace(",", "")) in {
        _rounded(each, digits, way) for each in first for way in _WAYS
    }


def _is_printed(value: float, number: str) -> bool:
    """True if a number may be a value, or a share in percent, as it is printed."""
    printed = Decimal(number.replace(",", ""))
    return math.isfinite(value) and any(
        abs(Decimal(factor * value) - printed) <= Decimal(1).scaleb(-_decimals(number)) for factor in (1, 100)
    )


def _rounded(value: Decimal, digits: int, way: str) -> Decimal:
    return value.quantize(Decimal(1).scaleb(-digits), way)


def _compare_lines(
    file: str, line: int, stated: str | None, follows: str | None, known: Sequence[Known]
) -> Iterator[Deviation]:
    """Deviations of one line, by its sentences or cells where it has as many as the other."""
    if stated is None or follows is None:
        if stated or follows:
            rule = (
                "the records give no such sentence" if stated else "the records give it, and it is not told"
            )
            kind = "orphan" if stated else "missing"
            yield Deviation(file, kind, (stated or "")[:_LONGEST], (follows or "")[:_LONGEST], rule, line)
        return
    mine, other = _sentences(stated), _sentences(follows)
    pairs: Iterable[tuple[str | None, str | None]] = zip(mine, other)
    if len(mine) != len(other):
        matcher = difflib.SequenceMatcher(None, mine, other, autojunk=False)
        changes = [each for each in matcher.get_opcodes() if each[0] != "equal"]
        pairs = (
            pair[1:]
            for _, low, high, first, last in changes
            for pair in _pair(mine[low:high], other[first:last])
        )
    for one, two in pairs:
        if one is None or two is None:
            yield from _compare_lines(file, line, one, two, known)
        elif one != two:
            kind, rule = kind_of_edit(one, two, known)
            yield Deviation(file, kind, one[:_LONGEST], two[:_LONGEST], rule, line)


def _pair(stated: Sequence[str], follows: Sequence[str]) -> Iterator[tuple[int, str | None, str | None]]:
    """Lines side by side, each with the first that is like it; None beside one that has none like it."""
    at = 0
    for place, mine in enumerate(stated):
        like = next((n for n in range(at, len(follows)) if _is_alike(mine, follows[n])), None)
        if like is None:
            yield place, mine, None
            continue
        yield from ((place, None, other) for other in follows[at:like])
        yield place, mine, follows[like]
        at = like + 1
    yield from ((len(stated), None, other) for other in follows[at:])


def _is_alike(one: str, two: str) -> bool:
    mine, other = (_TOKEN.findall(text[:2000]) for text in (one, two))
    return difflib.SequenceMatcher(None, mine, other, autojunk=False).ratio() >= _ALIKE


def _sentences(line: str) -> list[str]:
    if line.startswith("|"):
        return [cell.strip() for cell in line.split("|")]
    return re.split(r"(?<=[.;]) ", line)


def _split(name: str) -> str:
    return "validation" if "validation" in name or "metric" in name else "training" if "loss" in name else ""


def _has(text: str, number: str) -> bool:
    return number in re.findall(_NUMBER, text)


def _is_number(token: str) -> bool:
    return token[:1].isdecimal()


def _decimals(number: str) -> int:
    return len(number.partition("e")[0].partition(".")[2])


def _shown(at: str, value: Any) -> str:
    return one_line(f"{at} = {value!r}", _LONGEST)


def group_by_kind(found: Sequence[Deviation]) -> Mapping[str, int]:
    """The number of deviations of each kind."""
    return {
        kind: sum(each.kind == kind for each in found) for kind in dict.fromkeys(each.kind for each in found)
    }
