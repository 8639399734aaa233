"""Training speed from scratch, against transformers' Trainer and litgpt, and as a share of the matrix rate.

All sides train the same Qwen3 shape on the same rows of 512 tokens, 8 a step, fused AdamW with clipping, in
turns.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from measure import TORCH, WORK, Turns, Worker, median, peer_python, take_turns, versions, write_result

WEIGHT_DECAY = 0.1
ROWS = WORK / "pretrain-rows.npy"
PEERS = {"trainer": [TORCH, "transformers==5.23.0", "accelerate"], "litgpt": [TORCH, "litgpt"]}
CLAIM = "Training tokens/s of a Qwen3 shape, 320 wide x 8 layers, against transformers' Trainer and litgpt"


@dataclass(frozen=True)
class Shape:
    """A Qwen3 shape, the size of its steps, and the texts that it learns from."""

    layers: int = 8
    width: int = 320
    heads: int = 5
    head_dim: int = 64
    ffn: int = 864
    vocabulary: int = 8192
    seq_len: int = 512
    batch: int = 8
    source: dict[str, str] = field(default_factory=lambda: {"source": "python-stdlib"})


SHAPE = Shape()


@dataclass(frozen=True)
class Task:
    """A training of all sides; rate: the highest of AdamW, which falls to 0."""

    steps: int
    shape: Shape = SHAPE
    precision: str = "fp32"
    rate: float = 6e-4
    warm_up: int = 2
    compiled: bool = False
    validation_ratio: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=25, help="steps of a turn")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument(
        "--sides", nargs="+", default=["etude", "etude-compile", "trainer", "trainer-compile", "litgpt"]
    )
    asked = parser.parse_args()
    results = {precision: _compare(precision, asked) for precision in asked.precision}
    table: list[list[Any]] = [["side", "tokens/s", "best peer's", "matrix rate's"]]
    for precision, result in results.items():
        for side, figures in result.get("sides", {}).items():
            if "tokens_per_second" in figures:
                cells = (
                    figures["tokens_per_second"],
                    figures["ratio_to_best_peer"],
                    figures["share_of_matrix_rate"],
                )
                table.append([f"{side}, {precision}", *cells])
            else:
                table.append([f"{side}, {precision}", figures["skipped"], "", ""])
    write_result("pretrain", CLAIM, results, table)


def _compare(precision: str, asked: argparse.Namespace) -> dict[str, Any]:
    import torch

    from etude.engine.precision import has_native_bf16
    from etude.engine.world import measure_matrix_rate
    from etude.models.cost import flops_per_token
    from etude.models.decoder_config import DecoderConfig
    from etude.plan import make_plan
    from etude.recipe.load import recipe_from

    device = torch.device("cpu")
    if precision == "bf16" and not has_native_bf16(device):
        return {"skipped": "this CPU only emulates bf16, many times slower"}
    steps = 3 + asked.steps * asked.turns
    tasks = {
        side: Task(steps, precision=precision, compiled=side.endswith("-compile")) for side in asked.sides
    }
    plan = make_plan(recipe_from(recipe_of(Task(steps, precision=precision))))
    write_rows(plan.corpus.train, SHAPE.batch, steps, ROWS)
    workers: dict[str, Worker] = {}
    skipped: dict[str, str] = {}
    for side in asked.sides:
        try:
            peer = side.partition("-")[0]
            python = peer_python(peer, PEERS[peer]) if peer in PEERS else Path(sys.executable)
            settings = json.dumps(asdict(tasks[side]))
            workers[side] = Worker(side, python, "pretrain.py", [settings, str(asked.steps)])
        except RuntimeError as error:
            skipped[side] = str(error)
    taken = take_turns({side: worker.turn for side, worker in workers.items()}, asked.turns)
    for worker in workers.values():
        worker.close()
    assert isinstance(plan.model, DecoderConfig)
    rate = measure_matrix_rate(device, torch.float32 if precision == "fp32" else torch.bfloat16)
    tokens = asked.steps * SHAPE.batch * SHAPE.seq_len
    speeds = {side: tokens / median([turn["seconds"] for turn in turns]) for side, turns in taken.items()}
    best = max(
        (speed for side, speed in speeds.items() if not side.startswith("etude")), default=float("nan")
    )
    cost = flops_per_token(plan.model, SHAPE.seq_len)
    sides: dict[str, Any] = {side: {"skipped": reason} for side, reason in skipped.items()}
    for side, speed in speeds.items():
        sides[side] = {
            "tokens_per_second": round(speed),
            "ratio_to_best_peer": round(speed / best, 3),
            "share_of_matrix_rate": round(speed * cost / rate, 3),
            "seconds": [round(turn["seconds"], 3) for turn in taken[side]],
            "cpu_seconds": [round(turn["cpu_seconds"], 3) for turn in taken[side]],
            "last_loss": taken[side][-1]["loss"],
        }
    return {
        "parameters": plan.parameters["total"], "flops_per_token": cost, "matrix_flops_per_second": round(rate),
        "threads": torch.get_num_threads(), "steps_of_a_turn": asked.steps, "turns": asked.turns, "sides": sides,
        "peers": {peer: versions(peer_python(peer, PEERS[peer]), ["torch", package])
                  for peer, package in (("trainer", "transformers"), ("litgpt", "litgpt"))
                  if any(side.startswith(peer) for side in speeds)},
    }  # fmt: skip


def recipe_of(task: Task) -> dict[str, Any]:
    """The values of etude's recipe for a task."""
    shape, warm_up = task.shape, min(task.warm_up, task.steps - 1)
    held_out = task.validation_ratio
    return {
        "name": "bench-pretrain",
        "model": {
            "n_layer": shape.layers, "n_head": shape.heads, "head_dim": shape.head_dim,
            "n_embd": shape.width, "n_ffn": shape.ffn, "qk_norm": True,
        },
        "tokenizer": {"train_vocab_size": shape.vocabulary},
        "data": {
            "train": [shape.source],
            **({"validation_ratio": held_out} if held_out else {"validation": "none"}),
        },
        "train": {
            "steps": task.steps, "seq_len": shape.seq_len, "global_batch_size": shape.batch,
            "precision": task.precision, "device": "cpu", "compile": task.compiled,
        },
        "optim": {"learning_rate": task.rate, "weight_decay": WEIGHT_DECAY, "beta2": 0.999},
        "schedule": {"kind": "linear", "warmup_steps": warm_up, "min_lr_ratio": 0.0},
        "checkpoint": {"every_steps": 10**6},
    }  # fmt: skip


