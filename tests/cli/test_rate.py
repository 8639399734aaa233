from collections.abc import Callable
from pathlib import Path

import pytest

from etude.cli.rate import questions, rate
from etude.errors import InputError
from etude.report.summary import describe, summarize
from etude.report.write import write_report
from tests.cli.rated import ratings, refuse, talkative_run
from tests.conftest import Outcome
from tests.report.runs import finished_run


def test_each_answer_is_kept_at_once_and_not_asked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = talkative_run(tmp_path, "a")
    answers = iter(["9", "4", "s", " 2 ", "Q"])
    rate([run], rater="anna", ask=lambda _: next(answers))
    assert [(r.prompt, r.step, r.score, r.against) for r in ratings(run)] == [
        ("prompt 0", 8, 4.0, None), ("prompt 2", 8, 2.0, None),
    ]  # fmt: skip
    assert ratings(run)[0].text == "a 0 at 8\x1b[31m"
    assert "\x1b" not in capsys.readouterr().err
    assert [question.prompt for question in questions([run], rater="anna")] == [
        f"prompt {n}" for n in (1, 3, 4, 5)
    ]
    assert len(questions([run], rater="bo")) == 6
    rows = rate([run], rater="bo", scores=["5"] * 6, ask=refuse)
    assert str(rows[run.name]) == f"{(4 + 2 + 30) / 8:.2f} of 5, mean of 8 ratings (by anna, bo)"
    assert dict(describe(summarize(run)))["ratings"] == str(rows[run.name])
    assert f"| Ratings by people | {rows[run.name]} |" in write_report(run).read_text()


def test_two_runs_are_rated_blind_in_an_order_of_the_seed(tmp_path: Path) -> None:
    a, b = talkative_run(tmp_path, "a"), talkative_run(tmp_path, "b", prompts=5)
    asked = questions([a, b], rater="anna")
    assert [question.prompt for question in asked] == [f"prompt {n}" for n in range(5)]
    orders = [question.runs[0].name for question in asked]
    assert len(set(orders)) == 2 and orders == [q.runs[0].name for q in questions([a, b], rater="anna")]
    shown = str([question.to_dict() for question in asked])
    assert a.name not in shown and b.name not in shown
    # The rater prefers a wherever it stands, but for one tie.
    scores = ["=" if index == 3 else "a" if name == a.name else "b" for index, name in enumerate(orders)]
    rows = rate([a, b], rater="anna", scores=scores, ask=refuse)
    assert str(rows[a.name]) == f"better than {b.name} 4, as good 1, worse 0 times (by anna)"
    assert str(rows[b.name]) == f"better than {a.name} 0, as good 1, worse 4 times (by anna)"
    assert questions([a, b], rater="anna") == []
    assert len(questions([a], rater="anna")) == 6


def test_the_end_of_the_input_ends_the_rating(tmp_path: Path) -> None:
    def end(_: str) -> str:
        raise EOFError

    run = talkative_run(tmp_path, "a")
    assert rate([run], rater="anna", ask=end)[run.name].count == 0


def test_the_rater_is_the_person_at_the_machine_where_no_other_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, etude: Callable[..., Outcome]
) -> None:
    run = talkative_run(tmp_path, "a")
    monkeypatch.setenv("LOGNAME", "clara")
    assert etude("rate", run.name, "--runs", tmp_path, "--scores", "4,4,4,4,4,4").code == 0
    assert {rating.rater for rating in ratings(run)} == {"clara"}

    def fail() -> str:
        raise OSError

    monkeypatch.setattr("getpass.getuser", fail)
    nameless = etude("rate", run.name, "--runs", tmp_path)
    assert nameless.code == 2 and "this account has no name; give who rates with --rater NAME" in nameless.err


@pytest.mark.parametrize("scores", [["4"] * 5, ["4"] * 7, ["4"] * 5 + ["6"], ["a"] * 6, ["nan"] * 6, []])
def test_scores_that_do_not_fit_keep_nothing(tmp_path: Path, scores: list[str]) -> None:
    run = talkative_run(tmp_path, "a")
    before = (run.path / "journal.jsonl").read_bytes()
    with pytest.raises(InputError, match="score"):
        rate([run], rater="anna", scores=scores, ask=refuse)
    assert (run.path / "journal.jsonl").read_bytes() == before


def test_what_cannot_be_rated_is_one_line(tmp_path: Path) -> None:
    silent, run = finished_run(tmp_path), talkative_run(tmp_path, "a")
    for runs, rater, words in (
        ([silent], "anna", "there are no texts of"), ([run, silent], "anna", "equal prompts"),
        ([run, run], "anna", "two different ones"), ([run], " ", "no name"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words) as caught:
            questions(runs, rater=rater)
        assert "\n" not in str(caught.value)


def test_a_rating_of_days_later_adds_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = talkative_run(tmp_path, "a")
    before = summarize(run)["wall_seconds"]
    monkeypatch.setattr("time.time", lambda: 4e9)
    rate([run], rater="anna", scores=["3"] * 6, ask=refuse)
    assert summarize(run)["wall_seconds"] == before
