"""LoRA and full fine-tuning of a Qwen2 shape, against transformers' Trainer with PEFT and TRL's SFTTrainer.

All sides start from the same base, which etude pretrains first and keeps in `.work`, and see the same samples
in every step, eight of them; only the sides called `-grouped` draw batches of like length, in an order of
their own. One evaluator, transformers' model on one sample at a time, scores the same validation rows for all
sides.
"""

import argparse
import json
import resource
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import (
    TORCH,
    WORK,
    Turns,
    Worker,
    answer,
    median,
    peer_python,
    take_turns,
    versions,
    write_result,
)

HOME = WORK / "lora"
PEERS = [TORCH, "transformers==5.23.0", "accelerate", "peft", "trl"]
SIDES = ["etude", "trainer-flat", "trainer-grouped", "trl-flat", "trl-grouped"]
TOKENIZERS = {50_304: "gpt2", 151_936: "qwen2"}
SHAPE = {"n_layer": 8, "n_head": 8, "n_kv_head": 2, "n_embd": 512, "n_ffn": 1408, "qkv_bias": True}
TINY = {"n_layer": 2, "n_head": 2, "n_kv_head": 1, "n_embd": 32, "n_ffn": 64, "qkv_bias": True}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
RANK, ALPHA, BATCH, SEQ_LEN = 16, 32.0, 8, 512
TRAIN_ROWS, VALIDATION_ROWS = 512, 48
# The chat template of Qwen2.5, as it is without tools.
QWEN = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. "
    "You are a helpful assistant.<|im_end|>\n' }}{% endif %}{% for message in messages %}{{ '<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LEARNING_RATE = {"lora": 3e-3, "full": 3e-4}
CLAIM = "Fine-tuning a Qwen2 shape on CodeAlpaca: real tokens/s, peak memory and loss, against Trainer + PEFT and TRL"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True, help="codealpaca_new.jsonl")
    parser.add_argument("--tokenizers", type=Path, required=True, help="a folder that holds gpt2 and qwen2")
    parser.add_argument("--vocabulary", type=int, nargs="+", choices=TOKENIZERS, default=list(TOKENIZERS))
    parser.add_argument("--mode", nargs="+", choices=["lora", "full"], default=["lora", "full"])
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--template", choices=["plain", "qwen"], default="plain")
    parser.add_argument("--system-tokens", type=int, default=0, help="of a system prompt before each row")
    parser.add_argument("--steps", type=int, default=4, help="steps of a turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=3, help="steps before the turns, not timed")
    parser.add_argument("--validation-rows", type=int, default=VALIDATION_ROWS)
    parser.add_argument(
        "--more-steps", type=int, default=40, help="after the turns, not timed, for the loss to fall"
    )
    parser.add_argument(
        "--pretrain-steps", type=int, default=20, help="of 4 x 128 tokens, once for each vocabulary"
    )
    parser.add_argument(
        "--tiny", action="store_true", help="a toy shape, to try the script; writes no result"
    )
    asked = parser.parse_args()
    HOME.mkdir(parents=True, exist_ok=True)
    if asked.system_tokens and asked.template == "plain":
        parser.error("--system-tokens needs --template qwen")
    results: dict[str, Any] = {}
    table: list[list[Any]] = [
        ["side", "real tokens/s", "x best peer", "by CPU time", "peak GB", "validation loss", "fall"]
    ]
    for vocabulary in asked.vocabulary:
        for mode in asked.mode:
            for precision in asked.precision:
                name = f"{mode}, vocabulary {vocabulary:,}, {precision}"
                results[name] = result = _compare(vocabulary, mode, precision, asked)
                table += [[f"{side}: {name}", *_cells(row)] for side, row in result.get("sides", {}).items()]
                if "skipped" in result:
                    table.append([name, result["skipped"], "", "", "", "", ""])
    if asked.tiny:
        print(json.dumps(results, indent=1))
        return
    packages = ["torch", "transformers", "peft", "trl", "accelerate"]
    name = "lora" if asked.template == "plain" else f"lora-qwen-{asked.system_tokens}"
    write_result(name, CLAIM, {"peers": versions(peer_python("trl", PEERS), packages), **results}, table)


def pretrained_base(vocabulary: int, tokenizers: Path, steps: int, *, tiny: bool = False) -> Path:
    """A folder with a Qwen2 model that has learnt a little of the standard library; made once."""
    from etude.recipe.load import recipe_from
    from etude.records.folder import list_checkpoints
    from etude.run import run_recipe
    from etude.start import Options

    folder = HOME / f"base-{vocabulary}-{steps}{'-tiny' if tiny else ''}"
    if (folder / "config.json").exists():
        return folder
    recipe = recipe_from({
        "name": folder.name, "model": {**(TINY if tiny else SHAPE), "vocab_size": vocabulary},
        "tokenizer": {"from": str((tokenizers / TOKENIZERS[vocabulary]).resolve())},
        "data": {"train": [{"source": "python-stdlib"}], "validation": "none"},
        "train": {"steps": steps, "seq_len": 128, "global_batch_size": 4, "device": "cpu", "precision": "fp32"},
        "optim": {"learning_rate": 1e-3}, "schedule": {"warmup_steps": min(5, steps - 1)},
        "checkpoint": {"every_steps": 10**6},
    })  # fmt: skip
    training = run_recipe(recipe, Options(runs=HOME / "runs"))
    shutil.copytree(
        list_checkpoints(training.run.checkpoints)[-1], folder, ignore=shutil.ignore_patterns("optim*")
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"max_position_embeddings": 4 * SEQ_LEN}, indent=2)
    )
    return folder


