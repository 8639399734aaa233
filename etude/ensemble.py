"""Several finished runs as one system: what they said of the same rows is joined, and scored as a run is.

It reads what the runs kept in `predictions/`; no model is loaded.
"""

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from etude import durable
from etude.errors import InputError
from etude.recipe.metric import ChosenMetric
from etude.records.events import Scores, plain
from etude.records.folder import as_argument, require_outside_runs
from etude.records.store import Run
from etude.report.markdown import code, prose
from etude.report.predictions import (
    as_answer,
    probabilities_of,
    read_predictions,
    truth_of,
)
from etude.report.ranking import apart
from etude.report.results import describe_scores
from etude.report.wording import is_sure, metric_title, number, with_interval
from etude.scores import labels
from etude.scores.answers import FIGURES, Answer, edit_similarity
from etude.scores.intervals import Difference
from etude.scores.systems import Measure, of_answers, of_labels, score_systems

S = TypeVar("S")
_ANSWER_FIGURES = ("exact_match", "bleu", "chrf", "edit_similarity")


@dataclass(frozen=True)
class Ensemble:
    """Several runs as one system.

    by       mean (of probabilities), vote, or consensus (of answers)
    runs     names of the members
    scores   of the ensemble and of each member on the same rows; the one gain is over the best member
    rows     what the ensemble says of each row, as `predictions/` of a run has it
    """

    by: str
    runs: list[str]
    scores: Scores
    rows: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the rows."""
        kept = "rows", "split", "metric", "systems", "gains", "capabilities", "labels", "thresholds", "notes"
        scores = {name: plain(getattr(self.scores, name)) for name in kept}
        return {"by": self.by, "runs": self.runs, **scores}

    def table(self) -> list[list[str]]:
        """A row each system after a header, every figure with its interval."""
        figures = list(next(iter(self.scores.systems.values())))
        header = [f"on {self.scores.rows:,} {self.scores.split} rows", *map(metric_title, figures)]
        return [header] + [
            [name, *(with_interval(*value, rows=self.scores.rows) for value in values.values())]
            for name, values in self.scores.systems.items()
        ]

    def capability_table(self) -> list[list[str]]:
        """The main figure of each system on the rows of each capability; empty where there are
        not several."""
        systems = list(self.scores.systems)
        rows = [
            [kind, number(int(values["rows"])), *(number(values[name]) for name in systems)]
            for kind, values in self.scores.capabilities.items()
        ]
        return [[f"{self.scores.metric} by capability", "rows", *systems], *rows] if rows else []

    def lines(self) -> list[str]:
        """The difference to the best member, and notes, as sentences."""
        ((best, gain),) = self.scores.gains.items()
        name, whose = metric_title(self.scores.metric), f"that of {best}, the best member"
        notes = [f"Note: {note}." for note in self.scores.notes]
        if not any(gain):
            return [f"The ensemble's {name} is {whose}.", *notes]
        noise = "" if is_sure(gain) else ", within the noise"
        return [f"The ensemble's {name} is {apart(Difference(*gain), whose)}{noise}.", *notes]

    def write(self, folder: Path) -> None:
        """Write predictions.jsonl and report.md. Raises: InputError if that is within a run; StorageError."""
        require_outside_runs(folder)
        durable.make_folder(folder)
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)
        durable.write_file(folder / "predictions.jsonl", (line.encode() for line in lines))
        members = "\n".join(f"- {code(name)}" for name in self.runs)
        title = f"# Ensemble of {len(self.runs)} runs by {prose(self.by)}"
        text = "\n\n".join([title, members, *describe_scores(self.scores)])
        durable.write_file(folder / "report.md", f"{text}\n".encode())


def make_ensemble(runs: Sequence[Run], by: str | None = None) -> Ensemble:
    """Join labels of runs by mean of probabilities (the default) or vote, answers by consensus; score them.

    Raises: InputError if they are fewer than two, of different tasks or rows, or have no predictions.
    """
    if len(runs) < 2:
        raise InputError("an ensemble needs two runs or more; see etude runs")
    if twice := [
        run.name for index, run in enumerate(runs) if run.path in [other.path for other in runs[:index]]
    ]:
        raise InputError(f"run {twice[0]} is named twice; an ensemble needs different runs")
    found = [_scores_of(run) for run in runs]
    _require_same("objective", runs, [run.recipe.train.objective for run in runs])
    _require_same("labels", runs, [", ".join(scores.labels) for scores in found])
    _require_same("scored rows", runs, [f"those of {scores.split}" for scores in found])
    ways = ("mean", "vote") if found[0].labels else ("consensus",)
    if (by or ways[0]) not in ways:
        task = runs[0].recipe.train.objective
        raise InputError(
            f"--by is {by}; runs of {task} are joined by {' or '.join(ways)}: leave it out, or say so"
        )
    names = [run.name for run in runs]
    join = _join_labels if found[0].labels else _join_answers
    return Ensemble(by or ways[0], names, *join(runs, found, by or ways[0]))


def choose_by_consensus(candidates: Sequence[Answer], log_probabilities: Sequence[float]) -> int:
    """The index of the candidate most like the others by mean edit similarity: minimum Bayes risk.

    Of equal ones that with the highest mean log-probability of its tokens, then the first.
    Source: Kumar and Byrne 2004 (aclanthology.org/N04-1022).
    """
    texts = [candidate.text for candidate in candidates]
    like = functools.cache(lambda a, b: 1.0 if a == b else edit_similarity(a, b))
    near = [
        sum(like(min(text, other), max(text, other)) for place, other in enumerate(texts) if place != index)
        for index, text in enumerate(texts)
    ]
    return max(range(len(texts)), key=lambda index: (round(near[index], 9), log_probabilities[index], -index))


def _scores_of(run: Run) -> Scores:
    """The scores of a run that has ended. Raises: InputError if it has none, or those of several tasks."""
    if run.recipe.tasks:
        raise InputError(f"run {run.name} has several tasks; an ensemble joins runs of a single one")
    found = [entry.event for entry in run.ledger().entries if isinstance(entry.event, Scores)]
    if found:
        return found[-1]
    if run.lease["state"] == "finished":
        raise InputError(f"run {run.name} has no predictions: it needs labelled validation or test rows")
    raise InputError(
        f"run {run.name} is not finished, so it has no predictions; "
        f"go on with etude resume {as_argument(run.path)}"
    )


def _require_same(what: str, runs: Sequence[Run], values: Sequence[str]) -> None:
    for run, value in zip(runs, values):
        if value != values[0]:
            raise InputError(
                f"{what} of run {run.name}: {value or 'none'}; of run {runs[0].name}: {values[0] or 'none'}; "
                "an ensemble needs runs of one task"
            )


def _read_rows(runs: Sequence[Run], split: str, right: str, classes: int = 0) -> list[list[dict[str, Any]]]:
    """The predictions of each run for a split, row by row the same; `right` is the key of the right answer.

    classes: how many labels each row is about.

    Raises: InputError if a file is missing or damaged, or names the first row that differs.
    """
    read = [read_predictions(run, split, right, classes) for run in runs]
    for run, rows in zip(runs[1:], read[1:]):
        pairs = enumerate(zip(read[0], rows), start=1)
        differing = [place for place, (a, b) in pairs if (a["id"], a[right]) != (b["id"], b[right])]
        if differing or len(rows) != len(read[0]):
            first = differing[0] if differing else min(len(rows), len(read[0])) + 1
            raise InputError(
                f"{split} row {first} of run {run.name} ({len(rows):,} rows) is not that of run "
                f"{runs[0].name} ({len(read[0]):,} rows): an ensemble needs runs that are scored on the same "
                "rows"
            )
    return read


# Labels


def _join_labels(
    runs: Sequence[Run], found: Sequence[Scores], by: str
) -> tuple[Scores, list[dict[str, Any]]]:
    """Labels by the mean of the probabilities or by the votes of the members; the mean breaks ties."""
    first = found[0]
    names, multi = first.labels, not first.confusion
    read = _read_rows(runs, first.split, "labels", len(names))
    each = [probabilities_of(rows) for rows in read]
    mean: labels.Floats = np.mean(each, axis=0)
    right, ids = truth_of(read[0]), [row["id"] for row in read[0]]
    thresholds = _thresholds(runs, found, len(names)) if multi else [np.zeros(0)] * (len(runs) + 1)

    def says(probabilities: labels.Floats, least: labels.Floats) -> labels.Labels:
        if multi and first.split == "validation":
            return labels.predict_by_other_rows(probabilities, right, ids)
        return probabilities >= least if multi else probabilities.argmax(axis=1)

    members = [says(probabilities, least) for probabilities, least in zip(each, thresholds[1:])]
    shares, said = mean, says(mean, thresholds[0])
    if by == "vote":
        shares = np.mean([one if multi else np.eye(len(names))[one] for one in members], axis=0)
        most = 0.5 if multi else shares.max(axis=1, keepdims=True)
        said = (
            np.where(shares == most, said, shares > most)
            if multi
            else np.where(shares == most, mean, -1).argmax(1)
        )
    truth: labels.Labels = right if multi else right.argmax(axis=1)

    figures = list(first.systems["after"])
    measure = of_labels(truth, names, multi=multi, figures=figures, metric=first.metric)
    kinds = [row.get("capability") for row in read[0]]
    systems = {_title(by): said, **{run.name: one for run, one in zip(runs, members)}}
    notes = labels.describe_averages(truth, said, names, multi=multi)
    scores = replace(_score(first, measure, systems, kinds), notes=notes)
    if any(one.thresholds for one in found):
        notes = ["the thresholds of every system are chosen on validation rows", *notes]
        scores = replace(scores, thresholds=thresholds[0].tolist(), notes=notes)
    if not multi:
        scores = replace(scores, confusion=labels.confusion(truth, said, len(names)).tolist())
    flags = said.astype(int) if multi else np.eye(len(names), dtype=int)[said]
    rows = zip(read[0], shares.tolist(), flags.tolist(), kinds)
    return scores, [
        {"id": row["id"], "probabilities": share, "said": flag, "labels": row["labels"], "capability": kind}
        for row, share, flag, kind in rows
    ]


def _thresholds(runs: Sequence[Run], found: Sequence[Scores], classes: int) -> list[labels.Floats]:
    """Thresholds (k,) of the mean and of each run, chosen on validation rows as a run chooses them."""
    if not any(scores.thresholds for scores in found):
        return [np.full(classes, 0.5)] * (len(runs) + 1)
    held_out = _read_rows(runs, "validation", "labels", classes)
    each = [probabilities_of(rows) for rows in held_out]
    return [labels.choose_thresholds(one, truth_of(held_out[0])) for one in (np.mean(each, axis=0), *each)]


# Answers


def _join_answers(
    runs: Sequence[Run], found: Sequence[Scores], by: str
) -> tuple[Scores, list[dict[str, Any]]]:
    """The answer of each row that is most like the others."""
    first = found[0]
    read = _read_rows(runs, first.split, "reference")
    members = [[as_answer(row) for row in rows] for rows in read]
    chosen = [
        choose_by_consensus(candidates, [_mean_log_probability(row) for row in rows])
        for candidates, rows in zip(zip(*members), zip(*read))
    ]
    rows = [{**read[index][place], "run": runs[index].name} for place, index in enumerate(chosen)]
    figures = [name for name in first.systems["after"] if name in FIGURES] or list(_ANSWER_FIGURES)
    metric = first.metric if first.metric in figures else figures[0]
    joined = [members[index][place] for place, index in enumerate(chosen)]
    systems: dict[str, Sequence[Answer]] = {
        _title(by): joined,
        **{run.name: answers for run, answers in zip(runs, members)},
    }
    kinds = [answer.capability for answer in joined]
    return _score(first, of_answers(figures, metric), systems, kinds), rows


def _mean_log_probability(row: dict[str, Any]) -> float:
    """Mean log-probability of the tokens of an answer in nats; -inf where it is not known."""
    known = row.get("log_probability")
    return -math.inf if known is None else float(known) / max(row.get("tokens") or 1, 1)


# Both


def _title(by: str) -> str:
    return f"ensemble ({by})"


def _score(first: Scores, measure: Measure[S], systems: dict[str, S], kinds: Sequence[str | None]) -> Scores:
    """Scores of the ensemble, which comes first, and of its members; the gain is over the best member."""
    rows, sign = np.arange(len(kinds)), ChosenMetric.parse(measure.metric).sign
    best = max(list(systems)[1:], key=lambda name: sign * measure.value(systems[name], rows))
    standing = score_systems(measure, systems, kinds, against=[best])
    return Scores(
        step=0,
        rows=len(kinds),
        split=first.split,
        metric=measure.metric,
        **vars(standing),
        labels=list(first.labels),
    )
