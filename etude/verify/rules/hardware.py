"""Named GPUs: the operations that a speed needs against their published peak, and their memory."""

import re
from collections.abc import Iterator

from etude.gpus import GPUS, Gpu
from etude.verify.facts import Fact, Facts
from etude.verify.quantities import printed
from etude.verify.ranges import Range
from etude.verify.verdicts import CONTRADICTS, UNSETTLED, Finding, Reading, judge, note, reading

_NAMES = {
    "h200": r"h200", "h100-pcie": r"h100[ -]pcie", "h100": r"h100",
    "a100-40gb": r"a100[ -(]{0,2}(?:sxm4?[ -])?(?:pcie[ -])?40 ?gb?",
    "a100": r"a100", "l40s": r"l40s", "l4": r"l4", "a10": r"a10g?", "v100": r"v100", "t4": r"t4",
    "rtx4090": r"(?:rtx ?)?4090", "rtx3090": r"(?:rtx ?)?3090",
}  # fmt: skip
_USED = re.compile(
    r"\b(?:used|usage|peak\w*|allocated|needs?|took|takes|consum\w+|per gpu|on each|each)\b", re.I
)
_PER_DEVICE = re.compile(
    r"\bper (?:gpu|device|card|[ahv]\d00|t4|l4)|/ ?gpu|\beach\b"
    r"|\b(?:an?|one) (?:single )?(?:gpu|card|device|[ahv]\d00)",
    re.I,
)
_SINGLE = re.compile(
    r"\b(?:single|one|each|one of (?:our|the|these|its)) (?:nvidia )?(?:gpu|card|device|[ahv]\d00"
    r"|l40s?|t4)s?\b",
    re.I,
)


def check_hardware(facts: Facts) -> Iterator[Finding]:
    """Speeds and memory against the GPUs that the document names."""
    gpu = only_gpu(
        facts.text
        + " "
        + " ".join(
            cell.text.lower() for table in facts.tables[:50] for row in table.rows[:100] for cell in row[:10]
        )
    )
    if gpu is None:
        return
    yield from _speeds(facts, gpu)
    yield from _memory(facts, gpu)


def only_gpu(text: str) -> Gpu | None:
    """The GPU that a text names, None if it names several or none."""
    found: list[str] = []
    if not any(digits in text for digits in ("00", "l4", "a10", "t4", "90")):
        return None
    for key, pattern in _NAMES.items():
        if re.search(rf"(?<![\w.-]){pattern}s?(?![\w])", text):
            found.append(key)
            text = re.sub(rf"(?<![\w.-]){pattern}s?(?![\w])", " ", text)
    if sorted(found) == ["a100", "a100-40gb"]:
        found = ["a100-40gb"]
    return GPUS[found[0]] if len(found) == 1 else None


def _speeds(facts: Facts, gpu: Gpu) -> Iterator[Finding]:
    rates = [rate for rate in facts.named("tokens_per_second") if _size_of(facts, rate)]
    for rate in rates:
        yield from _within_peak(facts, gpu, rate)
    for claimed in facts.named("mfu"):
        if (speed := facts.near(claimed, "flops")) and speed.scope == claimed.scope:
            devices = None if _is_each(facts, speed) else facts.near(speed, "devices")
            counts = [devices.value, 1.0] if devices else [1.0]
            made = []
            for peak in (gpu.half * count for count in counts):
                text = f"{speed.figure.text} / {printed(peak / 1e12)} TFLOP/s"
                made.append(reading(text, lambda s, peak=peak: s / peak * 100, speed, slack=0.05))
            yield judge("peak", claimed, made, any_confirms=True)
        near = [rate for rate in rates if rate.scope[:-2] == claimed.scope[:-2]] or rates
        if near and len(near) <= 4:
            made = [_share_of_peak(facts, gpu, rate, most=7.0)[0] for rate in near]
            made += [_share_of_peak(facts, gpu, rate, most=7.0, is_one=True)[0] for rate in near]
            yield judge("peak", claimed, made, any_confirms=True)
    yield from _achieved(facts, rates)
    yield from _peaks(facts, gpu)


def _size_of(facts: Facts, rate: Fact) -> Fact | None:
    """The parameters of the model that a speed is of."""
    size = facts.near(rate, "parameters")
    return None if size is None or size.figure.unit or size.value < 1e6 else size


def _is_each(facts: Facts, fact: Fact) -> bool:
    """True of a figure that is of one GPU, by its label or by the words up to the next figure or comma."""
    behind = re.split(r"[,;.](?:\s|$)|\b\d", facts.words_after(fact))[0]
    before = re.split(r"[,;.]\s", facts.words_before(fact, 60))[-1]
    return bool(_PER_DEVICE.search(f"{fact.label} {behind}") or _SINGLE.search(before))


