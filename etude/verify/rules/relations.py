"""Quantities that are products and quotients of others, as one table of formulas."""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from etude.verify.facts import Fact, Facts
from etude.verify.ranges import Range, exactly
from etude.verify.verdicts import Finding, Reading, judge, reading

_SPEED = 0.08  # of speeds and times, which are means and may leave out evaluations


class Relation(NamedTuple):
    """A quantity that is the product of some, divided by others.

    Names that a bar joins stand for each other, the first that the document has. slack widens what may be
    off, as a share; factor is of the units.
    """

    rule: str
    claimed: str
    times: tuple[str, ...]
    over: tuple[str, ...] = ()
    slack: float = 0.0
    factor: float = 1.0


_STEPS = "max_steps|steps"
_BATCH = "global_batch|batch"
RELATIONS = (
    Relation("ratio", "tokens_per_parameter", ("tokens",), ("parameters",)),
    Relation("tokens", "tokens", ("tokens_per_step", _STEPS)),
    Relation("tokens", "tokens", (_BATCH, "seq_len", _STEPS)),
    Relation("tokens", "tokens", ("corpus_tokens", "epochs"), slack=0.03),
    Relation("steps", _STEPS, ("tokens",), ("tokens_per_step",), slack=0.001),
    Relation("speed", "tokens_per_second", ("tokens",), ("total_seconds",), _SPEED),
    Relation("speed", "tokens_per_second", ("tokens_per_step",), ("step_seconds",), _SPEED),
    Relation("speed", "tokens_per_second", ("tokens_per_step", "steps_per_second"), (), _SPEED),
    Relation("speed", "steps_per_second", (_STEPS,), ("total_seconds",), _SPEED),
    Relation("speed", "samples_per_second", (_BATCH, "steps_per_second"), (), _SPEED),
    Relation("speed", "samples_per_second", (_BATCH, _STEPS), ("total_seconds",), _SPEED),
    Relation("speed", "samples_per_second", (_BATCH,), ("step_seconds",), _SPEED),
    Relation("speed", "step_seconds", ("total_seconds",), (_STEPS,), _SPEED),
    Relation("speed", "step_seconds", (), ("steps_per_second",)),
    Relation("speed", "epoch_seconds", ("total_seconds",), ("epochs",), _SPEED),
    Relation("speed", "gpu_hours", ("devices", "total_seconds"), (), _SPEED, 1 / 3600),
    Relation("parameters", "head_dim", ("width",), ("heads",)),
    Relation("share", "warmup_ratio", ("warmup_steps",), (_STEPS,), 0.001),
    Relation("steps", "evaluations", (_STEPS,), ("eval_steps",)),
    Relation("steps", "checkpoints", (_STEPS,), ("save_steps",)),
    Relation("LoRA", "lora_scale", ("lora_alpha",), ("lora_rank",)),
)
# Formulas of one quantity stand for each other; speeds have to fit each.
_GROUPS = (
    tuple(each for each in RELATIONS if each.claimed == "tokens"),
    *((each,) for each in RELATIONS if each.claimed != "tokens"),
)


def check_relations(facts: Facts) -> Iterator[Finding]:
    """Each quantity of a document against the formulas whose other quantities stand near it."""
    for alike in _GROUPS:
        for name in alike[0].claimed.split("|"):
            for claimed in facts.named(name, roles=("plain", "other")):
                if not _is_of_the_whole(claimed):
                    continue
                if made := [each for relation in alike for each in _readings(facts, claimed, relation)]:
                    yield judge(alike[0].rule, claimed, made, any_confirms=True)


def _readings(facts: Facts, claimed: Fact, relation: Relation) -> list[Reading]:
    """The ways to read a formula: as it stands, of one of several GPUs, with one at the start."""
    found = _reading(facts, claimed, relation)
    if found is None:
        return []
    if relation.claimed in ("tokens_per_second", "samples_per_second"):
        devices = facts.near(claimed, "devices")
        return [found, _divided(found, devices)] if devices and devices.value > 1 else [found]
    if relation.claimed in ("evaluations", "checkpoints"):
        low, high = math.floor(found.tight.low + 1e-9), math.ceil(found.tight.high - 1e-9) + 1
        return [replace(found, tight=Range(low, high), loose=Range(low, high + 1))]
    percent = 100.0 if claimed.figure.unit == "%" else 1.0
    return [replace(found, tight=found.tight * percent, loose=found.loose * percent)]


def _divided(found: Reading, devices: Fact) -> Reading:
    by = devices.figure.exact
    text = f"{found.text} / {devices.figure.text}"
    return Reading(text, found.tight / by, found.loose / by, (*found.facts, devices))


def _reading(facts: Facts, claimed: Fact, relation: Relation) -> Reading | None:
    """The value of a formula from the one value of each quantity near a figure; None if one is missing."""
    times = [_operand(facts, claimed, names) for names in relation.times]
    over = [_operand(facts, claimed, names) for names in relation.over]
    used = [each for each in (*times, *over) if each is not None]
    if len(used) < len(times) + len(over) or any(each.value <= 0 for each in used):
        return None
    if claimed.role == "other" and any(each.scope != claimed.scope for each in used):
        return None
    shown = " x ".join(each.figure.text for each in times if each) or "1"
    shown += "".join(f" / {each.figure.text}" for each in over if each)

    def formula(*ranges: Range) -> Range:
        total = exactly(relation.factor)
        for at, each in enumerate(ranges):
            total = total * each if at < len(times) else total / each
        return total

    return reading(shown, formula, *used, slack=relation.slack)


def _operand(facts: Facts, claimed: Fact, names: str) -> Fact | None:
    found = next((each for name in names.split("|") if (each := facts.near(claimed, name))), None)
    return found if found is not None and _has_unit(found) else None


def _has_unit(fact: Fact) -> bool:
    """True unless a time has no unit: `time: 30` may be minutes."""
    is_time = fact.name.endswith("_seconds")
    return not is_time or fact.figure.unit == "s" or bool(re.search(r"runtime|seconds", fact.label))


def _is_of_the_whole(claimed: Fact) -> bool:
    """True unless a figure is of a part: a round mark of steps, the length of a context called tokens."""
    if claimed.name == "tokens":
        named = re.search(r"vocab|per|dataset|corpus|context|max", claimed.label, re.I)
        return claimed.value >= 1e5 and not named and claimed.role == "plain"
    if claimed.name in ("steps", "max_steps"):
        return claimed.value >= 10 and claimed.role == "plain"
    if claimed.name == "warmup_ratio":
        return claimed.figure.unit == "%"
    return _has_unit(claimed)
