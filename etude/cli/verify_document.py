"""`etude verify DOC`: what contradicts itself in a training document of anybody, in the terminal."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from etude.cli.options import require_other
from etude.cli.printing import print_json, print_text, print_wrapped
from etude.text import one_line, plural, printable

if TYPE_CHECKING:
    from etude.verify.checking import Checked
    from etude.verify.verdicts import Finding

_MOST_CONFIRMED, _MOST_UNEXAMINED = 8, 5


def verify_document(path: Path, html: Path | None, *, as_json: bool) -> None:
    """Check the figures of a document; exit code 1 if some contradict. Raises: InputError."""
    from etude.verify.checking import check_path

    require_other(html, path)
    checked = check_path(path)
    if html is not None:
        from etude.durable import write_file
        from etude.verify.margin import to_page

        write_file(html, to_page(checked).encode())
    if as_json:
        print_json(checked.to_dict())
    else:
        _print(checked)
    if checked.contradictions:
        raise typer.Exit(1)


def _print(checked: "Checked") -> None:
    from etude.verify.verdicts import CONFIRMED, CONTRADICTS, UNSETTLED

    for verdict in (CONTRADICTS, UNSETTLED):
        for finding in checked.findings:
            if finding.verdict == verdict:
                _print_finding(checked, finding)
    confirmed = [finding for finding in checked.findings if finding.verdict == CONFIRMED]
    for finding in confirmed[:_MOST_CONFIRMED]:
        print_wrapped(f"line {finding.line}  ", f"confirmed: {finding.quoted}: {finding.why}")
    if len(confirmed) > _MOST_CONFIRMED:
        print_text(f"and {len(confirmed) - _MOST_CONFIRMED:,} more confirmed (--json has all)")
    counts = f"{checked.count(CONTRADICTS):,} contradict, {checked.count(UNSETTLED):,} cannot be settled"
    print_text(f"{counts}, {len(confirmed):,} confirmed")
    print_text(
        f"{plural(checked.figures, 'figure')}, {checked.figures - checked.examined:,} of them not examined; "
        f"no rule looked at {plural(len(checked.unexamined), 'sentence')} with figures"
    )
    for line, text in checked.unexamined[:_MOST_UNEXAMINED]:
        print_wrapped(f"line {line}  ", f"not examined: {one_line(text, 90)}")
    for what in checked.document.unread:
        print_text(f"not read: {what}")


def _print_finding(checked: "Checked", finding: "Finding") -> None:
    line = checked.document.lines[finding.line - 1] if finding.line <= len(checked.document.lines) else ""
    print_wrapped(f"line {finding.line}  ", f"{finding.verdict}: {finding.quoted} ({finding.rule})")
    print_wrapped("  ", f"> {one_line(line, 100)}")
    print_wrapped("  ", printable(finding.why), indent=4)
    if finding.fits:
        print_wrapped("  ", f"would fit: {finding.fits}", indent=4)