def _write_rows(path: Path, vocabulary: int, asked: argparse.Namespace) -> None:
    """The rows of both splits; under Qwen's template as messages, behind a system prompt of other rows' code."""
    from transformers import AutoTokenizer

    lines = path.read_text("utf-8").splitlines()
    parts = {"train": lines[:TRAIN_ROWS], "validation": lines[-asked.validation_rows :]}
    system: list[dict[str, str]] = []
    if asked.system_tokens:
        text = "\n".join(
            json.loads(line)["output"] for line in lines[TRAIN_ROWS : -asked.validation_rows][:200]
        )
        tokenizer = AutoTokenizer.from_pretrained(asked.tokenizers / TOKENIZERS[vocabulary])
        ids = tokenizer(text)["input_ids"][: asked.system_tokens]
        system = [{"role": "system", "content": tokenizer.decode(ids)}]
    for name, rows in parts.items():
        made = rows if asked.template == "plain" else [_as_messages(json.loads(row), system) for row in rows]
        (HOME / f"{name}.jsonl").write_text("\n".join(made) + "\n", "utf-8")


def _as_messages(row: dict[str, str], system: list[dict[str, str]]) -> str:
    question = "\n".join(filter(None, [row["instruction"], row.get("input", "")]))
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": row["output"]}]
    return json.dumps({"messages": [*system, *turns]})


