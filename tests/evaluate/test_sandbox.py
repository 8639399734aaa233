"""Samples run where the kernel lets them reach nothing, and pass only by passing their tests."""

import pytest

from etude.confine.room import Tier, strongest
from etude.errors import InputError
from etude.evaluate.sandbox import Problem, Sandbox
from etude.evaluate.verdicts import Limits
from tests.evaluate import attacks

_QUICK = Limits(cpu_seconds=1, asleep_seconds=1.0, memory_bytes=256 << 20)
_TIER = strongest()
needs_kernel = pytest.mark.skipif(not _TIER.confines, reason=f"this kernel confines nothing ({_TIER})")


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(limits=_QUICK, processes=2) as made:
        yield made


@needs_kernel
@pytest.mark.parametrize("attack", attacks.ATTACKS, ids=lambda each: f"{each.number}-{each.name}")
def test_no_attack_reaches_anything_or_passes(sandbox: Sandbox, attack: attacks.Attack) -> None:
    with attacks.targets() as made:
        verdict = sandbox.judge(*attacks.problem(attack, made))
        assert attacks.judge(attack, verdict, made) == [], verdict
        assert sandbox.judge("f = abs", Problem(tests="assert f(-1) == 1")).passed


@needs_kernel
def test_a_sample_that_holds_on_to_its_time_is_over_it_all_the_same(sandbox: Sandbox) -> None:
    sample = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\ndef f(x):\n    while True: pass"
    assert sandbox.judge(sample, Problem(tests="assert f(2) == 3")).outcome == "cpu"


@needs_kernel
def test_outcomes_are_named(sandbox: Sandbox) -> None:
    tests = Problem(tests="assert f(2) == 3")
    samples = {
        "passed": "f = lambda x: x + 1", "failed": "f = lambda x: x", "error": "f = lambda x: x.none",
        "cpu": "def f(x):\n    while True: pass", "asleep": "import time\nf = lambda x: time.sleep(600)",
        "memory": "f = lambda x: bytearray(1 << 30)", "ended": "import os\nf = lambda x: os.abort()",
    }  # fmt: skip
    verdicts = list(sandbox.run([(sample, tests) for sample in samples.values()]))
    assert [verdict.outcome for verdict in verdicts] == list(samples)
    assert [verdict.may_differ for verdict in verdicts] == [False, False, False, True, True, True, True]
    assert verdicts[0].words == "" and "no attribute 'none'" in verdicts[2].words


@needs_kernel
def test_tests_that_end_early_are_not_passed(sandbox: Sandbox) -> None:
    for tests in ("raise SystemExit(0)", "import os; os._exit(0)", "assert False", "syntax error", "1 / 0"):
        assert not sandbox.judge("f = abs", Problem(tests=tests)).passed, tests


@needs_kernel
def test_a_process_that_was_killed_is_begun_again() -> None:
    with Sandbox(limits=_QUICK, processes=1) as made:
        problem = Problem(tests="assert f(-1) == 1")
        assert made.judge("f = abs", problem).passed
        made._idle[0]._process.kill()
        assert made.judge("f = abs", problem).passed


def test_without_a_tier_nothing_runs_unless_it_is_asked_for() -> None:
    for tier in (Tier(), Tier(0, True, True), Tier(7, False, True)):
        with pytest.raises(InputError, match="--unsafe-exec"):
            Sandbox(tier=tier)
    with Sandbox(tier=Tier(), is_unsafe=True, processes=1) as unsafe:
        assert str(unsafe.tier) == "limits"
        assert unsafe.judge("f = abs", Problem(tests="assert f(-1) == 1")).passed


@needs_kernel
def test_a_pool_goes_on_while_samples_fork_and_take_memory(sandbox: Sandbox) -> None:
    bombs = [attack.sample for attack in attacks.ATTACKS if attack.number in (11, 13, 47, 48)]
    good = ("f = lambda: 1", Problem(tests="assert f() == 1"))
    samples = [each for bomb in bombs for each in ((bomb, good[1]), good, good)]
    assert [verdict.passed for verdict in sandbox.run(samples)] == [False, True, True] * len(bombs)
