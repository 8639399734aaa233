"""Ensembles of run folders, against scikit-learn and plain arithmetic."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from etude.ensemble import choose_by_consensus, make_ensemble
from etude.errors import InputError
from etude.records.events import Scores
from etude.records.store import Run
from etude.scores.answers import FIGURES, Answer
from etude.scores.intervals import paired_difference
from etude.scores.labels import choose_thresholds, predict_by_other_rows, score_labels
from tests.conftest import Outcome
from tests.report.runs import new_run

NAMES = ["a", "b", "c"]
Etude = Callable[..., Outcome]


def write_run(
    runs: Path,
    splits: dict[str, list[dict[str, Any]]],
    *,
    figures: Sequence[str] = ("accuracy", "f1"),
    **known: Any,
) -> Run:
    """A finished run that has kept these predictions, and was scored on the last of the splits."""
    writer = new_run(runs)
    split = list(splits)[-1]
    if known.pop("confusion", None):  # any that fits: the predictions are what is read
        size = len(known["labels"])
        known["confusion"] = [[len(splits[split]), *[0] * (size - 1)], *[[0] * size] * (size - 1)]
    systems = {"after": {name: [0.5, 0.4, 0.6] for name in figures}}
    writer.append(Scores(40, len(splits[split]), split, figures[-1], systems, {}, **known))
    (writer.run.path / "predictions").mkdir()
    for name, rows in splits.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (writer.run.path / "predictions" / f"{name}.jsonl").write_text(lines)
    writer.close("finished")
    return writer.run


def labelled(rows: int, seed: int, *, multi: bool) -> list[dict[str, Any]]:
    """Rows that are the same for every seed, with probabilities that are not."""
    truth = np.random.default_rng(rows).random((rows, 3)) < 0.4
    if not multi:
        truth = np.eye(3, dtype=bool)[truth.argmax(axis=1)]
    said = truth * 0.4 + np.random.default_rng(seed).random((rows, 3))
    said = said / 1.4 if multi else said / said.sum(axis=1, keepdims=True)
    kinds = ["x", "y"]
    return [
        {"id": f"{index:016x}", "probabilities": p, "labels": t, "capability": kinds[index % 2]}
        for index, (p, t) in enumerate(zip(said.tolist(), truth.tolist()))
    ]


def columns(rows: list[dict[str, Any]], key: str) -> np.ndarray:
    return np.array([row[key] for row in rows])


@pytest.mark.parametrize("by", ["mean", "vote"])
def test_one_label_is_scored_as_scikit_learn_does(by: str, tmp_path: Path) -> None:
    members = [labelled(60, seed, multi=False) for seed in (1, 2, 3)]
    known: dict[str, Any] = {"figures": ("accuracy", "mcc", "f1"), "labels": NAMES, "confusion": [[0]]}
    runs = [write_run(tmp_path, {"test": rows}, **known) for rows in members]
    found = make_ensemble(runs, by)
    truth = columns(members[0], "labels").argmax(1)
    each = np.array([columns(rows, "probabilities") for rows in members])
    votes = np.array([np.bincount(row, minlength=3) for row in each.argmax(2).T])
    # A vote that is shared by three is decided by the mean, which never reaches one vote.
    said = (each.mean(0) if by == "mean" else votes + each.mean(0) * 0.99).argmax(1)
    expected = {
        "accuracy": accuracy_score(truth, said),
        "mcc": matthews_corrcoef(truth, said),
        "f1": f1_score(truth, said, average="macro"),
    }
    scores = found.scores
    assert {name: value[0] for name, value in scores.systems[f"ensemble ({by})"].items()} == pytest.approx(
        expected
    )
    alone = [f1_score(truth, one.argmax(1), average="macro") for one in each]
    assert [scores.systems[run.name]["f1"][0] for run in runs] == pytest.approx(alone)
    best = int(np.argmax(alone))
    value = lambda said: lambda chosen: score_labels(truth[chosen], said[chosen], NAMES, multi=False)["f1"]  # noqa: E731
    gain = paired_difference(value(said), value(each[best].argmax(1)), 60, samples=500)
    assert gain.value == pytest.approx(expected["f1"] - alone[best])
    assert list(scores.gains) == [runs[best].name]
    # The resamples are others than those of the slow way, so the bounds are as near as 500 of them leave.
    assert scores.gains[runs[best].name] == pytest.approx([gain.value, gain.low, gain.high], abs=0.03)
    assert ("within the noise" in found.lines()[0]) is gain.is_noise
    odd = np.arange(60) % 2 == 1
    of_odd = f1_score(truth[odd], said[odd], average="macro")
    assert scores.capabilities["y"][f"ensemble ({by})"] == pytest.approx(of_odd)
    assert [row["said"].index(1) for row in found.rows] == said.tolist()


def test_thresholds_of_several_labels_come_from_validation_rows_only(tmp_path: Path) -> None:
    members = [(labelled(80, seed, multi=True), labelled(50, 10 + seed, multi=True)) for seed in (1, 2)]
    known: dict[str, Any] = {"labels": NAMES, "thresholds": [0.5] * 3}
    runs = [
        write_run(tmp_path, {"validation": held_out, "test": test}, **known) for held_out, test in members
    ]
    truth, right = columns(members[0][1], "labels"), columns(members[0][0], "labels")
    each = [
        (columns(held_out, "probabilities"), columns(test, "probabilities")) for held_out, test in members
    ]
    least = [choose_thresholds(held_out, right) for held_out, _ in each]
    joined = choose_thresholds((each[0][0] + each[1][0]) / 2, right)
    mean = (each[0][1] + each[1][1]) / 2 >= joined
    by_mean, by_vote = make_ensemble(runs).scores, make_ensemble(runs, "vote")
    assert by_mean.thresholds == pytest.approx(joined.tolist())
    macro = f1_score(truth, mean, average="macro", zero_division=0)
    assert by_mean.systems["ensemble (mean)"]["f1"][0] == pytest.approx(macro)
    votes = sum((test >= cut).astype(int) for (_, test), cut in zip(each, least))
    expected = np.where(votes == 1, mean, votes == 2)  # of two, a split vote is decided by the mean
    assert [row["said"] for row in by_vote.rows] == expected.astype(int).tolist()
    for run, (_, test), cut in zip(runs, each, least):
        alone = f1_score(truth, test >= cut, average="macro", zero_division=0)
        assert by_mean.systems[run.name]["f1"][0] == pytest.approx(alone)


def test_where_validation_rows_are_scored_their_thresholds_come_from_other_rows(tmp_path: Path) -> None:
    members = [labelled(40, seed, multi=True) for seed in (1, 2)]
    found = make_ensemble([write_run(tmp_path, {"validation": rows}, labels=NAMES) for rows in members])
    mean = (columns(members[0], "probabilities") + columns(members[1], "probabilities")) / 2
    said = predict_by_other_rows(mean, columns(members[0], "labels"), [row["id"] for row in members[0]])
    assert [row["said"] for row in found.rows] == said.astype(int).tolist() and not found.scores.thresholds


def distance(a: str, b: str) -> int:
    """Levenshtein's, by the usual table."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


