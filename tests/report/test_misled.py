"""Runs made to mislead: what `show`, the report and `runs` tell of them is what happened."""

import html
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from etude.records.store import Run
from etude.report.card import model_card
from etude.report.compare import compare_runs
from etude.report.summary import Summary, best_text, describe, run_table, summarize, warn_of_best
from etude.report.write import write_report
from tests import misleading as runs

Get = Callable[..., Any]
Build = Callable[[Path], Any]


class Told(NamedTuple):
    """Words of the outputs on a run, and words that none of them may have.

    each     in show, the report in Markdown and in HTML, and the card
    card     in the card of its best checkpoint
    compare  beside its honest twin, or beside each other where there are several runs
    """

    each: list[str]
    card: list[str]
    compare: list[str]
    nowhere: Sequence[str] = ()


TOLD: dict[Build, Told] = {
    runs.constant_classifier: Told(
        ["It may have learnt nothing: f1 rose from 0 before training to 0.667",
         "it predicts one label for all rows", "It predicts the label 1 for all 40 test rows.",
         "the same as the best baseline, always 1."],
        ["This model is of step 6, the best checkpoint of its run."],
        ["are not distinguishable: f1 on 40 test rows is 0.667 for labels-",
         "labels-ID predicts one label for all rows.", "- It predicts the label 1 for all 40 test rows."],
        ["It learnt", "seems to have learnt", "is the best", "is ahead", "perplexity"],
    ),
    runs.memorised: Told(
        ["It seems to have learnt, but ended worse: validation loss fell",
         "It has memorised its training data: after 40 passes over 15 training samples"],
        ["This model is of step 20, the best checkpoint of its run. The verdict on the whole run:"],
        ["honest-ID is ahead: validation loss 1.18 beside 1.20", "the noise is not known",
         "- It has memorised its training data"],
        ["It learnt", "is the best:"],
    ),
    runs.worse_than_before: Told(
        ["It did not get better: f1 was 1.00 before training and at best 0.", "worse than before training (1.00)"],
        ["| f1 | 1.00 | 0."],
        ["honest-ID is the best: its f1 on 45 test rows is 1.00", "beyond the noise of the rows",
         "worse-ID: It did not get better: f1 was 1.00 before training and at best 0."],
        ["learnt", "improved"],
    ),
    runs.short_last_window: Told(
        ["It hardly changed: validation loss was 6.79 before training and 6.79 at best"],
        ["mean of the last 10 steps"],
        ["honest-ID is ahead: validation loss 0.784 beside 6.79 of window-ID",
         "window-ID: It hardly changed", "means over the first and the last 187 targets."],
        ["It learnt"],
    ),
    runs.endless_string: Told(
        ["It seems to have learnt, but gives the same answer to all and never ends an answer",
         "All 4 answers shown are the same text.", "None of its answers ends by itself; each was cut off",
         "Its answers repeat themselves: on average 9", "All 19 training rows were cut"],
        ["This model is of step 30"],
        ["The runs score other parts of their held-out rows (", "232 targets in endless-ID", "No run is named best",
         "endless-ID: It seems to have learnt, but gives the same answer to all"],
        ["It learnt", "is the best:", "is ahead"],
    ),
    runs.all_rows_cut: Told(
        ["It seems to have learnt, but never ends an answer: validation loss fell",
         "All 32 training rows were cut, being longer than train.seq_len.", "None of its answers ends by itself"],
        ["| train, truncated | 32 |"],
        ["The runs score other parts of their held-out rows (", "386 targets in cut-ID", "No run is named best",
         "- All 32 training rows were cut"],
        ["It learnt", "is the best:", "is ahead"],
    ),
    runs.absent_label: Told(
        ["It learnt: f1 rose from 0.115", "On 30 test rows: f1 0.67; better than before training (0.222)",
         "Labels of the data: no test row has the label none; it counts as 0 in macro figures"],
        ["| none | 0 | 0 | 0 |"],
        ["- Labels of the data: no test row has the label none; it counts as 0"],
    ),
    runs.bad_end: Told(
        ["It seems to have learnt, but ended worse", "at step 20, the best step, but it was 12.1 at the end.",
         "The recipe was changed after step 20: optim.learning_rate 0.3."],
        ["This model is of step 20, the best checkpoint of its run."],
        ["honest-ID is ahead: validation loss 3.22 beside 3.69", "changed optim.learning_rate 0.3 after step 20",
         "bad-end-ID: It seems to have learnt, but ended worse"],
        ["It learnt", "differ in their seed only"],
    ),
    runs.not_finite: Told(
        ["It diverged: the training loss is not finite from step 12 on; the best checkpoint is of step 10.",
         "The recipe was changed after step 10: optim.learning_rate 3e+38."],
        ["This model is of step 10, the best checkpoint of its run; the run came to step 15 of 20 (failed)."],
        ["not-finite-ID came to step 15 of 20 only (failed)", "not-finite-ID: It diverged",
         "changed optim.learning_rate 3e+38 after step 10"],
        ["It learnt", "seems to have learnt: validation loss fell from 5.05 at step 5 to 4.48", "…", "goes on from"],
    ),
    runs.killed_at_half: Told(
        ["It seems to have learnt: validation loss fell from 5.18 at step 4 to 4.79 at step 8"],
        ["This model is of step 8, the best checkpoint of its run; the run came to step 10 of 20 (killed)."],
        ["killed-ID came to step 10 of 20 only (killed), so its figures are those of a part of its training."],
        ["It learnt", "Finished 10", "is the best:"],
    ),
    runs.other_held_out_rows: Told(
        ["It seems to have learnt", "held out, so the validation figures say little."],
        ["This model is of step 20"],
        ["The runs hold out different rows (1 in rows5-ID, 2 in rows12-ID, 4 in rows40-ID)", "No run is named best",
         "etude evaluate rows5-ID rows12-ID rows40-ID --on FILE", "- Only 1 sample was held out"],
        ["It learnt", "is the best:", "is ahead"],
    ),
    runs.equal_within_noise: Told(
        ["not distinguishable from the best baseline, TF-IDF + logistic regression (0.65)",
         "better than before training (0.192)"],
        ["within the noise"],
        ["are not distinguishable: f1 on 42 test rows is 0.663", "within the noise of the rows", "in order of f1"],
        ["is the best:", "is ahead", "worst to best"],
    ),
}  # fmt: skip
_END = {
    runs.not_finite: ["Failed at step 15 of 20: the update of step 11 made some weights infinite or NaN",
                      "start again with --new or --from RUN@last."],
    runs.killed_at_half: ["Not finished: killed at step 10 of 20; etude resume "],
}  # fmt: skip


