"""Run folders, and paths, that no command can use."""

import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from etude.recipe.load import recipe_from, to_toml
from tests.hostile.case import Case

NAME = "small-0a1b2c"
DEEP = "[" * 100_000
INFO = {"format": 1, "id": NAME, "name": "small", "recipe_hash": "0", "created": "2026-01-01T00:00:00+00:00"}
LEASE = {"state": "finished", "heartbeat": 1.0, "host": "here", "pid": 1}


def run_folder(folder: Path) -> Path:
    """A finished run without a step."""
    path = folder / "runs" / NAME
    (path / "checkpoints").mkdir(parents=True)
    recipe = {"name": "small", "tokenizer": {"train_vocab_size": 300}, "data": {"train": [{"source": "python-stdlib"}]},
              "train": {"steps": 4, "global_batch_size": 8}}  # fmt: skip
    (path / "resolved.toml").write_text(to_toml(recipe_from(recipe)))
    (path / "run.json").write_text(json.dumps(INFO))
    (path / "lease.json").write_text(json.dumps(LEASE))
    (path / "journal.jsonl").write_bytes(line({"type": "journal", "format": 1}))
    return path


def line(record: dict[str, Any]) -> bytes:
    body = json.dumps(record)[:-1].encode()
    return body + b', "crc": "%08x"}\n' % zlib.crc32(body)


def holding(file: str, content: Any, *words: str) -> Callable[[Path], list[str]]:
    """A run one of whose files has this content, text as it is and other values as JSON."""

    def make(folder: Path) -> list[str]:
        path = run_folder(folder) / file
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return list(words or ("show", NAME))

    return make


def changed(file: str, known: dict[str, Any], **changes: Any) -> Callable[[Path], list[str]]:
    return holding(file, known | changes)


def special(
    file: str, *words: str, kind: str = "pipe", target: str = "/dev/zero"
) -> Callable[[Path], list[str]]:
    """A run one of whose files is a pipe, a link or very large."""

    def make(folder: Path) -> list[str]:
        path = run_folder(folder) / file
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "link":
            path.symlink_to(target)
        else:
            with path.open("wb") as large:
                large.truncate(100 << 30)
        return list(words or ("show", NAME))

    return make


