"""Answers in a report: each prompt and each different answer once, how it ended, and blank ones in words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from etude.records.events import Event, Generation
from etude.report.answers import answers_over_time
from etude.report.history import read_history
from tests import misleading as runs
from tests.report.runs import attempt, evaluation, new_run, window


def told(folder: Path, *records: Event) -> list[str]:
    writer = new_run(folder)
    writer.append(attempt(), *window(1, 5), evaluation(5, 1.5), *window(6, 10), *records)
    writer.close("finished")
    return list(answers_over_time(read_history(writer.run)))


def said(step: int, text: str, prompt: str = "Add.", *, stopped: bool = True) -> Generation:
    return Generation(step, prompt, text, {"max_tokens": 24}, "x = 1", stopped)


def test_an_answer_that_comes_again_is_printed_once_with_its_steps(tmp_path: Path) -> None:
    texts = [said(0, "a", stopped=False), said(5, "a", stopped=False), said(10, "b")]
    assert told(tmp_path, *texts) == [
        "**Prompt:** `Add.`",
        "Reference:\n\n```text\nx = 1\n```",
        "Before training, same at step 5 ★, cut off after 24 tokens:\n\n```text\na\n```",
        "Step 10, ended by itself:\n\n```text\nb\n```",
    ]


def test_blank_answers_are_said_in_words_and_long_texts_are_cut(tmp_path: Path) -> None:
    long = "\n".join(f"line {n}" for n in range(100))
    parts = told(tmp_path, said(5, " " * 83, "p " * 300), said(10, long, "p " * 300))
    assert len(parts[0]) < 230 and "..." in parts[0]
    assert parts[2] == "Step 5 ★, ended by itself: 83 characters of white space."
    assert "line 5\n... (" in parts[3] and "line 6" not in parts[3]


def test_equal_prompts_keep_their_own_references(tmp_path: Path) -> None:
    texts = [Generation(5, "Add.", f"said {n}", {}, f"right {n}", True) for n in range(2)]
    whole = "\n".join(told(tmp_path, *texts))
    places = [whole.index(words) for words in ("right 0", "said 0", "right 1", "said 1")]
    assert places == sorted(places)


def test_many_prompts_are_left_to_the_journal(tmp_path: Path) -> None:
    parts = told(tmp_path, *(said(step, f"{step}", f"p{n}") for step in range(1, 30) for n in range(7)))
    assert parts[-1] == "The journal has 4 more prompts."
    assert sum(part.startswith("Step ") for part in parts) == 3 * 4, "three moments, and the best"


def test_the_endless_answer_stands_once_a_prompt(misleading: Callable[..., Any]) -> None:
    parts = list(answers_over_time(read_history(misleading(runs.endless_string))))
    assert all("cut off after 48 tokens" in part for part in parts if part.startswith("Step "))
