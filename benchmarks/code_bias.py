"""F1 on held-out rows of small encoders from scratch, with the code bias and without, seed by seed.

Two tasks on real code: which weakness a function has (vuln_sven, nine classes), and whether a Java method is
the buggy or the fixed version (refine_small, two classes); both by macro F1. The same rows, order, steps,
rate and first weights for all forms of a seed; the last weights are scored, so nothing is chosen on any rows.
One thread.
"""

import argparse
import dataclasses
import json
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from measure import WORK
from measure import write_result as write

CLAIM = "Difference of F1 that a code bias makes to an encoder from scratch (128 x 2), same steps, by seeds"
FORMS = ("off", "inside", "after")
PARTS = {"identifier": (3,), "depth": (1, 2), "kind": (0,)}  # columns of the code that are left
WIDTH, LAYERS, HEADS, BATCH, RATE, VOCABULARY = 128, 2, 4, 32, 1e-3, 2000
TASKS: dict[str, dict[str, Any]] = {
    "weakness": {"seq_len": 128, "epochs": 5},
    "bug": {"seq_len": 96, "epochs": 1},
}
TEST_ROWS = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder with vuln_sven and refine_small")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--part-seeds", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--forms", nargs="+", default=[*FORMS, *PARTS], choices=[*FORMS, *PARTS])
    asked = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    log = WORK / "code-bias.jsonl"  # one line a run, so that what was stopped goes on
    done = {key_of(run): run for run in map(json.loads, log.read_text().splitlines())} if log.exists() else {}
    for seed in range(max(asked.seeds, asked.part_seeds)):
        for task in asked.tasks:
            for form in asked.forms:
                wanted = {"task": task, "form": form, "seed": seed, "settings": settings_of(task)}
                if seed >= (asked.part_seeds if form in PARTS else asked.seeds) or key_of(wanted) in done:
                    continue
                run = wanted | train_one(asked.data, task, form, seed)
                done[key_of(run)] = run
                with log.open("a") as file:
                    file.write(json.dumps(run) + "\n")
                print(json.dumps(run), file=sys.stderr, flush=True)
    runs = [
        run
        for run in done.values()
        if run["settings"] == settings_of(run["task"]) and run["task"] in asked.tasks
    ]
    results = {task: compare_forms([run for run in runs if run["task"] == task]) for task in asked.tasks}
    table: list[list[Any]] = [
        ["task", "form", "seeds", "F1", "less off", "t-interval 95 %", "paired", "seconds a run"]
    ]
    for task, forms in results.items():
        for form, found in forms.items():
            table.append(
                [
                    task,
                    form,
                    len(found["f1"]),
                    f"{found['mean']:.3f}",
                    *interval_words(found),
                    found["seconds"],
                ]
            )
    settings = {task: settings_of(task) for task in asked.tasks}
    write("code_bias", CLAIM, {"settings": settings, "results": results, "runs": runs}, table)


def settings_of(task: str) -> dict[str, Any]:
    sizes = {
        "width": WIDTH,
        "layers": LAYERS,
        "heads": HEADS,
        "batch": BATCH,
        "rate": RATE,
        "vocabulary": VOCABULARY,
    }
    return {**sizes, **TASKS[task]}


def key_of(run: dict[str, Any]) -> str:
    return json.dumps([run["task"], run["form"], run["seed"], run["settings"]], sort_keys=True)


def train_one(data: Path, task: str, form: str, seed: int) -> dict[str, Any]:
    """Train one model; its F1 on the test rows, the loss of the last steps, and processor seconds."""
    import numpy as np
    import torch

    from etude.data.loader import Loader, iterate_once
    from etude.data.prepared import prepare
    from etude.data.samples.labelled import Labelled
    from etude.engine.loop import TrainState, train
    from etude.engine.optim import Optimizer
    from etude.engine.precision import choose_precision
    from etude.engine.world import join_world
    from etude.models.families.encoder import ENCODER
    from etude.models.families.family import NewModel
    from etude.objectives.classification import Classification, predict
    from etude.recipe.course import Course
    from etude.recipe.load import recipe_from
    from etude.scores.labels import predict_by_other_rows, score_labels

    torch.set_num_threads(1)
    recipe = recipe_from(recipe_of(data, task, seed))
    corpus = prepare(recipe)
    learnt, scored = corpus.train, corpus.test
    assert corpus.labels is not None and isinstance(learnt, Labelled) and isinstance(scored, Labelled)
    assert learnt.code is not None
    splits = [learnt, scored]
    if form in PARTS:
        kept = np.isin(np.arange(4), PARTS[form])
        code = np.where(kept, learnt.code, 0)
        splits = [dataclasses.replace(split, code=code) for split in splits]
    if form == "off":
        splits = [dataclasses.replace(split, code=None) for split in splits]
    kind = form if form in FORMS else "inside"
    new = NewModel(
        vocab_size=corpus.tokenizer.vocab_size, seq_len=recipe.train.seq_len,
        labels=len(corpus.labels.names), multi=corpus.labels.multi,
    )  # fmt: skip
    assert ENCODER.from_recipe is not None
    config = ENCODER.from_recipe(recipe.model.model_copy(update={"code_bias": kind}), new)
    model: Any = ENCODER.make(config, config.labels)
    model.init_weights(seed)
    world = join_world(torch.device("cpu"))
    precision = choose_precision("fp32", world.device, targets_per_step=BATCH)
    objective = Classification.of(recipe.loss, corpus.train, multi=corpus.labels.multi)
    loader = Loader(
        splits[0], global_batch_size=BATCH, micro_batch_size=BATCH, seed=seed, attend_across_documents=True
    )
    steps = loader.steps_per_epoch * TASKS[task]["epochs"]
    state = TrainState(model, Optimizer(model, recipe.optim), precision, Course(recipe, steps))
    started = time.process_time()
    losses = []
    for step in train(state, loader.iterate(0, steps), objective, world):
        losses.append(float(step.measured[0] / step.measured[1]))
    seconds = time.process_time() - started
    said = predict(
        model, iterate_once(splits[1], BATCH, True), objective, precision, world, rows=len(splits[1]),
        classes=len(corpus.labels.names), micro_batch_size=BATCH,
    )  # fmt: skip
    names, multi = corpus.labels.names, corpus.labels.multi
    truth, chosen = said.truth.argmax(axis=1), said.probabilities.argmax(axis=1)
    if multi:
        truth = said.truth
        chosen = predict_by_other_rows(said.probabilities, truth, corpus.ids["test"])
    known = score_labels(truth, chosen, names, multi=multi)
    return {
        "f1": known["f1_macro"], "accuracy": known["accuracy"], "test_loss": said.score.loss,
        "last_losses": statistics.fmean(losses[-20:]), "seconds": round(seconds, 1), "steps": steps,
        "train_rows": len(splits[0]), "test_rows": len(splits[1]),
    }  # fmt: skip


