"""The routes of the page: each calls one function of a payload module, in a thread, with plain arguments."""

import contextlib
import functools
import itertools
import json
import math
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from starlette.concurrency import iterate_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, Router

from etude import durable
from etude.errors import EtudeError, InputError, MissingError
from etude.text import shorten
from etude.ui.library import Library
from etude.ui.static import Asset, read_assets

if TYPE_CHECKING:  # what payloads are made with is imported when the server answers already
    from etude.ui.events import Watch
    from etude.ui.listing import Listing
    from etude.ui.readings import Readings

_MOST_POINTS, _MOST_NAMES, _MOST_RUNS, _MOST_LINES = 5_000, 60, 200, 10_000
_MOST_STEPS, _DIGITS = 100, 15  # that are placed on an axis, and of a step
_FRAMES = 4  # of a fault, that are shown
_THREADS = 8  # that read files at once, so that a disk that hangs takes no more
# What a stranger's run drew may be opened by its address alone: it may run nothing and load nothing.
_SANDBOX = "default-src 'none'; style-src 'unsafe-inline'; sandbox"


@dataclass(frozen=True)
class Asked:
    """A request in plain values: parts of its path, its query and the object in its body."""

    part: dict[str, str]
    query: dict[str, str]
    body: dict[str, Any] = field(default_factory=dict)

    def names(self, key: str, most: int) -> list[str]:
        """A list that is parted by commas. Raises: InputError if it is too long."""
        found = [name for name in self.query.get(key, "").split(",") if name]
        if len(found) > most:
            raise InputError(f"{key} has {len(found):,} names; ask for up to {most}")
        return found

    def steps(self, key: str, most: int) -> list[int]:
        """A list of steps. Raises: InputError if it is too long, or holds anything else."""
        found = self.names(key, most)
        if any(not (each.isascii() and each.isdecimal() and len(each) <= _DIGITS) for each in found):
            raise InputError(f"{key} is {shorten(','.join(found), 40)!r}; give steps")
        return [int(each) for each in found]

    def text(self, key: str) -> str:
        """A text of the body. Raises: InputError if it is none."""
        value = self.body.get(key)
        if not isinstance(value, str):
            raise InputError(f"the body has no text {key}")
        return value

    def changes(self) -> dict[str, Any]:
        """Changes of a recipe by dotted key. Raises: InputError if they are no object."""
        value = self.body.get("changes") or {}
        if not isinstance(value, dict):
            raise InputError("changes is no object; give values by dotted key")
        return value

    def number(self, key: str, default: float | None, least: float, most: float) -> float | None:
        """A number of the query, or of what stands for it. Raises: InputError if it is none."""
        text = self.query.get(key, "")
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise InputError(f"{key} is {shorten(text, 40)!r}; give a number from {least:g} to {most:g}")
        return value


@dataclass(frozen=True)
class Download:
    """A body that is no JSON: bytes, or an iterator of them, with type and the name to save it under."""

    content: bytes | str | Iterator[bytes]
    kind: str
    name: str | None = None
    policy: str | None = None


Handler = Callable[[Asked], Any]


def make_app(
    library: Library,
    version: str,
    *,
    read_only: bool = False,
    assets: dict[str, Asset] | None = None,
    told: Callable[[str], None] = lambda text: None,
) -> Router:
    """The application of a library of runs, without the gate that stands before it.

    told: is called with the traceback of each fault of etude, once
    """
    assets = read_assets() if assets is None else assets
    limiter = functools.cache(lambda: anyio.CapacityLimiter(_THREADS))  # made in the loop that serves
    once = functools.cache(told)
    parts = _Parts(library)

    def tell(error: Exception) -> None:
        once("".join(traceback.format_exception(error, limit=-_FRAMES)).rstrip())

    routes = [
        Route("/", functools.partial(_serve_asset, assets, "index.html"), methods=["GET"]),
        Route("/static/{name:path}", functools.partial(_serve_asset, assets, None), methods=["GET"]),
        Route("/api/events", functools.partial(_listen, parts, tell), methods=["GET"]),
    ]
    for method, path, handler in [*_reading(parts, version, read_only), *_writing(parts)]:
        endpoint = functools.partial(_answer, handler, limiter, tell)
        routes.append(Route(path, endpoint, methods=[method]))
    lifespan = functools.partial(_lifespan, parts)
    return Router(routes, redirect_slashes=False, default=_not_found, lifespan=lifespan)


