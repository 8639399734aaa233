import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sacrebleu import corpus_bleu, corpus_chrf

from etude.records.events import Control, DataUsed, Evaluation, Event, Finding, Generation, Scores
from etude.records.store import Run
from etude.report.history import read_history
from etude.report.summary import Summary, summarize, summarize_history
from etude.report.verdict import best_baseline, constant_prediction
from tests.report.runs import attempt, evaluation, loss_at, new_run, window

FINISH = Control(40, "finish", "the last step is done")
SCORES = Scores(
    step=40, rows=100, split="test", metric="f1",
    systems={
        "after": {"f1": [0.8, 0.75, 0.85]}, "before": {"f1": [0.3, 0.25, 0.35]},
        "majority class": {"f1": [0.4, 0.35, 0.45]}, "TF-IDF": {"f1": [0.6, 0.55, 0.65]},
    },
    gains={"before": [0.5, 0.4, 0.6], "majority class": [0.4, 0.3, 0.5], "TF-IDF": [0.2, 0.1, 0.3]},
    labels=["x", "y"], confusion=[[40, 10], [10, 40]],
)  # fmt: skip


def verdict(
    runs: Path, *records: Event, changes: dict[str, Any] | None = None, steps: tuple[int, int] = (1, 40)
) -> Summary:
    """Of a run of 40 steps whose loss falls, with more records after its steps; killed without an end."""
    writer = new_run(runs, changes)
    writer.append(attempt(), *window(*steps), *records)
    writer.close("finished" if FINISH in records else "stopped")
    return summarize_history(read_history(writer.run))


def test_a_run_that_got_better_is_said_to_have_learnt(tmp_path: Path) -> None:
    found = verdict(
        tmp_path, evaluation(0, 6.0, best=False), evaluation(20, 3.0), evaluation(40, 2.5), FINISH
    )
    assert found["end"].startswith("Finished 40 steps, 2 epochs in ")
    assert found["verdict"] == [
        "It learnt: validation loss fell from 6.00 before training to 2.50 at step 40, the best step."
    ]
    assert found["problems"] == []


def test_the_best_and_the_end_are_told_apart(tmp_path: Path) -> None:
    rising = evaluation(40, 5.0, best=False)
    found = verdict(tmp_path, evaluation(0, 6.0, best=False), evaluation(20, 3.0), rising, FINISH)
    assert found["verdict"][0].endswith("to 3.00 at step 20, the best step, but it was 5.00 at the end.")


def test_an_end_that_lost_most_of_the_gain_and_a_gain_that_rounds_to_nothing_are_said(tmp_path: Path) -> None:
    before, best = evaluation(0, 6.0, best=False), evaluation(20, 3.0)
    for end, words in (
        (4.4, "It learnt: "),
        (4.6, "It learnt, but ended worse: "),
        (math.nan, "It learnt, but "),
    ):
        last = evaluation(40, end, best=False)
        said = verdict(tmp_path / str(end), before, best, last, FINISH)["verdict"][0]
        assert said.startswith(words), said
    same = verdict(tmp_path / "same", before, evaluation(40, 5.999), FINISH)["verdict"][0]
    assert same == "It hardly changed: validation loss was 6.00 before training and 6.00 at best, at step 40."


@pytest.mark.parametrize("after", [6.0, 6.5])
def test_a_run_that_is_never_better_than_before_did_not_get_better(tmp_path: Path, after: float) -> None:
    found = verdict(tmp_path, evaluation(0, 6.0, best=False), evaluation(40, after), FINISH)
    assert found["verdict"][0] == (
        f"It did not get better: validation loss was 6.00 before training and at best {after:.2f} afterwards."
    )


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (6.0, "It did not get better after its first evaluation: validation loss was 6.00 at step 20 and at the end."),
        (6.5, "It got worse after its first evaluation: validation loss was 6.00 at step 20, but it was 6.50 at the end."),
    ],
)  # fmt: skip
def test_a_metric_that_ends_as_it_began_did_not_get_worse(tmp_path: Path, last: float, words: str) -> None:
    found = verdict(tmp_path, evaluation(20, 6.0), evaluation(40, last, best=False), FINISH)
    assert found["verdict"][0] == words


