"""Two passes find the same in batches of any size, on any number of cores, and only when the data changed."""

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etude.data import passes
from etude.data.gate import Gate, examine
from etude.data.prepared import prepare
from etude.errors import InputError
from tests.data.planting import functions, recipe_of, write


def same(first: Gate, second: Gate) -> bool:
    columns = ("failed", "same_as", "similarity", "leaks", "planted", "places")
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in columns)


@pytest.fixture
def varied(tmp_path: Path) -> dict[str, Any]:
    """Rows with copies of all kinds, a held-out file that leaks, and a benchmark; several batches of them."""
    rows = functions(300)
    draw = random.Random(1)
    for _ in range(80):
        copy = draw.choice(rows)["text"]
        rows.append({"text": draw.choice([copy, copy.upper(), copy + " end", f"{copy} {copy}"])})
    problems = [{"task_id": f"p{index}", "code": rows[index]["text"]} for index in range(5)]
    return {
        "train": write(tmp_path / "rows.jsonl", rows),
        "validation": [write(tmp_path / "held.jsonl", [*rows[10:15], *functions(20, seed=9)])],
        "deduplicate": "near",
        "leakage": {"action": "report", "benchmarks": [str(write(tmp_path / "bench.jsonl", problems))]},
        "clean": {"too_short": "warn", "min_characters": 60},
    }


def test_all_cores_and_batches_of_any_size_give_the_same_rows(
    varied: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = examine(recipe_of(**varied))
    assert (whole.same_as >= 0).sum() > 30 and len(whole.leaks) and len(whole.planted) and whole.failed.any()
    monkeypatch.setattr(passes, "_BATCH_CHARACTERS", 5000)
    assert same(whole, examine(recipe_of(**varied), again=True))


def test_ray_gives_the_same_rows(varied: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="the ray extra is not installed")
    whole = examine(recipe_of(**varied))
    monkeypatch.setattr(passes, "_BATCH_CHARACTERS", 20_000)
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        assert same(whole, examine(recipe_of(**varied, executor="ray"), again=True))
    finally:
        ray.shutdown()


def test_findings_are_made_once_and_again_when_the_data_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "rows.jsonl", functions(20))
    recipe = recipe_of(path, deduplicate="near")
    first = examine(recipe)
    calls: list[int] = []
    real = passes._check_batch
    monkeypatch.setattr(passes, "_check_batch", lambda *given: calls.append(1) or real(*given))
    assert np.array_equal(examine(recipe).same_as, first.same_as) and not calls
    write(path, functions(21))
    assert len(examine(recipe).same_as) == 21 and calls


def test_a_file_that_is_no_text_is_left_out_when_asked(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    for name, text in itertools.product("abcd", ["def f():\n    return 1\n"]):
        (folder / f"{name}.py").write_text(text + f"# {name} {name}\n" * 20)
    (folder / "image.py").write_bytes(b"\0\1\2")
    (folder / "latin.py").write_bytes("x = 'ä'".encode("latin-1"))
    with pytest.raises(InputError, match=r"image\.py is binary"):
        prepare(recipe_of(folder))
    corpus = prepare(recipe_of(folder, clean={"undecodable": "drop"}))
    assert sum(source["documents"] for source in corpus.summary["sources"]) == 4
    assert corpus.summary["filters"][0] | {"examples": []} == {
        "filter": "undecodable",
        "policy": "drop",
        "documents": 2,
        "examples": [],
    }


def test_a_line_that_is_no_text_is_left_out_when_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", functions(30))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([b'{"text": "x \xe4"}\n', *lines, b"\xff\n"]))
    with pytest.raises(InputError, match=r"rows\.jsonl:1 is not UTF-8 text: byte 12 of the line"):
        prepare(recipe_of(path))
    corpus = prepare(recipe_of(path, clean={"undecodable": "drop"}))
    assert corpus.summary["sources"][0]["documents"] == 30
    (row,) = corpus.summary["filters"]
    assert row["documents"] == 2 and [Path(name).name for name in row["examples"]] == [
        "rows.jsonl:1",
        "rows.jsonl:32",
    ]