class _Parts:
    """The objects that payloads are made with, each imported and made when it is first asked for."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.programs = _once("programs", "Programs")
        self.readings: Callable[[], Readings] = _once("readings", "Readings")
        self.listing: Callable[[], Listing] = _once("listing", "Listing", self.readings)
        self.sweeps = _once("sweeps", "Sweeps", self.programs)
        self.machine = _once("machine", "Machine")
        self.requests = _once("requests", "Requests")
        self.starts = _once("starting", "Starts")
        self.watch: Watch | None = None

    def prepare(self) -> None:
        """Make all that the first page asks for."""
        self.listing()
        self.library.look()
        import_module("etude.ui.events")


@contextlib.asynccontextmanager
async def _lifespan(parts: _Parts, app: Router) -> AsyncIterator[None]:
    def prepare() -> None:  # while the browser opens
        with contextlib.suppress(Exception):  # whoever asks for the same is told
            parts.prepare()
            parts.library.forget()
            _payload("cleaning", "clean_columns")()

    threading.Thread(target=prepare, name="prepare", daemon=True).start()
    yield
    with contextlib.suppress(Exception):  # rows that are not kept are made again
        await anyio.to_thread.run_sync(parts.listing().keep)


def _reading(parts: _Parts, version: str, read_only: bool) -> list[tuple[str, str, Handler]]:
    library, readings, programs = parts.library, parts.readings, parts.programs

    def of_run(module: str, function: str) -> Handler:
        return lambda asked: _payload(module, function)(readings(), library.run(asked.part["id"]))

    def about(asked: Asked) -> dict[str, Any]:
        from etude.control.mailbox import who_asks

        folders = [shorten(folder, 200) for folder in library.folders]
        return {"version": version, "folders": folders, "read_only": read_only, "user": who_asks()}

    def recipe(asked: Asked) -> Any:
        other = asked.query.get("against", "default")
        against = None if other == "default" else library.run(other)
        return _payload("recipes", "run_recipe")(library.run(asked.part["id"]), against)

    def report_file(name: str, kind: str, asked: Asked) -> Download:
        name = name.format(**asked.part)
        content = _payload("writing", "report_file")(library.run(asked.part["id"]), name)
        end = name.rpartition(".")[2]
        return Download(content, kind, None if end == "svg" else f"{asked.part['id']}.{end}", _SANDBOX)

    return [
        ("GET", "/api/about", about),
        ("GET", "/api/runs", lambda asked: parts.listing().payload(library, asked.query.get("since"))),
        ("GET", "/api/runs/{id}", lambda asked: _payload("page", "run_page")(
            library, readings(), asked.part["id"])),
        ("GET", "/api/runs/{id}/series", functools.partial(_series, library)),
        ("GET", "/api/runs/{id}/series.csv", functools.partial(_csv, library)),
        ("GET", "/api/runs/{id}/samples", of_run("writing", "samples")),
        ("GET", "/api/runs/{id}/recipe", recipe),
        ("GET", "/api/runs/{id}/report", lambda asked: _payload("writing", "report")(
            library.run(asked.part["id"]), f"/api/runs/{asked.part['id']}/report")),
        ("GET", "/api/runs/{id}/report/{name}.svg", functools.partial(
            report_file, "{name}.svg", "image/svg+xml")),
        ("GET", "/api/runs/{id}/report.md", functools.partial(
            report_file, "report.md", "text/markdown; charset=utf-8")),
        ("GET", "/api/runs/{id}/report.html", functools.partial(
            report_file, "report.html", "text/html; charset=utf-8")),
        ("GET", "/api/runs/{id}/data", lambda asked: _payload("data", "data_page")(
            readings(), programs(), library.run(asked.part["id"]),
            thorough=asked.query.get("thorough") == "1")),
        ("GET", "/api/runs/{id}/log", lambda asked: _payload("writing", "log")(
            library.run(asked.part["id"]), int(asked.number("tail", 200, 1, _MOST_LINES) or 1),
            asked.query.get("file", "log.txt"))),
        ("GET", "/api/compare", lambda asked: _payload("side_by_side", "compare")(
            library, programs(), asked.names("runs", _MOST_RUNS), asked.query.get("baseline"))),
        ("GET", "/api/sweeps/{id}", lambda asked: parts.sweeps().page(library, asked.part["id"])),
        ("GET", "/api/sweeps/{id}/report.md", lambda asked: Download(
            parts.sweeps().report(library, asked.part["id"]), "text/markdown; charset=utf-8",
            f"{asked.part['id']}.md", _SANDBOX)),
        ("GET", "/api/system", lambda asked: parts.machine().page(library)),
        ("GET", "/api/schema", lambda asked: _payload("recipes", "schema")()),
    ]  # fmt: skip


def _writing(parts: _Parts) -> list[tuple[str, str, Handler]]:
    library = parts.library

    def folder() -> Path:
        found: Path = _payload("starting", "places")(library)[0]
        return found

    def estimate(asked: Asked) -> Any:
        return _payload("recipes", "estimate")(parts.programs(), asked.text("toml"), folder())

    def rows(asked: Asked) -> Any:
        given = None
        if "path" in asked.body:
            given = _payload("recipes", "Given")(asked.text("path"))
        elif "rows" in asked.body:
            given = _payload("recipes", "Given")(asked.text("name"), asked.text("rows"))
        return _payload("recipes", "preview")(parts.programs(), asked.text("toml"), folder(), given=given)

    def start(asked: Asked) -> Any:
        return parts.starts().start(library, asked.text("toml"), anew=asked.body.get("new") is True)

    return [
        ("POST", "/api/runs/{id}/requests", lambda asked: parts.requests().post(
            library.run(asked.part["id"]), asked.body)),
        ("GET", "/api/runs/{id}/requests/{request}", lambda asked: parts.requests().answers(
            library.run(asked.part["id"]), asked.part["request"])),
        ("POST", "/api/check", lambda asked: _payload("recipes", "check")(
            asked.text("toml"), folder(), asked.changes())),
        ("POST", "/api/estimate", estimate),
        ("POST", "/api/rows", rows),
        ("POST", "/api/start", start),
        ("GET", "/api/start/{start}", lambda asked: parts.starts().look(library, asked.part["start"])),
    ]  # fmt: skip


def _once(module: str, name: str, *given: Callable[[], Any]) -> Callable[[], Any]:
    """A function for an object of a payload module, which the first thread that asks imports and makes."""
    turn, found = (
        threading.Lock(),
        functools.cache(lambda: _payload(module, name)(*(each() for each in given))),
    )

    def get() -> Any:
        with turn:
            return found()

    return get


def _payload(module: str, function: str) -> Callable[..., Any]:
    """A function of a payload module, imported when it is first asked for."""
    found: Callable[..., Any] = getattr(import_module(f"etude.ui.{module}"), function)
    return found


def _series(library: Library, asked: Asked) -> Any:
    run, names = library.run(asked.part["id"]), asked.names("names", _MOST_NAMES)
    axis, low = asked.query.get("axis", "step"), asked.number("from", None, -1e18, 1e18)
    high, points = asked.number("to", None, -1e18, 1e18), asked.number("points", 1000, 2, _MOST_POINTS)
    at, half_life = asked.steps("at", _MOST_STEPS), asked.number("half_life", None, 1, 1e15)
    return _payload("series", "read_series")(
        run, names, axis, low=low, high=high, points=int(points or 2), at=at, half_life=half_life
    )


def _csv(library: Library, asked: Asked) -> Download:
    run, names = library.run(asked.part["id"]), asked.names("names", _MOST_NAMES)
    lines = _payload("series", "csv_lines")(run, names, asked.query.get("axis", "step"))
    lines = itertools.chain([next(lines)], lines)  # a journal that cannot be read is told, not cut off
    return Download(lines, "text/csv; charset=utf-8", f"{asked.part['id']}.csv")


async def _answer(
    handler: Handler,
    limiter: Callable[[], anyio.CapacityLimiter],
    told: Callable[[Exception], None],
    request: Request,
) -> Response:
    try:
        body = _parse(await request.body()) if request.method == "POST" else {}
        asked = Asked(dict(request.path_params), dict(request.query_params), body)
        is_read = request.method != "POST"  # what only reads is left behind where the server ends
        found = await anyio.to_thread.run_sync(handler, asked, limiter=limiter(), abandon_on_cancel=is_read)
        if isinstance(found, Download):
            return _download(found)
        content = await anyio.to_thread.run_sync(_encode, found, limiter=limiter())
        return Response(content, media_type="application/json")
    except (EtudeError, OSError) as error:
        return problem(_status(error), shorten(error))
    except Exception as error:  # a fault of etude
        told(error)
        return problem(500, f"etude failed: {type(error).__name__}")


def problem(status: int, text: str) -> Response:
    """An error as the page takes it: one line."""
    return Response(json.dumps({"error": text}).encode(), status, media_type="application/json")


def _status(error: Exception) -> int:
    from etude.ui.requests import StateError

    kinds: list[tuple[type[Exception], int]] = [(MissingError, 404), (StateError, 409), (InputError, 400)]
    return next((status for kind, status in kinds if isinstance(error, kind)), 500)


def _parse(body: bytes) -> dict[str, Any]:
    """The object in a body. Raises: InputError."""
    try:
        value = durable.parse_json(body.decode(), Path("the body"))
    except UnicodeDecodeError:
        raise InputError("the body is not UTF-8") from None
    if not isinstance(value, dict):
        raise InputError("the body holds no JSON object")
    return value


def _encode(value: Any) -> bytes:
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:  # a number that is not finite
        from etude.records.events import plain

        return json.dumps(plain(value), allow_nan=False, separators=(",", ":")).encode()


def _download(found: Download) -> Response:
    headers = {"content-security-policy": found.policy} if found.policy else {}
    if found.name:
        stem, _, end = found.name.rpartition(".")
        safe = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in stem)
        headers["content-disposition"] = f'attachment; filename="{safe}.{end}"'
    if isinstance(found.content, bytes | str):
        return Response(found.content, headers=headers, media_type=found.kind)
    content: AsyncIterator[bytes] = iterate_in_threadpool(found.content)
    return StreamingResponse(content, headers=headers, media_type=found.kind)


async def _serve_asset(assets: dict[str, Asset], name: str | None, request: Request) -> Response:
    asset = assets.get(request.path_params["name"] if name is None else name)
    if asset is None:
        return problem(404, "there is no such file")
    headers = {"etag": asset.etag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == asset.etag:
        return Response(status_code=304, headers=headers)
    return Response(asset.content, headers=headers, media_type=asset.kind)


async def _listen(parts: _Parts, told: Callable[[Exception], None], request: Request) -> Response:
    asked = Asked({}, dict(request.query_params))
    try:
        await anyio.to_thread.run_sync(parts.prepare)  # a look at the disk, and imports, not in the loop
        from etude.ui.events import Watch, listen

        if parts.watch is None:  # made in the loop that serves
            parts.watch = Watch(parts.library, lambda: parts.listing().version(parts.library), told)
        runs, since = asked.names("runs", _MOST_RUNS), asked.names("since", _MOST_RUNS)
        return listen(parts.watch, runs, since)
    except EtudeError as error:
        return problem(_status(error), shorten(error))


async def _not_found(scope: Any, receive: Any, send: Any) -> None:
    await problem(404, "there is no such address")(scope, receive, send)
