"""Learning rates at steps against the schedule that the document names."""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from etude.verify.facts import Fact, Facts, Sentence
from etude.verify.quantities import printed
from etude.verify.ranges import exactly
from etude.verify.rules.tables import cell_at, fact_of
from etude.verify.verdicts import CONTRADICTS, Finding, Reading, judge, note

_DOWN = re.compile(
    r"\b(?:falls?|fell|falling|decay\w*|decreas\w+|anneal\w*|drops?|dropped|goes down|went down|comes down"
    r"|declin\w+|lowered|sinks?)\b", re.I
)  # fmt: skip
_KEYED = r"(?:schedule\w*|scheduler_type|decay)[\"']?\s*[:=|]\s*[\"']?{}"
_CURVE = re.compile(r"\b(?:cosine|linear)", re.I)
_HELD = re.compile(r"\b(?:hold|held|constant|stable|stays?|plateau|restart\w*|cycles?)\b", re.I)


@dataclass(frozen=True)
class _Schedule:
    kind: str
    peak: Fact
    total: float
    warmup: float
    least: float
    facts: tuple[Fact, ...]

    def rate(self, step: float) -> float:
        """The learning rate at a step."""
        if self.warmup and step < self.warmup:
            return self.peak.value * step / self.warmup
        if self.kind == "constant":
            return self.peak.value
        done = min(max((step - self.warmup) / max(self.total - self.warmup, 1.0), 0.0), 1.0)
        left = 0.5 * (1 + math.cos(math.pi * done)) if self.kind == "cosine" else 1 - done
        return self.least + (self.peak.value - self.least) * left


def check_schedule(facts: Facts) -> Iterator[Finding]:
    """Rates in tables and sentences, at steps or epochs."""
    kinds = _kinds(facts)
    described = _described(facts)
    peaks = [each for each in facts.named("learning_rate") if each.value > 0]
    for table in facts.tables:
        if not table.by_row or "learning_rate" not in table.names:
            continue
        unit = next((name for name in ("steps", "epochs") if table.names.count(name) == 1), None)
        if unit is None:
            continue
        at, place = table.names.index(unit), table.names.index("learning_rate")
        rows = [(a, b) for row in table.rows if (a := cell_at(row, at)) and (b := cell_at(row, place))]
        points = [(a.figure.value, fact_of(table, b, table.header[place])) for a, b in rows if a.figure]
        if described and unit == "steps" and max((at for at, _ in points), default=0.0) <= described.total:
            yield from _judge_points(described, points, unit)
            continue
        peak = _peak(peaks, points)
        if peak is None:
            yield from _falls(points, kinds)
            continue
        yield from _judge(facts, kinds, peak, points, unit)
    for mark in facts.named("learning_rate", roles=("other", "mark")) if described else ():
        steps = [each for each in facts.beside(mark, "steps") if each.role == "mark"]
        if len(steps) == 1 and described and steps[0].value <= described.total:
            yield from _judge_points(described, [(steps[0].value, mark)], "steps")
    for mark in facts.named("learning_rate", roles=("other", "mark")) if not described else ():
        steps = [each for each in facts.beside(mark, "steps") if each.role == "mark"]
        sentence = facts.sentence_of(mark)
        if (
            len(steps) == 1
            and sentence
            and len({each.value for each in peaks}) == 1
            and re.search(r"(?:\bat |\bby |\()(?:step )?$", sentence.text[: steps[0].figure.start][-9:])
        ):
            yield from _judge(facts, kinds, peaks[0], [(steps[0].value, mark)], "steps")


