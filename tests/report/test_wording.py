import pytest

from etude.report.wording import (
    duration,
    metric_heading,
    metric_title,
    moment,
    number,
    short,
    size,
    with_interval,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.04, "0.0 s"),
        (59.96, "1 min 00 s"),
        (59, "59 s"),
        (3599.7, "1 h 00 min"),
        (90061.0, "1 d 01 h"),
    ],
)
def test_durations_carry_over(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_figures_keep_what_matters() -> None:
    assert [number(v) for v in (1234567, 1.5, 0.00001234, float("nan"), None, True)] == [
        "1,234,567", "1.5000", "1.234e-05", "nan", "–", "yes",
    ]  # fmt: skip
    assert [size(v) for v in (0, 999, 1000, 2.5e9, 3e15)] == ["0 B", "999 B", "1.0 kB", "2.5 GB", "3000.0 TB"]


def test_a_figure_too_large_for_its_digits_is_short() -> None:
    texts = [number(1e308), short(-1e308), with_interval(1e308, -1e308, 1e308, rows=2), number(float("inf"))]
    assert texts == ["1e+308", "-1e+308", "1e+308 [-1e+308, 1e+308]", "inf"]
    assert number(1e14) == "100,000,000,000,000.0000" and short(1e14) == "100,000,000,000,000"


@pytest.mark.parametrize("low", [0.0, float("nan")])
def test_a_figure_of_nothing_and_an_interval_of_nearly_nothing_have_a_text(low: float) -> None:
    assert with_interval(float("nan"), low, 1.0, rows=2) == "nan"
    assert with_interval(0.5, low, 1e-323, rows=2).startswith("0.5")


def test_a_metric_of_any_name_has_a_short_title_on_one_line() -> None:
    assert metric_title("my_error\x1b[31m\n") == "my error\\x1b[31m"
    assert len(metric_title("x" * 10_000)) == 60


def test_a_heading_names_a_metric_as_the_field_writes_it() -> None:
    names = ["bleu", "chrf", "mcc", "f1", "bits_per_byte", "loss"]
    written = ["BLEU", "chrF", "MCC", "F1", "Bits per byte", "Validation loss"]
    assert [metric_heading(name) for name in names] == written


def test_a_moment_is_in_utc_and_one_of_no_year_is_a_number() -> None:
    assert moment(0.0) == "1970-01-01 00:00:00" and moment(1e300) == "1e+300 s"
