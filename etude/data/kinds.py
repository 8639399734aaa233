"""The kind as code of each token of prepared texts, one byte a token, so that a loss may weigh it.

It is found from the written tokens, which tell their bytes, once their documents, answers and targets are
known. So every text is read as a whole, also for samples that begin in the middle of it: of a conversation
each answer by itself, of a pair the target; nothing else of these is code. A very long text is read as
several pieces.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from etude.data.lexer import KINDS, kinds_of
from etude.data.samples.sample import Flags, Ints

_PIECE_TOKENS = 1 << 20
_NO_CODE = KINDS.index("special")
_FENCE = re.compile(r"^[ \t]*```[^\n]*\n?", re.MULTILINE)


def find_kinds(
    tokens: npt.NDArray[np.integer], spans: Ints, are_answers: Flags, spellings: Sequence[bytes]
) -> Iterator[bytes]:
    """The kinds, as uint8, of all tokens, in pieces; what is in no span is special.

    spans: (m, 2) where texts begin and end in the tokens, ascending. are_answers: (m,) which of them may have
    code fences; where there are any, only what they hold is code. spellings: the bytes of each id.
    """
    sizes = np.array([len(each) for each in spellings])
    done = 0
    for (begin, end), is_answer in zip(spans.tolist(), are_answers.tolist()):
        yield bytes(begin - done)
        for low in range(begin, end, _PIECE_TOKENS):
            ids = tokens[low : min(low + _PIECE_TOKENS, end)]
            yield _of_tokens(b"".join([spellings[token] for token in ids.tolist()]), sizes[ids], is_answer)
        done = end
    yield bytes(len(tokens) - done)


def _of_tokens(text: bytes, sizes: Ints, is_answer: bool) -> bytes:
    """The kinds of the tokens of a text, `sizes` bytes each: of what is in a token, that which says most."""
    characters = text.decode("utf-8", "surrogateescape")  # a byte that is no UTF-8 is a character of its own
    kinds = _of_answer(characters) if is_answer else kinds_of(characters)
    points = np.frombuffer(characters.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    widths = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000)
    widths[(points >= 0xDC80) & (points <= 0xDCFF)] = 1
    of_bytes = np.repeat(kinds, widths)
    assert len(of_bytes) == len(text)
    of_tokens = np.full(len(sizes), _NO_CODE, dtype=np.uint8)
    if len(text):
        starts = (np.cumsum(sizes) - sizes)[sizes > 0]
        of_tokens[sizes > 0] = np.maximum.reduceat(of_bytes, starts)
    return of_tokens.tobytes()


def _of_answer(text: str) -> npt.NDArray[np.uint8]:
    """Every second of the parts between fences is code; all of it if there is no fence."""
    fences = list(_FENCE.finditer(text))
    if not fences:
        return kinds_of(text)
    kinds = np.full(len(text), _NO_CODE, dtype=np.uint8)
    ends = [fence.start() for fence in fences[1:]] + [len(text)]
    for fence, end in list(zip(fences, ends))[::2]:
        kinds[fence.end() : end] = kinds_of(text[fence.end() : end])
    return kinds
