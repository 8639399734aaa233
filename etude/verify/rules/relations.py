"""Quantities that are products and quotients of others: one table of formulas, tried over all readings."""

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from etude.verify.choices import Choice, choices
from etude.verify.facts import Fact, Facts
from etude.verify.ranges import Range, exactly
from etude.verify.verdicts import CONTRADICTS, Finding, Reading, judge, reading

_SPEED = 0.08  # of speeds and times, which are means and may leave out evaluations
_FAR = 20.0  # times that a figure may be off and still be of the same thing
_OF_DEVICES = ("tokens_per_second", "samples_per_second", "total_seconds")
_MOST_CHOICES, _MOST_READINGS = 5, 600


class Relation(NamedTuple):
    """A quantity that is the product of some, divided by others.

    Names that a bar joins stand for each other. slack widens what may be off, as a share; factor is of the
    units; is_whole is true of a count whose last part may be a partial one.
    """

    rule: str
    claimed: str
    times: tuple[str, ...]
    over: tuple[str, ...] = ()
    slack: float = 0.0
    factor: float = 1.0
    is_whole: bool = False


_STEPS = "max_steps|steps"
RELATIONS = (
    Relation("ratio", "tokens_per_parameter", ("tokens",), ("parameters",)),
    Relation("tokens", "tokens", ("tokens_per_step", _STEPS)),
    Relation("tokens", "tokens", ("batch", "seq_len", _STEPS)),
    Relation("tokens", "tokens", ("corpus_tokens", "epochs"), slack=0.03),
    Relation("tokens", "tokens_per_step", ("batch", "seq_len")),
    Relation("epochs", "epochs", ("tokens",), ("corpus_tokens",), 0.02),
    Relation("steps", "steps_per_epoch", ("rows",), ("batch",), is_whole=True),
    Relation("steps", _STEPS, ("steps_per_epoch", "epochs")),
    Relation("steps", _STEPS, ("rows", "epochs"), ("batch",), is_whole=True),
    Relation("steps", _STEPS, ("tokens",), ("tokens_per_step",), 0.001),
    Relation("speed", "tokens_per_second", ("tokens",), ("total_seconds",), _SPEED),
    Relation("speed", "tokens_per_second", ("tokens_per_step",), ("step_seconds",), _SPEED),
    Relation("speed", "tokens_per_second", ("tokens_per_step", "steps_per_second"), (), _SPEED),
    Relation("speed", "steps_per_second", (_STEPS,), ("total_seconds",), _SPEED),
    Relation("speed", "samples_per_second", ("batch", "steps_per_second"), (), _SPEED),
    Relation("speed", "samples_per_second", ("batch", _STEPS), ("total_seconds",), _SPEED),
    Relation("speed", "samples_per_second", ("batch",), ("step_seconds",), _SPEED),
    Relation("speed", "samples_per_second", ("rows", "epochs"), ("total_seconds",), _SPEED),
    Relation("speed", "samples_per_second", ("samples_seen",), ("total_seconds",), _SPEED),
    Relation("speed", "step_seconds", ("total_seconds",), (_STEPS,), _SPEED),
    Relation("speed", "step_seconds", (), ("steps_per_second",)),
    Relation("speed", "epoch_seconds", ("total_seconds",), ("epochs",), _SPEED),
    Relation("speed", "epoch_seconds", ("steps_per_epoch",), ("steps_per_second",), _SPEED),
    Relation("speed", "total_seconds", ("tokens",), ("tokens_per_second",), _SPEED),
    Relation("speed", "total_seconds", (_STEPS,), ("steps_per_second",), _SPEED),
    Relation("speed", "total_seconds", (_STEPS, "step_seconds"), (), _SPEED),
    Relation("speed", "gpu_hours", ("devices", "total_seconds"), (), _SPEED, 1 / 3600),
    Relation("parameters", "head_dim", ("width",), ("heads",)),
    Relation("share", "warmup_ratio", ("warmup_steps",), (_STEPS,), 0.001),
    Relation("steps", "evaluations", (_STEPS,), ("eval_steps",)),
    Relation("steps", "evaluations_per_epoch", ("steps_per_epoch",), ("eval_steps",)),
    Relation("steps", "checkpoints", (_STEPS,), ("save_steps",)),
    Relation("share", "trainable_share", ("trainable_parameters",), ("parameters",)),
    Relation("share", "trainable_percent", ("trainable_parameters",), ("parameters",), factor=100.0),
    Relation("LoRA", "lora_scale", ("lora_alpha",), ("lora_rank",)),
)
# Formulas of one quantity stand for each other; speeds have to fit each.
_GROUPS: dict[tuple[str, int], list[Relation]] = {}
for _at, _relation in enumerate(RELATIONS):
    for _name in _relation.claimed.split("|"):
        _GROUPS.setdefault((_name, _at if _relation.rule == "speed" else 0), []).append(_relation)
