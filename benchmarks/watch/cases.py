"""The grid of the benchmark of the watch: models x data, and what is trained on them.

A combination is a model on a data set. Every case trains one of them for 200 short steps, healthy or with one
fault, from a seed; its recipe follows from the case alone.
"""

import functools
import hashlib
import json
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import WORK

from etude.recipe.load import change, recipe_from
from etude.recipe.schema import Recipe

HOME = WORK / "watch"
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
STEPS, ONSET = 200, 80
SEEDS = (1, 2, 3, 4, 5)
RATES = (1.0, 0.3, 3.0)
MODEL = {"n_layer": 2, "n_head": 4, "n_embd": 48}
BASE = {"n_layer": 2, "n_head": 4, "n_embd": 64}
_BASE_STEPS = {"decoder": 2500, "encoder": 300, "encoder-decoder": 1500}
VERSION = 3  # of the cases; the grid trains those again whose curve is of an earlier one
_HELD_OUT = 96  # rows in batches of 8: evaluations of fewer than 8 batches have no standard error
_KEPT = 2200  # rows of a data set that are for the runs; the others are for the bases
Row = dict[str, Any]
Rows = list[Row]


@dataclass(frozen=True)
class Combination:
    """A model on a data set.

    file           of the training rows, below the folder of the data
    fields         those of the source, as the recipe names them
    base           the kind of the small pretrained model whose tokenizer is used, and whose weights by LoRA
    learning_rate  one that learns well, found by trying
    """

    name: str
    objective: str
    file: str
    fields: Mapping[str, str] = field(hash=False)
    base: str
    learning_rate: float
    is_lora: bool = False
    seq_len: int = 64

    @property
    def traits(self) -> set[str]:
        """The words by which faults say where they can be."""
        data = self.name.rpartition("-")[0]
        return {self.objective, "lora" if self.is_lora else "scratch", data}


TEXT: dict[str, str] = {}
PAIR = {"field": "source", "target": "target"}
ALPACA, COMMENTS = "codealpaca/codealpaca_new.jsonl", "comment_types_python/train.jsonl"
JAVA, SVEN = "java_to_cs/train.jsonl", "vuln_sven/train.jsonl"
COMMENT = {"field": "text", "label": "labels"}
FUNCTION = {
    "field": "code",
    "label": "lang",
}  # a small model learns nothing of "label", which says what is vulnerable
COMBINATIONS = {
    each.name: each
    for each in (
        Combination("shakespeare-scratch", "causal", "tinyshakespeare/input.txt", TEXT, "decoder", 4e-3),
        Combination("alpaca-scratch", "causal", ALPACA, TEXT, "decoder", 4e-3, seq_len=96),
        Combination("comments-scratch", "classification", COMMENTS, COMMENT, "encoder", 2e-3),
        Combination("java-scratch", "seq2seq", JAVA, PAIR, "encoder-decoder", 4e-3, seq_len=32),
        Combination("shakespeare-lora", "causal", "tinyshakespeare/input.txt", TEXT, "decoder", 4e-3, True),
        Combination("alpaca-lora", "causal", ALPACA, TEXT, "decoder", 4e-3, True, seq_len=96),
        Combination("comments-lora", "classification", COMMENTS, COMMENT, "decoder", 4e-3, True),
        Combination("sven-scratch", "classification", SVEN, FUNCTION, "encoder", 1e-3, seq_len=64),
        Combination(
            "concode-scratch", "seq2seq", "concode_dev/train.jsonl", PAIR, "encoder-decoder", 4e-3, seq_len=40
        ),
        Combination("java-lora", "seq2seq", JAVA, PAIR, "encoder-decoder", 4e-3, True, seq_len=32),
    )
}


@dataclass(frozen=True)
class Case:
    """One run of the benchmark.

    condition  a healthy one of HEALTHY, or a fault of faults.FAULTS
    strength   its severity: 0 is the most severe of three; of healthy ones the place in RATES
    """

    combination: str
    condition: str
    strength: int
    seed: int
    is_healthy: bool

    @property
    def name(self) -> str:
        return f"{self.condition}-{self.strength}-{self.combination}-{self.seed}"


def present(data: Path = DATA) -> list[Combination]:
    """The combinations whose data is on this machine."""
    return [each for each in COMBINATIONS.values() if (data / each.file).exists()]


def healthy_cases(combinations: list[Combination]) -> Iterator[Case]:
    """The grid of rates and seeds, and the hard healthy ones."""
    for seed in SEEDS:
        for combination in combinations:
            for place in range(len(RATES)):
                yield Case(combination.name, "plain", place, seed, True)
            for condition, traits in HARD.items():
                if traits <= combination.traits and seed <= (5 if condition == "easy" else 2):
                    yield Case(combination.name, condition, 0, seed, True)


# Healthy runs whose curves look odd, and the traits of the combinations that have them.
HARD: dict[str, set[str]] = {
    "warm_up_bump": set(), "wsd_tail": set(), "two_epochs": set(), "tiny_validation": set(), "restart": set(),
    "easy": {"alpaca"}, "own_loss": {"causal"},
}  # fmt: skip


def hard_changes(condition: str) -> dict[str, Any]:
    """The recipe of a hard healthy run, beside that of a plain one."""
    changes: dict[str, dict[str, Any]] = {
        "warm_up_bump": {"schedule.warmup_steps": 0},
        "wsd_tail": {"schedule.kind": "wsd", "schedule.min_lr_ratio": 0.0},
    }
    return changes.get(condition, {})


