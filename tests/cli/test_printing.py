"""Output is not worth a run; of commands that only print, what cannot be printed is an end, and not a
traceback.
"""

import json
import math
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.cli.printing import _SPELLINGS, print_json, print_rows, print_table
from etude.records.store import list_runs
from tests.conftest import Outcome
from tests.forking import server

Write = Callable[..., Path]


def start(cache: Path, *words: object, **streams: Any) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "ETUDE_CACHE": str(cache), "TERM": "xterm"}
    return subprocess.Popen([sys.executable, "-m", "etude", *map(str, words)], env=environment, **streams)


def closed_pipe() -> int:
    """The writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def test_a_run_goes_on_when_its_output_can_no_longer_be_written(
    tmp_path: Path, write_recipe: Write, cache: Path
) -> None:
    recipe, writer = write_recipe({"train.steps": 4}), closed_pipe()
    with Path("/dev/full").open("w") as full:
        environment = {**os.environ, "ETUDE_CACHE": str(cache)}
        words = ["train", recipe, "--runs", tmp_path / "runs"]
        process = server().etude(words, env=environment, stdout=full, stderr=writer)
    os.close(writer)
    assert process.wait(timeout=120) == 0
    (run,) = list_runs(tmp_path / "runs")
    assert run.state == "finished"


def test_under_nohup_a_closed_terminal_neither_stops_nor_kills_a_run(
    tmp_path: Path, write_recipe: Write, cache: Path
) -> None:
    recipe = write_recipe({"train.steps": 60, "records.log_every_steps": 1})
    terminal, end = pty.openpty()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited, as nohup does
    try:
        process = start(
            cache, "train", recipe, "--runs", tmp_path / "runs", stdout=end, stderr=end, stdin=end
        )
    finally:
        signal.signal(signal.SIGHUP, before)
    os.close(end)
    os.read(terminal, 1)  # it has begun to speak
    os.close(terminal)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=120) == 0
    (run,) = list_runs(tmp_path / "runs")
    assert run.state == "finished"


@pytest.mark.parametrize(("place", "code", "says"), [
    ("pipe", 141, b""), ("full", 1, b"error: the output cannot be written: No space left on device\n"),
])  # fmt: skip
def test_a_command_that_prints_ends_in_order_where_it_cannot(
    cache: Path, place: str, code: int, says: bytes
) -> None:
    out = closed_pipe() if place == "pipe" else os.open("/dev/full", os.O_WRONLY)
    process = start(cache, "schema", stdout=out, stderr=subprocess.PIPE)
    os.close(out)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, says)


def test_closed_streams_take_no_line_of_the_journal(
    tmp_path: Path, write_recipe: Write, cache: Path, etude: Callable[..., Outcome]
) -> None:
    recipe = write_recipe({"train.steps": 2})
    words = [sys.executable, "-m", "etude", "train", str(recipe), "--runs", str(tmp_path / "runs")]
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *words]
    assert subprocess.run(shell, check=False, env={**os.environ, "ETUDE_CACHE": str(cache)}).returncode == 0
    (run,) = list_runs(tmp_path / "runs")
    assert run.ledger().damaged == [] and run.state == "finished"


HOSTILE = "\x1b]0;PWN\x07\x1b[31mred"


@pytest.mark.parametrize(
    "said",
    [
        {"sub_configs": HOSTILE}, {"use_return_dict": HOSTILE}, {"rope_scaling": {"rope_type": HOSTILE}},
        {"architectures": [HOSTILE]}, {"problem_type": HOSTILE}, {"pad_token_id": 10**6},
    ],
    ids=lambda said: next(iter(said)),
)  # fmt: skip
def test_a_config_that_a_library_quotes_drives_no_terminal(
    said: dict[str, Any], tmp_path: Path, cache: Path
) -> None:
    from tests.bases import write_gpt2

    folder = write_gpt2(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | said))
    words = ["generate", str(folder), "--prompt", "a", "--max-tokens", "1"]
    done = server().run(
        tmp_path, words, seconds=240, environment={"ETUDE_CACHE": str(cache), "TERM": "xterm"}
    )
    assert done.code in (0, 2), done.err
    assert "\x1b" not in done.out + done.err and "\x07" not in done.err
    assert "[transformers]" not in done.err


SPEAKING = f"""
import logging, sys, threading, warnings
sys.argv = ["etude", "--version"]
from etude.cli import main
hostile = {HOSTILE!r}
def speak():
    warnings.warn(hostile)
    logging.getLogger("library").warning("%s", hostile)
    handler = logging.StreamHandler()
    logging.getLogger("other").addHandler(handler)
    logging.getLogger("other").error(hostile)
    thread = threading.Thread(target=lambda: 1 / 0, name=hostile)
    thread.start(); thread.join()
    sys.stderr.writelines([hostile])
    raise RuntimeError(hostile)
