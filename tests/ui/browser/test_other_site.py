"""A page of another port of loopback, to which the browser sends our cookie, can read and change nothing."""

import http.server
import threading
from pathlib import Path
from typing import Any

from etude.control.mailbox import FILE
from tests.report.runs import attempt, new_run, window
from tests.ui.browser.conftest import PATIENCE_MS
from tests.ui.serving import serving

ATTACK = """<!doctype html><title>other</title><img src="{ours}/api/runs"><iframe src="{ours}/"></iframe>
<form id="f" method="post" enctype="text/plain" target="t" action="{ours}/api/runs/{run}/requests">
<input name='{{"action": "stop", "a": "' value='"}}'></form><iframe name="t"></iframe><script>
const asks = [];
for (const type of ["text/plain", "application/x-www-form-urlencoded"])
  asks.push(fetch("{ours}/api/runs/{run}/requests", {{method: "POST", mode: "no-cors", credentials: "include",
    headers: {{"content-type": type}}, body: '{{"action": "stop"}}'}}));
asks.push(fetch("{ours}/api/runs/{run}/requests", {{method: "POST", credentials: "include", headers:
  {{"content-type": "application/json", "x-etude": "1"}}, body: '{{"action": "stop"}}'}}));
asks.push(fetch("{ours}/api/runs", {{credentials: "include"}}));
asks.push(new Promise((done) => {{ const heard = new EventSource("{ours}/api/events", {{withCredentials: true}});
  heard.onerror = () => {{ heard.close(); done(0); }}; heard.onopen = () => done(1); }}));
asks.push(new Promise((done) => {{ document.querySelector("[name=t]").onload = () => done(0); f.submit(); }}));
Promise.allSettled(asks).then((found) => {{ window.found = found.map((each) => each.value?.type ?? each.value ?? each.status); }});
</script>"""


def test_images_frames_forms_and_requests_of_another_port_are_refused_and_write_nothing(
    tmp_path: Path, chromium: Any
) -> None:
    """Pages of others in the browser of this user, which it even counts as of our own site."""
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 5))
    with serving(tmp_path) as server:
        ours = f"http://127.0.0.1:{server.port}"
        page = ATTACK.format(ours=ours, run=writer.run.info["id"]).encode()

        class Other(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/html")
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, *_: object) -> None:
                return

        other = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other)
        threading.Thread(target=other.serve_forever, daemon=True).start()
        context = chromium.new_context()
        window_of_both = context.new_page()
        window_of_both.goto(server.address.link)
        window_of_both.goto("about:blank")
        answers: list[tuple[str, int]] = []
        context.on("response", lambda found: answers.append((found.url, found.status)))
        window_of_both.goto(f"http://127.0.0.1:{other.server_port}/")
        window_of_both.wait_for_function("() => window.found", timeout=PATIENCE_MS)
        found = window_of_both.evaluate("window.found")
        context.close()
        other.shutdown()
        other.server_close()
    assert found[:5] == [*["rejected"] * 4, 0]
    refused = [status for url, status in answers if url.startswith(ours)]
    assert len(refused) >= 2 and set(refused) == {403}  # those that a browser tells: of frames and the form
    assert not (writer.run.path / FILE).exists()
    writer.close("stopped")
