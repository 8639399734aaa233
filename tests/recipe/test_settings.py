"""Settings that people are shown: none that mean nothing beside the others."""

from typing import Any

import pytest

from etude.recipe.keys import recipe_keys
from etude.recipe.load import change, flatten, recipe_from
from etude.recipe.settings import _NEED, describe_idle, find_idle, is_default, shown_settings


def values(**sections: Any) -> dict[str, Any]:
    return {
        "name": "a", "model": {"from": "base"}, "data": {"train": [{"path": "rows.jsonl"}]},
        "train": {"epochs": 1, "global_batch_size": 4}, **sections,
    }  # fmt: skip


def test_a_pretrained_encoder_is_not_called_a_decoder() -> None:
    labelled = {"train": [{"path": "rows.jsonl", "label": "label"}]}
    classifier = recipe_from(
        values(data=labelled, train={"objective": "classification", "epochs": 1, "global_batch_size": 4})
    )
    left_out = flatten(classifier.to_dict()).keys() - shown_settings(classifier).keys()
    assert left_out == {
        "model.kind", "train.mask_ratio", "train.parallel", "optim.momentum", "optim.matrix_rate_ratio",
        "schedule.decay_ratio", "evaluate.answers", "evaluate.answer_tokens", "evaluate.prompts",
        "evaluate.sample_tokens", "evaluate.temperature", "evaluate.min_improvement", "watch.recoveries",
        "data.clean.min_characters", "data.clean.max_characters", "run.lost_after", "run.hung_after",
    }  # fmt: skip
    scratch = values(model={"kind": "decoder"}, tokenizer={"train_vocab_size": 300})
    assert shown_settings(recipe_from(scratch))["model.kind"] == "decoder"


def test_what_somebody_set_is_shown_whether_it_means_something_or_not() -> None:
    given = recipe_from(values(optim={"momentum": 0.5}, schedule={"kind": "wsd"}))
    shown = shown_settings(given)
    assert shown["optim.momentum"] == 0.5 and shown["schedule.decay_ratio"] == 0.2


@pytest.mark.parametrize(
    ("key", "value", "need", "beside"),
    [
        ("optim.matrix_rate_ratio", 0.3, 'optim.kind = "muon"', {"optim.kind": "muon"}),
        ("schedule.min_lr_ratio", 0.2, 'schedule.kind != "constant"', {"schedule.kind": "wsd"}),
        ("train.parallel", "replicate", "train.devices > 1", {"train.devices": 2}),
        ("run.lost_after", "20s", "train.devices > 1", {"train.devices": 2}),
        ("evaluate.temperature", 0.5, "evaluate.prompts", {"evaluate.prompts": ["def "]}),
        ("evaluate.min_improvement", 0.1, "evaluate.patience", {"evaluate.patience": 2, "data.validation": None}),
        ("evaluate.max_samples", 9, 'data.validation != "none"', {"data.validation": None}),
        ("data.validation_ratio", 0.2, "no data.validation", {"data.validation": None}),
        ("data.clean.min_characters", 9, 'too_short != "off"', {"data.clean.too_short": "warn"}),
        ("data.leakage.max_ratio", 0.2, 'action = "refuse"', {"data.leakage.action": "refuse"}),
        ("data.attend_across_documents", False, 'data.sample = "row"', {"data.sample": "row"}),
        ("watch.recoveries", 5, 'watch.policy = "recover"', {"watch.policy": "recover", "checkpoint.every_steps": 5}),
        ("notify.0.severity", "error", 'on has "finding"', {"notify.0.on": ["finding"]}),
    ],
)  # fmt: skip
def test_a_value_that_nothing_reads_is_named_until_what_it_needs_is_there(
    key: str, value: Any, need: str, beside: dict[str, Any]
) -> None:
    idle = {
        "schedule.kind": "constant", "data.validation": "none", "data.leakage.action": "report",
        "data.sample": "document", "notify": [{"channel": "line", "on": ["fault"]}],
    }  # fmt: skip
    given = change(values(), {**idle, key: value})
    (said,) = [each for each in describe_idle(recipe_from(given)) if each.startswith(f"{key} is ")]
    assert said.endswith(f"which has no effect here: it is for {need}")
    assert key not in find_idle(recipe_from(change(given, beside)))


def test_answers_are_for_tasks_that_write_texts() -> None:
    assert "evaluate.answer_tokens" not in find_idle(recipe_from(values()))
    tasks = {"tasks": {"a": {"objective": "masked"}}}
    sources = {"train": [{"path": "rows.jsonl", "task": "a"}]}
    assert "evaluate.answer_tokens" in find_idle(recipe_from(values(data=sources, **tasks)))


def test_the_needs_of_a_key_name_keys_that_there_are() -> None:
    known = recipe_keys()
    sections = {name.rpartition(".")[0] for name in known} | {"data.validation", "adapter"}
    count = 0
    for key, field in known.items():
        extra = field.json_schema_extra
        for need in extra.get("needs", ()) if isinstance(extra, dict) else ():  # type: ignore[union-attr]
            found = _NEED.fullmatch(str(need))
            assert found is not None, need
            name = found[2] if "." in found[2] else f"{key.rpartition('.')[0]}.{found[2]}"
            assert name in known.keys() | sections, need
            count += 1
    assert count > 20


def test_a_default_is_known_in_any_source_and_no_name_of_ones_own_is_one() -> None:
    assert is_default("data.validation.3.field", "text") and is_default("optim.beta2", 0.95)
    assert not is_default("data.train.0.field", "code") and not is_default("tasks.defects.ratio", 1.0)
