"""Tokens/s of `etude serve` at 1, 8 and 32 clients at once, against the same requests one at a time.

All clients ask at temperature 0 for as many tokens of prompts of their own; the sides take turns. The
model has the shape of a Qwen2 with random weights: only the time of a token matters.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from measure import median, take_turns, write_result

CLAIM = "Tokens/s of etude serve at 1, 8 and 32 clients at once, against one at a time"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    asked = parser.parse_args()
    results: dict[str, Any] = {}
    table: list[list[Any]] = [["clients", "at once, tokens/s", "one at a time", "ratio"]]
    with tempfile.TemporaryDirectory() as place:
        folder = _write_model(Path(place) / "model", asked.width, asked.layers)
        process = subprocess.Popen(
            [sys.executable, "-m", "etude", "serve", str(folder), "--port", "0", "--json"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            for clients in asked.clients:
                result = _compare(told, clients, asked.tokens, asked.turns)
                results[f"{clients} clients"] = result
                table.append([clients, result["at_once"], result["one_at_a_time"], result["ratio"]])
                print(json.dumps(result), flush=True)
        finally:
            process.terminate()
            process.wait()
    shape = {"width": asked.width, "layers": asked.layers, "tokens": asked.tokens, "turns": asked.turns}
    write_result("serve", CLAIM, {**shape, **results}, table)


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


def _compare(told: dict[str, str], clients: int, tokens: int, turns: int) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {told['api_key']}"}
    limits = httpx.Limits(max_connections=clients)
    with httpx.Client(base_url=told["base_url"], headers=headers, timeout=600, limits=limits) as client:

        def ask(number: int) -> int:
            values = {"prompt": f"total = {number}\n" * 4, "max_tokens": tokens, "temperature": 0}
            answer = client.post("/completions", json=values).raise_for_status()
            return int(answer.json()["usage"]["completion_tokens"])

        def measure(workers: int) -> dict[str, Any]:
            begun = time.perf_counter()
            with ThreadPoolExecutor(workers) as pool:
                written = sum(pool.map(ask, range(clients)))
            return {"speed": written / (time.perf_counter() - begun)}

        measure(clients)
        found = take_turns({"at_once": lambda: measure(clients), "one_at_a_time": lambda: measure(1)}, turns)
    at_once, alone = (
        median([turn["speed"] for turn in found[side]]) for side in ("at_once", "one_at_a_time")
    )
    return {
        "at_once": round(at_once, 1),
        "one_at_a_time": round(alone, 1),
        "ratio": round(at_once / alone, 2),
    }


if __name__ == "__main__":
    main()