def told(summary: Summary) -> str:
    return " ".join([summary["end"], *summary["verdict"], *summary["problems"]])


def outputs(run: Run) -> dict[str, str]:
    """What show, the report in two forms, and the card of the best checkpoint say, each on one line."""
    markdown = write_report(run, html=True)
    tags = re.compile("<(style|svg).*?</(style|svg)>|<[^>]*>", re.DOTALL)
    texts = {
        "show": " ".join(text for _, text in describe(summarize(run))),
        "report.md": re.sub(r"\\(.)", r"\1", markdown.read_text()),  # Markdown's escapes
        "report.html": html.unescape(tags.sub("", markdown.with_suffix(".html").read_text())),
        "card": re.sub(r"\\(.)", r"\1", model_card(run, run.best["checkpoint"], "hf")),
    }
    return {name: " ".join(text.split()) for name, text in texts.items()}


@pytest.fixture(scope="module")
def _twins() -> dict[Build, Run]:
    return {}


@pytest.fixture
def beside(
    misleading: Get, _twins: dict[Build, Run], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Build], list[Run]]:
    """The runs of a builder; a run alone is followed by its honest twin."""

    def get(build: Build) -> list[Run]:
        made = misleading(build)
        if isinstance(made, list):
            return made
        if build not in _twins:
            _twins[build] = runs.honest_twin(build, made, tmp_path_factory.mktemp("honest"))
        return [made, _twins[build]]

    return get


def test_each_of_the_twelve_is_told() -> None:
    assert set(TOLD) == set(runs.BUILDERS) and len(TOLD) == 12


@pytest.mark.parametrize("build", TOLD, ids=lambda build: build.__name__)
def test_show_reports_and_card_tell_what_happened(misleading: Get, build: Build) -> None:
    made = misleading(build)
    for run in made if isinstance(made, list) else [made]:
        texts = outputs(run)
        for name, text in texts.items():
            if name != "card":
                assert not [words for words in _END.get(build, []) if words not in text], name
            assert not [words for words in TOLD[build].each if words not in text], name
            assert not [words for words in TOLD[build].nowhere if words in text], name
        assert not [words for words in TOLD[build].card if words not in texts["card"]]


@pytest.mark.parametrize("build", TOLD, ids=lambda build: build.__name__)
def test_compare_tells_what_happened(beside: Callable[[Build], list[Run]], build: Build) -> None:
    found = beside(build)
    text = " ".join(" ".join(compare_runs(found).lines(120)).split())
    for run in found:
        text = text.replace(run.name, re.sub("-[0-9a-f]{6}$", "-ID", run.name))
    assert not [words for words in TOLD[build].compare if words not in text]
    honest = {"It learnt", "learnt", "seems to have learnt", "perplexity", "improved"}
    assert not [words for words in set(TOLD[build].nowhere) - honest if words in text]


def test_a_best_that_is_worse_than_before_training_is_called_so_wherever_it_stands(
    misleading: Get,
) -> None:
    run = misleading(runs.worse_than_before)
    summary, value = summarize(run), run.best["value"]
    assert (
        run.best["step"]
        and summary["is_best_worse"]
        and not summarize(misleading(runs.bad_end))["is_best_worse"]
    )
    assert (
        best_text(summary) == f"{run.best['checkpoint']}, f1 {value:.4f}, worse than before training (1.0000)"
    )
    assert run_table([summary])[1][4] == f"f1 {value:.3f} (1.00 before training)"
    assert warn_of_best(run) == f"{run.name}: the best checkpoint is {best_text(summary)}"


def test_no_word_of_learning_rests_on_two_steps(misleading: Get) -> None:
    run = misleading(runs.short_last_window)
    summary = summarize(run)
    assert summary["loss_window"] == 10 and run.recipe.records.log_every_steps == 10
    assert abs(summary["last_loss"] - summary["first_loss"]) < 0.3


def test_runs_of_one_sample_say_that_their_figures_are_thin(misleading: Get) -> None:
    for run, rows in zip(misleading(runs.other_held_out_rows), (1, 2, 4)):
        assert f"Only {rows} sample" in told(summarize(run))


def test_runs_lists_the_best_by_the_metric_of_the_recipe(misleading: Get) -> None:
    header, row = run_table([summarize(misleading(runs.constant_classifier))])
    assert dict(zip(header, row))["best"] == "f1 0.667"
    header, row = run_table([summarize(misleading(runs.bad_end))])
    assert dict(zip(header, row))["best"] == "validation loss 3.69"
    assert dict(zip(header, row))["at step"] == "20"


def test_two_runs_within_noise_are_each_held_against_the_baseline(misleading: Get) -> None:
    for run in misleading(runs.equal_within_noise):
        assert "not distinguishable from the best baseline" in told(summarize(run))
