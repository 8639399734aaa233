"""Faults of prepared samples are found without a model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from etude.audit.rows import find_in_rows
from etude.plan import make_plan
from etude.recipe.schema import Recipe
from tests import bases
from tests.audit.given import code, found, rows_of

Make = Callable[..., Recipe]


def test_instructions_with_answers_are_well(tmp_path: Path) -> None:
    rows = [{"instruction": f"Write f_{n}.", "output": code(n)} for n in range(40)]
    assert found(rows_of(tmp_path, rows)) == {}


@pytest.mark.parametrize("padding", ["<pad>", " <pad>", "[PAD]", "<|endoftext|>", " \u2047", "\0\0"])
def test_padding_in_texts_is_named(tmp_path: Path, padding: str) -> None:
    rows = [{"text": code(n) + padding * 9} for n in range(40)]
    assert "padding_scored" in found(
        rows_of(tmp_path, rows, {"data.sample": "document", "train.seq_len": 256})
    )


def test_a_tokenizer_that_does_not_know_the_text_is_named(tmp_path: Path) -> None:
    (task,) = make_plan(rows_of(tmp_path, [{"text": code(n)} for n in range(40)])).tasks
    assert "unknown_tokens" not in {each.kind for each in find_in_rows(task)}
    task.corpus.summary["unknown_ratio"] = 0.25  # as tests/data/test_tally.py has it of such a tokenizer
    assert "25% of all tokens" in {each.kind: each.evidence for each in find_in_rows(task)}["unknown_tokens"]


def test_blanks_at_the_ends_are_padding_and_blanks_within_are_not(tmp_path: Path) -> None:
    apart = {"data.sample": "document", "tokenizer.train_vocab_size": 260}
    ends = [{"text": code(n) + "\n" * 100} for n in range(40)]
    assert "of the targets are padding" in found(rows_of(tmp_path, ends, apart))["padding_scored"]
    within = [{"text": code(n) + " " * 40 + "# end"} for n in range(40)]
    assert found(rows_of(tmp_path, within, apart)) == {}


def test_rows_of_one_token_are_no_padding(tmp_path: Path) -> None:
    rows = [{"text": "aaaaaaaa" * 9} for _ in range(40)]
    assert found(rows_of(tmp_path, rows, {"data.sample": "document", "data.validation": "none"})) == {}


def test_answers_that_are_cut_never_end(tmp_path: Path) -> None:
    rows = [{"instruction": f"Write f_{n}.", "output": code(n) * 4} for n in range(40)]
    (finding,) = find_in_rows(make_plan(rows_of(tmp_path, rows, {"train.seq_len": 64})).tasks[0])
    assert finding.kind == "end_never_scored" and "36 of 36 are cut" in finding.evidence
    assert finding.changes == {"train.seq_len": 128}


def test_marks_of_a_template_within_texts_are_named(tmp_path: Path) -> None:
    base = bases.write_qwen2(tmp_path / "base")
    rows = [{"text": f"<|im_start|>user\nWrite f_{n}<|im_end|>\n{code(n)}"} for n in range(40)]
    recipe = rows_of(tmp_path, rows, {"model": {"from": str(base)}, "tokenizer": {}})
    assert found(recipe)["template_marks_missing"].startswith("<|im_start|>, <|im_end|> stand as text")


def test_weights_of_zero_leave_nothing_to_score(make_recipe: Make) -> None:
    kinds = [
        "special",
        "space",
        "operator",
        "bracket",
        "comment",
        "string",
        "number",
        "keyword",
        "identifier",
    ]
    with_weights = {"loss.token_weights": {**dict.fromkeys(kinds, 0.0), "comment": 1.0}}
    recipe = make_recipe(with_weights)
    plan = make_plan(recipe)
    sample = plan.corpus.train.sample(0)
    assert sample.weights is not None and np.count_nonzero(sample.weights) == 0
    assert found(recipe)["rows_without_targets"].endswith("have no target that counts")
