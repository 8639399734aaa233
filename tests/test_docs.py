"""The recipes and lines that README.md and docs/ show."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from etude.recipe.load import load_recipe, recipe_from

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
]


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
