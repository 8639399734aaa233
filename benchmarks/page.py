"""Time and memory of the page: long and many runs, zoom, and the cost of a page that is left open.

    python benchmarks/page.py --steps 1000000 --runs 500 --long-runs 3
    python benchmarks/page.py --part peers --steps 1000000       # beside TensorBoard, in turn
    python benchmarks/page.py --part training     # none, five tabs of chromium, 200 slow sockets, in turn
    python benchmarks/page.py --part readers      # five readers as on other machines
    python benchmarks/page.py --part memory --steps 1000000 --long-runs 72

Journals are written by the journal's own writer. The server is a process of its own, `etude ui`; a request is
timed from here, over loopback, with all that is read of its answer.
"""

import argparse
import bisect
import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

ROOT = Path(__file__).parents[1]
NAMES = "train/loss,validation/loss,learning_rate,grad_norm,tokens_per_second,rss_bytes"
TURNS = 20
WINDOW_SECONDS = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=500, help="small runs that are listed; 0 for none")
    parser.add_argument(
        "--long-runs", type=int, default=1, help="runs of so many steps, whose memory is measured"
    )
    parser.add_argument("--idle-seconds", type=float, default=20.0)
    parser.add_argument("--folder", type=Path, help="where runs are made and kept; else they are removed")
    parser.add_argument("--part", choices=["all", "peers", "training", "readers", "memory"], default="all")
    parser.add_argument("--turns", type=int, default=3, help="of peers and of training")
    parser.add_argument("--training-steps", type=int, default=3000)
    given = parser.parse_args()
    if given.part != "all":
        run_part(given)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        long, many = make_runs(folder, given.steps, given.runs, given.long_runs)
        figures = measure(folder, long, many, given.idle_seconds)
    result = {"steps": given.steps, "runs": given.runs, "long_runs": given.long_runs, **figures}
    print(json.dumps(result, indent=1))
    (ROOT / "benchmarks/results/page.json").write_text(json.dumps(result, indent=1) + "\n")


def run_part(given: argparse.Namespace) -> None:
    """Measure one part, and write it beside the others."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        if given.part == "training":
            figures: dict[str, Any] = measure_training(folder, given.training_steps, given.turns)
        elif given.part == "readers":
            figures = measure_readers(folder, given.training_steps)
        else:
            long, _ = make_runs(folder, given.steps, 0, 1 if given.part == "peers" else given.long_runs)
            if given.part == "peers":
                figures = measure_peers(folder, long[0], given.steps, given.turns)
            else:
                figures = measure_memory(folder, long)
    result = {**vars(given), "folder": None, "load": os.getloadavg()[0], **figures}
    print(json.dumps(result, indent=1))
    (ROOT / f"benchmarks/results/page-{given.part}.json").write_text(json.dumps(result, indent=1) + "\n")


def measure_peers(folder: Path, identity: str, steps: int, turns: int) -> dict[str, list[float]]:
    """First chart of a run by a new server, and one more, here and in TensorBoard."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    events = folder / "tensorboard"
    if not events.exists():
        writer, chance = EventFileWriter(str(events / "run")), random.Random(1)
        for step in range(1, steps + 1):
            value = Summary.Value(tag="loss", simple_value=2 + 4 / step + 0.1 * chance.random())
            writer.add_event(Event(step=step, wall_time=step / 4, summary=Summary(value=[value])))
        writer.close()
    found: dict[str, list[float]] = {}
    for _ in range(turns):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "ETUDE_CACHE": str(folder / "cache")}
        shutil.rmtree(folder / "cache", ignore_errors=True)
        begun = time.perf_counter()
        with Page(folder / "long", environment) as page:
            page.get(series(identity))
            found.setdefault("etude_first_chart_seconds", []).append(time.perf_counter() - begun)
            page.read_whole(identity)
            found.setdefault("etude_whole_chart_seconds", []).append(time.perf_counter() - begun)
            found.setdefault("etude_zoom_seconds", []).append(page.clock(series(identity, 1000, 2000)))
        first, whole, again = clock_tensorboard(events, steps)
        found.setdefault("tensorboard_first_chart_seconds", []).append(first)
        found.setdefault("tensorboard_whole_chart_seconds", []).append(whole)
        found.setdefault("tensorboard_again_seconds", []).append(again)
    return found


