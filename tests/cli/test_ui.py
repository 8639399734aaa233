"""`etude ui` as a process: one line with the link, and an end at once."""

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import Outcome


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "etude", "ui", "--no-open", *words], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip


@pytest.mark.parametrize("sent", [signal.SIGINT])
def test_it_prints_one_link_and_ends_at_once_with_code_0(tmp_path: Path, sent: signal.Signals) -> None:
    process = start(tmp_path, "--port", "0")
    assert process.stdout is not None
    link = urlsplit(process.stdout.readline().strip())
    connection = http.client.HTTPConnection(link.hostname or "", link.port, timeout=30)
    connection.request("GET", f"{link.path}?{link.query}")
    assert connection.getresponse().status == 303
    process.send_signal(sent)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


def test_reading_runs_for_the_page_imports_no_heavy_library(tmp_path: Path) -> None:
    code = (
        "import sys; import etude.cli.ui, etude.ui.server, etude.ui.connections\n"
        "print([name for name in ('torch', 'transformers', 'numpy', 'matplotlib', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_folder_that_is_not_there_is_an_error_in_one_line(
    etude: Callable[..., Outcome], tmp_path: Path
) -> None:
    outcome = etude("ui", str(tmp_path / "nowhere"))
    assert outcome.code == 2 and "nowhere is not there; give a folder of runs" in outcome.err
