"""Programs of cards, run as they stand: they say what the run kept as its predictions and answers."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from etude.cli.generate import Sampling, generate_texts
from etude.export import export
from etude.recipe.schema import Recipe
from etude.records.store import Run
from etude.run import run_recipe
from etude.start import Options
from tests.bases import (
    write_corpus,
    write_encoder,
    write_instructions,
    write_labelled,
    write_pairs,
    write_qwen2,
)
from tests.recipes import classification, finetuning, masked, seq2seq, tasks


def exported(folder: Path, recipe: Recipe, kind: str = "hf") -> tuple[Run, list[str]]:
    """A run, and the Python blocks of the card of its export, which lies in `out`."""
    run = run_recipe(recipe, Options(runs=folder / "runs")).run
    card = (export(run.name, kind, folder / "out", runs=folder / "runs") / "README.md").read_text()
    return run, re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def said(blocks: list[str], given: str, texts: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The last printed line of each text, put where the card has its example."""
    found: dict[str, Any] = {}
    load, ask = blocks
    exec(compile(ast.parse(load), "load", "exec"), found)
    assert f'"{given}"' in ask
    capsys.readouterr()
    for text in texts:
        exec(compile(ask.replace(f'"{given}"', repr(text)), "ask", "exec"), found)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("multi", [True, False])
def test_a_classifier_says_what_its_run_predicted(
    multi: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_labelled(tmp_path / "rows.jsonl", 60, multi=multi)
    test = write_labelled(tmp_path / "test.jsonl", 24, multi=multi)
    sources = {"data.test": [{"path": str(test), "label": "label"}], "data.leakage.action": "report"}
    base = write_encoder(tmp_path / "base")
    run, blocks = exported(tmp_path, classification(rows, base, sources))
    monkeypatch.chdir(tmp_path / "out")
    texts = [json.loads(line)["text"] for line in test.read_text().splitlines()]
    kept = (run.path / "predictions" / "test.jsonl").read_text().splitlines()
    probabilities = [json.loads(line)["probabilities"] for line in kept]
    config = json.loads(Path("config.json").read_text())
    names = [config["id2label"][str(place)] for place in range(len(probabilities[0]))]
    answers = said(blocks, "a text", texts, capsys)
    if multi:
        least = ast.literal_eval(re.search(r"thresholds = (\{.*?\})", blocks[1], re.DOTALL)[1])  # type: ignore[index]
        wanted = [[name for name, p in zip(names, row) if p >= least[name]] for row in probabilities]
        assert [ast.literal_eval(line) for line in answers] == wanted
    else:
        assert answers == [names[max(range(len(row)), key=row.__getitem__)] for row in probabilities]


def test_a_translator_writes_the_answers_of_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_pairs(tmp_path / "rows.jsonl", 60)
    test = write_pairs(tmp_path / "test.jsonl", 6)
    source = {"path": str(test), "field": "source", "target": "target"}
    changes = {"train.steps": 60, "data.test": [source], "data.leakage.action": "report"}
    run, blocks = exported(tmp_path, seq2seq(rows, None, changes))
    monkeypatch.chdir(tmp_path / "out")
    kept = (run.path / "predictions" / "test.jsonl").read_text().splitlines()
    sources = [json.loads(line)["source"] for line in test.read_text().splitlines()]
    assert said(blocks, "a source", sources, capsys) == [json.loads(line)["answer"].strip() for line in kept]


def test_a_model_of_instructions_answers_as_generate_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, base = write_instructions(tmp_path / "rows.jsonl", 40), write_qwen2(tmp_path / "base")
    run, blocks = exported(
        tmp_path, finetuning(rows, base, {"train.steps": 40, "evaluate.answer_tokens": 12})
    )
    monkeypatch.chdir(tmp_path / "out")
    asked = json.loads(rows.read_text().splitlines()[0])["instruction"]
    greedy = Sampling(max_tokens=12, temperature=0.0)
    (wanted,) = generate_texts(str(run.path), [asked], greedy, runs=tmp_path, is_instruction=True)
    lines = said(blocks, "Write a function that reverses a string.", [asked], capsys)
    assert "\n".join(lines).strip() == wanted["text"].strip()


def test_masked_models_fill_in_and_models_of_several_tasks_are_only_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, (load, ask) = exported(tmp_path, masked(write_corpus(tmp_path / "rows.jsonl")))
    monkeypatch.chdir(tmp_path / "out")
    found: dict[str, Any] = {}
    exec(load + ask, found)
    word = found["model"](**found["inputs"]).logits[0, found["place"]].argmax()
    assert capsys.readouterr().out == found["tokenizer"].decode(word) + "\n"
    (tmp_path / "several").mkdir()
    _, blocks = exported(tmp_path / "several", tasks(tmp_path / "several"))
    assert len(blocks) == 1


def test_no_program_loads_a_model_that_only_etude_computes(tmp_path: Path) -> None:
    rows = write_labelled(tmp_path / "rows.jsonl", 40)
    recipe = classification(rows, None, {"model.code_bias": "inside", "train.steps": 2})
    _, (block,) = exported(tmp_path, recipe)
    assert "No other tool computes this model" in block and "from_pretrained" not in block
