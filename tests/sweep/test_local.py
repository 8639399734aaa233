"""Processes of stages on this machine: what they share, how they end, and that a signal reaches them."""

import contextlib
import signal
from dataclasses import replace
from pathlib import Path

from etude.sweep.dispatch import Device
from etude.sweep.grid import load_sweep
from etude.sweep.local import Exit, LocalProcesses
from tests.processes import wait_for
from tests.sweeps import starter_of, sweep_values, write_sweep


def make(folder: Path, corpus: Path, resources: dict[str, float]) -> LocalProcesses:
    values = sweep_values(corpus, {"train.steps": [2]})
    return LocalProcesses(load_sweep(write_sweep(folder / "sweep.toml", {**values, "resources": resources})))


def wait(processes: LocalProcesses, count: int) -> list[Exit]:
    found: list[Exit] = []

    def are_all() -> bool:
        found.extend(event for event in processes.poll() if isinstance(event, Exit))
        return len(found) == count

    wait_for(are_all)
    return found


def test_devices_are_shared_within_their_rooms_and_memory(tmp_path: Path, corpus: Path) -> None:
    with contextlib.closing(make(tmp_path, corpus, {"at_once": 3, "memory_gb": 2.0})) as processes:
        assert processes.devices == [Device("cpu", 3, 2_000_000_000)]
    with contextlib.closing(make(tmp_path, corpus, {})) as processes:
        (device,) = processes.devices
    assert device.at_once >= 1 and device.memory_bytes and device.memory_bytes > 1e8


def test_a_process_ends_with_its_code_and_its_words_in_the_log(tmp_path: Path, corpus: Path) -> None:
    processes, log = make(tmp_path, corpus, {}), tmp_path / "log"
    processes.start("one", processes.devices[0], ["show", "nosuch"], log)
    assert wait(processes, 1) == [Exit("one", 2)]
    assert "there is no run nosuch" in log.read_text()
    assert processes.poll() == []
    processes.close()


def test_a_signal_reaches_all_that_run(tmp_path: Path, corpus: Path) -> None:
    processes = make(tmp_path, corpus, {})
    for name in ("one", "two"):
        processes.start(name, processes.devices[0], ["generate", "--help"], tmp_path / name)
    processes.signal(signal.SIGKILL)
    assert {ended.code for ended in wait(processes, 2)} == {-signal.SIGKILL}
    processes.close()


def test_the_compiler_is_loaded_once_where_trials_compute_activations_again(
    tmp_path: Path, corpus: Path
) -> None:
    values = sweep_values(corpus, {"train.activation_checkpointing": [False, True]}, {"train.steps": 2})
    sweep = load_sweep(write_sweep(tmp_path / "sweep.toml", values))
    for trials, modules in ((sweep.trials[:1], []), (sweep.trials, ["torch._dynamo"])):
        with contextlib.closing(LocalProcesses(replace(sweep, trials=trials))):
            words = [word for word in starter_of().cmdline() if word != "tests.undrawn"]
            assert words[-len(modules) - 1 :] == ["etude.sweep.starter", *modules]