# A training has many times and counts of steps: of these names a value is claimed only where it is derived.
_DERIVED = re.compile(
    r"(?:\b(?:so|hence|thus|therefore|which|that|makes?|making|gives?|means?|took|takes|needs?|is|are|was"
    r"|were"
    r"|comes? to|i\.e\.|altogether|in all|total)\b|[:=→⇒(])[^.;]{0,40}$", re.I
)  # fmt: skip


def check_relations(facts: Facts) -> Iterator[Finding]:
    """Each quantity of a document against the formulas that make it, over all figures that may be meant."""
    for (name, _), relations in _GROUPS.items():
        for claimed in facts.named(name, roles=("plain", "other")):
            if _is_of_the_whole(claimed) and (finding := _judge(facts, claimed, relations)):
                yield finding


class _Made(NamedTuple):
    relation: Relation
    reading: Reading
    is_firm: bool


def _judge(facts: Facts, claimed: Fact, relations: Sequence[Relation]) -> Finding | None:
    """Confirmed by any reading; contradicted if none fits and one formula has its figures beyond doubt."""
    made = [each for relation in relations for each in _readings(facts, claimed, relation)]
    firm = [each for each in made if each.is_firm]
    fitting = [each for each in made if each.reading.tight.meets(claimed.figure.tight)]
    if fitting:
        best = next((each for each in fitting if each.is_firm), fitting[0])
        return judge(best.relation.rule, claimed, [best.reading], any_confirms=True)
    if not firm:
        return None
    loose = [each for each in made if each.reading.loose.meets(claimed.figure.loose)]
    chosen = [firm[0], *loose[:1]] if loose else firm[:2]
    finding = judge(chosen[0].relation.rule, claimed, [each.reading for each in chosen], any_confirms=True)
    if finding.verdict != CONTRADICTS:
        return finding
    middle = firm[0].reading.tight.middle
    if not middle / _FAR < claimed.value < middle * _FAR:  # of something else
        return None
    if claimed.name in ("total_seconds", "epochs") and not _is_derived(facts, claimed):
        return None
    return None if any(_is_explained(facts, claimed, each) for each in firm) else finding


def _is_explained(facts: Facts, claimed: Fact, made: _Made) -> bool:
    """True if a figure without a name, shortly before, fits in the place of one of the formula's."""
    sentence = facts.sentence_of(claimed)
    if sentence is None:
        return False
    near = [*facts.before(sentence, 2), sentence]
    figures = [each for one in near for each in one.figures if each is not claimed.figure and each.value > 0]
    for operand in made.reading.facts:
        for each in figures:
            if each.unit == operand.figure.unit and each.value != operand.value:
                up, down = each.tight / operand.figure.tight, operand.figure.tight / each.tight
                slack = 1 / claimed.value if made.relation.is_whole and claimed.value else 1e-9
                if any(
                    (made.reading.tight * by).widen(slack).meets(claimed.figure.tight) for by in (up, down)
                ):
                    return True
    return False


