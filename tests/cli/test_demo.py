"""The end of the demo: its recipe, the held-out text, and compressors on the same bytes."""

import bz2
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.cli.demo import compressors, held_out_text, print_outcome
from etude.data.prepared import prepare
from etude.recipe.schema import Recipe
from etude.records.events import Generation
from etude.records.store import create_run
from tests.report.runs import attempt, evaluation


def test_bits_per_byte_of_compressors_are_those_of_the_commands() -> None:
    text = Path(__file__).read_bytes()
    rates = dict(compressors(text))
    packed = subprocess.run(["gzip", "-9", "-n", "-c"], input=text, capture_output=True, check=True).stdout
    assert rates["gzip -9"] == pytest.approx(8 * len(packed) / len(text), rel=0.01)
    assert 0 < rates["xz -9"] < 8 and abs(rates["xz -9"] - 8 * len(bz2.compress(text)) / len(text)) < 1


def test_held_out_text_is_that_of_the_validation_documents(
    make_recipe: Callable[..., Recipe], corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe({"evaluate.prompts": ["def "]})
    writer = create_run(tmp_path / "runs", recipe)
    text = held_out_text(writer.run)
    prepare(recipe)
    rest = text.decode()
    documents = [json.loads(line)["text"] for line in corpus.read_text().splitlines()]
    held_out = [document for document in documents if document in rest]
    assert held_out and len("".join(set(held_out)).encode()) <= len(text)
    for document in sorted(set(held_out), key=len, reverse=True):
        rest = rest.replace(document, "")
    assert rest == ""
    writer.append(attempt(), evaluation(3, 2.4), Generation(3, "def ", "f(x): pass", {}))
    print_outcome(writer.run)
    out = capsys.readouterr().out
    assert "--- 'def ' continues\ndef f(x): pass" in out and out.endswith("etude demo train.steps=2000\n")
    assert f"bits per byte of {len(text):,} held-out bytes" in out and "this model   0.800" in out
    writer.close("stopped")


def test_a_run_without_validation_ends_without_rates(
    make_recipe: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = create_run(tmp_path / "runs", make_recipe())
    writer.append(attempt())
    print_outcome(writer.run)
    assert "bits per byte" not in capsys.readouterr().out
    writer.close("stopped")
