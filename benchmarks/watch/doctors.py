"""The log doctors beside the watch, each asked by its own command in an environment of its own.

A process of that environment is `python doctors.py TOOL IN OUT`: IN holds curves as rows of a log, OUT gets
the alarms of each. Only the standard library is imported at the top. The tools are other people's code: in
their process nothing is started and nothing is connected to, and a curve has a limit of time.

An alarm is a finding that the tool calls a warning or worse. A finished log is read once. A log that grows is
read again every 20 steps, after each evaluation of the grid, as the `watch` of trainspotter and losslint and
the live monitor of gradsnitch read it; runmedic has none.
"""

import contextlib
import importlib
import io
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, float]
Alarm = dict[str, Any]
PACKAGES = ("runmedic==0.1.1", "trainspotter==0.2.6", "losslint==0.4.1", "gradsnitch==0.1.0")
NEEDED = ("numpy==2.4.6", "pandas==3.1.1")
LIMIT_SECONDS = 120
EVERY = 20  # steps between two readings of a log that grows
_FORBIDDEN = (
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "subprocess.Popen",
    "os.system",
    "os.exec",
)


def main() -> None:
    tool, curves, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    sys.addaudithook(_refuse)
    signal.signal(signal.SIGALRM, _too_long)
    judged = {}
    for name, curve in json.loads(curves.read_text()).items():
        signal.alarm(LIMIT_SECONDS)
        try:
            judged[name] = judge(tool, curve["rows"], curve["grows"])
        except Exception as error:  # foreign code may raise anything; it is told, and counts as silence
            judged[name] = {"finished": [], "growing": [], "error": f"{type(error).__name__}: {error}"}
        signal.alarm(0)
    out.write_text(json.dumps(judged))


def judge(tool: str, rows: Sequence[Row], grows: bool) -> dict[str, Any]:
    """The alarms of a tool on a finished log, and those on the same log while it grows, each rule once."""
    if tool == "gradsnitch":
        finished, live = _snitch(rows)
        return {"finished": finished, "growing": live if grows else [], "error": None}
    read = READERS[tool]
    growing = _growing(read, rows) if grows and tool != "runmedic" else []
    return {"finished": read(rows), "growing": growing, "error": None}


def _growing(read: Callable[[Sequence[Row]], list[Alarm]], rows: Sequence[Row]) -> list[Alarm]:
    """First appearance of each rule as the log grows, with the step at which it was told."""
    first: dict[str, Alarm] = {}
    last = int(rows[-1]["step"]) if rows else 0
    for step in [*range(EVERY, last, EVERY), last]:
        part = [row for row in rows if row["step"] <= step]
        with contextlib.suppress(ValueError):  # too short to be read
            for alarm in read(part):
                first.setdefault(alarm["rule"], {**alarm, "step": step})
    return list(first.values())


def runmedic(rows: Sequence[Row]) -> list[Alarm]:
    (log,) = _said("runmedic", ["diagnose", "LOG", "--json"], rows)
    return [_alarm(each["check"], each["step"]) for each in log["findings"] if each["severity"] != "info"]


def trainspotter(rows: Sequence[Row]) -> list[Alarm]:
    found = _said("trainspotter", ["analyze", "LOG", "--output", "json"], rows)["findings"]
    return [
        _alarm(f"{each['detector']}: {each['title']}", each["step_start"])
        for each in found
        if each["severity"] != "info"
    ]


def losslint(rows: Sequence[Row]) -> list[Alarm]:
    found = _said("losslint", ["check", "LOG", "--format", "json"], rows)["findings"]
    return [
        _alarm(each["check"], min(each["details"].get("steps") or [None]))
        for each in found
        if each["severity"] != "info"
    ]


READERS = {"runmedic": runmedic, "trainspotter": trainspotter, "losslint": losslint}
TOOLS = (*READERS, "gradsnitch")


def _snitch(rows: Sequence[Row]) -> tuple[list[Alarm], list[Alarm]]:
    """Alarms of gradsnitch's monitor at the end, and the errors that it tells while it is fed."""
    gradsnitch = importlib.import_module("gradsnitch")
    live: list[Alarm] = []
    fed, step = feeds(rows), 0
    monitor = gradsnitch.watch(
        check_every=EVERY, on_alert=lambda found: live.append(_alarm(f"{found.code} {found.name}", step))
    )
    with contextlib.redirect_stdout(io.StringIO()):
        for feed in fed:
            step = feed["step"]
            monitor.log(**feed)
        found = monitor.report() if fed else []
    return [_alarm(f"{each.code} {each.name}") for each in found], live


def feeds(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Arguments of `Monitor.log` at each training step, an evaluation with the training step before it.

    gradsnitch takes an empty cell of the loss for NaN, so an evaluation must not be a row of its own.
    """
    names = {"loss": "loss", "grad_norm": "grad_norm", "learning_rate": "lr", "update_ratio": "update_ratio"}
    made: list[dict[str, Any]] = []
    waiting = None
    for row in rows:
        if "loss" in row:
            feed: dict[str, Any] = {names[name]: row[name] for name in names if name in row}
            made.append({"step": int(row["step"]), "val_loss": waiting, **feed})
            waiting = None
        if "eval_loss" in row:
            if made:
                made[-1]["val_loss"] = row["eval_loss"]
            else:
                waiting = row["eval_loss"]
    return made


def _said(tool: str, command: list[str], rows: Sequence[Row]) -> Any:
    """The JSON that a command of a tool prints of a log. Raises: ValueError with its message if none."""
    run = importlib.import_module(f"{tool}.cli").main
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.jsonl"
        log.write_text("".join(json.dumps(row) + "\n" for row in rows))
        out, errors, code = io.StringIO(), io.StringIO(), None
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            try:
                run([str(log) if part == "LOG" else part for part in command])
            except SystemExit as end:
                code = end.code
    if not out.getvalue().strip():
        raise ValueError(str(code) if isinstance(code, str) else errors.getvalue().strip())
    return json.loads(out.getvalue())


def _alarm(rule: str, step: float | None = None) -> Alarm:
    return {"rule": rule, "step": None if step is None else int(step)}


def _refuse(event: str, arguments: Any) -> None:
    if event.startswith(_FORBIDDEN):
        raise PermissionError(f"{event} is not for a reader of logs")


def _too_long(number: int, frame: Any) -> None:
    raise TimeoutError(f"over {LIMIT_SECONDS} s on one curve")


if __name__ == "__main__":
    main()