@given(st.lists(st.text("abc", max_size=6), min_size=2, max_size=5))
def test_the_consensus_is_the_answer_with_the_least_mean_distance_to_the_others(texts: list[str]) -> None:
    chosen = choose_by_consensus([Answer(text, "", True) for text in texts], [0.0] * len(texts))

    def risk(index: int) -> float:
        others = [text for place, text in enumerate(texts) if place != index]
        return sum(distance(texts[index], other) / max(len(texts[index]), len(other), 1) for other in others)

    risks = [risk(index) for index in range(len(texts))]
    assert risks[chosen] == pytest.approx(min(risks))
    assert chosen == next(index for index, value in enumerate(risks) if value == pytest.approx(min(risks)))


def test_equally_good_answers_go_by_log_probability_then_by_order() -> None:
    pair = [Answer("x", "", True), Answer("y", "", True)]
    assert choose_by_consensus(pair, [-0.9, -0.3]) == 1
    assert choose_by_consensus(pair, [-0.3, -0.3]) == 0


def answered(texts: Sequence[str], log_probability: float) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{index:016x}", "answer": text, "reference": f"return {index}", "stopped": True,
            "capability": None, "log_probability": log_probability, "tokens": 4,
        }
        for index, text in enumerate(texts)
    ]  # fmt: skip


