"""Processor time from scratch to the validation loss that AdamW reaches, against Trainer and litgpt.

The loss is the one that transformers' Trainer reaches in all its steps at the best of five learning rates, all
of the shape and on the rows of `pretrain.py`. etude trains in fewer steps on the first of the same rows, and
its model is scored as transformers loads it. Then all sides take turns, which tell what a step costs.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure import WORK, Turns, Worker, answer, median, peer_python, take_turns, versions, write_result
from pretrain import PEERS, Shape, Task, recipe_of, task_of, train_with_litgpt, train_with_trainer, write_rows

if TYPE_CHECKING:
    from torch import Tensor

HOME = WORK / "time-to-loss"
ROWS, HELD_OUT = HOME / "rows.npy", HOME / "held-out.npy"
RATES = [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2]
VALIDATION_ROWS = 64
TINY = Shape(
    layers=2, width=64, heads=2, head_dim=32, ffn=176, vocabulary=512, seq_len=64, batch=4,
    source={"path": json.__path__[0], "glob": "**/*.py"},
)  # fmt: skip
CLAIM = "Processor time to the loss of AdamW at its best learning rate, 320 wide x 8 layers, against Trainer and litgpt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300, help="of the peers")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="of AdamW")
    parser.add_argument(
        "--etude-steps",
        type=int,
        nargs="+",
        default=[120, 150, 180],
        help="one run each, its schedule ends there",
    )
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--turn-steps", type=int, default=5)
    parser.add_argument("--sides", nargs="+", choices=["trainer", "litgpt"], default=["trainer", "litgpt"])
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to try the script; writes no result")
    parser.add_argument(
        "changes", nargs="*", help="changes to etude's recipe, such as optim.learning_rate=0.02"
    )
    asked = parser.parse_args()
    HOME.mkdir(parents=True, exist_ok=True)
    if "trainer" not in asked.sides:
        parser.error("--sides needs trainer, which says what the loss is")
    task = Task(asked.steps, TINY if asked.tiny else Shape(), warm_up=15, validation_ratio=0.01)
    _write_all_rows(task)
    theirs: dict[float | str, float] = {
        rate: _loss("trainer", replace(task, rate=rate)) for rate in asked.rates
    }
    target, best = min((theirs[rate], rate) for rate in asked.rates)
    short = {steps: replace(task, steps=steps) for steps in asked.etude_steps}
    ours = {steps: _loss("etude", each, asked.changes) for steps, each in short.items()}
    enough = min((steps for steps, loss in ours.items() if loss <= target), default=None)
    tasks = {side: replace(task, rate=best) for side in asked.sides}
    if "litgpt" in tasks:
        theirs["litgpt"] = _loss("litgpt", tasks["litgpt"])
    tasks["etude"] = short[enough or max(short)]
    costs = _costs(tasks, asked.turn_steps, asked.turns, asked.changes)
    result = {
        "target": target, "rates": theirs, "best_rate": best, "etude_losses": ours, "etude_steps": enough,
        "recipe": _recipe(tasks["etude"], asked.changes).to_dict(), "sides": costs,
        "peers": {peer: versions(peer_python(peer, PEERS[peer]), ["torch", package])
                  for peer, package in (("trainer", "transformers"), ("litgpt", "litgpt")) if peer in asked.sides},
    }  # fmt: skip
    if asked.tiny:
        print(json.dumps(result, indent=1))
        return
    least = min(costs[peer]["cpu_seconds"] for peer in asked.sides)
    heading = ["side", "steps", "CPU s a step", "CPU s to the loss", "share of the best peer's"]
    rows = [
        [side, tasks[side].steps, row["cpu_seconds_a_step"], row["cpu_seconds"], round(row["cpu_seconds"] / least, 3)]
        for side, row in costs.items()
    ]  # fmt: skip
    note = "" if enough else "; etude did not reach it"
    write_result("time_to_loss", f"{CLAIM}: {target:.4f} nats{note}", result, [heading, *rows])


def _loss(side: str, task: Task, changes: Sequence[str] = ()) -> float:
    """The validation loss after all steps of a task."""
    worker = _worker(side, task, 0, changes)
    loss = float(worker.ready["validation_loss"])
    worker.close()
    print(f"{side}, {task.steps} steps, rate {task.rate:g}: {loss:.4f}", file=sys.stderr, flush=True)
    return loss


def _costs(
    tasks: dict[str, Task], turn_steps: int, turns: int, changes: list[str]
) -> dict[str, dict[str, Any]]:
    """Processor seconds of a step, median over turns, and of all steps of a task."""
    workers = {side: _worker(side, task, turn_steps, changes) for side, task in tasks.items()}
    taken = take_turns({side: worker.turn for side, worker in workers.items()}, turns)
    for worker in workers.values():
        worker.close()
    told = {}
    for side, each in taken.items():
        cost = median([turn["cpu_seconds"] for turn in each]) / turn_steps
        told[side] = {
            "cpu_seconds_a_step": round(cost, 4), "cpu_seconds": round(cost * tasks[side].steps, 1),
            "turns": [round(turn["cpu_seconds"], 3) for turn in each],
        }  # fmt: skip
    return told


def _worker(side: str, task: Task, turn_steps: int, changes: Sequence[str]) -> Worker:
    """A process that trains: in turns of so many steps, or with 0 at once, and then says its loss."""
    python = peer_python(side, PEERS[side]) if side in PEERS else Path(sys.executable)
    return Worker(side, python, "time_to_loss.py", [json.dumps(asdict(task)), str(turn_steps), *changes])


def _recipe(task: Task, changes: Sequence[str] = ()) -> Any:
    """The recipe of etude: what `pretrain.py` trains, but for the start, the optimizer and the schedule."""
    from etude.recipe.load import recipe_from, with_changes
    from etude.recipe.toml import parse_override

    values = recipe_of(task)
    values["model"]["zero_init"] = True
    values["optim"] = {
        "kind": "muon", "learning_rate": 3e-2, "matrix_rate_ratio": 0.33, "weight_decay": 0.01,
    }  # fmt: skip
    values["schedule"] = {
        "kind": "wsd", "warmup_steps": min(10, task.steps - 1), "decay_ratio": 0.2, "min_lr_ratio": 0.02,
    }  # fmt: skip
    return with_changes(recipe_from(values), dict(map(parse_override, changes)))


def _write_all_rows(task: Task) -> None:
    """The rows of all steps, and the first of the held-out ones, (n, seq_len + 1)."""
    import numpy as np

    from etude.plan import make_plan

    corpus = make_plan(_recipe(task)).corpus
    assert corpus.validation is not None
    write_rows(corpus.train, task.shape.batch, task.steps, ROWS)
    count = min(VALIDATION_ROWS, len(corpus.validation))
    samples = [corpus.validation.sample(index) for index in range(count)]
    whole = [sample for sample in samples if len(sample.tokens) == task.shape.seq_len]
    np.save(HELD_OUT, np.stack([np.append(sample.tokens, sample.labels[-1]) for sample in whole]))


def _score(logits: "Callable[[Tensor], Tensor]") -> float:
    """Mean nats of the targets of the held-out rows; logits: (B, T) int64 to (B, T, V)."""
    import numpy as np
    import torch
    from torch.nn import functional

    rows, total = torch.from_numpy(np.load(HELD_OUT)), 0.0
    with torch.no_grad():
        for row in rows:
            scores = logits(row[None, :-1])[0].float()
            total += float(functional.cross_entropy(scores, row[1:], reduction="sum"))
    return total / rows[:, 1:].numel()


def _train_with_etude(task: Task, tick: Callable[[], None], changes: Sequence[str]) -> Any:
    """The model of the last checkpoint, as transformers loads it."""
    from transformers import AutoModelForCausalLM

    from etude.records.folder import list_checkpoints
    from etude.run import Training
    from etude.start import Options

    with tempfile.TemporaryDirectory(dir=HOME) as runs:
        training = Training(_recipe(task, changes), Options(runs=Path(runs)))
        for _ in training:
            tick()
        return AutoModelForCausalLM.from_pretrained(list_checkpoints(training.run.checkpoints)[-1])


def _work(side: str, task: Task, turn_steps: int, changes: Sequence[str]) -> None:
    """From within a worker: train, and say the loss."""
    tick = Turns(turn_steps).step if turn_steps else lambda: None
    if side == "etude":
        model = _train_with_etude(task, tick, changes)
    else:
        model = {"trainer": train_with_trainer, "litgpt": train_with_litgpt}[side](task, ROWS, tick)
    model.eval()
    answer({"validation_loss": _score(model if side == "litgpt" else lambda ids: model(ids).logits)})


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        _work(sys.argv[2], task_of(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
    else:
        main()
