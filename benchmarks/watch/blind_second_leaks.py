"""Rows of the second blind test with a fault: filled up, repeated, or with the answer in the prompt."""

import json
import random
import re

from watch.blind_rows import Row, Rows


def _last(row: Row) -> str:
    return "text" if "text" in row else "output"


def filled_front(rows: Rows, mark: str, count: int) -> Rows:
    """Rows filled up at the front to a number of words and marks."""
    return [
        {**row, _last(row): mark * max(0, count - len(row[_last(row)].split())) + row[_last(row)]} for row in rows
    ]  # fmt: skip


def filled_back(rows: Rows, mark: str, count: int) -> Rows:
    """Rows filled up at the end to a number of words and marks."""
    return [
        {**row, _last(row): row[_last(row)] + mark * max(0, count - len(row[_last(row)].split()))} for row in rows
    ]  # fmt: skip


def sampled(rows: Rows, draw: random.Random) -> Rows:
    """Rows drawn with replacement, the first with a weight far above the last."""
    return draw.choices(rows[:400], weights=[1 / place**1.2 for place in range(1, 401)], k=2400)


def four_workers(rows: Rows, draw: random.Random) -> Rows:
    """Each row four times in a row, from four workers that read the same part."""
    return [row for row in rows[:600] for _ in range(4)]


def overlapping(rows: Rows, draw: random.Random) -> Rows:
    """Three exports of 900 rows put together, each with two thirds of the one before."""
    return [row for first in (0, 300, 600) for row in rows[first : first + 900]]


def numbered(rows: Rows, draw: random.Random) -> Rows:
    """Twelve rows written again and again, each time below another number."""
    return [{"text": f"// part {place}\n{rows[place % 12]['text']}"} for place in range(2000)]


def boilerplate(rows: Rows, draw: random.Random) -> Rows:
    """Seven of ten rows are one of three."""
    return [draw.choice(rows[:3]) if draw.random() < 0.7 else row for row in rows]


def reworded(rows: Rows, draw: random.Random) -> Rows:
    """Ten rows augmented: the question begins in another way each time, the answer stays."""
    begins = ("Please", "Kindly", "Now", "Task:", "Next,", "As an expert,", "Step by step,", "Quick:")
    return [
        {**row, "instruction": f"{draw.choice(begins)} {row['instruction']} (id {place})"}
        for place, row in enumerate(draw.choices(rows[:10], k=2000))
    ]


def exported_twice(rows: Rows, draw: random.Random) -> Rows:
    """The same rows appended for a second pass, in another order."""
    return [*rows, *draw.sample(rows, len(rows))]


def reformatted(rows: Rows, draw: random.Random) -> Rows:
    """Sixteen rows drawn again and again, in one of four indents."""
    return [
        {**row, "output": re.sub(r" {4}|\t", draw.choice(("  ", "   ", "    ", "\t")), row["output"])}
        for row in draw.choices(rows[:16], k=2000)
    ]


# ---- answers in their prompts ----


def in_docstring(row: Row) -> Row:
    """A stub whose docstring quotes the solution."""
    return {**row, "instruction": f'{row["instruction"]}\n"""\nExample:\n{row["output"]}\n"""\npass'}


def in_retrieved(row: Row) -> Row:
    """Examples found by similarity, the row itself among them."""
    example = "Q: Add two numbers.\nA: a + b"
    return {
        **row,
        "instruction": f"{example}\nQ: {row['instruction']}\nA: {row['output']}\nQ: {row['instruction']}\nA:",
    }


def in_json(row: Row) -> Row:
    """The whole row, as JSON, for a prompt."""
    return {**row, "instruction": json.dumps(row)}


def on_one_line(row: Row) -> Row:
    """The solution in a field of its own before the question, its white space collapsed."""
    return {**row, "instruction": f"canonical: {' '.join(row['output'].split())} | {row['instruction']}"}


def in_suffix(row: Row) -> Row:
    """A hole to fill whose suffix begins too early, with what was cut out."""
    return {**row, "instruction": f"<PRE>{row['instruction']}<SUF>{row['output']}\n// end of file<MID>"}


def in_system(row: Row) -> Row:
    """A message of the system with the reference that a judge was given."""
    return {**row, "system": f"Compare with the reference:\n{row['output']}"}


def in_comments(row: Row) -> Row:
    """The solution as lines of comment in the file that is to be completed."""
    lines = "\n".join(f"# {line}" for line in row["output"].splitlines())
    return {**row, "instruction": f"{row['instruction']}\n{lines}\n# TODO"}


def in_some_hints(row: Row) -> Row:
    """Six of ten rows have the solution as a hint."""
    if sum(map(ord, row["instruction"])) % 10 >= 6:
        return row
    return {**row, "instruction": f"{row['instruction']}\nHint: {row['output']}"}
