"""Rows are named and columns checked the same for every shape."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etude import durable
from etude.data.cache import Built, to_npy
from etude.data.samples.sample import Texts
from etude.data.samples.shape import Prepared, Shape, read_seconds
from etude.data.tokenize import Tokenizer
from etude.errors import InputError
from etude.recipe.schema import Recipe

PATHS = ["a.jsonl", "b.json"]
RECIPE = Recipe.model_construct()  # columns that all shapes but texts have depend on none


def built(folder: Path, **arrays: Any) -> Built:
    """A folder with these arrays, as a build writes them."""
    files = {
        f"{name}.npy": durable.write_file(folder / f"{name}.npy", to_npy(np.array(values, dtype=np.int64)))
        for name, values in arrays.items()
    }
    return Built(folder, {"files": files, "paths": PATHS, "capabilities": ["write", "read"]})


def prepared(folder: Path, places: list[list[int]], capabilities: list[int]) -> Prepared:
    hashes = np.arange(16 * len(places), dtype=np.uint8).reshape(-1, 16)
    arrays = {"places": np.array(places), "capabilities": np.array(capabilities), "hashes": hashes}
    none = np.zeros(0, dtype=np.int64)
    texts = Texts(none, none, none, None, 0)
    return Prepared(built=built(folder), arrays=arrays, texts=texts, tokenizer=Tokenizer("{}", "</s>"))


def test_rows_are_named_by_file_and_place_and_the_first_of_many_are_shown(tmp_path: Path) -> None:
    data = prepared(tmp_path, [[0, line] for line in range(1, 13)] + [[1, -2]], [0] * 12 + [-1])
    rows = np.arange(13)
    assert data.name_rows(rows) == [f"a.jsonl:{line}" for line in range(1, 11)]
    assert data.name_rows(rows[12:]) == ["b.json row 2"]
    assert data.count_rows(rows[:2]) == "2 (a.jsonl:1, a.jsonl:2)"
    assert (
        data.count_rows(rows) == "13 (a.jsonl:1, a.jsonl:2, a.jsonl:3 ...)"
        and data.count_rows(rows[:0]) == "0"
    )
    assert (data.capability(0), data.capability(12)) == ("write", None)
    assert data.ids(rows[1:2]) == [bytes(range(16, 24)).hex()]


def test_rows_that_are_too_long_are_kept_dropped_or_refused(tmp_path: Path) -> None:
    data = prepared(tmp_path, [[0, line] for line in range(1, 4)], [0] * 3)
    rows, is_long = np.arange(3), np.array([False, True, False])
    kept, summary = data.keep_short("train", "cut", rows, is_long, "train.seq_len 8")
    assert kept is rows and summary == {}
    kept, summary = data.keep_short("train", "drop", rows, is_long, "train.seq_len 8")
    assert kept.tolist() == [0, 2] and summary == {"dropped": 1, "dropped_rows": ["a.jsonl:2"]}
    assert data.keep_short("train", "refuse", rows, is_long & False, "train.seq_len 8")[0] is rows
    with pytest.raises(
        InputError, match=r"rows with more tokens than train.seq_len 8: 1 \(a.jsonl:2\); raise"
    ):
        data.keep_short("train", "refuse", rows, is_long, "train.seq_len 8")
    with pytest.raises(
        InputError, match=r"all 3 rows of data.train have more tokens than train.seq_len 8, and data.too_long"
    ):
        data.keep_short("train", "drop", rows, is_long | True, "train.seq_len 8")


def test_offsets_lead_from_nothing_to_the_end(tmp_path: Path) -> None:
    for number, offsets in enumerate(([0, 2, 2, 5], [0, 5], [1, 5], [0, 3, 2, 5], [0, 4], [])):
        (tmp_path / str(number)).mkdir()
        folder = built(tmp_path / str(number), offsets=offsets)
        if number < 2:
            assert folder.offsets("offsets", None, 5).tolist() == offsets
        else:
            with pytest.raises(InputError, match=r"offsets.npy does not lead from 0 to 5"):
                folder.offsets("offsets", None, 5)


def test_answers_places_and_second_texts_are_within_their_documents(tmp_path: Path) -> None:
    good = {
        "answers": [[1, 3], [3, 6]],
        "capabilities": [1, -1],
        "places": [[0, 1], [1, -1]],
        "seconds": [3, 2],
    }
    bad: dict[str, list[Any]] = {
        "answers": [[[3, 1], [3, 6]], [[3, 6], [1, 3]], [[1, 3], [3, 7]]],
        "capabilities": [[2, 0], [-2, 0], [0]],
        "places": [[[2, 1], [0, 1]], [[-1, 1], [0, 1]]],
        "seconds": [[4, 2], [0, 2]],
    }
    cases = [good, *(good | {name: values} for name, others in bad.items() for values in others)]
    for number, columns in enumerate(cases):
        (tmp_path / str(number)).mkdir()
        folder, arrays = built(tmp_path / str(number), **columns), {}
        arrays |= {"sources": np.zeros(2, dtype=np.int64), "offsets": np.array([0, 3, 6])}
        if columns is good:
            Shape().read(RECIPE, folder, arrays)
            read_seconds(folder, arrays)
            assert all(np.array_equal(arrays[name], values) for name, values in good.items())
        else:
            with pytest.raises(InputError, match=r"is damaged: .*npy"):
                Shape().read(RECIPE, folder, arrays)
                read_seconds(folder, arrays)
