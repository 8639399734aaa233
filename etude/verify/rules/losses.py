"""Losses: perplexity is exp(loss), an untrained model guesses among V tokens, and some values cannot be."""

import math
import re
from collections.abc import Iterator, Sequence

from etude.verify.facts import Fact, Facts
from etude.verify.names import LOSSES
from etude.verify.quantities import printed
from etude.verify.ranges import Range
from etude.verify.verdicts import CONTRADICTS, UNSETTLED, Finding, Reading, judge, note, reading

_START = re.compile(
    r"\b(?:initial|starting|start(?:s|ed)?|first|untrained|at step [01]\b|before training|random)", re.I
)
_AT_START = re.compile(
    r"\bat step 0\b|\bat (?:the )?initiali[sz]ation\b|\bbefore (?:any )?training\b|\buntrained\b"
    r"|\bfresh\w* (?:drawn |initiali[sz]ed )?(?:weights|model|network)",
    re.I,
)
_MOST_LOSSES = 60
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
    """A perplexity by the loss beside it; false only if no other loss of the document gives it either."""
    every = facts.named(*LOSSES, roles=("plain", "other", "to", "from"))[:_MOST_LOSSES]
    for name, losses in (
        ("validation_perplexity", ("validation_loss", "loss")), ("train_perplexity", ("train_loss", "loss")),
        ("perplexity", ("validation_loss", "loss", "train_loss")),
    ):  # fmt: skip
        for claimed in facts.named(name, roles=("plain", "other", "to")):
            near = [loss for each in losses if (loss := _beside(facts, claimed, each))]
            near = near or _parallel(facts, claimed, losses)
            unnamed = _decimals(facts, claimed)
            usual = [*near, *unnamed, *([] if near and claimed.role == "other" else every)]
            made = [_exponential(each) for each in usual]
            fitting = [each for each in made if each.tight.meets(claimed.figure.tight)]
            if fitting:
                yield judge("perplexity", claimed, [fitting[0]])
            elif near:
                made = [_exponential(each) for each in near]
                made += [reading(f"2^{near[0].figure.text}", lambda x: x.map(lambda v: 2.0**v), near[0])]
                yield judge("perplexity", claimed, made, any_confirms=len(near) > 1)


def _exponential(loss: Fact) -> Reading:
    return reading(f"exp({loss.figure.text})", lambda x: x.map(math.exp), loss)


def _decimals(facts: Facts, claimed: Fact) -> list[Fact]:
    """The figures of a sentence that may be the loss of a perplexity, whatever they are called."""
    sentence = facts.sentence_of(claimed)
    figures = sentence.figures if sentence else ()
    return [
        Fact("loss", each, claimed.line, claimed.scope) for each in figures[:_MOST_LOSSES]
        if each is not claimed.figure and "." in each.text and not each.unit and 0 < each.value < 20
    ]  # fmt: skip


def _parallel(facts: Facts, claimed: Fact, losses: Sequence[str]) -> list[Fact]:
    """The loss at the same place of the item before, where both items have as many figures."""
    sentence = facts.sentence_of(claimed)
    before = facts.before(sentence, 1) if sentence else []
    if not sentence or not before or before[0].block.kind != "item":
        return []
    own = [each for each in sentence.figures if "." in each.text]
    place = next((at for at, each in enumerate(own) if each is claimed.figure), None)
    others = [each for each in before[0].figures if "." in each.text]
    named = {id(each.figure): each for name in losses for each in facts.by_name.get(name, ())}
    if place is None or len(own) < 2 or len(others) < len(own):
        return []
    found = named.get(id(others[place]))
    return [found] if found else []


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
    if not re.search(
        r"from scratch|random(?:ly)? init|pre-?train|fresh\w* |untrained|uniform guess", text
    ) or re.search(r"fine-?tun|lora|adapter|continued pre", text):
        return
    sentences = {sentence.scope: sentence for sentence in facts.sentences}
    for loss in (*facts.named(*LOSSES, roles=("plain", "other", "from")), *_unnamed_starts(facts)):
        sentence = sentences.get(loss.scope)
        words = (
            loss.label
            + " "
            + (sentence.text[max(0, loss.figure.start - 50) : loss.figure.end + 25] if sentence else "")
        )
        steps = [each for each in facts.by_name.get("steps", ()) if each.scope == loss.scope]
        is_start = (
            bool(_START.search(words))
            or loss.label == "loss at the start"
            or any(each.value in (0.0, 1.0) for each in steps if not sentence)
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


def _unnamed_starts(facts: Facts) -> Iterator[Fact]:
    """Figures that a sentence calls the start, after one that speaks of a loss: `it said 9.0 at step 0`."""
    named = {id(each.figure) for each in facts.facts}
    for sentence in facts.sentences:
        if not _AT_START.search(sentence.text):
            continue
        words = " ".join(each.text for each in (*facts.before(sentence, 1), sentence))
        for each in sentence.figures if re.search(r"\bloss\b|\bnats\b", words, re.I) else ():
            is_loss = "." in each.text and not each.unit and 1 < each.value < 20 and id(each) not in named
            if is_loss and _AT_START.search(sentence.text[max(0, each.start - 70) : each.end + 25]):
                yield Fact("loss", each, sentence.line_of(each), sentence.scope, label="loss at the start")


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
