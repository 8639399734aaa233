"""Answers are found in their own prompts, however they are written there."""

import html
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.audit.rows import find_in_rows
from etude.plan import make_plan
from tests.audit.given import code, found, rows_of


def test_an_answer_in_its_prompt_is_named(tmp_path: Path) -> None:
    rows = [{"instruction": f"Write this: {code(n)}", "output": code(n)} for n in range(40)]
    assert found(rows_of(tmp_path, rows))["answer_in_prompt"].startswith(
        "36 of 36 rows have the whole answer"
    )
    # Also where the row stands in its prompt as JSON, and the answer as comments.
    plain = [{"instruction": f"Write f_{n}.", "output": f"{code(n)}\n{code(n + 50)}"} for n in range(40)]
    for is_json in (True, False):
        hidden = [
            json.dumps(row) if is_json else "\n# ".join([row["instruction"], *row["output"].split("\n")])
            for row in plain
        ]
        rows = [{**row, "instruction": text} for row, text in zip(plain, hidden)]
        assert "answer_in_prompt" in found(rows_of(tmp_path, rows))
    # A short one makes up little of what is asked, and stands at its end.
    short = [
        {
            "instruction": f"Tell me what the value number {n} is called, in one word",
            "input": f"value_{n * 7919 % 997 + 1000}",
            "output": f"value_{n * 7919 % 997 + 1000}",
        }
        for n in range(40)
    ]
    assert found(rows_of(tmp_path, short))["answer_in_prompt"].startswith("36 of 36 rows")
    # One of several that are offered is no copy.
    chosen = [
        {
            "instruction": "Which of these is called? " + str(n),
            "input": f"first_{n}\nsecond_{n}\nthird_{n}\nnone",
            "output": f"second_{n}",
        }
        for n in range(40)
    ]
    assert found(rows_of(tmp_path, chosen)) == {}
    # A short extract from a long text is what many tasks ask for.
    asked = [{"instruction": " ".join(map(code, range(n, n + 9))), "output": code(n + 4)} for n in range(40)]
    (finding,) = find_in_rows(make_plan(rows_of(tmp_path, asked, {"train.seq_len": 512})).tasks[0])
    assert finding.kind == "answer_in_prompt" and finding.severity == "info"
    assert finding.what == "answers are extracts from their prompts"


ASKED = "Please write a function that has the name f_{0}, and explain how your solution to task {0} works"
MARGINS: dict[str, Callable[[str], str]] = {
    "numbers of lines": lambda text: "\n".join(
        f"{place:03d}: {line}" for place, line in enumerate(text.split("\n"), 9)
    ),
    "HTML": lambda text: f"<pre>{html.escape(text)}</pre>",
    "the middle of a file": lambda text: f"import abc\n\n\n{text}\n\n\nif __name__ == 'main':\n    run()",
    "a diff": lambda text: "\n".join(f"+{line}" for line in text.split("\n")),
}


def signed(number: int) -> str:
    return f"def f_{number}(a, b):\n    if a < b and b > {number}:\n        return 'less'\n    return {number} & a"


@pytest.mark.parametrize("margin", MARGINS)
def test_an_answer_is_found_wherever_and_however_it_stands_in_its_prompt(tmp_path: Path, margin: str) -> None:
    rows = [
        {"instruction": f"{MARGINS[margin](signed(n))}\n{ASKED.format(n)}", "output": signed(n)}
        for n in range(40)
    ]
    (finding,) = find_in_rows(make_plan(rows_of(tmp_path, rows, {"train.seq_len": 512})).tasks[0])
    assert finding.kind == "answer_in_prompt" and finding.severity == "warning"
    # The same text in the prompts of other rows is none of theirs: nothing is copied.
    moved = [{**row, "output": rows[place - 1]["output"]} for place, row in enumerate(rows)]
    assert "answer_in_prompt" not in found(rows_of(tmp_path, moved, {"train.seq_len": 512}))


def test_a_text_that_is_to_be_mended_is_no_answer_in_its_prompt(tmp_path: Path) -> None:
    rows = [{"instruction": f"Mend: {signed(n)}", "output": signed(n).replace("<", ">")} for n in range(40)]
    assert "answer_in_prompt" not in found(rows_of(tmp_path, rows, {"train.seq_len": 512}))


def test_labels_in_words_that_all_prompts_offer_are_no_copies(tmp_path: Path) -> None:
    labels = [f"this is a report of kind {name}" for name in ("one", "two", "three")]
    rows = [
        {"instruction": f"Report {n}: {'; '.join(labels)}?", "output": labels[n * 7919 % 3]}
        for n in range(60)
    ]
    assert "answer_in_prompt" not in found(rows_of(tmp_path, rows))
