"""In bf16, as most GPUs and newer CPUs train, every kind of training runs to its end and stays near fp32."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.recipe.schema import Recipe
from etude.records.events import Evaluation, Generation
from tests.bases import (
    write_encoder,
    write_gptj,
    write_instructions,
    write_labelled,
    write_pairs,
    write_qwen2,
    write_t5,
)
from tests.reference import train

Make = Callable[[Path], dict[str, Any]]


def lora(write: Callable[[Path], Path]) -> Make:
    def make(folder: Path) -> dict[str, Any]:
        rows = write_instructions(folder / "rows.jsonl", 40)
        return {
            "model": {"from": str(write(folder / "base"))}, "tokenizer": {},
            "adapter": {"rank": 4, "targets": "all-linear"},
            "data.train": [{"path": str(rows)}], "train.seq_len": 64, "evaluate.answers": 3,
        }  # fmt: skip

    return make


def seq2seq(folder: Path) -> dict[str, Any]:
    pairs = write_pairs(folder / "pairs.jsonl", 40)
    return {
        "model": {"from": str(write_t5(folder / "base"))}, "tokenizer": {}, "train.objective": "seq2seq",
        "data.train": [{"path": str(pairs), "field": "source", "target": "target"}], "evaluate.answers": 3,
    }  # fmt: skip


def classification(folder: Path) -> dict[str, Any]:
    labelled = write_labelled(folder / "labelled.jsonl", 60)
    return {
        "model": {"from": str(write_encoder(folder / "base"))}, "tokenizer": {},
        "train.objective": "classification", "data.train": [{"path": str(labelled), "label": "label"}],
        "evaluate.prompts": [],
    }  # fmt: skip


def masked(folder: Path) -> dict[str, Any]:
    labelled = write_labelled(folder / "labelled.jsonl", 60)
    return {
        "model": {"from": str(write_encoder(folder / "base", masked=True))}, "tokenizer": {},
        "train.objective": "masked", "data.train": [{"path": str(labelled)}], "evaluate.prompts": [],
    }  # fmt: skip


KINDS: dict[str, Make] = {
    "from scratch": lambda folder: {"model.dropout": 0.0},
    "lora": lora(write_qwen2),
    "lora of a model of transformers": lora(write_gptj),
    "seq2seq": seq2seq,
    "classification": classification,
    "masked": masked,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_in_bf16_stays_near_one_in_fp32_and_writes_its_answers(
    kind: str, tmp_path: Path, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where bf16 is only emulated a recipe may not ask for it; these models are small enough to have it all
    # the same.
    monkeypatch.setattr("etude.engine.precision.has_native_bf16", lambda device: True)
    changes = {
        "train.steps": 6, "train.seq_len": 32, "evaluate.every_steps": 3, "optim.learning_rate": 1e-3,
        "evaluate.prompts": ["def f", "a longer prompt than that"], "evaluate.sample_tokens": 4,
        "evaluate.answer_tokens": 4, **KINDS[kind](tmp_path),
    }  # fmt: skip
    losses = {}
    for precision in ("fp32", "bf16"):
        recipe = make_recipe({**changes, "train.precision": precision})
        training, losses[precision] = train(recipe, tmp_path / precision)
        assert training.run.state == "finished"
        assert (
            json.loads((training.run.path / "environment.json").read_text("utf-8"))["precision"] == precision
        )
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02) and losses["bf16"] != losses["fp32"]
    records = [entry.event for entry in training.run.ledger().entries]
    assert all(record.loss < 100 for record in records if isinstance(record, Evaluation))
    written = [record for record in records if isinstance(record, Generation)]
    answers = 3 if "evaluate.answers" in changes else 0
    assert len(written) % (len(changes["evaluate.prompts"]) + answers or 1) == 0
    assert bool(written) == bool(changes["evaluate.prompts"])
