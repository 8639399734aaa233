"""The threats against a page on loopback, one test a row."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from etude.ui import gate
from etude.ui.app import make_app
from etude.ui.library import Library
from etude.ui.routes import Routes
from tests.report.runs import finished_run
from tests.ui.serving import JSON, Serving, serving

ROUTES = [
    (method, route.path)
    for route in [
        *make_app(Library([]), "1").routes,
        *Routes(Library([]), "1", read_only=False, told=print).router.routes,
    ]
    if isinstance(route, Route)
    for method in sorted((route.methods or set()) - {"HEAD"})
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("runs")
    finished_run(folder)
    with serving(folder) as found:
        yield found


def paths_of(route: str, identity: str) -> str:
    names = {"{id}": identity, "{name:path}": "index.html", "{name}": "loss", "{request}": "0a1b"}
    for part, value in names.items():
        route = route.replace(part, value)
    return route


def raw(served: Serving, request: bytes) -> bytes:
    """The answer to bytes as they are, until the server ends the connection."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as client:
        client.sendall(request)
        answer = b""
        while piece := client.recv(1 << 16):
            answer += piece
        return answer


@pytest.mark.parametrize(("method", "route"), ROUTES)
@pytest.mark.parametrize("cookie", ["", "etude-00000000=0", "WRONG", "EMPTY", "TWICE"])
def test_no_route_answers_without_the_token(served: Serving, method: str, route: str, cookie: str) -> None:
    name, _, token = served.cookie.partition("=")
    given = {"WRONG": f"{name}={'0' * 64}", "EMPTY": f"{name}=", "TWICE": f"{name}={token}; {name}=x"}
    headers = {**JSON, "cookie": given.get(cookie, cookie)}
    status, _, body = served.ask(paths_of(route, "x"), method=method, body=b"{}", **headers)
    assert status == 401 and b"open the link" in body


def test_the_link_gives_a_cookie_and_leads_to_an_address_without_the_token(served: Serving) -> None:
    status, headers, _ = served.ask(f"/?token={served.address.token}", cookie="")
    assert (status, headers["location"]) == (303, "./")
    assert headers["set-cookie"].split("; ") == [served.cookie, "HttpOnly", "SameSite=Strict"]
    status, headers, body = served.ask(
        f"/?token={served.address.token}", cookie="", **{"sec-fetch-site": "cross-site"}
    )
    assert status == 200 and b"url=./" in body and served.address.token.encode() not in body
    for wrong in (
        "",
        "0" * 64,
        served.address.token[:-1],
        served.address.token + "0",
        "%00",
        "%c3%a9",
        "x&a=1" * 20,
    ):
        assert served.ask(f"/?token={wrong}", cookie="")[0] == 401


HOSTS = {
    "127.0.0.1": 200, "127.0.0.1:8171": 200, "localhost": 200, "localhost:9": 200, "LOCALHOST": 200,
    "[::1]": 200, "[::1]:8171": 200, "localhost.": 403, "127.0.0.1.": 403, "evil.example": 403,
    "127.0.0.1.evil.example": 403, "localhost.evil.example": 403, "evil.example:8171": 403, "0.0.0.0": 403,
    "127.1": 403, "2130706433": 403, "::1": 403, "[::ffff:127.0.0.1]": 403, "127.0.0.1:": 403,
    "127.0.0.1:99999": 403, "127.0.0.1:80@evil.example": 403, "localhost, evil.example": 403,
    "localhost evil": 403, "": 403, "0x7f.1": 403,
}  # fmt: skip


@pytest.mark.parametrize(("host", "status"), HOSTS.items())
def test_only_the_names_of_this_server_are_answered(served: Serving, host: str, status: int) -> None:
    assert served.ask("/api/about", host=host)[0] == status


def test_a_missing_and_a_second_host_are_refused(served: Serving) -> None:
    cookie = f"cookie: {served.cookie}\r\n".encode()
    for hosts in (
        b"",
        b"host: localhost\r\nhost: evil.example\r\n",
        b"host: localhost\r\nhost: localhost\r\n",
    ):
        answer = raw(served, b"GET /api/about HTTP/1.1\r\n" + hosts + cookie + b"\r\n")
        assert answer.split(b" ")[1] in (b"400", b"403")
    answer = raw(served, b"GET /api/about HTTP/1.0\r\n" + cookie + b"\r\n")
    assert answer.split(b" ")[1] == b"403"


@pytest.mark.parametrize(("method", "route"), ROUTES)
@pytest.mark.parametrize(
    "header",
    [
        ("origin", "http://evil.example"), ("origin", "null"), ("origin", "http://127.0.0.1:1"),
        ("origin", "https://127.0.0.1"), ("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site"),
    ],
)  # fmt: skip
def test_no_route_answers_another_page(
    served: Serving, method: str, route: str, header: tuple[str, str]
) -> None:
    headers = {**JSON, header[0]: header[1]}
    assert served.ask(paths_of(route, "x"), method=method, body=b"{}", **headers)[0] == 403


def test_our_own_page_is_answered(served: Serving) -> None:
    origin = f"http://127.0.0.1:{served.port}"
    assert served.ask("/api/about", origin=origin, **{"sec-fetch-site": "same-origin"})[0] == 200
    assert served.ask("/api/about", host="localhost:9000", origin="http://localhost:9000")[0] == 200  # ssh -L


