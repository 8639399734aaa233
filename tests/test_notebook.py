"""A run in a notebook is one picture that replaces itself, and an interrupted cell leaves it resumable."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from etude.errors import InputError
from etude.notebook import NotebookView, notebook_view
from etude.recipe.schema import Recipe
from etude.records.store import list_runs, open_run
from etude.run import Training
from etude.start import Options
from tests.kernels import kernel

START = """
import etude
recipe = etude.load_recipe({recipe!r}, [{steps!r}])
training = etude.train(recipe, etude.Options(runs=__import__("pathlib").Path({runs!r})))
"""
INTERRUPTED = """
import os, signal, etude
from pathlib import Path
recipe = etude.load_recipe({recipe!r}, [{steps!r}])
training = etude.Training(recipe, etude.Options(runs=Path({runs!r})))
for step in training:
    if step.number == 5:
        os.kill(os.getpid(), signal.SIGINT)  # as the button of a notebook does
print(training.ending.state)
"""


def run_cell(client: NotebookClient, source: str, *, fails: bool = False) -> list[Any]:
    """The outputs of a new cell."""
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["raises-exception"] * fails})
    client.nb.cells.append(cell)
    client.execute_cell(cell, len(client.nb.cells) - 1)
    return list(cell.outputs)


def test_a_long_run_is_one_picture_and_a_few_lines_and_a_run_shows_itself(
    tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    changes = {"train.seq_len": 8, "train.global_batch_size": 2, "evaluate.every_steps": 200}
    recipe = write_recipe({**changes, "checkpoint.every_steps": 500})
    words = {"recipe": str(recipe), "runs": str(tmp_path / "runs")}
    with kernel(tmp_path) as client:
        outputs = run_cell(client, START.format(steps="train.steps=1000", **words))
        pictures = [each["data"]["text/html"] for each in outputs if each["output_type"] == "display_data"]
        lines = [each["text"] for each in outputs if each["output_type"] == "stream"]
        assert len(pictures) == 1 and "".join(lines).count("\n") < 20, lines
        assert "step 1,000 of 1,000" in pictures[0] and "finished" in pictures[0] and "<svg" in pictures[0]
        (shown,) = run_cell(client, "training.run")
        assert "<table>" in shown["data"]["text/html"] and "finished" in shown["data"]["text/html"]


def test_an_interrupted_cell_saves_and_the_same_cell_goes_on_to_the_bits_of_an_unbroken_run(
    tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    recipe = write_recipe()
    words = {"recipe": str(recipe), "runs": str(tmp_path / "runs"), "steps": "train.steps=12"}
    with kernel(tmp_path) as client:
        outputs = run_cell(client, INTERRUPTED.format(**words))
        said = "".join(each["text"] for each in outputs if each["output_type"] == "stream")
        assert said.endswith("stopped\n") and "the same cell, or etude resume" in said
        run_cell(client, START.format(**words))
    (run,) = list_runs(tmp_path / "runs")
    assert run.state == "finished"
    unbroken = Training(run.recipe, Options(runs=tmp_path / "other"))
    assert len(list(unbroken)) == 12
    final = "checkpoints/step-000012/model.safetensors"
    assert (run.path / final).read_bytes() == (unbroken.run.path / final).read_bytes()


def test_without_a_display_a_line_is_printed_and_nothing_is_outside_of_ipython(
    tmp_path: Path, make_recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    assert notebook_view() is None
    view = NotebookView(has_display=False)
    training = Training(make_recipe(), Options(runs=tmp_path, view=view))
    assert len(list(training)) == 12
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"run {training.run.path}" and len(printed) < 8
    assert "step 12 of 12" in printed[-1] and "finished" in printed[-1]


def test_text_of_a_model_or_a_finding_is_no_markup(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    recipe = make_recipe({"evaluate.prompts": ["<script>alert(1)</script>"]})
    training = Training(recipe, Options(runs=tmp_path))
    assert len(list(training)) == 12
    html = open_run(training.run.path)._repr_html_()
    assert "<script" not in html and "&lt;script&gt;" in html and "\x1b" not in html
    (training.run.path / "run.json").write_text("no json")
    with pytest.raises(InputError):
        open_run(training.run.path)._repr_html_()


def test_an_error_for_the_user_is_one_line_in_a_cell(tmp_path: Path) -> None:
    with kernel(tmp_path) as client:
        (shown,) = run_cell(client, "import etude\netude.load_recipe('nothing.toml')", fails=True)
    assert len(shown["traceback"]) == 1 and shown["traceback"][0].startswith("error: ")
