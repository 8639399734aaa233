"""Bytes: weights, gradients, moments and checkpoints by the number format of their parameters."""

import re
from collections.abc import Iterator

from etude.verify.facts import Fact, Facts, Sentence
from etude.verify.ranges import Range
from etude.verify.verdicts import CONFIRMED, CONTRADICTS, UNSETTLED, Finding, Reading, judge, note, reading

_DTYPES = {
    "fp32": 4.0, "float32": 4.0, "f32": 4.0, "fp16": 2.0, "float16": 2.0, "bf16": 2.0, "bfloat16": 2.0,
    "half precision": 2.0,    "int8": 1.0, "8[ -]bits?": 1.0, "int4": 0.5, "4[ -]bits?": 0.5, "nf4": 0.5,
}  # fmt: skip
_FEWEST = 1e4  # parameters of a model
_OPTIMIZER = re.compile(r"optimi[sz]er|adam|moments|resum|full state|training state", re.I)


def check_bytes(facts: Facts) -> Iterator[Finding]:
    """The bytes that parameters take."""
    yield from _bytes(facts)
    yield from _halves(facts)


def _bytes(facts: Facts) -> Iterator[Finding]:
    sentences = {sentence.scope: sentence.text for sentence in facts.sentences}
    claims = facts.named("checkpoint_bytes", "weight_bytes", "optimizer_bytes", "gradient_bytes")
    said = _formats(facts.text) if claims else set()
    for claimed in claims:
        sentence = sentences.get(claimed.scope, "")
        words = f"{claimed.label} {sentence}"
        is_adapter = bool(re.search(r"adapter|lora", words, re.I))
        count = facts.near(claimed, "trainable_parameters" if is_adapter else "parameters")
        if (
            count is None
            or count.figure.unit
            or not count.value > _FEWEST
            or not count.value / 10 < claimed.value < count.value * 100
            or re.search(
                r"\bof (?:them|those|these)\b|\ball checkpoints|checkpoints? in total|activations|per epoch",
                words,
                re.I,
            )
        ):
            continue
        named = _formats(_about(facts, claimed)) or _formats(words)
        sizes = sorted(named or said)
        has_state = bool(_OPTIMIZER.search(words))
        yield from _judge_bytes(claimed, count, sizes, words, is_named=len(named) == 1, has_state=has_state)


def _formats(text: str) -> set[float]:
    """The bytes of a number in the formats that a text names."""
    return {size for name, size in _DTYPES.items() if re.search(rf"(?<![\w]){name}(?![\w])", text, re.I)}


def _about(facts: Facts, fact: Fact) -> str:
    """The words that are of one figure alone: from the figure before to it, else on to the next comma."""
    sentence = facts.sentence_of(fact)
    if sentence is None:
        return fact.label
    start = max([each.end for each in sentence.figures if each.end <= fact.figure.start], default=0)
    before = sentence.text[start : fact.figure.start]
    after = re.split(r"[,;.](?:\s|$)|\band\b", facts.words_after(fact))[0]
    return before if _formats(before) else after


def _judge_bytes(
    claimed: Fact, count: Fact, sizes: list[float], words: str, *, is_named: bool, has_state: bool
) -> Iterator[Finding]:
    def each(factor: float, what: str) -> Reading:
        scales = Range(
            1.0, 1.3 if factor <= 1 else 1.0
        )  # few bits come with a scale for each group of weights
        text = f"{count.figure.text} x {factor:g} bytes ({what})"
        return reading(text, lambda n: n * factor * scales, count, slack=0.05)

    if is_named and 4.0 in sizes and _is_moments_alone(claimed, words):
        yield judge("bytes", claimed, [each(8, "two moments in fp32")])
        return
    if claimed.name == "optimizer_bytes":
        yield judge(
            "bytes",
            claimed,
            [
                each(8, "two moments in fp32"),
                each(4, "two moments in 16 bits"),
                each(12, "moments and master weights"),
                each(2, "8-bit moments"),
            ],
            any_confirms=True,
        )
        return
    weights = [each(size, "weights") for size in sizes] or [
        each(4, "weights in fp32"),
        each(2, "weights in 16 bits"),
    ]
    states = [
        each(12, "fp32 weights and two moments"),
        each(10, "16-bit weights, two moments in fp32"),
        each(14, "16-bit and fp32 weights, moments"),
        each(16, "weights, gradients and moments"),
    ]
    if claimed.name in ("weight_bytes", "gradient_bytes") or (
        is_named and not has_state and "weight" in claimed.label.lower()
    ):
        yield judge("bytes", claimed, weights, any_confirms=not is_named)
    elif has_state:
        yield judge("bytes", claimed, [*states, each(6, "16-bit weights and moments")], any_confirms=True)
    else:
        finding = judge("bytes", claimed, weights + states, any_confirms=True)
        smallest = min(size for size in (sizes or [2.0])) * count.value
        if finding.verdict == CONTRADICTS and not is_named and claimed.figure.loose.high > 0.9 * smallest:
            finding = note(
                UNSETTLED,
                "bytes",
                claimed.line,
                finding.quoted,
                f"{finding.why}; what else it holds is not said",
                fits=finding.fits,
                facts=(claimed, count),
            )
        yield finding


