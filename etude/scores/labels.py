"""Figures from predicted and true labels; from one table of all rows, never a mean of batches.

One label: the number of a class for each row, (n,) int64. Several: which labels each row has, (n, k) bool.
Where a figure is 0/0 it is 0, as with scikit-learn's `zero_division=0`; a figure of no rows is NaN.
"""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Labels = npt.NDArray[Any]  # Ints of one label, Flags of several

_FOLDS = 5
_AVERAGES = (
    "precision_macro", "recall_macro", "f1_macro", "precision_micro", "recall_micro", "f1_micro",
)  # fmt: skip

# Figures that `score_labels` always has, but for those of each label; `f1` is macro but with two classes.
MULTI_FIGURES = ("f1", "accuracy", *_AVERAGES)
SINGLE_FIGURES = (*MULTI_FIGURES, "mcc")
# Figures that exactly two classes have besides: of class 1, as is `f1` then.
BINARY_FIGURES = ("precision", "recall")


def score_labels(truth: Labels, predicted: Labels, names: Sequence[str], *, multi: bool) -> dict[str, float]:
    """Every figure by name, and `precision/<label>`, `recall/<label>`, `f1/<label>` of each label.

    Macro is over all of `names`, also those that no row has; `describe_averages` says so. Accuracy of several
    labels is the share of rows where all are right. Mcc is the multi-class correlation. Source:
    doi:10.1016/j.compbiolchem.2004.09.006.
    """
    outcomes, rows = tabulate(truth, predicted, len(names), multi=multi)
    whole = rows @ outcomes
    figures = figures_of(whole, whole, int(rows.sum()), names, multi=multi)
    return {name: float(value) if len(truth) else np.nan for name, value in figures.items()}


def describe_averages(truth: Labels, predicted: Labels, names: Sequence[str], *, multi: bool) -> list[str]:
    """Notes on the figures of these rows: the label of binary ones, and labels without rows in macro ones."""
    notes = []
    if not multi and len(names) == 2:
        notes.append(f"precision, recall and f1 are those of the label {names[1]}, the second of two")
    is_true, is_predicted = (
        (rows if multi else np.eye(len(names))[rows]).sum(axis=0) > 0 for rows in (truth, predicted)
    )
    if len(truth) and not is_true.all():
        figures = score_labels(truth, predicted, names, multi=multi)
        shown = [figures[f"f1/{name}"] for name, flag in zip(names, is_true | is_predicted) if flag]
        without = [name for name, flag in zip(names, is_true) if not flag]
        labels, they = ("label", "it counts") if len(without) == 1 else ("labels", "each counts")
        listed = f"{', '.join(without[:10])}{' ...' if len(without) > 10 else ''}"
        default = "" if multi else ", as scikit-learn does by default"
        notes.append(
            f"no row has the {labels} {listed}, and {they} as 0 in macro figures, as in scikit-learn with "
            "all labels and zero_division=0; over the labels that are true or predicted for some row"
            f"{default}, f1_macro is {np.mean(shown):.4f}"
        )
    return notes


def confusion(truth: Ints, predicted: Ints, classes: int) -> Ints:
    """Counts of rows by true class (rows of the table) and predicted class (columns); (k, k)."""
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def choose_thresholds(probabilities: Floats, truth: Flags) -> Floats:
    """The probability from which on each label is predicted, (k,), such that its F1 on these rows is highest.

    Of equally good ones the nearest to 0.5; 0.5 for a label that no row has. Choose on validation rows only.
    """
    return np.array([_threshold(*column) for column in zip(probabilities.T.astype(np.float64), truth.T)])


def predict_by_other_rows(probabilities: Floats, truth: Flags, ids: Sequence[str]) -> Flags:
    """Labels (n, k), each predicted from a threshold on that is chosen on other rows than this one.

    A row belongs to one of 5 folds by its id; the thresholds of a fold are chosen on the four others.
    """
    folds = np.array([crc32(name.encode()) % _FOLDS for name in ids])
    predicted = np.zeros(truth.shape, dtype=np.bool_)
    for fold in range(_FOLDS):
        mine = folds == fold
        predicted[mine] = probabilities[mine] >= choose_thresholds(probabilities[~mine], truth[~mine])
    return predicted


