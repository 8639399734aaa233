"""Time to learn tiny Shakespeare by characters to a loss of 1.88, against nanoGPT's README settings for CPU.

Neither side has more than 0.80M parameters, nor sees more than 64 characters. Clocks count the training loop
only; one evaluator judges both sides, between the steps of nanoGPT and from the checkpoints of etude.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure import (
    FOLDER,
    TORCH,
    WORK,
    Worker,
    answer,
    median,
    peer_python,
    take_turns,
    versions,
    write_result,
)

if TYPE_CHECKING:
    from torch import Tensor

TARGET, CONTEXT, TRAIN_RATIO = 1.88, 64, 0.9
DATA, CHECKOUT = WORK / "tinyshakespeare", WORK / "nanogpt-checkout"
# Its README's settings for a CPU, but for its own estimate of the loss, which is off.
NANOGPT = (
    "config/train_shakespeare_char.py --device=cpu --compile=False --log_interval=1 --block_size=64 "
    "--batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 "
    "--dropout=0.0 --eval_iters=1 --eval_interval=1000000"
)
EVALUATE_EVERY_STEPS = 100
CLAIM = "Training time to a loss of 1.88 on all of tiny Shakespeare's validation characters, against nanoGPT"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT; without it, etude alone")
    parser.add_argument("--text", type=Path, required=True, help="tiny Shakespeare, input.txt")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("changes", nargs="*", help="changes to tinyshakespeare.toml, such as train.steps=300")
    asked = parser.parse_args()
    _write_data(asked.text)
    peer = [TORCH, "numpy", "requests"]
    sides: dict[str, Callable[[], dict[str, Any]]] = {
        "etude": lambda: Worker("etude", Path(sys.executable), "tinyshakespeare.py", asked.changes).ready
    }
    if asked.nanogpt:
        python = peer_python("nanogpt", peer)
        _copy_checkout(asked.nanogpt, asked.text, python)
        sides["nanogpt"] = lambda: Worker("nanogpt", python, "tinyshakespeare.py").ready
    taken = take_turns(sides, asked.turns)
    results = {side: _summarise(turns) for side, turns in taken.items()}
    if asked.nanogpt and not asked.changes:
        ratio = results["etude"]["seconds"] / results["nanogpt"]["seconds"]
        result = {
            "ratio": round(ratio, 3),
            "goal": 0.25,
            **results,
            "peer": versions(python, ["torch", "numpy"]),
        }
        heading = ["side", "parameters", "seconds to 1.88", "share", "steps", "last loss"]
        rows = [
            [side, f"{r['parameters']:,}", r["seconds"], round(r["seconds"] / results["nanogpt"]["seconds"], 3),
             r["steps"], r["last_loss"]]
            for side, r in results.items()
        ]  # fmt: skip
        write_result("tinyshakespeare", CLAIM, result, [heading, *rows])
    else:
        print(json.dumps(results, indent=1))


def evaluate(logits: "Callable[[Tensor], Tensor]", characters: "Tensor") -> float:
    """Mean nats of all characters but the first, in rows of 64 that know nothing of the rows before.

    logits: (B, T) int64 to (B, T, V). characters: (N,) int64.
    """
    import torch

    whole = (len(characters) - 1) // CONTEXT * CONTEXT
    rows = [*characters[:whole].view(-1, CONTEXT).split(128), characters[whole:-1][None]]  # type: ignore[no-untyped-call]
    targets = [*characters[1 : whole + 1].view(-1, CONTEXT).split(128), characters[whole + 1 :][None]]  # type: ignore[no-untyped-call]
    with torch.no_grad():
        total = sum(
            torch.nn.functional.cross_entropy(
                logits(row).flatten(0, 1).double(), target.flatten(), reduction="sum"
            )
            for row, target in zip(rows, targets)
            if row.numel()
        )
    return float(total) / (len(characters) - 1)


def _summarise(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """The median over turns of the time to the target, or of the whole time where a turn does not
    get there."""
    times = [_seconds_to_target(turn["curve"]) for turn in turns]
    last = [turn["curve"][-1] for turn in turns]
    return {
        "seconds": round(median([time if time is not None else end[1] for time, end in zip(times, last)]), 2),
        "seconds_of_each_turn": [None if time is None else round(time, 2) for time in times],
        "reached": all(time is not None for time in times),
        "last_loss": round(median([end[2] for end in last]), 4),
        "whole_seconds": round(median([end[1] for end in last]), 2),
        "steps": last[0][0],
        "parameters": turns[0]["parameters"],
        "curves": [
            [[step, round(seconds, 2), round(loss, 4)] for step, seconds, loss in turn["curve"]]
            for turn in turns
        ],
    }


def _seconds_to_target(curve: list[list[float]]) -> float | None:
    """Where the line through the measured (step, seconds, loss) first meets the target; None if it never
    does.
    """
    for (_, before, high), (_, after, low) in pairwise(curve):
        if high > TARGET >= low:
            return before + (after - before) * (high - TARGET) / (high - low)
    return None


def _write_data(text: Path) -> None:
    """The training characters, all characters, and a tokenizer of one id a character, in their
    sorted order."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    content = text.read_text("utf-8")
    DATA.mkdir(parents=True, exist_ok=True)
    (DATA / "all.txt").write_text(content, "utf-8")
    (DATA / "train.txt").write_text(content[: int(TRAIN_RATIO * len(content))], "utf-8")
    characters = sorted(set(content))
    assert len(characters) == 65
    tokenizer = Tokenizer(models.WordLevel({character: index for index, character in enumerate(characters)}))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(DATA / "tokenizer.json"))


