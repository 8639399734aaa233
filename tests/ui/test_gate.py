"""The threats against a page on loopback, one test a row; the rows are those of docs/page.md."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from etude.recipe.load import recipe_from
from etude.run import Training
from etude.start import Options
from etude.ui import gate
from etude.ui.app import make_app
from etude.ui.exporting import export, write_page
from etude.ui.library import Library
from etude.ui.routes import Routes
from tests.bases import write_corpus
from tests.recipes import tiny
from tests.report.runs import finished_run
from tests.ui.serving import JSON, PATIENCE_SECONDS, Serving, serving

CANARY = "canary-4711"
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
    run = finished_run(folder)
    (run.path / "report").mkdir()
    (run.path / "report" / "report.md").write_text("# Report\n")
    for outside in (run.path, folder, folder.parent):
        (outside / "secret.svg").write_text(f"<svg>{CANARY}</svg>")
    (run.path / "report" / "link.svg").symlink_to(run.path / "secret.svg")
    with serving(folder) as found:
        yield found
    (folder.parent / "secret.svg").unlink()


def paths_of(route: str, identity: str) -> str:
    names = {"{id}": identity, "{name:path}": "index.html", "{name}": "loss", "{request}": "0a1b"}
    for part, value in names.items():
        route = route.replace(part, value)
    return route


def raw(served: Serving, request: bytes) -> bytes:
    """The answer to bytes as they are, until the server ends the connection."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE_SECONDS) as client:
        client.sendall(request)
        answer = b""
        while piece := client.recv(1 << 16):
            answer += piece
        return answer


@pytest.mark.parametrize(("method", "route"), ROUTES)
@pytest.mark.parametrize("cookie", ["", "etude-00000000=0", "WRONG", "EMPTY", "TWICE"])
def test_no_route_answers_without_the_token(served: Serving, method: str, route: str, cookie: str) -> None:
    """Other users of this machine, who know the port: every route there is, and no cookie or a wrong one."""
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
    """Names of others that lead to this machine (DNS rebinding), for events and the link as for all else."""
    assert served.ask("/api/about", host=host)[0] == status
    if status == 403:
        link = f"/?token={served.address.token}"
        assert {served.ask(path, host=host)[0] for path in ("/", link, "/static/app.js", "/api/events")} == {
            403
        }


def test_no_connection_becomes_a_web_socket(served: Serving) -> None:
    """Names of others that lead to this machine: there is no second protocol with rules of its own."""
    asks = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    asks["sec-websocket-key"] = "AAAAAAAAAAAAAAAAAAAAAA=="
    assert served.ask("/api/about", cookie="", **asks)[0] == 401
    assert served.ask("/api/about", host="evil.example", **asks)[0] == 403
    status, headers, _ = served.ask("/api/about", **asks)
    assert status == 200 and "upgrade" not in headers


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
    """Pages of others in the browser of this user: what such a page may send names it on every route."""
    headers = {**JSON, header[0]: header[1]}
    assert served.ask(paths_of(route, "x"), method=method, body=b"{}", **headers)[0] == 403


def test_our_own_page_is_answered(served: Serving) -> None:
    origin = f"http://127.0.0.1:{served.port}"
    assert served.ask("/api/about", origin=origin, **{"sec-fetch-site": "same-origin"})[0] == 200
    assert served.ask("/api/about", host="localhost:9000", origin="http://localhost:9000")[0] == 200  # ssh -L


@pytest.mark.parametrize("route", [route for method, route in ROUTES if method == "POST"])
def test_what_a_form_can_send_changes_nothing(served: Serving, route: str) -> None:
    """Pages of others in the browser of this user, by a form, which sends no JSON and no header of its own."""
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
    """Frames of others around the page, and what a browser might load or guess; no answer allows either."""
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
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE_SECONDS) as client:
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
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE_SECONDS) as client:
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


PAYLOADS = (
    "../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "%252e%252e%252fetc%252fpasswd",
    "..\\..\\etc\\passwd", "..%5c..%5cetc%5cpasswd", "index.html%00.js", "%00", "//etc/passwd",
    "/etc/passwd", "%2fetc%2fpasswd", "file:///etc/passwd", "%c0%ae%c0%ae/etc/passwd", "....//etc/passwd",
    "..;/etc/passwd", "./../server.py", "~root/.ssh/id_rsa", "C:/windows/win.ini", "%e0%80%ae/etc/passwd",
    "vendor/../../server.py", "../secret", "..%2fsecret", "..%5csecret", "%2e%2e%2fsecret", "secret",
    "../../secret", "..%2f..%2fsecret", "loss.svg/../../secret", "loss%00secret", "link",
)  # fmt: skip
PLACES = [
    "/static/{}", "/{}", "/api/runs/{}", "/api/runs/{}/log", "/api/runs/ID/report/{}", "/api/runs/ID/report/{}.svg",
    "/api/runs/ID/requests/{}", "/api/runs/ID/log?file={}", "/api/sweeps/{}", "/api/start/{}",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_no_path_leads_to_a_file_outside_of_the_table(served: Serving, place: str) -> None:
    """Paths: 30 in each of ten places, and beside them files and a link that wait to be found."""
    place = place.replace("ID", served.get("/api/runs")["runs"][0]["id"])
    for payload in PAYLOADS:
        asked = f"GET {place.format(payload)} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        answer = raw(served, f"{asked}cookie: {served.cookie}\r\n\r\n".encode("latin-1"))
        assert answer.split(b" ")[1] in (b"404", b"400"), payload
        assert not any(found in answer for found in (b"root:", b"import", CANARY.encode())), payload


def test_a_secret_of_the_environment_is_in_no_file_of_a_run_and_in_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secrets of this user: a run is trained and served where they are set, and each route is asked."""
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY", "ETUDE_LINE_TOKEN", "DB_PASSWORD"):
        monkeypatch.setenv(name, CANARY)
    (tmp_path / "secret.txt").write_text(CANARY)
    training = Training(
        recipe_from(tiny(write_corpus(tmp_path / "corpus.jsonl"), {"train.steps": 2})),
        Options(runs=tmp_path / "runs"),
    )
    for _ in training:
        pass
    run = training.run
    (run.path / "checkpoints" / "secret.svg").write_text(CANARY)
    files = [each for each in run.path.rglob("*") if each.is_file() and each.name != "secret.svg"]
    assert files and not any(CANARY.encode() in each.read_bytes() for each in files)
    with serving(tmp_path / "runs") as served:
        for method, route in ROUTES:
            if route != "/api/events":
                path = paths_of(route, run.info["id"])
                _, headers, body = served.ask(path, method=method, body=b'{"toml": "x = 1"}', **JSON)
                assert b"canary" not in body and served.address.token.encode() not in body, path
                assert served.address.token not in str(headers)
        connection = served.open()
        headers = {"cookie": served.cookie}
        connection.request("GET", f"/api/events?runs={run.info['id']}&since=0", headers=headers)
        told = connection.getresponse()
        heard = b"".join(iter(told.readline, b"event: state\n"))
        assert b"train/loss" in heard and b"canary" not in heard
        connection.close()
        assert served.faults == []
    assert CANARY.encode() not in write_page(export([run], "1.2.3"))
