"""Samples, answers, log and report of a run, as it wrote them."""

import base64
import contextlib
import hashlib
import html
import os
import re
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from etude import durable
from etude.errors import InputError, MissingError
from etude.records.events import Generation
from etude.records.store import Run
from etude.report.answers import by_prompt
from etude.report.figures import spread
from etude.report.html import to_body
from etude.text import clean
from etude.ui.programs import Limits, problem_of, run_command
from etude.ui.readings import Readings, key_of
from etude.ui.trim import trim

_MOST_CHARACTERS = 2 << 20  # of all samples
_LONGEST_SAMPLE = 20_000
_LOG_BYTES, _MOST_LINES, _LONGEST_LINE = 1 << 20, 2_000, 2_000
_LOGS = ("log.txt", "output.txt")
_REPORT_BYTES, _CHART_BYTES = 16 << 20, 8 << 20
_WHOLE_BYTES, _MOST_CHARTS = 2 << 20, 50  # of a report in one file
_CHART = re.compile(r"[a-z0-9_-]{1,60}\.svg")
_ACTS = re.compile(
    r"<\s*([\w.-]+:)?(script|foreignobject|iframe|embed|object|a|set|animate\w*|handler)\b|[\s\"'/]on\w+\s*=|"
    r"<!entity|<\?xml-stylesheet|@import|javascript:",
    re.I,
)
_ASKS = re.compile(r"(href|src)\s*=\s*[\"'](?!#|data:image/png;base64,)|url\(\s*(?![\"']?#)", re.I)
_LIMITS = Limits(seconds=300.0)
_writing = threading.Lock()  # one report at a time


def samples(readings: Readings, run: Run) -> dict[str, Any]:
    """The texts of a run by their prompt, in the order of steps. Of too many those between are left out."""
    history = readings.told(run)
    best = history.best.step if history.best else None
    prompts, cut = by_prompt(history), list[str]()
    total = sum(_length(each) for texts in prompts.values() for each in texts)
    kept = max((len(texts) for texts in prompts.values()), default=0)
    while total > _MOST_CHARACTERS and kept > 2:
        kept //= 2
        total = sum(_length(each) for texts in prompts.values() for each in _kept(texts, kept, best))
    found = []
    for (prompt, reference), texts in prompts.items():
        answers = _kept(texts, kept, best)
        if len(answers) < len(texts):
            cut.append(f"{len(answers):,} of {len(texts):,} texts of a prompt, evenly spaced")
        found.append({
            "prompt": prompt, "reference": reference, "capability": texts[0].capability,
            "answers": [
                {"step": each.step, "text": each.text, "stopped": each.stopped, "best": each.step == best}
                for each in answers
            ],
        })  # fmt: skip
    trimmed = trim({"prompts": found})
    return trimmed | ({"cut": [*dict.fromkeys(cut), *trimmed.get("cut", [])]} if cut else {})


def log(run: Run, tail: int = 200, which: str = "log.txt") -> dict[str, Any]:
    """The last lines of the log of a run, or of what it printed. Raises: InputError."""
    if which not in _LOGS:
        raise InputError(f"there is no log of this name; there are {', '.join(_LOGS)}")
    try:
        with durable.open_plain(run.path / which, follow=False) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(size - _LOG_BYTES, 0))
            lines = file.read(_LOG_BYTES).decode("utf-8", "replace").splitlines()
    except MissingError:
        return {"lines": [], "size": 0}
    lines = lines[1:] if size > _LOG_BYTES else lines
    shown = [clean(line[:_LONGEST_LINE]) for line in lines[-max(min(tail, _MOST_LINES), 1) :]]
    return {"lines": shown, "size": size}


def report(run: Run, address: str) -> dict[str, Any]:
    """The report of a run as HTML for the page, as Markdown, and its charts by name.

    address: of the charts, before their names. Raises: InputError if it cannot be made.
    """
    folder = _own_report(run) or report_folder(run)
    charts = _charts_in(folder)
    found = _render(folder, lambda name: f"{address}/{name}" if name in charts else None)
    return {**found, "charts": {name: f"{address}/{name}" for name in charts}}


