"""The application of the page: its files, which are there at once, and its routes, which follow."""

import contextlib
import functools
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from etude.ui.answering import Told, failure, problem
from etude.ui.library import Library
from etude.ui.static import Asset, read_assets

if TYPE_CHECKING:
    from etude.ui.routes import Routes

_FRAMES = 4  # of a fault, that are shown


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
    once = functools.cache(told)

    def tell(error: Exception) -> None:
        once("".join(traceback.format_exception(error, limit=-_FRAMES)).rstrip())

    def make() -> "Routes":
        from etude.ui.routes import Routes

        return Routes(library, version, read_only=read_only, told=tell)

    later = _Later(make, tell)
    routes = [
        Route("/", functools.partial(_serve_asset, assets, "index.html"), methods=["GET"]),
        Route("/static/{name:path}", functools.partial(_serve_asset, assets, None), methods=["GET"]),
    ]
    lifespan = functools.partial(_lifespan, later)
    return Router(routes, redirect_slashes=False, default=later, lifespan=lifespan)


@dataclass
class _Later:
    """The routes as an application that is imported and made once, by the first thread that needs it."""

    make: Callable[[], "Routes"]
    told: Told
    _turn: threading.Lock = field(default_factory=threading.Lock)
    routes: "Routes | None" = None

    def get(self) -> "Routes":
        with self._turn:
            self.routes = self.routes or self.make()
            return self.routes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            routes = self.routes
            if routes is None:
                routes = await anyio.to_thread.run_sync(self.get)
        except Exception as error:
            await failure(error, self.told)(scope, receive, send)
            return
        await routes.router(scope, receive, send)


@contextlib.asynccontextmanager
async def _lifespan(later: _Later, app: Router) -> AsyncIterator[None]:
    def prepare() -> None:  # while the browser opens
        with contextlib.suppress(Exception):  # whoever asks for the same is told
            later.get().prepare()

    threading.Thread(target=prepare, name="prepare", daemon=True).start()
    yield
    with contextlib.suppress(Exception):  # rows that are not kept are made again
        if later.routes:
            await anyio.to_thread.run_sync(later.routes.keep)


async def _serve_asset(assets: dict[str, Asset], name: str | None, request: Request) -> Response:
    asset = assets.get(request.path_params["name"] if name is None else name)
    if asset is None:
        return problem(404, "there is no such file")
    headers = {"etag": asset.etag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == asset.etag:
        return Response(status_code=304, headers=headers)
    return Response(asset.content, headers=headers, media_type=asset.kind)
