import math

import pytest
from pydantic import ValidationError

from etude.recipe.section import Positive, Rate, Section, key


class Sized(Section):
    size: Positive | None = key(None, "a size", example=3)
    rate: Rate = key(0.5, "a rate")


@pytest.mark.parametrize(
    "values", [{"size": "3"}, {"size": 0}, {"size": True}, {"rate": math.nan}, {"rate": 0.0}, {"sizes": 3}]
)
def test_a_section_converts_nothing_and_knows_its_keys(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Sized.model_validate(values)


def test_a_key_suggests_its_example_or_its_default() -> None:
    assert [field.examples for field in Sized.model_fields.values()] == [[3], [0.5]]


def test_a_section_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Sized().size = 4  # type: ignore[misc]
