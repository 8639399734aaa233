"""Training and evaluation of a classifier of code against transformers' Trainer: rows/s and memory.

A RoBERTa shape from random weights on real functions (any JSONL with `code` and `label`), cut to 512 tokens;
the same number of rows a step, AdamW fused, fp32. The Trainer pads, and gets rows of like length together:
for training by its own sampling strategy, for evaluation by rows that are sorted beforehand.
"""

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from measure import (
    TORCH,
    WORK,
    Turns,
    Worker,
    answer,
    compare_rows,
    peer_python,
    take_turns,
    versions,
    wait_for_turn,
)
from measure import write_result as write

LAYERS, WIDTH, HEADS, FFN, SEQ_LEN, BATCH, STEPS, SCORED = 4, 256, 4, 1024, 512, 16, 10, 512
LEARNING_RATE = 3e-4
SIDES = ["etude", "trainer", "trainer-grouped"]
PEER = [TORCH, "transformers==5.23.0", "accelerate"]
CLAIM = "A classifier of code, RoBERTa shape of 256 x 4, rows/s against transformers' Trainer, fp32"
GOALS = {"training": 2.0, "evaluation": 3.0}
CONFIG, ROWS = WORK / "classification.json", WORK / "classification-rows.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True, help="JSONL with code and label")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder with a RoBERTa tokenizer")
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    recipe = _recipe(asked.rows, asked.tokenizer, steps=3 + STEPS * asked.turns)
    _write_rows(recipe)
    python = peer_python("trainer", PEER)
    result: dict[str, Any] = {"goals": GOALS, "peer": versions(python, ["transformers", "torch"])}
    table: list[list[Any]] = [["", "side", "rows/s", "ratio to the best peer", "peak MB"]]
    for mode in GOALS:
        workers = {
            side: Worker(
                side, Path(sys.executable) if side == "etude" else python, Path(__file__).name, [mode]
            )
            for side in SIDES
        }
        taken = take_turns({side: worker.turn for side, worker in workers.items()}, asked.turns)
        for worker in workers.values():
            worker.close()
        result[mode], shown = compare_rows(
            mode, taken, {"training": BATCH * STEPS, "evaluation": SCORED}[mode]
        )
        table += shown
    write("classification", CLAIM, result, table)


def _recipe(rows: Path, tokenizer: Path, *, steps: int) -> dict[str, Any]:
    values = {
        "name": "bench-classification",
        "model": {"kind": "encoder", "n_layer": LAYERS, "n_embd": WIDTH, "n_head": HEADS, "n_ffn": FFN},
        "tokenizer": {"from": str(tokenizer.resolve())},
        "data": {
            "train": [{"path": str(rows.resolve()), "field": "code", "label": "label"}],
            "validation_ratio": 0.05,
        },
        "train": {
            "objective": "classification", "steps": steps, "seq_len": SEQ_LEN, "global_batch_size": BATCH,
            "micro_batch_size": BATCH, "device": "cpu", "precision": "fp32",
        },
        "optim": {"learning_rate": LEARNING_RATE, "weight_decay": 0.01},
        "schedule": {"kind": "constant"},
        "evaluate": {"every_steps": 10**6},
        "checkpoint": {"every_steps": 10**6},
    }  # fmt: skip
    CONFIG.write_text(json.dumps(values))
    return values


def _write_rows(recipe: dict[str, Any]) -> None:
    """The tokens and labels of the training rows, so that the peer reads what etude reads."""
    from etude.data.prepared import prepare
    from etude.recipe.load import recipe_from

    corpus = prepare(recipe_from(recipe))
    samples = [corpus.train.sample(index) for index in range(len(corpus.train))]
    rows = [
        {"input_ids": sample.tokens.tolist(), "labels": int(sample.classes.argmax())}
        for sample in samples
        if sample.classes is not None
    ]
    ROWS.write_text(
        json.dumps({"rows": rows, "vocabulary": corpus.tokenizer.vocab_size, "pad": corpus.tokenizer.pad_id})
    )


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def _evaluate(score: Any) -> None:
    """From within a worker: score the rows once to warm up, then once a turn."""
    score()
    answer({"ready": True})
    while True:
        wait_for_turn()
        started = time.perf_counter()
        score()
        answer({"seconds": time.perf_counter() - started, "peak_bytes": _peak()})


