"""Kinds, depths and names of the tokens of a text, as a programmer sees them; the text need not parse.

One small lexer reads Python and languages with curly braces, and any other text by the same rules. A token
has the code of the lexeme in it that says most, by character offsets, whatever the tokenizer.
"""

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Code = npt.NDArray[np.uint16]

# Columns of the code of a token.
KIND, BRACKETS, INDENTATION, IDENTIFIER = range(4)
# A token that holds several kinds has the last of them: `.name` is an identifier, `):` a bracket.
KINDS = ("special", "space", "operator", "bracket", "comment", "string", "number", "keyword", "identifier")
LEVELS = 16  # of depth, the last of which stands for all that is deeper
_SPACE, _BRACKET, _KEYWORD, _IDENTIFIER = map(KINDS.index, ("space", "bracket", "keyword", "identifier"))
_TAB = 4

# Of Python, C, C++, C#, Go, Java, JavaScript, PHP, Rust, TypeScript; no words that others use as names.
_KEYWORDS = frozenset(
    """and as assert async await break case catch class const continue def default defer del delete do elif
    else enum except export extends extern final finally fn for foreach from func function global go goto if
    impl implements import in instanceof interface internal is lambda let match mod mut namespace new
    nonlocal not operator or override package pass private protected pub public raise return sizeof static
    struct super switch synchronized template this throw throws trait try typedef typename union unsafe use
    using var virtual volatile where while with yield bool boolean byte char double float int long short
    signed unsigned void False None True false nil null nullptr true undefined""".split()  # noqa: SIM905
)
_LEXEMES = r"""
    (?P<space>\s+)
  | (?P<comment>{comment}|/\*.*?(?:\*/|\Z))
  | (?P<string>(?<!\w)[rRbBfFuUL@$]{{0,2}}
        (?:\'{{3}}.*?(?:\'{{3}}|\Z)|"{{3}}.*?(?:"{{3}}|\Z)
          |"(?:[^"\\\n]|\\.)*+"|\'(?:[^\'\\\n]|\\.)*+\'|`[^`]*`))
  | (?P<number>\d(?:[eEpP][+-]\d|\w|\.(?=\d))*)
  | (?P<identifier>(?:[^\W\d]|\$)[\w$]*)
  | (?P<bracket>[()\[\]{{}}])
  | (?P<operator>.)
"""
# `//` divides in Python and `#include` is no comment in C: the ends of the lines decide between them.
_HASH, _SLASHES = (
    re.compile(_LEXEMES.format(comment=comment), re.VERBOSE | re.DOTALL)
    for comment in (r"\#[^\n]*", r"//[^\n]*")
)
_CURLY_ENDS, _COLON_ENDS = (re.compile(rf"[{end}][ \t\r]*$", re.MULTILINE) for end in (";{}", ":"))


def code_of(texts: Sequence[str], spans: Sequence[tuple[int, int, int]]) -> Code:
    """The code (n, 4) of the tokens of a sample of one text or several.

    Its columns are kind, depth of brackets, depth of indentation, and the number of the identifier: from 1 in
    order of appearance, the same for the same spelling, 0 for none. spans: the text of each token, -1 for a
    special token, and the characters where it begins and ends.
    """
    places = np.array(spans, dtype=np.int64).reshape(-1, 3)
    code = np.zeros((len(places), 4), dtype=np.uint16)
    numbers: dict[str, int] = {}
    for index, text in enumerate(texts):
        mine = np.flatnonzero(places[:, 0] == index)
        begins, ends = places[mine, 1], places[mine, 2]
        starts, lexemes = _lex(text, int(ends.max(initial=0)), numbers)
        first = starts.searchsorted(begins, side="right") - 1
        last = np.maximum(starts.searchsorted(ends, side="left") - 1, first)
        best = first
        for step in range(1, int((last - first).max(initial=0)) + 1):
            other = np.minimum(first + step, last)
            best = np.where(lexemes[other, KIND] > lexemes[best, KIND], other, best)
        code[mine] = lexemes[best]
        code[mine[begins >= ends], KIND] = _SPACE  # some tokenizers leave white space out of where tokens are
        code[mine[begins >= ends], IDENTIFIER] = 0
    return code


def kinds_of(text: str) -> npt.NDArray[np.uint8]:
    """The kind of each character of a text, (n,)."""
    starts, lexemes = _lex(text, len(text), {})
    return np.repeat(lexemes[:, KIND].astype(np.uint8), np.diff(starts, append=len(text)))


def _lex(text: str, end: int, numbers: dict[str, int]) -> tuple[npt.NDArray[np.int64], Code]:
    """The beginnings (m,) of the lexemes that begin before `end`, and their code (m, 4)."""
    curly, colon = (sum(1 for _ in ends.finditer(text)) for ends in (_CURLY_ENDS, _COLON_ENDS))
    starts, rows = [0], [(_SPACE, 0, 0, 0)]
    brackets, widths = 0, [_width(text[: len(text) - len(text.lstrip(" \t"))])]
    for match in (_SLASHES if curly > colon else _HASH).finditer(text):
        if match.start() >= end:
            break
        lexeme, name = match.group(), match.lastgroup
        assert name is not None
        kind, number, depth = KINDS.index(name), 0, brackets
        if kind == _SPACE and "\n" in lexeme:
            width = _width(lexeme.rpartition("\n")[2])
            while widths and widths[-1] > width:
                widths.pop()
            if not widths or widths[-1] < width:
                widths.append(width)
        elif kind == _IDENTIFIER and lexeme in _KEYWORDS:
            kind = _KEYWORD
        elif kind == _IDENTIFIER:
            number = numbers.setdefault(lexeme, len(numbers) + 1)
        elif kind == _BRACKET:  # a pair is as deep as what is around it
            brackets = brackets + 1 if lexeme in "([{" else max(brackets - 1, 0)
            depth = min(depth, brackets)
        row = kind, min(depth, LEVELS - 1), min(len(widths), LEVELS) - 1, number if number < 2**16 else 0
        starts.append(match.start())
        rows.append(row)
    return np.array(starts), np.array(rows, dtype=np.uint16)


def _width(indentation: str) -> int:
    return len(indentation.expandtabs(_TAB))
