"""What came to a run reaches those who listen, once, and costs nothing while nobody does."""

import asyncio
import itertools
import json
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from etude.records.events import Control, Finding, Generation
from etude.ui import connections, events, series
from etude.ui.library import Library
from etude.ui.listing import Listing
from etude.ui.readings import Readings
from tests.processes import wait_for
from tests.report.runs import attempt, evaluation, finished_run, new_run, window
from tests.ui.serving import Serving, serving


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(events, "LOOK_SECONDS", 0.05)


def listen(served: Serving, query: str) -> Iterator[tuple[str, Any]]:
    """The events as a browser gets them."""
    connection = served.open()
    connection.request("GET", f"/api/events?{query}", headers={"cookie": served.cookie})
    answer = connection.getresponse()
    assert answer.status == 200 and answer.getheader("content-type", "").startswith("text/event-stream")
    name = ""
    try:
        while line := answer.readline():
            if line.startswith(b"event: "):
                name = line[7:].strip().decode()
            elif line.startswith(b"data: "):
                yield name, json.loads(line[6:])
            elif line.startswith(b": "):
                yield "comment", None
    finally:
        connection.close()


def wait(found: Iterator[tuple[str, Any]], name: str) -> Any:
    return next(value for each, value in found if each == name)


def test_new_points_and_records_come_once_from_the_place_that_was_known(tmp_path: Path) -> None:
    writer = new_run(tmp_path / "runs")
    writer.append(attempt(), *window(1, 10), evaluation(10, 3.0))
    run = writer.run.info["id"]
    with serving(tmp_path / "runs") as served:
        size = served.get(f"/api/runs/{run}/series?names=train/loss")["size"]
        assert size == (writer.run.path / "journal.jsonl").stat().st_size
        heard = listen(served, f"runs={run}&since={size}")
        state = wait(heard, "state")
        assert (state["state"], state["step"]) == ("running", 10) and state["heartbeat_age"] < 60
        writer.append(
            *window(11, 13), Finding(13, "the loss rises", "e", "a"), Control(13, "set", "x\n\nevent: x")
        )
        points = wait(heard, "points")
        assert points["run"] == run and points["series"]["train/loss"]["x"]["step"] == [11, 12, 13]
        assert len(points["series"]["train/loss"]["y"]) == 3 and "validation/loss" not in points["series"]
        entries = wait(heard, "entries")
        assert [each["what"] for each in entries["findings"]] == ["the loss rises"]
        assert entries["controls"][0]["reason"] == "x\n\nevent: x"
        size = entries["size"]
        heard.close()  # type: ignore[attr-defined]
        writer.append(Generation(13, "p", "t", {}))
        heard = listen(served, f"runs={run}&since={size}")
        assert wait(heard, "entries")["samples"][0]["text"] == "t"
        writer.close("stopped")
        assert next(value for name, value in heard if name == "state" and value["state"] == "stopped")


def test_a_listener_is_told_to_ask_again_after_a_restart_and_when_it_missed_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = new_run(tmp_path / "runs")
    writer.append(attempt(), *window(1, 10))
    run = writer.run.info["id"]
    with serving(tmp_path / "runs") as served:
        size = served.get(f"/api/runs/{run}/series")["size"]
        heard = listen(served, f"runs={run}&since={size}")
        wait(heard, "state")
        writer.append(attempt(2, 5), *window(6, 8))
        assert wait(heard, "again")["size"] > size
        assert wait(listen(served, f"runs={run}&since={10**12}"), "again")["run"] == run
        monkeypatch.setattr(events, "_MOST_BYTES", 100)
        assert wait(listen(served, f"runs={run}&since=0"), "again")["run"] == run
    writer.close("stopped")


def test_the_list_hears_of_new_runs(tmp_path: Path) -> None:
    finished_run(tmp_path / "runs")
    with serving(tmp_path / "runs") as served:
        heard = listen(served, "")
        first = wait(heard, "runs")["version"]
        finished_run(tmp_path / "runs")
        assert wait(heard, "runs")["version"] != first