def test_a_metric_is_compared_from_its_first_finite_value_on(tmp_path: Path) -> None:
    nothing, later = evaluation(10, math.nan, best=False), [evaluation(20, 3.0), evaluation(40, 2.0)]
    found = verdict(tmp_path / "a", nothing, *later, FINISH)["verdict"][0]
    assert found == "It learnt: validation loss fell from 3.00 at step 20 to 2.00 at step 40, the best step."
    once = verdict(tmp_path / "b", nothing, evaluation(40, 2.0), FINISH)["verdict"][0]
    assert once.startswith(
        "Finite at one evaluation only: validation loss 2.00 at step 40; the training loss"
    )


def test_a_perplexity_as_high_as_the_vocabulary_is_chance(tmp_path: Path) -> None:
    data = DataUsed("f", {"vocab_size": 300, "validation": {"samples": 30}})
    for loss, problems in (
        (5.70, ["It predicts tokens no better than chance: its lowest perplexity is 299, and the vocabulary has 300 tokens."]),
        (5.60, []),
    ):  # fmt: skip
        assert math.log(300) == pytest.approx(5.704, abs=1e-3)
        found = verdict(tmp_path / str(loss), data, evaluation(20, 6.0), evaluation(40, loss), FINISH)
        assert found["problems"] == problems


def test_two_kinds_of_evidence_are_both_said_and_more_are_counted(tmp_path: Path) -> None:
    for count, said in ((1, "Odd: 0."), (2, "Odd: 0; 1."), (3, "Odd (3 times): 0.")):
        found = [Finding(20, "odd", str(number), "look") for number in range(count)]
        assert verdict(tmp_path / str(count), evaluation(40, 2.0), *found, FINISH)["problems"] == [said]


def test_of_many_conditions_thirty_are_said(tmp_path: Path) -> None:
    found = [Finding(20, f"odd {number}", "x", "look") for number in range(1000)]
    problems = verdict(tmp_path, evaluation(40, 2.0), *found, FINISH)["problems"]
    assert len(problems) == 31 and problems[-1] == "970 more conditions found, as the journal says."


def test_a_failure_that_would_come_again_is_not_to_be_resumed(tmp_path: Path) -> None:
    for reason, is_resumed in (("the disk is full", True), ("no finite loss; start again with --new", False)):
        writer = new_run(tmp_path / str(is_resumed))
        writer.append(attempt(), *window(1, 5), Control(5, "fail", reason))
        writer.close("failed")
        end = summarize_history(read_history(writer.run))["end"]
        assert end.startswith(f"Failed at step 5 of 40: {reason}.") and ("etude resume" in end) is is_resumed


def test_higher_is_better_for_f1_and_what_the_attempt_says_holds_for_other_metrics(tmp_path: Path) -> None:
    def scored(step: int, value: float, *, best: bool) -> Evaluation:
        return replace(evaluation(step, 3.0, best=best), metrics={"f1": value, "mine": value})

    moments = scored(0, 0.5, best=False), scored(40, 0.2, best=True)
    worse = verdict(tmp_path / "f1", *moments, changes={"evaluate.metric": "f1"})
    assert worse["verdict"][0].startswith("It did not get better: f1 was 0.500")
    writer = new_run(tmp_path / "own", {"evaluate.metric": "mine"})
    writer.append(attempt(lower_is_better=True), *window(1, 40), *moments)
    writer.close("stopped")
    assert summarize_history(read_history(writer.run))["verdict"][0].startswith("It learnt: mine fell")


def test_scores_are_compared_with_before_and_with_the_best_baseline(tmp_path: Path) -> None:
    found = verdict(tmp_path, evaluation(20, 3.0), evaluation(40, 2.0), SCORES, FINISH)
    assert found["verdict"][1] == (
        "On 100 test rows: f1 0.800 [0.750, 0.850]; better than before training (0.300); better than the best "
        "baseline, TF-IDF (0.600)."
    )
    assert best_baseline(SCORES) == "TF-IDF"


