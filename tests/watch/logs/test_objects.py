"""Logs in JSON."""

import json
from pathlib import Path

from etude.watch.logs.objects import facts_beside, read_json, read_json_lines


def test_a_trainer_state_has_the_facts_of_its_run_and_of_the_model_beside_it(tmp_path: Path) -> None:
    config = {"architectures": ["GPT2LMHeadModel"], "vocab_size": 50257}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "adapter_config.json").write_text("{}")
    state = {"max_steps": 100, "num_train_epochs": 4, "log_history": [{"step": 1, "loss": 2.0}]}
    source = read_json(tmp_path / "trainer_state.json", json.dumps(state))
    assert source is not None and source.facts == {
        "steps": 100, "steps_per_epoch": 25, "objective": "causal", "classes": 50257, "is_pretrained": True,
    }  # fmt: skip


def test_files_beside_that_are_odd_tell_nothing(tmp_path: Path) -> None:
    for content in (
        "{",
        "[]",
        '{"architectures": [3], "vocab_size": -1}',
        '{"architectures": "GPT2LMHeadModel"}',
    ):
        (tmp_path / "config.json").write_text(content)
        assert facts_beside(tmp_path / "trainer_state.json") == {}
    labels = {"architectures": ["BertForSequenceClassification"], "vocab_size": 30522}
    (tmp_path / "config.json").write_text(json.dumps(labels))
    assert facts_beside(tmp_path / "x") == {"objective": "classification"}  # its loss is over labels


def test_a_trainer_state_whose_counts_are_none_tells_none(tmp_path: Path) -> None:
    state = {"max_steps": -1, "num_train_epochs": "many", "log_history": []}
    source = read_json(tmp_path / "x", json.dumps(state))
    assert source is not None and source.facts == {}


def test_other_json_is_no_log_and_other_text_no_json_lines() -> None:
    assert read_json(Path("x"), '{"a": [1, 2]}') is None and read_json(Path("x"), "3") is None
    assert read_json_lines("step,loss\n1,2\n") is None and read_json_lines("[1]\n[2]\n") is None
