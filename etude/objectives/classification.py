"""Training on the labels of texts: loss, predictions for held-out rows, their scores beside baselines."""

import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from etude import durable
from etude.data.batch import NumpyBatch
from etude.data.cache import to_npy
from etude.data.corpus import Corpus
from etude.data.labels import Labels
from etude.data.samples.labelled import Labelled
from etude.data.samples.sample import Samples
from etude.data.tokenize import Tokenizer
from etude.engine.batch import DeviceBatch, to_device
from etude.engine.out_of_memory import batches_in_parts
from etude.engine.precision import Precision
from etude.engine.world import World
from etude.errors import InputError
from etude.evaluate.exam import Exam
from etude.evaluate.tasks import Score, join, without_dropout
from etude.interruption import interruption_point, with_points
from etude.models.families.table import family_of
from etude.objectives.kind import Kind, Measured
from etude.recipe.schema import Loss, Recipe
from etude.records import events
from etude.scores import labels as scores
from etude.scores.baselines import best_constant, majority, tfidf_logistic
from etude.scores.intervals import label_bootstrap
from etude.scores.systems import of_labels, score_systems
from etude.text import one_line

_BASELINE_ROWS = 50_000
_NPY_HEADER_BYTES = 4096


@dataclass(frozen=True)
class Classification(Kind):
    """Predict the label of a text, or several labels (multi).

    weights: class weights (k,). With one label a row, the loss is divided by the summed weights of the true
    labels; with several, weights apply where a label holds, and the divisor is rows x labels. label_smoothing
    spreads a share of the truth over all labels; focal_gamma weighs a row by (1 - p)^gamma, p being the
    probability of the truth. Source: arXiv:1708.02002.
    """

    multi: bool
    weights: torch.Tensor | None = None
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0

    @classmethod
    def of(cls, recipe: Loss, split: Samples, *, multi: bool) -> "Classification":
        """The classification of a recipe; balanced class weights come from the rows of the training split.

        With one label a row the weight of a label is rows / (labels that occur x rows with it); with several,
        rows without it / rows with it. A label without rows weighs 1.
        """
        weights = None
        if recipe.class_weights == "balanced":
            assert isinstance(split, Labelled)
            held = torch.from_numpy(split.classes.sum(axis=0).astype("float32"))
            balanced = (len(split) - held if multi else len(split) / held.count_nonzero()) / held.clamp(min=1)
            weights = torch.where(held > 0, balanced, 1.0)
        return cls(multi, weights, recipe.label_smoothing, recipe.focal_gamma)

    def loss_sum(self, model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        assert batch.classes is not None
        return self.loss_of(self.logits(model, batch), batch.classes)

    def logits(self, model: nn.Module, batch: DeviceBatch) -> torch.Tensor:
        """(samples, k) fp32."""
        return family_of(model).label_logits(model, batch).float()

    def loss_of(self, logits: torch.Tensor, classes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of losses and targets of logits (n, k) and classes (n, k)."""
        weights = torch.ones_like(logits[0]) if self.weights is None else self.weights.to(logits)
        smooth, k = self.label_smoothing, logits.shape[1]
        if self.multi:
            truth = classes * (1 - smooth) + smooth / 2
            log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
            losses = -(truth * weights * log_p + (1 - truth) * log_q)
            if self.focal_gamma:
                losses = losses * (classes * log_q.exp() + (1 - classes) * log_p.exp()) ** self.focal_gamma
            return losses.sum(), torch.tensor(float(classes.numel()), device=logits.device)
        truth = classes * (1 - smooth) + smooth / k
        log_p = logits.log_softmax(dim=1)
        losses = -(truth * weights * log_p).sum(dim=1)
        if self.focal_gamma:
            losses = losses * (1 - (classes * log_p).sum(dim=1).exp()) ** self.focal_gamma
        return losses.sum(), (classes * weights).sum()

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """(n, k), of one label sums of 1."""
        return logits.sigmoid() if self.multi else logits.softmax(dim=1)

    def plain(self) -> "Classification":
        return Classification(self.multi)

    def targets_per_sample(self, split: Samples) -> float:
        assert isinstance(split, Labelled)
        if self.multi:
            return float(split.classes.shape[1])
        weights = torch.ones(split.classes.shape[1]) if self.weights is None else self.weights
        return float((torch.from_numpy(split.classes).float() @ weights).mean())

    def figures(self, recipe: Recipe, corpus: Corpus) -> set[str]:
        return set(_figures(_labels(corpus)))

    def measure(self, exam: Exam) -> Measured:
        """The loss, and every figure of the predictions.

        With several labels a row, each is predicted from a threshold on that is chosen on other validation
        rows than the one it decides, as `compare` chooses those of test rows on validation rows.
        """
        split, labels = exam.corpus.validation, _labels(exam.corpus)
        assert split is not None
        predictions = predict_split(exam, self.plain(), split, exam.recipe.evaluate.max_samples)
        truth, predicted = _by_other_rows(predictions, labels, _ids(exam, "validation", predictions))
        return Measured(
            predictions.score,
            scores.score_labels(truth, predicted, labels.names, multi=labels.multi),
            standard_error=lambda metric: standard_error(truth, predicted, labels, metric),
            predicted=predicted,
            measure_of=lambda names, metric: of_labels(
                truth, labels.names, multi=labels.multi, figures=names, metric=metric
            ),
        )

    def keep_before(self, exam: Exam) -> None:
        """Keep the probabilities of the held-out rows before training."""
        for use, split in exam.held_out().items():
            probabilities = predict_split(exam, self, split).probabilities
            if exam.world.is_main:
                durable.make_folder(exam.folder)
                durable.write_file(exam.folder / f"before-{use}.npy", to_npy(probabilities))

    def is_compared(self, corpus: Corpus) -> bool:
        return bool(corpus.validation or corpus.test)

    def compare(self, exam: Exam, step: int) -> events.Scores | None:
        """Score the model beside itself before training and baselines, on the rows of `exam.scored()`.

        Every figure has its interval, and every prediction is kept. Rank 0 has the answer, the others None.
        """
        after = {use: predict_split(exam, self, split) for use, split in exam.held_out().items()}
        if not exam.world.is_main:
            return None
        before = {}
        for use, predictions in after.items():
            kept = _read_before(exam.folder / f"before-{use}.npy", predictions.probabilities.shape)
            before[use] = replace(predictions, probabilities=kept)
            columns = predictions.probabilities.tolist(), predictions.truth.tolist()
            rows = zip(exam.corpus.ids[use], *columns, exam.corpus.capabilities[use], strict=True)
            names = ("id", "probabilities", "labels", "capability")
            lines = (json.dumps(dict(zip(names, row))).encode() + b"\n" for row in rows)
            durable.write_file(exam.folder / f"{use}.jsonl", lines)
        return _compare(exam, before, after, step)


@dataclass(frozen=True)
class Predictions:
    """Probabilities (n, k) fp32 of n rows, their labels (n, k) bool, and the loss."""

    probabilities: np.ndarray
    truth: np.ndarray
    score: Score


@torch.no_grad()
def predict(
    model: nn.Module,
    batches: Iterable[NumpyBatch],
    objective: Classification,
    precision: Precision,
    world: World,
    *,
    rows: int,
    classes: int,
    micro_batch_size: int,
) -> Predictions:
    """Predictions for rows in batches of `iterate_once`, on all ranks; uses no random numbers."""
    probabilities, truth = torch.zeros(rows, classes), torch.zeros(rows, classes)
    pairs: list[torch.Tensor] = []

    def read(batch: NumpyBatch) -> torch.Tensor:
        with precision.autocast():
            return objective.logits(model, to_device(batch, world.device))

    parts = batches_in_parts()
    with without_dropout(model):
        for turn, batch in enumerate(batches):
            interruption_point()
            assert batch.classes is not None
            logits, known = torch.cat(parts.do(batch, read)), torch.from_numpy(batch.classes)
            pairs.append(torch.stack(objective.loss_of(logits, known.to(world.device))))
            low = (world.rank + turn * world.size) * micro_batch_size
            probabilities[low : low + len(logits)] = objective.probabilities(logits).cpu()
            truth[low : low + len(logits)] = known
    # Every row is zero on all ranks but one.
    score = join(pairs, [0] * len(pairs), world, probabilities, truth)
    return Predictions(probabilities.numpy(), truth.numpy() > 0.5, score)


def predict_split(
    exam: Exam, objective: Classification, split: Samples, max_samples: int | None = None
) -> Predictions:
    """Predictions of an exam's model for a split, or for some evenly spaced rows of it."""
    return predict(
        exam.model, exam.batches(split, max_samples), objective, exam.precision, exam.world,
        rows=min(len(split), max_samples or len(split)), classes=len(_labels(exam.corpus).names),
        micro_batch_size=exam.micro_batch_size,
    )  # fmt: skip


def standard_error(truth: np.ndarray, predicted: np.ndarray, labels: Labels, metric: str) -> float:
    """Standard error of a metric from the choice of rows; NaN if it is no figure of labels."""
    if metric not in _figures(labels):
        return math.nan
    intervals = label_bootstrap(truth, predicted, labels.names, multi=labels.multi, figures=[metric])
    return intervals[metric].standard_error


def _compare(
    exam: Exam, before: Mapping[str, Predictions], after: Mapping[str, Predictions], step: int
) -> events.Scores:
    """Before and after training and baselines on the same rows, each figure with its interval.

    The thresholds of several labels are chosen on validation rows: on others than the one that is scored.
    """
    labels, use, notes = _labels(exam.corpus), exam.scored(), exam.notes()
    has_others = labels.multi and "validation" in after and use != "validation"
    known, words = _count_words(exam, after, [use, "validation"] if has_others else [use])
    if len(known) < (rows := len(exam.corpus.train)):
        notes.append(f"the baselines learnt from {len(known):,} evenly spaced rows of {rows:,}")
    if has_others:
        notes.append("the thresholds of every system are chosen on validation rows")
    elif labels.multi and use == "validation":
        notes.append("the thresholds of every system are chosen on other validation rows than those scored")
    elif labels.multi:
        notes.append(
            "each label is said from a probability of 0.5 on, as no other rows are there to choose it on"
        )

    def chosen(system: Mapping[str, Predictions]) -> np.ndarray | None:
        return _thresholds(system["validation"], labels) if has_others else None

    def predict(system: Mapping[str, Predictions]) -> tuple[np.ndarray, np.ndarray]:
        if use == "validation":
            return _by_other_rows(system[use], labels, _ids(exam, use, system[use]))
        return _choose_labels(system[use], labels, chosen(system))

    truth, predicted_after = predict(after)
    notes += scores.describe_averages(truth, predicted_after, labels.names, multi=labels.multi)
    names = _figures(labels)
    main = wanted if (wanted := exam.main_figure()) in names else "f1"
    systems = {
        "after": predicted_after,
        "before": predict(before)[1],
        **_constants(known, len(truth), labels, main),
        "TF-IDF + logistic regression": predict(words)[1],
    }
    binary = [each for each in names if each in scores.BINARY_FIGURES]
    shown = ["accuracy", "f1", *(binary or ["f1_micro"]), *([] if labels.multi else ["mcc"]), main]
    measure = of_labels(
        truth, labels.names, multi=labels.multi, figures=list(dict.fromkeys(shown)), metric=main
    )
    standing = score_systems(measure, systems, exam.corpus.capabilities[use])
    table = [] if labels.multi else scores.confusion(truth, predicted_after, len(labels.names)).tolist()
    thresholds = chosen(after)
    return events.Scores(
        step=step, rows=len(truth), split=f"{exam.task} {use}".strip(), metric=main, **vars(standing),
        labels=list(labels.names), confusion=table,
        thresholds=[] if thresholds is None else thresholds.tolist(), notes=notes,
        distinct=len(np.unique(predicted_after, axis=0)),
    )  # fmt: skip


def _constants(known: np.ndarray, rows: int, labels: Labels, metric: str) -> dict[str, np.ndarray]:
    """One prediction for all rows: the majority class, and by name the best for a metric on training rows."""
    best = best_constant(known, rows, labels.names, metric, multi=labels.multi)
    most = majority(known, rows, multi=labels.multi)
    said = [labels.names[place] for place in (np.flatnonzero(best[0]) if labels.multi else best[:1])]
    if labels.multi and len(said) in (0, len(labels.names)):
        name = "always every label" if said else "always no label"
    else:
        more = f" and {len(said) - 3} more" if len(said) > 3 else ""
        name = f"always {', '.join(one_line(label, 40) for label in said[:3])}{more}"
    if (best == most).all():
        return {f"{name} (majority class)": best}
    return {"majority class": most, name: best}


def _count_words(
    exam: Exam, after: Mapping[str, Predictions], uses: Sequence[str]
) -> tuple[np.ndarray, dict[str, Predictions]]:
    """Labels of evenly spaced training rows, and predictions of a TF-IDF baseline learnt from them."""
    train, labels, tokenizer = exam.corpus.train, _labels(exam.corpus), exam.corpus.tokenizer
    assert isinstance(train, Labelled)
    ids = np.arange(min(len(train), _BASELINE_ROWS)) * len(train) // min(len(train), _BASELINE_ROWS)
    held = train.classes[ids].astype(np.bool_)
    known: np.ndarray = held if labels.multi else held.argmax(axis=1)
    held_out = exam.held_out()
    rows = [_texts(held_out[use], np.arange(len(held_out[use])), tokenizer) for use in uses]
    _, probabilities = tfidf_logistic(
        _texts(train, ids, tokenizer), known, [text for texts in rows for text in texts],
        multi=labels.multi, classes=len(labels.names),
    )  # fmt: skip
    parts = np.split(probabilities, np.cumsum([len(texts) for texts in rows])[:-1])
    return known, {use: replace(after[use], probabilities=part) for use, part in zip(uses, parts)}


def _read_before(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The probabilities that `keep_before` kept. Raises: InputError if no run writes them so."""
    content = durable.read_bytes(path, most_bytes=4 * math.prod(shape) + _NPY_HEADER_BYTES, follow=False)
    try:
        kept: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError, MemoryError):
        kept = np.zeros(0)
    if not isinstance(kept, np.ndarray) or kept.shape != shape or kept.dtype != np.float32:
        raise InputError(
            f"{path} is damaged: it does not hold {shape[0]:,} x {shape[1]} shares; restore it from a copy"
        )
    return kept


def _labels(corpus: Corpus) -> Labels:
    assert corpus.labels is not None
    return corpus.labels


def _figures(labels: Labels) -> tuple[str, ...]:
    binary = scores.BINARY_FIGURES if not labels.multi and len(labels.names) == 2 else ()
    return (*(scores.MULTI_FIGURES if labels.multi else scores.SINGLE_FIGURES), *binary)


def _thresholds(predictions: Predictions, labels: Labels) -> np.ndarray | None:
    return scores.choose_thresholds(predictions.probabilities, predictions.truth) if labels.multi else None


def _by_other_rows(
    predictions: Predictions, labels: Labels, ids: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted labels; several a row by thresholds that other rows chose."""
    truth, predicted = _choose_labels(predictions, labels, None)
    if labels.multi:
        predicted = scores.predict_by_other_rows(predictions.probabilities, truth, ids)
    return truth, predicted


def _ids(exam: Exam, use: str, predictions: Predictions) -> list[str]:
    """The ids of the rows of a set that were predicted, all or evenly spaced ones."""
    known, count = exam.corpus.ids[use], len(predictions.truth)
    return [known[place * len(known) // count] for place in range(count)]


def _choose_labels(
    predictions: Predictions, labels: Labels, thresholds: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted labels; several a row are predicted from their thresholds, or 0.5, on."""
    if not labels.multi:
        return predictions.truth.argmax(axis=1), predictions.probabilities.argmax(axis=1)
    least = np.full(len(labels.names), 0.5) if thresholds is None else thresholds
    return predictions.truth, predictions.probabilities >= least


def _texts(split: Samples, ids: np.ndarray, tokenizer: Tokenizer) -> list[str]:
    """The text of some rows, as far as the model reads it."""
    return [tokenizer.decode(split.sample(int(index)).tokens.tolist()) for index in with_points(ids)]