def write_rows(split: Any, batch: int, steps: int, file: Path) -> None:
    """The rows of so many steps, (steps, batch, seq_len + 1) int64, in the order in which etude trains on them.

    A step with the shorter row that ends the data is left out, as all sides take whole rows.
    """
    from itertools import count, islice

    import numpy as np

    from etude.data.loader import Loader

    loader = Loader(
        split, global_batch_size=batch, micro_batch_size=batch, seed=17, attend_across_documents=True
    )
    loaded = (loader.load(step).micro_batches[0] for step in count())
    batches = islice((each for each in loaded if len(each.tokens) == batch), steps)
    rows = np.stack([np.concatenate([batch.tokens, batch.labels[:, -1:]], axis=1) for batch in batches])
    np.save(file, rows)


def _train_with_etude(task: Task, turns: Turns) -> None:
    import tempfile

    from etude.recipe.load import recipe_from
    from etude.run import Training
    from etude.start import Options

    with tempfile.TemporaryDirectory(dir=WORK) as runs:
        for step in Training(recipe_from(recipe_of(task)), Options(runs=Path(runs))):
            measured = step.measured
            turns.step(lambda measured=measured: float(measured[0] / measured[1]))  # type: ignore[misc]


def train_with_trainer(task: Task, rows: Path, tick: Callable[[], None]) -> Any:
    """The model that transformers' Trainer trains; tick: called after every step."""
    import numpy as np
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM, Trainer, TrainerCallback, TrainingArguments

    shape = task.shape

    class Rows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
        def __init__(self) -> None:
            self.rows = torch.from_numpy(np.load(rows)).flatten(0, 1)[:, :-1]

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            return {"input_ids": self.rows[index], "labels": self.rows[index]}

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            tick()

    torch.manual_seed(17)
    config = Qwen3Config(
        vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.heads,
        head_dim=shape.head_dim, max_position_embeddings=shape.seq_len, tie_word_embeddings=True,
        use_cache=False,
    )  # fmt: skip
    arguments = TrainingArguments(
        output_dir=str(WORK / "trainer-output"), max_steps=task.steps, use_cpu=True,
        per_device_train_batch_size=shape.batch, optim="adamw_torch_fused", learning_rate=task.rate,
        weight_decay=WEIGHT_DECAY, warmup_steps=task.warm_up, lr_scheduler_type="linear", max_grad_norm=1.0,
        bf16=task.precision == "bf16", torch_compile=task.compiled, eval_strategy="no", save_strategy="no",
        logging_strategy="no", report_to=[], disable_tqdm=True, dataloader_num_workers=0,
        train_sampling_strategy="sequential",
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    Trainer(model=model, args=arguments, train_dataset=Rows(), callbacks=[Clock()]).train()
    return model


def train_with_litgpt(task: Task, rows: Path, tick: Callable[[], None]) -> Any:
    """The model that litgpt trains; tick: called after every step but the last."""
    import numpy as np
    import torch
    from litgpt import Config, pretrain
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.data import DataModule

    shape, models = task.shape, []

    class Batches(torch.utils.data.Dataset[torch.Tensor]):
        """A batch is asked for when the step before it is done, so this is where the clock hangs."""

        def __init__(self) -> None:
            self.rows, self.asked = torch.from_numpy(np.load(rows)), 0

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: int) -> torch.Tensor:
            if self.asked:
                tick()
            self.asked += 1
            return self.rows[index]  # type: ignore[no-any-return]

    class Data(DataModule):  # type: ignore[misc]
        def connect(self, **_: Any) -> None: ...

        def train_dataloader(self) -> torch.utils.data.DataLoader[torch.Tensor]:
            return torch.utils.data.DataLoader(Batches(), batch_size=None)

        def val_dataloader(self) -> torch.utils.data.DataLoader[torch.Tensor]:
            # Its check of the settings wants one batch, before the clock starts.
            return torch.utils.data.DataLoader(torch.from_numpy(np.load(rows)[0]), batch_size=shape.batch)  # type: ignore[arg-type]

    # At the end it would pickle all it has, the data too.
    pretrain.save_checkpoint = lambda _, state, *__: models.append(state["model"])
    config = Config(
        name="bench", block_size=shape.seq_len, vocab_size=shape.vocabulary, n_layer=shape.layers,
        padded_vocab_size=shape.vocabulary, n_head=shape.heads, head_size=shape.head_dim, n_embd=shape.width,
        n_query_groups=shape.heads, rotary_percentage=1.0, parallel_residual=False, bias=False,
        norm_class_name="RMSNorm", norm_eps=1e-6, norm_qk=True, mlp_class_name="LLaMAMLP",
        intermediate_size=shape.ffn,
    )  # fmt: skip
    pretrain.setup(
        "bench", model_config=config, out_dir=WORK / "litgpt-output", data=Data(), devices=1,
        logger_name="csv", precision="32-true" if task.precision == "fp32" else "bf16-mixed",
        optimizer={"class_path": "torch.optim.AdamW", "init_args": {
            "lr": task.rate, "weight_decay": WEIGHT_DECAY, "betas": [0.9, 0.999], "fused": True}},
        train=TrainArgs(
            save_interval=None, log_interval=10**9, global_batch_size=shape.batch,
            micro_batch_size=shape.batch, max_tokens=task.steps * shape.batch * shape.seq_len, max_norm=1.0,
            min_lr=0.0, lr_warmup_steps=task.warm_up, tie_embeddings=True,
        ),
        eval=EvalArgs(interval=10**9, max_iters=1, initial_validation=False, final_validation=False),
    )  # fmt: skip
    return models[-1]


def task_of(text: str) -> Task:
    """The task of a line of JSON."""
    values = json.loads(text)
    return Task(**{**values, "shape": Shape(**values["shape"])})


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        peer, given, clock = sys.argv[2].partition("-")[0], task_of(sys.argv[3]), Turns(int(sys.argv[4]))
        if peer == "etude":
            _train_with_etude(given, clock)
        else:
            {"trainer": train_with_trainer, "litgpt": train_with_litgpt}[peer](given, ROWS, clock.step)
    else:
        main()
