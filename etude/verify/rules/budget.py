"""The effective batch, and marks within the length of a training."""

import math
import re
from collections.abc import Iterator

from etude.verify.facts import Fact, Facts
from etude.verify.quantities import printed
from etude.verify.ranges import Range, exactly
from etude.verify.verdicts import CONTRADICTS, UNSETTLED, Finding, Reading, judge, note, reading


def check_budget(facts: Facts) -> Iterator[Finding]:
    """Figures of the length of a training."""
    for rule in (_effective_batch, _marks, _ends_of_epochs):
        yield from rule(facts)


def _product(parts: list[Fact], *more: Fact) -> Reading:
    facts = [*parts, *more]
    return reading(" x ".join(each.figure.text for each in facts), _multiply, *facts)


def _multiply(*ranges: Range) -> Range:
    total = exactly(1.0)
    for each in ranges:
        total = total * each
    return total


_END_OF = re.compile(
    r"\bend of (?:the )?(?:\w+ )?epoch|\bepoch \d+ (?:ends?|ended|finished|was over)\b", re.I
)
_LOGGED = re.compile(r"^\s*epoch \d+, global step \d", re.I)


def _effective_batch(facts: Facts) -> Iterator[Finding]:
    for claimed in facts.named("global_batch", "batch", roles=("plain", "other")):
        micro = facts.near(claimed, "micro_batch")
        own = micro and claimed.scope == micro.scope
        if claimed.role == "other" and not (own and claimed.scope[-1].startswith(("row", "column"))):
            continue
        devices, accumulation = facts.near(claimed, "devices"), facts.near(claimed, "accumulation")
        if micro is None and claimed.name == "global_batch":
            plain = facts.near(claimed, "batch")
            micro = plain if plain and (devices or accumulation) and plain.value != claimed.value else None
        if micro is None:
            continue
        known = [each for each in (devices, accumulation) if each]
        made = [_product([micro, *known])]
        if len(known) == 2:  # the batch of all devices may be meant, before accumulation
            made += [_product([micro, each]) for each in known] if claimed.name == "batch" else []
        elif not known:
            continue
        else:
            factor = claimed.value / (micro.value * known[0].value) if micro.value and known[0].value else 0.0
            if factor > 1 and factor == int(factor):
                what = "gradient accumulation" if known[0] is devices else "devices"
                why = (
                    f"{made[0].text} = {printed(micro.value * known[0].value)}; it fits with "
                    f"{printed(factor)} {what}, which is not said"
                )
                yield note(
                    UNSETTLED,
                    "effective batch",
                    claimed.line,
                    f"{claimed.label} {claimed.figure.text}",
                    why,
                    facts=(claimed, micro, *known),
                )
                continue
        yield judge("effective batch", claimed, made, any_confirms=claimed.name == "batch")


def _is_total(claimed: Fact) -> bool:
    """True of steps that are all of a training."""
    is_steps = bool(re.search(r"steps", claimed.label, re.I)) and claimed.value >= 10
    return claimed.name == "max_steps" or is_steps


def _whole(found: Range) -> Range:
    if not math.isfinite(found.low) or not math.isfinite(found.high):
        return found
    return Range(math.floor(found.low + 1e-9), math.ceil(found.high - 1e-9))


def _marks(facts: Facts) -> Iterator[Finding]:
    """Warm-up within the training, as a share of it; marks within it."""
    for claimed in facts.named("warmup_steps"):
        steps = facts.near(claimed, "max_steps") or facts.near(claimed, "steps")
        if claimed.figure.unit or steps is None or re.search("ratio|%", claimed.label):
            continue
        ratio = facts.near(claimed, "warmup_ratio")
        if ratio:
            scale = 0.01 if ratio.figure.unit == "%" else 1.0
            text = f"{ratio.figure.text} x {steps.figure.text}"
            made = reading(text, lambda r, n, scale=scale: _whole(r * n * scale), ratio, steps)
            yield judge("warm-up", claimed, [made])
        elif claimed.value > steps.value and _is_total(steps):
            yield note(
                CONTRADICTS,
                "warm-up",
                claimed.line,
                f"{claimed.label} {claimed.figure.text}",
                f"the training has {steps.figure.text} steps",
                fits=f"at most {steps.figure.text}",
                facts=(claimed, steps),
            )
    for name, totals in (
        ("steps", ("max_steps", "steps")),
        ("epochs", ("epochs",)),
        ("best_epoch", ("epochs",)),
        ("best_step", ("max_steps", "steps")),
    ):
        limits = [each for total in totals for each in facts.named(total)]
        limits = [each for each in limits if each.value >= (10 if "steps" in totals else 1)]
        if len({each.value for each in limits}) > 1:
            continue
        for mark in facts.named(name, roles=("mark", "other", "plain")):
            if mark.role == "plain" and not name.startswith("best"):
                continue
            limit = limits[1] if limits[:1] == [mark] and len(limits) > 1 else limits[0] if limits else None
            is_mark = name.startswith("best") or re.search(
                r"\b(?:at|after|by|checkpoint|best)\b", facts.words_before(mark), re.I
            )
            if limit and is_mark and limit.value < mark.value <= 12 * limit.value:
                yield note(
                    CONTRADICTS,
                    "bound",
                    mark.line,
                    f"{mark.label} {mark.figure.text}",
                    f"the training has {limit.figure.text} {limit.name.replace('max_', '')}",
                    fits=f"at most {limit.figure.text}",
                    facts=(mark, limit),
                )


def _ends_of_epochs(facts: Facts) -> Iterator[Finding]:
    """`step 1,938, which is the end of epoch 3`: the steps of an epoch times its number."""
    every = {each.value: each for each in facts.by_name.get("steps_per_epoch", ()) if each.is_value}
    if len(every) != 1:
        return
    (each,) = every.values()
    for step in facts.named("steps", "max_steps", roles=("mark", "plain", "other")):
        sentence = facts.sentence_of(step)
        epochs = facts.beside(step, "epochs") if sentence else []
        if (
            not sentence
            or len(epochs) != 1
            or not (_END_OF.search(sentence.text) or _LOGGED.search(sentence.text))
        ):
            continue
        if sum(one.role != "delta" for one in facts.beside(step, "steps")):
            continue
        end = exactly(epochs[0].value * each.value)
        made = [Reading(f"{epochs[0].figure.text} x {each.figure.text}", end, end, (epochs[0], each))]
        if _LOGGED.search(sentence.text):  # a log counts epochs from 0
            after = exactly((epochs[0].value + 1) * each.value)
            made.insert(
                0,
                Reading(
                    f"({epochs[0].figure.text} + 1) x {each.figure.text}", after, after, (epochs[0], each)
                ),
            )
        yield judge("steps", step, made, any_confirms=True)
