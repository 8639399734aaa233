"""Baselines that a trained model has to beat: one prediction for all rows, word counts, nearest row."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from etude.errors import InputError
from etude.interruption import abandonable, with_points
from etude.scores.labels import Floats, Labels, figures_of

# Identifiers, numbers and single marks: code has its meaning also in those.
_TOKEN = r"\w+|[^\w\s]"
_MAX_FEATURES = 1 << 17
_BLOCK_CELLS = 1 << 22
_FREQUENT = 0.01  # of the training rows


def majority(train_truth: Labels, rows: int, *, multi: bool) -> Labels:
    """The most frequent class for every row, (rows,); or the labels of at least half the rows, (rows, k)."""
    _require_rows(len(train_truth))
    answer: Labels = (
        train_truth.mean(axis=0) >= 0.5 if multi else np.asarray(np.bincount(train_truth).argmax())
    )
    return np.repeat(answer[None], rows, axis=0)


def best_constant(
    train_truth: Labels, rows: int, names: Sequence[str], metric: str, *, multi: bool
) -> Labels:
    """The one prediction with the best value of a metric on the training rows, for every row.

    (rows,), or (rows, k) with several labels. Of equally good ones the most accurate, then the first. It is
    exact for every figure of `score_labels` but those of a single label: of all sets of labels the best is
    the most frequent set or, for some i, that of the i most frequent labels.
    """
    _require_rows(len(train_truth))
    flags = train_truth if multi else np.eye(len(names), dtype=np.bool_)[train_truth]
    sets, set_rows = np.unique(flags, axis=0, return_counts=True)
    rows_of = {row.tobytes(): int(count) for row, count in zip(sets, set_rows)}
    counts = flags.sum(axis=0)
    if multi:
        rank = np.argsort(np.argsort(-counts, kind="stable"))
        most_frequent = rank < np.arange(len(names) + 1)[:, None]  # row i has i labels
        constants = np.vstack([most_frequent, sets[set_rows.argmax()]])
    else:
        constants = np.eye(len(names), dtype=np.bool_)
    right = np.array([[rows_of.get(row.tobytes(), 0)] for row in constants])
    true = np.broadcast_to(counts, constants.shape)
    sums = np.hstack([constants * counts, constants * len(flags), true, right]).astype(np.float64)
    figures = figures_of(sums, sums, len(flags), names, multi=multi)
    best = max(range(len(sums)), key=lambda place: (figures[metric][place], right[place, 0], -place))
    return np.repeat((constants[best] if multi else np.asarray(best))[None], rows, axis=0)


def most_frequent(train_targets: Sequence[str]) -> str | None:
    """The target that most training rows have; None if it is that of fewer than two, or of 1 in 100."""
    _require_rows(len(train_targets))
    ((target, rows),) = Counter(train_targets).most_common(1)
    return target if rows >= max(2, _FREQUENT * len(train_targets)) else None


def tfidf_logistic(
    train_texts: Sequence[str],
    train_truth: Labels,
    texts: Sequence[str],
    *,
    multi: bool,
    classes: int | None = None,
    seed: int = 0,
) -> tuple[Labels, Floats]:
    """Logistic regression on TF-IDF of words and pairs of words: predictions, and probabilities (n, k).

    With several labels each has a regression of its own, and is predicted from 0.5 on. `classes` is k where
    classes beyond those of `train_truth` exist; a class that was never seen has probability 0.
    """
    _require_rows(len(train_texts))
    train, rows = _tfidf(train_texts, texts, pairs=True)
    if multi:
        columns = [
            _probabilities(train, column.astype(np.int64), rows, 2, seed)[:, 1] for column in train_truth.T
        ]
        several = np.column_stack(columns)
        return several >= 0.5, several
    probabilities = _probabilities(train, train_truth, rows, classes or int(train_truth.max()) + 1, seed)
    return probabilities.argmax(axis=1), probabilities


def nearest_neighbour(
    train_sources: Sequence[str], train_targets: Sequence[str], sources: Sequence[str]
) -> list[str]:
    """The target of the training source with the most similar words (TF-IDF, cosine), the first of equals."""
    _require_rows(len(train_sources))
    train, rows = _tfidf(train_sources, sources, pairs=False)
    block = max(_BLOCK_CELLS // len(train_sources), 1)
    nearest = [
        (rows[at : at + block] @ train.T).toarray().argmax(axis=1)
        for at in with_points(range(0, len(sources), block))
    ]
    return [train_targets[index] for part in nearest for index in part]


def _require_rows(rows: int) -> None:
    if rows == 0:
        raise InputError(
            "the training set has no rows, so there is no baseline; give data.train rows with labels"
        )


def _tfidf(train_texts: Sequence[str], texts: Sequence[str], *, pairs: bool) -> tuple[Any, Any]:
    """Sparse matrices, (rows, features), rows of length 1 or, where no word is known, 0."""
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(
        token_pattern=_TOKEN,
        lowercase=False,
        ngram_range=(1, 2 if pairs else 1),
        sublinear_tf=True,
        max_features=_MAX_FEATURES,
    )
    if all(not text or text.isspace() for text in train_texts):
        return csr_matrix((len(train_texts), 1)), csr_matrix((len(texts), 1))
    train = words.fit_transform(with_points(train_texts))
    rows = words.transform(with_points(texts)) if texts else csr_matrix((0, train.shape[1]))
    return train, rows


def _probabilities(train: Any, truth: Labels, rows: Any, classes: int, seed: int) -> Floats:
    from sklearn.linear_model import LogisticRegression

    seen, probabilities = np.unique(truth), np.zeros((rows.shape[0], classes))
    if len(seen) == 1 or not len(probabilities):
        probabilities[:, seen] = 1.0
    else:
        model = LogisticRegression(C=10.0, max_iter=1000, random_state=seed)
        abandonable(lambda: model.fit(train, truth))
        probabilities[:, seen] = model.predict_proba(rows)
    return probabilities
