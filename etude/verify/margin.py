"""A checked document as one HTML page: its lines as they stand, the findings in the margin, no script."""

import html
from collections import defaultdict

from etude.text import clean
from etude.verify.checking import Checked
from etude.verify.verdicts import CONFIRMED, CONTRADICTS, UNSETTLED, Finding

_MOST_LINES, _MOST_COLUMNS = 20_000, 2_000
_CLASSES = {CONTRADICTS: "no", UNSETTLED: "open", CONFIRMED: "yes"}
_STYLE = """
body { max-width: 84rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c; background: #fff;
  font: 15px/1.45 system-ui, "Segoe UI", Roboto, Arial, sans-serif; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
td { vertical-align: top; padding: .05rem .5rem; } td.n { width: 4rem; text-align: right; color: #767676; }
td.t { white-space: pre-wrap; overflow-wrap: anywhere;
  font: 13px/1.45 ui-monospace, Menlo, Consolas, monospace; }
td.m { width: 36%; font-size: 13px; } tr.no td.t { background: #fde8e8; }
tr.open td.t { background: #fdf5dc; }
div.no { border-left: 3px solid #b91c1c; } div.open { border-left: 3px solid #b07d00; }
div.yes { border-left: 3px solid #2e7d32; } td.m div { padding-left: .5rem; margin: .15rem 0; }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #161616; } tr.no td.t { background: #4a1d1d; }
  tr.open td.t { background: #453a12; } td.n { color: #999; }
}
@media (max-width: 50rem) { td.m { display: block; width: auto; } }
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
<h1>{title}</h1>
<p>{summary}</p>
<table>
{rows}
</table>
{rest}</body>
</html>
"""


def to_page(checked: Checked) -> str:
    """The page of a checked document. Everything of the document is escaped, control characters are shown."""
    by_line: dict[int, list[Finding]] = defaultdict(list)
    for finding in checked.findings:
        by_line[finding.line].append(finding)
    lines = checked.document.lines[:_MOST_LINES]
    rows = [_row(number, line, by_line.get(number, [])) for number, line in enumerate(lines, 1)]
    left = len(checked.document.lines) - len(lines)
    rest = [*checked.document.unread, *([f"{left:,} more lines are not shown"] if left > 0 else [])]
    counts = ", ".join(f"{checked.count(verdict):,} {verdict}" for verdict in _CLASSES)
    not_examined = f"{checked.figures - checked.examined:,} of {checked.figures:,} figures were not examined"
    return _PAGE.format(
        title=_safe(checked.document.name),
        style=_STYLE,
        summary=_safe(f"{counts}; {not_examined}."),
        rows="\n".join(rows),
        rest="".join(f"<p>Not read: {_safe(each)}</p>\n" for each in rest),
    )


def _row(number: int, line: str, findings: list[Finding]) -> str:
    kinds = [finding.verdict for finding in findings]
    worst = next((verdict for verdict in (CONTRADICTS, UNSETTLED) if verdict in kinds), None)
    shown = line if len(line) <= _MOST_COLUMNS else f"{line[:_MOST_COLUMNS]} ..."
    notes = "".join(_note(finding) for finding in findings)
    mark = f' class="{_CLASSES[worst]}"' if worst else ""
    cells = f'<td class="n">{number}</td><td class="t">{_safe(shown)}</td><td class="m">{notes}</td>'
    return f"<tr{mark}>{cells}</tr>"


def _note(finding: Finding) -> str:
    fits = f"<br>would fit: {_safe(finding.fits)}" if finding.fits else ""
    head = f"<b>{_safe(finding.verdict)}</b> {_safe(finding.quoted)} ({_safe(finding.rule)})"
    return f'<div class="{_CLASSES[finding.verdict]}">{head}<br>{_safe(finding.why)}{fits}</div>'


def _safe(text: str) -> str:
    return html.escape(clean(text))
