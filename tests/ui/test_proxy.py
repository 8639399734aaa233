"""Behind a proxy that serves it below a path, the page works as it does alone, and no check is weaker."""

import http.client
import json
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest

from etude.errors import InputError
from etude.ui.gate import Proxy
from tests.report.runs import finished_run
from tests.ui.proxying import Proxying, proxying
from tests.ui.serving import JSON, PATIENCE_SECONDS, serving

HUB = "https://hub.example/user/me%40x/proxy/8171/"


def ask(at: Proxying, url: str, *, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", at.port, timeout=PATIENCE_SECONDS)
    parts = urlsplit(url)
    connection.request(method, f"{parts.path}?{parts.query}", b"{}" if method == "POST" else None, headers)
    return connection.getresponse()


@pytest.mark.parametrize(
    ("path", "strips", "says_url"),
    [
        ("/proxy/8171", True, False),
        ("/user/me%40x/proxy/8171", True, True),
        ("/absproxy/8171", False, True),
        ("/user/me%40x/absproxy/8171", False, True),
    ],
)
def test_the_link_leads_into_the_page_below_the_path_of_a_proxy_and_its_cookie_stays_there(
    path: str, strips: bool, says_url: bool, tmp_path: Path
) -> None:
    run = finished_run(tmp_path).info["id"]
    with (
        proxying(path, strips=strips) as (proxy, leads_to),
        serving(tmp_path, url=proxy.url if says_url else None) as served,
    ):
        leads_to.append(served.port)
        link = f"{proxy.url}?token={served.address.token}"
        assert not says_url or served.address.link == link
        answer = ask(proxy, link)
        cookie = answer.getheader("set-cookie", "")
        assert answer.status == 303 and urljoin(link, answer.getheader("location")) == proxy.url
        assert "path=" not in cookie.lower()  # so it is of the folder of the link
        headers = {"cookie": cookie.partition(";")[0]}
        origin = f"http://127.0.0.1:{proxy.port}"
        index = ask(proxy, proxy.url, **headers).read().decode()
        for address in ("static/app.js", "static/style.css"):
            assert address in index
            assert ask(proxy, urljoin(proxy.url, address), **headers).status == 200
        rows = json.load(ask(proxy, urljoin(proxy.url, "api/runs"), **headers))["runs"]
        assert [row["id"] for row in rows] == [run]
        checked = ask(proxy, urljoin(proxy.url, "api/check"), method="POST", origin=origin, **headers, **JSON)
        assert checked.status == 400 and b"the body has no text toml" in checked.read()
        heard = ask(proxy, urljoin(proxy.url, f"api/events?runs={run}&since=0"), **headers)
        while not heard.readline().startswith(b"event: points"):
            pass
        heard.close()


@pytest.mark.parametrize("host", ["hub.example", "hub.example:443", "HUB.example", "localhost:8171"])
def test_a_proxy_with_a_name_and_a_scheme_of_its_own_is_let_through_when_its_address_was_given(
    host: str,
) -> None:
    with proxying("/user/me%40x/proxy/8171", host=host) as (proxy, leads_to), serving(url=HUB) as served:
        leads_to.append(served.port)
        assert served.address.link.startswith(f"{HUB}?token=")
        answer = ask(proxy, f"{proxy.url}?token={served.address.token}")
        is_outside = "hub" in host.lower()
        assert ("; Secure" in answer.getheader("set-cookie", "")) == is_outside
        headers = {**JSON, "cookie": served.cookie, "origin": "https://hub.example"}
        assert ask(proxy, f"{proxy.url}api/check", method="POST", **headers).status == 400  # by the route


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("evil.example", None), ("hub.example.evil.example", None), ("hub.example:8443", None),
        ("hub.example.", None), ("hub.example", "http://hub.example"), ("hub.example", "https://evil.example"),
        ("hub.example", "https://hub.example:8443"), ("hub.example", "null"), ("localhost", "https://localhost"),
        ("localhost", "https://evil.example"),
    ],
)  # fmt: skip
def test_other_names_and_pages_are_refused_as_without_a_proxy(host: str, origin: str | None) -> None:
    with serving(url=HUB) as served:
        given = {"origin": origin} if origin else {}
        assert served.ask("/api/about", host=host, **given)[0] == 403
        forwarded = {"x-forwarded-host": "hub.example", "x-forwarded-proto": "https"}
        assert served.ask("/api/about", host=host, **given, **forwarded)[0] == 403


def test_without_its_address_a_proxy_with_a_name_of_its_own_is_refused() -> None:
    with serving() as served:
        assert served.ask("/api/about", host="hub.example")[0] == 403
        assert served.ask("/user/me/proxy/8171/api/about")[0] == 404


def test_below_the_path_of_a_proxy_no_path_leads_to_another_file() -> None:
    with serving(url=HUB) as served:
        for path in ("static/../../server.py", "static/..%2f..%2fserver.py", "../etc/passwd", "/etc/passwd"):
            assert served.ask(f"/user/me%40x/proxy/8171/{path}")[0] in (400, 404)


@pytest.mark.parametrize(
    "url",
    [
        "", "hub.example", "/proxy/8171/", "ftp://hub.example/", "https://hub.example/?a=b", "https://u:p@hub.example/",
        "https://hub.example/a b/", "https://hub.example/api/", "http://h\n/", "https://[::1", "https:///x/",
        "https://hub.example/../x//", "javascript:alert(1)",
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(InputError, match=r"--url (is|has the path) .*") as told:
        Proxy.parse(url)
    assert "\n" not in str(told.value)
