import pytest
from pydantic import ValidationError

from etude.recipe.model import Adapter, Model


def test_a_model_is_named_as_in_the_file_or_in_code() -> None:
    assert Model.model_validate({"from": "a-folder"}) == Model.model_validate({"from_": "a-folder"})
    assert Model.model_validate({"n_layer": 2}).from_ is None


def test_a_key_of_another_section_is_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        Adapter.model_validate({"rank": 4, "n_layer": 2})
