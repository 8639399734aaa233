"""Answers that can be read in their prompts: as they are, escaped, in comments, below numbers of lines."""

import html
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import takewhile

from etude.data.corpus import Corpus
from etude.data.examples import Example
from etude.records.events import Finding
from etude.text import one_line, plural, verb

_ROWS, _OTHERS = 256, 4  # rows looked at, and prompts of others for each
_SOME, _MANY = 0.2, 0.5
# An answer may be an extract from its prompt, or one of several that it offers. A copy makes up a good part
# of what the prompt has for itself, or, in nearly all rows, is the last of it but for what all end with.
_LEAST_ANSWER, _LEAST_SHARE = 5, 0.3  # words and marks, and share
_RUN = 3  # words and marks in a row, by which prompts are told apart
_LEAST_LAST, _NEARLY_ALL = 8, 0.8  # characters, and rows
_ESCAPE = re.compile(r"\\[nrt]")
_MARGIN = re.compile(r"^[ \t]*(?:\d+[.:|)]?(?=\s)|#|//|--|\*|>|\+)", re.M)
_APART = "\u0e00-\u0eff\u3040-\u9fff\uac00-\ud7af"  # letters of texts without spaces between words
_WORD = re.compile(rf"[{_APART}]|[^\W{_APART}]+|[^\w\s\"'`\\]")


def find_answers(corpus: Corpus) -> Iterator[Finding]:
    """A finding if many of some answers stand in their own prompts, and not in those of other rows.

    Whole answers, by their words and marks: a task that changes one mark of a text has most of it there, too.
    """
    examples = corpus.examples_of.get("train", ())
    count = min(len(examples), _ROWS)
    shown = [examples[index * len(examples) // count] for index in range(count)]
    held = _held(shown)
    copied, last = [each for each, share in zip(shown, held) if share > _LEAST_SHARE], _last(shown)
    if len(last) > max(_NEARLY_ALL * count, len(copied)):
        copied = last
    if copied and len(copied) > _SOME * count:
        yield Finding(
            0, "answers stand in their prompts", _said(copied, count),
            "leave the answer out of the fields that make the prompt",
            window=[0, 0], causes=["a field of the answer that is part of the prompt too"],
            kind="answer_in_prompt", confidence=0.9, decided_by="the prepared samples",
        )  # fmt: skip
    elif len(extracts := [each for each, share in zip(shown, held) if share]) > _MANY * count:
        yield Finding(
            0, "answers are extracts from their prompts", _said(extracts, count),
            "nothing is to be mended where the task is to find a part of a text",
            severity="info", window=[0, 0], causes=["a task that asks for a part of what it gives"],
            kind="answer_in_prompt", confidence=0.5, decided_by="the prepared samples",
        )  # fmt: skip


def _said(some: Sequence[Example], count: int) -> str:
    return (
        f"{len(some):,} of {plural(count, 'row')} {verb(len(some), 'have')} the whole answer in the prompt, "
        f"as {one_line(some[0].reference, 60)!r}"
    )


def _held(shown: Sequence[Example]) -> list[float]:
    """The share of an answer of what its prompt has and most others have not; 0 if it is not there alone."""
    prompts = [_words(each.prompt) for each in shown]
    texts = [f" {' '.join(each)} " for each in prompts]
    runs = [set(zip(*(words[by:] for by in range(_RUN)))) for words in prompts]
    times = Counter(run for each in runs for run in each)
    common = {run for run, number in times.items() if number > max(len(shown) / 2, 1)}
    held = []
    for place, each in enumerate(shown):
        answer = _words(each.reference)
        while answer and not answer[-1].isalnum():  # a last mark is soon lost
            answer.pop()
        text = f" {' '.join(answer)} "
        others = {(place + len(shown) * by // (_OTHERS + 1)) % len(shown) for by in range(1, _OTHERS + 1)}
        is_here = len(answer) >= _LEAST_ANSWER and text in texts[place]
        if not is_here or any(text in texts[other] for other in others - {place}):
            held.append(0.0)
            continue
        mine = set(zip(*(answer[by:] for by in range(_RUN))))
        held.append(max(len(mine), 1) / max(len(runs[place] - common | mine), 1))
    return held


def _words(text: str) -> list[str]:
    """The words and marks of a text, without escapes, quotes, and what stands in margins of lines."""
    plain = _ESCAPE.sub("\n", html.unescape(text))
    return _WORD.findall(_MARGIN.sub("", plain).casefold())


def _last(shown: Sequence[Example]) -> list[Example]:
    """The rows whose answer stands on lines of its own in its prompt, and ends there or later."""
    ends = zip(*(reversed(each.prompt) for each in shown)) if len(shown) > 1 else ()
    end = sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, ends))
    return [each for each in shown if _is_last(each, len(each.prompt) - end)]


def _is_last(example: Example, end: int) -> bool:
    prompt, answer = example.prompt, example.reference.strip()
    start = prompt.rfind(answer)
    is_line = prompt[:start].rstrip(" \t").endswith("\n")
    return len(answer) >= _LEAST_LAST and start > 0 and is_line and start + len(answer) >= end
