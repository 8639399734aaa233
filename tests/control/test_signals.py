import os
import signal
import threading

import pytest

from etude.control.signals import SIGNALS, StopSignals, is_ignored, leave_before_start, one_interrupt
from etude.interruption import Abandoned


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert signals.requested is None
        os.kill(os.getpid(), number)
        assert signals.requested == number.name
    assert signal.getsignal(number) is before


def test_a_second_signal_interrupts_at_once() -> None:
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        assert signals.requested == "SIGTERM"


def test_a_signal_ahead_of_the_end_never_interrupts_and_the_end_is_the_first() -> None:
    told: list[str] = []
    with StopSignals(told.append) as signals:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGUSR1)
        assert (signals.requested, told) == ("SIGUSR1", ["SIGUSR1"])
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert (signals.requested, told) == ("SIGTERM", ["SIGUSR1", "SIGTERM"])
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()


def test_a_process_that_a_run_forks_has_none_of_its_handlers() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopSignals():
        child = os.fork()
        if not child:
            os._exit([signal.getsignal(number) for number in SIGNALS] != before)
        assert os.waitpid(child, 0)[1] == 0
        assert [signal.getsignal(number) for number in SIGNALS] != before


def test_several_in_one_process_are_each_told_and_the_last_to_leave_brings_the_handlers_back() -> None:
    before, first, second = signal.getsignal(signal.SIGTERM), StopSignals(), StopSignals()
    with first:
        second.__enter__()
        os.kill(os.getpid(), signal.SIGTERM)
        assert first.requested == second.requested == "SIGTERM"
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    second.__exit__()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_was_ignored_at_the_start_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            assert is_ignored(signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.requested is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_another_thread_signals_stay_as_they_are() -> None:
    before, inside = [signal.getsignal(number) for number in SIGNALS], []

    def enter() -> None:
        with StopSignals():
            inside.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert inside == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_dropped_stops_a_run_before_it_begins() -> None:
    class Dropping:
        def __del__(self) -> None:  # where Python prints exceptions and goes on
            signal.raise_signal(signal.SIGINT)

    with one_interrupt() as came:
        Dropping()
        assert len(came) == 1
        with pytest.raises(KeyboardInterrupt), StopSignals():
            pass
    with StopSignals() as signals:
        assert signals.requested is None


def test_a_burst_of_interrupts_is_one() -> None:
    with one_interrupt() as came:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
        os.kill(os.getpid(), signal.SIGINT)
        assert len(came) == 2


def test_a_signal_ahead_of_the_end_leaves_a_process_that_has_not_begun() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(Abandoned), leave_before_start():
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGUSR1)
        assert signals.requested == "SIGUSR1"
        if not (child := os.fork()):  # a worker of the preparation is ended as by default
            os._exit(0 if signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL else 1)
        assert os.waitpid(child, 0)[1] == 0
        signal.raise_signal(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) is before
