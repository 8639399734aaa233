"""Texts of an evaluation: who writes them, and which figures they have."""

import math
from dataclasses import replace
from pathlib import Path

from etude.evaluate.tasks import Score
from etude.objectives.writing import is_answered, measure_texts, names_of_texts
from etude.scores.answers import FIGURES
from tests.bases import write_instructions, write_qwen2
from tests.objectives.sessions import begun
from tests.recipes import finetuning

LOSS = Score(2.0, 10, None)


def test_held_out_rows_are_answered_and_scored_beside_the_loss(tmp_path: Path) -> None:
    rows, base = write_instructions(tmp_path / "rows.jsonl"), write_qwen2(tmp_path / "base")
    changes = {"evaluate.answers": 3, "evaluate.answer_tokens": 6, "train.steps": 1}
    with begun(finetuning(rows, base, changes), tmp_path / "runs") as session:
        assert is_answered(session.recipe, session.plan.corpus)
        exam = session.examiner._exam(session.plan.tasks[0])
        measured = measure_texts(exam, LOSS)
        assert measured.score == LOSS and set(measured.figures) == set(FIGURES)
        assert [text.reference is not None for text in measured.texts] == [True] * 3
        assert measured.standard_error("bleu") >= 0
        assert math.isnan(measured.standard_error("loss"))
        silent = measure_texts(replace(exam, writes_text=False), LOSS)
        assert (silent.figures, silent.texts) == ({}, [])


def test_without_answers_there_are_no_figures_of_them(tmp_path: Path) -> None:
    rows, base = write_instructions(tmp_path / "rows.jsonl"), write_qwen2(tmp_path / "base")
    with begun(finetuning(rows, base, {"evaluate.answers": 0}), tmp_path / "runs") as session:
        assert names_of_texts(session.recipe, session.plan.corpus) == set()
