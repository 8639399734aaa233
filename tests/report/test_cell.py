"""The picture of a run in a notebook holds its figures, also where losses are not finite."""

import math
import re
from collections.abc import Callable
from xml.etree import ElementTree

from etude.recipe.schema import Recipe
from etude.records.events import Evaluation, Finding
from etude.report.cell import live_html, state_words
from etude.report.progress import Progress
from tests.report.runs import window


def test_losses_that_are_not_finite_are_left_out_of_the_chart(make_recipe: Callable[..., Recipe]) -> None:
    progress = Progress("tiny", make_recipe())
    for event in [
        *window(1, 5),
        *window(6, 10, bad=(7, 8)),
        Evaluation(10, math.nan, math.nan, None, 3, 1.0, False),
    ]:
        progress.write(event)
    (svg,) = re.findall("<svg.*</svg>", live_html(progress))
    root = ElementTree.fromstring(svg)
    training = root.findall("polyline")[0].attrib["points"].split()
    assert len(training) == 8 and all(
        math.isfinite(float(each)) for pair in training for each in pair.split(",")
    )


def test_a_picture_before_the_first_step_and_one_with_a_finding_are_whole(
    make_recipe: Callable[..., Recipe],
) -> None:
    progress = Progress("tiny", make_recipe())
    assert "<svg" not in live_html(progress) and state_words(progress).startswith("tiny   step 0 of 0")
    progress.write(Finding(3, "a <b> spike", "loss 9", "lower the rate", severity="error"))
    html = live_html(progress, "Ctrl-C: saves & stops")
    assert "a &lt;b&gt; spike" in html and "saves &amp; stops" in html
    ElementTree.fromstring(html)