def _kinds(facts: Facts) -> list[str]:
    text = (
        facts.text
        + " "
        + " ".join(
            cell.text.lower() for table in facts.tables[:50] for row in table.rows[:60] for cell in row[:6]
        )
    )
    kinds = []
    for kind, pattern in (
        ("cosine", r"\bcosine\b"), ("linear", r"\blinear(?:ly)?(?: decay| schedule| to zero| lr| with "
        r"warm)?\b(?! layer| warm| probe)"),
        ("constant", r"\bconstant (?:learning|schedule|lr|rate)"
         r"|\b(?:learning rate|lr|schedule)\b[^.;]{0,20}\b(?:is|was|stay\w*|kept|remain\w*|held) constant"),
    ):  # fmt: skip
        if re.search(pattern, text) or re.search(_KEYED.format(kind), facts.raw):
            kinds.append(kind)
    if kinds == ["cosine", "linear"] and re.search(
        r"linear(?:ly)? warm|warm-?up.{0,30}linear|linear(?:ly)? (?:ramp|increas)", text
    ):
        kinds = ["cosine"]
    return kinds


def _peak(peaks: Sequence[Fact], points: Sequence[tuple[float, Fact]]) -> Fact | None:
    values = {each.value for each in peaks}
    return peaks[0] if len(values) == 1 and len(points) >= 1 else None


def _judge(
    facts: Facts, kinds: list[str], peak: Fact, points: Sequence[tuple[float, Fact]], unit: str
) -> Iterator[Finding]:
    for _, point in points:
        if point.figure.tight.low > peak.value * 1.001:
            yield note(
                CONTRADICTS,
                "schedule",
                point.line,
                f"learning rate {point.figure.text}",
                f"the peak is {peak.figure.text}",
                fits=f"at most {peak.figure.text}",
                facts=(point, peak),
            )
    schedule = _schedule(facts, kinds, peak, points, unit)
    if schedule is not None:
        below = [(at, point) for at, point in points if point.figure.tight.low <= peak.value * 1.001]
        yield from _judge_points(schedule, below, unit)


def _judge_points(schedule: _Schedule, points: Sequence[tuple[float, Fact]], unit: str) -> Iterator[Finding]:
    peak = schedule.peak
    for at, point in points:
        if at > schedule.total:
            continue
        shift = 1.0 if unit == "steps" else 0.0
        ends = [
            schedule.rate(max(at - shift, 0.0)),
            schedule.rate(at),
            schedule.rate(min(at + shift, schedule.total)),
        ]
        text = f"{schedule.kind} from {peak.figure.text}"
        text += f" over {printed(schedule.total)} {unit}" if math.isfinite(schedule.total) else ""
        text += f" after {printed(schedule.warmup)} of warm-up" if schedule.warmup else ""
        text += f" to {printed(schedule.least)}" if schedule.least else ""
        tight = exactly(ends[1])
        loose = type(tight)(min(ends), max(ends)).widen(0.02)
        yield judge(
            "schedule",
            point,
            [Reading(f"{text}, at {printed(at)}", loose, loose.widen(0.02), (peak, *schedule.facts))],
        )


def _schedule(
    facts: Facts, kinds: list[str], peak: Fact, points: Sequence[tuple[float, Fact]], unit: str
) -> _Schedule | None:
    if len(kinds) != 1:
        return None
    names = ("max_steps", "steps") if unit == "steps" else ("epochs",)
    total = next((found for name in names if (found := facts.near(peak, name))), None)
    last = max((at for at, _ in points), default=0.0)
    if kinds[0] != "constant" and (total is None or total.value < last * 0.999):
        return None
    length = total.value if total and kinds[0] != "constant" else math.inf
    warmup = facts.near(peak, "warmup_steps")
    ratio = facts.near(peak, "warmup_ratio")
    count = 0.0
    if warmup and unit == "steps":
        count = warmup.value / 100 * length if warmup.figure.unit == "%" else warmup.value
    elif ratio:
        count = ratio.value * length / (100 if ratio.figure.unit == "%" else 1)
    elif warmup and length and (every := facts.near(peak, "max_steps", "steps")):
        count = warmup.value / every.value * length if every.value and not warmup.figure.unit else math.inf
    elif (warmup and warmup.value) or (not warmup and facts.says(r"(?<!no )(?<!without )warm-?up")):
        return None
    if not math.isfinite(count):
        return None
    least = facts.near(peak, "min_learning_rate")
    value = least.value if least else 0.0
    if least is None:
        floor = facts.says(r"\bto (?:a (?:minimum|floor) of )?(\d(?:\.\d+)?e-\d+)")
        value = float(floor[1]) if floor and float(floor[1]) < peak.value else 0.0
        if not floor and facts.says(r"min(?:imum)?[_ ](?:lr|learning)|\b10 ?% of (?:the )?peak"):
            value = 0.1 * peak.value
    used = tuple(each for each in (total, warmup or ratio, least) if each)
    return _Schedule(kinds[0], peak, length, count, value, used)