def _is_derived(facts: Facts, claimed: Fact) -> bool:
    """True if the words before a figure say that it follows from another."""
    if re.search(r"pass", claimed.label, re.I):
        return True
    return claimed.name == "total_seconds" and bool(_DERIVED.search(facts.words_before(claimed, 60)))


def _readings(facts: Facts, claimed: Fact, relation: Relation) -> Iterator[_Made]:
    """The values of a formula over all figures that may be meant, the nearest first."""
    times = [_operand(facts, claimed, name) for name in relation.times]
    over = [_operand(facts, claimed, name) for name in relation.over]
    if not all((*times, *over)):
        return
    for combination in itertools.islice(itertools.product(*times, *over), _MOST_READINGS):
        used = tuple(fact for each in combination for fact in each.reading.facts)
        if claimed in used or len({id(each) for each in used}) < len(used):
            continue
        is_firm = all(each.is_firm for each in combination)
        yield from _values(facts, claimed, relation, combination, is_firm=is_firm)


def _values(
    facts: Facts, claimed: Fact, relation: Relation, combination: Sequence[Choice], *, is_firm: bool
) -> Iterator[_Made]:
    factors = len(relation.times)
    used = tuple(fact for each in combination for fact in each.reading.facts)
    if any(each.reading.tight.low <= 0 for each in combination):
        return
    percent = 100.0 if claimed.figure.unit == "%" else 1.0
    tight = loose = exactly(relation.factor * percent)
    for at, each in enumerate(combination):
        tight = tight * each.reading.tight if at < factors else tight / each.reading.tight
        loose = loose * each.reading.loose if at < factors else loose / each.reading.loose
    text = " x ".join(each.reading.text for each in combination[:factors]) or "1"
    text += "".join(f" / {each.reading.text}" for each in combination[factors:])
    if relation.is_whole:
        least = math.ceil if facts.keeps_last else math.floor
        count = combination[1].reading.tight.high if len(relation.times) > 1 else 1.0
        tight, loose = _whole(tight, count, least), _whole(loose, count, least)
        text += ", up to a last partial one"
    if relation.claimed in ("evaluations", "evaluations_per_epoch", "checkpoints"):
        low, high = math.floor(tight.low + 1e-9), math.ceil(tight.high - 1e-9) + 1
        tight, loose = Range(low, high), Range(low, high + 1)
    made = Reading(text, tight, loose.widen(relation.slack) if relation.slack else loose, used)
    yield _Made(relation, made, is_firm)
    if relation.claimed in _OF_DEVICES:  # of one of several GPUs
        for devices in choices(facts, claimed, "devices"):
            if devices.reading.tight.low > 1:
                by = devices.reading.tight
                one = Reading(
                    f"{text} / {devices.reading.text}",
                    tight / by,
                    made.loose / by,
                    (*used, *devices.reading.facts),
                )
                yield _Made(relation, one, is_firm=False)


def _whole(found: Range, epochs: float, least: Callable[[float], int]) -> Range:
    """A count of batches, whose last one of each epoch may be partial, or left out."""
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return found
    most = max(math.ceil(found.high / epochs - 1e-9), least(found.low / epochs + 1e-9))
    return Range(
        least(found.low / epochs - 1e-9) * epochs
        if least is math.ceil
        else least(found.low / epochs + 1e-9) * epochs,
        most * epochs,
    )


def _operand(facts: Facts, claimed: Fact, name: str) -> list[Choice]:
    """The values of a name of a formula near a figure; of one of several, those beside it alone."""
    if name == "batch":
        found = _batches(facts, claimed)
    elif name == "rows":
        found = _rows(facts, claimed)
    else:
        found = choices(facts, claimed, *name.split("|"))
    found = [each for each in found if all(_has_unit(fact) for fact in each.reading.facts)]
    if claimed.role == "other":
        found = [each for each in found if each.is_near]
    return found[:_MOST_CHOICES]