def test_a_gain_within_the_noise_is_no_learning(tmp_path: Path) -> None:
    noise = replace(
        SCORES, gains={**SCORES.gains, "before": [0.01, -0.02, 0.04], "TF-IDF": [-0.2, -0.3, -0.1]}
    )
    found = verdict(tmp_path, evaluation(0, 3.0, best=False), evaluation(40, 2.0), noise, FINISH)
    assert found["verdict"][0].startswith("It may have learnt nothing: validation loss fell")
    assert found["verdict"][0].endswith("; on the 100 test rows the change of f1 is within the noise.")
    assert "not distinguishable from before training" in found["verdict"][1]
    assert "worse than the best baseline, TF-IDF (0.600)" in found["verdict"][1]


@pytest.mark.parametrize("gain", [[0.02, 0.0, 0.08], [-0.1, -0.2, -0.05]])
def test_a_run_that_one_prediction_for_all_rows_equals_may_have_learnt_nothing(
    tmp_path: Path, gain: list[float]
) -> None:
    always = {"always y (majority class)": {"f1": [0.79, 0.7, 0.9]}}
    scores = replace(
        SCORES,
        gains={**SCORES.gains, "always y (majority class)": gain},
        systems={**SCORES.systems, **always},
    )
    found = verdict(tmp_path, evaluation(0, 3.0, best=False), evaluation(40, 2.0), scores, FINISH)
    assert found["verdict"][0].startswith("It may have learnt nothing: validation loss fell")
    assert found["verdict"][0].endswith("; always y (majority class) is not behind it beyond the noise.")


def test_a_scale_to_100_is_said_and_so_are_scores_beside_nothing(tmp_path: Path) -> None:
    systems = {"after": {"bleu": [26.7, 20.0, 33.0]}}
    alone = replace(SCORES, metric="bleu", systems=systems, gains={}, confusion=[])
    moments = [
        replace(evaluation(step, 2.0, best=step > 0), metrics={"bleu": value})
        for step, value in ((0, 0.0), (40, 0.267))
    ]
    found = verdict(tmp_path, *moments, alone, FINISH, changes={"evaluate.metric": "bleu"})["verdict"]
    assert "rose from 0 before training to 0.267 of 100 at step 40" in found[0]
    assert found[1] == "On 100 test rows: bleu 26.7 [20.0, 33.0] of 100; no other score stands beside it."


def test_a_constant_prediction_is_named(tmp_path: Path) -> None:
    constant = replace(SCORES, confusion=[[0, 50], [0, 50]])
    found = verdict(tmp_path, evaluation(0, 3.0, best=False), evaluation(40, 2.0), constant, FINISH)
    assert found["problems"] == ["It predicts the label y for all 100 test rows."]
    assert found["verdict"][0].startswith("It may have learnt nothing")
    assert constant_prediction(SCORES) is None
    one_truth = replace(SCORES, confusion=[[0, 0], [0, 100]])
    assert constant_prediction(one_truth) is None, "where all rows have one label, that is right"


def test_answers_that_are_one_text_or_never_end_are_named(tmp_path: Path) -> None:
    texts = [Generation(40, f"prompt {n}", "aaaa", {}, "reference", False) for n in range(3)]
    judged = replace(evaluation(40, 2.0), metrics={"stop_rate": 0.0, "repetition": 0.97})
    problems = verdict(tmp_path, evaluation(20, 3.0), judged, *texts, FINISH)["problems"]
    assert problems == [
        "All 3 answers shown are the same text.",
        "None of its answers ends by itself; each was cut off, after 256 tokens at most.",
        "Its answers repeat themselves: on average 97.0 % of an answer is a repetition.",
    ]


