"""A minute of what etude promises, tried on the user's own machine: `etude selftest`.

A model of 110,000 parameters learns a part of etude's own source. Each check says what it saw, and one that
fails costs the others nothing.
"""

import contextlib
import hashlib
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from etude import durable
from etude.checks import Absent, Check, require, run_all
from etude.doctor import try_folder
from etude.processes import python_command, python_environment
from etude.records.environment import describe_environment
from etude.records.events import Step
from etude.records.store import Run, list_runs

STEPS, SAVED_EVERY = 24, 4
_PATIENCE_SECONDS = 300.0
_RECIPE = """
name = "selftest"
[model]
n_layer = 2
n_head = 2
n_embd = 64
[tokenizer]
train_vocab_size = 512
[[data.train]]
path = {corpus}
[data]
validation_ratio = 0.1
[train]
steps = {steps}
seq_len = 128
global_batch_size = 4
device = "{device}"
[evaluate]
every_steps = 12
[checkpoint]
every_steps = {saved}
[records]
log_every_steps = 1
"""


def run_checks(told: Callable[[Check], None] = lambda check: None) -> dict[str, Any]:
    """Try each promise in a temporary folder, and return a record of the machine and the checks."""
    with tempfile.TemporaryDirectory(prefix="etude-selftest-") as folder:
        checks = []
        for check in run_all(_checks(Path(folder))):
            told(check)
            checks.append(check)
        found = describe_environment(Path(folder))
    about = {name: found[name] for name in ("versions", "machine")}
    return {**about, "checks": [asdict(check) for check in checks]}


def _checks(folder: Path) -> list[tuple[str, Callable[[], str]]]:
    """Checks in the order of what they need: each later one takes what an earlier one made."""
    return [
        ("files reach the disk", lambda: try_folder(folder)),
        ("a run trains", lambda: _trains(folder)),
        ("a killed run goes on bit for bit", lambda: _goes_on(folder)),
        ("a changed record is named", lambda: _names_damage(folder)),
        ("transformers computes the same", lambda: _agrees(folder)),
        ("a GPU learns as the CPU does", lambda: _learns_on_gpu(folder)),
    ]


def _trains(folder: Path) -> str:
    _train(folder, "whole")
    losses = _losses(_only(folder / "whole"))
    require(len(losses) == STEPS, f"{len(losses)} of {STEPS} steps are in the journal")
    require(losses[-1] < losses[0], f"the loss did not fall: {losses[0]:.3f} to {losses[-1]:.3f}")
    return f"{STEPS} steps, loss {losses[0]:.3f} to {losses[-1]:.3f}"


def _goes_on(folder: Path) -> str:
    """SIGKILL after some steps, the same command once more, and the weights of the run that nobody killed."""
    with _training(folder, "killed") as process:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            runs = list_runs(folder / "killed") if (folder / "killed").is_dir() else []
            if runs and len(_losses(runs[0])) >= STEPS // 3:
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    reached = len(_losses(_only(folder / "killed")))
    _train(folder, "killed")
    whole, killed = _only(folder / "whole"), _only(folder / "killed")
    require(_losses(whole) == _losses(killed), "the losses after the kill differ from those of the whole run")
    require(
        _weights(whole) == _weights(killed), "the weights after the kill differ from those of the whole run"
    )
    return f"killed after step {reached} of {STEPS}; losses and weights are those of the whole run"


def _names_damage(folder: Path) -> str:
    """One figure of a copied journal is changed, and reading it says so."""
    copy = folder / "changed"
    copy.mkdir()
    lines = (_only(folder / "whole").path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    place = next(index for index, line in enumerate(lines) if line.startswith(b'{"type": "step"'))
    lines[place] = re.sub(rb'("loss": )\d', lambda found: found[1] + b"0", lines[place], count=1)
    durable.write_file(copy / "journal.jsonl", b"".join(lines))
    damaged = Run(copy).ledger().damaged
    require(damaged == [place + 1], "the loss of a step was changed in a journal, and nobody said so")
    return f"the loss in line {place + 1} of a copied journal"


def _agrees(folder: Path) -> str:
    """The exported model in transformers has the logits that etude computes."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from etude.export import export, find_folder, load_model

    logging.disable_progress_bar()
    run = _only(folder / "whole")
    out = export(str(run.path), "hf", folder / "exported")
    ours: Any = load_model(find_folder(str(run.path), folder), dtype=torch.float32).eval()
    theirs = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, use_safetensors=True).eval()
    ids = torch.arange(5, 105).reshape(2, 50)
    with torch.no_grad():
        difference = float((ours.logits(ids) - theirs(input_ids=ids).logits).abs().max())
    require(difference < 1e-4, f"logits differ by {difference:.1e}")
    return f"logits within {difference:.0e}"


def _learns_on_gpu(folder: Path) -> str:
    import torch

    if not torch.cuda.is_available():
        raise Absent("torch finds no GPU here")
    _train(folder, "gpu", device="cuda")
    ours, theirs = _losses(_only(folder / "gpu")), _losses(_only(folder / "whole"))
    require(
        abs(ours[-1] / theirs[-1] - 1) < 0.02, f"the loss is {ours[-1]:.3f} there and {theirs[-1]:.3f} here"
    )
    return f"{torch.cuda.get_device_name()}: loss {ours[-1]:.3f}, on the CPU {theirs[-1]:.3f}"


def _train(folder: Path, runs: str, device: str = "cpu") -> None:
    with _training(folder, runs, device) as process:
        _, said = process.communicate(timeout=_PATIENCE_SECONDS)
        require(
            process.returncode == 0, said.strip().splitlines()[-1] if said.strip() else "etude train failed"
        )


@contextlib.contextmanager
def _training(folder: Path, runs: str, device: str = "cpu") -> Iterator["subprocess.Popen[str]"]:
    """`etude train` in a process of its own, which is not there any more after."""
    recipe = folder / f"{device}.toml"
    if not recipe.exists():
        text = _RECIPE.format(corpus=_quoted(_corpus(folder)), steps=STEPS, saved=SAVED_EVERY, device=device)
        durable.write_file(recipe, text.encode())
    command = python_command("etude", "train", str(recipe), "--runs", str(folder / runs))
    environment = {**python_environment(), "ETUDE_CACHE": str(folder / "cache")}
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()


def _corpus(folder: Path) -> Path:
    """The source of etude itself, a text that every user has."""
    path = folder / "corpus.txt"
    if not path.exists():
        sources = sorted((Path(__file__).parent / "recipe").glob("*.py"))
        durable.write_file(path, b"".join(source.read_bytes() for source in sources)[:100_000])
    return path


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _only(runs: Path) -> Run:
    found = list_runs(runs)
    require(len(found) == 1, f"{len(found)} runs where one was made")
    return found[0]


def _losses(run: Run) -> list[float]:
    """The losses of the steps in the journal; none before it exists."""
    if not (run.path / "journal.jsonl").exists():
        return []
    return [entry.event.loss for entry in run.ledger().entries if isinstance(entry.event, Step)]


def _weights(run: Run) -> str:
    last = max(run.checkpoints.iterdir(), key=lambda path: path.name)
    names = sorted(path.name for path in last.iterdir() if path.suffix == ".safetensors")
    return hashlib.sha256(b"".join((last / name).read_bytes() for name in names)).hexdigest()
