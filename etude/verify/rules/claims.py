"""Claims that need data which the document does not have, or has and does not bear out."""

import itertools
import re
from collections.abc import Iterator

from etude.verify.facts import Fact, Facts, Sentence
from etude.verify.names import LOSSES, SCORES
from etude.verify.quantities import printed
from etude.verify.rules.tables import cell_at, column
from etude.verify.verdicts import CONFIRMED, CONTRADICTS, UNSETTLED, Finding, note

_NEGATED = re.compile(
    r"\b(?:prevent\w*|avoid\w*|against|reduc\w+|risk of|watch for|detect\w*|guard|if|should|would"
    r"|could|may|might|mitigat\w*|to stop|early stopping|monitor\w*|signs? of|look for|suspect\w*"
    r"|helps?|hope|will|aim\w*|criteri\w+|not yet|goal|target|until|before|wanted|check\w*|cannot"
    r"|can't|not|too \w+ (?:for|to)|rules? out|ruled out)\b",
    re.I,
)
_ARGUED = re.compile(
    r"\b(?:since|because|as|given that|for)\b[^.;]{0,20}\btrain\w*[ -](?:loss|accuracy|error)", re.I
)
_SURELY = ("significant", "significantly", "statistically significant")
_MOST_OF_A_REPORT = 400  # figures of a document on one training, where what it lacks is told of all of it
_NO_HELD_OUT = re.compile(
    r"\b(?:no|without(?: an?y?)?|lacks? an?|never had an?) (?:\w+ )?(?:validation|held-?out|dev|evaluation)"
    r"(?: (?:set|split|data|rows|loss))?\b(?! (?:gap|error|problem))|\bvalidation(?: set| split"
    r"| data)?: (?:none|no)\b"
    r"|\b(?:all|every) (?:the )?(?:rows?|data|samples?|examples?|pairs?) (?:went|were used|was used"
    r"|go) (?:in)?to train"
    r"|\bnothing (?:was |is )?(?:held out|set aside)", re.I
)  # fmt: skip
_NOT_EVALUATED = re.compile(
    r"\b(?:not|never|n't)(?: (?:yet|been|it|the model|so far)){0,3} (?:evaluated|tested|measured"
    r"|benchmarked)\b"
    r"|\b(?:no|without(?: any)?) (?:evaluation|test|benchmark|measurement)s?\b(?! (?:loss|set|gap"
    r"|in))|\bunevaluated\b"
    r"|\bevaluation[^.]{0,20}\b(?:was|were|is|has) (?:not|skipped|left out)", re.I
)  # fmt: skip
_OVERFIT = re.compile(
    r"\b(?:over-?fit(?:ted|s)?\b|(?:is|was|are|were|been|it|clear|severe|strong|slight|shows?|showed"
    r"|due to|because of"
    r"|started|began"
    r"|caused by|sign of|evidence of|to|by) over-?fitting\b"
    r"|over-?fitting (?:occurred|began|started|set in|is|was)\b)", re.I
)  # fmt: skip
_MEMORISED = re.compile(
    r"\b(?:memori[sz]e(?:d|s)|(?:is|was|pure|by|due to) memori[sz](?:ing|ation)"
    r"|learn\w* by heart)\b",
    re.I,
)
_NO_OVERFIT = re.compile(
    r"\b(?:no|without|did not|does not|doesn't|didn't|not|never|zero|free of|free from)\s+"
    r"(?:\w+\s+){0,3}over-?fit\w*"
    r"|\bgenerali[sz]es? (?:very |extremely )?(?:well|perfectly)\b",
    re.I,
)
_READY = re.compile(
    r"\b(?:production[- ]ready|ready (?:for|to) (?:production|deploy\w*|use|ship)|deployment[- ]ready"
    r"|(?:can|may) (?:safely )?be (?:deployed|used|shipped) in production|ready for users|enterprise[- ]grade"
    r"|production[- ]grade|production quality)\b",
    re.I,
)
_BETTER = re.compile(
    r"\b(?:significant(?:ly)?(?= (?:better|higher|lower|improve\w*|outperform\w*|gain|increase|worse"
    r"|reduc\w*))|statistically significant|outperform\w*|clearly better|better than|superior to|beats"
    r"|state[- ]of[- ]the[- ]art)\b", re.I
)  # fmt: skip
_CERTAIN = re.compile(
    r"±|\+/-|\bci\b|confidence|\binterval|\bseeds?\b|\bn ?= ?\d|\bp ?[<=] ?0|std|standard (?:deviation"
    r"|error)|bootstrap|problems\b|\brepeat",
    re.I,
)
_STEADY = re.compile(
    r"\b(?:steadil?y|monotonic\w*|consistent(?:ly)?|continuous(?:ly)?|at every (?:evaluation|epoch"
    r"|step)|every epoch|throughout|without (?:a |any )?(?:rise|increase))\b",
    re.I,
)
_FALLS = re.compile(
    r"\b(?:fell|falls?|falling|decreas\w+|declin\w+|dropp\w+|improv\w+|went down|going down)\b", re.I
)