def test_answers_are_joined_by_consensus_and_scored_as_runs_are(tmp_path: Path) -> None:
    said = [
        ["return 0", "x", "pass"],
        ["return 0", "return 1", "return 9"],
        ["return", "return 1", "return 2"],
    ]
    runs = [
        write_run(tmp_path, {"test": answered(texts, -index)}, figures=("exact_match", "bleu"))
        for index, texts in enumerate(said)
    ]
    found = make_ensemble(runs)
    assert [row["answer"] for row in found.rows] == ["return 0", "return 1", "return 9"]
    assert [row["run"] for row in found.rows] == [runs[0].name, runs[1].name, runs[1].name]
    for name, texts in zip(found.scores.systems, [["return 0", "return 1", "return 9"], *said]):
        answers = [Answer(text, f"return {index}", True) for index, text in enumerate(texts)]
        expected = {figure: FIGURES[figure](answers) for figure in ("exact_match", "bleu")}
        assert {figure: value[0] for figure, value in found.scores.systems[name].items()} == pytest.approx(
            expected
        )
    with pytest.raises(InputError, match=r"--by is mean; runs of .* are joined by consensus"):
        make_ensemble(runs, "mean")


def test_the_command_prints_writes_and_refuses(tmp_path: Path, etude: Etude) -> None:
    runs, known = tmp_path / "runs", {"labels": NAMES, "confusion": [[0]]}
    rows = labelled(30, 1, multi=False)
    a, b = (write_run(runs, {"test": labelled(30, seed, multi=False)}, **known) for seed in (1, 2))
    outcome = etude("ensemble", a.name, b.name, "--runs", runs, "--out", tmp_path / "out")
    assert outcome.code == 0 and "ensemble (mean)" in outcome.out and f"that of {a.name}" in outcome.out, (
        outcome
    )
    assert len((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()) == 30
    assert "| ensemble (mean) |" in (tmp_path / "out" / "report.md").read_text()
    values = json.loads(etude("ensemble", a.name, b.name, "--runs", runs, "--json").out)
    assert values["systems"].keys() == {"ensemble (mean)", a.name, b.name}

    other = [row | {"id": "f" * 16} if index == 6 else row for index, row in enumerate(rows)]
    unfinished = new_run(runs)
    unfinished.close("stopped")
    plain = [{key: value for key, value in row.items() if key != "id"} for row in rows]
    refused = {
        "two runs or more": [],
        "is named twice": [a],
        "test row 7 of": [write_run(runs, {"test": other}, **known)],
        "test row 30 of": [write_run(runs, {"test": rows[:-1]}, **known)],
        "labels of run": [write_run(runs, {"test": rows}, labels=["a", "b", "d"], confusion=[[0]])],
        "scored rows of run": [write_run(runs, {"validation": rows}, **known)],
        "is not finished": [unfinished.run],
        "test.jsonl:1 is damaged: it has no id": [write_run(runs, {"test": plain}, **known)],
    }
    for said, runs_beside in refused.items():
        answer = etude("ensemble", a.path, *(run.path for run in runs_beside), "--out", tmp_path / "no")
        assert answer.code == 2 and answer.err.startswith("error: ") and len(answer.err.splitlines()) == 1, (
            answer.err
        )
        assert said in answer.err and not answer.out and not (tmp_path / "no").exists()