def _with_template(base: Path) -> Path:
    """The same model, whose tokenizer has Qwen's template and the tokens of its turns; made once."""
    from transformers import AutoTokenizer

    folder = base.with_name(f"{base.name}-qwen")
    if not folder.exists():
        shutil.copytree(base, folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        tokenizer.chat_template = QWEN
        tokenizer.save_pretrained(folder)
    return folder


def _compare(vocabulary: int, mode: str, precision: str, asked: argparse.Namespace) -> dict[str, Any]:
    import torch

    from etude.engine.precision import has_native_bf16
    from etude.plan import make_plan
    from etude.recipe.load import recipe_from

    if precision == "bf16" and not has_native_bf16(torch.device("cpu")):
        return {"skipped": "this CPU only emulates bf16, many times slower"}
    timed = asked.warm_up + asked.steps * asked.turns
    steps = timed + max(asked.more_steps, 1)  # after the last one etude evaluates and saves
    base = pretrained_base(vocabulary, asked.tokenizers, asked.pretrain_steps, tiny=asked.tiny)
    if asked.template == "qwen":
        base = _with_template(base)
    _write_rows(asked.rows, vocabulary, asked)
    recipe = _recipe(base, mode, precision, steps)
    recipe["train"]["seq_len"] += asked.system_tokens
    recipe["data"]["template"] = "plain" if asked.template == "plain" else "chat"
    if asked.system_tokens:  # which makes near-duplicates of all rows
        recipe["data"] |= {"deduplicate": "exact", "leakage": {"max_ratio": 1.0}}
    plan = make_plan(recipe_from(recipe))
    task = HOME / "task.json"
    samples = _samples(plan, steps)
    task.write_text(json.dumps({
        "base": str(base), "recipe": recipe, "mode": mode, "precision": precision, "steps": steps,
        "timed": timed, "turn": asked.steps, "warm_up": asked.warm_up, "learning_rate": LEARNING_RATE[mode], **samples,
    }))  # fmt: skip
    first = _score_folder(base, samples["validation"])
    peer = peer_python("trl", PEERS)
    workers: dict[str, Worker] = {}
    skipped: dict[str, str] = {}
    for side in asked.sides:
        try:
            python = Path(sys.executable) if side == "etude" else peer
            workers[side] = Worker(side, python, "lora.py", [str(task)])
        except RuntimeError as error:
            skipped[side] = str(error)
    taken = take_turns({side: worker.turn for side, worker in workers.items()}, asked.turns)
    ends = {side: worker.turn() for side, worker in workers.items()}
    for worker in workers.values():
        worker.close()
    sides = {side: _figures(taken[side], ends[side], asked, first) for side in workers}
    best = max(
        (row["tokens_per_second"] for side, row in sides.items() if side != "etude"), default=float("nan")
    )
    least = min((row["peak_bytes"] for side, row in sides.items() if side != "etude"), default=0)
    for row in sides.values():
        row["ratio_to_best_peer"] = round(row["tokens_per_second"] / best, 3)
        row["ratio_by_cpu"] = _ratio_by_cpu(row, [each for side, each in sides.items() if side != "etude"])
    return {
        "parameters": plan.parameters, "threads": torch.get_num_threads(), "steps": steps,
        "learning_rate": LEARNING_RATE[mode], "steps_of_a_turn": asked.steps, "turns": asked.turns,
        "validation_loss_before": first, "least_peer_peak_bytes": least,
        "sides": {**sides, **{side: {"skipped": why} for side, why in skipped.items()}},
    }  # fmt: skip


def _figures(
    turns: list[dict[str, Any]], end: dict[str, Any], asked: argparse.Namespace, first: float
) -> dict[str, Any]:
    """Figures of a side; its speed is the median over the turns of real tokens by seconds."""
    steps, until = asked.steps, asked.warm_up + asked.steps * len(turns)
    timed = end["tokens"][asked.warm_up : until]
    tokens = [sum(timed[low : low + steps]) for low in range(0, len(timed), steps)]
    return {
        "tokens_per_second": round(
            median([count / turn["seconds"] for count, turn in zip(tokens, turns)]), 1
        ),
        "tokens_per_cpu_second": [
            round(count / turn["cpu_seconds"], 1) for count, turn in zip(tokens, turns)
        ],
        "peak_bytes": end["peaks"][until - 1],
        "validation_loss": round(end["validation_loss"], 4),
        "fall": round(first - end["validation_loss"], 4),
        "seconds": [round(turn["seconds"], 3) for turn in turns],
        "cpu_seconds": [round(turn["cpu_seconds"], 3) for turn in turns],
        "tokens": tokens,
        "training_losses": [round(loss, 5) for loss in end["losses"]],
    }


def _ratio_by_cpu(row: dict[str, Any], peers: list[dict[str, Any]]) -> float | None:
    """Median over the turns of tokens by processor second against those of the best peer, by the same median."""
    name = "tokens_per_cpu_second"
    if not peers:
        return None
    best = max(peers, key=lambda peer: median(peer[name]))
    return round(median([ours / theirs for ours, theirs in zip(row[name], best[name])]), 3)


def _cells(row: dict[str, Any]) -> list[Any]:
    if "skipped" in row:
        return [row["skipped"], "", "", "", "", ""]
    peak = round(row["peak_bytes"] / 1e9, 2)
    ratios = [row["ratio_to_best_peer"], row["ratio_by_cpu"]]
    return [row["tokens_per_second"], *ratios, peak, row["validation_loss"], row["fall"]]


def _recipe(base: Path, mode: str, precision: str, steps: int) -> dict[str, Any]:
    adapter = {"adapter": {"rank": RANK, "alpha": ALPHA, "targets": TARGETS}} if mode == "lora" else {}
    return {
        "name": "bench-lora",
        "model": {"from": str(base)},
        **adapter,
        "data": {
            "train": [{"path": str(HOME / "train.jsonl")}],
            "validation": [{"path": str(HOME / "validation.jsonl")}],
        },
        "train": {
            "steps": steps, "seq_len": SEQ_LEN, "global_batch_size": BATCH, "precision": precision,
            "device": "cpu",
        },
        "optim": {"learning_rate": LEARNING_RATE[mode], "weight_decay": 0.0, "beta2": 0.999},
        "schedule": {"kind": "constant"},
        "evaluate": {"every_steps": steps},
        "checkpoint": {"every_steps": 10**6},
    }  # fmt: skip


def _samples(plan: Any, steps: int) -> dict[str, Any]:
    """The samples of all steps in etude's order, of the training rows, and of the validation rows, as peers
    take them: ids and labels of equal length, not shifted.
    """
    from etude.data.loader import sample_ids

    def rows(split: Any, ids: Sequence[int]) -> list[dict[str, list[int]]]:
        found = [split.sample(int(index)) for index in ids]
        return [
            {
                "input_ids": [*sample.tokens.tolist(), int(sample.labels[-1])],
                "labels": [-100, *sample.labels.tolist()],
            }
            for sample in found
        ]

    train, validation = plan.corpus.train, plan.corpus.validation
    order = [
        sample_ids(step, n=len(train), global_batch_size=BATCH, seed=plan.recipe.seed).tolist()
        for step in range(steps)
    ]
    everything = {
        "train": rows(train, range(len(train))),
        "validation": rows(validation, range(len(validation))),
    }
    return {"order": order, **everything}


def _score_folder(folder: Path, rows: list[dict[str, list[int]]]) -> float:
    import torch
    from transformers import AutoModelForCausalLM

    return _score(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), rows)


