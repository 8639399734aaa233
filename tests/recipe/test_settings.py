"""Settings that people are shown: none that mean nothing beside the others."""

from typing import Any

from etude.recipe.load import flatten, recipe_from
from etude.recipe.settings import is_default, shown_settings


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
        "model.kind", "train.mask_ratio", "optim.momentum", "optim.matrix_rate_ratio", "schedule.decay_ratio", "evaluate.answers",
        "evaluate.answer_tokens", "evaluate.prompts", "evaluate.sample_tokens", "evaluate.temperature",
    }  # fmt: skip
    scratch = values(model={"kind": "decoder"}, tokenizer={"train_vocab_size": 300})
    assert shown_settings(recipe_from(scratch))["model.kind"] == "decoder"


def test_what_somebody_set_is_shown_whether_it_means_something_or_not() -> None:
    given = recipe_from(values(optim={"momentum": 0.5}, schedule={"kind": "wsd"}))
    shown = shown_settings(given)
    assert shown["optim.momentum"] == 0.5 and shown["schedule.decay_ratio"] == 0.2


def test_a_default_is_known_in_any_source_and_no_name_of_ones_own_is_one() -> None:
    assert is_default("data.validation.3.field", "text") and is_default("optim.beta2", 0.95)
    assert not is_default("data.train.0.field", "code") and not is_default("tasks.defects.ratio", 1.0)
