"""The end of a sweep is told with every trial that did not finish, and how to go on."""

from etude.sweep.outcome import Outcome, describe_outcome


def test_trials_that_did_not_finish_are_named_with_their_reason() -> None:
    lines = describe_outcome(Outcome(1, 3, {"net-lr1": "diverged", "net-lr2": "not started: budget"}))
    assert lines == [
        "1 of 3 trials finished",
        "not finished: net-lr1: diverged",
        "not finished: net-lr2: not started: budget",
    ]
    assert describe_outcome(Outcome(0, 1, is_stopped=True))[-1] == "stopped; the same command goes on"