def tabulate(truth: Labels, predicted: Labels, classes: int, *, multi: bool) -> tuple[Floats, Ints]:
    """The different outcomes of a row, and how many rows have each.

    An outcome is k hits, k labels predicted, k labels true, and whether all is right: (3k + 1,) of 0 and 1.
    Sums of them are all that `figures_of` needs.
    """
    assert truth.shape == predicted.shape and truth.ndim == 1 + multi, (truth.shape, predicted.shape)
    if multi:
        pairs, rows = np.unique(np.hstack([truth, predicted]), axis=0, return_counts=True)
        return outcomes_of(pairs[:, :classes], pairs[:, classes:], classes, multi=True), rows
    cells, rows = np.unique(truth * classes + predicted, return_counts=True)
    return outcomes_of(cells // classes, cells % classes, classes, multi=False), rows


def outcomes_of(truth: Labels, predicted: Labels, classes: int, *, multi: bool) -> Floats:
    """The outcome of each row as `tabulate` has it, (n, 3k + 1)."""
    if not multi:
        truth, predicted = np.eye(classes)[truth] > 0, np.eye(classes)[predicted] > 0
    right = (truth == predicted).all(axis=1, keepdims=True)
    return np.hstack([truth & predicted, predicted, truth, right]).astype(np.float64)


def figures_of(
    sums: Floats, whole: Floats, rows: int, names: Sequence[str], *, multi: bool
) -> dict[str, Floats]:
    """Every figure, (...), from summed outcomes, (..., 3k + 1), of that many rows.

    `whole`, (3k + 1,), has the sums of all rows where `sums` are those of resamples: what is 0/0 only in a
    resample is NaN, and left out of its macro figures. As 0 it would pull the interval of a rare class below
    the figure itself.
    """
    (hits, predicted, true, right), (_, all_predicted, all_true, _) = _split(sums), _split(whole)
    of = {  # of each label, and last of all together
        "precision": _ratio(hits, predicted, all_predicted),
        "recall": _ratio(hits, true, all_true),
        "f1": _ratio(2 * hits, predicted + true, all_predicted + all_true),
    }
    figures = {"accuracy": right / max(rows, 1)}
    figures |= {f"{name}_macro": _mean(values[..., :-1]) for name, values in of.items()}
    figures |= {f"{name}_micro": values[..., -1] for name, values in of.items()}
    if multi or len(names) != 2:
        figures["f1"] = figures["f1_macro"]
    else:
        figures |= {name: values[..., 1] for name, values in of.items()}
    if not multi:
        above_chance = hits[..., -1] * rows - (predicted * true)[..., :-1].sum(axis=-1)
        figures["mcc"] = _ratio(
            above_chance, _spread(predicted, true, rows), _spread(all_predicted, all_true, rows)
        )
    return figures | {
        f"{name}/{label}": of[name][..., index] for name in of for index, label in enumerate(names)
    }


def _threshold(probabilities: Floats, truth: Flags) -> float:
    if not truth.any():
        return 0.5
    order = np.argsort(-probabilities, kind="stable")
    falling = probabilities[order]
    # After row i begins a lower probability, or nothing: only there can a threshold cut.
    lower = np.append(falling[1:], 0.0)
    cuts = np.flatnonzero(np.append(falling[1:] < falling[:-1], True))
    low, high = lower[cuts], falling[cuts]
    f1 = 2 * np.cumsum(truth[order])[cuts] / (cuts + 1 + truth.sum())
    middle = (low + high) / 2
    middle = np.where(middle > low, middle, high)  # between neighbouring floats there is nothing
    thresholds = np.where((low < 0.5) & (high >= 0.5), 0.5, middle)
    best = thresholds[f1 == f1.max()]
    return float(best[np.abs(best - 0.5).argmin()])


def _split(sums: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Hits, predicted and true, each (..., k + 1) with the total last, and right, (...)."""
    hits, predicted, true = (
        np.concatenate([part, part.sum(axis=-1, keepdims=True)], axis=-1)
        for part in np.split(sums[..., :-1], 3, axis=-1)
    )
    return hits, predicted, true, sums[..., -1]


def _ratio(top: Floats, bottom: Floats, bottom_of_whole: Floats) -> Floats:
    empty = np.where(bottom_of_whole == 0, 0.0, np.nan)
    return np.where(bottom == 0, empty, top / np.where(bottom == 0, 1.0, bottom))


def _mean(values: Floats) -> Floats:
    known = ~np.isnan(values)
    counts = np.where(known.any(axis=-1), known.sum(axis=-1), np.nan)
    mean: Floats = np.where(known, values, 0.0).sum(axis=-1) / counts
    return mean


def _spread(predicted: Floats, true: Floats, rows: int) -> Floats:
    squares = [float(rows) ** 2 - (part[..., :-1] ** 2).sum(axis=-1) for part in (predicted, true)]
    spread: Floats = np.sqrt(squares[0] * squares[1])
    return spread
