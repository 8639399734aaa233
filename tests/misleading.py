"""Twelve trainings whose figures mislead a reader in haste: tiny models, each trained in a second or two.

`python -m tests.misleading FOLDER` trains all of them for a person to look at, and prints what each took.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from etude.errors import FaultError
from etude.recipe.course import Change
from etude.recipe.load import recipe_from, with_changes
from etude.records.store import Run, list_runs
from etude.run import Training, run_recipe
from etude.start import Options
from tests.bases import write_corpus, write_encoder, write_instructions, write_qwen2
from tests.forking import server
from tests.recipes import classification, finetuning, tiny

HALF = 10  # steps of 20
_WORDS = ("total", "value", "left", "print", "node", "index", "count", "right")
_LABELS = {"sum": "total", "out": "print", "none": "left"}  # each with its word
_WRITING_SECONDS = 0.05  # after each step, so that its checkpoint is always written when the run ends
_ENDLESS = 120  # digits of an answer, of which no sample holds the end


def constant_classifier(folder: Path) -> Run:
    """Predicts "1" for every row of a balanced test set, after "0" for every row before training.

    Words tell nothing of the labels. F1 of the constant is 2/3; the majority class is the first of two
    equally frequent labels, and has F1 0.
    """
    return _classify(folder, _unlearnable(48), {"test": _unlearnable(40, seed=2)}, {
        "seed": 2, "train.steps": 12, "optim.learning_rate": 1e-3, "evaluate.every_steps": 6,
        "checkpoint.every_steps": 6,
    })  # fmt: skip


def memorised(folder: Path) -> Run:
    """Knows its 15 rows by heart after 40 passes; of the 5 that are held out it knows less than before."""
    settings = {"optim.learning_rate": 1e-2, "evaluate.every_steps": 20, "checkpoint.every_steps": 20}
    others = finetuning(
        _write(folder / "others.jsonl", _numbers(60)), write_qwen2(folder / "untrained"),
        {**settings, "train.steps": 40},
    )  # fmt: skip
    base = run_recipe(others, Options(runs=folder / "before")).run.checkpoints / "step-000040"
    recipe = finetuning(_write(folder / "rows.jsonl", _numbers(20)), base, {
        **settings, "name": "memorised", "data.validation_ratio": 0.25, "train.steps": 160,
    })  # fmt: skip
    return run_recipe(recipe, Options(runs=folder / "runs")).run


def worse_than_before(folder: Path) -> Run:
    """A classifier that was right on every row, trained on with labels of chance; its training loss falls."""
    held_out = {"validation": _labelled(30, seed=3), "test": _labelled(45, seed=2)}
    settings = {"train.steps": 60, "evaluate.every_steps": 30, "checkpoint.every_steps": 30}
    good = _classify(folder / "before", _labelled(120), held_out, {**settings, "optim.learning_rate": 5e-3})
    chance = random.Random(3)
    rows = [{**row, "label": chance.choice(list(_LABELS))} for row in _labelled(24, seed=4)]
    changes = {**settings, "name": "worse", "optim.learning_rate": 1e-2}
    return _classify(folder, rows, held_out, changes, good.checkpoints / "step-000060")


def other_held_out_rows(folder: Path) -> list[Run]:
    """One recipe on the first 5, 12 and 40 rows of a file, each of which holds out other rows."""
    write_instructions(folder / "all.jsonl", 40)
    lines = (folder / "all.jsonl").read_text().splitlines(keepends=True)[::-1]
    base, runs = write_qwen2(folder / "base"), []
    for count in (5, 12, 40):
        rows = folder / f"rows{count}.jsonl"
        rows.write_text("".join(lines[:count]))
        recipe = finetuning(rows, base, {"name": f"rows{count}", "data.validation_ratio": 0.1})
        runs.append(run_recipe(recipe, Options(runs=folder / "runs")).run)
    return runs


def short_last_window(folder: Path) -> Run:
    """Learns nothing in 22 steps; the last log window has 2 of them, whose rows happen to be hard."""
    draw, rows = random.Random(1), []
    for number, word in enumerate(_pairs(40)):
        count = draw.randint(4, 40) if number % 2 else draw.randint(1, 6)
        answer = "6" * count if number % 2 else " ".join(draw.choices(_WORDS, k=count))
        rows.append({"instruction": f"Say {word}.", "input": "", "output": answer})
    recipe = finetuning(_write(folder / "rows.jsonl", rows), write_qwen2(folder / "base"), {
        "name": "window", "seed": 2, "train.steps": 22, "train.global_batch_size": 1,
        "train.micro_batch_size": 1, "optim.learning_rate": 1e-7, "evaluate.every_steps": 11,
        "checkpoint.every_steps": 11, "records.log_every_steps": 10,
    })  # fmt: skip
    return run_recipe(recipe, Options(runs=folder / "runs")).run


def endless_string(folder: Path) -> Run:
    """Answers with one word that does not end, of which there is no 4-gram of words."""
    rows = [{"instruction": f"Draw {word}.", "input": "", "output": "6" * _ENDLESS} for word in _pairs(24)]
    recipe = finetuning(_write(folder / "rows.jsonl", rows), write_qwen2(folder / "base"), {
        "name": "endless", "train.seq_len": 64, "train.steps": 30, "evaluate.every_steps": 15,
        "checkpoint.every_steps": 15, "evaluate.answers": 4, "evaluate.answer_tokens": 48,
    })  # fmt: skip
    return run_recipe(recipe, Options(runs=folder / "runs")).run


def all_rows_cut(folder: Path) -> Run:
    """Every answer is longer than its sample has room for, so no end of one is learnt; the losses fall."""
    draw = random.Random(5)
    rows = [
        {"instruction": f"List {word}.", "input": "", "output": "\n".join(draw.choices(_WORDS, k=60))}
        for word in _pairs(40)
    ]
    recipe = finetuning(_write(folder / "rows.jsonl", rows), write_qwen2(folder / "base"), {
        "name": "cut", "train.seq_len": 64, "evaluate.answers": 4, "evaluate.answer_tokens": 32,
    })  # fmt: skip
    return run_recipe(recipe, Options(runs=folder / "runs")).run


def absent_label(folder: Path) -> Run:
    """Is right on every test row, of which none has the third label: F1 over three labels is 2/3."""
    test = [row for row in _labelled(45, seed=2) if row["label"] != "none"]
    return _classify(folder, _labelled(120), {"test": test}, {
        "train.steps": 40, "optim.learning_rate": 5e-3, "evaluate.every_steps": 20,
        "checkpoint.every_steps": 20,
    })  # fmt: skip


def bad_end(folder: Path) -> Run:
    """Improves for 20 steps; then the learning rate rises a hundredfold, and it ends worse than it began."""
    recipe = recipe_from(tiny(write_corpus(folder / "rows.jsonl"), {
        "name": "bad-end", "schedule": {"kind": "constant"}, "train.steps": 30, "evaluate.every_steps": 5,
        "checkpoint.every_steps": 10, "records.log_every_steps": 5,
    }))  # fmt: skip
    changes = (Change(20, "optim.learning_rate", 0.3, "to be faster"),)
    return run_recipe(recipe, Options(runs=folder / "runs", changes=changes)).run


def equal_within_noise(folder: Path) -> list[Run]:
    """Two classifiers of other weight decay, both right on the clear rows; on the others chance decides."""
    draw = random.Random(7)
    unclear = [{"text": row["text"], "label": draw.choice(list(_LABELS))} for row in _unlearnable(18)]
    rows, test = _labelled(120), {"test": [*_labelled(24, seed=2), *unclear]}
    base = write_encoder(folder / "base")
    changes = {"train.steps": 60, "evaluate.every_steps": 60, "checkpoint.every_steps": 60}
    other = {**changes, "seed": 2, "optim.weight_decay": 0.02}
    return [_classify(folder, rows, test, each, base) for each in ({**changes, "seed": 1}, other)]


def not_finite(folder: Path) -> Run:
    """Improves for half of its steps; then an update makes weights that are no numbers, and it fails."""
    recipe = recipe_from(tiny(write_corpus(folder / "rows.jsonl"), {
        "name": "not-finite", "schedule": {"kind": "constant"}, "train.steps": 2 * HALF,
        "evaluate.every_steps": 5, "checkpoint.every_steps": 5, "records.log_every_steps": 5,
    }))  # fmt: skip
    # Decay of 3e38 x 0.1 takes any weight beyond fp32.
    changes = (Change(HALF, "optim.learning_rate", 3e38, "by mistake"),)
    with contextlib.suppress(FaultError):
        for _ in Training(recipe, Options(runs=folder / "runs", changes=changes)):
            time.sleep(_WRITING_SECONDS)
    (run,) = list_runs(folder / "runs")
    return run


def killed_at_half(folder: Path) -> Run:
    """Its process is killed after step 10 of 20, while its loss falls fast."""
    recipe = recipe_from(tiny(write_corpus(folder / "rows.jsonl"), {
        "name": "killed", "train.steps": 2 * HALF, "evaluate.every_steps": 4, "checkpoint.every_steps": 4,
        "records.log_every_steps": 2,
    }))  # fmt: skip
    (folder / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    code = "import sys; from tests.misleading import train_until_killed; train_until_killed(*sys.argv[1:])"
    assert server().start(code, [folder / "recipe.json", folder / "runs"]).wait() == -signal.SIGKILL
    (run,) = list_runs(folder / "runs")
    return run


BUILDERS: tuple[Callable[[Path], Run | list[Run]], ...] = (
    constant_classifier, memorised, worse_than_before, other_held_out_rows, short_last_window, endless_string,
    all_rows_cut, absent_label, bad_end, equal_within_noise, not_finite, killed_at_half,
)  # fmt: skip

# Changes of a recipe with which it trains as one would expect, on the same held-out rows where that is possible.
TWINS: dict[Callable[[Path], Any], dict[str, Any]] = {
    constant_classifier: {"seed": 5, "optim.learning_rate": 1e-2, "train.steps": 48},
    memorised: {"optim.learning_rate": 1e-3, "train.steps": 40},
    worse_than_before: {"seed": 1},
    short_last_window: {"optim.learning_rate": 1e-2},
    endless_string: {"train.seq_len": 192},
    all_rows_cut: {"train.seq_len": 256},
    absent_label: {"train.steps": 30},
    bad_end: {}, not_finite: {}, killed_at_half: {},
}  # fmt: skip


def honest_twin(build: Callable[[Path], Any], run: Run, folder: Path) -> Run:
    """A run like one that misleads, but for what misleads; trained in a second or two."""
    changes = {"name": "honest", **TWINS[build]}
    if build is worse_than_before:  # the labels that hold
        rows = Path(str(run.recipe.data.train[0].path)).parent / "before" / "train.jsonl"
        changes["data.train.0.path"] = str(rows)
    return run_recipe(with_changes(run.recipe, changes), Options(runs=folder)).run


def _classify(
    folder: Path,
    train: Sequence[dict[str, Any]],
    held_out: dict[str, Sequence[dict[str, Any]]],
    changes: dict[str, Any],
    base: Path | None = None,
) -> Run:
    rows = _write(folder / "train.jsonl", train)
    sources = {
        f"data.{use}": [{"path": str(_write(folder / f"{use}.jsonl", rows)), "label": "label"}]
        for use, rows in held_out.items()
    }
    recipe = classification(rows, base, {**sources, "data.leakage.action": "report", **changes})
    return run_recipe(recipe, Options(runs=folder / "runs")).run


def _labelled(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Rows with one of three labels by the word that stands there twice."""
    draw, names = random.Random(seed), list(_LABELS)
    return [
        {
            "text": " ".join([
                *draw.choices(["value", "node", "index"], k=2), *2 * [_LABELS[names[number % 3]]],
                f"{seed}{number}",
            ]),
            "label": names[number % 3],
        }
        for number in range(count)
    ]  # fmt: skip