def compare_forms(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each form's F1 by seed, and its mean difference to "off" with both intervals."""
    from scipy import stats

    by_form = {form: {run["seed"]: run for run in runs if run["form"] == form} for form in (*FORMS, *PARTS)}
    off, results = by_form["off"], {}
    for form, mine in by_form.items():
        if not mine:
            continue
        f1 = [mine[seed]["f1"] for seed in sorted(mine)]
        found: dict[str, Any] = {"f1": f1, "mean": statistics.fmean(f1)}
        found["seconds"] = statistics.median(run["seconds"] for run in mine.values())
        shared = sorted(mine.keys() & off.keys())
        if form != "off" and len(shared) > 1:
            pairs = [(mine[seed]["f1"], off[seed]["f1"]) for seed in shared]
            ours, theirs = zip(*pairs)
            differences = [one - other for one, other in pairs]
            n, mean = len(pairs), statistics.fmean(differences)
            two = math.sqrt((statistics.variance(ours) + statistics.variance(theirs)) / n)
            paired = statistics.stdev(differences) / math.sqrt(n)
            reach, reach_paired = stats.t.ppf(0.975, 2 * n - 2) * two, stats.t.ppf(0.975, n - 1) * paired
            found |= {
                "difference": mean,
                "interval": [mean - reach, mean + reach],
                "paired_interval": [mean - reach_paired, mean + reach_paired],
            }
        results[form] = found
    return results


def interval_words(found: dict[str, Any]) -> list[str]:
    if "difference" not in found:
        return ["", "", ""]
    pairs = (found["interval"], found["paired_interval"])
    return [f"{found['difference']:+.3f}", *(f"{low:+.3f} to {high:+.3f}" for low, high in pairs)]


def recipe_of(data: Path, task: str, seed: int) -> dict[str, Any]:
    def source(path: Path, **fields: str) -> list[dict[str, Any]]:
        return [{"path": str(path.resolve()), "label": "label", **fields}]

    if task == "weakness":
        folder = data / "vuln_sven"
        train, test = (
            source(folder / f"{use}.jsonl", field="code", label="cwe") for use in ("train", "test")
        )
    else:
        paths = [WORK / f"code-bias-bug-{use}.jsonl" for use in ("train", "test")]
        if not all(path.exists() for path in paths):
            for path, rows in zip(paths, bug_rows(data)):
                path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        train, test = map(source, paths)
    return {
        "name": f"bench-code-bias-{task}", "seed": seed,
        "model": {"kind": "encoder", "n_layer": LAYERS, "n_embd": WIDTH, "n_head": HEADS, "code_bias": "inside"},
        "tokenizer": {"train_vocab_size": VOCABULARY},
        "data": {"train": train, "test": test, "validation_ratio": 0.01, "leakage": {"action": "report"}},
        "train": {
            "objective": "classification", "epochs": TASKS[task]["epochs"], "seq_len": TASKS[task]["seq_len"],
            "global_batch_size": BATCH, "device": "cpu", "precision": "fp32",
        },
        "optim": {"kind": "adam", "learning_rate": RATE, "beta2": 0.999},
        "schedule": {"kind": "cosine", "warmup_steps": 20},
    }  # fmt: skip


def bug_rows(data: Path) -> list[list[dict[str, str]]]:
    """Both versions of each training method; of the first test methods one, drawn by chance."""
    draw, labels = random.Random(1), {"source": "buggy", "target": "fixed"}
    train, test = (
        [json.loads(line) for line in (data / "refine_small" / f"{use}.jsonl").read_text().splitlines()]
        for use in ("train", "test")
    )
    drawn = ["source" if draw.random() < 0.5 else "target" for _ in range(len(train) + TEST_ROWS)]
    return [
        [{"text": row[side], "label": labels[side]} for row in train for side in labels],
        [{"text": row[side], "label": labels[side]} for row, side in zip(test, drawn[len(train) :])],
    ]


if __name__ == "__main__":
    main()
