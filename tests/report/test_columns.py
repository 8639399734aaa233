"""Names and tables stay within a width, and what differs stays different."""

import shlex

from hypothesis import given
from hypothesis import strategies as st

from etude.report.columns import Row, lay_out, shorten_apart, wrap, wrap_command

RUNS = ["step-000040-rows5-5fe396", "step-000040-rows8-92673b", "step-000040-rows100-3a7620"]
PATHS = ["/data/people/s5/rows5.jsonl", "/data/people/s100/rows100.jsonl"]


def test_long_names_lose_what_they_share_and_then_their_middle() -> None:
    assert shorten_apart(RUNS, 30) == RUNS
    assert shorten_apart(RUNS, 15) == ["…rows5-5fe396", "…rows8-92673b", "…rows100-3a7620"]
    short = shorten_apart(RUNS, 9)
    assert len(set(short)) == 3 and all(len(name) <= 9 and "…" in name for name in short)


def test_paths_are_cut_to_where_they_differ() -> None:
    assert shorten_apart(PATHS, 22) == ["…/s5/rows5.jsonl", "…/s100/rows100.jsonl"]
    assert shorten_apart(["/data/a.jsonl"] * 2, 9) == ["…/a.jsonl"] * 2


@given(st.lists(st.text(st.sampled_from("ab-/"), max_size=30), min_size=1, max_size=5), st.integers(6, 20))
def test_texts_that_differ_still_do_within_any_width(texts: list[str], width: int) -> None:
    short = shorten_apart(texts, width)
    assert all(len(text) <= width for text in short)
    assert len(set(short)) == len(set(texts))


def test_a_table_keeps_its_width_and_parts_columns_that_do_not_fit() -> None:
    rows = [Row("", RUNS, is_text=True), Row("validation loss", ["6.0359", "5.9911", "5.8962"])]
    wide, narrow = lay_out(rows, 80), lay_out(rows, 34)
    assert len(wide) == 2 and all(len(line) <= 80 for line in wide)
    assert wide[1].split() == ["validation", "loss", "6.0359", "5.9911", "5.8962"]
    assert all(len(line) <= 34 for line in narrow) and len(narrow) == 5 and narrow[2] == ""
    assert sum(line.startswith("validation loss") for line in narrow) == 2


def test_a_long_command_is_still_one_command() -> None:
    command = f"etude evaluate {' '.join(RUNS)} --on rows.jsonl"
    lines = wrap_command(command, 60)
    assert all(len(line) <= 60 for line in lines) and len(lines) > 1
    assert shlex.split("\n".join(lines).replace("\\\n", " ")) == shlex.split(command)


def test_a_sentence_breaks_between_words_only() -> None:
    lines = wrap("It may have learnt nothing: the loss of step-000040-rows5 rose.", 30)
    assert " ".join(line.strip() for line in lines).endswith("step-000040-rows5 rose.")
    assert all(len(line) <= 30 for line in lines) and lines[1].startswith("  ")
