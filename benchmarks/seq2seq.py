"""Training and evaluation of an encoder-decoder of code against transformers' Seq2SeqTrainer: rows/s and
memory.

A CodeT5 shape, tokenizer included, on real pairs (any JSONL with `source` and `target`), fp32, two threads.
Training starts from the same random weights and every turn shows every side the same rows: the plain Trainer
in the batches of etude, so that losses are equal; the other with rows of like length together, all turn long.
Evaluation is what a model writes greedily for sources that it was not trained on, after `--taught` steps of
training (kept in `.work/`), so that answers end where answers end; the Trainer gets no labels, so that it
does not compute a loss as well, and at its best rows that are sorted by length; its batches are of 64, as
many as etude writes at once. Answers have to be the same.
"""

import argparse
import json
import operator
import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from measure import (
    TORCH,
    WORK,
    Turns,
    Worker,
    answer,
    compare_rows,
    median,
    peer_python,
    take_turns,
    versions,
    wait_for_turn,
)
from measure import write_result as write

LAYERS, WIDTH, HEADS, FFN = 4, 256, 4, 1024
SOURCE_LEN, TARGET_LEN, ANSWER_LEN, BATCH, STEPS, SCORED = 256, 256, 200, 16, 12, 400
LEARNING_RATE = 1e-3
SIDES = {
    "training": ["etude", "trainer", "trainer-grouped"],
    "evaluation": ["etude", "trainer", "trainer-sorted"],
}
EVAL_BATCH = {"trainer": 64, "trainer-sorted": 64}
PEER = [TORCH, "transformers==5.23.0", "accelerate"]
CLAIM = "An encoder-decoder of code, CodeT5 shape of 256 x 4 + 4, rows/s against transformers' Seq2SeqTrainer, fp32"
GOALS = {"training": 2.0, "evaluation": 3.0}
BASE, TAUGHT, GIVEN = WORK / "seq2seq-base", WORK / "seq2seq-taught", WORK / "seq2seq-rows.json"
RECIPE, SCORED_RECIPE = WORK / "seq2seq-recipe.json", WORK / "seq2seq-scored.json"
MOST_ROWS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True, help="JSONL with source and target, to train on")
    parser.add_argument("--scored", type=Path, required=True, help="the same, to write answers for")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder with the tokenizer of CodeT5")
    parser.add_argument("--taught", type=int, default=600, help="steps of training before the evaluation")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--memory", type=int, nargs="*", default=[100, 1000], help="rows of evaluations that are measured"
    )
    parser.add_argument("--only", choices=list(GOALS))
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)
    WORK.mkdir(exist_ok=True)
    _write_base(asked.tokenizer)
    steps = 3 + STEPS * asked.turns
    recipe, scored = (_recipe(path, steps=steps) for path in (asked.rows, asked.scored))
    _teach(recipe, asked.taught)
    _write_rows(recipe, scored, steps)
    python = peer_python("trainer", PEER)
    result: dict[str, Any] = {"goals": GOALS, "peer": versions(python, ["transformers", "torch"])}
    table: list[list[Any]] = [["", "side", "rows/s", "ratio to the best peer", "peak MB"]]
    pythons = {
        side: Path(sys.executable) if side == "etude" else python
        for sides in SIDES.values()
        for side in sides
    }
    for mode in [asked.only] if asked.only else GOALS:
        workers = {side: Worker(side, pythons[side], Path(__file__).name, [mode]) for side in SIDES[mode]}
        taken = take_turns({side: worker.turn for side, worker in workers.items()}, asked.turns)
        for worker in workers.values():
            worker.close()
        result[mode], shown = compare_rows(
            mode, taken, {"training": BATCH * STEPS, "evaluation": SCORED}[mode]
        )
        table += shown
    if asked.only != "training":
        result["answers"] = _compare(SIDES["evaluation"])
        result["memory"] = {side: _memory(side, pythons[side], asked.memory) for side in SIDES["evaluation"]}
        for side, peaks in result["memory"].items():
            told = ", ".join(f"{rows} rows {peak / 1e6:.0f}" for rows, peak in peaks.items())
            table.append([f"memory, MB: {told}", side, "", "", ""])
        print(f"\n{json.dumps(result['answers'])}")
    write("seq2seq", CLAIM, result, table)


def _write_base(tokenizer: Path) -> None:
    """A folder with random weights, as a pretrained model comes."""
    from safetensors.torch import save_file

    from etude.models.t5 import T5
    from etude.models.t5_config import T5Config

    BASE.mkdir(exist_ok=True)
    for file in tokenizer.iterdir():
        if file.is_file():
            shutil.copyfile(file, BASE / file.name)
    vocabulary = json.loads((tokenizer / "vocab.json").read_text())
    config = T5Config(
        vocab_size=len(vocabulary), n_layer=LAYERS, n_decoder_layer=LAYERS, n_head=HEADS, n_embd=WIDTH,
        n_ffn=FFN, head_dim=WIDTH // HEADS, start_id=vocabulary["<pad>"],
    )  # fmt: skip
    model = T5(config)
    model.init_weights(17)
    save_file(
        {name: value.detach() for name, value in model.state_dict().items()}, BASE / "model.safetensors"
    )
    told = config.to_hf(eos_id=vocabulary["</s>"], pad_id=vocabulary["<pad>"])
    (BASE / "config.json").write_text(json.dumps(told))


