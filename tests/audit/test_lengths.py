"""Samples that are too short for most texts are named, with the length that holds them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from etude.audit.lengths import find_cut
from etude.plan import make_plan
from etude.recipe.load import recipe_from, with_changes
from etude.recipe.schema import Recipe
from etude.records.events import Finding
from tests import bases, recipes


def found(recipe: Recipe) -> list[Finding]:
    return [each for task in make_plan(recipe).tasks for each in find_cut(task)]


def test_targets_that_are_cut_ask_for_the_length_that_holds_nearly_all(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"source": f"say {n}", "target": " ".join(["word"] * (4 + n % 40))} for n in range(120)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = with_changes(recipes.seq2seq(path), {"train.seq_len": 64, "train.target_len": 6})
    (finding,) = found(recipe)
    assert (finding.kind, finding.severity) == ("samples_cut", "info")
    assert "targets have more tokens than train.target_len" in finding.evidence
    length = finding.changes["train.target_len"]
    mended = with_changes(recipe, {"train.target_len": length})
    assert found(mended) == []
    (task,) = make_plan(mended).tasks
    spans, seconds = task.corpus.train.spans, task.corpus.train.seconds  # type: ignore[union-attr]
    assert 0.9 <= np.mean(spans.ends - spans.starts - seconds <= length) < 1


def test_labelled_texts_that_are_cut_are_a_remark(tmp_path: Path) -> None:
    recipe = recipes.classification(bases.write_labelled(tmp_path / "rows.jsonl"))
    assert found(with_changes(recipe, {"train.seq_len": 256})) == []
    (finding,) = found(with_changes(recipe, {"train.seq_len": 3}))
    assert finding.severity == "info" and finding.changes == {"train.seq_len": 12}


def test_documents_that_lie_end_to_end_are_never_cut(tmp_path: Path, corpus: Path) -> None:
    assert found(recipe_from(recipes.tiny(corpus, {"train.seq_len": 8}))) == []
