"""Every record of a journal is read as it was written, or refused; never as another value."""

import json
import math
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.records.events import (
    TYPES,
    Attempt,
    DataUsed,
    Evaluation,
    Event,
    Finding,
    Generation,
    Note,
    Rating,
    Resource,
    Scores,
    from_json,
    plain,
    to_json,
)
from tests.records.samples import attempt, step
from tests.report.runs import SCORES


def written(event: Event) -> dict[str, Any]:
    """The record of an event after it has been a line of JSON, in which NaN and Infinity may not stand."""
    record: dict[str, Any] = json.loads(json.dumps(to_json(event, 1e9), allow_nan=False))
    return record


@given(st.floats(), st.floats())
def test_every_float_survives(loss: float, bits: float) -> None:
    event = Evaluation(1, loss, 1.0, bits, 1, 1.0, True)
    back = from_json(written(event))
    assert repr(back) == repr(event)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1"])
def test_a_text_that_reads_like_a_number_stays_a_text(text: str) -> None:
    for event in (
        Note("next", text),
        Generation(1, text, text, {"seed": 1}, text),
        Rating(1, text, text, text, 4),
    ):
        assert from_json(written(event)) == event


def test_figures_of_nothing_are_numbers_again() -> None:
    event = Evaluation(0, 1.0, 1.0, None, 1, 1.0, False, {"parse_rate": math.nan, "bleu": 2.0})
    back = from_json(written(event))
    assert repr(back) == repr(event)


def test_intervals_of_nothing_are_numbers_again() -> None:
    nothing = [1.0, math.nan, math.nan]
    event = Scores(
        3, 1, "test", "f1", {"after": {"f1": nothing}}, {"after": nothing}, {}, ["nan"], [], [math.nan]
    )
    back = from_json(written(event))
    assert repr(back) == repr(event)


def test_the_keys_of_a_record_are_the_fields_of_its_event() -> None:
    whole, scaled = (
        Resource(1, 1.0, 0.5, 0.1, 90.0, 10, None, None, 5, 1, 0.2, 0.1),
        step(1)._replace(loss_scale=8.0, computed_tokens=9),
    )
    for event in (attempt(1, 0), scaled, whole, SCORES, Note("next", "x")):
        names = [each.name for each in fields(event)] if is_dataclass(event) else list(event._fields)
        record = to_json(event, 1.23456)
        assert list(record) == ["type", "time", *names] and record["time"] == 1.235
        assert TYPES[record["type"]] is type(event) and from_json(record) == event
    assert "loss_scale" not in to_json(step(1), 1.0)
    assert "computed_tokens" not in to_json(step(1)._replace(loss_scale=8.0), 1.0)
    assert "mapped_bytes" not in to_json(whole._replace(mapped_bytes=None), 1.0)


def test_a_whole_number_is_a_float_where_a_step_has_floats() -> None:
    back = from_json(written(step(1)) | {"loss": 2, "seconds": 1})
    assert repr(back) == repr(step(1, 2.0)._replace(seconds=1.0))


@pytest.mark.parametrize(
    ("event", "changes", "problem"),
    [
        (step(1), {"seconds": "nan"}, "no number from 0"),
        (step(1), {"wait_seconds": 1e13}, "no number from 0 on to 1e\\+12"),
        (step(1), {"step": -1}, "no whole number"),
        (step(1), {"skipped": 0}, "true or false"),
        (attempt(1, 0), {"parameters": {"head": 1}}, "contradicts itself"),  # without a total
        (attempt(1, 0), {"environment": {"threads": "two"}}, "threads: 'two' is no whole number"),
        (SCORES, {"metric": "bleu"}, "contradicts itself"),  # which no system has
        (SCORES, {"systems": {"before": SCORES.systems["before"]}}, "contradicts itself"),
        (SCORES, {"gains": {"before": [0.5]}}, "contradicts itself"),  # without its interval
        (SCORES, {"gains": {"after": [0.5, 0.6, 0.4]}}, "contradicts itself"),  # an interval that ends before it begins
        (SCORES, {"gains": {"nobody": [0.5, 0.4, 0.6]}}, "contradicts itself"),  # over no system
        (SCORES, {"labels": []}, "contradicts itself"),  # of the confusions
        (SCORES, {"confusion": [[1], [0, 1]]}, "contradicts itself"),
        (SCORES, {"confusion": [[2, 0], [0, 1]]}, "contradicts itself"),  # three of two rows
        (SCORES, {"rows": 0}, "contradicts itself"),
        (SCORES, {"distinct": 3}, "contradicts itself"),  # of two rows
        (DataUsed("f", {}), {"summary": {"train": 3}}, "contradicts itself"),  # which is a table
        (Generation(1, "p", "t", {}), {"settings": {"max_tokens": "few"}}, "max_tokens: 'few'"),
    ],
)  # fmt: skip
def test_a_record_that_no_run_writes_is_refused(event: Event, changes: dict[str, Any], problem: str) -> None:
    assert from_json(written(event)) == event
    with pytest.raises(ValueError, match=problem):
        from_json(written(event) | changes)


def test_a_record_of_an_older_version_has_the_defaults_of_what_it_lacks() -> None:
    record = written(attempt(1, 0))
    del record["flops_per_target"], record["changed"], record["trainable"]
    back = from_json(record)
    assert isinstance(back, Attempt) and back == attempt(1, 0)
    del record["steps"]
    with pytest.raises(ValueError, match="attempt without steps"):
        from_json(record)


def test_plain_values_hold_nothing_that_json_lacks() -> None:
    assert plain({"a": (1, math.inf, [-math.inf]), "b": math.nan}) == {"a": [1, "inf", ["-inf"]], "b": "nan"}


@pytest.mark.parametrize("wrong", [{"severity": "catastrophe"}, {"window": [3]}, {"window": [1, 2, 3]}, {"kind": "\x1b[2J"}, {"kind": "<b>"}, {"kind": "k" * 61}, {"evidence": "e" * 10**6}, {"causes": ["c"] * 200_000}, {"changes": {"k" * 10**6: 1}}])  # fmt: skip
def test_a_finding_that_no_reader_can_show_is_damage(wrong: dict[str, object]) -> None:
    finding = to_json(Finding(3, "what", "evidence", "advice", window=[1, 3]), 1.0)
    assert from_json(finding) is not None
    with pytest.raises(ValueError, match="contradicts itself"):
        from_json(finding | wrong)