# One of these stands in each sentence that a pattern above fits.
_CUES = (
    "fit", "memori", "by heart", "ready", "production", "grade", "generali", "better", "signific",
    "outperform", "superior", "beats", "state", "steadi", "steady", "monoton", "consist", "continu", "every",
    "throughout", "without",
)  # fmt: skip


def check_claims(facts: Facts) -> Iterator[Finding]:
    """Sentences that claim more than the figures of the document can bear."""
    text = facts.text
    has_validation = bool(
        re.search(
            r"\bvalid\w+|\bval[ _]|held-?out|\bdev\b|\beval\w*|\btest (?:set|loss|accuracy|split|data)",
            text + _heads(facts),
        )
    )
    is_short = facts.figures <= _MOST_OF_A_REPORT
    lacks_validation = _NO_HELD_OUT.search(text) if is_short else None
    lacks_scores = _NOT_EVALUATED.search(text) if is_short else None
    has_validation = has_validation and not lacks_validation
    is_scored = not lacks_scores and any(
        facts.by_name.get(name) for name in (*SCORES, "validation_loss", "validation_perplexity")
    )
    for sentence in facts.sentences:
        words = sentence.text
        lower = words.lower()
        if _is_heading(sentence) or len(words) > 2_000 or not any(cue in lower for cue in _CUES):
            continue
        if (match := _NO_OVERFIT.search(words)) and words[match.start() - 1 : match.start()] not in tuple(
            "\"'“"
        ):
            yield from _no_overfit(facts, sentence, match[0], has_validation=has_validation)
        elif (match := _OVERFIT.search(words) or _MEMORISED.search(words)) and not _NEGATED.search(
            words[: match.end()]
        ):
            lacks = lacks_validation is not None and match.re is _OVERFIT
            yield from _overfit(facts, sentence, match[0], has_validation=has_validation, lacks=lacks)
        if (
            (match := _READY.search(words))
            and not _NEGATED.search(words[: match.start()])
            and not re.search(r"\bnot?\b", words[: match.start()], re.I)
        ) and not is_scored:
            is_report = facts.named("loss", "train_loss", "epochs", roles=("plain", "to", "from"))
            yield note(
                CONTRADICTS if lacks_scores or (is_report and not has_validation) else UNSETTLED,
                "absent data",
                sentence.line,
                match[0],
                "the document reports a training and no evaluation, no score and no validation figure",
                fits="an evaluation on held-out data",
            )
        if (
            (match := _BETTER.search(words))
            and not _NEGATED.search(words[: match.start()])
            and not _CERTAIN.search(text)
        ) and (match[0].lower() in _SURELY or any(fact.name in SCORES | LOSSES for fact in facts.facts)):
            yield note(
                CONTRADICTS if is_short and _is_sure(sentence, match) else UNSETTLED,
                "absent data",
                sentence.line,
                match[0],
                "no interval, number of rows or of seeds says how far chance goes",
                fits="the number of rows and an interval",
            )
        if _STEADY.search(words) and _FALLS.search(words):
            yield from _steady(facts, sentence)


def _is_sure(sentence: Sentence, match: re.Match[str]) -> bool:
    """True of a claim of significance, with its figures or with the word of statistics."""
    is_told = bool(sentence.figures) or "statistical" in sentence.text.lower()
    return is_told and match[0].lower().startswith(("significant", "statistic"))