def _score(model: Any, rows: list[dict[str, list[int]]]) -> float:
    """Mean loss in nats over the targets of the rows."""
    import torch

    model.eval()
    total = targets = 0.0
    with torch.no_grad():
        for row in rows:
            logits = model(input_ids=torch.tensor([row["input_ids"]]), use_cache=False).logits[0, :-1].float()
            labels = torch.tensor(row["labels"][1:])
            total += float(
                torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
            )
            targets += float((labels != -100).sum())
    return total / targets


def _run_etude(task: dict[str, Any]) -> None:
    import tempfile

    from etude.export import export
    from etude.recipe.load import recipe_from
    from etude.records.folder import list_checkpoints
    from etude.run import Training
    from etude.start import Options

    turns, losses, peaks = Turns(task["turn"], task["warm_up"]), [], []
    with tempfile.TemporaryDirectory(dir=HOME) as folder:
        training = Training(recipe_from(task["recipe"]), Options(runs=Path(folder)))
        for step in training:
            losses.append(float(step.measured[0] / step.measured[1]))
            peaks.append(_peak_bytes())
            if len(peaks) <= task["timed"]:
                turns.step()
        trained = list_checkpoints(training.run.checkpoints)[-1]
        if task["mode"] == "lora":
            trained = export(f"{training.run.path}@last", "merged", Path(folder) / "merged")
        loss = _score_folder(trained, task["validation"])
    tokens = [sum(len(task["train"][index]["input_ids"]) for index in step) for step in task["order"]]
    answer({"tokens": tokens, "losses": losses, "peaks": peaks, "validation_loss": loss})


