"""Documents that stay together, and the choice of those that are held out."""

import hashlib
import math

import numpy as np
import numpy.typing as npt

from etude.data.samples.sample import Flags, Ints
from etude.errors import InputError

_PIECE_CHARACTERS = 1 << 20


def hold_out(hashes: npt.NDArray[np.uint8], units: Ints, ratio: float) -> Flags:
    """Choose the documents of the validation split, shape (n,): whole units, about ratio x n documents, at
    least one.

    Units are taken in the order of a hash of their content, a number u from 0 to 1: the lowest hash of m
    texts, made fair by 1 - (1 - u)^m, as the lowest of many tends to be low. A unit of over twice what is
    still wanted is passed over, and one unit is always left for training.

    Raises: InputError if there is only one unit.
    """
    _, first, unit, sizes = np.unique(units, return_index=True, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        what = "they share a group, a text or a prompt" if len(units) > 1 else "there is only one"
        raise InputError(
            f"data.validation: none of the {len(units):,} documents can be held out, as {what}; "
            'name a source under [[data.validation]], or set data.validation = "none"'
        )
    texts = np.bincount(unit[np.unique(number_texts(hashes), return_index=True)[1]], minlength=len(sizes))
    lowest = np.full(len(sizes), 1 - 2.0**-53)
    np.minimum.at(lowest, unit, np.ascontiguousarray(hashes[:, :8]).view(">u8")[:, 0] / 2.0**64)
    order = np.lexsort((first, -np.expm1(texts * np.log1p(-lowest))))
    wanted = math.ceil(ratio * len(units))
    chosen: list[int] = []
    for index in order:
        if wanted <= 0 or len(chosen) == len(sizes) - 1:
            break
        if sizes[index] <= 2 * wanted:
            chosen.append(int(index))
            wanted -= int(sizes[index])
    chosen = chosen or [int(order[np.argmin(sizes[order])])]
    held: Flags = np.isin(unit, chosen)
    return held


def connect(*labels: Ints) -> Ints:
    """Number documents (n,); those with an equal label, or linked by others that have one, are the same."""
    units = np.arange(len(labels[0]), dtype=np.int64)
    while True:
        before = units
        for label in labels:
            lowest = np.full(int(label.max(initial=-1)) + 1, len(units), dtype=np.int64)
            np.minimum.at(lowest, label, units)
            units = lowest[label]
        units = units[units]  # follow the links twice as far each time
        if np.array_equal(units, before):
            return units


def hash_words(text: str) -> bytes:
    """The same for texts that differ in white space only; 128 bits."""
    digest, low = hashlib.sha256(), 0
    while low < len(text):
        # A line end ends no word; all words at once would take memory.
        high = text.find("\n", low + _PIECE_CHARACTERS) + 1 or len(text)
        digest.update(" ".join([*text[low:high].split(), ""]).encode("utf-8", "surrogatepass"))
        low = high
    return digest.digest()[:16]


def number_texts(hashes: npt.NDArray[np.uint8]) -> Ints:
    """Numbers (n,) that are equal where the hashes (n, 16) are."""
    pairs = np.ascontiguousarray(hashes).view("<u8")
    order = np.lexsort(pairs.T)
    labels = np.zeros(len(pairs), dtype=np.int64)
    labels[order[1:]] = np.cumsum((pairs[order[1:]] != pairs[order[:-1]]).any(axis=1))
    return labels
