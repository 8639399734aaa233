"""Early stopping and the best checkpoint: patience and intervals, the best of a trainer's state."""

import re
from collections.abc import Iterator

from etude.verify.facts import Fact, Facts
from etude.verify.names import LOSSES
from etude.verify.quantities import figures_of, printed
from etude.verify.ranges import exactly
from etude.verify.rules.statistics import Series, series_of
from etude.verify.verdicts import CONFIRMED, CONTRADICTS, Finding, Reading, judge, note

_EVERY = re.compile(r"\bevery (\d[\d,]*k?) (?:\w+ )?(steps|epochs)\b", re.I)
_STOPS = re.compile(
    r"\b(?:stop\w*|end(?:s|ed)?|halt\w*|trigger\w*|fires?|terminat\w+|abort\w*)\b"
    r"[^.;]{0,25}\b(?:after|following|once)\s+(?:about )?$", re.I
)  # fmt: skip
_WITHOUT = re.compile(r"\s*(?:steps|epochs)\s+(?:\w+ )?(?:without|with no|of no)\b", re.I)


def check_selection(facts: Facts) -> Iterator[Finding]:
    """Early stopping and the best checkpoint."""
    yield from _patience(facts)
    yield from _best_of_state(facts)


def _patience(facts: Facts) -> Iterator[Finding]:
    """A patience in evaluations is that many intervals of steps."""
    patiences = facts.named("patience", roles=("plain", "other"))
    if len({each.value for each in patiences}) != 1:
        return
    patience = patiences[0]
    for unit in ("steps", "epochs"):
        intervals = _intervals(facts, unit)
        if len({each.value for each in intervals}) != 1:
            continue
        for claimed in facts.named(unit, f"max_{unit}", roles=("plain", "mark", "other")):
            is_stop = _STOPS.search(facts.words_before(claimed, 60)) or (
                claimed.scope == patience.scope and _WITHOUT.match(facts.words_after(claimed))
            )
            if not is_stop or abs(claimed.line - patience.line) > 20:
                continue
            product = exactly(patience.value * intervals[0].value)
            text = f"{patience.figure.text} evaluations x {intervals[0].figure.text} {unit}"
            made = [Reading(text, product, product, (patience, intervals[0]))]
            if facts.says(r"patience (?:of )?\d+ steps|patience in steps"):
                made.append(Reading("the patience itself", patience.figure.exact, patience.figure.exact))
            yield judge("early stopping", claimed, made)


def _intervals(facts: Facts, unit: str) -> list[Fact]:
    """The steps or epochs between two evaluations, as keys, cells and sentences say them."""
    found = list(facts.named("eval_steps")) if unit == "steps" else []
    for sentence in facts.sentences:
        if "every" in sentence.text and re.search(r"\beval|\bvalidat", sentence.text, re.I):
            found += _every(sentence.text, sentence.line, sentence.scope, unit)
    for table in facts.tables[:200]:
        for row in table.rows[:200]:
            if row and re.search(r"\beval|\bvalidat", row[0].text, re.I):
                for cell in row[1:]:
                    found += _every(cell.text, cell.line, table.scope, unit)
    return found


def _every(text: str, line: int, scope: tuple[str, ...], unit: str) -> Iterator[Fact]:
    for match in _EVERY.finditer(text):
        if match[2].lower() == unit and (figures := figures_of(match[1])):
            yield Fact("eval_steps", figures[0], line, scope)


def _best_of_state(facts: Facts) -> Iterator[Finding]:
    """`best_metric` and `best_model_checkpoint` of a trainer's state against its own history."""
    claims = facts.named("best_metric")
    found = [
        each for table in facts.tables for each in series_of(table)
        if each.unit == "steps" and re.match(r"(?:eval|val|test)", each.points[0][1].label, re.I)
    ]  # fmt: skip
    if len(claims) != 1 or not found:
        return
    claimed = claims[0]
    best = [point for series in found for point in _bests(facts, series)]
    same = [(at, fact) for at, fact in best if fact.figure.tight.meets(claimed.figure.tight)]
    quoted = f"{claimed.label} {claimed.figure.text}"
    if not same:
        at, fact = best[0]
        why = f"the best of the history is {fact.figure.text} at step {printed(at)}"
        yield note(
            CONTRADICTS, "best", claimed.line, quoted, why, fits=fact.figure.text, facts=(claimed, fact)
        )
        return
    yield note(
        CONFIRMED, "best", claimed.line, quoted, f"at step {printed(same[0][0])}", facts=(claimed, same[0][1])
    )
    for sentence in facts.sentences:
        place = re.match(r"best_model_checkpoint: .*checkpoint-(\d{1,12})$", sentence.text)
        if place and float(place[1]) not in {at for at, _ in same}:
            step = f"{same[0][0]:.0f}"
            why = f"the best of the history, {claimed.figure.text}, is of step {step}"
            yield note(CONTRADICTS, "best", sentence.line, place[0], why, fits=f"checkpoint-{step}")


def _bests(facts: Facts, series: Series) -> list[tuple[float, Fact]]:
    """The best point of all, and of those that were saved where the state says how often."""
    saves = facts.named("save_steps")
    points = [series.points]
    if len(saves) == 1 and saves[0].value >= 1:
        kept = tuple(point for point in series.points if point[0] % saves[0].value == 0)
        points += [kept] if kept else []
    choose = min if series.name in LOSSES or "perplexity" in series.name else max
    return [choose(each, key=lambda point: point[1].value) for each in points]