def clock_tensorboard(events: Path, steps: int) -> tuple[float, float, float]:
    """Seconds from the start of TensorBoard to its first points, to those of the last step, and once more."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(events), "--port", str(port)]
    begun, first = time.perf_counter(), 0.0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?run=run&tag=loss"
    try:
        while True:
            with contextlib.suppress(OSError, ValueError):
                points = json.load(urllib.request.urlopen(address, timeout=600))
                first = first or time.perf_counter() - begun
                if points[-1][1] >= steps:
                    break
            if process.poll() is not None or time.perf_counter() - begun > 900:
                raise SystemExit("TensorBoard did not show all steps in 15 minutes")
            time.sleep(0.05)
        whole = time.perf_counter() - begun
        begun = time.perf_counter()
        json.load(urllib.request.urlopen(address, timeout=600))
        return first, whole, time.perf_counter() - begun
    finally:
        process.terminate()
        process.wait(30)


def measure_training(folder: Path, steps: int, turns: int) -> dict[str, Any]:
    """Seconds of a training of some steps alone, with five open pages, and with 200 slow sockets, in turn.

    The CPU of the training alone says what a page makes it do more. Where fewer cores are free than
    processes run, its wall time also says what the scheduler gives to the browsers, whose CPU stands beside
    it, as that of the server does. The training has one thread, as threads that wait for each other spin
    where another process has their core.
    """
    found: dict[str, list[dict[str, float]]] = {"alone": [], "five pages": [], "200 slow sockets": []}
    for turn in range(len(found) * turns):
        name, runs = list(found)[turn % len(found)], folder / f"runs-{turn}"
        program, environment = program_of(folder, runs, steps)
        found[name].append(run_beside(name, runs, program, environment))
    middle = {
        name: {key: statistics.median(each[key] for each in taken) for key in taken[0]}
        for name, taken in found.items()
    }
    slowed = {
        name: {key: round(100 * (each[key] / middle["alone"][key] - 1), 2) for key in ("seconds", "cpu")}
        for name, each in middle.items()
    }
    return {**found, "slowed_percent": slowed, "cores": os.cpu_count()}


def program_of(folder: Path, runs: Path, steps: int) -> tuple[list[str], dict[str, str]]:
    """The command and the environment of a training of one thread, with nothing but steps."""
    sys.path.insert(0, str(ROOT))
    from tests.bases import write_corpus
    from tests.recipes import tiny

    slow = {"train.steps": steps, "evaluate.every_steps": steps, "checkpoint.every_steps": steps}
    runs.mkdir(parents=True)
    values = tiny(write_corpus(folder / "corpus.jsonl"), slow)
    (folder / "recipe.json").write_text(json.dumps(values))
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "ETUDE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return [
        sys.executable,
        str(ROOT / "tests/steered.py"),
        str(folder / "recipe.json"),
        str(runs),
        "{}",
    ], environment


def measure_readers(folder: Path, steps: int) -> dict[str, Any]:
    """Compare the steps of one training with and without a server that five readers ask, second by second.

    The server is halted every other second, so that what the machine does in the long run cancels: a second
    with the server is held against the two without it beside it. It then sends what came in two seconds, so
    that its cost is counted twice. The readers stand for browsers on other machines: they read and keep nothing.
    """
    runs = folder / "runs"
    spans: list[tuple[float, float]] = []
    program, environment = program_of(folder, runs, steps)
    with Page(runs, environment) as page:
        process = subprocess.Popen(program, env=environment)
        while not (rows := page.get("/api/runs")["runs"]) or not rows[0].get("step"):
            time.sleep(0.5)
        served = page.cpu()
        with Readers(page, rows[0]["id"], 5):
            while process.poll() is None:
                page.halt(len(spans) % 2 == 0)
                begun = time.time()
                time.sleep(WINDOW_SECONDS)
                spans.append((begun, time.time()))
            page.halt(False)
        served = page.cpu() - served
    journal = next(runs.glob("*/journal.jsonl"))
    records = (json.loads(line) for line in journal.read_text().splitlines() if '"type": "step"' in line[:40])
    taken: list[list[float]] = [[] for _ in spans]
    for record in records:
        at = bisect.bisect_right(spans, (record["time"], float("inf"))) - 1
        if at >= 0 and record["time"] < spans[at][1]:
            taken[at].append(record["seconds"])
    whole = [at for at in range(1, len(spans) - 2) if all(taken[at - 1 : at + 2])]

    def slower(statistic: Callable[[list[float]], float], odd: int) -> dict[str, float]:
        each = [
            100 * (2 * statistic(taken[at]) / (statistic(taken[at - 1]) + statistic(taken[at + 1])) - 1)
            for at in whole
            if at % 2 == odd
        ]
        error = statistics.stdev(each) / len(each) ** 0.5
        return {
            "median": round(statistics.median(each), 2), "mean": round(statistics.mean(each), 2),
            "standard_error": round(error, 2),
        }  # fmt: skip

    return {
        "seconds_with_server": sum(at % 2 for at in whole),
        "steps_slower_percent": slower(statistics.median, 1),
        "mean_step_slower_percent": slower(statistics.mean, 1),
        "steps_slower_without_server_percent": slower(statistics.median, 0),
        "server_cpu_seconds": round(served, 2),
        "step_seconds": round(statistics.median(each for window in taken for each in window), 5),
    }


class Readers:
    """Listeners to a run in the place of open pages; each asks for its charts again after 300 new steps."""

    def __init__(self, page: "Page", identity: str, count: int) -> None:
        self._page, self._identity, self._is_over = page, identity, threading.Event()
        self._threads = [threading.Thread(target=self._read) for _ in range(count)]

    def __enter__(self) -> "Readers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _read(self) -> None:
        size = self._page.get(series(self._identity))["size"]
        stream = self._page.stream(f"/api/events?runs={self._identity}&since={size}")
        came = 0
        while not self._is_over.is_set():
            line = stream.readline()
            came += (
                line.count(b",") // 20 if line.startswith(b'data: {"run"') else 0
            )  # some twenty figures a step
            if came >= 300:
                came = 0
                for name in NAMES.split(","):
                    self._page.get(f"/api/runs/{self._identity}/series?names={name}&points=600")
        stream.close()


def run_beside(name: str, runs: Path, program: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Wall and CPU seconds of a training with what stands beside it, and the CPU of that."""
    with contextlib.ExitStack() as opened:
        page = opened.enter_context(Page(runs, environment)) if name != "alone" else None
        tabs = opened.enter_context(Tabs(5)) if name == "five pages" else None
        served, begun = page.cpu() if page else 0.0, time.perf_counter()
        process = subprocess.Popen(program, env=environment)
        if page and tabs:
            rows: list[Any] = []
            while not rows and psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
                rows = page.get("/api/runs")["runs"]
                time.sleep(0.2)
            tabs.open([page.link, *[f"{page.place}/#/run/{row['id']}" for row in rows]])
        if page and name == "200 slow sockets":
            for _ in range(200):
                each = opened.enter_context(socket.create_connection(page.at))
                each.sendall(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx: ")
        _, code, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
        if process.returncode:
            raise SystemExit("the training failed")
        return {
            "seconds": round(time.perf_counter() - begun, 2),
            "cpu": round(used.ru_utime + used.ru_stime, 2),
            "user": round(used.ru_utime, 2),
            "system": round(used.ru_stime, 2),
            "taken_off_its_core": used.ru_nivcsw,
            "server_cpu": round(page.cpu() - served, 2) if page else 0.0,
            "browser_cpu": tabs.cpu() if tabs else 0.0,
        }


class Tabs:
    """Chromium with some tabs on one run, and the CPU of all its processes."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> "Tabs":
        from playwright.sync_api import sync_playwright

        path = shutil.which("chromium")
        if path is None:
            raise SystemExit("chromium is absent: install the package of this name")
        playwright = self._opened.enter_context(sync_playwright())
        flags = ["--headless", "--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        self._opened.callback(browser.close)
        self._context = browser.new_context()
        self._context.set_default_timeout(600_000)  # of a machine that has much else to do
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def open(self, addresses: list[str]) -> None:
        """Open the link, and then the page of the run in each tab."""
        tabs = [self._context.new_page() for _ in range(self._count)]
        for address in addresses:
            for tab in tabs:
                tab.goto(address)

    def cpu(self) -> float:
        """CPU seconds that all processes of the browser took so far."""
        total = 0.0
        for each in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                total += sum(each.cpu_times()[:2]) if "chrom" in each.name() else 0.0
        return round(total, 2)


def measure_memory(folder: Path, long: list[str]) -> dict[str, Any]:
    """Memory of the server once every long run was listed, read whole, drawn, and its page made."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ETUDE_CACHE": str(folder / "cache")}
    with Page(folder / "long", environment) as page:
        for identity in long:
            page.read_whole(identity)
            page.clock(series(identity))
            page.get(f"/api/runs/{identity}")
        page.get("/api/runs")
        return {"memory_mb": page.memory(), "runs": len(long)}


