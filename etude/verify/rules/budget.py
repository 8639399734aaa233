"""The course of a training: batch, steps, epochs, tokens, speed and time, which follow from each other."""

import math
import re
from collections.abc import Iterator
from itertools import product

from etude.verify.facts import Fact, Facts
from etude.verify.quantities import printed
from etude.verify.ranges import Range, exactly
from etude.verify.verdicts import CONTRADICTS, UNSETTLED, Finding, Reading, judge, note, reading

_SLACK = 0.08  # of speeds and times, which are means and may leave out evaluations


def check_budget(facts: Facts) -> Iterator[Finding]:
    """Figures of the length of a training."""
    for rule in (_effective_batch, _tokens, _steps, _speeds, _marks):
        yield from rule(facts)


def batches(facts: Facts, near: Fact) -> list[Reading]:
    """The ways to read the samples of a step, the usual one first; none without a batch size."""
    stated = facts.near(near, "global_batch")
    micro, plain = facts.near(near, "micro_batch"), facts.near(near, "batch")
    devices, accumulation = facts.near(near, "devices"), facts.near(near, "accumulation")
    if stated:
        made = [_product([micro, devices, accumulation])] if micro and devices and accumulation else []
        return [reading(stated.figure.text, lambda g: g, stated), *made]
    if micro is None and plain is None:
        return []
    if micro and not plain:
        parts = [each for each in (micro, devices, accumulation) if each]
        return [_product(parts)]
    assert plain is not None
    if micro and devices and micro.value * devices.value == plain.value:
        devices = None  # they are counted in it
    more = [[], *[[each] for each in (accumulation, devices) if each and each.value > 1]]
    if devices and accumulation and devices.value > 1 and accumulation.value > 1:
        more.append([devices, accumulation])
    return [_product([plain, *rest]) for rest in more]


def _product(parts: list[Fact], *more: Fact) -> Reading:
    facts = [*parts, *more]
    return reading(" x ".join(each.figure.text for each in facts), _multiply, *facts)


def _multiply(*ranges: Range) -> Range:
    total = exactly(1.0)
    for each in ranges:
        total = total * each
    return total


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
            if claimed.value % micro.value:
                yield judge("effective batch", claimed, made)
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
    for claimed in facts.named("tokens_per_step"):
        length, batch = facts.near(claimed, "seq_len"), batches(facts, claimed)
        if length and batch:
            yield judge("tokens", claimed, [_times(each, length) for each in batch], any_confirms=True)


def _times(base: Reading, *more: Fact) -> Reading:
    made = _product([], *more)
    return Reading(
        f"{base.text} x {made.text}",
        base.tight * made.tight,
        base.loose * made.loose,
        (*base.facts, *made.facts),
    )


def _tokens(facts: Facts) -> Iterator[Finding]:
    for claimed in facts.named("tokens", roles=("plain", "other")):
        if claimed.value < 1e5 or (claimed.role == "other" and not claimed.scope[-1].startswith("row")):
            continue
        if re.search(r"vocab|per|dataset|corpus|context|max", claimed.label, re.I):
            continue
        length = facts.near(claimed, "seq_len")
        steps = facts.near(claimed, "max_steps") or facts.near(claimed, "steps")
        batch = batches(facts, claimed)
        if length and steps and batch and length.value >= 16:
            made = [_times(each, length, steps) for each in batch]
            if claimed.role == "other":
                made = made[:1]
            yield judge("tokens", claimed, made)


def _rows(facts: Facts, near: Fact) -> list[Reading]:
    """The ways to read the samples of an epoch: those for training, all, all without a held-out share."""
    own = facts.near(near, "train_samples")
    if own:
        return [reading(own.figure.text, lambda n: n, own)]
    every = facts.near(near, "samples")
    if every is None or every.figure.unit:
        return []
    made = [reading(every.figure.text, lambda n: n, every)]
    split = facts.says(r"\b(\d\d)(?:%?\s?/\s?\d{1,2}){1,2}(?:%? |\)|\.|,)")
    if split and 50 <= int(split[1]) < 100:
        share = int(split[1]) / 100
        made.insert(0, reading(f"{int(split[1])} % of {every.figure.text}", lambda n: n * share, every))
    held = facts.near(near, "validation_samples")
    if held and held.figure.unit == "" and held.value < every.value:
        made.append(reading(f"({every.figure.text} - {held.figure.text})", lambda n, h: n - h, every, held))
    return made


