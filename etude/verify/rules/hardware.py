"""Named GPUs: the operations that a speed needs against their published peak, and their memory."""

import re
from collections.abc import Iterator

from etude.gpus import GPUS, Gpu
from etude.verify.facts import Fact, Facts
from etude.verify.quantities import printed
from etude.verify.ranges import Range
from etude.verify.verdicts import CONTRADICTS, UNSETTLED, Finding, Reading, judge, note

_NAMES = {
    "h200": r"h200", "h100-pcie": r"h100[ -]pcie", "h100": r"h100",
    "a100-40gb": r"a100[ -(]{0,2}(?:sxm4?[ -])?(?:pcie[ -])?40 ?gb?",
    "a100": r"a100", "l40s": r"l40s", "l4": r"l4", "a10": r"a10g?", "v100": r"v100", "t4": r"t4",
    "rtx4090": r"(?:rtx ?)?4090", "rtx3090": r"(?:rtx ?)?3090",
}  # fmt: skip
_USED = re.compile(
    r"\b(?:used|usage|peak|allocated|needs?|took|takes|consum\w+|per gpu|on each|each)\b", re.I
)
_PER_DEVICE = re.compile(
    r"\bper (?:gpu|device|card|[ahv]\d00|t4|l4)|/ ?gpu|\beach\b|\ba single (?:gpu|[ahv]\d00)", re.I
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
    found = []
    for key, pattern in _NAMES.items():
        if re.search(rf"(?<![\w.-]){pattern}s?(?![\w])", text):
            found.append(key)
            text = re.sub(rf"(?<![\w.-]){pattern}s?(?![\w])", " ", text)
    if sorted(found) == ["a100", "a100-40gb"]:
        found = ["a100-40gb"]
    return GPUS[found[0]] if len(found) == 1 else None


def _speeds(facts: Facts, gpu: Gpu) -> Iterator[Finding]:
    peak = gpu.half
    is_adapter = bool(re.search(r"\blora\b|adapter|qlora", facts.text))
    for rate in facts.named("tokens_per_second"):
        size = facts.near(rate, "parameters")
        if size is None or size.figure.unit or size.value < 1e6:
            continue
        devices = facts.near(rate, "devices")
        is_each = bool(_PER_DEVICE.search(rate.label + _behind(facts, rate)))
        count = 1.0 if is_each else devices.value if devices else 1.0
        least, most = (3.0, 5.0) if is_adapter else (6.0, 8.0)
        operations = rate.figure.tight * size.figure.tight * Range(least, most)
        share = operations / (peak * count) * 100
        shown = f"{rate.figure.text} tokens/s x {least:g} to {most:g} x {size.figure.text} / "
        f"({printed(count)} x {printed(peak / 1e12)} TFLOP/s)"
        made = Reading(shown, share, share.widen(0.1), (rate, size, *([devices] if devices else [])))
        if share.low > 100 and (devices or count == 1.0):
            verdict = CONTRADICTS if devices or is_each else UNSETTLED
            yield note(
                verdict,
                "peak",
                rate.line,
                f"{rate.figure.text} tokens/s",
                f"{shown} = {printed(share.low)} % of the peak of {gpu.title}",
                fits=f"at most {printed(peak * count / (6 * size.value))} tokens/s",
                facts=made.facts,
            )
        for claimed in facts.named("mfu"):
            if facts.near(claimed, "tokens_per_second") is rate:
                yield judge("peak", claimed, [made])
        for claimed in facts.named("gpu_utilisation"):
            why = f"{shown} = {printed(share.low)} % of the peak; utilisation counts the time in "
            "which any kernel runs, not the share of the peak"
            if share.high < 0.7 * claimed.value:
                yield note(
                    UNSETTLED,
                    "peak",
                    claimed.line,
                    f"{claimed.label} {claimed.figure.text}",
                    why,
                    facts=(claimed, rate, size),
                )
    for claimed in facts.named("flops"):
        devices = facts.near(claimed, "devices")
        is_each = bool(_PER_DEVICE.search(claimed.label + _words(facts, claimed)))
        most = gpu.half * (1 if is_each or not devices else devices.value) * 1.01
        if claimed.figure.loose.low > most * (2 if re.search("sparsity", facts.text) else 1):
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
        words = claimed.label + " " + _words(facts, claimed)
        if (
            not re.search(r"gpu|vram|device|cuda", words, re.I)
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


def _behind(facts: Facts, fact: Fact) -> str:
    """The words behind a figure, in its sentence or its cell."""
    return _words(facts, fact)[fact.figure.end :][:45]


def _words(facts: Facts, fact: Fact) -> str:
    sentence = next((each for each in facts.sentences if each.scope == fact.scope), None)
    return sentence.text if sentence else ""