def make_runs(folder: Path, steps: int, runs: int, long_runs: int) -> tuple[list[str], Path]:
    """Ids of runs of many steps, and a folder of small runs that have ended."""
    sys.path.insert(0, str(ROOT))
    from etude.records.events import Evaluation, Resource, Step
    from tests.report.runs import attempt, finished_run, new_run

    many, long = folder / "many", folder / "long"
    if runs and not many.exists():
        small = finished_run(many)
        for index in range(runs - 1):
            copy = many / f"small-{index:06d}"
            shutil.copytree(small.path, copy)
            info = json.loads((copy / "run.json").read_text())
            (copy / "run.json").write_text(json.dumps({**info, "id": copy.name}))
    if not long.exists():
        writer, chance = new_run(long), random.Random(1)
        writer.append(attempt(steps=steps, steps_per_epoch=max(steps // 10, 1)))
        for first in range(1, steps + 1, 1000):
            events: list[Any] = []
            for step in range(first, min(first + 1000, steps + 1)):
                loss, norm = 2 + 4 / step + 0.1 * chance.random(), 3 * chance.random()
                seconds, wait = 0.25 + 0.01 * chance.random(), 0.001 * chance.random()
                rate = 1e-3 * (1 - step / steps)
                events.append(Step(step, 0, loss, norm, rate, 16384, 8, seconds, wait, False, 16384))
                if step % 10 == 0:
                    events.append(Resource(step, 65_000 + chance.random(), 0.3, 0.01, 150.5, 10**9))
            events.append(Evaluation(step, 2.5 + chance.random(), 12.0, 0.9, 1000, 1.0, False))
            writer.append(*events)
        writer.close("finished")
        for index in range(long_runs - 1):
            copy = long / f"long-{index:03d}"
            shutil.copytree(writer.run.path, copy, ignore=shutil.ignore_patterns("journal.jsonl"))
            os.link(writer.run.path / "journal.jsonl", copy / "journal.jsonl")  # columns are each run's own
            info = json.loads((copy / "run.json").read_text())
            (copy / "run.json").write_text(json.dumps({**info, "id": copy.name}))
    return [json.loads((path / "run.json").read_text())["id"] for path in sorted(long.iterdir())], many


def measure(folder: Path, long: list[str], many: Path, idle_seconds: float) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ETUDE_CACHE": str(folder / "cache")}
    shutil.rmtree(folder / "cache", ignore_errors=True)
    figures: dict[str, Any] = {}
    with Page(folder / "long", environment) as page:
        figures["start_seconds"], figures["load"] = page.started, os.getloadavg()[0]
        figures["first_chart_without_cache_seconds"] = page.clock(series(long[0]))
        figures["whole_chart_without_cache_seconds"] = (
            page.read_whole(long[0]) + figures["first_chart_without_cache_seconds"]
        )
        zooms = [page.clock(series(long[0], *span)) for span in spans(TURNS)]
        figures["zoom_seconds"] = {"median": statistics.median(zooms), "most": max(zooms)}
        figures["memory_one_run_mb"] = page.memory()
        for identity in long[1:]:
            page.read_whole(identity)
        for identity in long:
            page.clock(series(identity))
        figures["memory_all_long_runs_mb"] = page.memory()
    with Page(folder / "long", environment) as page:
        figures["first_chart_with_cache_seconds"] = page.clock(series(long[0]))
        page.listen(f"/api/events?runs={long[0]}&since={page.get(series(long[0]))['size']}")
        figures["idle_percent_of_a_core"] = page.idle(idle_seconds)
    if not many.exists():
        return figures
    cold = {**environment, "ETUDE_CACHE": str(folder / "cold")}  # no row is kept from an earlier start
    with Page(many, cold) as page:
        figures["list_seconds_as_the_server_starts"] = page.clock("/api/runs")
    shutil.rmtree(folder / "cold", ignore_errors=True)
    with Page(many, cold) as page:
        time.sleep(1)  # as long as a browser takes to show its first page
        figures["list_seconds_first"] = page.clock("/api/runs")
        figures["list_seconds_again"] = statistics.median(page.clock("/api/runs") for _ in range(TURNS))
        version = page.get("/api/runs")["version"]
        figures["list_unchanged_seconds"] = page.clock(f"/api/runs?since={version}")
        page.listen("/api/events")
        figures["idle_list_percent_of_a_core"] = page.idle(idle_seconds)
    return figures


class Page:
    """A server in a process of its own, and a client that has its cookie."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        begun = time.perf_counter()
        command = [sys.executable, "-m", "etude", "ui", str(folder), "--no-open", "--port", "0"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self._process.stdout is not None
        self.link = self._process.stdout.readline().strip()
        link = urlsplit(self.link)
        self.started = round(time.perf_counter() - begun, 3)
        self.at, self.place = (str(link.hostname), int(link.port or 0)), f"http://{link.netloc}"
        connection = http.client.HTTPConnection(*self.at)
        connection.request("GET", f"/?{link.query}")
        self._cookie = connection.getresponse().getheader("set-cookie", "").split(";")[0]
        connection.close()
        self._open: list[http.client.HTTPConnection] = []

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._open:
            connection.close()
        self._process.terminate()
        self._process.wait(30)

    def get(self, path: str) -> Any:
        connection = http.client.HTTPConnection(*self.at, timeout=600)
        connection.request("GET", path, headers={"cookie": self._cookie})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {body[:200]!r}")
        return json.loads(body)

    def clock(self, path: str) -> float:
        begun = time.perf_counter()
        self.get(path)
        return round(time.perf_counter() - begun, 4)

    def read_whole(self, identity: str) -> float:
        """Seconds until all of a long journal is in its chart."""
        begun = time.perf_counter()
        while self.get(series(identity))["read"] < 1:
            pass
        return round(time.perf_counter() - begun, 4)

    def stream(self, path: str) -> http.client.HTTPResponse:
        """An answer that goes on."""
        connection = http.client.HTTPConnection(*self.at, timeout=600)
        connection.request("GET", path, headers={"cookie": self._cookie})
        return connection.getresponse()

    def listen(self, path: str) -> None:
        """Keep a page open that listens."""
        connection = http.client.HTTPConnection(*self.at, timeout=600)
        connection.request("GET", path, headers={"cookie": self._cookie})
        connection.getresponse()
        self._open.append(connection)
        time.sleep(2)

    def idle(self, seconds: float) -> float:
        """Share of a core (%) that the server takes while nothing happens."""
        before = self.cpu()
        time.sleep(seconds)
        return round(100 * (self.cpu() - before) / seconds, 3)

    def halt(self, is_halted: bool) -> None:
        """Stop the server where it stands, or let it go on."""
        self._process.send_signal(signal.SIGSTOP if is_halted else signal.SIGCONT)

    def cpu(self) -> float:
        """CPU seconds that the server took so far."""
        return float(sum(psutil.Process(self._process.pid).cpu_times()[:2]))

    def memory(self) -> float:
        """Resident memory of the server in MB."""
        return round(psutil.Process(self._process.pid).memory_info().rss / 1e6, 1)


def series(identity: str, low: float | None = None, high: float | None = None) -> str:
    between = "" if low is None else f"&from={low}&to={high}"
    return f"/api/runs/{identity}/series?names={NAMES}&points=1000{between}"


def spans(count: int) -> list[tuple[float, float]]:
    """Ranges of steps, from all of a million to some hundred."""
    chance = random.Random(2)
    found = []
    for index in range(count):
        width = 10 ** (6 - 4 * index / count)
        low = chance.random() * (1e6 - width)
        found.append((low, low + width))
    return found


if __name__ == "__main__":
    main()
