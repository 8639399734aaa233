"""Duplicates as people make them: a seeded script that plants copies of rows, renamed, re-commented and
re-spaced.
"""

import keyword
import random
import re
from typing import Any

Row = dict[str, Any]


def plant(
    rows: list[Row], *, exact: float, near: float, seed: int
) -> tuple[list[Row], dict[int, tuple[int, str]]]:
    """The rows with copies of some of them at places drawn by chance, behind what they copy.

    exact, near: copies as a share of the rows. Returns the rows, and for each copy its place, the place of
    what it copies and its kind: exact, rename, comment or space. Exact copies may differ in white space.
    """
    draw = random.Random(seed)
    count = len(rows)
    chosen = draw.sample(range(count), round((exact + near) * count))
    copies: list[tuple[int, str, Row]] = []
    for number, index in enumerate(chosen):
        kind = "exact" if number < round(exact * count) else draw.choice(["rename", "comment", "space"])
        copies.append((index, kind, {**rows[index], "output": _CHANGES[kind](rows[index]["output"], draw)}))
    behind: dict[int, list[tuple[int, str, Row]]] = {}
    for copy in copies:
        behind.setdefault(draw.randrange(copy[0], count), []).append(copy)
    planted: list[Row] = []
    place_of: dict[int, int] = {}
    made: dict[int, tuple[int, str]] = {}
    for index, row in enumerate(rows):
        place_of[index] = len(planted)
        planted.append(row)
        for original, kind, copy in behind.get(index, ()):
            made[len(planted)] = (place_of[original], kind)
            planted.append(copy)
    return planted, made


def _exact(code: str, draw: random.Random) -> str:
    return code.replace("\n", "\n" * draw.choice([1, 2])) + " " * draw.randrange(3)


def _rename(code: str, draw: random.Random) -> str:
    names = sorted(
        {name for name in re.findall(r"\b[a-z_][a-z_0-9]+\b", code) if not keyword.iskeyword(name)}
    )
    if not names:
        return code + " pass"
    name = draw.choice(names)
    return re.sub(rf"\b{name}\b", f"{name}_{draw.randrange(100)}", code)


def _comment(code: str, draw: random.Random) -> str:
    lines = code.split("\n")
    words = [
        draw.choice(["fast", "slow", "old", "new", "loop", "see", "below"]) for _ in range(draw.randint(2, 8))
    ]
    lines.insert(draw.randrange(len(lines) + 1), f"  # {' '.join(words)}")
    return "\n".join(lines)


def _space(code: str, draw: random.Random) -> str:
    spaced = re.sub(r"([-+*/=<>(),:])", lambda mark: mark[0] + " " * draw.choice([0, 1]), code)
    return re.sub(r"[ \t]+", lambda space: space[0] * draw.choice([1, 2, 3]), spaced)


_CHANGES = {"exact": _exact, "rename": _rename, "comment": _comment, "space": _space}
