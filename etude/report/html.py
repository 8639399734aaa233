"""A report as one HTML file: the Markdown of the report with its charts inside, to read, mail and print."""

import html
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etude.report.told import Told, mark_places, tag_marks

_STYLE = """
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c; background: #fff;
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1, h2 { line-height: 1.25; } h2 { margin-top: 2rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { border: 1px solid #ddd; padding: .25rem .6rem; text-align: left; vertical-align: top; }
td { min-width: 4em; } td:first-child { min-width: 6em; }
th { background: #f5f5f5; } th:empty { padding: 0; }
code, pre { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .875em; }
pre { background: #f6f6f6; padding: .6rem; white-space: pre-wrap; overflow-wrap: anywhere; }
code { overflow-wrap: anywhere; }
svg { width: 100%; height: auto; } svg * { stroke-linejoin: round; stroke-linecap: butt; }
figure { margin: 1rem 0; break-inside: avoid; } figcaption { font-weight: 600; }
@media print {
  @page { margin: 16mm; }
  body { max-width: none; margin: 0; padding: 0; font-size: 9.5pt; }
  th, td { padding: .15rem .4rem; }
  h1, h2, h3, p:has(+ pre), p:has(+ table) { break-after: avoid; }
  tr, pre { break-inside: avoid; } thead { display: table-header-group; }
  pre, th { background: none; } pre { border: 1px solid #ccc; }
}
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}</body>
</html>
"""


def to_html(
    markdown: str, title: str, charts: Mapping[str, bytes], places: Sequence[Told], values: Mapping[str, Any]
) -> str:
    """Render a report as a page that needs no other file, no network and no script.

    charts: SVG by the name under which the report shows it; other images are left out. places, values: its
    figures and their records, which the page has as attributes of their texts.
    """
    marked = mark_places(markdown, places)
    body = to_body(marked, lambda name, _: _inline(charts[name], name) if name in charts else None)
    body = f'<div data-run="{html.escape(values["run"])}">{tag_marks(body, values["text"])}</div>\n'
    return _PAGE.format(title=html.escape(title), style=_STYLE, body=body)


def to_body(markdown: str, draw: Callable[[str, str], str | None]) -> str:
    """Render a report as the body of a page, without links and without HTML of its own.

    draw: the element that shows an image, by its name and caption; None leaves it out.
    """
    from markdown_it import MarkdownIt

    def show(_: Any, tokens: Sequence[Any], index: int, *__: Any) -> str:
        token = tokens[index]
        caption = html.escape(token.content)
        image = draw(str(token.attrs.get("src", "")), token.content)
        if image is None:
            return caption
        return f"<figure><figcaption>{caption}</figcaption>\n{image}</figure>"

    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["link", "autolink"])
    reader.add_render_rule("image", show)
    text = re.sub(r"\A---\n.*?\n---\n", "", markdown, count=1, flags=re.DOTALL)  # the front matter
    return re.sub(r"<p>(<figure>.*?</figure>)</p>", r"\1", reader.render(text), flags=re.DOTALL)


def _inline(svg: bytes, name: str) -> str:
    """An SVG file as an element of a page, its ids apart from those of others."""
    text = svg.decode("utf-8")
    text = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL
    )
    prefix = re.sub(r"\W", "-", name)
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", text)
