"""The routes below /api: each is a method that takes plain values, and runs in a thread.

They need most of etude that reads runs, so the server imports them while the browser opens.
"""

import functools
import itertools
from typing import TYPE_CHECKING, Any

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from etude.control.mailbox import who_asks
from etude.errors import EtudeError
from etude.text import shorten
from etude.ui.answering import Asked, Download, Handler, Told, answer, failure, problem
from etude.ui.cleaning import clean_columns
from etude.ui.data import data_page
from etude.ui.events import Watch, listen
from etude.ui.library import Library
from etude.ui.listing import Listing
from etude.ui.machine import Machine
from etude.ui.page import RunPages
from etude.ui.programs import Programs
from etude.ui.readings import Readings
from etude.ui.recipes import Given, check, estimate, preview, run_recipe, schema
from etude.ui.requests import Requests
from etude.ui.series import csv_lines, read_series
from etude.ui.starting import Starts, places
from etude.ui.writing import log, report, report_file, samples

if TYPE_CHECKING:
    from etude.ui.sweeps import Sweeps

_MOST_POINTS, _MOST_NAMES, _MOST_RUNS, _MOST_LINES = 5_000, 60, 200, 10_000
_MOST_STEPS = 100  # that are placed on an axis
_FARTHEST = 1e18  # on an axis
_THREADS = 8  # that read files at once, so that a disk that hangs takes no more
# What a stranger's run drew may be opened by its address alone: it may run nothing and load nothing.
_SANDBOX = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
_MARKDOWN = "text/markdown; charset=utf-8"
_TYPES = {"svg": "image/svg+xml", "md": _MARKDOWN, "html": "text/html; charset=utf-8"}  # of a report