def _share_of_peak(
    facts: Facts, gpu: Gpu, rate: Fact, most: float, *, is_one: bool = False
) -> tuple[Reading, bool]:
    """(percent of the peak that a speed needs, True if the number of GPUs is said)."""
    size, devices = _size_of(facts, rate), facts.near(rate, "devices")
    assert size is not None
    is_each = is_one or _is_each(facts, rate)
    count = 1.0 if is_each or not devices else devices.value
    least, most = (3.0, 5.0) if facts.says(r"\blora\b|adapter|qlora") else (6.0, most)
    if facts.says(r"\b6 ?[·×x*]? ?n\b"):
        least = most = 6.0
    share = rate.figure.tight * size.figure.tight * Range(least, most) / (gpu.half * count) * 100
    times = f"{least:g}" if least == most else f"{least:g} to {most:g}"
    shown = (
        f"{rate.figure.text} tokens/s x {times} x {size.figure.text} / "
        f"({printed(count)} x {printed(gpu.half / 1e12)} TFLOP/s)"
    )
    used = (rate, size, *([devices] if devices else []))
    return Reading(shown, share, share.widen(0.03), used), is_each or devices is not None


def _within_peak(facts: Facts, gpu: Gpu, rate: Fact) -> Iterator[Finding]:
    made, is_counted = _share_of_peak(facts, gpu, rate, most=8.0)
    if made.tight.low > 100:
        yield note(
            CONTRADICTS if is_counted else UNSETTLED,
            "peak",
            rate.line,
            f"{rate.figure.text} tokens/s",
            f"{made.text} = {printed(made.tight.low)} % of the peak of {gpu.title}",
            fits=f"at most {printed(rate.value * 100 / made.tight.low)} tokens/s",
            facts=made.facts,
        )
    for claimed in facts.named("gpu_utilisation"):
        if facts.near(claimed, "tokens_per_second") is rate and made.tight.high < 0.7 * claimed.value:
            why = (
                f"{made.text} = {printed(made.tight.low)} % of the peak; utilisation counts the time in "
                "which any kernel runs, not the share of the peak"
            )
            quoted = f"{claimed.label} {claimed.figure.text}"
            yield note(UNSETTLED, "peak", claimed.line, quoted, why, facts=(claimed, *made.facts))


def _achieved(facts: Facts, rates: list[Fact]) -> Iterator[Finding]:
    """Operations a second that a sentence makes from the speed by 6 N operations a token."""
    for claimed in facts.named("flops"):
        sentence = facts.sentence_of(claimed)
        near = [rate for rate in rates if rate.scope[:-2] == claimed.scope[:-2]]
        if not near or not sentence or not re.search(r"\b6 ?[·×x*]? ?n\b", sentence.text, re.I):
            continue
        made = []
        for rate in near:
            size = _size_of(facts, rate)
            assert size is not None
            text = f"6 x {size.figure.text} x {rate.figure.text} tokens/s"
            made.append(reading(text, lambda n, r: n * r * 6.0, size, rate, slack=0.03))
        yield judge("peak", claimed, made, any_confirms=True)


def _peaks(facts: Facts, gpu: Gpu) -> Iterator[Finding]:
    for claimed in facts.named("flops"):
        devices = facts.near(claimed, "devices")
        is_each = _is_each(facts, claimed)
        most = gpu.half * (1 if is_each or not devices else devices.value) * 1.01
        if claimed.figure.loose.low > most * (
            2 if facts.says(r"(?<!without )(?<!no )(?<!not )\bspars(?:ity|e)\b") else 1
        ):
            yield note(
                CONTRADICTS if devices or is_each else UNSETTLED,
                "peak",
                claimed.line,
                claimed.figure.text,
                f"the peak of {gpu.title} is {printed(gpu.half / 1e12)} TFLOP/s, without sparsity",
                fits=f"at most {printed(most / 1.01e12)} TFLOP/s",
                facts=(claimed,),
            )


def _memory(facts: Facts, gpu: Gpu) -> Iterator[Finding]:
    for claimed in facts.named("memory_bytes", roles=("plain", "other")):
        words = f"{claimed.label} {words.text if (words := facts.sentence_of(claimed)) else ''}"
        if (
            not re.search(rf"gpu|vram|device|cuda|{'|'.join(_NAMES.values())}", words, re.I)
            or not _USED.search(words)
            or re.search(
                r"\bcpu|system|host|ram\b(?<!vram)|total|all|combined|would|need|requires", words, re.I
            )
        ):
            continue
        if claimed.figure.loose.low > gpu.memory_bytes * 1.08:
            yield note(
                CONTRADICTS,
                "memory",
                claimed.line,
                f"{claimed.label} {claimed.figure.text}",
                f"an {gpu.title} has {printed(gpu.memory_bytes / 1e9)} GB",
                fits=f"at most {printed(gpu.memory_bytes / 1e9)} GB on a GPU",
                facts=(claimed,),
            )
