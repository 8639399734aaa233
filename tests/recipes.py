"""Small recipes of each kind of training, with dotted changes: the one place where tests take them from."""

from pathlib import Path
from typing import Any

from etude.recipe.load import change, recipe_from
from etude.recipe.schema import Recipe
from tests.bases import write_encoder, write_labelled

STEPS = 20
GOOD = """name = "good"
[tokenizer]
train_vocab_size = 300
[[data.train]]
path = "corpus.jsonl"
[train]
steps = 10
global_batch_size = 8
"""
Changes = dict[str, Any] | None


def tiny(path: Path, changes: Changes = None) -> dict[str, Any]:
    """The values of a recipe that trains a new decoder in about a second."""
    values = {
        "name": "tiny",
        "model": {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_ffn": 64, "qk_norm": True},
        "tokenizer": {"train_vocab_size": 300},
        "data": {"train": [{"path": str(path)}], "validation_ratio": 0.1},
        "train": {"steps": 12, "seq_len": 32, "global_batch_size": 8, "device": "cpu", "precision": "fp32"},
        "optim": {"learning_rate": 3e-3},
        "evaluate": {"every_steps": 6},
        "checkpoint": {"every_steps": 4},
        "records": {"log_every_steps": 3},
    }
    return change(values, changes or {})


def finetuning(rows: Path, base: Path, changes: Changes = None) -> Recipe:
    """A pretrained decoder on rows of instructions."""
    train = {"seq_len": 96, "global_batch_size": 4, "micro_batch_size": 4}
    values = _values("tuned", {"from": str(base)}, {"path": str(rows)}, train)
    return recipe_from(
        change(values, {"optim.learning_rate": 5e-3, "checkpoint.every_steps": 5, **(changes or {})})
    )


def classification(rows: Path, base: Path | None = None, changes: Changes = None) -> Recipe:
    """A pretrained model of any family, or a new encoder, on rows of `write_labelled`."""
    source = {"path": str(rows), "label": "label", "capability": "kind"}
    values = _values("labels", _encoder(base), source, {"objective": "classification"})
    return recipe_from(change(values, {"evaluate.metric": "f1", **(changes or {})}))


def masked(rows: Path, base: Path | None = None, changes: Changes = None) -> Recipe:
    """A pretrained or a new encoder on texts, each a sample."""
    values = _values("masks", _encoder(base), {"path": str(rows)}, {"objective": "masked"})
    return recipe_from(change(values, {"data.sample": "document", **(changes or {})}))


def seq2seq(rows: Path, base: Path | None = None, changes: Changes = None) -> Recipe:
    """A pretrained or a new encoder-decoder on rows of `write_pairs`, with four texts at each evaluation."""
    new = {"kind": "encoder-decoder", "n_layer": 1, "n_embd": 32, "n_head": 4}
    model: dict[str, Any] = {"from": str(base)} if base else new
    source = {"path": str(rows), "field": "source", "target": "target", "capability": "kind"}
    values = _values("pairs", model, source, {"objective": "seq2seq", "target_len": 16})
    return recipe_from(
        change(values, {"evaluate.answers": 4, "evaluate.answer_tokens": 12, **(changes or {})})
    )


def tasks(folder: Path, changes: Changes = None) -> Recipe:
    """Two kinds of labels and masked tokens over one encoder; base and rows are written into the folder."""
    base = write_encoder(folder / "base", masked=True)
    kinds = write_labelled(folder / "kinds.jsonl", 60)
    words = write_labelled(folder / "words.jsonl", 40, multi=True)
    values = _values("several", {"from": str(base), "dropout": 0.1}, {"path": str(kinds), "task": "text"}, {})
    values["tasks"] = {
        "kinds": {"objective": "classification", "ratio": 2.0},
        "words": {"objective": "classification", "loss": {"class_weights": "balanced"}},
        "text": {"objective": "masked"},
    }
    values["data"]["train"] = [
        {"path": str(kinds), "label": "label", "task": "kinds"},
        {"path": str(words), "label": "label", "task": "words"},
        *values["data"]["train"],
    ]
    settings = {
        "data.sample": "document", "train.steps": 8, "evaluate": {"every_steps": 4, "metric": "kinds:f1"},
        "checkpoint.every_steps": 4,
    }  # fmt: skip
    return recipe_from(change(values, {**settings, **(changes or {})}))


def _values(
    name: str, model: dict[str, Any], source: dict[str, Any], train: dict[str, Any]
) -> dict[str, Any]:
    """Twenty steps of a size at which plain loops over transformers give the same losses."""
    return {
        "name": name,
        "model": model,
        "tokenizer": {} if "from" in model else {"train_vocab_size": 300},
        "data": {"train": [source], "validation_ratio": 0.2},
        "train": {
            "steps": STEPS, "seq_len": 24, "global_batch_size": 8, "micro_batch_size": 8, "device": "cpu",
            "precision": "fp32", **train,
        },
        "optim": {"learning_rate": 2e-3, "weight_decay": 0.01},
        "schedule": {"kind": "constant"},
        "evaluate": {"every_steps": 10},
        "checkpoint": {"every_steps": 10},
    }  # fmt: skip


def _encoder(base: Path | None) -> dict[str, Any]:
    return {"from": str(base)} if base else {"kind": "encoder", "n_layer": 2, "n_embd": 32, "n_head": 4}