def test_the_list_hears_of_figures_that_were_made_later(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "runs")
    readings, library = Readings(), Library([tmp_path / "runs"])
    listing = Listing(readings)

    async def hear() -> list[str]:
        watch = events.Watch(library, lambda: listing.version(library))
        found = []
        async for frame in watch.listen([], []):
            if frame.startswith(b"event: runs"):
                found.append(json.loads(frame.split(b"data: ")[1])["version"])
                if len(found) == 2:
                    break
                await anyio.to_thread.run_sync(readings.summary, run, 60.0)
        return found

    before, after = anyio.run(hear)
    assert before != after == listing.version(library)


def test_a_comment_comes_while_nothing_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "COMMENT_SECONDS", 0.2)
    with serving(tmp_path) as served:
        wait(listen(served, ""), "comment")


def test_all_listeners_share_a_look_and_nobody_means_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished_run(tmp_path / "runs").info["id"]
    looks: list[int] = []
    whole = events.Watch._look_at
    monkeypatch.setattr(
        events.Watch,
        "_look_at",
        lambda self, runs, is_slow: (looks.append(len(runs)), whole(self, runs, is_slow))[1],
    )
    monkeypatch.setattr(events, "LOOK_SECONDS", 0.02)
    with serving(tmp_path / "runs") as served:
        heard = [listen(served, f"runs={run}") for _ in range(5)]
        for each in heard:
            wait(each, "state")
        assert set(looks) == {1}
        for each in heard:
            each.close()  # type: ignore[attr-defined]

        def is_still() -> bool:
            before = len(looks)
            time.sleep(0.5)
            return len(looks) == before

        wait_for(is_still)  # once the server has noticed


