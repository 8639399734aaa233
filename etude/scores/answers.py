"""Figures from answers and their references; over all of them at once, never a mean of means.

An answer is a text without its end token. Rates are shares from 0 to 1; a rate over nothing is NaN.
"""

import ast
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from etude.scores.order import sort_key

_FENCED = re.compile(r"```[^\n`]*\n(.*?)\n?```", re.DOTALL)
# What begins when a model goes on after its answer, playing the other side.
_NEW_TURN = re.compile(
    r"^\s*(#{2,} ?(instruction|input|response|question|answer)\b"
    r"|(human|user|assistant|instruction|question) ?:)"
    r"|<\|(im_start|user|assistant|start_header_id)\|?|\[/?INST\]",
    re.IGNORECASE | re.MULTILINE,
)
_LONGEST_WORD = 32  # of 6,552 answers of CodeAlpaca, 10 have a longer word or gap


@dataclass(frozen=True)
class Answer:
    """A text, its reference, whether it ended by itself, and the capability that its row is a case of."""

    text: str
    reference: str
    stopped: bool
    capability: str | None = None


def score(answers: Sequence[Answer]) -> dict[str, float]:
    """Every figure by name, and `figure/capability` where there is more than one capability."""
    figures = {name: figure(answers) for name, figure in FIGURES.items()}
    kinds = sorted({answer.capability for answer in answers if answer.capability is not None}, key=sort_key)
    for kind in kinds if len(kinds) > 1 else ():
        mine = [answer for answer in answers if answer.capability == kind]
        figures |= {f"{name}/{kind}": FIGURES[name](mine) for name in ("exact_match", "bleu", "parse_rate")}
    return figures


def repetition(text: str, n: int = 4) -> float:
    """Share of a text's n-grams that were there before; 0 for a text of fewer words.

    The parts of an n-gram are words and single marks. Of a word, or a gap, of more than 32 characters each
    character is a part: else a word without end would have no n-gram, and so no repetition.
    """
    grams = _grams(text, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def distinct(texts: Sequence[str], n: int) -> float:
    """Different n-grams as a share of all in the texts, as in `repetition`. Source: arXiv:1510.03055."""
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else math.nan


def goes_on(text: str) -> bool:
    """True if another turn begins within an answer: it had ended, and the model did not stop."""
    return _NEW_TURN.search(text) is not None


def trails(answer: Answer) -> bool:
    """True if an answer has another turn, or words after its code, where its reference has none."""
    if goes_on(answer.text) and not goes_on(answer.reference):
        return True
    after = [
        _FENCED.split(text)[-1].strip() for text in (answer.text, answer.reference) if _FENCED.search(text)
    ]
    return len(after) == 2 and bool(after[0]) and not after[1]


def is_exact(text: str, reference: str) -> bool:
    """True if two texts are the same but for white space at line ends and around them."""
    return _trimmed(text) == _trimmed(reference)


def bleu(answers: Sequence[Answer]) -> float:
    """Corpus BLEU from 0 to 100, by sacrebleu. Source: arXiv:1804.08771."""
    from sacrebleu.metrics.bleu import BLEU

    return _corpus_score(BLEU(), answers)


def chrf(answers: Sequence[Answer]) -> float:
    """Corpus chrF from 0 to 100, by sacrebleu. Source: doi:10.18653/v1/W15-3049."""
    from sacrebleu.metrics.chrf import CHRF

    return _corpus_score(CHRF(), answers)


def edit_similarity(text: str, reference: str) -> float:
    """Share of the longer text that need not be edited: 1 - distance / length; 1 for two empty texts."""
    return 1 - edit_distance(text, reference) / max(len(text), len(reference), 1)


def edit_distance(text: str, reference: str) -> int:
    """Least insertions, deletions and substitutions of characters that turn one text into the other.

    The columns of the usual table as bits of whole numbers. Source: doi:10.1145/316542.316550.
    """
    if not text:
        return len(reference)
    where: dict[str, int] = {}
    for index, character in enumerate(text):
        where[character] = where.get(character, 0) | 1 << index
    full, last = (1 << len(text)) - 1, 1 << (len(text) - 1)
    up, down, distance = full, 0, len(text)  # rows of a column that are one more, one less than the row above
    for character in reference:
        same = where.get(character, 0)
        diagonal = (((same & up) + up) ^ up) | same | down
        right, left = down | (full & ~(diagonal | up)), diagonal & up  # the same against the column before
        distance += bool(right & last) - bool(left & last)
        right, left = right << 1 | 1, left << 1
        up, down = full & (left | ~(diagonal | right)), full & right & diagonal
    return distance


def format_kept(answers: Sequence[Answer]) -> float:
    """Share of answers that have the format of their reference: a closed fence, or code that parses."""
    kept = []
    for answer in answers:
        if _FENCED.search(answer.reference):
            kept.append(_FENCED.search(answer.text) is not None)
        elif parses(answer.reference):
            kept.append("```" not in answer.text and parses(answer.text))
    return _share(kept)


def parse_rate(answers: Sequence[Answer]) -> float:
    """Share of answers whose Python parses, where the reference has Python that does."""
    return _share([parses(answer.text) for answer in answers if parses(answer.reference)])


def parses(text: str) -> bool:
    """True if a text, or the code in its fences, is Python beyond expressions of names and literals."""
    fenced = _FENCED.findall(text)
    try:
        with warnings.catch_warnings(action="ignore"):  # odd escapes in strings are not our code
            body = ast.parse("\n".join(fenced) if fenced else text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    plain = (ast.Name, ast.Constant, ast.Tuple, ast.BinOp, ast.UnaryOp)
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, plain)) for node in body)


# sacrebleu's signatures of `bleu` and `chrf`, before its version.
BLEU_SETTINGS = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp"
CHRF_SETTINGS = "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no"

# Each over all answers.
FIGURES: dict[str, Callable[[Sequence[Answer]], float]] = {
    "stop_rate": lambda answers: _share([answer.stopped for answer in answers]),
    "repetition": lambda answers: _mean([repetition(answer.text) for answer in answers]),
    "distinct_2": lambda answers: distinct([answer.text for answer in answers], 2),
    "trailing_text": lambda answers: _share([trails(answer) for answer in answers]),
    "format_kept": format_kept,
    "exact_match": lambda answers: _share([is_exact(answer.text, answer.reference) for answer in answers]),
    "bleu": bleu,
    "chrf": chrf,
    "edit_similarity": lambda answers: _mean([edit_similarity(a.text, a.reference) for a in answers]),
    "parse_rate": parse_rate,
}


def _corpus_score(metric: Any, answers: Sequence[Answer]) -> float:
    if not answers:
        return math.nan
    texts, references = [answer.text for answer in answers], [answer.reference for answer in answers]
    return float(metric.corpus_score(texts, [references]).score)


def _grams(text: str, n: int) -> list[tuple[str, ...]]:
    parts: list[str] = []
    for run in re.findall(r"\w+|\s+|[^\w\s]", text):
        if len(run) > _LONGEST_WORD:
            parts += run
        elif not run.isspace():
            parts.append(run)
    return list(zip(*(parts[start:] for start in range(n))))


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else math.nan


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