def _recipe(rows: Path, *, steps: int) -> dict[str, Any]:
    return {
        "name": "bench-seq2seq",
        "model": {"from": str(BASE)},
        "data": {
            "train": [{"path": str(rows.resolve()), "field": "source", "target": "target"}],
            "validation": "none",
        },
        "train": {
            "objective": "seq2seq", "steps": steps, "seq_len": SOURCE_LEN, "target_len": TARGET_LEN,
            "global_batch_size": BATCH, "micro_batch_size": BATCH, "device": "cpu", "precision": "fp32",
        },
        "optim": {"learning_rate": LEARNING_RATE, "weight_decay": 0.01, "beta2": 0.999},
        "schedule": {"kind": "constant"},
        "evaluate": {"every_steps": 10**6},
        "checkpoint": {"every_steps": 10**6},
    }  # fmt: skip


def _teach(recipe: dict[str, Any], steps: int) -> None:
    """A folder with a model that has learnt enough to end its answers, unless the same steps have
    left one."""
    from etude.recipe.load import recipe_from
    from etude.run import run_recipe
    from etude.start import Options

    less = {"steps": steps, "seq_len": 128, "target_len": 128, "global_batch_size": 8, "micro_batch_size": 8}
    recipe = {
        **recipe,
        "train": {**recipe["train"], **less},
        "schedule": {"kind": "linear", "warmup_steps": 20},
    }
    told = TAUGHT / "recipe.json"
    if told.exists() and json.loads(told.read_text()) == recipe:
        return
    run = run_recipe(recipe_from(recipe), Options(runs=WORK / "runs", new=True)).run
    shutil.rmtree(TAUGHT, ignore_errors=True)
    assert run.best is not None
    shutil.copytree(run.checkpoints / run.best["checkpoint"], TAUGHT)
    told.write_text(json.dumps(recipe))


def _write_rows(recipe: dict[str, Any], scored: dict[str, Any], steps: int) -> None:
    """Tokens in the order of etude's steps, and those to write answers for, so that the peer reads what etude
    reads.
    """
    from etude.data.loader import sample_ids
    from etude.data.prepared import prepare
    from etude.recipe.load import recipe_from

    corpus = prepare(recipe_from(recipe), tokenizer_folder=BASE)
    rows = []
    for step in range(steps):
        ids = sample_ids(step, n=len(corpus.train), global_batch_size=BATCH, seed=recipe_from(recipe).seed)
        for sample in (corpus.train.sample(int(index)) for index in ids):
            rows.append({"input_ids": sample.tokens.tolist(), "labels": sample.labels.tolist()})
    asked = [
        list(map(int, example.prompt_ids))
        for example in prepare(recipe_from(scored), tokenizer_folder=BASE).examples_of["train"]
    ]
    GIVEN.write_text(json.dumps({"rows": rows, "asked": asked[:MOST_ROWS]}))
    SCORED_RECIPE.write_text(json.dumps(scored))
    RECIPE.write_text(json.dumps(recipe))


def _compare(sides: list[str]) -> dict[str, Any]:
    """Lengths of the answers of the last turns, and the number that are the same token for token."""
    said = {side: json.loads((WORK / f"seq2seq-{side}.json").read_text()) for side in sides}
    lengths = sorted(map(len, said["etude"]))
    return {
        "rows": len(lengths),
        "tokens_mean": sum(lengths) / len(lengths),
        "tokens_median": median(lengths),
        "cut": sum(length == ANSWER_LEN for length in lengths),
        "different": {side: sum(map(operator.ne, said["etude"], said[side])) for side in sides[1:]},
    }


def _memory(side: str, python: Path, counts: list[int]) -> dict[int, int]:
    """The most that a process of its own has held which writes so many answers, in bytes."""
    peaks = {}
    for rows in counts:
        worker = Worker(side, python, Path(__file__).name, ["evaluation", str(rows)])
        peaks[rows] = int(worker.ready["peak_bytes"])
        worker.close()
    return peaks


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def _evaluate(side: str, write_answers: Callable[[int], list[list[int]]], rows: int | None) -> None:
    """From within a worker: answer some rows to warm up, or all that only memory is asked for, then all once
    a turn.
    """
    write_answers(rows or 64)
    answer({"ready": True, "peak_bytes": _peak()})
    while True:
        wait_for_turn()
        started, busy = time.perf_counter(), time.process_time()
        said = write_answers(SCORED)
        turn = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - busy}
        (WORK / f"seq2seq-{side}.json").write_text(json.dumps(said))
        answer({**turn, "peak_bytes": _peak()})