def _run_peer(side: str, task: dict[str, Any]) -> None:
    """Trainer or SFTTrainer, without padding (`-flat`, etude's order) or with batches of like length
    (`-grouped`).
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        DataCollatorWithFlattening,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )
    from trl import SFTConfig, SFTTrainer

    kind, _, layout = side.partition("-")
    turns, tokens, losses, peaks = Turns(task["turn"], task["warm_up"]), [], [], []
    parent: Any = SFTTrainer if kind == "trl" else Trainer

    class Counting(parent):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            mask = inputs.get("attention_mask")
            tokens.append(inputs["input_ids"].numel() if mask is None else int(mask.sum()))
            return super().training_step(model, inputs, *rest, **named)

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            peaks.append(_peak_bytes())
            if len(peaks) <= task["timed"]:
                turns.step()

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            losses.extend([logs["loss"]] if "loss" in logs else [])

    torch.manual_seed(17)
    is_bf16, is_lora = task["precision"] == "bf16", task["mode"] == "lora"
    # With an adapter the frozen base is loaded in bf16; all weights in training stay in fp32, under autocast.
    dtype = torch.bfloat16 if is_bf16 and is_lora else torch.float32
    model = AutoModelForCausalLM.from_pretrained(task["base"], dtype=dtype, attn_implementation="sdpa")
    model.config.use_cache = False
    tokenizer = AutoTokenizer.from_pretrained(task["base"])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    lora = LoraConfig(r=RANK, lora_alpha=int(ALPHA), target_modules=TARGETS, task_type="CAUSAL_LM")
    same_order = [task["train"][index] for step in task["order"] for index in step]
    rows = (
        same_order if layout == "flat" else [row | {"length": len(row["input_ids"])} for row in task["train"]]
    )
    settings: dict[str, Any] = {
        "output_dir": str(HOME / "peer-output"), "max_steps": task["steps"],
        "per_device_train_batch_size": BATCH, "use_cpu": True, "optim": "adamw_torch_fused",
        "learning_rate": task["learning_rate"], "weight_decay": 0.0, "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0, "bf16": is_bf16, "gradient_checkpointing": False, "eval_strategy": "no",
        "save_strategy": "no", "logging_steps": 1, "report_to": [], "disable_tqdm": True,
        "train_sampling_strategy": "sequential" if layout == "flat" else "group_by_length",
    }  # fmt: skip
    common = {"model": model, "train_dataset": Dataset.from_list(rows), "callbacks": [Clock()]}
    if kind == "trl":
        arguments = SFTConfig(**settings, max_length=None, padding_free=layout == "flat")
        trainer = Counting(
            args=arguments, processing_class=tokenizer, peft_config=lora if is_lora else None, **common
        )
    else:
        if is_lora:
            common["model"] = get_peft_model(model, lora)
        collator = DataCollatorWithFlattening() if layout == "flat" else DataCollatorForSeq2Seq(tokenizer)
        trainer = Counting(args=TrainingArguments(**settings), data_collator=collator, **common)
    trainer.train()
    loss = _score(trainer.model, task["validation"])
    answer({"tokens": tokens, "losses": losses, "peaks": peaks, "validation_loss": loss})


def _peak_bytes() -> int:
    """The most memory this program has had resident.

    By VmHWM where there is one: ru_maxrss also counts what the parent held when it started this process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return (
            next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
            * 1024
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        side, task = sys.argv[2], json.loads(Path(sys.argv[3]).read_text("utf-8"))
        if side == "etude":
            _run_etude(task)
        else:
            _run_peer(side, task)
    else:
        main()
