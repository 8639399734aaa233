"""The words on a mean of weights follow from the interval of its difference, whichever way is better."""

import pytest

from etude.report.averaged import Averaged
from etude.report.quantized import Beside


def averaged(figure: str, difference: list[float] | None, used: tuple[str, ...] = ("a@1", "b@1")) -> Averaged:
    beside = Beside([0.5, 0.4, 0.6], [0.6, 0.5, 0.7], difference)
    return Averaged(
        members={"a@1": 0.5, "b@1": 0.4}, used=used, best="a@1", figure=figure, figures={figure: beside},
        samples=20, is_greedy=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("figure", "difference", "helps", "words"),
    [
        ("f1", [0.1, 0.02, 0.2], True, "better than a@1"),
        ("loss", [0.1, 0.02, 0.2], False, "worse than a@1"),
        ("loss", [-0.1, -0.2, -0.02], True, "better than a@1"),
        ("f1", [-0.1, -0.2, 0.02], None, "not distinguishable from a@1"),
        ("f1", None, None, "rows do not pair"),
    ],
)
def test_a_mean_helps_where_the_interval_leaves_zero_on_the_good_side(
    figure: str, difference: list[float] | None, helps: bool | None, words: str
) -> None:
    found = averaged(figure, difference)
    assert found.helps is helps and words in found.verdict
    assert found.to_dict()["helps"] is helps and found.verdict in dict(found.rows())["verdict"]


def test_a_greedy_soup_that_took_nothing_says_so_and_names_what_it_left_out() -> None:
    found = averaged("f1", [0.0, 0.0, 0.0], ("a@1",))
    assert "the outcome is its weights alone" in found.verdict
    assert dict(found.rows())["b@1"].endswith("left out") and "| no |" in found.section()
