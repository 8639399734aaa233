"""Attention within a sliding window by its blocks, against causal attention and against a mask.

Forward and backward of four heads of 64 in fp32, in turn in one process, in seconds of its only thread; then the
memory that a process of its own comes to at the most, above what it had before.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from measure import write_result
from torch import Tensor
from torch.nn import functional

from etude.models.attention import attend

CLAIM = "Seconds and memory of attention within a window, by its blocks, against causal attention and a mask"
SHAPES = ((4096, 256), (8192, 256), (8192, 1024), (16_384, 1024))  # length and window
MEMORY_LENGTHS, MEMORY_WINDOW = (4096, 8192, 16_384, 32_768), 1024
HEADS, WIDTH = 4, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--peak", type=int, nargs=2, metavar=("LENGTH", "WINDOW"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.peak:
        print(json.dumps(peak(*asked.peak)))
        return
    rows, results = [], []
    for length, window in SHAPES:
        for key_heads in (HEADS, HEADS // 2):
            found = compare(length, window, key_heads, asked.turns if length < 16_384 else 3)
            results.append(found)
            seconds = found["seconds"]
            by_mask = f"{seconds['mask']:.2f}" if "mask" in seconds else ""
            rows.append([length, window, key_heads, f"{seconds['causal']:.2f}", by_mask, f"{seconds['blocks']:.3f}",
                         f"{found['times_causal']:.2f}", f"{found['difference']:.0e}" if by_mask else ""])  # fmt: skip
            print(rows[-1], file=sys.stderr, flush=True)
    memory = []
    for length in MEMORY_LENGTHS:
        command = [sys.executable, str(Path(__file__)), "--peak", str(length), str(MEMORY_WINDOW)]
        memory.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    head = [
        "length",
        "window",
        "key heads",
        "causal s",
        "mask s",
        "blocks s",
        "causal / blocks",
        "largest difference",
    ]
    write_result("windows", CLAIM, {"turns": asked.turns, "times": results, "memory": memory}, [head, *rows])
    for each in memory:
        print(
            f"length {each['length']:,}, window {each['window']:,}: {each['bytes'] / 1e6:,.0f} MB at the most"
        )


def compare(length: int, window: int, key_heads: int, turns: int) -> dict[str, Any]:
    """Medians of the seconds of each way, and the largest difference of the blocks from the mask."""
    ways: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
        "causal": lambda q, k, v: attend(q, k, v, window=None, dropout=0.0),
        "blocks": lambda q, k, v: attend(q, k, v, window=window, dropout=0.0),
    }
    if length <= 4096:
        ways["mask"] = lambda q, k, v: by_mask(q, k, v, window)
    heads = draw(length, key_heads)
    outputs: dict[str, Tensor] = {}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            started = time.process_time()
            outputs[name] = way(*heads)
            torch.autograd.grad(outputs[name].square().sum(), heads)
            times[name].append(time.process_time() - started)
    ratios = [causal / blocks for causal, blocks in zip(times["causal"], times["blocks"])]
    found: dict[str, Any] = {
        "length": length, "window": window, "heads": HEADS, "key_heads": key_heads, "head_dim": WIDTH,
        "seconds": {name: statistics.median(each) for name, each in times.items()},
        "times_causal": statistics.median(ratios), "all_ratios": ratios,
    }  # fmt: skip
    if "mask" in outputs:
        found["difference"] = float((outputs["blocks"] - outputs["mask"]).detach().abs().max())
    return found


def peak(length: int, window: int) -> dict[str, int]:
    """Bytes by which a forward and a backward raise the most that this process had."""
    heads = draw(length, HEADS)
    small = draw(2 * window, HEADS)
    torch.autograd.grad(attend(*small, window=window, dropout=0.0).sum(), small)  # what libraries take once
    # Not ru_maxrss, which a process takes over from the one that started it.
    Path("/proc/self/clear_refs").write_text("5")
    before = most_bytes()
    torch.autograd.grad(attend(*heads, window=window, dropout=0.0).sum(), heads)
    return {"length": length, "window": window, "bytes": most_bytes() - before}


def most_bytes() -> int:
    """The most memory of this process since its mark was taken back."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines["VmHWM"].split()[0])


def draw(length: int, key_heads: int) -> Sequence[Tensor]:
    generator = torch.Generator().manual_seed(length)
    return [
        torch.randn(1, length, heads, WIDTH, generator=generator, requires_grad=True)
        for heads in (HEADS, key_heads, key_heads)
    ]


def by_mask(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    place = torch.arange(q.shape[1])
    is_seen = (place <= place[:, None]) & (place > place[:, None] - window)
    k, v = (heads.repeat_interleave(q.shape[2] // k.shape[2], dim=2) for heads in (k, v))
    q, k, v = (heads.transpose(1, 2) for heads in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=is_seen).transpose(1, 2)


if __name__ == "__main__":
    main()
