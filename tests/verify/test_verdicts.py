from etude.verify.facts import Fact
from etude.verify.quantities import figures_of
from etude.verify.ranges import exactly
from etude.verify.verdicts import CONFIRMED, CONTRADICTS, UNSETTLED, Reading, in_unit, judge, note, reading


def fact(text: str, name: str = "") -> Fact:
    (figure,) = figures_of(text)
    return Fact(name, figure, 3, (), label=name)


def of(value: float) -> Reading:
    return Reading("what follows", exactly(value), exactly(value))


def test_the_first_reading_confirms_another_leaves_it_open_and_none_contradicts() -> None:
    assert judge("rule", fact("512"), [of(512), of(256)]).verdict == CONFIRMED
    assert judge("rule", fact("256"), [of(512), of(256)]).verdict == UNSETTLED
    assert judge("rule", fact("256"), [of(512), of(256)], any_confirms=True).verdict == CONFIRMED
    found = judge("rule", fact("128"), [of(512), of(256)])
    assert (found.verdict, found.fits, found.line) == (CONTRADICTS, "512", 3)
    assert "what follows = 512; or what follows = 256" in found.why


def test_a_figure_whose_digits_were_cut_is_left_open() -> None:
    assert judge("rule", fact("2.85"), [of(2.858)]).verdict == UNSETTLED
    assert judge("rule", fact("2.85"), [of(2.854)]).verdict == CONFIRMED
    assert judge("rule", fact("2.85"), [of(2.84)]).verdict == CONTRADICTS


def test_a_setting_is_exact_and_a_measured_figure_is_rounded() -> None:
    assert reading("x", lambda x: x, fact("6e-4", "learning_rate")).tight == exactly(6e-4)
    assert reading("x", lambda x: x, fact("0.5", "loss")).tight.low == 0.45


def test_values_are_printed_in_the_unit_of_the_claim() -> None:
    pairs = {"12.8 B": "104.86 B", "5 h": "2 min", "9 %": "12.5 %", "3 GB": "2 GB (1.8626 GiB)", "2x": "3x"}
    values = (104857600000.0, 120.0, 12.5, 2e9, 3.0)
    for (text, shown), value in zip(pairs.items(), values):
        assert in_unit(value, fact(text).figure) == shown
    assert note(CONTRADICTS, "a", 1, "q", "w").to_dict()["figures"] == []
