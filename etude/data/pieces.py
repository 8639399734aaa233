"""Long texts in pieces, so that a tokenizer needs little memory for them."""

import itertools
import re
from collections.abc import Iterator

import numpy as np

from etude.data.tokenize import Tokenizer
from etude.errors import InputError

# A token takes up to 300 bytes of memory while its text is read, and a byte of text may be one.
BATCH_BYTES = _LONGEST_STRETCH = 3 << 19
_PIECE_CHARACTERS = 1 << 17
_BORDERS = (re.compile(r"\S\r?\n(?=\S)"), re.compile(r"\S(?= \w)"))
_BORDER_TRIES, _BORDER_WINDOW = 8, 200


def cut_text(
    text: str, tokenizer: Tokenizer, piece_characters: int = _PIECE_CHARACTERS, *, name: str = "a text"
) -> Iterator[tuple[str, bool]]:
    """A text in pieces whose ids, end to end, are those of the whole; each with True if it is the last.

    A cut lies after a line end or before a word, where tokenizers that split words have a border; each is
    tried on the text around it.

    Raises: InputError if there is none in a stretch of 1.5 MiB.
    """
    start, sought = 0, 0
    while len(text) - start > piece_characters:
        window = (text, max(start + piece_characters // 2, sought), max(start, sought) + piece_characters)
        tries = (itertools.islice(border.finditer(*window), _BORDER_TRIES) for border in _BORDERS)
        ends = (match.end() for match in itertools.chain.from_iterable(tries))
        cut = next((end for end in ends if _is_border(text, end, tokenizer)), None)
        if cut is not None:
            yield text[start:cut], False
            start, sought = cut, 0
            continue
        sought = window[2]
        if sought >= len(text):
            break
        if len(text[start:sought].encode()) > _LONGEST_STRETCH:
            raise _no_border(name)
    yield text[start:], True


def check_stretches(text: str, name: str) -> None:
    """Refuse a text with a stretch without white space that is too long as one word. Raises: InputError."""
    is_long = 4 * len(text) > _LONGEST_STRETCH and len(text.encode()) > _LONGEST_STRETCH
    if is_long and any(len(word.encode()) > _LONGEST_STRETCH for word in text.split()):
        raise _no_border(name)


def _no_border(name: str) -> InputError:
    return InputError(
        f"{name} has over {_LONGEST_STRETCH:,} bytes in a stretch without a place to cut it, such as a space "
        'before a word; break it up, or leave it out with data.clean.minified = "drop"'
    )


def _is_border(text: str, place: int, tokenizer: Tokenizer) -> bool:
    left, right = text[place - _BORDER_WINDOW : place], text[place : place + _BORDER_WINDOW]
    whole, first, second = tokenizer.encode_batch([left + right, left, right])
    return np.array_equal(whole, np.concatenate([first, second]))