def _steps(facts: Facts) -> Iterator[Finding]:
    for claimed in facts.named("steps_per_epoch", roles=("plain", "other", "to")):
        made = [
            _epoch(rows, batch) for rows, batch in product(_rows(facts, claimed), batches(facts, claimed))
        ]
        if made:
            yield judge("steps", claimed, made, any_confirms=len(made) > 1 and len(_rows(facts, claimed)) > 1)
    for claimed in facts.named("max_steps", "steps"):
        epochs = facts.near(claimed, "epochs")
        if epochs is None or not _is_total(claimed):
            continue
        each = facts.near(claimed, "steps_per_epoch")
        if each:
            yield judge("steps", claimed, [_product([each], epochs)])
            continue
        made = [
            _over_epochs(rows, batch, epochs)
            for rows, batch in product(_rows(facts, claimed), batches(facts, claimed))
        ]  # fmt: skip
        if made:
            yield judge("steps", claimed, made, any_confirms=len(made) > 1)


def _is_total(claimed: Fact) -> bool:
    return claimed.name == "max_steps" or (
        bool(re.search(r"steps", claimed.label, re.I)) and claimed.value >= 10
    )


def _epoch(rows: Reading, batch: Reading) -> Reading:
    tight, loose = rows.tight / batch.tight, rows.loose / batch.loose
    return Reading(
        f"{rows.text} / {batch.text}, up to a last partial one",
        _whole(tight),
        _whole(loose),
        (*rows.facts, *batch.facts),
    )


def _whole(found: Range) -> Range:
    if not math.isfinite(found.low) or not math.isfinite(found.high):
        return found
    return Range(math.floor(found.low + 1e-9), math.ceil(found.high - 1e-9))


def _over_epochs(rows: Reading, batch: Reading, epochs: Fact) -> Reading:
    each = _epoch(rows, batch)
    count = epochs.figure.exact
    low = math.floor(rows.tight.low / batch.tight.high) * count.low if batch.tight.high else 0.0
    tight = Range(low, (each.tight * count).high)
    text = f"{epochs.figure.text} x {rows.text} / {batch.text}"
    return Reading(text, tight, each.loose * count, (*each.facts, epochs))


def _speeds(facts: Facts) -> Iterator[Finding]:
    """Samples a second from the rows of all epochs, where no batch says how many a step takes."""
    for claimed in facts.named("samples_per_second"):
        time, epochs, rows = (
            facts.near(claimed, "total_seconds"),
            facts.near(claimed, "epochs"),
            _rows(facts, claimed),
        )
        steps = facts.near(claimed, "max_steps", "steps")
        if time and rows and _is_time(time) and not (steps and batches(facts, claimed)):
            more = [epochs] if epochs else []
            yield judge("speed", claimed, [_per_second(each, more, time) for each in rows], any_confirms=True)


def _is_time(time: Fact) -> bool:
    return time.figure.unit == "s" or bool(re.search(r"runtime|seconds", time.label))


def _per_second(rows: Reading, more: list[Fact], time: Fact) -> Reading:
    made = _times(rows, *more) if more else rows
    seconds = time.figure
    text = f"{made.text} / {seconds.text}"
    return Reading(
        text, made.tight / seconds.tight, (made.loose / seconds.loose).widen(_SLACK), (*made.facts, time)
    )


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
        if len({each.value for each in limits}) > 1:
            continue
        for mark in facts.named(name, roles=("other", "plain")):
            if mark.role == "plain" and not name.startswith("best"):
                continue
            limit = limits[1] if limits[:1] == [mark] and len(limits) > 1 else limits[0] if limits else None
            is_mark = name.startswith("best") or re.search(
                r"\b(?:at|after|by|checkpoint|best)\b", facts.words_before(mark), re.I
            )
            if limit and is_mark and mark.value > limit.value:
                yield note(
                    CONTRADICTS,
                    "bound",
                    mark.line,
                    f"{mark.label} {mark.figure.text}",
                    f"the training has {limit.figure.text} {limit.name.replace('max_', '')}",
                    fits=f"at most {limit.figure.text}",
                    facts=(mark, limit),
                )