def _is_moments_alone(claimed: Fact, words: str) -> bool:
    """True of the bytes of two moments, false of `weights with Adam's moments`."""
    added = rf"\b(?:with|plus|including) (?:[\w']+ ){{0,2}}{re.escape(claimed.label)}"
    is_moments = claimed.name == "optimizer_bytes" and "moment" in claimed.label.lower()
    return is_moments and not re.search(added, words)


def _is_of_memory(facts: Facts, sentence: Sentence) -> bool:
    """True if the sentences before speak of all that a parameter takes in training."""
    words = " ".join(each.text for each in facts.before(sentence, 3))
    return bool(
        re.search(r"\bbytes (?:per|a) param|\bgradients?\b.*\b(?:moments|optimi[sz]er|adam)", words, re.I)
    )


def _halves(facts: Facts) -> Iterator[Finding]:
    """Mixed precision keeps weights, gradients and moments in fp32, and halves the activations alone."""
    what = r"(?:fp16|bf16|float16|half[ -]precision|mixed[ -]precision|amp)\b"
    halved = r"\b(?:halv\w+|cut\w*|reduc\w+|sav\w+|half|50 ?%)"
    whole = (
        r"\b(?:memory|vram|footprint|everything|(?:optimi[sz]er|adam\w*)(?:'s)? (?:states?|moments|memory)"
        r"|gradients,? and)\b"
    )
    for sentence in facts.sentences:
        text = sentence.text
        if not re.search(halved, text, re.I) or re.search(
            r"\b(?:not|n't|never|nothing) (?:\w+ )?halv", text, re.I
        ):
            continue
        found = (
            re.search(rf"{what}[^.;]{{0,60}}{halved}[^.;]{{0,50}}{whole}[^.;]{{0,30}}", text, re.I)
            or re.search(rf"{what}[^.;]{{0,60}}{whole}[^.;]{{0,40}}{halved}\w*", text, re.I)
            or re.search(rf"{whole}[^.;]{{0,40}}{halved}[^.;]{{0,40}}{what}", text, re.I)
            or (
                _is_of_memory(facts, sentence)
                and re.search(
                    rf"{what}(?:[^.;]|\.\d){{0,60}}{halved} (?:this|that|it|them|in half)\b", text, re.I
                )
            )
        )
        if not found or not re.search(
            r"halv|half (?:of |the |as )|by half|50 ?%|in half|2x",
            found[0].replace("half precision", ""),
            re.I,
        ):
            continue
        if not re.search(r"optimi[sz]er|moments|everything", text, re.I) and re.search(
            r"activation|weights? (?:alone|only)|inference|of the weights|weight memory|model weights",
            text,
            re.I,
        ):
            yield note(
                CONFIRMED, "bytes", sentence.line, found[0].strip(), "two bytes a number instead of four"
            )
            continue
        is_mixed = bool(facts.says(r"mixed|amp\b|scal(?:er|ing)|adam"))
        why = (
            "weights, gradients and Adam's moments take 16 bytes a parameter, in fp32 and mixed alike; "
            "only activations are halved"
        )
        yield note(
            CONTRADICTS if is_mixed else UNSETTLED,
            "bytes",
            sentence.line,
            found[0].strip(),
            why,
            fits="half of the activations",
            facts=(),
        )
