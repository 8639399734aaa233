"""`etude serve` as a process, and what it refuses."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from openai import OpenAI

from tests.bases import write_modernbert, write_qwen2
from tests.conftest import Outcome

ROOT = Path(__file__).parents[2]


def test_it_prints_where_it_answers_and_ends_at_once_with_code_0(tmp_path: Path) -> None:
    write_qwen2(tmp_path / "base")
    process = subprocess.Popen(
        [sys.executable, "-m", "etude", "serve", str(tmp_path / "base"), "--port", "0", "--json"],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    client = OpenAI(base_url=told["base_url"], api_key=told["api_key"], max_retries=0)
    assert client.completions.create(model=told["model"], prompt="total", max_tokens=2).usage is not None
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 0


def test_a_port_in_use_or_a_folder_that_is_no_model_is_one_line(
    etude: Callable[..., Outcome], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        outcome = etude("serve", str(tmp_path), "--port", port)
    assert outcome.code == 2 and f"port {port} of 127.0.0.1 cannot be listened on" in outcome.err
    outcome = etude("serve", str(tmp_path), "--seconds", "nan")
    assert outcome.code == 2 and "--seconds" in outcome.err
    outcome = etude("serve", str(tmp_path))
    assert outcome.code == 2 and len(outcome.err.strip().splitlines()) == 1


def test_a_model_that_no_endpoint_is_for_is_refused(etude: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = etude("serve", str(write_modernbert(tmp_path / "base")))
    assert outcome.code == 2 and "does not predict the next token" in outcome.err
