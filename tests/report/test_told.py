"""Figures of a text carry their records, and no foreign text can pass for one."""

import re

from hypothesis import given
from hypothesis import strategies as st

from etude.records.events import Evaluation
from etude.report.figures import Figure, Source
from etude.report.html import to_html
from etude.report.markdown import code, fence, prose
from etude.report.told import mark_places, tag_marks, take_marks, told, told_of
from tests.report.runs import evaluation

LOSS = Figure("loss", 2.5, "nats per target", "mean", (Source("step", 1, 3),))


def test_the_places_of_figures_are_those_of_the_text_without_marks() -> None:
    text, places = take_marks(
        f"a {told('2.50', LOSS)} b {told('–', LOSS, LOSS)}{told('x', Figure('n', None, '', '', ()))}"
    )
    assert text == "a 2.50 b –x"
    assert [text[each.start : each.end] for each in places] == ["2.50", "–"]
    assert places[0].figures == (LOSS,) and len(places[1].figures) == 2


def test_a_figure_of_an_evaluation_names_its_step() -> None:
    event: Evaluation = evaluation(20, 2.0)
    _, (place,) = take_marks(
        told_of("2.00", "loss", 2.0, [event], unit="nats per target", statistic="evaluation")
    )
    assert place.figures[0].source == (Source("evaluation", 20, 20),)
    assert take_marks(told_of("–", "loss", None, [None], unit="", statistic=""))[1] == []


@given(st.text())
def test_foreign_text_has_no_mark(text: str) -> None:
    for shown in (prose(text), code(text), fence(text)):
        assert take_marks(shown) == (shown, [])


def test_the_page_has_the_records_as_attributes() -> None:
    text, places = take_marks(f"| a |\n| --- |\n| {told('2.5 & <b>', LOSS)} |\n")
    figure = {
        "name": "loss",
        "value": 2.5,
        "unit": '"',
        "statistic": "mean",
        "records": [{"kind": "step", "n": 3}],
    }
    page = to_html(text, "t", {}, places, {"run": "r-1", "text": [{"figures": [figure]}]})
    tag = re.search(r"<span.*?</span>", page)
    assert tag and 'data-value="2.5"' in tag[0] and 'data-unit="&quot;"' in tag[0] and "&lt;b&gt;" in tag[0]
    assert "&quot;n&quot;: 3" in tag[0] and 'data-run="r-1"' in page
    assert "\ue000" not in tag_marks(mark_places(text, places), [{"figures": [figure]}])