def _copy_checkout(checkout: Path, text: Path, python: Path) -> None:
    """A copy of nanoGPT whose own script has prepared the text, so that the checkout stays as it is."""
    shutil.copytree(checkout, CHECKOUT, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".git"))
    shutil.copyfile(text, CHECKOUT / "data/shakespeare_char/input.txt")
    subprocess.run(
        [str(python), "data/shakespeare_char/prepare.py"], cwd=CHECKOUT, check=True, capture_output=True
    )


def _validation(vocabulary: dict[str, int]) -> "Tensor":
    import torch

    content = (DATA / "all.txt").read_text("utf-8")
    return torch.tensor([vocabulary[character] for character in content[int(TRAIN_RATIO * len(content)) :]])


def _run_etude(changes: list[str]) -> dict[str, Any]:
    import torch

    from etude.engine.checkpoint import load_weights
    from etude.models.decoder import Decoder
    from etude.models.decoder_config import DecoderConfig
    from etude.recipe.load import load_recipe
    from etude.run import Training
    from etude.start import Options

    with tempfile.TemporaryDirectory(dir=WORK) as runs:
        training = Training(load_recipe(FOLDER / "tinyshakespeare.toml", changes), Options(runs=Path(runs)))
        times: list[float] = []
        started = 0.0
        for step in training:
            if not times:
                started = time.perf_counter() - step.seconds
            times.append(time.perf_counter() - started)
        folders = sorted(training.run.checkpoints.glob("step-*"))
        model = Decoder(DecoderConfig.from_hf(json.loads((folders[0] / "config.json").read_text("utf-8"))))
        vocabulary = json.loads((DATA / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
        validation = _validation(vocabulary)
        curve = []
        for folder in folders:
            with torch.no_grad():
                load_weights(folder / "model.safetensors", model)
            number = int(folder.name.removeprefix("step-"))
            curve.append([number, times[number - 1], evaluate(model.logits, validation)])
    return {"parameters": sum(parameter.numel() for parameter in model.parameters()), "curve": curve}


def _run_nanogpt() -> dict[str, Any]:
    """Run nanoGPT's train.py as it is; the lines it prints after each step tell where the clock stops and
    goes on.
    """
    import os
    import pickle

    os.chdir(CHECKOUT)
    sys.path.insert(0, str(CHECKOUT))
    sys.argv = ["train.py", *NANOGPT.split(), f"--out_dir={WORK / 'nanogpt-output'}"]
    with Path("data/shakespeare_char/meta.pkl").open("rb") as file:
        validation = _validation(pickle.load(file)["stoi"])  # noqa: S301 - its own prepare.py wrote it
    curve: list[list[float]] = []
    clock = {"started": 0.0, "seconds": 0.0}

    def observe(*words: Any) -> None:
        now = time.perf_counter()
        line = " ".join(map(str, words))
        print(line, file=sys.stderr)
        if line.startswith("step 0:"):
            clock["started"] = time.perf_counter()
        elif match := re.match(r"iter (\d+):", line):
            step = int(match[1]) + 1
            if step % EVALUATE_EVERY_STEPS == 0:
                clock["seconds"] += now - clock["started"]
                model = program["raw_model"]
                model.eval()
                curve.append(
                    [step, clock["seconds"], evaluate(lambda rows: model(rows, rows)[0], validation)]
                )
                model.train()
                clock["started"] = time.perf_counter()

    program: dict[str, Any] = {"__name__": "__main__", "print": observe}
    exec(compile(Path("train.py").read_text(), "train.py", "exec"), program)
    return {"parameters": program["raw_model"].get_num_params(), "curve": curve}


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        answer(_run_etude(sys.argv[3:]) if sys.argv[2] == "etude" else _run_nanogpt())
    else:
        main()
