"""The recipes and lines that README.md and docs/ show."""

import ast
import json
import re
import runpy
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from safetensors.torch import load_file

from etude.cli.examples import example_text
from etude.cli.main import COMMANDS, DATA_COMMANDS, DataGroup, app
from etude.recipe.findings import FINDINGS
from etude.recipe.load import load_recipe, recipe_from, to_toml
from etude.sweep.grid import load_sweep
from etude.watch.watcher import DETECTORS
from tests.bases import write_corpus
from tests.conftest import Outcome

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What the parts of recipes that pages show stand beside; `objective` decides which of their keys are allowed.
LEAST: dict[str, Any] = {
    "name": "docs", "model": {"n_layer": 1, "n_head": 2, "n_embd": 32},
    "tokenizer": {"train_vocab_size": 300}, "data": {"train": [{"path": "rows.jsonl"}]},
    "train": {"steps": 10, "seq_len": 32, "global_batch_size": 4}, "optim": {"learning_rate": 1e-3},
}  # fmt: skip


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


SHOWN = [
    pytest.param(page, block, id=f"{page.stem}-{at}")
    for page in PAGES
    for at, block in enumerate(blocks(page, "toml"))
    if "[[tiers" not in block and "[resources]" not in block
]
SWEEPS = [block for page in PAGES for block in blocks(page, "toml") if "[[tiers]]" in block]
PARTS = [block for block in blocks(ROOT / "docs" / "sweep.md", "toml") if "[[tiers]]" not in block]


@pytest.mark.parametrize("block", SWEEPS)
def test_every_sweep_that_a_page_shows_is_one(block: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text(block)
    (tmp_path / "base.toml").write_text('name = "base"\n[[data.train]]\npath = "rows.jsonl"\n')
    assert len(load_sweep(tmp_path / "sweep.toml").trials) == 8


@pytest.mark.parametrize("block", PARTS)
def test_every_part_of_a_sweep_that_a_page_shows_fits_one(block: str, tmp_path: Path) -> None:
    least = 'name = "docs"\nrecipe = "base.toml"\n[[tiers]]\nname = "one"\n[[tiers.models]]\nname = "net"\n'
    (tmp_path / "sweep.toml").write_text(least + block)
    (tmp_path / "base.toml").write_text(to_toml(recipe_from(LEAST)))
    sweep = load_sweep(tmp_path / "sweep.toml")
    assert sweep.trials or sweep.studies


@pytest.mark.parametrize(("page", "block"), SHOWN)
def test_every_recipe_that_a_page_shows_is_one(page: Path, block: str) -> None:
    given = tomllib.loads(block)
    values = {**LEAST, **given}
    for section, keys in LEAST.items():
        if isinstance(keys, dict) and "name" not in given:
            mine = given.get(section, {})
            values[section] = {**keys, **mine}
    if "adapter" in given or "tasks" in given:
        values |= {"model": {"from": "base"}, "tokenizer": {}}
    if "from" in values["model"] or values["model"].get("kind") == "encoder":
        values["model"] = {
            key: value for key, value in values["model"].items() if key in given.get("model", {"from"})
        }
    if "from" in values["model"] and "tokenizer" not in given:
        values["tokenizer"] = {}
    recipe_from(values)


def test_a_change_that_a_page_shows_fits_the_recipe_above_it(tmp_path: Path) -> None:
    page = ROOT / "docs" / "quickstart.md"
    (tmp_path / "my-model.toml").write_text(blocks(page, "toml")[0])
    (changes,) = re.findall(r'etude.load_recipe\("my-model.toml", \[(.*?)\]\)', page.read_text("utf-8"))
    load_recipe(tmp_path / "my-model.toml", [each.strip('" ') for each in changes.split(",")])
    commands = re.findall(r"^etude train my-model.toml ((?:[\w.]+=\S+ ?)+)", page.read_text("utf-8"), re.M)
    assert commands
    for words in commands:
        load_recipe(tmp_path / "my-model.toml", words.split())


def command_lines() -> list[Any]:
    """Every line of a page's shell blocks and of the help's examples that calls etude, without its comment."""
    shown = {page.stem: "".join(blocks(page, "bash")) for page in PAGES}
    names = ["", *COMMANDS, "data", *(f"data {name}" for name in DATA_COMMANDS)]
    shown["help"] = "\n".join(example_text(name) for name in names)
    commands = [
        (where, re.split(" [<>|] ", line)[0])
        for where in shown
        for line in shown[where].replace("\\\n", " ").splitlines()
    ]
    lines = [(where, shlex.split(command, comments=True)) for where, command in commands]
    return [
        pytest.param(words[1:], id=f"{where}: {' '.join(words[1:])}")
        for where, words in lines
        if words[:1] == ["etude"] and words[1:2] != ["COMMAND"]
    ]


@pytest.mark.parametrize("words", command_lines())
def test_every_command_that_a_page_shows_is_one_that_the_command_line_takes(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        if words[0] not in command.commands and isinstance(command, DataGroup):
            words = ["page", *words]  # `etude data RECIPE`
        command, words = command.commands[words[0]], words[1:]
    command.make_context("etude", words)


def test_the_program_with_a_module_of_its_own_runs_as_it_stands_and_trains_it_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = ROOT / "docs" / "quickstart.md"
    write_corpus(tmp_path / "corpus.jsonl", 100)
    (recipe,) = [block for block in blocks(page, "toml") if 'name = "my-module"' in block]
    (tmp_path / "my-module.toml").write_text(recipe)
    (program,) = [block for block in blocks(page, "python") if "its_loss" in block]
    (tmp_path / "program.py").write_text(program)
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(tmp_path / "program.py"))
    run = names["training"].run
    losses = [each.event.loss for each in run.ledger().entries if each.event.__class__.__name__ == "Step"]
    assert losses[-1] < losses[0] - 0.2
    (last,) = [folder for folder in run.checkpoints.iterdir() if folder.name == f"step-{len(losses):06}"]
    kept, module = load_file(last / "model.safetensors"), names["module"]
    for name, value in module.state_dict().items():
        assert kept[name].equal(value.cpu()), name


def test_pages_on_pretrained_models_set_a_learning_rate_that_does_not_undo_them() -> None:
    for page in ("classification.md", "seq2seq.md"):
        first = tomllib.loads(blocks(ROOT / "docs" / page, "toml")[0])
        assert "from" in first["model"] and 1e-5 <= first["optim"]["learning_rate"] <= 1e-4


def test_the_program_of_the_first_page_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tmp_path / "corpus.jsonl", 200)
    recipe = tomllib.loads(blocks(ROOT / "docs" / "quickstart.md", "toml")[0])
    small = {"epochs": 2, "seq_len": 32, "global_batch_size": 8, "device": "cpu"}
    values = {**recipe, "model": LEAST["model"], "tokenizer": LEAST["tokenizer"], "train": small}
    (tmp_path / "my-model.toml").write_text(to_toml(recipe_from(values)))
    monkeypatch.chdir(tmp_path)
    (program,) = [block for block in blocks(ROOT / "docs" / "quickstart.md", "python") if "my_loss" in block]
    (tmp_path / "program.py").write_text(program)
    names = runpy.run_path(str(tmp_path / "program.py"))
    assert "'metric': 'loss'" in capsys.readouterr().out
    run = names["training"].run
    assert any("error_rate" in getattr(entry.event, "metrics", {}) for entry in run.ledger().entries)


