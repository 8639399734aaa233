"""What tokens are as code: against depths by hand, against Python's own lexer, and on input that
is no code."""

import io
import itertools
import keyword
import random
import tokenize
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.data.bpe import train_tokenizer
from etude.data.lexer import BRACKETS, IDENTIFIER, INDENTATION, KIND, KINDS, LEVELS, Code, code_of
from tests.conftest import SHARED

PYTHON = '''def top(a, b):
    # the (sum
    if a // b == "x(":
        return self.a[b[0]]
    """Ends ( here"""
    return top
'''
CURLY = """#include <x.h>
static int f(int *a) { // don't (
    for (;;) { if (a[g(1)] == '{') a = "\\"}"; /* { */ }
    return 0x1Fu;
}
"""


def by_character(text: str) -> Code:
    return code_of([text], [(0, place, place + 1) for place in range(len(text))])


def kinds_of(text: str) -> list[str]:
    return [KINDS[kind] for kind in by_character(text)[:, KIND]]


def at(text: str, part: str, column: int, nth: int = 0) -> int:
    place = -1
    for _ in range(nth + 1):
        place = text.index(part, place + 1)
    return int(by_character(text)[place, column])


@pytest.mark.parametrize(
    ("text", "part", "kind"),
    [
        (PYTHON, "def", "keyword"), (PYTHON, "top", "identifier"), (PYTHON, "the (", "comment"),
        (PYTHON, "//", "operator"), (PYTHON, "x(", "string"), (PYTHON, "Ends", "string"),
        (PYTHON, "0", "number"), (PYTHON, "[", "bracket"), (PYTHON, "\n", "space"),
        (CURLY, "include", "identifier"), (CURLY, "don't", "comment"), (CURLY, "static", "keyword"),
        (CURLY, "{'", "string"), (CURLY, "}\"", "string"), (CURLY, "{ */", "comment"),
        (CURLY, "1Fu", "number"), (CURLY, "return", "keyword"), ("x = r'a\\'b' + y", "b'", "string"),
        ("isn't it 'a'", "t it", "identifier"), ("`a\nb` c", "b", "string"), ("f'{x}'", "x", "string"),
        ("1.5e-3 + .5", "-3", "number"),
    ],
)  # fmt: skip
def test_kinds_are_those_a_reader_sees(text: str, part: str, kind: str) -> None:
    assert KINDS[at(text, part, KIND)] == kind


@pytest.mark.parametrize(
    ("text", "part", "nth", "depth"),
    [
        (PYTHON, "(", 0, 0), (PYTHON, "a", 0, 1), (PYTHON, ")", 0, 0), (PYTHON, "return", 0, 0),
        (PYTHON, "[", 0, 0), (PYTHON, "b", 2, 1), (PYTHON, "0", 0, 2), (PYTHON, "]", 0, 1),
        (PYTHON, "]", 1, 0), (PYTHON, "return", 1, 0), (CURLY, "for", 0, 1), (CURLY, "if", 0, 2),
        (CURLY, "1)", 0, 5), (CURLY, "return", 0, 1), ("))) a ( b", "a", 0, 0), ("))) a ( b", "b", 0, 1),
        ("(" * 99 + "a", "a", 0, LEVELS - 1),
    ],
)  # fmt: skip
def test_depth_of_brackets_is_what_is_open_around(text: str, part: str, nth: int, depth: int) -> None:
    assert at(text, part, BRACKETS, nth) == depth


def test_depth_of_indentation_is_that_of_the_line() -> None:
    text = "  a\n     b\n       c\n\n     d\n\te\n  f\n"
    assert [at(text, name, INDENTATION) for name in "abcdef"] == [0, 1, 2, 1, 1, 0]
    deep = "".join(" " * level + f"v{level}\n" for level in range(40))
    assert [at(deep, f"v{level}\n", INDENTATION) for level in range(40)] == [
        min(n, LEVELS - 1) for n in range(40)
    ]


def test_a_token_over_several_lexemes_is_what_says_most() -> None:
    text = "x.name):\n  # y"
    code = code_of([text], [(0, 1, 6), (0, 6, 11), (0, 6, len(text)), (-1, 0, 0), (0, 6, 6)])
    assert [KINDS[kind] for kind in code[:, KIND]] == ["identifier", "bracket", "comment", "special", "space"]
    assert code[:, IDENTIFIER].tolist() == [2, 0, 0, 0, 0]


def test_the_numbers_of_a_pair_are_common() -> None:
    code = code_of(
        ["find left", "def left(find): pass"], [(0, 0, 4), (0, 5, 9), (1, 4, 8), (1, 9, 13), (1, 14, 15)]
    )
    assert code[:, IDENTIFIER].tolist() == [1, 2, 2, 1, 0]