@pytest.mark.parametrize(
    ("answers", "references"),
    [(["return x", "pass"], ["return x", "pass"]), (["abcd efgh ijkl mnop"], ["abce efgi ijkm mnoq"])],
)
def test_a_bleu_of_0_beside_a_chrf_above_it_is_explained(
    tmp_path: Path, answers: list[str], references: list[str]
) -> None:
    bleu, chrf = (score(answers, [references]).score for score in (corpus_bleu, corpus_chrf))
    assert bleu == 0 and chrf > 0
    assert corpus_bleu(["a b c x"], [["a b y z"]]).score > 0, "four words, one of the reference: not 0"
    judged = replace(evaluation(40, 2.0), metrics={"bleu": bleu, "chrf": chrf})
    (problem,) = verdict(tmp_path, evaluation(20, 3.0), judged, FINISH)["problems"]
    assert problem.startswith(
        "BLEU is 0 because no answer has four words, or none has a word of its reference; "
    )
    nothing = replace(judged, metrics={"bleu": 0.0, "chrf": 0.0})
    assert verdict(tmp_path / "b", evaluation(20, 3.0), nothing, FINISH)["problems"] == []


def test_memorised_rows_are_named(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    data = DataUsed("f", {"train": {"documents": 15, "samples": 15}, "validation": {"samples": 30}})
    writer.append(attempt(steps_per_epoch=1), data, *window(1, 40))
    writer.append(evaluation(20, 5.0), evaluation(40, 6.1, best=False), FINISH)
    writer.close("finished")
    problems = summarize_history(read_history(writer.run))["problems"]
    assert len(problems) == 1
    assert problems[0].startswith(
        "It has memorised its training data: after 40 passes over 15 training samples"
    )
    assert problems[0].endswith("the validation loss 6.10, up from 5.00.")


def test_rows_that_were_cut_or_left_out_and_few_held_out_ones_are_named(tmp_path: Path) -> None:
    train = {"documents": 54, "samples": 54, "truncated": 54, "dropped": 2, "cut_away": 0}
    data = DataUsed("f", {"train": train, "validation": {"samples": 1}})
    assert verdict(tmp_path, data, evaluation(40, 2.0), FINISH)["problems"] == [
        "54 of 56 training rows were cut, being longer than train.seq_len.",
        "2 of 56 training rows were left out, being longer than train.seq_len.",
        "Only 1 sample was held out, so the validation figures say little.",
    ]


def test_pairs_may_be_cut_by_either_of_two_keys(tmp_path: Path) -> None:
    data = DataUsed("f", {"train": {"documents": 9, "samples": 9, "truncated": 2}})
    pairs = {
        "train.objective": "seq2seq", "train.target_len": 16, "model": {"kind": "encoder-decoder"},
        "data.train": [{"path": "rows.jsonl", "target": "target"}],
    }  # fmt: skip
    assert verdict(tmp_path, data, evaluation(40, 2.0), FINISH, changes=pairs)["problems"][0] == (
        "2 of 9 training rows were cut, being longer than train.seq_len or train.target_len."
    )


def test_broken_steps_and_findings_but_no_mere_information_are_named(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 40, bad=(3, 4)), evaluation(40, 2.0))
    odd = [Finding(40, "odd", "evidence", "advice"), Finding(40, "odd", "more", "advice")]
    writer.append(*odd, Finding(1, "new", "x", "y", severity="info"))
    writer.close("stopped")
    found = summarize_history(read_history(writer.run))
    assert found["problems"] == [
        "2 steps changed no weight, since the loss or gradient was not finite.", "Odd: evidence; more.",
    ]  # fmt: skip


def test_a_diverged_run_a_killed_one_and_one_without_held_out_rows_say_so(tmp_path: Path) -> None:
    writer = new_run(tmp_path / "diverged")
    writer.append(attempt(), *window(1, 40, bad=tuple(range(31, 41))))
    writer.close("stopped")
    diverged = summarize_history(read_history(writer.run))
    assert diverged["verdict"][0] == "It diverged: the training loss is not finite from step 31 on."
    killed = verdict(tmp_path / "killed", steps=(1, 20))
    command = f"etude resume {tmp_path / 'killed' / killed['name']}"
    assert killed["end"] == f"Not finished: stopped at step 20 of 40; {command} continues it."
    halves = [
        sum(loss_at(step) * (100 + step) for step in half) / sum(100 + step for step in half)
        for half in (range(1, 11), range(11, 21))
    ]
    assert killed["verdict"][0] == (
        "Nothing was held out, so its quality on other data is not known; the training loss went from "
        f"{halves[0]:.2f} to {halves[1]:.2f}."
    )
    data = DataUsed("f", {"train": {"documents": 90}, "validation": {"samples": 19}})
    early = verdict(tmp_path / "early", data, steps=(1, 20))["verdict"]
    assert early[0].startswith("It was not evaluated yet; the training loss went from ")
    writer = new_run(tmp_path / "empty")
    writer.close("stopped")
    assert summarize_history(read_history(writer.run))["verdict"][0] == "No step was made."