class Routes:
    """The answers about a library of runs, and all that is kept between them."""

    def __init__(self, library: Library, version: str, *, read_only: bool, told: Told) -> None:
        self._library, self._version, self._read_only = library, version, read_only
        self._told = told
        self._programs, self._readings = Programs(), Readings()
        self._listing = Listing(self._readings)
        self._pages = RunPages(library, self._readings)
        self._machine, self._requests, self._starts = Machine(), Requests(), Starts()
        self._watch = Watch(library, lambda: self._listing.version(library), told)

    @functools.cached_property
    def _sweeps(self) -> "Sweeps":
        from etude.ui.sweeps import Sweeps  # a sixth of all imports, and no part of the first look

        return Sweeps(self._programs)

    @functools.cached_property
    def router(self) -> Router:
        """All routes as one application."""
        limiter = functools.cache(lambda: anyio.CapacityLimiter(_THREADS))  # made in the loop that serves
        routes = [Route("/api/events", self._listen, methods=["GET"])]
        for method, path, handler in [*self._reading(), *self._writing()]:
            endpoint = functools.partial(answer, handler, limiter, self._told)
            routes.append(Route(path, endpoint, methods=[method]))
        return Router(routes, redirect_slashes=False, default=not_found)

    def prepare(self) -> None:
        """Look at the runs before anybody asks, and keep the cache of columns within its bounds."""
        self._library.look()
        clean_columns()

    def keep(self) -> None:
        """Keep the rows of the list for the next start."""
        self._listing.keep()

    def _reading(self) -> list[tuple[str, str, Handler]]:
        run = "/api/runs/{id}"
        return [
            ("GET", "/api/about", self._about),
            ("GET", "/api/runs", self._runs),
            ("GET", run, self._run),
            ("GET", f"{run}/series", self._series),
            ("GET", f"{run}/series.csv", self._csv),
            ("GET", f"{run}/samples", self._samples),
            ("GET", f"{run}/recipe", self._recipe),
            ("GET", f"{run}/report", self._report),
            ("GET", f"{run}/report.md", functools.partial(self._report_file, "report.md")),
            ("GET", f"{run}/report.html", functools.partial(self._report_file, "report.html")),
            ("GET", f"{run}/report/{{name}}.svg", self._report_chart),
            ("GET", f"{run}/data", self._data),
            ("GET", f"{run}/log", self._log),
            ("GET", f"{run}/requests/{{request}}", self._answers),
            ("GET", "/api/compare", self._compare),
            ("GET", "/api/sweeps/{id}", self._sweep),
            ("GET", "/api/sweeps/{id}/report.md", self._sweep_report),
            ("GET", "/api/system", self._system),
            ("GET", "/api/schema", self._schema),
            ("GET", "/api/start/{start}", self._started),
        ]  # fmt: skip

    def _writing(self) -> list[tuple[str, str, Handler]]:
        return [
            ("POST", "/api/runs/{id}/requests", self._request),
            ("POST", "/api/check", self._check),
            ("POST", "/api/estimate", self._estimate),
            ("POST", "/api/rows", self._rows),
            ("POST", "/api/start", self._start),
        ]

    async def _listen(self, request: Request) -> Response:
        asked = Asked({}, dict(request.query_params))
        try:
            runs, since = asked.names("runs", _MOST_RUNS), asked.names("since", _MOST_RUNS)
            await anyio.to_thread.run_sync(self._library.look)  # at the disk, not in the loop
            return listen(self._watch, runs, since)
        except EtudeError as error:
            return failure(error, self._told)

    def _about(self, asked: Asked) -> dict[str, Any]:
        folders = [shorten(folder, 200) for folder in self._library.folders]
        return {
            "version": self._version,
            "folders": folders,
            "read_only": self._read_only,
            "user": who_asks(),
        }

    def _runs(self, asked: Asked) -> dict[str, Any]:
        return self._listing.payload(self._library, asked.query.get("since"))

    def _run(self, asked: Asked) -> dict[str, Any]:
        return self._pages.get(asked.part["id"])

    def _series(self, asked: Asked) -> dict[str, Any]:
        return read_series(
            self._library.run(asked.part["id"]),
            asked.names("names", _MOST_NAMES),
            asked.query.get("axis", "step"),
            low=asked.number("from", -_FARTHEST, _FARTHEST),
            high=asked.number("to", -_FARTHEST, _FARTHEST),
            points=max(asked.count("points", 1000, _MOST_POINTS), 2),
            at=asked.steps("at", _MOST_STEPS),
            half_life=asked.number("half_life", 1, _FARTHEST),
        )

    def _csv(self, asked: Asked) -> Download:
        run, names = self._library.run(asked.part["id"]), asked.names("names", _MOST_NAMES)
        lines = csv_lines(run, names, asked.query.get("axis", "step"))
        lines = itertools.chain([next(lines)], lines)  # a journal that cannot be read is told, not cut off
        return Download(lines, "text/csv; charset=utf-8", f"{asked.part['id']}.csv")

    def _samples(self, asked: Asked) -> dict[str, Any]:
        return samples(self._readings, self._library.run(asked.part["id"]))

    def _recipe(self, asked: Asked) -> dict[str, Any]:
        other = asked.query.get("against", "default")
        against = None if other == "default" else self._library.run(other)
        return run_recipe(self._library.run(asked.part["id"]), against)

    def _report(self, asked: Asked) -> dict[str, Any]:
        identity = asked.part["id"]
        return report(self._library.run(identity), f"/api/runs/{identity}/report")

    def _report_file(self, name: str, asked: Asked) -> Download:
        content, end = report_file(self._library.run(asked.part["id"]), name), name.rpartition(".")[2]
        return Download(content, _TYPES[end], f"{asked.part['id']}.{end}", _SANDBOX)

    def _report_chart(self, asked: Asked) -> Download:
        content = report_file(self._library.run(asked.part["id"]), f"{asked.part['name']}.svg")
        return Download(content, _TYPES["svg"], policy=_SANDBOX)

    def _data(self, asked: Asked) -> dict[str, Any]:
        run, is_thorough = self._library.run(asked.part["id"]), asked.query.get("thorough") == "1"
        if asked.query.get("rows") == "0":
            return data_page(self._readings, self._programs, run, rows=0)
        return data_page(self._readings, self._programs, run, thorough=is_thorough)

    def _log(self, asked: Asked) -> dict[str, Any]:
        file = asked.query.get("file", "log.txt")
        return log(self._library.run(asked.part["id"]), asked.count("tail", 200, _MOST_LINES), file)

    def _answers(self, asked: Asked) -> dict[str, Any]:
        return self._requests.answers(self._library.run(asked.part["id"]), asked.part["request"])

    def _compare(self, asked: Asked) -> dict[str, Any]:
        runs, baseline = asked.names("runs", _MOST_RUNS), asked.query.get("baseline")
        from etude.ui.side_by_side import compare

        return compare(self._library, self._programs, runs, baseline)

    def _sweep(self, asked: Asked) -> dict[str, Any]:
        return self._sweeps.page(self._library, asked.part["id"])

    def _sweep_report(self, asked: Asked) -> Download:
        content = self._sweeps.report(self._library, asked.part["id"])
        return Download(content, _MARKDOWN, f"{asked.part['id']}.md", _SANDBOX)

    def _system(self, asked: Asked) -> dict[str, Any]:
        return self._machine.page(self._library)

    def _schema(self, asked: Asked) -> dict[str, Any]:
        return schema()

    def _started(self, asked: Asked) -> dict[str, Any]:
        return self._starts.look(self._library, asked.part["start"])

    def _request(self, asked: Asked) -> dict[str, str]:
        return self._requests.post(self._library.run(asked.part["id"]), asked.body)

    def _check(self, asked: Asked) -> dict[str, Any]:
        return check(asked.text("toml"), places(self._library)[0], asked.changes())

    def _estimate(self, asked: Asked) -> dict[str, Any]:
        return estimate(self._programs, asked.text("toml"), places(self._library)[0])

    def _rows(self, asked: Asked) -> dict[str, Any]:
        given = None
        if "path" in asked.body:
            given = Given(asked.text("path"))
        elif "rows" in asked.body:
            given = Given(asked.text("name"), asked.text("rows"))
        return preview(self._programs, asked.text("toml"), places(self._library)[0], given=given)

    def _start(self, asked: Asked) -> dict[str, Any]:
        return self._starts.start(self._library, asked.text("toml"), anew=asked.body.get("new") is True)


async def not_found(scope: Any, receive: Any, send: Any) -> None:
    """The application for addresses that are none."""
    await problem(404, "there is no such address")(scope, receive, send)
