"""A row of the table of families, against the names and modules of transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch

from etude.models.encoder_config import CODE_ENCODER
from etude.models.families.family import Files
from etude.models.families.table import FAMILIES
from etude.recipe.kinds import TRAINING_KINDS
from tests.models.decoders import LLAMA
from tests.models.encoders import ROBERTA

OWN = [(family, name) for family in FAMILIES for name in family.model_types if name != CODE_ENCODER]


def files(objective: str, **values: Any) -> Files:
    return Files(path=Path("model"), values=values, shapes={}, objective=objective)


@pytest.mark.parametrize(("family", "model_type"), OWN, ids=[name for _, name in OWN])
def test_a_classifier_has_the_class_that_transformers_has_for_it(family: Any, model_type: str) -> None:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as THEIRS,
    )

    given = files("classification", model_type=model_type, architectures=["Another"], vocab_size=7)
    values = family.classifier(given, None)
    assert values == {**given.values, "architectures": [THEIRS[model_type]]}


@pytest.mark.parametrize("objective", TRAINING_KINDS)
def test_files_are_for_labels_where_classes_are_predicted(objective: str) -> None:
    assert files(objective).has_labels is (objective == "classification")


@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize(("family", "config"), [(FAMILIES[0], LLAMA), (FAMILIES[1], ROBERTA)])
def test_an_empty_model_has_the_names_and_shapes_of_a_made_one_and_no_memory(
    family: Any, config: Any, labels: int
) -> None:
    empty, made = (
        dict(model.named_parameters())
        for model in (family.empty(config, labels), family.make(config, labels))
    )
    assert {name: part.shape for name, part in empty.items()} == {
        name: part.shape for name, part in made.items()
    }
    assert (
        all(part.is_meta for part in empty.values())
        and family.context(family.make(config, labels)) == config.longest
    )
    assert all(part.device == torch.device("cpu") for part in made.values())
