"""Learning rates at steps against the schedule that the document names."""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from etude.verify.facts import Fact, Facts
from etude.verify.quantities import printed
from etude.verify.ranges import exactly
from etude.verify.rules.tables import cell_at, fact_of
from etude.verify.verdicts import CONTRADICTS, Finding, Reading, judge, note


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
        peak = _peak(peaks, points)
        if peak is None:
            yield from _falls(points, kinds)
            continue
        yield from _judge(facts, kinds, peak, points, unit)
    for mark in facts.named("learning_rate", roles=("other",)):
        steps = [
            each
            for each in facts.by_name.get("steps", ())
            if each.scope == mark.scope and each.role == "other"
        ]
        sentence = next((each for each in facts.sentences if each.scope == mark.scope), None)
        if (
            len(steps) == 1
            and sentence
            and len({each.value for each in peaks}) == 1
            and re.search(r"\bat (?:step )?$", sentence.text[: steps[0].figure.start][-9:] + "")
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
        ("constant", r"\bconstant (?:learning|schedule|lr|rate)|(?:schedule\w*|lr_scheduler_type)[: "
        r"|]+constant"),
    ):  # fmt: skip
        if re.search(pattern, text):
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
    if schedule is None:
        return
    for at, point in points:
        if point.figure.tight.low > peak.value * 1.001:
            continue
        if at > schedule.total:
            continue
        shift = 1.0 if unit == "steps" else 0.0
        ends = [
            schedule.rate(max(at - shift, 0.0)),
            schedule.rate(at),
            schedule.rate(min(at + shift, schedule.total)),
        ]
        text = f"{schedule.kind} from {peak.figure.text} over {printed(schedule.total)} {unit}"
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
    if total is None or total.value < max(at for at, _ in points) * 0.999:
        return None
    warmup = facts.near(peak, "warmup_steps")
    ratio = facts.near(peak, "warmup_ratio")
    count = 0.0
    if warmup and unit == "steps":
        count = warmup.value / 100 * total.value if warmup.figure.unit == "%" else warmup.value
    elif ratio:
        count = ratio.value * total.value / (100 if ratio.figure.unit == "%" else 1)
    elif warmup or re.search(r"warm-?up", facts.text):
        return None
    least = facts.near(peak, "min_learning_rate")
    value = least.value if least else 0.0
    if least is None:
        floor = re.search(r"\bto (?:a (?:minimum|floor) of )?(\d(?:\.\d+)?e-\d+)", facts.text)
        value = float(floor[1]) if floor and float(floor[1]) < peak.value else 0.0
        if not floor and re.search(r"min(?:imum)?[_ ](?:lr|learning)|\b10 ?% of (?:the )?peak", facts.text):
            value = 0.1 * peak.value
    used = tuple(each for each in (total, warmup or ratio, least) if each)
    return _Schedule(kinds[0], peak, total.value, count, value, used)


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