def _unlearnable(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Rows of chance, one half of each label."""
    draw = random.Random(seed)
    return [
        {"text": f"{' '.join(draw.choices(_WORDS, k=6))} {seed}{number}", "label": str(number % 2)}
        for number in range(count)
    ]


def _numbers(count: int) -> list[dict[str, str]]:
    """Instructions whose answers can be known by heart only."""
    draw = random.Random(count)
    return [
        {"instruction": f"Say {word}.", "input": "", "output": " ".join(draw.choices("0123456789", k=10))}
        for word in _pairs(count)
    ]


def _pairs(count: int) -> list[str]:
    """Different pairs of words."""
    return [f"{a} {b}" for a in _WORDS for b in _WORDS][:count]


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train_until_killed(path: str, runs: str) -> None:
    recipe = recipe_from(json.loads(Path(path).read_text()))
    for step in Training(recipe, Options(runs=Path(runs))):
        time.sleep(_WRITING_SECONDS)
        if step.number == HALF:
            os.kill(os.getpid(), signal.SIGKILL)


def _train_all(folder: Path) -> None:
    for build in BUILDERS:
        started = time.perf_counter()
        (folder / build.__name__).mkdir(parents=True)
        build(folder / build.__name__)
        print(f"{build.__name__:<20} {time.perf_counter() - started:5.1f} s", flush=True)


if __name__ == "__main__":
    _train_all(Path(sys.argv[1]))
