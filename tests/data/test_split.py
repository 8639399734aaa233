"""Units stay whole, and held-out ones are chosen fairly."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.data import split
from etude.data.split import connect, hash_words, hold_out, number_texts
from etude.errors import InputError


def hashes_of(texts: list[str]) -> np.ndarray:
    digests = b"".join(hashlib.sha256(text.encode()).digest()[:16] for text in texts)
    return np.frombuffer(digests, dtype=np.uint8).reshape(-1, 16)


@given(st.text(alphabet="ab \n\t", max_size=60), st.integers(1, 20))
def test_words_give_the_hash_and_white_space_does_not(text: str, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "_PIECE_CHARACTERS", piece)
        assert hash_words(text) == hash_words(" ".join(text.split()))
        assert hash_words(text) != hash_words(f"{text} a")


def naive_units(groups: list[int], texts: list[int]) -> list[int]:
    units = list(range(len(groups)))
    for _ in units:
        for left in range(len(units)):
            for right in range(len(units)):
                if groups[left] == groups[right] or texts[left] == texts[right]:
                    units[left] = units[right] = min(units[left], units[right])
    return units


@settings(max_examples=100, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=9))
def test_documents_that_share_a_group_or_a_text_are_connected_and_no_others(
    pairs: list[tuple[int, int]],
) -> None:
    groups, texts = ([pair[side] for pair in pairs] for side in (0, 1))
    units = connect(np.array(groups, dtype=np.int64), np.array(texts, dtype=np.int64))
    assert units.tolist() == naive_units(groups, texts)


@settings(max_examples=200, deadline=None)
@given(
    pairs=st.lists(
        st.tuples(st.integers(0, 12), st.text("abcdefgh", min_size=1, max_size=2)), min_size=2, max_size=40
    ),
    ratio=st.floats(0.01, 0.99),
)
def test_no_group_and_no_text_is_in_both_splits(pairs: list[tuple[int, str]], ratio: float) -> None:
    groups, texts = np.array([group for group, _ in pairs]), [text for _, text in pairs]
    hashes = hashes_of(texts)
    units = connect(groups, number_texts(hashes))
    if len(set(units)) == 1:
        with pytest.raises(InputError, match="validation"):
            hold_out(hashes, units, ratio)
        return
    held = hold_out(hashes, units, ratio)
    assert held.any() and not held.all()
    assert not set(groups[held]) & set(groups[~held])
    assert not {t for t, h in zip(texts, held) if h} & {t for t, h in zip(texts, held) if not h}
    order = np.random.default_rng(0).permutation(len(pairs))
    assert np.array_equal(hold_out(hashes[order], units[order], ratio), held[order])


def test_lone_documents_are_held_out_by_lowest_hash_and_rounded_up() -> None:
    hashes = hashes_of([str(index) for index in range(101)])
    held = hold_out(hashes, np.arange(101), 0.05)
    assert held.sum() == math.ceil(0.05 * 101)
    keys = [bytes(row) for row in hashes]
    assert {key for key, h in zip(keys, held) if h} == set(sorted(keys)[:6])


def test_a_unit_that_holds_most_of_the_data_is_not_held_out() -> None:
    for seed in range(50):
        hashes = hashes_of([f"{seed} {index}" for index in range(100)])
        units = np.array([0] * 80 + list(range(80, 100)))
        held = hold_out(hashes, units, 0.05)
        assert not held[:80].any() and held.sum() == 5


def test_units_of_any_size_are_as_likely_to_be_held_out() -> None:
    chosen = [0, 0]
    for seed in range(400):
        hashes = hashes_of([f"{seed} {index}" for index in range(60)])
        units = np.array(
            [index // 5 if index < 30 else index for index in range(60)]
        )  # 6 units of 5, 30 of 1
        held = hold_out(hashes, units, 0.1)
        chosen[0] += len(set(units[held & (units < 6)]))
        chosen[1] += len(set(units[held & (units >= 6)]))
    large, small = chosen[0] / 6, chosen[1] / 30
    assert 0.7 < large / small < 1.3


def test_most_rows_stay_held_out_when_rows_are_added_but_the_set_is_another() -> None:
    draw, stayed = np.random.default_rng(0), []
    for _ in range(50):
        hashes = draw.integers(0, 256, (1100, 16), dtype=np.uint8)
        before = np.flatnonzero(hold_out(hashes[:1000], np.arange(1000), 0.05))
        after = np.flatnonzero(hold_out(hashes, np.arange(1100), 0.05))
        assert len(before) == 50 and len(after) == 55
        stayed.append(np.isin(before, after).mean())
    assert float(np.mean(stayed)) > 0.95
