"""Logs of any tool, recognised by what they hold."""

import random
from pathlib import Path
from typing import Any

import pytest

from etude.errors import InputError
from etude.records.events import Evaluation
from etude.records.journal import Journal
from etude.watch.logs import Run, read_log
from etude.watch.point import Facts, Point
from tests.records.samples import attempt, step
from tests.watch.logs.corpus import ODD, Odd, Points

_UNKNOWN = Point(step=0)


def known(point: Point, *, with_epoch: bool) -> dict[str, Any]:
    """The figures of a point that are known, metrics by their names."""
    figures = {name: getattr(point, name) for name in point.__slots__ if name != "metrics"}
    if not with_epoch:
        figures.pop("epoch")
    kept = {
        name: value for name, value in figures.items() if name == "step" or value != getattr(_UNKNOWN, name)
    }
    return kept | dict(point.metrics)


def assert_same(run: Run, expected: Points) -> None:
    """The points are those expected, epochs only where they are."""
    with_epoch = any("epoch" in each for each in expected)
    found = [known(point, with_epoch=with_epoch) for point in run.points]
    wanted = [{**each, **each.get("metrics", {})} for each in expected]
    for each in wanted:
        each.pop("metrics", None)
    assert found == [pytest.approx(each, nan_ok=True) for each in wanted]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.name)
def test_an_odd_log_has_the_points_that_one_reads_in_it(odd: Odd, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(odd.bytes)  # its name says nothing
    log = read_log(tmp_path / "a")
    expected = odd.runs or [odd.points]
    assert len(log.runs) == len(expected)
    for run, points in zip(log.runs, expected):
        assert_same(run, points)
        assert run.unit == odd.unit
        facts = log.facts(run)
        assert {name: getattr(facts, name) for name in odd.facts} == odd.facts


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n\n", "holds nothing but white space"),
        (b"hello\nworld\n", "TensorBoard events"),
        (b"hello\nthe loss of 3 was high\nthe end", "TensorBoard events"),
        (b"\x00\x01\x02" * 100, "no text"),
        (b"PK\x03\x04" + b"\0" * 99, "a zip archive"),
        (b"\x80\x02}q\x00.", "never opened"),
        (b"\x1f\x8b\x08\x00garbage", "cannot be unpacked"),
        (b"loss\n3.0\n2.0\n", "one column, loss"),
        (b'{"loss": 3}\n{"loss": 2}\n', "one column, loss"),
        (b"step,loss\n", "no row with figures yet"),
        (b"step,loss\n3,1\n2,1\n1,1\n", "steps go back at 2 of 3 rows"),
        (b"step,accuracy\n1,0.5\n2,0.5\n", "no loss was found"),
        (b'{"step": 1, "accuracy": 0.5}', "there are only step, accuracy"),
        (b'{"train_runtime": 3.0, "train_loss": 2.0}', "only the closing summary"),
        (b"step,loss\n-3,2.0\n-2,1.0\n", "no figures at a step from 0"),
        (b'{"log_history": []}', "no row with figures yet"),
        (b"[" * 100_000, "no loss was found"),
        (b'{"a":' * 100_000, "no loss was found"),
    ],
)
def test_what_is_no_log_is_refused_in_one_line_by_what_was_looked_for(
    content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InputError) as error:
        read_log(tmp_path / "a")
    assert said in str(error.value) and str(tmp_path / "a") in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_journal_that_lies_by_itself_is_read_by_its_checksums(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "x")
    journal.append(attempt(1, 0), step(1, 2.5), step(2, 2.0), Evaluation(2, 2.25, 9.0, None, 9, 0.1, True))
    journal.close()
    with (tmp_path / "x").open("ab") as file:
        file.write(b'{"type": "step", "step": 3, "crc": "00000000"}\n')
    log = read_log(tmp_path / "x")
    (run,) = log.runs
    assert [(point.step, point.loss, point.eval_loss) for point in run.points] == [
        (1, 2.5, None), (2, 2.0, None), (2, None, 2.25),
    ]  # fmt: skip
    assert log.facts(run) == Facts(steps=10, steps_per_epoch=5, precision="fp32")


def test_logs_of_many_bytes_or_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("step,loss\n" + "".join(f"{n},2.0\n" for n in range(99)))
    monkeypatch.setattr("etude.watch.logs.rows.MOST_ROWS", 50)
    with pytest.raises(InputError, match="over 50 rows"):
        read_log(tmp_path / "a")
    monkeypatch.setattr("etude.watch.logs.content.MOST_BYTES", 100)
    with pytest.raises(InputError, match="larger than 100 bytes"):
        read_log(tmp_path / "a")


def test_logs_with_bytes_changed_at_random_are_read_or_refused(tmp_path: Path) -> None:
    draw = random.Random(17)
    pieces = [
        b"nan",
        b"1e999",
        b"-1",
        b"9" * 400,
        b"%|",
        b"{",
        b'"',
        b",",
        b"\n",
        b"\x00",
        b"\xff",
        b"epoch",
        b"loss",
    ]
    for odd in ODD * 4:
        content = bytearray(odd.bytes)
        for _ in range(draw.randrange(1, 8)):
            at = draw.randrange(len(content) + 1)
            content[at : at + draw.choice((0, 0, 1, 20))] = draw.choice(pieces) * draw.randrange(3)
        (tmp_path / "a").write_bytes(bytes(content))
        try:
            log = read_log(tmp_path / "a")
        except InputError as error:
            assert "\n" not in str(error)
            continue
        for run in log.runs:
            steps = [point.step for point in run.points]
            assert steps == sorted(set(steps)) and steps[0] >= 0
            log.facts(run)