def plain_run(*words: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        path = run_folder(folder)
        (path / "checkpoints" / "step-000004").mkdir()
        (path / "checkpoints" / "step-000004" / "manifest.json").write_text("{}")
        (folder / "link").symlink_to(path / "checkpoints")
        return list(words)

    return make


def predictions(*rows: dict[str, Any]) -> Callable[[Path], list[str]]:
    """Two runs with scores, the second of which kept other rows."""
    good = {"id": "a", "probabilities": [0.5, 0.5], "labels": [0, 1], "capability": None}
    scores = {
        "type": "scores", "time": 1.0, "step": 1, "rows": 1, "split": "test", "metric": "f1",
        "systems": {"after": {"f1": [1.0, 1.0, 1.0]}}, "gains": {}, "labels": ["x", "y"],
        "confusion": [[1, 0], [0, 0]],
    }  # fmt: skip

    def make(folder: Path) -> list[str]:
        for name, kept in (("a", [good]), ("b", list(rows))):
            path = run_folder(folder)
            (path / "predictions").mkdir()
            with (path / "journal.jsonl").open("ab") as journal:
                journal.write(line(scores))
            (path / "predictions" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
            path.rename(folder / "runs" / name)
        return ["ensemble", "a", "b"]

    return make


def words(*given: str) -> Callable[[Path], list[str]]:
    return lambda folder: list(given)


LONG = "x" * 5000
ROW = {"id": "a", "probabilities": [0.5, 0.5], "labels": [0, 1]}
CASES = [
    Case(name="run.json is a list", make=holding("run.json", []), says="run.json holds no JSON object"),
    Case(
        name="run.json without a name",
        make=holding("run.json", {"format": 1}),
        says="run.json is damaged: it has no",
    ),
    Case(
        name="run.json with a number for a name",
        make=changed("run.json", INFO, name=3),
        says="name: 3 is not a text",
    ),
    Case(
        name="run.json of a newer format",
        make=changed("run.json", INFO, format=2),
        says="format 2.*update etude",
    ),
    Case(
        name="run.json with a text for a format",
        make=changed("run.json", INFO, format="1"),
        says="format: '1' is no",
    ),
    Case(
        name="run.json nested deeply", make=holding("run.json", DEEP), says="nested too deeply|not valid JSON"
    ),
    Case(name="run.json is a pipe", make=special("run.json"), says="run.json is a pipe"),
    Case(name="run.json is a link", make=special("run.json", kind="link"), says="run.json is a link"),
    Case(name="run.json of 100 GB", make=special("run.json", kind="large"), says="larger than"),
    Case(
        name="a lease of an unknown state",
        make=changed("lease.json", LEASE, state="asleep"),
        says="lease.json is damaged: state: 'asleep' is none of",
    ),
    Case(
        name="a lease nested deeply",
        make=holding("lease.json", DEEP),
        says="nested too deeply|not valid JSON",
    ),
    Case(
        name="a lease that is a pipe",
        make=special("lease.json", "resume", NAME),
        says="lease.json is (a pipe|not a)",
    ),
    Case(
        name="a best checkpoint elsewhere",
        says="best.json is damaged: checkpoint: '../../elsewhere' is no checkpoint",
        make=holding(
            "best.json", {"checkpoint": "../../elsewhere", "metric": "loss", "value": 1.0, "step": 1}
        ),
    ),
    Case(
        name="a best value that is a text",
        says="best.json is damaged: value",
        make=holding("best.json", {"checkpoint": "step-000001", "metric": "loss", "value": "low", "step": 1}),
    ),
    Case(name="best.json is /dev/zero", make=special("best.json", kind="link"), says="best.json is a link"),
    Case(name="a journal that is a pipe", make=special("journal.jsonl"), says="journal.jsonl is a pipe"),
    Case(
        name="a journal that is /dev/zero",
        make=special("journal.jsonl", kind="link"),
        says="journal.jsonl is a link",
    ),
    Case(
        name="a journal of 100 GB",
        make=special("journal.jsonl", kind="large"),
        says="no journal: the line at byte 0 has no end",
    ),
    Case(
        name="a journal of a newer format",
        says="format 2; this etude reads up to 1",
        make=holding("journal.jsonl", line({"type": "journal", "format": 2}).decode()),
    ),
    Case(
        name="a resolved recipe that is a pipe",
        make=special("resolved.toml", "compare", NAME, NAME),
        says="resolved.toml is a pipe",
    ),
    Case(
        name="a resolved recipe that is none",
        make=holding("resolved.toml", "name = 1", "compare", NAME, NAME),
        says="resolved.toml cannot be read",
    ),
    Case(
        name="a note into a linked journal",
        make=special("journal.jsonl", "note", NAME, "x", "--section", "next", kind="link", target="/tmp"),
        says="journal.jsonl is a link, through which",
    ),
    Case(
        name="a report into a linked folder",
        make=special("report", "report", NAME, kind="link", target=".."),
        says="report is a link, through which",
    ),
    Case(
        name="checkpoints that are a link",
        make=special("checkpoints", "report", NAME, kind="link", target=".."),
        says="checkpoints is a link, through which",
    ),
    Case(
        name="a lock that is a pipe",
        make=special(".lock", "note", NAME, "x", "--section", "next"),
        says=".lock is not a plain file",
    ),
    Case(
        name="an export into a run",
        make=plain_run("export", NAME, f"runs/{NAME}/checkpoints/out", "--to", "hf"),
        says=f"is inside the folder of run {NAME}",
    ),
    Case(
        name="an export into a run through a link",
        make=plain_run("export", NAME, "link/out", "--to", "hf"),
        says=f"is inside the folder of run {NAME}",
    ),
    Case(
        name="an import into a run",
        make=plain_run("import", ".", f"runs/../runs/{NAME}/out"),
        says="is inside the",
    ),
    Case(
        name="an ensemble into a run",
        make=plain_run("ensemble", NAME, NAME, "--out", f"runs/{NAME}"),
        says="is inside the",
    ),
    Case(
        name="a recipe into a run",
        make=plain_run("init", "--data", "x", "--model", "y", "--out", "link/r.toml"),
        says="is inside the",
    ),
    Case(
        name="runs within a run", make=plain_run("demo", "--runs", f"runs/{NAME}/runs"), says="is inside the"
    ),
    Case(
        name="runs that are a device",
        make=words("runs", "--runs", "/dev/null"),
        says="/dev/null is (no|not a) folder",
    ),
    Case(
        name="runs of a show that are a device",
        make=words("show", "x", "--runs", "/dev/null"),
        says="is (no|not a) folder",
    ),
    Case(
        name="runs of a demo that are a device",
        make=words("demo", "--runs", "/dev/null"),
        says="is (no|not a) folder",
    ),
    *(
        Case(
            name=f"no checkpoint is named {choice}",
            make=plain_run("export", f"{NAME}{choice}", "out", "--to", "hf"),
            says="there is no (checkpoint|run)",
        )
        for choice in ("@", "@@best", "@step-", "@step-²", "@step--1", "@step-1_0")
    ),
    Case(
        name="an at sign alone",
        make=plain_run("export", "@best", "out", "--to", "hf"),
        says="no run is named|names no run",
    ),
    *(
        Case(name=f"{' '.join(given[:1])} with {what}", make=words(*given), says=says)
        for what, path, says in (("a NUL", "a\0b", "(NUL|null) byte"), ("a very long name", LONG, "longer"))
        for given in (
            ("check", path),
            ("show", path),
            ("runs", "--runs", path),
            ("chat", path),
            ("export", "x", path, "--to", "hf"),
            ("import", path),
            ("init", "--data", path, "--model", "x"),
            ("compare", "x", path),
            ("ensemble", "x", "y", "--out", path),
            ("note", path, "x", "--section", "next"),
        )
    ),
    Case(
        name="a prediction without an id",
        make=predictions({"labels": [0, 1]}),
        says="test.jsonl:1 is damaged: it has no",
    ),
    Case(
        name="a prediction of three labels",
        make=predictions({**ROW, "labels": [0, 1, 1]}),
        says="is not of 2 labels",
    ),
    Case(
        name="a prediction that is no share",
        make=predictions({**ROW, "probabilities": [9, 0]}),
        says="probabilities: 9",
    ),
    Case(
        name="predictions of texts",
        make=predictions({**ROW, "probabilities": "ab"}),
        says="probabilities: 'ab' is no list",
    ),
]
