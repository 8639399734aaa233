"""Rows for the gate, and duplicates as people make them: copies that are renamed, re-commented or re-spaced."""

import gzip
import json
import keyword
import random
import re
from pathlib import Path
from typing import Any

import pytest

from etude.data.shingles import normalize
from etude.recipe.load import recipe_from
from etude.recipe.schema import Recipe

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the data of the project is not beside it")
Row = dict[str, Any]


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[Row]:
    data = path.read_bytes()
    return [
        json.loads(line) for line in (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()
    ]


def recipe_of(train: Path, **data: Any) -> Recipe:
    held_out = {
        name: [{"path": str(path)} for path in data.pop(name)]
        for name in ("validation", "test")
        if name in data
    }
    return recipe_from(
        {
            "name": "x",
            "tokenizer": {"train_vocab_size": 300},
            "data": {"train": [{"path": str(train)}], **held_out, **data},
            "train": {"steps": 2, "global_batch_size": 2, "seq_len": 64},
        }
    )


def shingles(text: str) -> set[tuple[str, ...]]:
    tokens = re.findall(r"[A-Za-z0-9_\x80-\U0010ffff]+|[!-~]", normalize(text))
    padded = tokens + [""] * (5 - len(tokens))
    return set(zip(*(padded[place:] for place in range(5))))


def similarity(first: str, second: str) -> float:
    a, b = shingles(first), shingles(second)
    return len(a & b) / len(a | b)


def functions(count: int, seed: int = 0) -> list[Row]:
    draw = random.Random(seed)
    words = [f"name{number}" for number in range(50)]
    return [{"text": " ".join(draw.choices(words, k=draw.randint(8, 40)))} for _ in range(count)]


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