def _work(side: str, mode: str) -> None:
    import measure

    told = measure.answer
    measure.answer = lambda value: told({**value, "peak_bytes": _peak()})
    if side == "etude":
        _run_etude(mode)
    else:
        _run_trainer(side, mode)


def _run_etude(mode: str) -> None:
    from etude.data.loader import iterate_once
    from etude.objectives.classification import Classification, predict
    from etude.recipe.load import recipe_from
    from etude.records.ending import Ending
    from etude.run import Training
    from etude.session import begin
    from etude.start import Options

    recipe = recipe_from(json.loads(CONFIG.read_text()))
    options = Options(runs=WORK / "runs", new=True)
    if mode == "training":
        turns = Turns(STEPS)
        for _ in Training(recipe, options):
            turns.step()
        return
    with contextlib.ExitStack() as stack:
        session = begin(recipe, options, stack, lambda: Ending("stopped"))
        task, state = session.examiner.tasks[0], session.state
        kind = task.kind
        assert isinstance(kind, Classification)

        def score() -> None:
            batches = iterate_once(task.corpus.train, BATCH, True, max_samples=SCORED)
            predict(
                state.model, batches, kind, state.precision, session.world, rows=SCORED, classes=2,
                micro_batch_size=BATCH,
            )  # fmt: skip

        _evaluate(score)


def _run_trainer(side: str, mode: str) -> None:
    import torch
    from transformers import (
        RobertaConfig,
        RobertaForSequenceClassification,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    given = json.loads(ROWS.read_text())
    rows, pad = given["rows"], given["pad"]
    if mode == "evaluation":
        rows = [rows[index * len(rows) // SCORED] for index in range(SCORED)]
        if side == "trainer-grouped":
            rows.sort(key=lambda row: len(row["input_ids"]))

    def collate(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in batch)
        tokens = torch.full((len(batch), longest), pad)
        mask = torch.zeros_like(tokens)
        for index, row in enumerate(batch):
            tokens[index, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
            mask[index, : len(row["input_ids"])] = 1
        labels = torch.tensor([row["labels"] for row in batch])
        return {"input_ids": tokens, "attention_mask": mask, "labels": labels}

    turns = Turns(STEPS) if mode == "training" else None

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            assert turns is not None
            turns.step()

    torch.manual_seed(17)
    config = RobertaConfig(
        vocab_size=given["vocabulary"], hidden_size=WIDTH, intermediate_size=FFN, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, max_position_embeddings=SEQ_LEN + 2, pad_token_id=1,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=2,
    )  # fmt: skip
    grouped = {"train_sampling_strategy": "group_by_length"} if side == "trainer-grouped" else {}
    arguments = TrainingArguments(
        output_dir=str(WORK / "trainer-output"), max_steps=10**6, per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=BATCH, use_cpu=True, optim="adamw_torch_fused",
        learning_rate=LEARNING_RATE, weight_decay=0.01, lr_scheduler_type="constant", max_grad_norm=1.0,
        eval_strategy="no", save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True,
        remove_unused_columns=False, **grouped,
    )  # fmt: skip
    trainer = Trainer(
        model=RobertaForSequenceClassification(config), args=arguments, train_dataset=rows,
        data_collator=collate, callbacks=[Clock()] if turns else [],
    )  # fmt: skip
    if turns:
        trainer.train()
    else:
        _evaluate(lambda: trainer.predict(rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        _work(sys.argv[2], sys.argv[3])
    else:
        main()
