"""The HTML form of a report: whole in itself, its text that of the Markdown, foreign text only text."""

import html.parser
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.records.events import Generation, Note
from etude.records.store import append_note
from etude.report.html import to_html
from etude.report.write import write_report
from tests import misleading as runs
from tests.report.runs import attempt, finished_run, new_run

pytestmark = pytest.mark.usefixtures("drawn")
HOSTILE = (
    "<script>alert(1)</script> ![x](http://a.example/x.png) [y](javascript:alert(1)) <img src=x onerror=e>"
)


class Reader(html.parser.HTMLParser):
    """Elements with their attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_a_page_has_its_charts_inside_and_asks_for_nothing(misleading: Callable[..., Any]) -> None:
    page = write_report(misleading(runs.worse_than_before), html=True).read_text()
    found = Reader(page)
    tags = [tag for tag, _ in found.elements]
    assert tags.count("svg") == tags.count("figure") >= 4
    assert not {"script", "img", "link", "iframe", "object", "a", "image"} & set(tags)
    for tag, attributes in found.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href"):
                assert tag == "use" and str(value).startswith("#")
    assert not re.search(r"url\((?!#)|@import", page)
    assert "default-src 'none'" in page


def test_ids_of_charts_are_their_own_and_lead_somewhere(tmp_path: Path) -> None:
    page = write_report(finished_run(tmp_path), html=True).read_text()
    found = [attributes for _, attributes in Reader(page).elements]
    ids = [each["id"] for each in found if "id" in each]
    assert len(ids) == len(set(ids))
    asked = set(re.findall(r'(?:url\(|href=")#([^)"]+)', page))
    assert asked and asked <= set(ids)


def test_the_page_says_what_the_markdown_says(misleading: Callable[..., Any]) -> None:
    path = write_report(misleading(runs.endless_string), html=True)
    markdown = (path.parent / "report.md").read_text().split("---\n", 2)[2]
    text = " ".join(" ".join(Reader(path.read_text()).text).split())
    for heading in re.findall("^## (.*)$", markdown, re.MULTILINE):
        assert heading in text
    for number in re.findall(r"\d[\d,.]*\d", re.sub(r"\.svg\)", "", markdown)):
        assert number in text
    assert "---" not in text and "**" not in text and "| " not in text


def test_foreign_text_is_nothing_but_text(tmp_path: Path) -> None:
    run = finished_run(tmp_path, {"records.title": HOSTILE, "records.author": HOSTILE})
    append_note(run, Note("lessons", HOSTILE, HOSTILE))
    append_note(run, Generation(40, HOSTILE, f"```\n{HOSTILE}", {}))
    page = write_report(run, html=True).read_text()
    tags = {tag for tag, _ in Reader(page).elements}
    assert not {"script", "img", "a"} & tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_an_image_that_is_no_chart_is_only_its_words() -> None:
    page = to_html(
        "![words](http://a.example/x.svg)\n\n![c](c.svg)",
        "t",
        {"c.svg": b"<?xml?><svg/>"},
        [],
        {"run": "r", "text": []},
    )
    assert "http://a.example" not in page and "<p>words</p>" in page and "<svg/>" in page


def test_a_run_without_a_step_has_a_page(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt())
    writer.close("stopped")
    assert "<figure" not in write_report(writer.run, html=True).read_text()
