"""Labels and targets of training that belong to other rows, as validation rows of their own source show."""

import math
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from etude.audit.samples import choose_samples
from etude.data.examples import Example
from etude.data.samples.sample import Flags, Ints, Sample
from etude.objectives.task import Task
from etude.records.events import Finding
from etude.text import plural

_TRAIN, _HELD_OUT, _LEAST, _OTHERS = 768, 384, 48, 8  # rows; others that a row is held against
_CLEAR, _LOST = 0.25, 0.8  # tie of rows to targets in validation; share of it from which training has less
_ERRORS = 2.5
_WORDS = 8192  # that are told apart
_PARTS = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+|\d+")  # of names too: getItem and GetItem share both


@dataclass(frozen=True)
class Tie:
    """Mean tie of rows to their own targets: 0 for targets of any row, 1 for no doubt; and its error."""

    value: float
    error: float
    rows: int


def find_shuffled(task: Task) -> Iterator[Finding]:
    """Targets of training that go with their rows less than those of validation do.

    Validation has to be a source of its own: a share of the training rows has the same fault. Where words
    tell little of the targets nothing is said, nor of a share under a quarter, which harder rows may be, nor
    of labels that training tells at all.
    """
    corpus, recipe = task.corpus, task.recipe
    if corpus.validation is None or not isinstance(recipe.data.validation, list) or recipe.kind.hides_tokens:
        return
    if min(len(corpus.train), len(corpus.validation)) < _LEAST:
        return
    train, held_out = choose_samples(corpus.train, _TRAIN), choose_samples(corpus.validation, _HELD_OUT)
    noun = "target" if train[0].classes is None else "label"
    mine: Tie | None
    others: Tie | None
    if noun == "label":
        mine, others = _tie_of_labels(train), _tie_of_labels(held_out)
    else:
        mine, others = (
            _tie_of_targets(corpus.examples_of.get(use, ()), count)
            for use, count in (("train", _TRAIN), ("validation", _HELD_OUT))
        )
    if others is None or mine is None or others.value - _ERRORS * others.error < _CLEAR:
        return
    # Fits of labels depend on the rows beside: only training that tells nothing is sure.
    least = 0.0 if noun == "label" else _LOST * (others.value - _ERRORS * others.error) - _ERRORS * mine.error
    if mine.value < max(least, _ERRORS * mine.error):
        yield Finding(
            0, f"{noun}s of training belong to other rows",
            f"words of a row tell its {noun} by {mine.value:.2f} in {plural(mine.rows, 'row')} of training, "
            f"by {others.value:.2f} in {others.rows:,} of validation, where 0 is chance and 1 certainty",
            f"look at some rows of training: {noun}s may have been shuffled, or joined to the wrong rows",
            window=[0, 0], kind="labels_shuffled", confidence=0.8,
            causes=[f"{noun}s of other rows", "validation rows that are easier, or of another kind"],
            decided_by=f"words of rows against their {noun}s and those of others",
            not_tested=[f"each single {noun}"],
        )  # fmt: skip


def _tie_of_targets(examples: Sequence[Example], count: int) -> Tie | None:
    """Rare words that a text shares with its target, more often than with those of others."""
    some = [examples[index * len(examples) // count] for index in range(min(count, len(examples)))]
    sides = [(_words(each.prompt), _words(each.reference)) for each in some if each.reference.strip()]
    if len(sides) < _LEAST:
        return None
    sources, targets = np.zeros((2, len(sides), _WORDS), dtype=np.float32)
    for row, (source, target) in enumerate(sides):
        sources[row, source] = targets[row, target] = 1
    targets *= np.log(len(sides) / np.maximum(targets.sum(axis=0), 1))
    shared = sources @ targets.T / np.sqrt(np.maximum(targets.sum(axis=1), 1e-6))
    places, draw = np.arange(len(sides)), np.random.default_rng(1)
    wins = np.zeros(len(sides))
    for _ in range(_OTHERS):
        others = shared[places, (places + draw.integers(1, len(sides), len(sides))) % len(sides)]
        wins += np.sign(shared[places, places] - others) / _OTHERS
    return _tie(wins)


def _words(text: str) -> list[int]:
    return [zlib.crc32(word.lower().encode()) % _WORDS for word in set(_PARTS.findall(text))]


def _tie_of_labels(samples: Sequence[Sample]) -> Tie:
    """Labels that tokens of the other half of the rows tell; halves, as neighbours may have one origin."""
    classes = np.unique([each.classes for each in samples], axis=0, return_inverse=True)[1].reshape(-1)
    size = max(int(each.tokens.max(initial=0)) for each in samples) + 1
    words = np.zeros((len(samples), size), dtype=np.float32)
    for row, each in enumerate(samples):
        words[row, each.tokens] = 1
    known, middle = int(classes.max()) + 1, len(samples) // 2
    guesses = np.empty_like(classes)
    for fitted, told in ((slice(middle), slice(middle, None)), (slice(middle, None), slice(middle))):
        counts = np.zeros((known, size), dtype=np.float32)
        np.add.at(counts, classes[fitted], words[fitted])
        guesses[told] = _guess(words[told], counts, np.bincount(classes[fitted], minlength=known))
    return _above_chance(guesses, classes)


def _guess(words: np.ndarray, counts: np.ndarray, prior: np.ndarray) -> Ints:
    """The likeliest class of each row by naive Bayes over the tokens that are there or not."""
    chance = (counts + 0.5) / (prior[:, None] + 1)
    there, absent = np.log(chance), np.log1p(-chance)
    guesses: Ints = (words @ (there - absent).T + absent.sum(axis=1) + np.log(prior + 1e-3)).argmax(axis=1)
    return guesses


def _above_chance(guesses: Ints, classes: Ints) -> Tie:
    """Right guesses beyond those that the same guesses have among labels in any order."""
    known = max(guesses.max(), classes.max()) + 1
    given, said = (np.bincount(each, minlength=known) / len(each) for each in (classes, guesses))
    chance = float((given * said).sum())
    right: Flags = guesses == classes
    return _tie((right - chance) / max(1 - chance, 1e-6))


def _tie(values: np.ndarray) -> Tie:
    return Tie(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)), len(values))
