import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.verify.quantities import dates_in, figures_of, magnitude_of, printed


def one(text: str) -> tuple[float, str, str]:
    (figure,) = figures_of(text)
    return figure.value, figure.unit, figure.hedge


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12.8 B tokens", (12.8e9, "", "")), ("0.1410 %", (0.141, "%", "")), ("9 percentage points", (9, "points", "")),
        ("2h 30m", (9000, "s", "")), ("3 min 24 s", (204, "s", "")), ("1:02:03", (3723, "s", "")), ("1,545,893,376", (1545893376, "", "")),
        ("about 5 h", (18000, "s", "about")), ("at least 3", (3, "", "bound")), ("24-layer", (24, "", "")), ("1×10^-4", (1e-4, "", "")),
        ("10 GiB", (10 * 2**30, "bytes", "")), ("312 TFLOPS", (312e12, "flops", "")), ("2.1x faster", (2.1, "x", "")), ("5k rows", (5000, "", "")),
    ],
)  # fmt: skip
def test_a_figure_is_read_with_its_unit_and_its_hedge(text: str, value: tuple[float, str, str]) -> None:
    assert one(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    ["Qwen2.5-Coder-1.5B", "v2.3.1", "7B-Instruct", "GPT-2", "on 2025-03-05 12:30", "see https://a.b/3", "1e999", "10^10000", "9" * 1000, "step-000200", "train_v2.py", "NaN", "3rd"],
)  # fmt: skip
def test_names_versions_dates_links_and_what_no_number_holds_are_no_figures(text: str) -> None:
    assert figures_of(text) == []


def test_a_printed_number_stands_for_what_rounds_to_it() -> None:
    (figure,) = figures_of("2.85")
    assert (figure.tight.low, figure.tight.high) == pytest.approx((2.845, 2.855))
    (count,) = figures_of("512")
    assert count.tight.low == count.tight.high == 512
    (size,) = figures_of("40 GB")
    assert size.loose.high > 40 * 2**30


def test_both_ends_of_a_range_say_no_one_number() -> None:
    assert [each.hedge for each in figures_of("4-6 h")] == ["range", "range"]
    assert [each.hedge for each in figures_of("from 3 to 5")] == ["", ""]
    assert [each.hedge for each in figures_of("0.81 ± 0.02")] == ["", "bound"]


@given(st.integers(0, 10**12))
def test_a_count_is_read_as_it_is_printed(count: int) -> None:
    assert one(f"{count:,} steps")[0] == count


@given(st.text("0123456789.,eE+-x× %kM^~()\u202e\x00", max_size=2_000))
def test_no_text_of_digits_and_signs_is_too_odd(text: str) -> None:
    for figure in figures_of(text):
        assert 0 <= figure.start < figure.end <= len(text)


@pytest.mark.parametrize("piece", ["1,", "9", "1 ", "1:", "-1", "1e", "1 h ", "(", "1.1", "2d "])
def test_long_lines_are_read_in_one_pass(piece: str) -> None:
    figures_of(piece * 20_000)


def test_dates_magnitudes_and_printing() -> None:
    assert [text for text, _ in dates_in("from 2025-03-05 to May 4, 2025")] == ["2025-03-05", "May 4, 2025"]
    assert magnitude_of("12.8 B") == (1e9, "B")
    assert (printed(1234567.0), printed(0.123456), printed(float("inf"))) == (
        "1,234,567",
        "0.12346",
        "no finite number",
    )