def hard_rows(condition: str, train: Rows, held_out: Rows, draw: random.Random) -> tuple[Rows, Rows]:
    """The rows of a hard healthy run."""
    if condition == "two_epochs":
        return train[: STEPS * 8 // 2], held_out
    if condition == "tiny_validation":
        return train, held_out[:8]
    if condition == "easy":  # questions that all differ, and answers that hardly do
        numbers = draw.sample(range(100_000), len(train) + len(held_out))
        rows = [
            {
                "instruction": f"Write the getter {number}.",
                "output": f"def get(self):\n    return self.value  # {number % 10}\n",
            }
            for number in numbers
        ]
        return rows[len(held_out) :], rows[: len(held_out)]
    return train, held_out


@functools.cache
def _read(file: str) -> Rows:
    """The rows of a data set in an order drawn once, each text once."""
    path = DATA / file
    if path.suffix == ".txt":
        text = path.read_text("utf-8")
        rows = [{"text": text[place : place + 400]} for place in range(0, len(text) - 400, 400)]
    else:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    keys = [json.dumps(row.get("text") or row.get("code") or row.get("source") or row) for row in rows]
    rows = list(dict(zip(keys, rows)).values())
    random.Random(7).shuffle(rows)
    return rows


def rows_of(combination: Combination) -> tuple[Rows, Rows]:
    """Rows for training and others held out; the models that adapters begin with have seen neither."""
    rows = _read(combination.file)
    return rows[_HELD_OUT:_KEPT], rows[:_HELD_OUT]


def recipe_of(
    case: Case,
    *,
    changes: Mapping[str, Any],
    change_rows: Callable[[Rows, Rows, random.Random], tuple[Rows, Rows]],
) -> Recipe:
    """The recipe of a case; its rows are written where it reads them."""
    combination = COMBINATIONS[case.combination]
    base = pretrained(combination.base)
    draw = random.Random(f"{case.name}")
    train, held_out = change_rows(*rows_of(combination), draw)
    fields = {"train": dict(combination.fields), "held_out": dict(combination.fields)}
    paths = {"train": _write(train), "held_out": _write(held_out)}
    values: dict[str, Any] = {
        "name": case.name.lower()[:64].rstrip("-"),
        "seed": case.seed,
        "model": {"from": str(base)} if combination.is_lora else {"kind": combination.base, **MODEL},
        "tokenizer": {} if combination.is_lora else {"from": str(base)},
        "data": {
            "train": [{"path": str(paths["train"]), **fields["train"]}],
            "validation": [{"path": str(paths["held_out"]), **fields["held_out"]}],
            "leakage": {"action": "report", "max_ratio": 1.0},
        },
        "train": {
            "objective": combination.objective, "steps": STEPS, "seq_len": combination.seq_len,
            "global_batch_size": 8, "micro_batch_size": 8, "device": "cpu", "precision": "fp32",
        },
        "optim": {"learning_rate": combination.learning_rate},
        "schedule": {"warmup_steps": 10},
        "evaluate": {"every_steps": 20},
        "checkpoint": {"every_steps": 10**6, "keep": 2},
        "records": {"log_every_steps": 5},
    }  # fmt: skip
    if combination.is_lora:
        values["adapter"] = {"rank": 8, "alpha": 16.0, "targets": "all-linear"}
    if combination.objective == "seq2seq":
        values["train"]["target_len"] = combination.seq_len
    if case.is_healthy:
        rate = combination.learning_rate * RATES[case.strength]
        values = change(values, {"optim.learning_rate": rate, **hard_changes(case.condition)})
    return recipe_from(change(values, dict(changes)))


def _write(rows: Rows) -> Path:
    """A file of rows, named by what it holds."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path = HOME / "rows" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text(text, "utf-8")
    return path


def pretrained(kind: str) -> Path:
    """A folder with a small model of a kind that has learnt a little of all data sets; made once."""
    folder = HOME / f"base-{kind}"
    if (folder / "config.json").exists():
        return folder
    from etude.records.folder import list_checkpoints
    from etude.run import run_recipe
    from etude.start import Options

    objective = {"decoder": "causal", "encoder": "masked", "encoder-decoder": "seq2seq"}[kind]
    rows: Rows = []
    for combination in present():
        if kind != "encoder-decoder" or combination.objective == "seq2seq":
            rows += [_as_text(row, kind) for row in _read(combination.file)[_KEPT:]]
    source = {"path": str(_write(rows)), **(PAIR if kind == "encoder-decoder" else {})}
    recipe = recipe_from({
        "name": f"base-{kind}", "model": {"kind": kind, **BASE}, "tokenizer": {"train_vocab_size": 512},
        "data": {"train": [source], "validation": "none"},
        "train": {
            "objective": objective, "steps": _BASE_STEPS[kind], "seq_len": 128, "global_batch_size": 4,
            "micro_batch_size": 4, "device": "cpu", "precision": "fp32",
        },
        "optim": {"learning_rate": 4e-3}, "schedule": {"warmup_steps": 20},
        "checkpoint": {"every_steps": 10**6},
    })  # fmt: skip
    training = run_recipe(recipe, Options(runs=HOME / "runs", new=True))
    shutil.copytree(
        list_checkpoints(training.run.checkpoints)[-1], folder, ignore=shutil.ignore_patterns("optim*")
    )
    return folder


def _as_text(row: Row, kind: str) -> Row:
    if kind == "encoder-decoder":
        return {"source": row["source"], "target": row["target"]}
    parts = [
        str(row[name])
        for name in ("text", "code", "source", "instruction", "input", "output")
        if row.get(name)
    ]
    return {"text": "\n".join(parts)[:1500]}