def _work(side: str, mode: str, rows: int | None) -> None:
    import measure

    told = measure.answer
    measure.answer = lambda value: told({**value, "peak_bytes": _peak()})
    if side == "etude":
        _run_etude(mode, rows)
    else:
        _run_trainer(side, mode, rows)


def _run_etude(mode: str, rows: int | None) -> None:
    import torch

    from etude.data.prepared import prepare
    from etude.evaluate.answers import greedy
    from etude.export import load_model
    from etude.recipe.load import recipe_from
    from etude.run import Training
    from etude.start import Options

    if mode == "training":
        turns = Turns(STEPS)
        for step in Training(
            recipe_from(json.loads(RECIPE.read_text())), Options(runs=WORK / "runs", new=True)
        ):
            turns.step(partial(float, step.measured[0] / step.measured[1]))
        return
    corpus = prepare(recipe_from(json.loads(SCORED_RECIPE.read_text())), tokenizer_folder=BASE)
    model, asked = load_model(TAUGHT, dtype=torch.float32), json.loads(GIVEN.read_text())["asked"]

    def write_answers(count: int) -> list[list[int]]:
        return [
            [*part.ids, *[corpus.tokenizer.eos_id] * part.stopped]
            for part in greedy(model, corpus, asked[:count], ANSWER_LEN)
        ]

    _evaluate("etude", write_answers, rows)


def _run_trainer(side: str, mode: str, rows: int | None) -> None:
    import torch
    from transformers import (
        AutoModelForSeq2SeqLM,
        GenerationConfig,
        Seq2SeqTrainer,
        Seq2SeqTrainingArguments,
        TrainerCallback,
    )

    given = json.loads(GIVEN.read_text())
    model = AutoModelForSeq2SeqLM.from_pretrained(BASE if mode == "training" else TAUGHT)
    pad, end, start = (
        getattr(model.config, f"{name}_token_id") for name in ("pad", "eos", "decoder_start")
    )  # fmt: skip

    def collate(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        def padded(name: str, value: int) -> torch.Tensor:
            return torch.nn.utils.rnn.pad_sequence([torch.tensor(row[name]) for row in batch], True, value)

        tokens = padded("input_ids", pad)
        lengths = torch.tensor([len(row["input_ids"]) for row in batch])
        mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long()
        labels = {"labels": padded("labels", -100)} if "labels" in batch[0] else {}
        return {"input_ids": tokens, "attention_mask": mask, **labels}

    turns = Turns(STEPS) if mode == "training" else None
    last = torch.zeros(())

    class Timed(Seq2SeqTrainer):  # type: ignore[misc]
        def training_step(self, *given: Any, **more: Any) -> torch.Tensor:
            nonlocal last
            last = super().training_step(*given, **more)
            assert isinstance(last, torch.Tensor)
            return last

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            assert turns is not None
            turns.step(partial(float, last))

    arguments = Seq2SeqTrainingArguments(
        output_dir=str(WORK / "trainer-output"), max_steps=len(given["rows"]) // BATCH,
        per_device_train_batch_size=BATCH, per_device_eval_batch_size=EVAL_BATCH.get(side, BATCH),
        use_cpu=True, optim="adamw_torch_fused", learning_rate=LEARNING_RATE, weight_decay=0.01,
        lr_scheduler_type="constant", max_grad_norm=1.0, eval_strategy="no", save_strategy="no",
        logging_strategy="no", report_to=[], disable_tqdm=True, remove_unused_columns=False,
        train_sampling_strategy="sequential", predict_with_generate=True, eval_accumulation_steps=1,
        generation_config=GenerationConfig(
            max_new_tokens=ANSWER_LEN, do_sample=False, num_beams=1, pad_token_id=pad, eos_token_id=end,
            decoder_start_token_id=start,
        ),
    )  # fmt: skip
    taught = given["rows"]
    if side == "trainer-grouped":
        first = 3 * BATCH
        for low in range(first, len(taught), STEPS * BATCH):
            some = slice(low, low + STEPS * BATCH)
            taught[some] = sorted(taught[some], key=lambda row: len(row["input_ids"]) + len(row["labels"]))
    trainer = Timed(
        model=model, args=arguments, train_dataset=taught, data_collator=collate,
        callbacks=[Clock()] if turns else [],
    )  # fmt: skip
    if turns:
        trainer.train()
        return

    def write_answers(count: int) -> list[list[int]]:
        asked = given["asked"][:count]
        order = list(range(count))
        if side == "trainer-sorted":
            order.sort(key=lambda index: len(asked[index]))
        said = trainer.predict([{"input_ids": asked[index]} for index in order]).predictions
        answers: list[list[int]] = [[] for _ in order]
        for index, ids in zip(order, said.tolist()):
            written = ids[1:]
            answers[index] = written[: written.index(end) + 1] if end in written else written[:ANSWER_LEN]
        return answers

    _evaluate(side, write_answers, rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        _work(sys.argv[2], sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else None)
    else:
        main()