def test_a_client_that_takes_nothing_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow clients, and floods of events: what is not taken is not kept for them."""
    monkeypatch.setattr(connections, "WRITE_SECONDS", 0.3)
    monkeypatch.setattr(events, "_MOST_BYTES", 1 << 30)
    writer = new_run(tmp_path / "runs")
    writer.append(attempt())
    run = writer.run.info["id"]
    with serving(tmp_path / "runs") as served, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", served.port))
        head = f"GET /api/events?runs={run}&since=0 HTTP/1.1\r\nhost: localhost\r\ncookie: {served.cookie}\r\n\r\n"
        slow.sendall(head.encode())
        text = "x" * 100_000
        for step in range(400):
            writer.append(Generation(step, "p", text, {}))
        slow.settimeout(60)

        def is_dropped() -> bool:
            try:
                slow.send(b"x")
            except OSError:
                return True
            return False

        wait_for(is_dropped)
    writer.close("stopped")


@pytest.mark.parametrize(
    "query", ["runs=nothing", "runs=a&since=x", "since=-1", f"runs={'a,' * 300}", "since=1e5"]
)
def test_odd_questions_are_refused(tmp_path: Path, query: str) -> None:
    with serving(tmp_path) as served:
        status, _, body = served.ask(f"/api/events?{query}")
        assert status in (400, 404) and body.startswith(b'{"error"')


def test_a_listener_hears_on_while_a_long_journal_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(events, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(events, "LOOK_SECONDS", 0.01)
    writer = new_run(tmp_path / "runs")
    writer.append(attempt(steps=2000))
    for first in range(1, 2001, 10):
        writer.append(*window(first, first + 9))
    writer.close("stopped")
    run = writer.run.info["id"]
    with serving(tmp_path / "runs") as served:
        found = served.get(f"/api/runs/{run}/series?names=train/loss&points=5000")
        assert 0 < found["read"] < 1
        heard, steps = listen(served, f"runs={run}&since={found['size']}"), found["series"]["train/loss"]["x"]
        while len(steps) < 2000:
            steps += wait(heard, "points")["series"]["train/loss"]["x"]["step"]
        assert steps == list(range(1, 2001))


def test_what_a_look_takes_in_while_points_are_sent_comes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = new_run(tmp_path / "runs")
    writer.append(attempt(), *window(1, 10))
    run, library = writer.run.info["id"], Library([tmp_path / "runs"])
    watch = events.Watch(library, lambda: "")
    make = events.Watch._make_frames

    def make_while_a_look_goes_on(self: events.Watch, identity: str, place: int, size: int) -> bytes:
        frames = [make(self, identity, place, size)]
        if not place:
            for first in (11, 21):  # before these points are read, and after
                writer.append(*window(first, first + 9))
                self._look_at([run], False)
                frames.append(make(self, identity, place, size))
        return frames[len(frames) // 2]

    monkeypatch.setattr(events.Watch, "_make_frames", make_while_a_look_goes_on)
    monkeypatch.setattr(events, "COMMENT_SECONDS", 0.2)  # after which a listener looks without being woken

    async def hear() -> list[int]:
        steps = list[int]()
        async for frame in watch.listen([run], [0]):
            for part in frame.split(b"\n\n"):
                if part.startswith(b"event: points"):
                    steps += json.loads(part.split(b"data: ")[1])["series"]["train/loss"]["x"]["step"]
            if 30 in steps:
                break
        return steps

    assert anyio.run(hear) == list(range(1, 31))
    writer.close("stopped")


def test_a_value_that_is_not_finite_is_named_and_a_heartbeat_that_stays_away_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "COMMENT_SECONDS", 0.2)
    writer = new_run(tmp_path / "runs")
    writer.append(attempt(), *window(1, 3, bad=(2,)))
    with serving(tmp_path / "runs") as served:
        heard = listen(served, f"runs={writer.run.info['id']}&since=0")
        found = dict(next(heard) for _ in range(2))
        assert found["points"]["series"]["train/loss"]["y"][1] == "nan"
        assert wait(heard, "state")["heartbeat_age"] > found["state"]["heartbeat_age"]
        heard.close()  # type: ignore[attr-defined]
    writer.close("stopped")


def test_who_listens_to_a_run_that_is_removed_is_told_so_once_and_again_when_it_is_back(
    tmp_path: Path,
) -> None:
    run = finished_run(tmp_path / "runs")
    identity = run.info["id"]
    with serving(tmp_path / "runs") as served:
        heard = listen(served, f"runs={identity}&since=0")
        first = wait(heard, "state")
        assert (first["state"], first["step"]) == ("finished", 40)
        shutil.move(run.path, tmp_path / "kept")
        gone = wait(heard, "state")
        assert (gone["state"], gone["step"], gone["heartbeat_age"]) == ("removed", 40, None)
        assert served.ask(f"/api/runs/{identity}")[0] == 404
        shutil.move(tmp_path / "kept", run.path)
        assert wait(heard, "state")["state"] == "finished"
        heard.close()  # type: ignore[attr-defined]


def test_a_run_that_was_removed_before_it_was_looked_at_is_told_as_removed(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "runs")
    watch = events.Watch(Library([tmp_path / "runs"]), lambda: "")
    identity = run.info["id"]
    shutil.rmtree(run.path)
    assert watch._look_at([identity], True) and watch.seen[identity].state == "removed"


def test_what_is_kept_for_other_listeners_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Floods of events: of large records as many bytes as are allowed stay in memory."""
    monkeypatch.setattr(events, "_MOST_FRAME_BYTES", 250_000)
    writer = new_run(tmp_path / "runs")
    writer.append(attempt())
    path, sizes = writer.run.path / "journal.jsonl", list[int]()
    for step in range(5):
        sizes.append(path.stat().st_size)
        writer.append(Generation(step, "p", "x" * 100_000, {}))
    sizes.append(path.stat().st_size)
    watch = events.Watch(Library([tmp_path / "runs"]), lambda: "")

    async def ask() -> list[bytes]:
        identity = writer.run.info["id"]
        return [await watch._frames_of(identity, *each) for each in itertools.pairwise(sizes)]

    assert all(len(each) > 100_000 for each in asyncio.run(ask()))
    assert len(watch._frames) == 2
    writer.close("stopped")
