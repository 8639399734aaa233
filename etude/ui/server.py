"""The server of the page: its sockets, its link, and its end."""

import contextlib
import errno
import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from etude import durable
from etude.errors import InputError, StorageError
from etude.ui.app import make_app
from etude.ui.gate import LOOPBACK, Gate, Proxy
from etude.ui.library import Library

if TYPE_CHECKING:
    import uvicorn

PORT = 8171
_MOST_PORTS = 50  # that are tried after the usual one
_KEEP_ALIVE_SECONDS = 15
_LARGEST_HEADERS = 1 << 16  # bytes; other servers on this machine add their cookies
_WILDCARDS = ("0.0.0.0", "::")


@dataclass(frozen=True)
class Address:
    """The open sockets of a server, and the link that lets a browser in.

    names  by which a browser may call this server
    proxy  by which a browser may come, too
    """

    sockets: list[socket.socket]
    link: str
    token: str
    names: frozenset[str]
    proxy: Proxy | None = None


def open_address(
    host: str | None = None, port: int | None = None, url: str | None = None, *, usual: int = PORT
) -> Address:
    """Listen on a port of the loopback addresses, or of one host, and make the token of this start.

    Without a port it is the `usual` one, or the next that is free. url: of the page at a proxy.

    Raises: InputError if the given port is taken, the host is no address of this machine, or the URL is none.
    """
    proxy = None if url is None else Proxy.parse(url)
    hosts = ["127.0.0.1", "::1"] if host is None else [host]
    sockets = _listen(hosts, port, usual)
    token, at = secrets.token_hex(32), sockets[0].getsockname()[1]
    name = "127.0.0.1" if host is None or host in _WILDCARDS else _in_brackets(host)
    place = f"{proxy.origin}{proxy.path}" if proxy else f"http://{name}:{at}"
    return Address(sockets, f"{place}/?token={token}", token, _names(host), proxy)


def make_server(
    library: Library,
    address: Address,
    version: str,
    *,
    read_only: bool = False,
    started: Callable[[], None] = lambda: None,
    told: Callable[[str], None] = lambda text: None,
) -> "uvicorn.Server":
    """A server of the page, which `run(address.sockets)` runs until Ctrl-C.

    started  is called once it answers
    told     is called with each fault of etude, once
    """
    app = make_app(library, version, read_only=read_only, told=told)
    return serve(Gate(app, address.token, address.names, read_only, address.proxy), started)


def serve(gate: Gate, started: Callable[[], None], most_connections: int | None = None) -> "uvicorn.Server":
    """A server of what stands behind a gate; arguments as for `make_server`."""
    import uvicorn

    from etude.ui import connections

    class Connection(connections.Connection):
        @property
        def most(self) -> int:
            return most_connections or super().most

    config = uvicorn.Config(
        gate, http=Connection, ws="none", loop="asyncio", lifespan="on", log_config=None, access_log=False,
        server_header=False, date_header=False, proxy_headers=False, timeout_graceful_shutdown=0,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS, h11_max_incomplete_event_size=_LARGEST_HEADERS,
    )  # fmt: skip
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):  # strangers would fill the terminal
        logging.getLogger(name).disabled = True

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started()

    return Server(config)


def open_browser(link: str) -> None:
    """Open the link on a desktop: by a file that this user alone can read, as others see command lines."""
    import webbrowser

    if not _is_desktop():
        return
    with contextlib.suppress(OSError, StorageError, InputError, webbrowser.Error):
        path = durable.cache_folder("ui") / "open.html"
        durable.make_folder(path.parent)
        page = f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={link}">'
        durable.write_file(path, page.encode(), private=True)
        webbrowser.open(path.absolute().as_uri())


def _is_desktop() -> bool:
    if os.geteuid() == 0 or os.environ.get("SSH_CONNECTION") or not sys.stdout.isatty():
        return False
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _listen(hosts: list[str], port: int | None, usual: int) -> list[socket.socket]:
    """A listening socket for each host, all of the same port. Raises: InputError."""
    wanted = [port] if port is not None else [*range(usual, usual + _MOST_PORTS), 0]
    for each in wanted:
        try:
            return _listen_at(hosts, each)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES) or port is not None:
                what = error.strerror or str(error)
                raise InputError(
                    f"port {each} of {hosts[0]} cannot be listened on: {what}; give another --port or --host"
                ) from None
    raise InputError(f"no port from {usual} on is free; give one with --port")


def _listen_at(hosts: list[str], port: int) -> list[socket.socket]:
    with contextlib.ExitStack() as opened:
        sockets: list[socket.socket] = []
        for host in hosts:
            family, _, _, _, at = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            try:
                each = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                port = sockets[0].getsockname()[1] if sockets else port
                each.bind((at[0], port, *at[2:]))
                each.listen(128)
            except OSError as error:
                if not sockets or error.errno == errno.EADDRINUSE:
                    raise
                continue  # a machine without IPv6
            each.setblocking(False)
            sockets.append(each)
        opened.pop_all()
        return sockets


def _names(host: str | None) -> frozenset[str]:
    """Names of this server: those of loopback, and the given host; of `any`, those of the machine."""
    if host is None:
        return LOOPBACK
    if host not in _WILDCARDS:
        return LOOPBACK | {_in_brackets(host).lower()}
    import psutil

    found = {address.address.split("%")[0] for each in psutil.net_if_addrs().values() for address in each}
    addresses = {_in_brackets(each) for each in found if each.count(".") == 3 or ":" in each}
    return LOOPBACK | addresses | {socket.gethostname().lower(), socket.getfqdn().lower()}


def _in_brackets(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def default_folders() -> list[Path]:
    """The folders in which commands look: runs and sweeps here; runs alone if there is neither."""
    return [path for path in (Path("runs"), Path("sweeps")) if path.is_dir()] or [Path("runs")]
