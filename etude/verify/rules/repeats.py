"""One setting said twice: a training has one batch size, so two values of it need an explanation."""

import re
from collections import defaultdict
from collections.abc import Iterator

from etude.verify.facts import Fact, Facts
from etude.verify.verdicts import CONFIRMED, CONTRADICTS, Finding, note

# Of these a document about one training has one value.
_ONCE = (
    "epochs", "max_steps", "global_batch", "batch", "micro_batch", "accumulation", "learning_rate",
    "min_learning_rate", "weight_decay", "dropout", "lora_rank", "lora_alpha", "vocab_size", "seq_len",
    "layers", "heads", "width", "warmup_steps", "devices", "patience", "max_grad_norm",
    "trainable_parameters", "parameters", "train_samples", "samples", "steps", "tokens", "total_seconds",
)  # fmt: skip
_MEASURED = {
    "devices", "parameters", "samples", "steps", "tokens", "total_seconds", "train_samples",
    "trainable_parameters",
}  # fmt: skip
_SEVERAL = re.compile(
    r"\bgrid|\bsweep|\bsearch\b|\bcompar|\bv1\b|\bv2\b|\bversions?\b|\bruns\b|\btrainings\b|\bmodels:"
    r"|\bablation|\bphase \d|\bstage \d|\bexperiments\b|\btrials\b", re.I
)  # fmt: skip
_EXPLAINED = re.compile(
    r"\b(?:fell back|fall back|instead|reduc\w+|lower\w+|rais\w+|increas\w+|chang\w+|switch\w*|from"
    r"|ran out|out of memory|oom|tried|first|before|after|later|then|"
    r"original\w*|previous\w*|initial\w*|next|plan\w*|would|could|should|default|usual\w*|paper|other"
    r"|another|evaluation|inference|both|either|or|unlike|than|max\w*|up to|each|per|every|head"
    r"|remain\w*|left|kept|removed|dropped|filter\w*|duplicat\w*|valid\w*|test|unique|pool|embedding"
    r"|non-|encoder|decoder|warm\w*|per cent|subset|adapter|base|only)\b", re.I,
)  # fmt: skip


def check_repeats(facts: Facts) -> Iterator[Finding]:
    """Settings that two places of a document state."""
    sentences = {sentence.scope: sentence.text for sentence in facts.sentences}
    is_several = bool(_SEVERAL.search(facts.text)) or any(
        fact.role == "other" and fact.scope[-1].startswith("column") for fact in facts.facts
    )
    for name in _ONCE:
        by_value: dict[float, list[Fact]] = defaultdict(list)
        for fact in facts.named(name):
            if _is_said(fact, sentences):
                by_value[fact.value].append(fact)
        for same in by_value.values():
            places = {fact.scope for fact in same}
            if len(places) > 1:
                first, *rest = same
                yield note(
                    CONFIRMED,
                    "said twice",
                    first.line,
                    f"{first.label.strip()} {first.figure.text}",
                    f"line {rest[-1].line} says the same",
                    facts=same,
                )
        if len(by_value) != 2:
            continue
        (left,), (right,) = (facts_of[:1] for facts_of in by_value.values())
        first, second = sorted((left, right), key=lambda fact: fact.line)
        if (
            first.figure.unit != second.figure.unit
            or first.figure.loose.meets(second.figure.loose)
            or first.scope == second.scope
            or all(any(part.startswith("# lines ") for part in each.scope) for each in (first, second))
        ):
            continue
        if not is_several and (finding := _judge(first, second, sentences)):
            yield finding


def _is_said(fact: Fact, sentences: dict[tuple[str, ...], str]) -> bool:
    """True of a figure that its sentence gives as a plain setting of the training."""
    text = sentences.get(fact.scope)
    if text is None or fact.scope[-1].startswith("row"):
        return True
    around = text[max(0, fact.figure.start - 45) : fact.figure.end + 25]
    if re.match(r"\s*(?:\(|steps|%)?\s*(?:per|/|each|x |×)", text[fact.figure.end : fact.figure.end + 12]):
        return False
    return not _EXPLAINED.search(around) and not fact.figure.hedge


def _judge(first: Fact, second: Fact, sentences: dict[tuple[str, ...], str]) -> Finding | None:
    """The verdict on two values of one setting; None where both may hold, of different times or parts."""
    are_keys = _is_key(first, sentences) and _is_key(second, sentences)
    if are_keys and first.scope[:-2] != second.scope[:-2]:
        return None  # of two sections of a configuration
    are_alike = first.label.lower().strip() == second.label.lower().strip()
    if first.name in _MEASURED and not (are_keys and are_alike):
        return None
    why = f"line {first.line} says {first.figure.text}"
    quoted = f"{second.label.strip()} {second.figure.text}"
    return note(
        CONTRADICTS, "said twice", second.line, quoted, why, fits=first.figure.text, facts=(first, second)
    )


def _is_key(fact: Fact, sentences: dict[tuple[str, ...], str]) -> bool:
    """True if a figure is the value of a key or of a row of a table."""
    text = sentences.get(fact.scope, "")
    return fact.scope[-1].startswith("row") or bool(re.match(r"[^.:]{0,40}:\s*$", text[: fact.figure.start]))
