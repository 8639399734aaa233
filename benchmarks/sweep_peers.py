"""The 72 trials of `sweep_real.py` by etude, by Ray Tune and by Optuna, the peers over transformers' Trainer.

    python benchmarks/sweep_peers.py --data FOLDER [--place FOLDER] [--sides etude,ray,optuna]

The same rows, weights, lengths, batches, rates and epochs, fp32; two trials at once with a thread each; an
evaluation and a checkpoint an epoch, the best loaded at the end and scored on the test rows. Ray Tune: a Tuner
over the grid. Optuna: a study with a GridSampler for each model, and two processes that share its storage.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import FOLDER, TORCH, WORK, peer_python, versions, write_result
from sweep_shapes import ROWS, SEQ_LEN, make_sweep

PEER = [TORCH, "transformers==5.23.0", "accelerate", "ray[tune]==2.60.0", "optuna==5.0.0"]
CLAIM = "The same 72 trials by etude, Ray Tune and Optuna: optimizer steps, wall time, cells of the grid"
GOALS = {"steps": 0.63, "wall": 0.33}
AT_ONCE = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder with train, valid and test.jsonl")
    parser.add_argument("--place", type=Path, help="a folder for what is made (default: a temporary one)")
    parser.add_argument("--sides", default="etude,ray,optuna")
    parser.add_argument("--rows", type=int, default=ROWS, help="for training")
    parser.add_argument("--seq-len", type=int, default=SEQ_LEN)
    asked = parser.parse_args()
    sys.path.insert(0, str(FOLDER.parent))
    python = peer_python("sweep-peers", PEER)
    with tempfile.TemporaryDirectory() as temporary:
        place = (asked.place or Path(temporary)).resolve()
        path = _write_grid(place, asked)
        sides = {side: _run_side(side, place, path, python) for side in asked.sides.split(",")}
    ours = sides.get("etude")
    table = [["side", "cells", "steps", "wall s", "cpu s", "etude / side: steps", "wall"]]
    for side, told in sides.items():
        ratios = [f"{ours[key] / told[key]:.3f}" if ours else "" for key in ("steps", "wall_seconds")]
        figures = [str(told[key]) for key in ("cells", "steps", "wall_seconds", "cpu_seconds")]
        table.append([side, *figures, *ratios])
    peer = versions(python, ["transformers", "torch", "ray", "optuna"])
    write_result(
        "sweep_peers",
        CLAIM,
        {"rows": asked.rows, "seq_len": asked.seq_len, "goals": GOALS, "peer": peer, "sides": sides},
        table,
    )


def _write_grid(place: Path, asked: argparse.Namespace) -> Path:
    """The sweep file, and beside it its trials as plain values for the peers."""
    from etude.sweep.grid import load_sweep

    path = make_sweep(place, asked.data, rows=asked.rows, seq_len=asked.seq_len, at_once=AT_ONCE)
    trials = []
    for trial in load_sweep(path).trials:
        recipe = trial.recipe
        trials.append({
            "model": trial.model, "learning_rate": recipe.optim.learning_rate,
            "micro_batch_size": recipe.train.micro_batch_size, "epochs": recipe.train.epochs,
            "weight_decay": recipe.optim.weight_decay, "accumulation": recipe.train.accumulation,
            "activation_checkpointing": recipe.train.activation_checkpointing, "seed": recipe.seed,
            "warmup_steps": recipe.schedule.warmup_steps, "seq_len": recipe.train.seq_len,
            "log_every_steps": recipe.records.log_every_steps,
        })  # fmt: skip
    (place / "trials.json").write_text(json.dumps(trials))
    return path


def _run_side(side: str, place: Path, path: Path, python: Path) -> dict[str, Any]:
    """Cells, optimizer steps, and wall and processor time of the grid on one side."""
    print(f"{time.strftime('%H:%M:%S')} {side}", file=sys.stderr, flush=True)
    if side == "etude":
        from sweep_real import measure_folder, run_quiet

        from etude.sweep.folder import SweepFolder
        from etude.sweep.grid import load_sweep

        folder = place / "etude"
        told = run_quiet(path, folder)
        made = measure_folder(load_sweep(path), SweepFolder(folder))
        return {"cells": made["with_scores"], "steps": made["steps_made"], **told}
    results = place / f"{side}.jsonl"
    results.unlink(missing_ok=True)
    started = time.perf_counter()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {
        "OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // AT_ONCE, 1)), "TOKENIZERS_PARALLELISM": "false",
        "RAY_TRAIN_V2_ENABLED": "0", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    with (place / f"{side}.log").open("w") as log:
        code = subprocess.run(
            [str(python), str(Path(__file__)), "worker", side, str(place)],
            env=environment, stdout=log, stderr=log, check=False,
        ).returncode  # fmt: skip
    seconds = time.perf_counter() - started
    cells = [json.loads(line) for line in results.read_text().splitlines()]
    return {
        "cells": len({json.dumps(cell["trial"], sort_keys=True) for cell in cells}),
        "steps": sum(cell["steps"] for cell in cells),
        "exit_code": code,
        "wall_seconds": round(seconds, 1),
        "cpu_seconds": round(sum(cell["cpu_seconds"] for cell in cells), 1),  # from the start of each trial
    }


def _work(side: str, place: Path) -> None:
    trials = json.loads((place / "trials.json").read_text())
    if side == "ray":
        _run_ray(trials, place)
    elif side == "optuna":
        own = [sys.executable, __file__, "worker", "optuna-process", str(place)]
        for process in [subprocess.Popen(own) for _ in range(AT_ONCE)]:
            process.wait()
    else:
        _run_optuna(trials, place)


def _run_ray(trials: list[dict[str, Any]], place: Path) -> None:
    import ray
    from ray import tune

    ray.init("local", num_cpus=AT_ONCE, include_dashboard=False)

    def objective(config: dict[str, Any]) -> None:
        _train(config["trial"], place, place / "ray.jsonl", tune.report)

    tuner = tune.Tuner(
        tune.with_resources(objective, {"cpu": 1}),
        param_space={"trial": tune.grid_search(trials)},
        tune_config=tune.TuneConfig(metric="f1", mode="max", max_concurrent_trials=AT_ONCE),
        run_config=tune.RunConfig(name="grid", storage_path=str(place / "ray"), verbose=0),
    )
    tuner.fit()


def _run_optuna(trials: list[dict[str, Any]], place: Path) -> None:
    import optuna

    storage = f"sqlite:///{place / 'optuna.db'}?timeout=60"
    for model in dict.fromkeys(trial["model"] for trial in trials):
        own = [trial for trial in trials if trial["model"] == model]
        axes = {
            key: values
            for key in ("learning_rate", "micro_batch_size", "epochs", "weight_decay")
            if len(values := list(dict.fromkeys(trial[key] for trial in own))) > 1
        }

        def objective(trial: Any, axes: Any = axes, own: Any = own) -> float:
            chosen = {key: trial.suggest_categorical(key, values) for key, values in axes.items()}
            given = next(each for each in own if all(each[key] == chosen[key] for key in chosen))
            return _train(given, place, place / "optuna.jsonl", lambda figures: None)

        study = optuna.create_study(
            study_name=model, storage=storage, load_if_exists=True, direction="maximize",
            sampler=optuna.samplers.GridSampler(axes, seed=os.getpid()),
        )  # fmt: skip
        study.optimize(objective)  # the sampler stops it when the grid is used up


def _train(trial: dict[str, Any], place: Path, results: Path, report: Any) -> float:
    """Train one trial by transformers' Trainer, and keep its figures; F1 on the test rows."""
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    started = time.process_time() if "ray" not in results.name else 0.0  # Ray starts a process for each
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    model = place / "models" / trial["model"]
    tokenizer = AutoTokenizer.from_pretrained(model)

    def read(use: str) -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in (place / f"{use}.jsonl").read_text().splitlines()]
        return [
            {**tokenizer(row["code"], truncation=True, max_length=trial["seq_len"]), "labels": row["label"]}
            for row in rows
        ]

    def score(made: Any) -> dict[str, float]:
        logits = made.predictions[0] if isinstance(made.predictions, tuple) else made.predictions
        said, truth = logits.argmax(-1) == 1, made.label_ids == 1
        return {"f1": float(2 * (said & truth).sum() / max(said.sum() + truth.sum(), 1))}

    class Report(TrainerCallback):  # type: ignore[misc]
        def on_evaluate(self, *_: Any, metrics: dict[str, float], **__: Any) -> None:
            report({"f1": metrics["eval_f1"]})

    with tempfile.TemporaryDirectory(dir=place) as output:
        arguments = TrainingArguments(
            output_dir=output, num_train_epochs=trial["epochs"], seed=trial["seed"],
            per_device_train_batch_size=trial["micro_batch_size"],
            gradient_accumulation_steps=trial["accumulation"],
            gradient_checkpointing=trial["activation_checkpointing"], use_cpu=True,
            learning_rate=trial["learning_rate"], weight_decay=trial["weight_decay"],
            lr_scheduler_type="constant_with_warmup", warmup_steps=trial["warmup_steps"],
            optim="adamw_torch_fused", eval_strategy="epoch", save_strategy="epoch", save_total_limit=2,
            load_best_model_at_end=True, metric_for_best_model="f1",
            logging_steps=trial["log_every_steps"], report_to=[], disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(
            model=AutoModelForSequenceClassification.from_pretrained(model), args=arguments,
            train_dataset=read("train"), eval_dataset=read("valid"), compute_metrics=score,
            data_collator=DataCollatorWithPadding(tokenizer), callbacks=[Report()],
        )  # fmt: skip
        trainer.train()
        f1 = trainer.predict(read("test")).metrics["test_f1"]
    told = {
        "trial": trial, "steps": trainer.state.global_step, "f1": f1,
        "cpu_seconds": round(time.process_time() - started, 2),
    }  # fmt: skip
    with results.open("a") as file:
        file.write(json.dumps(told) + "\n")
    return float(f1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        _work(sys.argv[2], Path(sys.argv[3]))
    else:
        WORK.mkdir(exist_ok=True)
        main()
