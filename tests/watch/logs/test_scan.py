"""Figures of a line."""

import pytest

from etude.watch.logs.scan import figures_of


@pytest.mark.parametrize(
    ("line", "figures"),
    [
        ("iter 100: loss 2.5, time 12.50ms, mfu 5.00%", [("iter", 100), ("loss", 2.5), ("seconds", 0.0125)]),
        ("time 12.5s loss=2.5", [("loss", 2.5)]),  # of the whole run, or of a step: nobody knows
        ("dt: 0.5s | tok/sec: 1,000", [("seconds", 0.5), ("tok/sec", 1000)]),
        ("3,646 tokens/s", [("tokens_per_second", 3646)]),
        ("mem: 1.5GB", [("memory_bytes", 1.5e9)]),
        ("max memory: 1.5GB", []),
        ("2026-01-02 03:04:05,678 INFO loss: 2.5", [("loss", 2.5)]),
        ("saved step-000100 of gpt2 at 3am", []),
        ("aux loss: 0.5 z loss 0.25", []),
        ("{'loss': '2.5', \"grad_norm\": nan}", [("loss", 2.5), ("grad_norm", float("nan"))]),
        ("loss -2.5e-3", [("loss", -0.0025)]),
        ("loss nan info", [("loss", float("nan"))]),
    ],
)
def test_a_number_has_the_figure_that_its_name_or_unit_tells(
    line: str, figures: list[tuple[str, float]]
) -> None:
    found = [(figure.name, figure.value) for figure in figures_of(line) if figure.meaning]
    assert [name for name, _ in found] == [name for name, _ in figures]
    assert [value for _, value in found] == pytest.approx([value for _, value in figures], nan_ok=True)


def test_a_line_of_numbers_only_is_read_to_a_limit() -> None:
    assert len(list(figures_of("1 " * 100_000))) == 400
