"""Foreign text in Markdown, as a parser of CommonMark and one of YAML read it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from etude.report.markdown import code, fence, prose, quoted, render, table
from etude.text import clean

READER = MarkdownIt("commonmark").enable("table")
TEXTS = st.text(st.sampled_from("ab `|*_<>[]()#~$&!\\\n\t1.-\x1b\u202e"), min_size=1, max_size=30)


def cells(markdown: str) -> list[Any]:
    """The parsed content of each cell of a table."""
    return [token.children for token in READER.parse(markdown) if token.type == "inline"]


def on_one_line(text: str) -> str:
    return " ".join(clean(text).split())


@given(TEXTS.filter(lambda text: text.split() != []))
def test_code_in_a_table_is_one_span_with_the_text(text: str) -> None:
    _, _, (span,), after = cells(table(("a", "b"), [(code(text), "c")]))
    assert (span.type, span.content) == ("code_inline", on_one_line(text))
    assert after[0].content == "c"


@given(TEXTS)
def test_prose_in_a_table_is_nothing_but_text(text: str) -> None:
    *_, parsed, after = cells(table(("a", "b"), [(prose(text), "c")]))
    assert {token.type for token in parsed} <= {"text", "text_special"}
    assert "".join(token.content for token in parsed) == on_one_line(text) and after[0].content == "c"


@given(TEXTS)
def test_a_fence_is_one_block_with_the_text(text: str) -> None:
    (block,) = READER.parse(fence(text))
    assert (block.type, block.content) == ("fence", clean(text) + "\n")


@pytest.mark.parametrize("value", ["a: b # c", '"', "- x", "no", ["a, b", "]"], 10, None, "\u2028\x7f"])
def test_a_quoted_value_is_read_back_by_yaml(value: Any) -> None:
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(f"key: {quoted(value)}") == {
        "key": clean(value) if isinstance(value, str) else value
    }


def test_a_template_without_one_of_its_sections_is_no_report() -> None:
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError, match="front_matter"):
        render("card.md.jinja", {"title": "x"})
