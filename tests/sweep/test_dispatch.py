"""Every trial of a sweep ends once, within rooms and memory, whatever fails: by its decisions alone."""

import importlib.util
import random
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.sweep.dispatch import (
    MOST_KILLS,
    MOST_LOSSES,
    Added,
    Branched,
    Device,
    Dispatcher,
    Ended,
    GiveUp,
    Job,
    Joined,
    Lost,
    Start,
)

GB = 1_000_000_000


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "sweep_scale.py"
    spec = importlib.util.spec_from_file_location("sweep_scale", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["sweep_scale"] = module
    spec.loader.exec_module(module)
    return module


@given(st.integers(1, 120), st.integers(1, 12), st.integers(0, 10_000), st.integers(0, 3))
def test_all_trials_end_on_workers_that_fail_at_random(
    scale: ModuleType, trials: int, workers: int, seed: int, restarts: int
) -> None:
    world, dispatcher, _ = scale.simulate(trials, workers, seed, restarts=restarts)
    assert dispatcher.is_over and not dispatcher.running
    assert len(dispatcher.finished | dispatcher.given_up) == trials
    assert not dispatcher.finished & dispatcher.given_up
    assert set(world.ended) == {f"trial-{number}" for number in range(trials)}


@given(st.integers(1, 60), st.integers(1, 5), st.integers(0, 1000))
def test_no_device_is_given_more_than_its_rooms_and_memory(
    scale: ModuleType, trials: int, at_once: int, seed: int
) -> None:
    jobs = scale.make_jobs(trials, random.Random(seed))
    known, dispatcher = {job.name: job for job in jobs}, Dispatcher(jobs)
    device = Device("one", at_once, 16 * GB)
    running = {action.name for action in dispatcher.decide(Joined(device)) if isinstance(action, Start)}
    while running:
        assert len(running) <= at_once
        needs = [known[name].memory_bytes or device.memory_bytes // at_once for name in running]  # type: ignore[operator]
        assert sum(needs) <= 16 * GB
        name = min(running)
        running.discard(name)
        for action in dispatcher.decide(Ended(name, "finished")):
            assert isinstance(action, Start) and action.name not in dispatcher.finished
            running.add(action.name)
    assert dispatcher.is_over


def names(actions: object) -> list[str]:
    assert isinstance(actions, list)
    return [action.name for action in actions if isinstance(action, Start)]


def test_priority_goes_first_then_the_longest() -> None:
    jobs = [Job("short", None, 1, 5.0), Job("low", None, 0, 99.0), Job("long", None, 1, 9.0)]
    dispatcher = Dispatcher(jobs)
    assert names(dispatcher.decide(Joined(Device("one")))) == ["long"]
    assert names(dispatcher.decide(Ended("long", "finished"))) == ["short"]
    assert names(dispatcher.decide(Ended("short", "finished"))) == ["low"]


def test_small_trials_share_a_device_up_to_its_memory() -> None:
    jobs = [Job(f"job-{number}", None, 0, 1.0, 3 * GB) for number in range(4)]
    assert names(Dispatcher(jobs).decide(Joined(Device("one", 8, 10 * GB)))) == ["job-0", "job-1", "job-2"]


def test_a_large_trial_is_not_passed_by_small_ones_for_ever() -> None:
    jobs = [Job("first", None, 2, 1.0, 6 * GB), Job("large", None, 1, 1.0, 9 * GB)]
    jobs += [Job(f"small-{number}", None, 0, 1.0, 2 * GB) for number in range(100)]
    dispatcher = Dispatcher(jobs)
    running = names(dispatcher.decide(Joined(Device("one", 9, 10 * GB))))
    order = list(running)
    while running and "large" not in order:
        started = names(dispatcher.decide(Ended(running.pop(0), "finished")))
        running += started
        order += started
    assert "large" in order and len(order) < 40


def test_a_trial_goes_on_from_another_once_that_has_reached_its_step() -> None:
    dispatcher = Dispatcher([Job("long"), Job("short", "long")])
    assert names(dispatcher.decide(Joined(Device("one", 4)))) == ["long"]
    assert names(dispatcher.decide(Branched("short"))) == ["short"]
    assert dispatcher.decide(Branched("short")) == []
    assert dispatcher.decide(Ended("long", "finished")) == []
    assert dispatcher.decide(Ended("short", "finished")) == [] and dispatcher.is_over


@pytest.mark.parametrize("how", ["finished", "failed"])
def test_a_trial_whose_branch_never_came_is_trained_by_itself(how: str) -> None:
    dispatcher = Dispatcher([Job("long"), Job("short", "long")])
    dispatcher.decide(Joined(Device("one")))
    actions = dispatcher.decide(Ended("long", how, "it broke"))
    assert [each.name for each in actions if isinstance(each, GiveUp)] == ["long"] * (how == "failed")
    assert names(actions) == ["short"]


def test_a_trial_that_is_killed_without_progress_is_given_up_and_named() -> None:
    dispatcher = Dispatcher([Job("one"), Job("two")])
    dispatcher.decide(Joined(Device("one")))
    for _ in range(MOST_KILLS + 2):  # with progress it goes on
        assert names(dispatcher.decide(Ended("one", "killed", "killed", is_ahead=True))) == ["one"]
    for _ in range(MOST_KILLS - 2):
        assert names(dispatcher.decide(Ended("one", "killed", "killed by SIGKILL"))) == ["one"]
    actions = dispatcher.decide(Ended("one", "killed", "killed by SIGKILL"))
    assert actions[0] == GiveUp("one", "killed by SIGKILL, 3 times without progress")
    assert names(actions) == ["two"]


def test_a_trial_whose_machines_are_lost_is_tried_more_often_with_the_same_memory() -> None:
    dispatcher = Dispatcher([Job("one", None, 0, 1.0, 4 * GB)])
    dispatcher.decide(Joined(Device("one", 1, 5 * GB)))
    for _ in range(MOST_LOSSES - 1):
        assert names(dispatcher.decide(Ended("one", "lost", "its node is gone"))) == ["one"]
    (action,) = dispatcher.decide(Ended("one", "lost", "its node is gone"))
    assert action == GiveUp("one", "its node is gone, 20 times without progress")


def test_a_trial_that_can_never_fit_is_told_and_the_others_go_on() -> None:
    dispatcher = Dispatcher([Job("huge", None, 9, 1.0, 50 * GB), Job("small", None, 0, 1.0, GB)])
    device = Device("one", 1, 40 * GB)
    refused = GiveUp("huge", "it needs 50.0 GB, and no device gives more than 40.0 GB")
    assert dispatcher.refuse([device]) == [refused]
    assert names(dispatcher.decide(Joined(device))) == ["small"]
    assert dispatcher.decide(Ended("small", "finished")) == [] and dispatcher.is_over


def test_what_ran_on_a_lost_device_runs_elsewhere() -> None:
    dispatcher = Dispatcher([Job(f"job-{number}") for number in range(4)])
    dispatcher.decide(Joined(Device("one", 2)))
    dispatcher.decide(Joined(Device("two", 2)))
    assert dispatcher.decide(Lost("one")) == []
    for name in ("job-0", "job-1"):
        assert dispatcher.decide(Ended(name, "lost")) == []
    started = [
        name for done in ("job-2", "job-3") for name in names(dispatcher.decide(Ended(done, "finished")))
    ]
    assert Counter(started) == Counter(["job-0", "job-1"])


def test_a_new_dispatcher_goes_on_from_what_is_there() -> None:
    jobs = [Job("long"), Job("short", "long"), Job("other"), Job("done")]
    dispatcher = Dispatcher(jobs, finished={"done"}, branched={"short"}, running={"long": "one"})
    assert names(dispatcher.decide(Joined(Device("one", 2)))) == ["short"]
    assert names(dispatcher.decide(Ended("long", "finished"))) == ["other"]


def test_trials_that_are_added_when_all_have_ended_are_started() -> None:
    dispatcher = Dispatcher([Job("first")])
    assert names(dispatcher.decide(Joined(Device("one", 2, 2 * GB)))) == ["first"]
    dispatcher.decide(Ended("first", "finished"))
    assert dispatcher.is_over
    actions = dispatcher.decide(Added([Job("a"), Job("b"), Job("large", memory_bytes=3 * GB)]))
    assert names(actions) == ["a", "b"] and not dispatcher.is_over
    assert [action.name for action in actions if isinstance(action, GiveUp)] == ["large"]


@given(st.integers(1, 30), st.integers(1, 4), st.integers(1, 400), st.integers(0, 1000))
def test_no_trial_starts_whose_forecast_is_beyond_what_is_left(
    count: int, at_once: int, budget: int, seed: int
) -> None:
    draw = random.Random(seed)
    jobs = {f"t{n}": Job(f"t{n}", None, draw.randrange(3), draw.uniform(1, 50)) for n in range(count)}
    dispatcher, spent = Dispatcher(list(jobs.values()), budget=budget), dict[str, float]()
    running, actions = dict[str, float](), dispatcher.decide(Joined(Device("one", at_once, 16 * GB)))
    while actions or running:
        for name in names(actions):
            running[name] = jobs[name].seconds
            assert sum(spent.values()) + sum(running.values()) <= budget + 1e-6
        name = draw.choice(sorted(running))
        spent[name] = running.pop(name) * draw.uniform(0.5, 1.0)
        actions = dispatcher.decide(Ended(name, "finished", seconds=spent[name]))
    assert dispatcher.is_over and spent.keys() | dispatcher.beyond.keys() == jobs.keys()
    left = budget - sum(spent.values())
    assert all(jobs[name].seconds > left for name in dispatcher.beyond)


def test_a_budget_goes_to_the_highest_priority_first_even_if_it_has_to_wait() -> None:
    jobs = [Job("first", None, 3, 60.0), Job("second", None, 2, 50.0), Job("small", None, 1, 5.0)]
    dispatcher = Dispatcher(jobs, budget=100.0)
    assert names(dispatcher.decide(Joined(Device("one", 2, GB)))) == ["first"]
    assert names(dispatcher.decide(Ended("first", "finished", seconds=49.0))) == ["second"]
    assert not dispatcher.decide(Ended("second", "finished", seconds=50.0))
    assert dispatcher.is_over and "not started: budget" in dispatcher.beyond["small"]


def test_what_a_trial_took_before_counts_and_one_that_waits_for_another_is_left_out_with_it() -> None:
    jobs = [Job("long", None, 1, 90.0), Job("short", "long", 1, 20.0), Job("begun", None, 0, 40.0)]
    dispatcher = Dispatcher(jobs, budget=50.0, spent={"begun": 30.0})
    assert names(dispatcher.decide(Joined(Device("one", 1, GB)))) == ["begun"]
    assert "goes on from long" in dispatcher.beyond["short"]


def test_a_paused_trial_ends_a_sweep_until_it_is_added_again() -> None:
    jobs = [Job("a", seconds=2.0), Job("b", seconds=1.0)]
    dispatcher = Dispatcher(jobs, budget=100.0)
    assert dispatcher.decide(Joined(Device("one"))) == [Start("a", "one")]
    assert dispatcher.decide(Ended("a", "paused", seconds=2.0)) == [Start("b", "one")]
    assert not dispatcher.decide(Added([Job("a", seconds=6.0)])) and not dispatcher.paused
    assert dispatcher.decide(Ended("b", "paused", seconds=1.0)) == [Start("a", "one")]
    assert not dispatcher.is_over and not dispatcher.decide(Ended("a", "finished", seconds=6.0))
    assert dispatcher.is_over and dispatcher.paused == {"b"} and dispatcher.finished == {"a"}
    later = Dispatcher(jobs, finished=["a"], paused=["b"])
    assert later.is_over and not later.decide(Joined(Device("one")))