def _is_heading(sentence: Sentence) -> bool:
    return sentence.block.kind == "heading"


def _heads(facts: Facts) -> str:
    cells = " ".join(
        " ".join(table.header) + " " + " ".join(row[0].text for row in table.rows[:100] if row)
        for table in facts.tables[:100]
    )
    return f" {cells} ".lower()


def _overfit(
    facts: Facts, sentence: Sentence, quoted: str, *, has_validation: bool, lacks: bool
) -> Iterator[Finding]:
    seen = _share_of_epoch(facts, sentence)
    if seen is not None and seen[0] < 1:
        share, used = seen
        why = (
            f"only {printed(round(100 * share, 1))} % of the first epoch was over, so no row had "
            "been seen twice"
        )
        yield note(
            CONTRADICTS,
            "absent data",
            sentence.line,
            quoted,
            why,
            fits="duplicates, an easy text or a fault of the loss, to be tested",
            facts=used,
        )
    elif not has_validation:
        yield note(
            CONTRADICTS if lacks else UNSETTLED,
            "absent data",
            sentence.line,
            quoted,
            "the document says that nothing was held out to tell it by"
            if lacks
            else "the document has no validation figure to tell it by",
            fits="a loss on held-out rows beside the training loss",
        )


def _share_of_epoch(facts: Facts, sentence: Sentence) -> tuple[float, list[Fact]] | None:
    """The share of the first epoch after which a claim was made, if the document says it near."""
    for other in facts.sentences:
        if other.scope[:-2] != sentence.scope[:-2] or abs(other.line - sentence.line) > 12:
            continue
        for a, b in zip(other.figures, other.figures[1:]):
            gap, after = other.text[a.end : b.start], other.text[b.end : b.end + 40]
            if (
                (
                    re.fullmatch(r"\s*(?:steps )?(?:of|out of|/)\s*(?:the )?", gap)
                    and re.search(r"\bsteps?\b", gap + after + other.text[max(0, a.start - 10) : a.start])
                    and (
                        re.search(
                            r"first epoch|epoch 1\b|one epoch|an epoch",
                            other.text + " " + sentence.text,
                            re.I,
                        )
                        or facts.named("epochs") == []
                    )
                )
                and 0 < a.value < b.value
                and re.search(r"epoch", other.text + sentence.text, re.I)
            ):
                return a.value / b.value, [
                    Fact("", a, other.line_of(a), other.scope),
                    Fact("", b, other.line_of(b), other.scope),
                ]
        early = re.search(
            r"(?:after|at|within|in) (?:only |just )?(\d{1,2}(?:\.\d+)?) ?% of (?:the first|an|one"
            r"|the) epoch|\bepoch (0\.\d+)",
            other.text,
            re.I,
        )
        if early:
            return (float(early[1]) / 100 if early[1] else float(early[2])), []
    return _steps_of_epoch(facts, sentence) or _share_of_data(facts)


def _steps_of_epoch(facts: Facts, sentence: Sentence) -> tuple[float, list[Fact]] | None:
    """The step that a claim, or the sentence before, names as a share of the steps of an epoch."""
    lengths = {each.value: each for each in facts.named("steps_per_epoch", roles=("plain", "other", "mark"))}
    for near in (sentence, *facts.before(sentence, 1)) if len(lengths) == 1 else ():
        (length,) = lengths.values()
        steps = [each for each in facts.named("steps", roles=("mark",)) if each.scope == near.scope]
        if steps and length.value and max(each.value for each in steps) < length.value:
            return max(each.value for each in steps) / length.value, [*steps, length]
    return None


