"""A figure beyond what it can be is a damaged record, and no best; the user's own have no range."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from etude.records.events import Attempt, Evaluation, Event, Scores
from etude.records.journal import read_journal, write_journal
from etude.records.ledger import Entry
from etude.records.ranges import is_in_range, is_possible
from etude.scores.answers import FIGURES
from etude.scores.labels import BINARY_FIGURES, SINGLE_FIGURES
from tests.records.samples import attempt

GOOD = Evaluation(10, 0.5, 1.6, None, 100, 1.0, True, {"f1": 0.7})


@pytest.mark.parametrize(
    "bad",
    [
        replace(GOOD, metrics={"f1": 2.0}), replace(GOOD, metrics={"accuracy": -1.0}), replace(GOOD, loss=-0.5),
        replace(GOOD, metrics={"kinds:f1_macro": 1.5}), replace(GOOD, metrics={"bleu/loops": 101.0}),
        replace(GOOD, metrics={"mcc": math.inf}), replace(GOOD, bits_per_byte=-1.0),
        Scores(10, 2, "test", "f1", {"after": {"f1": [2.0, 1.9, 2.1]}}, {}),
    ],
)  # fmt: skip
def test_a_figure_out_of_its_range_is_damage_that_is_counted(tmp_path: Path, bad: Event) -> None:
    assert is_possible(GOOD) and not is_possible(bad)
    path = tmp_path / "journal.jsonl"
    write_journal(path, [Entry(each, 1e9, 1) for each in (attempt(1, 0), GOOD, bad)])
    ledger = read_journal(path)
    assert ledger.damaged == [4] and [type(each.event) for each in ledger.entries] == [Attempt, Evaluation]


def test_an_own_loss_and_an_own_metric_may_have_any_value(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    begun = attempt(1, 0)
    own = replace(begun, environment={**begun.environment, "own_code": {"loss": "x", "metric f1": "y"}})
    event = replace(GOOD, loss=-3.0, metrics={"f1": 7.0, "accuracy": 0.5})
    write_journal(path, [Entry(each, 1e9, 1) for each in (own, event)])
    assert read_journal(path).damaged == []
    assert not is_possible(replace(event, metrics={"accuracy": 5.0}), {"loss", "metric f1"})


@pytest.mark.parametrize("value", [1.0 + 1e-9, -1e-9, 0.0, math.nan])
def test_roundings_and_figures_of_nothing_are_no_damage(value: float) -> None:
    assert is_in_range("accuracy", value) and is_in_range("chrf", 100 * value) and is_in_range("loss", value)
    assert is_in_range("anything", 1e9)


def test_every_figure_of_labels_and_answers_has_a_range() -> None:
    names = [*FIGURES, *SINGLE_FIGURES, *BINARY_FIGURES]
    assert not [name for name in names if is_in_range(name, 1e9)]
