"""The executor of a sweep is this machine, unless its file names a cluster."""

from pathlib import Path

from etude.sweep.executor import open_processes
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import load_sweep
from etude.sweep.local import LocalProcesses
from tests.sweeps import sweep_values, write_sweep


def test_processes_are_on_this_machine_and_let_go_of_at_the_end(tmp_path: Path, corpus: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path / "sweep.toml", sweep_values(corpus, {"train.steps": [2, 4]})))
    with open_processes(sweep, SweepFolder(tmp_path / "place"), print) as processes:
        assert isinstance(processes, LocalProcesses) and [each.name for each in processes.devices] == ["cpu"]
        assert processes.poll() == []