@pytest.mark.parametrize("page", ["classification", "seq2seq", "finetune"])
def test_the_first_command_of_a_page_on_pretrained_models_writes_its_recipe(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, etude: Callable[..., Outcome]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    rows = [{"query": f"add {number}", "code": f"x += {number}", "label": number % 2} for number in range(40)]
    if page == "seq2seq":
        rows = [{"source": row["query"], "target": row["code"]} for row in rows]
    elif page == "finetune":
        rows = [{"instruction": row["query"], "output": row["code"]} for row in rows]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = blocks(ROOT / "docs" / f"{page}.md", "bash")[0].splitlines()
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        if words[0] == "init":
            assert etude(*words).code == 0
    objective = {"finetune": "causal"}.get(page, page)
    assert load_recipe("recipe.toml").train.objective == objective


def kinds_of_tests() -> set[str]:
    """Kinds of findings that code outside the detectors gives, as its calls name them."""
    found = set()
    for path in [*(ROOT / "etude" / "audit").glob("*.py"), *(ROOT / "etude" / "engine").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if not re.search("finding|_error$|_warning$|broken$|_break$", name.lower()):
                continue
            given = [*node.args[:2], *(each.value for each in node.keywords if each.arg == "kind")]
            texts = [
                each.value for part in given for each in ast.walk(part) if isinstance(each, ast.Constant)
            ]
            found |= {text for text in texts if re.fullmatch("[a-z]+(_[a-z]+)+", str(text))}
    return found


def test_the_page_on_the_watch_has_a_section_for_every_finding_and_for_none_besides() -> None:
    headings = re.findall(r"^### `(\w+)`: .+$", (ROOT / "docs" / "watch.md").read_text("utf-8"), re.M)
    kinds = {detector.kind for detector in DETECTORS} | kinds_of_tests()
    assert len(headings) == len(set(headings)) and {"overfitting", "padding_scored"} < kinds
    assert sorted(headings) == sorted(kinds) == sorted(FINDINGS)


def test_every_part_of_a_section_is_there() -> None:
    _, *sections = (ROOT / "docs" / "watch.md").read_text("utf-8").split("\n### ")
    for section in sections:
        title = section.partition("\n")[0]
        assert "*Likely causes:*" in section and "*To do:*" in section, title


def test_pictures_of_findings_are_those_that_the_script_draws_from_curves_with_that_fault() -> None:
    script = runpy.run_path(str(ROOT / "dev" / "draw_findings.py"))
    shown = set(re.findall(r"\(images/watch-(\w+)\.svg\)", (ROOT / "docs" / "watch.md").read_text("utf-8")))
    kept = {path.stem.removeprefix("watch-") for path in (ROOT / "docs" / "images").glob("watch-*.svg")}
    assert shown == kept == script["CURVES"].keys()
    for kind, curve in script["CURVES"].items():
        assert kind in {finding.kind for finding in curve.watched()}, kind


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_picture_that_a_page_shows_is_there(page: Path) -> None:
    for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text("utf-8")):
        assert (page.parent / name).is_file(), name
