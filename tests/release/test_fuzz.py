"""Each file that may come from a stranger is read, or refused in one line, whatever stands in it.

`make test` tries some contents of each, the same ones; `make release-check` many thousands, and new ones.
"""

import json
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from etude.control.copy import read_manifest
from etude.control.mailbox import Mailbox, post
from etude.engine.checkpoint import newest_valid, read_progress, verify_checkpoint
from etude.engine.tensor_files import read_tensors
from etude.errors import EtudeError
from etude.models.adapter_files import read_adapter_config
from etude.models.pretrained import inspect_model
from etude.models.weights import read_weights, tensor_shapes
from etude.recipe.data import Source
from etude.recipe.load import load_recipe
from etude.records.journal import Reader
from etude.records.store import Run, list_runs
from etude.report.history import read_history
from etude.run import Training
from etude.start import Options
from etude.verify.checking import check_path
from etude.watch.logs.read import read_log
from tests.bases import write_instructions, write_labelled, write_qwen2
from tests.release.mangle import mangled, with_odd_values
from tests.release.runs import write_run

QUICK, RELEASE = 40, 20_000  # contents of each file
_MOST_BYTES = 700 << 20  # that reading all of them may add
_SIX = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "peft_type": "LORA", "task_type": "CAUSAL_LM"}


@dataclass(frozen=True)
class File:
    """A file in a folder of its own kind, and what reads it; json: some of its values are replaced too."""

    name: str
    read: Callable[[Path], object]
    json: bool = True


def _documents(**source: Any) -> Callable[[Path], object]:
    from etude.data.sources import read_documents

    return lambda path: list(read_documents(Source(path=str(path), **source)))


def _run(path: Path) -> Run:
    """The run that a file belongs to, with all that pages and commands ask it for."""
    run = Run(next(each for each in path.parents if (each / "checkpoints").is_dir()))
    for ask in (lambda: run.info, lambda: run.state, lambda: run.best, lambda: run.recipe, run.ledger,
                lambda: read_history(run)):  # fmt: skip
        _try(ask)
    _try(lambda: list_runs(run.path.parent))
    return run


def _checkpoint(path: Path) -> None:
    _try(lambda: verify_checkpoint(path.parent))
    _try(lambda: read_progress(path.parent))
    newest_valid(path.parent.parent, _run(path).name)


def _mailbox(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(b"")
    box = Mailbox(path)
    path.write_bytes(content)
    _, problems = box.look()
    assert len(problems) <= 20 and all("\n" not in each for each in problems), problems
    Mailbox(path)


FILES = {
    "recipe": File("recipe.toml", load_recipe, json=False),
    "rows": File("rows.jsonl", _documents()),
    "labelled rows": File("labelled.jsonl", _documents(label="label")),
    "chat rows": File("chat.jsonl", _documents(format="messages")),
    "table": File("rows.csv", _documents(), json=False),
    "text": File("text.txt", _documents(), json=False),
    "journal": File("run/journal.jsonl", lambda path: (Reader(path).read(), _run(path))),
    "run.json": File("run/run.json", _run),
    "lease": File("run/lease.json", _run),
    "best.json": File("run/best.json", _run),
    "resolved.toml": File("run/resolved.toml", _run, json=False),
    "manifest": File("run/checkpoints/step-000004/manifest.json", _checkpoint),
    "state": File("run/checkpoints/step-000004/state.json", _checkpoint),
    "mailbox": File("run/control.jsonl", _mailbox),
    "manifest of a mirror": File("mirror.json", lambda path: read_manifest(path.read_bytes(), "mirror.json")),
    "safetensors": File("base/model.safetensors", lambda path: (
        tensor_shapes(path.parent), read_tensors(path), list(read_weights(path.parent))), json=False),
    "config.json": File("base/config.json", lambda path: inspect_model(path.parent)),
    "adapter_config.json": File("adapter/adapter_config.json", lambda path: read_adapter_config(path.parent)),
    "log": File("log.jsonl", read_log),
    "document": File("run/report/report.md", check_path, json=False),
    "document of values": File("trainer_state.json", check_path),
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good one of each file."""
    folder, monkeypatch = tmp_path_factory.mktemp("good"), pytest.MonkeyPatch()
    with monkeypatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(folder / "cache"))
        training = Training(write_run(folder, folder / "mirror"), Options(runs=folder / "runs"))
        for step in training:
            if step.number == 2:
                post(training.run, "set", key="optim.learning_rate", value=1e-3, reason="it was too high")
                post(training.run, "set", key="train.max_grad_norm", value=0.5)
        run = training.run
    shutil.copytree(run.path, folder / "run")
    shutil.copy(next((folder / "mirror").rglob("*-manifest.json")), folder / "mirror.json")
    shutil.copy(run.path / "trainer_state.json", folder / "trainer_state.json")
    write_qwen2(folder / "base")
    write_labelled(folder / "labelled.jsonl", 6)
    write_instructions(folder / "rows.jsonl", 6)
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(_SIX))
    turns = [
        {"role": "user", "content": "two and two?"},
        {"role": "assistant", "content": "four", "weight": 1},
    ]
    tools = [{"role": "system", "content": [{"type": "text", "text": "be short"}]}, *turns]
    (folder / "chat.jsonl").write_text(
        "".join(json.dumps({"messages": each}) + "\n" for each in (turns, tools))
    )
    (folder / "rows.csv").write_text('text,kind\n"def f(): pass",a\nb,"c, d"\n')
    (folder / "text.txt").write_text("def f():\n    return 1\n" * 20)
    steps = [{"step": at, "loss": 5.0 / (at + 1), "lr": 1e-3, "epoch": at / 4} for at in range(12)]
    (folder / "log.jsonl").write_text("".join(json.dumps(each) + "\n" for each in steps))
    return folder


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_or_refused_in_one_line(
    name: str, files: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    is_release, file = request.config.getoption("--release"), FILES[name]
    top = file.name.partition("/")[0]
    copied = shutil.copytree if (files / top).is_dir() else shutil.copy
    copied(files / top, tmp_path / top)
    path, content = tmp_path / file.name, (files / file.name).read_bytes()
    contents = mangled(content) | with_odd_values(content) if file.json else mangled(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(
        max_examples=RELEASE if is_release else QUICK, derandomize=not is_release, database=None,
        suppress_health_check=list(HealthCheck), deadline=None, report_multiple_bugs=is_release,
    )  # fmt: skip
    @given(bad=contents)
    def read_it(bad: bytes) -> None:
        path.write_bytes(bad)
        _try(lambda: file.read(path))

    read_it()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < _MOST_BYTES


def _try(read: Callable[[], object]) -> None:
    """Read something; what is wrong with it has to be told as errors are told to people."""
    try:
        read()
    except EtudeError as error:
        lines = str(error).splitlines()
        assert lines and (len(lines) == 1 or hasattr(error, "problems")), lines
        assert all(len(line) <= 600 for line in lines), lines
