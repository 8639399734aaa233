"""Tokens/s and time to the first token of `etude serve` at 1, 8, 32 and 100 clients at once.

Beside it stand transformers' generate for the same prompts one after another, and `transformers serve` at as many
clients where its packages are installed (`--peer`). All ask at temperature 0 for as many tokens of prompts of
their own; the sides take turns. The model has the shape of a Qwen2 with random weights: only the time of a
token matters.
"""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from measure import median, peer_python, take_turns, write_result

CLAIM = "Tokens/s of etude serve at 1 to 100 clients at once, against transformers' generate one by one"
_PEER = ["transformers[serving]==5.23.0", "torch==2.13.0"]
_ALONE = 8  # prompts of a turn of generate, which takes them one by one


@dataclass(frozen=True)
class Server:
    """An endpoint in the form of OpenAI's."""

    url: str
    key: str
    model: str

    def ask(self, client: httpx.Client, prompt: str, tokens: int) -> tuple[int, float]:
        """Tokens of a streamed chat, and seconds until the first of them."""
        values = {
            "model": self.model, "messages": [{"role": "user", "content": prompt}], "max_tokens": tokens,
            "temperature": 0, "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        begun, first, count = time.perf_counter(), 0.0, 0
        headers = {"authorization": f"Bearer {self.key}"}
        with client.stream("POST", f"{self.url}/chat/completions", json=values, headers=headers) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                event = json.loads(line[6:]) if line.startswith("data: {") else {}
                if event.get("choices"):
                    first = first or time.perf_counter() - begun
                if event.get("usage"):  # of tokens; a piece of text may be of several
                    count = int(event["usage"]["completion_tokens"])
        return count, first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 100])
    parser.add_argument("--tokens", type=int, default=32, help="of each answer")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument(
        "--peer", action="store_true", help="also `transformers serve`, installed on first use"
    )
    asked = parser.parse_args()
    results: dict[str, Any] = {}
    table: list[list[Any]] = [["clients", "side", "tokens/s", "s to the first token", "etude's ratio"]]
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as opened:
        folder = _write_model(Path(place) / "model", asked.width, asked.layers)
        servers = {"etude serve": opened.enter_context(_etude(folder))}
        if asked.peer:
            servers["transformers serve"] = opened.enter_context(_transformers(folder, Path(place)))
        alone = _Alone(folder, asked.tokens)
        for clients in asked.clients:
            sides: dict[str, Any] = {
                name: partial(_at_once, server, clients, asked.tokens) for name, server in servers.items()
            }
            for warm_up in sides.values():
                warm_up()
            sides["generate, one by one"] = partial(alone.turn, min(clients, _ALONE))
            found = take_turns(sides, asked.turns)
            speeds = {side: median([turn["speed"] for turn in turns]) for side, turns in found.items()}
            results[f"{clients} clients"] = {
                side: {"tokens_per_second": round(speeds[side], 1), "turns": turns}
                for side, turns in found.items()
            }
            for side, turns in found.items():
                first = round(median([turn["first"] for turn in turns]), 3) if "first" in turns[0] else "-"
                ratio = round(speeds["etude serve"] / speeds[side], 2)
                table.append([clients, side, round(speeds[side], 1), first, ratio])
    shape = {"width": asked.width, "layers": asked.layers, "tokens": asked.tokens, "turns": asked.turns}
    write_result("serve", CLAIM, {**shape, **results}, table)


def _at_once(server: Server, clients: int, tokens: int) -> dict[str, Any]:
    """Tokens/s of all clients together, and the median seconds until a client has its first token."""
    limits = httpx.Limits(max_connections=clients)
    with httpx.Client(timeout=600, limits=limits) as client, ThreadPoolExecutor(clients) as pool:
        begun = time.perf_counter()
        told = list(pool.map(lambda at: server.ask(client, _prompt(at), tokens), range(clients)))
        seconds = time.perf_counter() - begun
    return {"speed": sum(count for count, _ in told) / seconds, "first": median([first for _, first in told])}


class _Alone:
    """transformers' generate in this process, for one prompt after another."""

    def __init__(self, folder: Path, tokens: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(os.cpu_count() or 1)
        self._tokens, self._tokenizer = tokens, AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder).eval()

    def turn(self, prompts: int) -> dict[str, Any]:
        begun, written = time.perf_counter(), 0
        for at in range(prompts):
            turns = [{"role": "user", "content": _prompt(at)}]
            given = self._tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            ids = self._model.generate(**given, max_new_tokens=self._tokens, do_sample=False)
            written += ids.shape[1] - given["input_ids"].shape[1]
        return {"speed": written / (time.perf_counter() - begun)}


def _prompt(at: int) -> str:
    return f"total = {at}\n" * 4


@contextlib.contextmanager
def _running(command: list[str], **settings: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, text=True, **settings)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def _etude(folder: Path) -> Iterator[Server]:
    command = [sys.executable, "-m", "etude", "serve", str(folder), "--port", "0", "--json"]
    with _running(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        yield Server(told["base_url"], told["api_key"], told["model"])


@contextlib.contextmanager
def _transformers(folder: Path, place: Path) -> Iterator[Server]:
    """`transformers serve` with continuous batching, in an environment of its own."""
    python = peer_python("transformers-serve", _PEER)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(python.parent / "transformers"), "serve", "--continuous-batching", "--host", "127.0.0.1"]
    log = (place / "log").open("w")
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with _running([*command, "--port", str(port), str(folder)], stdout=log, stderr=log, env=offline):
        server = Server(f"http://127.0.0.1:{port}/v1", "none", str(folder))
        for _ in range(300):
            with contextlib.suppress(httpx.HTTPError), httpx.Client(timeout=60) as client:
                server.ask(client, "total", 1)
                break
            time.sleep(1)
        else:
            raise RuntimeError((place / "log").read_text()[-500:])
        yield server


def _write_model(folder: Path, width: int, layers: int) -> Path:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from tests.bases import write_qwen2

    write_qwen2(folder)  # its tokenizer
    config = Qwen2Config(
        vocab_size=320, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
