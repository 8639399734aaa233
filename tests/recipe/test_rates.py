"""A warning where the default learning rate would undo a pretrained model."""

import pytest

from etude.recipe.load import recipe_from
from etude.recipe.rates import advise_rate, usual_rate

LABELLED = {"train": [{"path": "rows.jsonl", "label": "label"}]}
PAIRS = {"train": [{"path": "rows.jsonl", "target": "target"}]}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"data": LABELLED, "train": {"objective": "classification", "epochs": 1, "global_batch_size": 4}},
            "is 2e-05",
        ),
        ({"data": PAIRS, "train": {"objective": "seq2seq", "epochs": 1, "global_batch_size": 4}}, "is 5e-05"),
        ({"adapter": {"rank": 4}}, "an adapter is 0.0002"),
        ({}, "all weights of a pretrained model is 2e-05"),
        ({"optim": {"weight_decay": 0.1}}, "default 0.0006"),
    ],
)
def test_the_default_is_warned_of_beside_a_pretrained_model(changes: dict[str, object], says: str) -> None:
    values = {"name": "a", "model": {"from": "base"}, "data": {"train": [{"path": "rows.jsonl"}]}}
    values |= {"train": {"epochs": 1, "global_batch_size": 4}, **changes}
    advice = advise_rate(recipe_from(values))
    assert advice is not None and says in advice and "\n" not in advice
    assert advise_rate(recipe_from(values | {"optim": {"learning_rate": 6e-4}})) is None
    assert advise_rate(recipe_from(values | {"optim": {"kind": "muon"}})) is None


def test_a_model_from_scratch_has_the_default_without_a_word() -> None:
    values = {
        "name": "a",
        "data": {"train": [{"path": "rows.jsonl"}]},
        "train": {"epochs": 1, "global_batch_size": 4},
    }
    assert advise_rate(recipe_from(values | {"tokenizer": {"train_vocab_size": 300}})) is None


def test_an_adapter_takes_ten_times_the_rate_of_all_weights() -> None:
    assert usual_rate("causal", adapter=True) == 10 * usual_rate("causal", adapter=False)
