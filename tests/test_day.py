"""A chat template that writes the day writes the one on which its run was created, whenever and wherever it
goes on.
"""

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.data.prepared import prepare
from etude.recipe.schema import Recipe
from etude.run import Training, run_recipe
from etude.start import Options
from tests.bases import write_instructions, write_qwen2

DATED = "{{ strftime_now('%d %b %Y %H:%M:%S.%f') }}"


class AnotherDay(datetime.date):
    """The clock of somebody who started a run some years from now."""

    @classmethod
    def today(cls) -> "AnotherDay":
        return cls(2031, 5, 4)


def dated_recipe(make_recipe: Callable[..., Recipe], folder: Path) -> Recipe:
    """A recipe whose template writes the time, to the microsecond, before everything else."""
    base, rows = write_qwen2(folder / "base"), write_instructions(folder / "rows.jsonl", 20)
    path = base / "tokenizer_config.json"
    config: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "chat_template": DATED + config["chat_template"]}))
    return make_recipe({
        "model": {"from": str(base)}, "tokenizer": {}, "adapter": {"rank": 2},
        "data.train": [{"path": str(rows)}], "train.seq_len": 128, "train.steps": 4,
        "evaluate.every_steps": 4,
    })  # fmt: skip


def test_a_run_goes_on_on_another_day_and_with_another_cache(
    tmp_path: Path, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dated_recipe(make_recipe, tmp_path)
    with monkeypatch.context() as then:
        then.setattr("etude.data.prepared.date", AnotherDay)
        then.setattr("etude.records.store.date", AnotherDay)
        training = Training(recipe, Options(runs=tmp_path / "runs"))
        for step in training:
            if step.number == 2:
                break
    assert training.run.day == "2031-05-04"
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "another cache"))
    run = run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    assert run.path == training.run.path and run.state == "finished"


def test_the_day_is_in_the_data_and_two_days_make_two_sets_of_it(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    recipe = dated_recipe(make_recipe, tmp_path)
    folder = tmp_path / "base"
    first, again, other = (
        prepare(recipe, tokenizer_folder=folder, today=day)
        for day in ("2031-05-04", "2031-05-04", "2031-05-05")
    )
    ids = first.train.sample(0).tokens
    assert first.tokenizer.decode(ids[:80].tolist()).startswith("04 May 2031 00:00:00.000000")
    assert again.summary["cached"] and first.fingerprint == again.fingerprint != other.fingerprint
    assert first.chat.encode_prompt("Hi")[:10] == ids[:10].tolist()


def test_a_template_without_a_day_shares_its_data_between_days(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    base, rows = write_qwen2(tmp_path / "base"), write_instructions(tmp_path / "rows.jsonl", 20)
    recipe = make_recipe({"model": {"from": str(base)}, "tokenizer": {}, "data.train": [{"path": str(rows)}]})
    prepare(recipe, tokenizer_folder=base, today="2031-05-04")
    assert prepare(recipe, tokenizer_folder=base, today="2031-05-05").summary["cached"]
