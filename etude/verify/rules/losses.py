"""Losses: perplexity is exp(loss), an untrained model guesses among V tokens, and some values cannot be."""

import math
import re
from collections.abc import Iterator

from etude.verify.facts import Fact, Facts
from etude.verify.names import LOSSES
from etude.verify.quantities import printed
from etude.verify.ranges import Range
from etude.verify.verdicts import CONTRADICTS, UNSETTLED, Finding, judge, note, reading

_START = re.compile(
    r"\b(?:initial|starting|start(?:s|ed)?|first|untrained|at step [01]\b|before training|random)", re.I
)
# The most and least that each can be.
_BOUNDS = {
    "accuracy": (0.0, 100.0), "f1": (0.0, 100.0), "recall": (0.0, 100.0), "precision": (0.0, 100.0),
    "bleu": (0.0, 100.0),    "pass_at": (0.0, 100.0), "loss": (0.0, math.inf), "train_loss": (0.0, math.inf),
    "validation_loss": (0.0, math.inf),    "perplexity": (1.0, math.inf),
    "validation_perplexity": (1.0, math.inf), 
    "train_perplexity": (1.0, math.inf),    "dropout": (0.0, 100.0), "gpu_utilisation": (0.0, 100.0),
    "mfu": (0.0, 100.0), 
    "trainable_share": (0.0, 100.0),    "grad_norm": (0.0, math.inf), "learning_rate": (0.0, math.inf),
    "warmup_ratio": (0.0, 100.0),
}  # fmt: skip


def check_losses(facts: Facts) -> Iterator[Finding]:
    """Perplexities beside losses, the loss at the start, and values that cannot be."""
    yield from _perplexities(facts)
    yield from _starts(facts)
    yield from _bounds(facts)


def _perplexities(facts: Facts) -> Iterator[Finding]:
    for name, losses in (
        ("validation_perplexity", ("validation_loss",)), ("train_perplexity", ("train_loss",)),
        ("perplexity", ("validation_loss", "loss", "train_loss")),
    ):  # fmt: skip
        for claimed in facts.named(name, roles=("plain", "other", "to")):
            near = [loss for each in losses if (loss := _beside(facts, claimed, each))]
            if name == "perplexity" and not _beside(facts, claimed, "validation_loss"):
                near = [
                    each for each in facts.named("validation_loss", roles=("plain", "to"))
                    if each.scope[:-2] == claimed.scope[:-2] and claimed.role == "plain"
                ][:6] or near  # fmt: skip
            if not near and name != "perplexity":
                near = [loss for each in ("loss",) if (loss := _beside(facts, claimed, each))]
            if not near:
                continue
            made = [reading(f"exp({loss.figure.text})", lambda x: x.map(math.exp), loss) for loss in near]
            made += [
                reading(f"2^{loss.figure.text}", lambda x: x.map(lambda v: 2.0**v), loss) for loss in near[:1]
            ]
            yield judge("perplexity", claimed, made, any_confirms=len(near) > 1)


def _beside(facts: Facts, claimed: Fact, name: str) -> Fact | None:
    """The loss of the same row, column or sentence, else that of the same list or section."""
    same = [
        each for each in facts.by_name.get(name, ())
        if each.scope == claimed.scope and each.figure.is_usable
        and each.role in (claimed.role, "plain", "other")
    ]  # fmt: skip
    if same:
        after = [each for each in same if each.figure.start < claimed.figure.start] if len(same) > 1 else same
        return (
            same[0]
            if len(same) == 1
            else after[-1]
            if len({each.line for each in same}) == 1 and after
            else None
        )
    if claimed.role != "plain" or (
        claimed.scope[-1].startswith(("row", "column")) and len(claimed.scope) > 9
    ):
        return None
    found = facts.near(claimed, name)
    if found is None or found.scope[:-2] != claimed.scope[:-2]:
        return None
    kinds = [bool(re.search(r"best|lowest|min", each.label, re.I)) for each in (found, claimed)]
    return found if kinds[0] == kinds[1] else None


def _starts(facts: Facts) -> Iterator[Finding]:
    text = facts.text
    if not re.search(r"from scratch|random(?:ly)? init|pre-?train", text) or re.search(
        r"fine-?tun|lora|adapter|continued pre", text
    ):
        return
    sentences = {sentence.scope: sentence for sentence in facts.sentences}
    for loss in facts.named(*LOSSES, roles=("plain", "other", "from")):
        sentence = sentences.get(loss.scope)
        words = (
            loss.label
            + " "
            + (sentence.text[max(0, loss.figure.start - 50) : loss.figure.end + 25] if sentence else "")
        )
        steps = [each for each in facts.by_name.get("steps", ()) if each.scope == loss.scope]
        is_start = bool(_START.search(words)) or any(
            each.value in (0.0, 1.0) for each in steps if not sentence
        )
        vocabulary = facts.near(loss, "vocab_size") if is_start else None
        if vocabulary is None or loss.label.lower().startswith(("final", "best")):
            continue
        made = reading(
            f"ln({vocabulary.figure.text}) as of a guess among all tokens, up to 30 % above",
            _around_guess,
            vocabulary,
        )
        finding = judge("start", loss, [made])
        if finding.verdict == CONTRADICTS and loss.value > made.tight.high:
            finding = note(
                UNSETTLED,
                "start",
                loss.line,
                finding.quoted,
                f"{finding.why}; a poor initialisation or a summed loss starts higher",
                fits=finding.fits,
                facts=(loss, vocabulary),
            )
        yield finding


def _around_guess(vocabulary: Range) -> Range:
    ends = vocabulary.map(math.log)
    return Range(ends.low * 0.9, ends.high * 1.3)


def _bounds(facts: Facts) -> Iterator[Finding]:
    for name, (least, most) in _BOUNDS.items():
        for fact in facts.named(name, roles=("plain", "other", "from", "to")):
            if name == "pass_at" and fact.figure.unit == "":  # the number of a problem
                continue
            top = (
                most
                if fact.figure.unit in ("%", "points") or name not in ("dropout", "warmup_ratio")
                else 1.0
            )
            if (
                fact.figure.unit == "x"
                or (fact.figure.text[:1] in "+-−" and name not in LOSSES)
                or fact.figure.unit == "points"
            ):
                continue
            if not least <= fact.value <= top:
                end = f"at least {printed(least)}" if fact.value < least else f"at most {printed(top)}"
                yield note(
                    CONTRADICTS,
                    "bound",
                    fact.line,
                    f"{fact.label} {fact.figure.text}".strip(),
                    f"{name.replace('_', ' ')} is {end}",
                    fits=end,
                    facts=(fact,),
                )
