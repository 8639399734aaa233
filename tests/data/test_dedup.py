"""Duplicates and leaks are those that a comparison of all pairs of plain sets finds."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from etude.data import dedup
from etude.data.gate import examine
from tests.data.planting import (
    SHARED,
    Row,
    functions,
    needs_shared,
    plant,
    read,
    recipe_of,
    shingles,
    similarity,
    write,
)


def text_of(row: Row) -> str:
    return "\n".join(row[name] for name in ("instruction", "input", "output") if row[name])


@needs_shared
def test_planted_duplicates_are_found_and_no_others(tmp_path: Path) -> None:
    rows = read(SHARED / "codealpaca" / "codealpaca_new.jsonl")
    planted, copies = plant(rows, exact=0.15, near=0.05, seed=1)
    gate = examine(recipe_of(write(tmp_path / "rows.jsonl", planted), deduplicate="near"))
    found = {int(index): int(gate.same_as[index]) for index in np.flatnonzero(gate.same_as >= 0)}
    texts = [text_of(row) for row in planted]

    exact = [index for index, (_, kind) in copies.items() if kind == "exact"]
    assert len(exact) == round(0.15 * len(rows))
    assert all(" ".join(texts[index].split()) == " ".join(texts[found[index]].split()) for index in exact)

    near = [
        index
        for index, (original, kind) in copies.items()
        if kind != "exact" and similarity(texts[index], texts[original]) >= 0.8
    ]
    assert len(near) > 0.03 * len(rows)
    assert sum(index in found for index in near) >= 0.95 * len(near)

    right = sum(similarity(texts[index], texts[other]) >= 0.8 for index, other in found.items())
    assert right == len(found)  # precision of 100 %, above the 99 % that is promised
    near_ones = [index for index in found if gate.similarity[index] < 1]
    assert all(gate.same_as[found[index]] == -1 for index in near_ones)  # what is kept is no duplicate itself


def test_matching_agrees_with_comparing_all_pairs(tmp_path: Path) -> None:
    draw = random.Random(5)
    rows = functions(60)
    for _ in range(60):
        words = draw.choice(rows)["text"].split()
        for _ in range(draw.randint(0, 3)):
            words[draw.randrange(len(words))] = "other"
        rows.append({"text": " ".join(words)})
    gate = examine(recipe_of(write(tmp_path / "rows.jsonl", rows), deduplicate="near", near_threshold=0.6))
    sets = [shingles(row["text"]) for row in rows]
    kept: list[int] = []
    expected = []
    for index, mine in enumerate(sets):
        others = [other for other in kept if len(mine & sets[other]) >= 0.6 * len(mine | sets[other])]
        expected.append(bool(others))
        if not others:
            kept.append(index)
    assert (gate.same_as >= 0).tolist() == expected


@pytest.mark.parametrize("action", ["report", "drop"])
def test_leaks_agree_with_comparing_all_pairs(tmp_path: Path, action: str) -> None:
    draw = random.Random(6)
    sides: tuple[list[Row], list[Row]] = [], []
    for row in functions(60):
        words = row["text"].split()
        for side in (0, 0, 1, 1):
            changed = [draw.choice([word] * 20 + ["other"]) for word in words]
            sides[side].append({"text": " ".join(changed)})
    train, held = write(tmp_path / "rows.jsonl", sides[0]), [write(tmp_path / "held.jsonl", sides[1])]
    recipe = recipe_of(train, validation=held, near_threshold=0.6, leakage={"action": action})
    gate = examine(recipe)
    leaking = np.array(
        [[similarity(first["text"], second["text"]) >= 0.6 for second in sides[1]] for first in sides[0]]
    )
    assert 20 < leaking.any(axis=0).sum() < 120 and 20 < leaking.any(axis=1).sum() < 120
    if action == "drop":
        assert np.flatnonzero(gate.removed).tolist() == np.flatnonzero(leaking.any(axis=1)).tolist()
    else:
        found = gate.leaking("validation", "train")[:, 0] - len(sides[0])
        assert found.tolist() == np.flatnonzero(leaking.any(axis=0)).tolist()


def test_templates_on_both_sides_are_compared_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [
        {"text": " ".join(["word"] * 5 + [f"the same {place}" for place in range(30)] + [f"end{i}"])}
        for i in range(80)
    ]
    train, held = write(tmp_path / "rows.jsonl", texts[:40]), [write(tmp_path / "held.jsonl", texts[40:])]
    calls: list[int] = []
    real = dedup.jaccard
    monkeypatch.setattr(dedup, "jaccard", lambda *given: calls.append(1) or real(*given))
    for action, leaking in (("report", 40), ("drop", 0)):
        calls.clear()
        gate = examine(recipe_of(train, validation=held, leakage={"action": action}))
        assert len(gate.leaks) == 40 and len(calls) <= 120
        assert len(gate.leaking("validation", "train")) == leaking


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_bands_find_pairs_at_the_threshold_and_few_below(threshold: float) -> None:
    bands, rows = dedup.choose_bands(threshold)
    assert bands * rows <= dedup.PERMUTATIONS
    draw, found = np.random.default_rng(0), {}
    for likeness in (threshold, threshold / 2):  # equal numbers of two signatures, as MinHash gives them
        equal = draw.random((4000, bands, rows)) < likeness
        found[likeness] = equal.all(axis=2).any(axis=1).mean()
    assert found[threshold] > 0.99 and found[threshold / 2] < found[threshold]
    more = (dedup.PERMUTATIONS // (rows + 1), rows + 1)
    assert 1 - (1 - threshold ** more[1]) ** more[0] < 0.995


def test_documents_that_share_a_band_share_a_bucket() -> None:
    draw = np.random.default_rng(1)
    bands = draw.integers(0, 40, (60, 3)).astype(np.uint64)
    usable = draw.random(60) < 0.8
    buckets = dedup.find_buckets(bands.T, usable)
    lies_in = {int(document): set(buckets.of(at)) for at, document in enumerate(buckets.documents)}
    for first, second in itertools.combinations(range(60), 2):
        together = bool((bands[first] == bands[second]).any() and usable[first] and usable[second])
        assert bool(lies_in.get(first, set()) & lies_in.get(second, set())) == together
    assert all(lies_in.values())  # who shares nothing is in no bucket


def test_equal_texts_are_matched_as_a_dictionary_matches_them() -> None:
    draw = random.Random(2)
    digests = [bytes([draw.randrange(9)]) * 16 for _ in range(80)]
    labels, uses = (np.array([draw.randrange(count) for _ in digests]) for count in (2, 3))
    dropped = np.array([draw.random() < 0.1 for _ in digests])
    array = np.array([list(digest) for digest in digests], dtype=np.uint8)
    same_as, leaks = dedup.match_exact(array, labels, uses, dropped)
    first: dict[tuple[bytes, int], int] = {}
    for index, (digest, label, use, is_dropped) in enumerate(zip(digests, labels, uses, dropped)):
        before = first.setdefault((digest, label), index) if use == 0 and not is_dropped else index
        assert same_as[index] == (before if before < index else -1)
    sets = [[i for i in range(80) if uses[i] == use and not dropped[i]] for use in range(3)]
    expected = set()
    for of, into in itertools.combinations(sets, 2):
        for mine, theirs in ((of, into), (into, of)):
            for i in mine:
                if equal := [j for j in theirs if digests[j] == digests[i]]:
                    expected.add((i, equal[0]) if mine is of else (equal[0], i))
    assert set(map(tuple, leaks.tolist())) == expected and len(leaks) == len(expected)
