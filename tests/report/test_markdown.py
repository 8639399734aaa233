"""Foreign text in Markdown, as a parser of CommonMark and one of YAML read it."""

import re
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


@pytest.mark.parametrize(
    "text",
    ["- a", "+ a", "* a", "1. a", "12) a", "-", "1.", "---", "===", "=", "# a", "> a", "[ ] a", "https://a.example/b",
     "see http://a.example", "WWW.a.example", "www.a.example", "ftp://a.example"],
)  # fmt: skip
def test_prose_at_the_start_of_a_line_or_item_is_nothing_but_text(text: str) -> None:
    for block, tags in (
        (prose(text), ["p"]),
        (f"- {prose(text)}", ["ul", "li"]),
        (f"a\n{prose(text)}", ["p"]),
    ):
        tokens = MarkdownIt("commonmark", {"linkify": False}).enable("table").parse(block)
        opened = [token.tag for token in tokens if token.nesting == 1 and not token.hidden]
        assert opened == tags and not [token for token in tokens if token.nesting == 0 and token.tag == "hr"]
        (inline,) = [token for token in tokens if token.type == "inline"]
        assert "".join(child.content for child in inline.children or ()).endswith(text)


@pytest.mark.parametrize("text", ["https://a.example", "x WWW.a.example", "(ftp://a.example)"])
def test_an_address_in_prose_begins_nowhere_for_who_links_addresses(text: str) -> None:
    assert not re.search(r"(https?|ftp)://|www\.", prose(text), re.IGNORECASE)


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
