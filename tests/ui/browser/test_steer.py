"""A real run that the page steers: its buttons act, and the run's own answer is shown; and one that it starts."""

import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from etude.control.mailbox import FILE
from etude.records.store import list_runs
from etude.ui.starting import Starts
from tests.bases import write_corpus
from tests.recipes import tiny
from tests.ui.browser.conftest import Window
from tests.ui.serving import serving

Look = Callable[..., AbstractContextManager[Window]]
STATE = ".head > .line > .state"  # of the run; its answers below have states too


@pytest.fixture
def going(tmp_path: Path) -> Iterator[Path]:
    """The folder of a run that trains in a process of its own until it is stopped."""
    recipe = tiny(write_corpus(tmp_path / "corpus.jsonl"), {"train.steps": 1_000_000, "checkpoint.every_steps": 10**6,
                                                            "evaluate.every_steps": 10**6})  # fmt: skip
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    program = "import json, sys; from pathlib import Path; from etude.recipe.load import recipe_from; from tests.steered import steer; steer(recipe_from(json.loads(Path(sys.argv[1]).read_text())), Path(sys.argv[2]), {})"
    with (tmp_path / "said.txt").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "recipe.json"), str(tmp_path / "runs")],
            stdout=said, stderr=said, env=os.environ.copy(),
        )  # fmt: skip
    deadline = time.monotonic() + 300
    while not any(
        (run.path / "journal.jsonl").exists() and run.ledger().size > 2000
        for run in (list_runs(tmp_path / "runs") if (tmp_path / "runs").exists() else [])
    ):
        assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "said.txt").read_text()
        time.sleep(0.1)
    yield tmp_path / "runs"
    process.terminate()
    process.wait(60)


@pytest.mark.parametrize("width", [1280, 420])
def test_buttons_change_pause_resume_and_stop_a_run_and_show_its_answers(
    width: int, going: Path, look: Look
) -> None:
    run = list_runs(going)[0]
    with serving(going) as server, look(server, width) as window:
        window.go(f"#/run/{run.info['id']}")
        window.wait("button:has-text('Change a value')").click()
        window.page.get_by_label("key", exact=True).select_option("optim.learning_rate")
        window.page.get_by_label("new value").fill("0.0005")
        window.page.get_by_role("button", name="Set", exact=True).click()
        answers = ".answers .state:not(.plain)"
        window.wait(f"{answers}:has-text('Set optim.learning_rate = 0.0005')")
        window.wait(".ledger:has-text('0.0005')")
        assert not window.is_too_wide()
        window.picture("steered")
        window.page.get_by_role("button", name="Pause").click()
        window.wait(f"{answers}:has-text('Pause')")
        window.wait(f"{STATE}:has-text('paused')")
        window.page.get_by_role("button", name="Resume").click()
        window.wait(f"{STATE}:has-text('running')")
        window.page.get_by_role("button", name="Stop").click()
        window.wait("dialog:has-text('It saves a checkpoint and ends')")
        window.page.keyboard.press("Escape")
        window.until("!document.querySelector('dialog')")
        assert "stop" not in (run.path / FILE).read_text()  # nothing was asked
        window.wait(".actions button:text-is('Stop')").click()
        window.page.locator("dialog button.main").click()
        window.wait(f"{answers}:has-text('Stop')")
        window.wait(f"{STATE}:has-text('stopped')")
    assert run.state == "stopped" and list(run.checkpoints.iterdir())


def test_a_form_tells_its_problems_by_key_and_starts_a_run(
    tmp_path: Path, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So the page always has to ask again for a run that takes its time to begin.
    monkeypatch.setitem(Starts.start.__kwdefaults__, "patience_seconds", 0.0)
    corpus = write_corpus(tmp_path / "corpus.jsonl")
    runs = tmp_path / "runs"
    runs.mkdir()
    with serving(runs) as server, look(server) as window:
        window.go("#/new")
        window.wait("text=no problem found")  # the example is a recipe
        text = window.page.get_by_label("the recipe as TOML")
        text.fill(
            f'name = "fresh"  # mine\n[[data.train]]\npath = "{corpus}"\n[tokenizer]\ntrain_vocab_size = 300\n'
            "[model]\nn_layer = 1\nn_head = 1\nn_embd = 16\nn_ffn = 32\n"
            '[train]\nsteps = 2\nseq_len = 32\ndevice = "cpu"\nprecision = "fp32"\n'
        )
        window.wait(".field.wrong:has-text('global_batch_size')")
        window.page.locator("[id='field-train.global_batch_size']").fill("4")
        window.wait("text=no problem found")
        written = text.input_value()
        assert "global_batch_size = 4" in written and "# mine" in written
        _add_and_take_out(window, text)
        rows = "\n".join(json.dumps({"text": f"def sent_{n}(a):\n    return a"}) for n in range(60))
        file = {"name": "mine.jsonl", "mimeType": "text/plain", "buffer": rows.encode()}
        window.page.get_by_label("or of a text file to send").set_input_files([file])
        window.wait("text=Rows of mine.jsonl")
        assert "def sent_" in window.text("aside .timeline")
        window.wait("text=no problem found")  # a recipe that is still being checked is not started
        text.press("Control+Enter")
        window.until("location.hash.startsWith('#/run/fresh-')")
        window.wait("h1:has-text('fresh-')")
        window.wait(f"{STATE}:has-text('finished')")
        window.until("document.querySelector('[data-chart=Loss] .plot').plot?.data[0].at(-1) === 2")


def _add_and_take_out(window: Window, text: Any) -> None:
    """Add a second source and a task in the form, and take both out again."""
    before, page = text.input_value(), window.page
    page.get_by_role("button", name="Add one more of data.train").click()
    page.locator("[id='field-data.train.1.path']").fill("other.jsonl")
    window.until("document.querySelector('textarea').value.includes('other.jsonl')")
    page.get_by_role("button", name="take out data.train, 2").click()
    page.locator("summary:has-text('several tasks')").click()
    page.get_by_label("name of a section of tasks").fill("sorting")
    page.get_by_role("button", name="Add to tasks").click()
    page.locator("[id='field-tasks.sorting.objective']").select_option("masked")
    window.until("document.querySelector('textarea').value.includes('[tasks.sorting]')")
    page.get_by_role("button", name="take out tasks.sorting").click()
    window.until("!/sorting|other/.test(document.querySelector('textarea').value)")
    window.wait("text=no problem found")
    assert tomllib.loads(text.input_value()) | {"tasks": {}} == tomllib.loads(before) | {"tasks": {}}
