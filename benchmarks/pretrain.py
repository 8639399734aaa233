"""Training speed from scratch, against transformers' Trainer and litgpt, and as a share of the matrix rate.

All sides train the same Qwen3 shape on the same rows of 512 tokens, 8 a step, fused AdamW with clipping, in
turns.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from measure import TORCH, WORK, Turns, Worker, median, peer_python, take_turns, versions, write_result

LAYERS, WIDTH, HEADS, HEAD_DIM, FFN, VOCABULARY, SEQ_LEN, BATCH = 8, 320, 5, 64, 864, 8192, 512, 8
LEARNING_RATE, WEIGHT_DECAY, WARM_UP = 6e-4, 0.1, 2
ROWS = WORK / "pretrain-rows.npy"
PEERS = {"trainer": [TORCH, "transformers==5.23.0", "accelerate"], "litgpt": [TORCH, "litgpt"]}
CLAIM = "Training tokens/s of a Qwen3 shape, 320 wide x 8 layers, against transformers' Trainer and litgpt"


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

    device = torch.device("cpu")
    if precision == "bf16" and not has_native_bf16(device):
        return {"skipped": "this CPU only emulates bf16, many times slower"}
    steps = 3 + asked.steps * asked.turns
    plan = make_plan(_recipe("etude", precision, steps))
    _write_rows(plan, steps)
    workers: dict[str, Worker] = {}
    skipped: dict[str, str] = {}
    for side in asked.sides:
        try:
            peer = side.partition("-")[0]
            python = peer_python(peer, PEERS[peer]) if peer in PEERS else Path(sys.executable)
            workers[side] = Worker(side, python, "pretrain.py", [precision, str(asked.steps), str(steps)])
        except RuntimeError as error:
            skipped[side] = str(error)
    taken = take_turns({side: worker.turn for side, worker in workers.items()}, asked.turns)
    for worker in workers.values():
        worker.close()
    assert isinstance(plan.model, DecoderConfig)
    rate = measure_matrix_rate(device, torch.float32 if precision == "fp32" else torch.bfloat16)
    tokens = asked.steps * BATCH * SEQ_LEN
    speeds = {side: tokens / median([turn["seconds"] for turn in turns]) for side, turns in taken.items()}
    best = max(
        (speed for side, speed in speeds.items() if not side.startswith("etude")), default=float("nan")
    )
    cost = flops_per_token(plan.model, SEQ_LEN)
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


def _recipe(side: str, precision: str, steps: int) -> Any:
    from etude.recipe.load import recipe_from

    return recipe_from({
        "name": f"bench-{side}",
        "model": {
            "n_layer": LAYERS, "n_head": HEADS, "head_dim": HEAD_DIM, "n_embd": WIDTH, "n_ffn": FFN,
            "qk_norm": True,
        },
        "tokenizer": {"train_vocab_size": VOCABULARY},
        "data": {"train": [{"source": "python-stdlib"}], "validation": "none"},
        "train": {
            "steps": steps, "seq_len": SEQ_LEN, "global_batch_size": BATCH, "precision": precision,
            "device": "cpu", "compile": side.endswith("-compile"),
        },
        "optim": {"learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "beta2": 0.999},
        "schedule": {"kind": "linear", "warmup_steps": WARM_UP, "min_lr_ratio": 0.0},
        "checkpoint": {"every_steps": 10**6},
    })  # fmt: skip


def _write_rows(plan: Any, steps: int) -> None:
    """The rows of every step, (steps, BATCH, SEQ_LEN + 1) int64, in the order in which etude
    trains on them."""
    import numpy as np

    from etude.data.loader import Loader

    loader = Loader(
        plan.corpus.train,
        global_batch_size=BATCH,
        micro_batch_size=BATCH,
        seed=17,
        attend_across_documents=True,
    )
    batches = [loader.load(step).micro_batches[0] for step in range(steps)]
    rows = np.stack([np.concatenate([batch.tokens, batch.labels[:, -1:]], axis=1) for batch in batches])
    np.save(ROWS, rows)


def _run_etude(side: str, precision: str, steps: int, turns: Turns) -> None:
    import tempfile

    from etude.run import Training
    from etude.start import Options

    with tempfile.TemporaryDirectory(dir=WORK) as runs:
        for step in Training(_recipe(side, precision, steps), Options(runs=Path(runs))):
            measured = step.measured
            turns.step(lambda measured=measured: float(measured[0] / measured[1]))  # type: ignore[misc]


def _run_trainer(side: str, precision: str, steps: int, turns: Turns) -> None:
    import numpy as np
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM, Trainer, TrainerCallback, TrainingArguments

    class Rows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
        def __init__(self) -> None:
            self.rows = torch.from_numpy(np.load(ROWS)).flatten(0, 1)[:, :-1]

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            return {"input_ids": self.rows[index], "labels": self.rows[index]}

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            turns.step()

    torch.manual_seed(17)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=FFN, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, head_dim=HEAD_DIM,
        max_position_embeddings=SEQ_LEN, tie_word_embeddings=True, use_cache=False,
    )  # fmt: skip
    arguments = TrainingArguments(
        output_dir=str(WORK / "trainer-output"), max_steps=steps, per_device_train_batch_size=BATCH,
        use_cpu=True, optim="adamw_torch_fused", learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY,
        warmup_steps=WARM_UP, lr_scheduler_type="linear", max_grad_norm=1.0, bf16=precision == "bf16",
        torch_compile=side.endswith("-compile"), eval_strategy="no", save_strategy="no",
        logging_strategy="no", report_to=[], disable_tqdm=True, dataloader_num_workers=0,
    )  # fmt: skip
    Trainer(model=Qwen3ForCausalLM(config), args=arguments, train_dataset=Rows(), callbacks=[Clock()]).train()


def _run_litgpt(side: str, precision: str, steps: int, turns: Turns) -> None:
    import numpy as np
    import torch
    from litgpt import Config
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.data import DataModule
    from litgpt.pretrain import setup

    class Batches(torch.utils.data.Dataset[torch.Tensor]):
        """A batch is asked for when the step before it is done, so this is where the clock hangs."""

        def __init__(self) -> None:
            self.rows, self.asked = torch.from_numpy(np.load(ROWS)), 0

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: int) -> torch.Tensor:
            if self.asked:
                turns.step()
            self.asked += 1
            return self.rows[index]  # type: ignore[no-any-return]

    class Data(DataModule):  # type: ignore[misc]
        def connect(self, **_: Any) -> None: ...

        def train_dataloader(self) -> torch.utils.data.DataLoader[torch.Tensor]:
            return torch.utils.data.DataLoader(Batches(), batch_size=None)

        def val_dataloader(self) -> torch.utils.data.DataLoader[torch.Tensor]:
            # Its check of the settings wants one batch, before the clock starts.
            return torch.utils.data.DataLoader(torch.from_numpy(np.load(ROWS)[0]), batch_size=BATCH)  # type: ignore[arg-type]

    config = Config(
        name="bench", block_size=SEQ_LEN, vocab_size=VOCABULARY, padded_vocab_size=VOCABULARY, n_layer=LAYERS,
        n_head=HEADS, head_size=HEAD_DIM, n_embd=WIDTH, n_query_groups=HEADS, rotary_percentage=1.0,
        parallel_residual=False, bias=False, norm_class_name="RMSNorm", norm_eps=1e-6, norm_qk=True,
        mlp_class_name="LLaMAMLP", intermediate_size=FFN,
    )  # fmt: skip
    setup(
        "bench", model_config=config, out_dir=WORK / "litgpt-output", data=Data(), devices=1,
        logger_name="csv", precision="32-true" if precision == "fp32" else "bf16-mixed",
        optimizer={"class_path": "torch.optim.AdamW", "init_args": {
            "lr": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "betas": [0.9, 0.999], "fused": True}},
        train=TrainArgs(
            save_interval=None, log_interval=10**9, global_batch_size=BATCH, micro_batch_size=BATCH,
            max_tokens=steps * BATCH * SEQ_LEN, max_norm=1.0, min_lr=0.0, lr_warmup_steps=WARM_UP,
            tie_embeddings=True,
        ),
        eval=EvalArgs(interval=10**9, max_iters=1, initial_validation=False, final_validation=False),
    )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        side, precision, turn_steps, all_steps = sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
        run = {"etude": _run_etude, "trainer": _run_trainer, "litgpt": _run_litgpt}[side.partition("-")[0]]
        run(side, precision, all_steps, Turns(turn_steps))
    else:
        main()