@given(st.lists(st.sampled_from(["left", "Right", "a1", "_x", "é", "left2"]), min_size=1), st.data())
def test_an_identifier_has_one_number_however_it_is_cut(names: list[str], data: st.DataObject) -> None:
    text = " + ".join(names)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))) | {0, len(text)})
    spans = [(0, begin, end) for begin, end in itertools.pairwise(cuts)]
    numbers = dict(zip(dict.fromkeys(names), range(1, 99)))
    starts = [sum(len(other) + 3 for other in names[:index]) for index in range(len(names))]
    for (_, begin, end), row in zip(spans, code_of([text], spans)):
        touched = [name for name, start in zip(names, starts) if begin < start + len(name) and start < end]
        assert row[IDENTIFIER] == (numbers[touched[0]] if touched else 0)


@given(
    st.lists(st.sampled_from([*"ab1 \n\t\"'`#/*(){}[];:\\.é\0😀\ud7ff$@", '"""', "def "]), max_size=60).map(
        "".join
    )
)
def test_any_text_gives_every_token_one_kind(text: str) -> None:
    code = by_character(text)
    assert code.shape == (len(text), 4) and code.dtype == np.uint16
    assert (code[:, KIND] > 0).all() and (code[:, KIND] < len(KINDS)).all()
    assert (code[:, [BRACKETS, INDENTATION]] < LEVELS).all()
    assert ((code[:, IDENTIFIER] > 0) == (code[:, KIND] == KINDS.index("identifier"))).all()
    beyond = code_of([text], [(0, 0, 10**6), (0, 10**6, 10**6 + 1), (-1, 0, 0)])
    assert beyond.shape == (3, 4) and not beyond[2].any()


def test_much_of_one_sign_takes_no_time_or_stack() -> None:
    for sign in "\"'`(#/*\\ \n$1a":
        assert code_of([sign * 100_000], [(0, 99_999, 100_000)]).shape == (1, 4)
    assert code_of(["/*" + "*" * 100_000, '"""' + '"' * 100_001], [(1, 50_000, 50_001)]).shape == (1, 4)


def test_python_is_read_as_python_reads_it() -> None:
    """Names, keywords, numbers, strings and comments of this project against the lexer of Python."""
    draw = random.Random(2)
    files = sorted((Path(__file__).parents[2] / "etude").rglob("*.py"))
    for path in draw.sample(files, 12):
        text = path.read_text()
        starts = np.cumsum([0] + [len(line) for line in text.splitlines(keepends=True)])
        kinds, wrong, all_of = kinds_of(text), 0, 0
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            expected = {tokenize.NAME: "identifier", tokenize.NUMBER: "number", tokenize.STRING: "string",
                        tokenize.COMMENT: "comment"}.get(token.type)  # fmt: skip
            if expected is None or (token.type == tokenize.NAME and token.string in keyword.softkwlist):
                continue
            if token.type == tokenize.NAME and keyword.iskeyword(token.string):
                expected = "keyword"
            place, all_of = int(starts[token.start[0] - 1]) + token.start[1], all_of + 1
            wrong += kinds[place] != expected and not (expected == "identifier" and kinds[place] == "keyword")
        assert wrong <= 0.01 * all_of, (path, wrong, all_of)


@pytest.mark.parametrize("name", ["own", "roberta"])
def test_tokens_of_a_tokenizer_get_what_stands_at_their_place(name: str) -> None:
    from etude.data.tokenizer_files import load_tokenizer
    from etude.recipe.model import Tokenizer

    folder = SHARED / "data" / "tokenizers" / name
    if name != "own" and not folder.exists():
        pytest.skip("needs ../shared")
    if name == "own":
        tokenizer = train_tokenizer([PYTHON] * 9, 300)
    else:
        tokenizer = load_tokenizer(Tokenizer.model_validate({"from": str(folder)}))
    ((ids, second, _, spans),) = tokenizer.encode_joined([("left", PYTHON)], 200, with_spans=True)
    assert spans is not None and len(spans) == len(ids)
    code = code_of(["left", PYTHON], spans)
    special = code[:, KIND] == 0
    assert special[0] and special[-1] and special[second - 1] and special.sum() <= 4
    assert code[1, IDENTIFIER] == 1
    plain = by_character("left\n" + PYTHON)[5:]
    for row, (text, begin, end) in zip(code, spans):
        if text == 1 and begin < end:
            inside = plain[begin:end]
            assert row[KIND] == inside[:, KIND].max() and row[IDENTIFIER] in inside[:, IDENTIFIER]
