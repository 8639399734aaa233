"""Sockets, link and end of the server."""

import socket
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psutil
import pytest

from etude.errors import InputError
from etude.ui import server
from etude.ui.server import open_address
from tests.ui.serving import serving


def test_it_listens_on_loopback_alone() -> None:
    """Others in the network: no other address of this machine answers at its port."""
    with serving() as served:
        found = [
            each.laddr.ip
            for each in psutil.Process().net_connections("tcp")
            if each.status == psutil.CONN_LISTEN and each.laddr.port == served.port
        ]
        assert "127.0.0.1" in found and set(found) <= {"127.0.0.1", "::1"}
        families = (socket.AF_INET, socket.AF_INET6)
        addresses = [each for every in psutil.net_if_addrs().values() for each in every]
        for each in addresses:
            if each.family in families and each.address not in ("127.0.0.1", "::1"):
                with pytest.raises(OSError), socket.create_connection((each.address, served.port), 10):
                    pass


def test_a_browser_gets_the_link_by_a_file_of_this_user_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Other users of this machine, who see every command line: the token is in none, and in no open file."""
    opened: list[str] = []
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path))
    monkeypatch.setattr(server, "_is_desktop", lambda: True)
    monkeypatch.setattr("webbrowser.open", opened.append)
    server.open_browser("http://127.0.0.1:1/?token=4711")
    (path,) = (Path(unquote(urlsplit(each).path)) for each in opened)
    assert "4711" not in opened[0] and "token=4711" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_usual_port_gives_way_to_the_next_and_a_given_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(server, "PORT", port)
        address = open_address()
        assert address.sockets[0].getsockname()[1] != port
        for each in address.sockets:
            each.close()
        with pytest.raises(
            InputError, match=f"port {port} of 127.0.0.1 cannot be listened on: .* give another"
        ):
            open_address(port=port)


def test_a_host_that_is_no_address_of_this_machine_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="cannot be listened on"):
        open_address("192.0.2.1", 0)


def test_each_start_has_a_token_of_256_bits_in_its_link() -> None:
    first, second = open_address(port=0), open_address(port=0)
    assert first.token != second.token and len(bytes.fromhex(first.token)) == 32
    assert first.link.endswith(f"/?token={first.token}")
    for each in first.sockets + second.sockets:
        each.close()


def test_a_given_host_is_a_name_of_the_server_and_any_host_are_those_of_the_machine() -> None:
    address = open_address("0.0.0.0", 0)
    assert socket.gethostname().lower() in address.names and "127.0.0.1" in address.names
    assert "evil.example" not in address.names and "http://127.0.0.1:" in address.link
    for each in address.sockets:
        each.close()


def test_the_end_of_the_server_waits_for_no_client() -> None:
    with serving() as served:
        idle = socket.create_connection(("127.0.0.1", served.port))
    idle.close()
