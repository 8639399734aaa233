"""The table of the kinds of training."""

from collections.abc import Callable
from typing import get_args

import pytest
import transformers

from etude.errors import RecipeError
from etude.models.lora import CLASSIFIER
from etude.recipe.data import Source
from etude.recipe.kinds import TRAINING_KINDS, TrainingKind
from etude.recipe.schema import Loss, Recipe, Train


def test_every_objective_of_a_recipe_has_one_row() -> None:
    assert list(TRAINING_KINDS) == list(get_args(Train.model_fields["objective"].annotation))


@pytest.mark.parametrize("kind", TRAINING_KINDS.values(), ids=TRAINING_KINDS)
def test_the_table_names_keys_classes_and_tasks_that_exist(kind: TrainingKind) -> None:
    assert set(kind.loss_keys) <= set(Loss.model_fields)
    assert set(kind.train_keys) <= set(Train.model_fields)
    assert {*kind.source_keys, *([kind.needed_key] if kind.needed_key else [])} <= set(Source.model_fields)
    assert hasattr(transformers, kind.auto_class)
    assert kind.pipeline_tag in transformers.pipelines.SUPPORTED_TASKS or kind.name == "seq2seq"


def test_task_types_of_adapters_are_those_of_peft() -> None:
    peft = pytest.importorskip("peft")
    known = {task.value for task in peft.TaskType}
    assert {kind.peft_task for kind in TRAINING_KINDS.values() if kind.peft_task} <= known
    assert TRAINING_KINDS["classification"].peft_task == CLASSIFIER


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"train.mask_ratio": 0.3}, 'train.mask_ratio.* belongs to train.objective = "masked"'),
        ({"train.target_len": 9}, 'train.target_len.* belongs to train.objective = "seq2seq"'),
        ({"loss.focal_gamma": 1.0}, 'loss.focal_gamma.* has no meaning for train.objective = "causal"'),
        ({"data.train.0.target": "t"}, 'has target, which belongs to train.objective = "seq2seq"'),
        (
            {"data.train.0.pair": "t"},
            'has label or pair, which belong to train.objective = "classification"',
        ),
    ],
)  # fmt: skip
def test_a_key_of_another_kind_is_refused_with_the_kind_that_has_it(
    make_recipe: Callable[..., Recipe], changes: dict[str, object], problem: str
) -> None:
    with pytest.raises(RecipeError, match=problem):
        make_recipe(changes)
