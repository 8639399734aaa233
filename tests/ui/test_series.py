"""Any range of a series in at most twice as many buckets as asked for, on any axis, with no spike hidden."""

import csv
import io
import math
from pathlib import Path
from urllib.parse import quote

import pytest

from etude.errors import InputError
from etude.records.events import Evaluation, Step
from etude.ui.series import csv_lines, read_series
from tests.report.runs import attempt, evaluation, finished_run, loss_at, new_run, window
from tests.ui.serving import serving


@pytest.fixture
def long(tmp_path: Path):  # type: ignore[no-untyped-def]
    writer = new_run(tmp_path / "runs")
    writer.append(attempt(steps=2000))
    for first in range(1, 2001, 10):
        writer.append(*window(first, first + 9, bad=(777,) if first == 771 else ()))
    writer.close("finished")
    return writer.run


@pytest.mark.parametrize("points", [2, 10, 100, 499, 1000, 5000])
@pytest.mark.parametrize("axis", ["step", "tokens", "seconds", "epoch"])
def test_a_range_has_at_most_twice_the_points_and_no_spike_is_hidden(long, points: int, axis: str) -> None:  # type: ignore[no-untyped-def]
    found = read_series(long, ["train/loss"], axis, low=None, high=None, points=points)["series"][
        "train/loss"
    ]
    assert found["count"] == 2000 and len(found["x"]) <= 2 * points + 1
    assert len(found["x"]) >= min(points / 2, 1000)
    assert found["x"] == sorted(found["x"])
    (place, text), *more = found["odd"]
    assert text == "nan" and not more
    if axis == "step":
        assert place == 777
    if found["bucket"] > 1:
        assert max(found["high"]) == loss_at(1) and min(found["low"]) == loss_at(2000)
        kept = [loss_at(step) for step in range(1, found["bucket"] + 1) if step != 777]
        assert found["mean"][0] == pytest.approx(sum(kept) / len(kept))
    else:
        assert "low" not in found and found["mean"][776] is None


def test_a_zoomed_range_leads_to_its_edges(long) -> None:  # type: ignore[no-untyped-def]
    found = read_series(long, ["train/loss"], "step", low=100.5, high=110.5, points=100)["series"][
        "train/loss"
    ]
    assert found["x"] == list(range(100, 112)) and found["bucket"] == 1
    assert found["mean"] == [loss_at(step) for step in range(100, 112)]
    for low, high in ((5000, 6000), (-10, -5), (110, 100)):
        found = read_series(long, ["train/loss"], "step", low=low, high=high, points=100)["series"][
            "train/loss"
        ]
        assert len(found["x"]) <= 2


@pytest.mark.parametrize("axis", ["step", "tokens", "seconds", "epoch"])
def test_steps_have_places_on_every_axis(long, axis: str) -> None:  # type: ignore[no-untyped-def]
    whole = read_series(
        long, ["train/loss"], axis, low=None, high=None, points=5000, at=[0, 1, 777, 2000, 2001]
    )
    x = whole["series"]["train/loss"]["x"]
    assert whole["at"] == {0: 0.0, 1: x[0], 777: x[776], 2000: x[1999]}
    assert "at" not in read_series(long, ["train/loss"], axis, low=None, high=None, points=2)


@pytest.mark.parametrize("half_life", [1, 30, 400])
@pytest.mark.parametrize("axis", ["step", "tokens", "seconds"])
def test_a_range_comes_with_what_the_records_before_leave_of_an_exponential_mean(  # type: ignore[no-untyped-def]
    long, axis: str, half_life: int
) -> None:
    whole = read_series(long, ["train/loss"], axis, low=None, high=None, points=5000)["series"]["train/loss"]
    low, high = whole["x"][1500], whole["x"][1600]
    for points in (200, 20):
        found = read_series(
            long, ["train/loss"], axis, low=low, high=high, points=points, half_life=half_life
        )["series"]["train/loss"]
        last, weight, mean = found["before"]
        assert 1485 <= last < found.get("step", found["x"])[0] and last == int(last)
        weights = [0.5 ** ((last - step) / half_life) * (step != 777) for step in range(1, int(last) + 1)]
        assert weight == pytest.approx(sum(weights), rel=1e-2)
        losses = (each * loss_at(step) for step, each in enumerate(weights, 1))
        assert mean == pytest.approx(sum(losses) / sum(weights), rel=1e-4)
    if axis != "step":
        assert whole["step"] == list(range(1, 2001))