@pytest.mark.parametrize("route", [route for method, route in ROUTES if method == "POST"])
def test_what_a_form_can_send_changes_nothing(served: Serving, route: str) -> None:
    path = paths_of(route, "x")
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        headers = {"content-type": kind, "x-etude": "1"}
        assert served.ask(path, method="POST", body=b"{}", **headers)[0] == 415
    assert served.ask(path, method="POST", body=b"{}", **{"content-type": "application/json"})[0] == 403
    assert served.ask(path, body=b"{}", **JSON)[0] in (404, 405)  # GET


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "FOO"])
def test_other_methods_are_refused(served: Serving, method: str) -> None:
    status, headers, _ = served.ask("/api/runs", method=method, origin=f"http://127.0.0.1:{served.port}")
    assert status == 405 and not any(name.startswith("access-control") for name in headers)


def test_every_answer_has_the_headers_that_bind_a_browser(served: Serving) -> None:
    for path in ("/", "/api/about", "/api/nothing", "/static/index.html", "/static/nothing"):
        for cookie in (served.cookie, ""):
            _, headers, _ = served.ask(path, cookie=cookie)
            assert "default-src 'self'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            for part in ("frame-ancestors", "base-uri", "form-action", "object-src"):
                assert f"{part} 'none'" in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cross-origin-opener-policy"] == "same-origin"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert headers["cache-control"] == (
                "no-cache" if path.endswith(("/", "index.html")) and cookie else "no-store"
            )
            assert not any(name.startswith("access-control") for name in headers)


def test_a_body_over_the_limit_is_refused_with_a_length_and_without(served: Serving) -> None:
    large = b" " * (gate.MOST_BODY_BYTES + 1)
    status, _, body = served.ask("/api/check", method="POST", body=large, **JSON)
    assert status == 413 and b"1,048,576" in body
    head = (
        f"POST /api/check HTTP/1.1\r\nhost: localhost\r\ncookie: {served.cookie}\r\nx-etude: 1\r\n"
        "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as client:
        client.sendall(head.encode() + chunk * 16)
        client.sendall(b"10000\r\n ")  # one byte too many: no more is sent, which its end would leave unread
        assert client.recv(1000).startswith(b"HTTP/1.1 413 ")
    status, _, body = served.ask("/api/check", method="POST", body=large[:-1], **JSON)
    assert status == 400 and b"not valid JSON" in body


def test_a_body_that_does_not_come_in_time_is_refused(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "BODY_SECONDS", 0.2)
    head = (
        f"POST /api/check HTTP/1.1\r\nhost: localhost\r\ncookie: {served.cookie}\r\nx-etude: 1\r\n"
        "content-type: application/json\r\ncontent-length: 5\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as client:
        client.sendall(head.encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"1", b"null", b"{", b"\xff", b'{"a": 1, "a": 2}', b"[" * 100_000, b'{"a":' * 50_000]
)
def test_a_body_that_is_no_object_is_refused_in_one_line(served: Serving, body: bytes) -> None:
    status, _, answer = served.ask("/api/check", method="POST", body=body, **JSON)
    assert status == 400 and json.loads(answer)["error"]


def test_a_server_that_only_shows_takes_no_post(tmp_path: Path) -> None:
    with serving(tmp_path, read_only=True) as served:
        assert served.get("/api/about")["read_only"] is True
        for route in [route for method, route in ROUTES if method == "POST"]:
            status, answer = served.post(paths_of(route, "x"), {})
            assert (status, "only shows" in answer["error"]) == (403, True)


PAYLOADS = [
    place + payload
    for place in ("/static/", "/api/runs/", "/api/runs/x/report/", "/")
    for payload in (
        "../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "%252e%252e%252fetc%252fpasswd",
        "..\\..\\etc\\passwd", "..%5c..%5cetc%5cpasswd", "index.html%00.js", "%00", "//etc/passwd",
        "/etc/passwd", "%2fetc%2fpasswd", "file:///etc/passwd", "%c0%ae%c0%ae/etc/passwd", "....//etc/passwd",
        "..;/etc/passwd", "./../server.py", "~root/.ssh/id_rsa", "C:/windows/win.ini", "%e0%80%ae/etc/passwd",
        "vendor/../../server.py",
    )
]  # fmt: skip


@pytest.mark.parametrize("path", PAYLOADS)
def test_no_path_leads_to_a_file_outside_of_the_table(served: Serving, path: str) -> None:
    request = (
        f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncookie: {served.cookie}\r\n\r\n"
    )
    answer = raw(served, request.encode("latin-1"))
    assert answer.split(b" ")[1] in (b"404", b"400") and b"root:" not in answer and b"import" not in answer


def test_a_secret_of_the_environment_is_in_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-4711")
    (tmp_path / "secret.txt").write_text("canary-4711")
    run = finished_run(tmp_path / "runs")
    with serving(tmp_path / "runs") as served:
        for method, route in ROUTES:
            if route != "/api/events":
                path = paths_of(route, run.info["id"])
                _, headers, body = served.ask(path, method=method, body=b'{"toml": "x = 1"}', **JSON)
                assert b"canary" not in body and served.address.token.encode() not in body
                assert served.address.token not in str(headers)
