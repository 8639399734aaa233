"""Rows of every kind of file go through preparation, the gate and the cache, whatever is learnt from them."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from etude.data.gate import examine
from etude.data.prepared import prepare
from etude.recipe.load import recipe_from

ROWS = [
    {"instruction": f"Add {n} and {n + 1}", "output": f"It is {2 * n + 1}", "kind": ("odd", "even")[n % 2]}
    for n in range(24)
]
LEARNT: dict[str, dict[str, Any]] = {
    "texts": {"field": "instruction", "format": "text"},
    "conversations": {},
    "labels": {"field": "instruction", "label": "kind"},
    "pairs": {"field": "instruction", "target": "output"},
}
OBJECTIVES = {"labels": "classification", "pairs": "seq2seq"}
KINDS = {"labels": "encoder", "pairs": "encoder-decoder"}


def _csv(delimiter: str) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(ROWS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return file.getvalue()


FILES = {
    "rows.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
    "rows.json": json.dumps(ROWS, indent=1),
    "rows.csv": _csv(","),
    "rows.tsv": _csv("\t"),
}


@pytest.mark.parametrize("learnt", LEARNT)
@pytest.mark.parametrize("name", FILES)
def test_rows_are_the_same_from_every_kind_of_file(name: str, learnt: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FILES[name])
    recipe = recipe_from(
        {
            "name": "kinds",
            "model": {"kind": KINDS.get(learnt, "decoder"), "n_layer": 1, "n_head": 2, "n_embd": 16},
            "tokenizer": {"train_vocab_size": 300},
            "data": {"train": [{"path": str(tmp_path / name), **LEARNT[learnt]}], "validation_ratio": 0.2},
            "train": {
                "steps": 1, "seq_len": 256, "global_batch_size": 2, "device": "cpu",
                "objective": OBJECTIVES.get(learnt, "causal"),
                **({"target_len": 64} if learnt == "pairs" else {}),
            },
            "optim": {"learning_rate": 1e-3},
        }
    )  # fmt: skip
    for _ in range(2):  # made, and read from the cache
        gate, corpus = examine(recipe), prepare(recipe)
        assert (corpus.summary["train"]["documents"] + corpus.summary["validation"]["documents"]) == 24
        assert sum(int((gate.uses == use).sum()) for use in set(gate.uses.tolist())) == 24
