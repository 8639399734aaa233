"""The notebooks run as they are, at toy size, and outlive their kernel, their folder and their session."""

import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

import etude
from etude.recipe.schema import Recipe
from etude.records.store import list_runs
from tests.bases import write_corpus, write_instructions, write_qwen2
from tests.kernels import make_client
from tests.processes import wait_for

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
TOY = [
    "train.seq_len=32", "train.global_batch_size=8", "train.micro_batch_size=8", "train.precision=fp32",
    "train.device=cpu", "tokenizer.train_vocab_size=300", "schedule.warmup_steps=2",
]  # fmt: skip


def read(name: str, **parameters: Any) -> Any:
    """A notebook whose cell of parameters is followed by others."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    (given,) = [each for each in notebook.cells if "parameters" in each.metadata.get("tags", [])]
    given.source += "\n" + "\n".join(f"{key} = {value!r}" for key, value in parameters.items())
    return notebook


def outputs(notebook: Any) -> str:
    return "\n".join(str(output) for cell in notebook.cells for output in cell.get("outputs", []))


def test_the_notebooks_name_no_output_and_no_machine() -> None:
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == [
        "colab-lora", "kaggle-pretraining", "local",
    ]  # fmt: skip
    for path in NOTEBOOKS.glob("*.ipynb"):
        nbformat.validate(notebook := nbformat.read(path, as_version=4))
        assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells)


def test_the_notebook_of_a_pretraining_trains_and_shows_its_run(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl")
    notebook = read(
        "kaggle-pretraining", DATA=str(corpus), RUNS=str(tmp_path / "runs"), MIRROR=str(tmp_path / "mirror"),
        MODEL="n_layer = 1\nn_head = 2\nn_embd = 32", LENGTH="steps = 12", OVERRIDES=TOY,
    )  # fmt: skip
    make_client(notebook, tmp_path).execute(cleanup_kc=True)
    (run,) = list_runs(tmp_path / "runs")
    assert run.state == "finished" and "exit code 0" in outputs(notebook)
    assert "<table>" in str(notebook.cells[-1].outputs) and list((tmp_path / "mirror").iterdir())


def test_the_notebook_of_a_pretraining_goes_on_from_the_mirror_of_an_earlier_version(
    tmp_path: Path, make_recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    before, runs = tmp_path / "before", tmp_path / "runs"
    given = make_recipe({"train.steps": 3, "run.mirror": str(tmp_path / "mirror")})
    run = etude.train(given, etude.Options(runs=before)).run
    (cell,) = [each.source for each in read("kaggle-pretraining").cells if "restore" in each.source]
    values = {
        "Path": Path,
        "MIRROR": "",
        "EARLIER": str(tmp_path / "mirror"),
        "RUNS": str(runs),
        "OVERRIDES": [],
    }
    exec(cell, values)
    assert [each.name for each in list_runs(runs)] == [run.name]
    assert f"goes on with {run.name}" in capsys.readouterr().out


def test_the_notebook_of_lora_tunes_a_base_on_rows(tmp_path: Path) -> None:
    base, rows = write_qwen2(tmp_path / "base"), write_instructions(tmp_path / "rows.jsonl")
    notebook = read(
        "colab-lora", DATA=str(rows), MODEL=str(base), RUNS=str(tmp_path / "runs"),
        MIRROR=str(tmp_path / "mirror"), OVERRIDES=["train.seq_len=64", "train.global_batch_size=4", "schedule.warmup_steps=2"],
    )  # fmt: skip
    make_client(notebook, tmp_path).execute(cleanup_kc=True)
    (run,) = list_runs(tmp_path / "runs")
    assert run.state == "finished" and run.recipe.adapter is not None


def test_three_killed_kernels_and_erased_folders_leave_the_bits_of_an_unbroken_run(
    tmp_path: Path,
) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl")
    recipe = tmp_path / "given.toml"
    recipe.write_text(
        f'name = "toy"\n[model]\nn_layer = 1\nn_head = 2\nn_embd = 32\n[tokenizer]\ntrain_vocab_size = 300\n'
        f'[[data.train]]\npath = "{corpus}"\n[train]\nsteps = 160\nseq_len = 32\nglobal_batch_size = 8\n'
        f'micro_batch_size = 8\ndevice = "cpu"\nprecision = "fp32"\n[optim]\nlearning_rate = 3e-3\n'
        f"[evaluate]\nevery_steps = 80\n[checkpoint]\nevery_steps = 20\n"
    )
    work, mirror = tmp_path / "work", tmp_path / "mirror"
    for kills_left in (2, 1, 0, None):
        work.mkdir()
        shutil.copy(recipe, work / "recipe.toml")
        notebook = read("local", RUNS=str(work / "runs"), MIRROR=str(mirror))
        client = make_client(notebook, work)
        if kills_left is None:
            client.execute(cleanup_kc=True)
            break
        before = newest(mirror)
        killer = threading.Thread(
            target=kill_when, args=(client, lambda before=before: newest(mirror) > before)
        )
        killer.start()
        with pytest.raises((DeadKernelError, CellExecutionError)):
            client.execute(cleanup_kc=True)
        killer.join()
        shutil.rmtree(work)
    (run,) = list_runs(work / "runs")
    assert run.state == "finished" and len({entry.attempt for entry in run.ledger().all}) == 4
    assert outputs(notebook).count("\n") < 200
    unbroken = etude.Training(etude.load_recipe(recipe), etude.Options(runs=tmp_path / "other"))
    assert len(list(unbroken)) == 160
    final = "checkpoints/step-000160/model.safetensors"
    assert (run.path / final).read_bytes() == (unbroken.run.path / final).read_bytes()


def newest(mirror: Path) -> int:
    """The number of the newest copy in a mirror."""
    return max((int(path.name[:6]) for path in mirror.rglob("*-manifest.json")), default=0)


def kill_when(client: NotebookClient, is_time: Callable[[], bool]) -> None:
    wait_for(is_time)
    assert client.km is not None
    os.kill(client.km.provisioner.pid, signal.SIGKILL)
