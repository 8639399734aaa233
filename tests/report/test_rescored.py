"""Models scored on a file: one table, in which each difference is against the first."""

import json

import numpy as np

from etude.report.rescored import Rescored, System


def system(name: str, loss: float, **figures: list[float]) -> System:
    return System(
        name=name, step=20, metric="loss", figures={"loss": [loss, loss - 0.1, loss + 0.1], **figures},
        parts=np.array([[loss, 1.0, 3.0]] * 30), rows=30, cut=0, trained=0, tokenizer="t", labels=(),
        measured=None,
    )  # fmt: skip


def rescored(*names: str) -> Rescored:
    systems = [system(name, 2.0 + number) for number, name in enumerate(names)]
    gains = [{"loss": [float(number), number - 0.5, number + 0.5]} for number in range(len(names))]
    return Rescored(
        file="rows.jsonl", systems=systems, figure="loss", differences=[{}, *gains[1:]], winner=[names[0]],
        is_sure=True, sentences=["The first is the best."],
    )  # fmt: skip


def test_a_table_has_each_figure_with_its_interval_and_each_difference() -> None:
    lines = rescored("a", "b").lines(80)
    assert lines[0] == "The first is the best." and "30 rows of rows.jsonl" in lines[1]
    assert "2.00 [1.90, 2.10]" in lines[4] and "3.00 [2.90, 3.10]" in lines[4]
    assert lines[5].split() == ["against", "first", "first", "+1"]
    assert "[0.5, 1.5]" in lines[6]


def test_a_difference_within_the_noise_is_marked() -> None:
    found = rescored("a", "b")
    found.differences[1]["loss"] = [0.1, -0.2, 0.4]
    lines = found.lines(80)
    assert "+0.1 ~" in lines[5] and "[-0.2, 0.4]" in lines[6] and "~ is within the noise" in lines[1]


def test_json_has_numbers_by_stable_names() -> None:
    data = json.loads(json.dumps(rescored("a", "b").to_dict(), allow_nan=False))
    assert data["baseline"] == "a" and data["rows"] == 30 and data["winner"] == ["a"]
    assert data["systems"][1]["figures"]["loss"] == [3.0, 2.9, 3.1]
    assert data["systems"][1]["against_baseline"]["loss"] == [1.0, 0.5, 1.5]
    assert data["systems"][0]["targets"] == 30 and data["systems"][0]["bytes"] == 90
