from pathlib import Path

from etude.records.events import Control
from etude.records.ledger import Entry, Ledger
from etude.records.store import Run
from etude.report.history import History
from etude.report.interventions import describe_interventions, interventions, origin_text

RATE = "optim.learning_rate"
CONTROLS = [
    Control(
        8, "change", f"{RATE} is 0.001 after step 8: it | jumps", "r-1", {RATE: 1e-3}, 8,
        before={RATE: 3e-3}, who="ann@host", channel="command line",
    ),
    Control(9, "accept", "it acts after step 10", "r-2", who="ann@host", channel="command line"),
    Control(9, "refuse", "set: seed cannot be changed", "r-3", who="bob@host"),
    Control(4, "back", f"{RATE} is 0.0003 after step 4: a spike", "watch", {RATE: 3e-4}, 4, before={RATE: 1e-3}),
    Control(0, "change", "evaluate.patience is 3 after step 6", None, {"evaluate.patience": 3}, 6, channel="replay"),
]  # fmt: skip


def history_of(tmp_path: Path, **info: object) -> History:
    run = Run(tmp_path)
    vars(run)["info"] = {"id": "a", **info}
    return History(run, Ledger([Entry(each, 1e9, 1) for each in CONTROLS], [], []))


def test_each_intervention_is_a_line_of_when_who_and_what(tmp_path: Path) -> None:
    assert list(map(str, interventions(history_of(tmp_path)))) == [
        "step 8: ann@host (command line), optim.learning_rate 0.003 → 0.001: it | jumps",
        "step 9: bob@host, refuse: set: seed cannot be changed",
        "step 4: the watch, back to step 4, optim.learning_rate 0.001 → 0.0003: a spike",
        "step 0: the replay, evaluate.patience = 3 after step 6",
    ]


def test_the_report_has_the_changes_as_a_replay_takes_them(tmp_path: Path) -> None:
    text = "\n".join(describe_interventions(history_of(tmp_path)))
    assert "it \\| jumps" in text and "2001-09-09 01:46:40" in text
    assert '[[changes]]\nstep = 4\nkey = "optim.learning_rate"\nvalue = 0.0003\n[[changes]]\nstep = 6' in text


def test_a_fork_and_a_replay_say_where_they_come_from(tmp_path: Path) -> None:
    origin = {"run": "first-1", "step": 40, "changes": {"optim.weight_decay": 0.3}}
    told = "step 40 of first-1, with optim.weight_decay = 0.3"
    assert origin_text(history_of(tmp_path, origin=origin)) == told
    assert origin_text(history_of(tmp_path, replays="first-1")) == "a replay of first-1"
    assert origin_text(history_of(tmp_path, parent="first")) == "the weights of first"
    assert origin_text(history_of(tmp_path)) is None
