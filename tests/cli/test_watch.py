"""`etude watch`, on runs of etude and logs of other tools."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Outcome

Etude = Callable[..., Outcome]
HEALTHY = "step,train/loss\n" + "".join(f"{step},{4 - step / 50}\n" for step in range(1, 101))
BROKEN = HEALTHY.replace("\n60,2.8\n", "\n60,nan\n")


@pytest.fixture
def log(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        (tmp_path / "log").write_text(text)
        return tmp_path / "log"

    return write


def test_a_fault_has_its_step_evidence_and_remedy_without_keys_of_a_recipe(
    log: Callable[[str], Path], etude: Etude
) -> None:
    done = etude("watch", log(BROKEN))
    assert done.code == 0 and "a figure is not finite, since step 60" in done.out
    assert (
        "loss nan at step 60" in done.out and "lower learning_rate" in done.out and "optim." not in done.out
    )
    assert "figures      loss (train/loss)" in done.out
    assert (
        "loss         3.950 to 2.030 (medians of 4 points), lowest 2.000 at step 100; 1 point not finite"
        in done.out
    )
    assert "⠒ loss" in done.out and "step 45 to 75" in done.out


def test_a_fault_that_comes_again_is_shown_once_and_counted(log: Callable[[str], Path], etude: Etude) -> None:
    text = BROKEN.replace("\n80,2.4\n", "\n80,nan\n").replace("\n90,2.2\n", "\n90,nan\n")
    done = etude("watch", log(text))
    assert done.out.count("a figure is not finite") == 1
    assert "again      2 more times, last found at step 90" in done.out
    assert len(json.loads(etude("watch", log(text), "--json").out)["findings"]) == 3


def test_what_the_figures_cannot_tell_is_said_in_words(log: Callable[[str], Path], etude: Etude) -> None:
    done = etude("watch", log(HEALTHY))
    assert "Nothing wrong is seen in these figures." in done.out
    assert "overfitting: there is no validation loss" in done.out and "the cause of a fault: " in done.out


def test_a_run_is_watched_by_its_journal(
    write_recipe: Callable[..., Path], tmp_path: Path, etude: Etude
) -> None:
    assert etude("train", write_recipe(), "--runs", tmp_path / "runs").code == 0
    done = etude("watch", "tiny", "--runs", tmp_path / "runs")
    assert done.code == 0 and re.search(r"points +1[23], step [01] to 12", done.out)
    assert "cause of a fault" not in done.out  # its model and data are at hand
    found = etude("watch", "tiny", "--runs", tmp_path / "runs", "--follow")
    assert found.code == 0 and "tiny" in found.out  # it has ended, so there is nothing to follow


def test_json_has_findings_and_what_is_unknown(log: Callable[[str], Path], etude: Etude) -> None:
    value = json.loads(etude("watch", log(BROKEN), "--json").out)
    assert [finding["kind"] for finding in value["findings"]] == ["non_finite"]
    assert value["figures"] == {"loss": "train/loss"} and value["unknown"][0]["about"] == "overfitting"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("loss\n1\n", "one column"),
        ("step,loss\n3,1\n2,1\n1,1\n", "steps go back"),
        ("hello\n", "no log"),
    ],
)
def test_what_is_no_log_is_refused_in_one_line(
    text: str, said: str, log: Callable[[str], Path], etude: Etude
) -> None:
    done = etude("watch", log(text))
    assert done.code == 2 and said in done.err and done.err.count("\n") == 1 and not done.out


def test_neither_a_file_nor_a_run_and_options_that_exclude_each_other(
    log: Callable[[str], Path], tmp_path: Path, etude: Etude
) -> None:
    done = etude("watch", "gone", "--runs", tmp_path)
    assert done.code == 2 and "gone is no file, and there is no run gone" in done.err
    done = etude("watch", log(HEALTHY), "--json", "--follow")
    assert done.code == 2 and "--follow prints text" in done.err


def test_names_in_a_log_cannot_drive_the_terminal(tmp_path: Path, etude: Etude) -> None:
    rows = [{"step": step, "train/loss\x1b[31m": 2.0, "eval_\x1b]0;x\x07loss": 2.0} for step in range(5)]
    (tmp_path / "a").write_text("\n".join(map(json.dumps, rows)))
    done = etude("watch", tmp_path / "a")
    assert done.code == 0 and "\x1b" not in done.out and "\x07" not in done.out


def test_following_tells_what_is_new_and_what_is_void_until_it_is_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("step,loss\n")
    words = [sys.executable, "-m", "etude", "watch", str(path), "--follow"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None

    def grow(lines: str, until: str) -> str:
        with path.open("a") as file:
            file.write(lines)
        read = ""
        while until not in read:
            line = process.stdout.readline()  # type: ignore[union-attr]
            assert line, read
            read += line
        return read

    try:
        time.sleep(1)
        assert "Nothing wrong" in grow("".join(f"{step},2.0\n" for step in range(1, 9)), "cause of a fault")
        assert "since step 9" in grow("9,nan\n", "evidence")
        assert "training went back before step 9" in grow("8,2.0\n9,2.0\n10,2.0\n", "no longer")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