def _batches(facts: Facts, claimed: Fact) -> list[Choice]:
    """The ways to read the samples of a step, the usual one first."""
    stated, plain = choices(facts, claimed, "global_batch"), choices(facts, claimed, "batch")
    micro, devices, accumulation = (
        choices(facts, claimed, name)[:1] for name in ("micro_batch", "devices", "accumulation")
    )
    every = [[*micro, *devices, *accumulation]] if micro else []
    several = [each for each in (*accumulation, *devices) if each.reading.tight.low > 1]
    one_of = [[each, more] for each in plain[:2] for more in several]
    both = [[each, *several] for each in plain[:1]] if len(several) == 2 else []
    products = [_multiplied(each) for each in (*every, *one_of, *both) if len(each) > 1 or each == micro]
    is_sure = bool(stated) or not several
    usual = [*stated, *(each._replace(is_firm=each.is_firm and is_sure) for each in plain)]
    return [*usual, *(each._replace(is_firm=each.is_firm and not usual) for each in products)]


def _multiplied(found: Sequence[Choice]) -> Choice:
    tight = loose = exactly(1.0)
    for each in found:
        tight, loose = tight * each.reading.tight, loose * each.reading.loose
    used = tuple(fact for each in found for fact in each.reading.facts)
    text = " x ".join(each.reading.text for each in found)
    made = Reading(text, tight, loose, used)
    return Choice(made, all(each.is_firm for each in found), all(each.is_near for each in found))


def _rows(facts: Facts, claimed: Fact) -> list[Choice]:
    """The ways to read the samples of an epoch: those for training, all, all without a held-out share."""
    own, every = choices(facts, claimed, "train_samples"), choices(facts, claimed, "samples")
    every = [each for each in every if not each.reading.facts[0].figure.unit]
    made = [*own, *(each._replace(is_firm=each.is_firm and not own) for each in every)]
    split = facts.says(r"\b(\d\d)(?:%?\s?/\s?\d{1,2}){1,2}(?:%? |\)|\.|,)")
    held = [
        each
        for each in choices(facts, claimed, "validation_samples")
        if not each.reading.facts[0].figure.unit
    ]
    for each in every[:2]:
        if split and 50 <= int(split[1]) < 100:
            share, fact = int(split[1]) / 100, each.reading.facts[0]
            of_all = reading(f"{int(split[1])} % of {each.reading.text}", lambda n, s=share: n * s, fact)
            made.append(Choice(of_all, is_firm=False, is_near=each.is_near))
        for rest in held[:2]:
            less = (each.reading.facts[0], rest.reading.facts[0])
            text = f"({each.reading.text} - {rest.reading.text})"
            made.append(Choice(reading(text, lambda n, h: n - h, *less), is_firm=False, is_near=each.is_near))
    return made


def _has_unit(fact: Fact) -> bool:
    """True unless a time has no unit: `time: 30` may be minutes."""
    is_time = fact.name.endswith("_seconds")
    return not is_time or fact.figure.unit == "s" or bool(re.search(r"runtime|seconds", fact.label))


def _is_of_the_whole(claimed: Fact) -> bool:
    """True unless a figure is of a part: a round mark of steps, the length of a context called tokens."""
    if claimed.name == "tokens":
        named = re.search(r"vocab|per|dataset|corpus|context|max", claimed.label, re.I)
        return claimed.value >= 1e5 and not named
    if claimed.name in ("steps", "max_steps"):
        return claimed.value >= 10 and claimed.role == "plain"
    if claimed.name in ("epochs", "total_seconds"):
        return claimed.role == "plain" and _has_unit(claimed)
    if claimed.name.startswith("trainable_"):
        return bool(re.search("trainable|param", claimed.label, re.I))
    if claimed.name == "warmup_ratio":
        return claimed.figure.unit == "%"
    return _has_unit(claimed)
