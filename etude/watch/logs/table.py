"""Tables: CSV with any separator, exports of W&B, TensorBoard and Lightning, tables of Markdown."""

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import islice

from etude.errors import InputError
from etude.text import one_line
from etude.watch.logs.named import row_of
from etude.watch.logs.names import meaning_of
from etude.watch.logs.numbers import number_of
from etude.watch.logs.rows import Row, Source

_SEPARATORS = (",", "\t", ";", "|", "  ", " ")
_HEADER_WITHIN = 60  # lines
_LONGEST_LINE = 1 << 16
_RULE = re.compile(r"[\s|:+=-]+")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+(?:[eE][-+]?\d+)?")
_DECIMAL_POINT = re.compile(r"\d\.\d")
_EXPORTED = re.compile(r"(?P<run>.+) - (?P<name>.+?)(?P<end>__MIN|__MAX)?")
Cells = list[str]


def read_table(text: str) -> Source | None:
    """The rows of a table; None if no line near its top is a header with a loss, above a line of numbers.

    Raises: InputError for a table of one column.
    """
    lines = [line for line in text.splitlines() if len(line) <= _LONGEST_LINE]
    lines = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    for place, line in enumerate(lines[:_HEADER_WITHIN]):
        found = [
            (header, separator)
            for separator in _SEPARATORS
            if _is_header(header := _cells(line, separator), lines, place, separator)
        ]
        if found:
            header, separator = next((each for each in found if len(each[0]) > 1), found[0])
            return _source(header, lines[place + 1 :], separator)
    return None


def _is_header(header: Cells, lines: Sequence[str], place: int, separator: str) -> bool:
    """True for names of a log, a loss among them, above as many cells with a number among them."""
    names = [_exported(name)[1] for name in header]
    figures = {meaning.figure for name in names if (meaning := meaning_of(name))}
    if not figures & {"loss", "eval_loss"} and [name.lower() for name in names] != [
        "wall time",
        "step",
        "value",
    ]:
        return False
    if any(number_of(name) is not None for name in header) or any(len(name) > 200 for name in header):
        return False
    below = next((line for line in lines[place + 1 :] if not _RULE.fullmatch(line)), None)
    if len(header) == 1 and (place or separator != ","):
        return False
    if below is None:
        return len(header) > 1 and separator in (",", "\t", ";", "|")  # its first row is to come
    cells = _cells(below, separator)
    is_regular = len(cells) == len(header) if separator in ("  ", " ", "|") else len(cells) <= len(header) + 1
    return is_regular and any(number_of(cell.replace(",", ".")) is not None for cell in cells)


def _source(header: Cells, lines: Sequence[str], separator: str) -> Source:
    if len(header) == 1:
        raise InputError(
            f"the log has one column, {one_line(header[0], 40)}; a step or an epoch was expected beside it"
        )
    rows = _rows(lines, separator)
    has_comma = separator in (";", "\t") and _has_decimal_commas(lines, separator)
    named = {",": "CSV", "\t": "table with tabs", ";": "CSV with semicolons"}.get(separator, "table")
    source = Source(named, _named(header, rows, has_comma))
    if [name.lower() for name in header] == ["wall time", "step", "value"]:
        source.format = "CSV of TensorBoard"
        source.notes.append("the figure has no name, and is taken for the training loss")
        source.rows = _named(["", "step", "loss"], rows, has_comma)
    return source


def _named(header: Cells, rows: Iterator[Cells], has_comma: bool) -> Iterator[Row]:
    """Rows under the names of the header, and of those that follow where a log was written on."""
    parts = [_exported(name) for name in header]
    for cells in rows:
        if any(meaning_of(cell) for cell in cells) and not any(number_of(cell) is not None for cell in cells):
            parts = [_exported(name) for name in cells]
            continue
        if has_comma:
            cells = [cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell for cell in cells]
        shared = {name: cell for (run, name), cell in zip(parts, cells) if not run and name}
        runs = {run: None for run, _ in parts if run}
        if not runs:
            yield row_of(shared)
        for run in runs:
            own = {name: cell for (each, name), cell in zip(parts, cells) if each == run and name and cell}
            if own:
                yield Row(row_of(shared | own).figures, run)


def _exported(name: str) -> tuple[str, str]:
    """The run and the figure of a column that W&B exported from a chart; of its bounds no figure."""
    if not (found := _EXPORTED.fullmatch(name)):
        return "", name
    return found["run"], "" if found["end"] else found["name"]


def _rows(lines: Sequence[str], separator: str) -> Iterator[Cells]:
    if separator in (",", "\t", ";"):
        try:
            for cells in csv.reader(lines, delimiter=separator):
                if any(len(cell) > _LONGEST_LINE for cell in cells):
                    return  # a cell without an end: what is below it is lost
                yield [cell.strip() for cell in cells]
        except csv.Error:  # the same, where the process has no higher limit
            return
    else:
        yield from (_cells(line, separator) for line in lines if not _RULE.fullmatch(line))


def _cells(line: str, separator: str) -> Cells:
    if separator == "|":
        return [cell.strip(" *") for cell in line.strip().strip("|").split("|")] if "|" in line else []
    if separator == "  ":
        return re.split(r"\s{2,}", line.strip())
    if separator == " ":
        return line.split()
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]
    except csv.Error:
        return []


def _has_decimal_commas(lines: Sequence[str], separator: str) -> bool:
    cells = [cell for line in islice(lines, 50) for cell in _cells(line, separator)]
    return any(map(_DECIMAL_COMMA.fullmatch, cells)) and not any(map(_DECIMAL_POINT.search, cells))