def test_lower_is_better_for_scores_of_a_metric_that_says_so(tmp_path: Path) -> None:
    systems = {
        "after": {"repetition": [0.1, 0.05, 0.15]}, "before": {"repetition": [0.5, 0.4, 0.6]},
        "source": {"repetition": [0.3, 0.2, 0.4]}, "nearest neighbour": {"repetition": [0.05, 0.0, 0.1]},
    }  # fmt: skip
    gains = {
        "before": [-0.4, -0.5, -0.3],
        "source": [-0.2, -0.3, -0.1],
        "nearest neighbour": [0.05, 0.02, 0.08],
    }
    scores = replace(SCORES, metric="repetition", systems=systems, gains=gains, labels=[], confusion=[])
    said = verdict(tmp_path, evaluation(20, 3.0), evaluation(40, 2.0), scores, FINISH)["verdict"][1]
    assert best_baseline(scores) == "nearest neighbour"
    assert "better than before training (0.50)" in said
    assert "worse than the best baseline, nearest neighbour (0.050)" in said


def test_learning_on_few_held_out_samples_is_said_with_care(tmp_path: Path) -> None:
    data = DataUsed("f", {"train": {"documents": 90}, "validation": {"samples": 19}})
    moments = evaluation(20, 3.0), evaluation(40, 2.0), FINISH
    assert verdict(tmp_path / "few", data, *moments)["verdict"][0].startswith("It seems to have learnt: ")
    more = replace(data, summary={**data.summary, "validation": {"samples": 20}})
    assert verdict(tmp_path / "more", more, *moments)["verdict"][0].startswith("It learnt: ")


@pytest.mark.parametrize("state", ["failed", "stopped"])
def test_the_command_of_a_run_of_any_name_runs_nothing_else(state: str, tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 5))
    writer.close(state)
    path = writer.run.path.rename(tmp_path / "$(id);x")
    assert f"etude resume '{path}' " in summarize(Run(path))["end"]


def test_an_end_that_the_journal_lacks_is_said_in_words(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 5))
    writer.close("finished")
    summary = summarize(writer.run)
    assert summary["status"] == "unknown" and summary["end"] == (
        "Its end is not known after step 5 of 40: the journal lacks its end, as if it was cut off; restore it "
        "from a copy."
    )


def test_a_journal_that_was_cut_off_within_its_last_records_does_not_say_finished(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 40), evaluation(40, 2.0), FINISH)
    writer.close("finished")
    journal = writer.run.path / "journal.jsonl"
    whole = journal.read_bytes()
    assert summarize(writer.run)["status"] == "finished"
    *_, last, end = whole.splitlines(keepends=True)
    for cut in (1, len(end), len(end) + 5, len(end) + len(last)):
        journal.write_bytes(whole[:-cut])
        assert summarize(writer.run)["status"] == "unknown"


@pytest.mark.parametrize(("severity", "is_doubted"), [("error", True), ("warning", False)])
def test_a_run_that_was_asked_for_the_wrong_thing_may_have_learnt_nothing(
    tmp_path: Path, severity: str, is_doubted: bool
) -> None:
    """Its loss falls further than that of any other."""
    writer = new_run(tmp_path)
    finding = Finding(
        0, "the loss asks for the token that the model reads", "100 %", "", severity=severity, window=[0, 0],
        kind="labels_not_shifted",
    )  # fmt: skip
    before = replace(evaluation(0, 5.0), best=False)
    writer.append(attempt(), finding, before, *window(1, 40), evaluation(40, 0.03))
    writer.close("finished")
    (learnt, *_) = summarize(writer.run)["verdict"]
    assert learnt.startswith("It may have learnt nothing: ") == is_doubted
    assert ("the watch found that the loss asks for the token that the model reads" in learnt) == is_doubted
