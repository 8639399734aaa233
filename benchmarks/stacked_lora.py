"""Eight LoRA trials of a 50M Qwen2 shape on one frozen base, by a sweep with and without `resources.stack`.

    python benchmarks/stacked_lora.py --rows codealpaca_new.jsonl --tokenizers FOLDER [--batch 1 8]

First steps alone, of micro-batches of some sizes on one thread: processor time of a step of all trials, the
least of two turns. Then, for each `--batch`, `etude sweep run` on the same file in turn: a process for each
trial against one for all, over a grid of learning rates and alphas on the base and rows of `lora.py`. Wall and
processor time are of the whole command; the time of a step is the median of the journals, of all together.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lora
from measure import WORK, median, write_result

HOME = WORK / "stacked-lora"
RATES, ALPHAS = [3e-4, 1e-3, 3e-3, 6e-3], [16.0, 32.0]
SHAPES = [(1, 8), (1, 16), (1, 32), (1, 64), (1, 128), (8, 128)]
CLAIM = "Eight LoRA trials on one frozen base in one process, against a process for each"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True, help="codealpaca_new.jsonl")
    parser.add_argument("--tokenizers", type=Path, required=True, help="a folder that holds gpt2")
    parser.add_argument("--base", type=Path, help="a folder of `lora.py`, in place of training one")
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--seq-len", type=int, nargs="+", default=[lora.SEQ_LEN])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tiny", action="store_true", help="a toy shape; writes no result")
    asked = parser.parse_args()
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    lora.HOME.mkdir(parents=True, exist_ok=True)
    lines = asked.rows.read_text("utf-8").splitlines(keepends=True)
    (HOME / "train.jsonl").write_text("".join(lines[: lora.TRAIN_ROWS]), "utf-8")
    (HOME / "validation.jsonl").write_text("".join(lines[-lora.VALIDATION_ROWS :]), "utf-8")
    base = asked.base or lora.pretrained_base(50_304, asked.tokenizers, 20, tiny=asked.tiny)
    results: dict[str, Any] = {"passes": measure_passes(base.resolve())}
    table: list[list[Any]] = [["8 trials", "side", "wall s", "CPU s", "step of all, s", "x faster"]]
    for shape, row in results["passes"].items():
        for side in ("alone", "stacked"):
            faster = round(row["alone"] / row[side], 2)
            table.append([f"steps alone, {shape}", side, "", "", row[side], faster])
    for batch in asked.batch:
        for seq_len in asked.seq_len:
            name = f"batch {batch}, at most {seq_len} tokens a row, {asked.steps} steps"
            results[name] = result = compare(base.resolve(), batch, seq_len, asked)
            for side in ("alone", "stacked"):
                row = result[side]
                faster = round(result["alone"]["wall"] / row["wall"], 2)
                table.append([name, side, row["wall"], row["cpu"], row["step"], faster])
    if asked.tiny:
        print(json.dumps(results, indent=1))
        return
    write_result("stacked_lora", CLAIM, results, table)


def measure_passes(base: Path) -> dict[str, dict[str, float]]:
    """Processor seconds of a step of all trials, for rows x tokens of a micro-batch, all of them targets."""
    import numpy as np
    import torch

    from etude.assemble import assemble
    from etude.data.batch import Batch
    from etude.data.loader import StepBatches
    from etude.engine.loop import train
    from etude.engine.stack import Stack
    from etude.engine.world import World
    from etude.objectives.causal import Causal
    from etude.plan import make_plan
    from etude.recipe.load import recipe_from
    from etude.start import Options

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    values = lora._recipe(base, "lora", "fp32", 100)
    plan, world = make_plan(recipe_from(values)), World(torch.device("cpu"))
    states = [assemble(plan, Options(), world)[0] for _ in range(len(RATES) * len(ALPHAS))]
    draw, found = np.random.default_rng(0), {}

    def run(batch: Any, count: int, shared: Stack | None) -> float:
        made = [StepBatches(step, 0, len(batch.tokens), np.arange(0), [batch]) for step in range(count + 1)]
        for state in states:
            state.step = 0
        gradients = shared.add_gradients if shared else None
        loops = [iter(train(state, made, Causal(), world, gradients)) for state in states]
        for each in loops:  # the first step is of each alone
            next(each)
        started = time.process_time()
        for _ in range(count):
            for each in loops:
                next(each)
        return (time.process_time() - started) / count

    for rows, tokens in SHAPES:
        drawn = draw.integers(0, plan.corpus.tokenizer.vocab_size, (rows, tokens + 1))
        batch = Batch(tokens=drawn[:, :-1].copy(), labels=drawn[:, 1:].copy())
        count = 2 if rows * tokens > 200 else 6
        turns = [(run(batch, count, None), run(batch, count, Stack())) for _ in range(2)]
        alone, stacked = (round(min(each), 4) for each in zip(*turns))
        found[f"{rows} x {tokens} tokens"] = {"alone": alone, "stacked": stacked}
    torch.set_num_threads(threads)
    return found


def compare(base: Path, batch: int, seq_len: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Both sides in turn; the first command, which is not measured, prepares the data."""
    taken: dict[str, list[dict[str, Any]]] = {"alone": [], "stacked": []}
    for turn in range(asked.turns):
        for side in taken:
            taken[side].append(_run(base, batch, seq_len, side, f"{batch}-{seq_len}-{turn}-{side}", asked))
    sides = {
        side: {key: round(median([each[key] for each in rows]), 3) for key in ("wall", "cpu", "step")}
        for side, rows in taken.items()
    }
    alone, stacked = (taken[side][0]["losses"] for side in taken)
    furthest = max(abs(stacked[name] / loss - 1) for name, loss in alone.items())
    return {**sides, "furthest_loss": furthest, "turns": taken, "load": os.getloadavg()[0]}


