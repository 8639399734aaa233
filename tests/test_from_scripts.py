"""Scripts of the usual kind and their forms here, as docs/from-scripts.md shows them, do the same."""

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import etude
from etude.records.events import Control, Finding
from etude.records.store import list_runs
from tests.bases import write_corpus

PAGE = (Path(__file__).parents[1] / "docs" / "from-scripts.md").read_text("utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


def block(beginning: str) -> str:
    (found,) = [each for each in PYTHON if beginning in each]
    return str(found)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the recipe of the page and its data, to stand in."""
    (tmp_path / "recipe.toml").write_text(re.findall(r"^```toml\n(.*?)^```", PAGE, re.M | re.S)[0])
    write_corpus(tmp_path / "corpus.jsonl")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(source: str, **names: Any) -> tuple[dict[str, Any], str]:
    """The names that a program leaves, and what it printed."""
    space, printed = {"etude": etude, **names}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, "from-scripts.md", "exec"), space)
    return space, printed.getvalue()


def test_the_recipe_says_what_the_dictionary_said(folder: Path) -> None:
    config, recipe = run(block("CONFIG = "))[0]["CONFIG"], etude.load_recipe("recipe.toml")
    model, train = recipe.model, recipe.train
    assert {"layers": model.n_layer, "heads": model.n_head, "hidden": model.n_embd} == config["model"]
    assert (train.micro_batch_size, train.accumulation) == (
        config["batch_size"],
        config["gradient_accumulation"],
    )
    assert (train.steps, train.seq_len) == (config["max_steps"], config["block_size"])
    assert recipe.optim.learning_rate == config["lr"] and recipe.schedule.warmup_steps == config["warmup"]
    assert recipe.evaluate.every_steps == config["eval_every"] and recipe.seed == config["seed"]


def test_the_callback_and_the_loop_stop_after_the_same_step_and_the_monitor_reads_the_log(
    folder: Path,
) -> None:
    space, printed = run(block("training = etude.Training(recipe)"))
    callback = run(block("class StopAtTarget"))[0]["StopAtTarget"](4.8)
    asked = [callback.on_step_end(step, loss) for step, loss in enumerate(space["history"], 1)]
    assert asked == [False] * (len(asked) - 1) + [True] and len(asked) < 24
    assert printed == f"stopped {space['training'].run.name} {len(asked)}\n"
    # A monitor of the usual kind, on the log of the run and on one that rises.
    watch_log = run(block("def watch_log"))[0]["watch_log"]
    log = (space["training"].run.path / "log.txt").read_text("utf-8").splitlines()
    assert watch_log(log) == []
    assert watch_log([*log, "step 99  loss 50.0"])[0].startswith("step 99: loss 50.0 after ")
    _, printed = run(block("case events."))
    ledger = space["training"].run.ledger()
    assert [
        each.event.what in printed for each in ledger.entries if isinstance(each.event, Finding)
    ] or printed


def test_the_controller_of_a_script_and_the_request_change_the_rate_and_only_one_is_recorded(
    folder: Path,
) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([parameter], lr=3e-3)
    controller = run(block("class FileController"))[0]["FileController"]("orders.json", optimizer)
    assert controller.on_step_end(1) is None
    Path("orders.json").write_text(json.dumps({"lr": 1e-3, "stop": True}))
    assert controller.on_step_end(2) == "stop" and optimizer.param_groups[0]["lr"] == 1e-3

    training = etude.Training(etude.load_recipe("recipe.toml"))
    for step in training:
        if step.number == 8:
            run(block("post(etude.open_run"))
    (found,) = list_runs(Path("runs"))
    changes = [
        each.event
        for each in found.ledger().entries
        if isinstance(each.event, Control) and each.event.changes
    ]
    assert [(each.step, each.changes) for each in changes] == [(8, {"optim.learning_rate": 1e-3})]
    assert "too noisy" in changes[0].reason
