"""Runs as one file: the page with its modules and its answers inside, which opens from a disk."""

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from etude.errors import EtudeError
from etude.records.events import plain
from etude.records.store import Run
from etude.ui.columns import AXES
from etude.ui.data import tables_of
from etude.ui.library import Library
from etude.ui.listing import make_row
from etude.ui.page import run_page
from etude.ui.programs import Programs
from etude.ui.readings import Readings
from etude.ui.recipes import run_recipe
from etude.ui.series import read_series
from etude.ui.side_by_side import compare
from etude.ui.static import Asset, read_assets
from etude.ui.trim import trim
from etude.ui.writing import log, samples, whole_report

_RUN_BYTES = 4 << 20  # of the answers about one run; the page itself is small beside it
_POINTS, _FEWEST_POINTS = 500, 60
_PATIENCE_SECONDS = 900.0
# A stranger's recipe may name any file of this machine as its data.
_ROWS = "Rows are not in an exported page, which holds what lies in the folder of its run alone."
_DIGITS = 7
_IMPORT = re.compile(r'(\bfrom\s*|\bimport\s*\(?\s*)"\./([\w./-]+)"')
_STYLE = re.compile(r'<link rel="stylesheet" href="static/([\w./-]+)">')
_SCRIPT = re.compile(r'<script type="module" src="static/([\w./-]+)"></script>')
_ICON = re.compile(r'<link rel="icon"[^>]*>')


def export(runs: Sequence[Run], version: str) -> dict[str, Any]:
    """The answers of the server about runs, by path: all that their pages ask for, series downsampled.

    Raises: InputError if a run folder is damaged.
    """
    library, readings, programs = Library([run.path for run in runs]), Readings(), Programs()
    ids = list(library.runs())
    about = {
        "version": version, "folders": [], "read_only": True, "user": None, "exported": time.time()
    }  # fmt: skip
    rows, answers = [], dict[str, Any]()
    for identity in ids:
        run = library.run(identity)
        summary = readings.summary(run, _PATIENCE_SECONDS)
        assert summary is not None
        rows.append(
            {"id": identity, **make_row(run, summary), "heartbeat_age": None, "folder": "", "sweep": None}
        )
        answers |= _answers(library, readings, identity)
    answers["/api/about"] = about
    answers["/api/runs"] = trim({"version": "exported", "runs": rows, "sweeps": [], "damaged": []})
    if len(ids) > 1:
        answers["/api/compare"] = compare(library, programs, ids)
    return plain(answers)  # type: ignore[no-any-return]


def write_page(answers: Mapping[str, Any], assets: Mapping[str, Asset] | None = None) -> bytes:
    """The page in one file with these answers. Its policy lets nothing run but its own modules."""
    assets = read_assets() if assets is None else assets
    modules = {name: _module(asset) for name, asset in assets.items() if name.endswith(".js")}
    imports = json.dumps({"imports": {f"etude/{name}": address for name, address in modules.items()}})
    index = assets["index.html"].content.decode()
    start = f'import "etude/{_one(_SCRIPT, index)}";'
    styles = [assets[name].content.decode() for name in _STYLE.findall(index)]
    data = json.dumps(answers, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    policy = "; ".join([
        "default-src 'none'", "img-src data:", "base-uri 'none'", "form-action 'none'",
        f"script-src data: {_hash(imports)} {_hash(start)}",
        f"style-src {' '.join(map(_hash, styles))}",
    ])  # fmt: skip
    meta = f'<meta charset="utf-8">\n    <meta http-equiv="Content-Security-Policy" content="{policy}">'
    page = _ICON.sub("", index.replace('<meta charset="utf-8">', meta, 1))
    parts = iter(styles)
    page = _STYLE.sub(lambda _: f"<style>{next(parts)}</style>", page)
    inside = (
        f'<script id="etude-data" type="application/json">{data}</script>\n'
        f'<script type="importmap">{imports}</script>\n<script type="module">{start}</script>'
    )
    head, _, rest = _SCRIPT.sub("", page).partition("</body>")
    return f"{head}{inside}\n</body>{rest}".encode("utf-8", "backslashreplace")


def _answers(library: Library, readings: Readings, identity: str) -> dict[str, Any]:
    """The answers about one run, in fewer points where they would be too large."""
    run, path = library.run(identity), f"/api/runs/{identity}"
    page = run_page(library, readings, identity)
    page["offers"] = {"actions": [], "keys": []}
    used = readings.told(run).data
    summary = used.summary if used else {}
    found: dict[str, Any] = {
        path: page,
        f"{path}/samples": _try(lambda: samples(readings, run)),
        f"{path}/recipe": _try(lambda: run_recipe(run)),
        f"{path}/log": _try(lambda: log(run)),
        f"{path}/report": _try(lambda: whole_report(run)),
        f"{path}/data": trim(
            {"tables": tables_of(summary), "notes": [_ROWS], "samples": [], "problem": None}
        ),
    }
    found = {name: value for name, value in found.items() if value is not None}
    sizes = {name: _size(value) for name, value in found.items()}
    while (
        sum(sizes.values()) > _RUN_BYTES and len(sizes) > 1
    ):  # the page says of the rest that it is not there
        largest = max(sizes.keys() - {path}, key=lambda name: sizes[name])
        del found[largest], sizes[largest]
    left, points = _RUN_BYTES - sum(sizes.values()), _POINTS
    while True:
        series = {
            f"{path}/series?axis={axis}": _series(run, axis, points, marked_steps(page)) for axis in AXES
        }
        if _size(series) < left or points <= _FEWEST_POINTS:
            return {**found, **series}
        points //= 2


def _series(run: Run, axis: str, points: int, at: Sequence[int]) -> dict[str, Any]:
    """All series of a run, read to the end, and the places of steps."""
    while (found := read_series(run, (), axis, low=None, high=None, points=points, at=at))["read"] < 1:
        continue
    return _rounded(found)  # type: ignore[no-any-return]


def marked_steps(page: dict[str, Any]) -> list[int]:
    """The steps that the charts of a run mark: its best and the windows of its findings."""
    best = [page["best"]["step"]] if page.get("best") else []
    windows = [step for each in page.get("findings", ()) for step in each.get("window") or ()]
    return list(dict.fromkeys([*best, *windows]))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value


def _try(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except EtudeError:
        return None


def _size(value: Any) -> int:
    return len(json.dumps(plain(value)))


def _module(asset: Asset) -> str:
    """A module as an address; what it imports is named as the map of imports names it."""
    text = _IMPORT.sub(r'\1"etude/\2"', asset.content.decode())
    return f"data:text/javascript;base64,{base64.b64encode(text.encode()).decode()}"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _one(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    assert found is not None
    return found[1]


def export_page(runs: Sequence[Run], path: Path, version: str) -> int:
    """Write runs as one file; returns its bytes. Raises: InputError, StorageError."""
    from etude.durable import write_file

    content = write_page(export(runs, version))
    write_file(path, content)
    return len(content)