def _run(
    base: Path, batch: int, seq_len: int, side: str, name: str, asked: argparse.Namespace
) -> dict[str, Any]:
    folder = HOME / name
    folder.mkdir()
    values = json.loads(json.dumps(lora._recipe(base, "lora", "fp32", asked.steps)))
    del values["name"]
    values["data"]["train"], values["data"]["validation"] = (
        [{"path": str((HOME / f"{part}.jsonl").resolve())}] for part in ("train", "validation")
    )
    values["train"] |= {"global_batch_size": batch, "seq_len": seq_len, "device": asked.device}
    values["train"]["micro_batch_size"] = batch
    import tomlkit

    file = folder / "sweep.toml"
    file.write_text(
        tomlkit.dumps({
            "name": "stacked-lora", "recipe": values, "resources": {"stack": side == "stacked"},
            "tiers": [{
                "name": "tier", "models": [{"name": "qwen2"}], "grid": [
                    {"key": "optim.learning_rate", "values": RATES}, {"key": "adapter.alpha", "values": ALPHAS},
                ],
            }],
        }), "utf-8",
    )  # fmt: skip
    command = [sys.executable, "-m", "etude", "sweep", "run", str(file), "--folder", str(folder / "out")]
    if name.endswith("-0-alone"):
        subprocess.run([*command[:3], "sweep", "plan", str(file)], check=True, capture_output=True)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    steps: dict[int, float] = {}
    losses = {}
    for journal in (folder / "out" / "runs").glob("*/journal.jsonl"):
        for event in map(json.loads, journal.read_text("utf-8").splitlines()):
            if event["type"] == "step":
                steps[event["step"]] = steps.get(event["step"], 0.0) + event["seconds"]
                losses[f"{journal.parent.name.rpartition('-')[0]} {event['step']}"] = event["loss"]
    last = [seconds for step, seconds in steps.items() if step > 2]
    return {"wall": round(wall, 2), "cpu": round(cpu, 2), "step": round(median(last), 4), "losses": losses}


if __name__ == "__main__":
    main()