main._run = speak
main.main()
"""


def test_no_library_drives_the_terminal_by_warnings_logs_threads_or_tracebacks() -> None:
    done = subprocess.run([sys.executable, "-c", SPEAKING], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "\x1b" not in done.stderr and "\x07" not in done.stderr
    assert done.stderr.count("PWN") >= 5 and "RuntimeError" in done.stderr


def test_lines_of_libraries_above_the_live_view_are_cleaned(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from etude.cli.printing import lasting_output
from tests.report.runs import new_run
with lasting_output():
    from etude.cli.live import LiveView
    view = LiveView()
    view.show_plan(new_run(Path({str(tmp_path)!r})).run, [])
    sys.stderr.write({HOSTILE!r} + chr(10))
    view.close()
    sys.stderr.write("after")
"""
    terminal, end = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-c", program], stderr=end, env=environment)
    os.close(end)
    said = b""
    try:
        while piece := os.read(terminal, 4096):
            said += piece
    except OSError:  # the other end is closed
        pass
    assert process.wait(timeout=30) == 0
    assert b"\\x1b[31mred" in said and b"after" in said
    assert b"\x1b]0;" not in said and b"\x1b[31m" not in said
    assert b"\x1b[?25l" in said  # the view itself draws


@pytest.mark.parametrize("way", ["closed", "empty", "no UTF-8"])
def test_questions_end_where_nobody_answers(
    way: str, tmp_path: Path, write_recipe: Write, cache: Path, etude: Callable[..., Outcome]
) -> None:
    recipe = write_recipe({"train.steps": 1, "evaluate.prompts": ["a"]})
    assert etude("train", recipe, "--runs", tmp_path / "runs").code == 0
    (run,) = list_runs(tmp_path / "runs")
    for words in (["rate", run.path, "--rater", "a"], ["chat", run.path, "--max-tokens", "1"]):
        reader, writer = os.pipe()
        os.write(writer, b"\xff\xfe\0\n" if way == "no UTF-8" else b"")
        os.close(writer)
        streams = {"stdin": reader, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        if way == "closed":
            streams["preexec_fn"] = lambda: os.close(0)
            process = start(cache, *words, **streams)
        else:
            environment = {**os.environ, "ETUDE_CACHE": str(cache), "TERM": "xterm"}
            process = server().etude(words, env=environment, **streams)
        _, err = process.communicate(timeout=60)
        os.close(reader)
        assert b"Traceback" not in err and process.returncode in (0, 2), err.decode()


@pytest.mark.parametrize("size", ["9" * 22, "99999999", "-5", "0", "", "wide"])
def test_a_width_that_no_terminal_has_is_taken_for_none(
    size: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", size)
    monkeypatch.setenv("LINES", size)
    out, err = start(cache, "--help", stdout=subprocess.PIPE, stderr=subprocess.PIPE).communicate(timeout=60)
    assert "Train code language models" in out.decode() and not err
    assert max(map(len, out.decode().splitlines())) == 80


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_signs_that_an_encoding_lacks_are_spelled_and_the_text_of_others_is_escaped(encoding: str) -> None:
    words = "█▅▁ 5.0 → 2.0, 3 … ◆● │⠑⠢⠀⢄\u65e5"
    code = f"from etude.cli.printing import ready_streams; ready_streams(); print({words!r})"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    said = subprocess.check_output([sys.executable, "-c", code], env=environment)
    assert said == b"851 5.0 -> 2.0, 3 ... *o |.. .\\u65e5\n"


def test_every_sign_that_etude_prints_can_be_spelled() -> None:
    package = Path(__file__).parents[2] / "etude"
    files = [
        file for file in package.rglob("*.py") if package / "verify" not in file.parents
    ]  # signs that it reads
    signs = {sign for file in files for sign in file.read_text() if sign > "\x7f" and not "⠀" <= sign <= "⣿"}
    assert {"→", "…", "█"} <= signs <= set(_SPELLINGS)


def test_json_is_strict_and_drives_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"nan": math.nan, "inf": [math.inf, 1.5], "name": "é\x1b[2J\u202e\x7f", "none": None}
    print_json(values)
    out = capsys.readouterr().out
    read = json.loads(out, parse_constant=pytest.fail)
    assert read == values | {"nan": "nan", "inf": ["inf", 1.5]}
    assert "é" in out and not {"\x1b", "\u202e", "\x7f"} & set(out)


def test_named_values_stand_below_each_other_each_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([("a", "1\n2"), ("longer", "\x1b[2J")])
    assert capsys.readouterr().out == "a       1 2\nlonger  \\x1b[2J\n"
    print_rows([("a", "1")], {"a": 1}, True)
    assert json.loads(capsys.readouterr().out) == {"a": 1}


def test_a_table_keeps_brackets_that_a_markup_would_take(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([["[bold]name", "n"], ["[red]x[/red]", "1"]])
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["[bold]name", "n"], ["[red]x[/red]", "1"],
    ]  # fmt: skip
    print_table([])
    assert capsys.readouterr().out == ""


def test_long_values_go_on_below_themselves_on_a_terminal_and_stay_one_line_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [("name", "one two three four five six seven"), ("b", "\x1b[2J")]
    print_rows(rows)
    assert capsys.readouterr().out == "name  one two three four five six seven\nb     \\x1b[2J\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_rows(rows)
    assert capsys.readouterr().out.startswith("\x1b[2mname  \x1b[0mone two three four five six seven\n")
    monkeypatch.delenv("FORCE_COLOR")
    monkeypatch.setenv("COLUMNS", "26")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    print_rows(rows)
    assert re.sub("\x1b\\[\\d*m", "", capsys.readouterr().out).splitlines() == [
        "name  one two three four",
        "      five six seven",
        "b     \\x1b[2J",
    ]