def _share_of_data(facts: Facts) -> tuple[float, list[Fact]] | None:
    """The share of the data that the whole training saw, if that is less than all."""
    said = facts.says(
        r"\b(\d{1,2}(?:\.\d+)?) ?% of (?:the|its|our) (?:whole |full )?(?:corpus|collection|data\w*|tokens)"
    )
    tokens, corpus = facts.named("tokens"), {each.value: each for each in facts.named("corpus_tokens")}
    if len(corpus) == 1 and tokens:
        most = max(tokens, key=lambda each: each.value)
        (whole,) = corpus.values()
        if most.figure.loose.high < whole.figure.loose.low:
            return most.value / whole.value, [most, whole]
    if said and re.search(
        r"\b(?:no|not?|never|nothing|none)\b[^.]{0,40}\b(?:twice|second time|again|repeat\w*)", facts.text
    ):
        return float(said[1]) / 100, []
    return None


def _no_overfit(facts: Facts, sentence: Sentence, quoted: str, *, has_validation: bool) -> Iterator[Finding]:
    is_argued = bool(_ARGUED.search(sentence.text))
    if not has_validation or is_argued:
        is_argued = is_argued or bool(
            re.search(r"\btrain\w*[ -](?:loss|accuracy|perplexity|error)", sentence.text, re.I)
        )
        yield note(
            CONTRADICTS if is_argued else UNSETTLED,
            "absent data",
            sentence.line,
            quoted,
            "training figures are good in overfitting too, and no held-out one is given for it"
            if is_argued
            else "the document has no validation figure to tell it by",
            fits="a loss on held-out rows beside the training loss",
        )
        return
    for table in facts.tables:
        train, held = column(table, "train_loss"), column(table, "validation_loss")
        if train is None or held is None:
            continue
        rows = [
            (a.figure.value, b.figure, b.line)
            for row in table.rows
            if (a := cell_at(row, train)) and (b := cell_at(row, held)) and a.figure and b.figure
        ]
        if len(rows) < 3:
            continue
        best = min(range(len(rows)), key=lambda at: rows[at][1].value)
        last = len(rows) - 1
        if (
            best < last
            and rows[last][1].tight.low > rows[best][1].tight.high
            and rows[last][0] < rows[best][0]
        ):
            gain = rows[last][1].value / rows[best][1].value - 1
            if gain > 0.03:
                why = (
                    f"validation loss rises from {rows[best][1].text} (line {rows[best][2]}) to "
                    f"{rows[last][1].text} while training loss falls"
                )
                yield note(
                    CONTRADICTS,
                    "absent data",
                    sentence.line,
                    quoted,
                    why,
                    fits="overfitting after the best evaluation",
                )
        else:
            yield note(
                CONFIRMED,
                "absent data",
                sentence.line,
                quoted,
                "validation loss falls with the training loss to the end",
            )


def _steady(facts: Facts, sentence: Sentence) -> Iterator[Finding]:
    lower = sentence.text.lower()
    wanted = [
        name
        for name, words in (
            ("validation_loss", r"\b(?:val\w*|eval\w*|held-?out|dev) loss"),
            ("train_loss", r"\btrain\w* loss"),
            ("perplexity", "perplexity"),
            ("f1", r"\bf1\b"),
            ("accuracy", "accuracy"),
        )
        if re.search(words, lower)
    ]
    if not wanted and re.search(r"\bloss\b", lower):
        wanted = ["loss"]
    for name in wanted:
        found = [
            (table, place)
            for table in facts.tables
            if (place := column(table, name)) is not None and len(table.rows) > 2
        ]
        if len(found) != 1:
            continue
        table, place = found[0]
        cells = [cell for row in table.rows if (cell := cell_at(row, place)) and cell.figure]
        sign = -1.0 if name in SCORES else 1.0
        for first, second in itertools.pairwise(cells):
            assert first.figure and second.figure
            if (second.figure.value - first.figure.value) * sign > 0 and not first.figure.tight.meets(
                second.figure.tight
            ):
                why = (
                    f"{name.replace('_', ' ')} goes from {first.figure.text} to "
                    f"{second.figure.text} at line {second.line}"
                )
                yield note(
                    CONTRADICTS,
                    "absent data",
                    sentence.line,
                    (_STEADY.search(sentence.text) or [""])[0],
                    why,
                    fits="a course with a setback",
                )
                break
        else:
            yield note(
                CONFIRMED,
                "absent data",
                sentence.line,
                (_STEADY.search(sentence.text) or [""])[0],
                f"{name.replace('_', ' ')} never turns back",
            )