def whole_report(run: Run, most_bytes: int = _WHOLE_BYTES) -> dict[str, Any]:
    """The report of a run as HTML with its charts inside, of up to some bytes, and as Markdown.

    A chart that is too large, or that would act or ask where it is opened by itself, is its caption alone.

    Raises: as `report`.
    """
    folder, left = _own_report(run) or report_folder(run), most_bytes
    charts = {name: _still(folder / name) for name in _charts_in(folder)[:_MOST_CHARTS]}

    def source(name: str) -> str | None:
        nonlocal left
        inside = charts.get(name)
        if inside is None or len(inside) > left:
            return None
        left -= len(inside)
        return inside

    return {**_render(folder, source), "charts": {}}


def report_file(run: Run, name: str) -> bytes:
    """A file of the report: report.md, report.html or a chart. Raises: InputError, MissingError."""
    if name not in ("report.md", "report.html") and not _CHART.fullmatch(name):
        raise MissingError("the report has no file of this name")
    most = _CHART_BYTES if name.endswith(".svg") else _REPORT_BYTES
    folder = (_own_report(run) if name != "report.html" else None) or report_folder(run)
    return durable.read_bytes(folder / name, most_bytes=most, follow=False)


def _render(folder: Path, source: Callable[[str], str | None]) -> dict[str, Any]:
    """A report as HTML and as Markdown; `source` is the address of a chart by its name."""
    text = durable.read_text(folder / "report.md", most_bytes=_REPORT_BYTES, follow=False)

    def draw(name: str, caption: str) -> str | None:
        if (found := source(name)) is None:
            return None
        return f'<img src="{html.escape(found)}" alt="{html.escape(caption)}" loading="lazy">'

    return {
        "html": to_body(text, draw),
        "markdown": text,
        "written": (folder / "report.md").stat().st_mtime,
    }


def _charts_in(folder: Path) -> list[str]:
    return [name for name in sorted(os.listdir(folder)) if _CHART.fullmatch(name)]  # noqa: PTH208 names alone


def _still(path: Path) -> str | None:
    """A chart as an address that holds it, if it only draws, wherever it is opened; None for any other."""
    try:
        text = durable.read_text(path, most_bytes=_CHART_BYTES, follow=False)
    except InputError:
        return None
    is_still = "\0" not in text and not _ACTS.search(text) and not _ASKS.search(text)
    return f"data:image/svg+xml;base64,{base64.b64encode(text.encode()).decode()}" if is_still else None


def _own_report(run: Run) -> Path | None:
    """The folder of the report that a run wrote, if its journal did not grow since.

    To make one takes seconds, in a process of its own. Raises: InputError if the recipe was changed.
    """
    folder = run.path / "report"
    try:
        is_folder = stat.S_ISDIR(folder.lstat().st_mode)  # what is a link leads elsewhere
        report, journal = (folder / "report.md").lstat(), (run.path / "journal.jsonl").lstat()
    except OSError:
        return None
    if not is_folder or not stat.S_ISREG(report.st_mode) or report.st_mtime_ns < journal.st_mtime_ns:
        return None
    run.require_own_recipe()
    return folder


def report_folder(run: Run) -> Path:
    """The folder with the report of a run as its files are, outside the run folder, made if it is not there.

    Raises: InputError if it cannot be made.
    """
    key = repr((str(run.path.absolute()), key_of(run.path)))
    folder = durable.cache_folder("pages") / "reports" / name_of(key)
    with _writing:
        if not (folder / "report.html").exists():
            _make_room(folder.parent)
            durable.make_folder(folder.parent)
            with durable.new_folder(folder) as hidden:
                code, answer = run_command(
                    "report", str(run.path.absolute()), "--html", "--out", str(hidden), limits=_LIMITS
                )
                if code:
                    raise InputError(problem_of(answer))
    return folder


def name_of(key: str) -> str:
    """A name for a folder, from all that its content comes from."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:24]


def _make_room(reports: Path, most: int = 30) -> None:
    """Remove the oldest reports but some."""
    with contextlib.suppress(OSError):
        found = [path for path in reports.iterdir() if not path.name.startswith(".")]
        for path in sorted(found, key=lambda each: each.stat().st_mtime)[:-most]:
            durable.remove_folder(path)


def _kept(texts: list[Generation], count: int, best: int | None) -> list[Generation]:
    """Texts of evenly spaced steps, the best and the last among them."""
    shown = [*spread(texts, count), *(each for each in texts if each.step == best)]
    return sorted({id(each): each for each in shown}.values(), key=lambda each: each.step)


def _length(text: Generation) -> int:
    return min(len(text.text), _LONGEST_SAMPLE) + 40
