"""Errors for users, and their exit codes."""

import pytest

from etude import errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InputError, 2), (errors.MissingError, 2), (errors.FaultError, 1), (errors.StorageError, 1),
        (errors.DamageError, 1), (errors.LostRankError, 76),
    ],
)  # fmt: skip
def test_input_of_the_user_ends_with_2_and_faults_with_1(error: type[errors.EtudeError], code: int) -> None:
    assert error("x").exit_code == code


def test_a_recipe_error_has_a_line_for_each_problem() -> None:
    error = errors.RecipeError(["a is 1", "b is 2"])
    assert str(error) == "a is 1\nb is 2" and error.problems == ["a is 1", "b is 2"] and error.exit_code == 2


def test_problems_are_collected_one_by_one_and_faults_go_on() -> None:
    problems: list[str] = []
    for error in (errors.RecipeError(["a is 1", "b is 2"]), errors.InputError("c is missing")):
        with errors.collect(problems):
            raise error
    assert problems == ["a is 1", "b is 2", "c is missing"]
    with pytest.raises(errors.FaultError), errors.collect(problems):
        raise errors.FaultError("broken")