def test_all_series_tell_where_the_records_of_their_run_begin_and_end(long, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    writer = new_run(tmp_path)
    assert read_series(writer.run, (), "step", low=None, high=None, points=9)["extent"] is None
    writer.append(attempt(), evaluation(0, 5.0), *window(1, 10), evaluation(10, 4.0))
    assert read_series(writer.run, ["gap"], "step", low=None, high=None, points=9)["extent"] == [0, 10]
    assert read_series(long, ["gap"], "tokens", low=5, high=6, points=9)["extent"][1] > 200_000
    writer.close("stopped")


def test_steps_that_are_none_are_refused(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "runs").info["id"]
    with serving(tmp_path / "runs") as served:
        assert served.get(f"/api/runs/{run}/series?axis=epoch&at=10,20")["at"] == {"10": 0.5, "20": 1.0}
        for odd in ("x", "-1", "1e3", "\u0663", "9" * 40, ",".join(map(str, range(101)))):
            assert served.ask(f"/api/runs/{run}/series?at={quote(odd)}")[0] == 400


def test_series_that_are_not_there_are_empty_and_all_are_given_without_names(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "runs")
    found = read_series(
        run, ["validation/nothing", "../x", "gpu_percent"], "step", low=None, high=None, points=9
    )
    assert all(each["x"] == [] for each in found["series"].values()) and len(found["series"]) == 3
    assert "train/loss" in read_series(run, [], "step", low=None, high=None, points=9)["series"]
    with pytest.raises(InputError, match="no axis 'end'"):
        read_series(run, [], "end", low=None, high=None, points=9)


def test_the_csv_has_every_point_in_full_and_no_formula(tmp_path: Path) -> None:
    writer = new_run(tmp_path / "runs")
    writer.append(attempt(), *window(1, 30))
    writer.append(Evaluation(30, 2.5, 12.0, None, 9, 1.0, False, {"=cmd()": 1.0, 'a"b': math.nan}))
    names = ["train/loss", "validation/loss", "validation/=cmd()", 'validation/a"b']
    text = b"".join(csv_lines(writer.run, names, "step")).decode()
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ["step", *names] and len(rows) == 32
    assert rows[7] == ["7", repr(loss_at(7)), "", "", ""] and rows[31] == ["30", "", "2.5", "1.0", "nan"]
    with serving(tmp_path / "runs") as served:
        address = f"/api/runs/{writer.run.info['id']}/series.csv?names=train/loss,validation/loss"
        _, headers, body = served.ask(address)
        assert headers["content-type"] == "text/csv; charset=utf-8" and len(body.splitlines()) == 32
        assert headers["content-disposition"] == f'attachment; filename="{writer.run.info["id"]}.csv"'
    writer.close("stopped")


@pytest.mark.filterwarnings("error")
def test_all_values_that_are_not_finite_are_counted_and_no_place_wraps_around(tmp_path: Path) -> None:
    writer = new_run(tmp_path / "runs")
    steps = [step for step in window(1, 400) if isinstance(step, Step)]
    losses = {0: math.nan, 1: math.inf, 2: -math.inf}
    writer.append(
        attempt(), *(each._replace(loss=losses.get(each.step % 4, 1.0), tokens=2**62) for each in steps)
    )
    writer.append(evaluation(400, 1.0))
    writer.close("finished")
    for points in (5, 1000):
        found = read_series(writer.run, [], "tokens", low=None, high=None, points=points)["series"]
        loss = found["train/loss"]
        assert (len(loss["odd"]), loss["odd_count"]) == (100, 300)
        assert loss["x"] == sorted(loss["x"]) and loss["x"][0] >= 2**62