def _described(facts: Facts) -> _Schedule | None:
    """The schedule that one sentence tells whole: up for N steps to a peak, then down along a curve."""
    found = []
    for sentence in facts.sentences:
        if 2 <= len(sentence.figures) <= 12 and (made := _described_by(facts, sentence)):
            found.append(made)
    alike = {(each.kind, each.peak.value, each.total, each.warmup, each.least) for each in found}
    return found[0] if len(alike) == 1 else None


def _described_by(facts: Facts, sentence: Sentence) -> _Schedule | None:
    text = sentence.text
    down, kind = _DOWN.search(text), _CURVE.search(text)
    if (
        not down
        or not kind
        or _HELD.search(text)
        or not re.search(r"learning rate|\blr\b|schedule", text, re.I)
    ):
        return None
    curves = list(_CURVE.finditer(text[down.start() :])) or list(_CURVE.finditer(text))
    rates, steps = [], []
    for figure in sentence.figures:
        is_step = re.match(
            r" ?(?:(?!at|by|until|over|in|after)\w+ )?(?:steps?|iterations|updates)\b", text[figure.end :]
        ) or re.search(r"\bsteps? (?:of )?$", text[: figure.start], re.I)
        if is_step:
            steps.append(figure)
        elif figure.unit == "" and (0 < figure.value < 0.2 or figure.value == 0):
            rates.append(figure)
    if not rates or not steps or rates[0].value == 0:
        return None
    peak = Fact("", rates[0], sentence.line_of(rates[0]), sentence.scope, label="learning rate")
    warm = [each for each in steps if each.end <= down.start()]
    after = [each for each in steps if each.start > down.start()]
    if len(warm) > 1 or len(after) > 1 or len(rates) > 2:
        return None
    if not after:
        totals = {each.value: each for each in facts.named("max_steps", "steps") if each.figure not in warm}
        if len(totals) != 1:
            return None
        after = [each.figure for each in totals.values()]
        return _Schedule(
            curves[0][0].lower()[:6], peak, after[0].value, warm[0].value if warm else 0.0,
            rates[1].value if len(rates) > 1 else 0.0, tuple(totals.values()),
        )  # fmt: skip
    is_more = re.search(
        r"\b(?:next|remaining|further|another|following)\s+(?:\w+ )?$", text[: after[0].start]
    )
    count = warm[0].value if warm else 0.0
    total = after[0].value + (count if is_more else 0.0)
    used = tuple(
        Fact("", each, sentence.line_of(each), sentence.scope) for each in (*warm, *after, *rates[1:])
    )
    least = rates[1].value if len(rates) > 1 else 0.0
    return _Schedule(curves[0][0].lower()[:6], peak, total, count, least, used) if count < total else None


def _falls(points: Sequence[tuple[float, Fact]], kinds: list[str]) -> Iterator[Finding]:
    """Without a peak: a decay does not rise again after it has fallen."""
    if len(kinds) != 1 or kinds[0] == "constant" or len(points) < 3:
        return
    fallen = False
    for (_, first), (_, second) in itertools.pairwise(points):
        if fallen and second.figure.loose.low > first.figure.loose.high:
            yield note(
                CONTRADICTS,
                "schedule",
                second.line,
                f"learning rate {second.figure.text}",
                f"a {kinds[0]} decay does not rise, and {first.figure.text} came before",
                fits=f"below {first.figure.text}",
                facts=(second, first),
            )
        fallen = fallen or second.figure.loose.high < first.figure.loose.low
