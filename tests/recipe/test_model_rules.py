"""Rules across [model] and [adapter]."""

from pathlib import Path

import pytest

from etude.errors import RecipeError
from etude.recipe.load import load_recipe
from tests.recipes import GOOD

YARN = [
    "model.rope_scaling.kind=yarn",
    "model.rope_scaling.factor=4.0",
    "model.rope_scaling.original_context=64",
]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["model.layer_window=[1, 0]"], "a window of 1, in which a token sees only itself"),
        (["model.layer_window=[-4]"], "model.layer_window"),
        (["model.layer_window=[]"], "model.layer_window"),
        (["model.sliding_window=1"], "model.sliding_window"),
        (["model.layer_window=[8]", "model.sliding_window=8"], "keep one of them"),
        (["model.layer_window=[8, 16]", "model.qk_norm=true"], "windows of 8 and 16 tokens"),
        (
            ["model.layer_window=[8, 8, 0]", "model.n_layer=2", "model.qk_norm=true"],
            "3 layers, but n_layer is 2",
        ),
        (["model.layer_window=[8, 0]"], "set qk_norm = true"),
        (["model.layer_window=[8]", "model.kind=encoder", "train.objective=masked"], "belongs to a decoder"),
        (["model.layer_window=[8]", "model.from=x"], "belongs to a model from scratch"),
        (YARN, "belongs to a pretrained model"),
        (["model.from=x", *YARN[:2]], "original_context"),
        (
            ["model.from=x", *YARN[:1], "model.rope_scaling.factor=0.5", *YARN[2:]],
            "model.rope_scaling.factor",
        ),
        (["model.from=x", "model.rope_scaling.kind=dynamic", *YARN[1:]], "'linear', 'llama3' or 'yarn'"),
        (["model.from=x", *YARN, "adapter.rank=2"], "not in the files of an adapter"),
    ],
)
def test_a_model_that_contradicts_itself_is_refused_in_one_line(
    tmp_path: Path, changes: list[str], says: str
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(GOOD)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, changes)
    assert [problem for problem in caught.value.problems if says in problem and "\n" not in problem], (
        caught.value.problems
    )


def test_a_pattern_of_windows_is_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(GOOD)
    model = load_recipe(path, ["model.layer_window=[8, 8, 0]", "model.qk_norm=true"]).model
    assert model.layer_window == [8, 8, 0]
