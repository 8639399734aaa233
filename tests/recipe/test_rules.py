from pathlib import Path

import pytest

from etude.errors import RecipeError
from etude.recipe.load import load_recipe
from tests.recipes import GOOD


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["train.micro_batch_size=3"], "does not divide global_batch_size 8"),
        (["train.devices=3"], "3 devices do not share evenly; try 9"),
        (
            ["schedule.warmup_steps=10"],
            "schedule.warmup_steps (override) is 10 but the run has 10 steps; expected fewer; try 1",
        ),
        (["train.epochs=2"], "either steps or epochs"),
        (["train.accumulation=2"], "the same thing"),
        (["evaluate.patience=2", "data.validation=none"], "needs a validation set"),
        (["evaluate.every_steps=2", "evaluate.every_epochs=2"], "keep one of them"),
        (["checkpoint.every_steps=2", "checkpoint.every_minutes=2"], "keep one of them"),
        (["checkpoint.keep=1"], "at least 2"),
        (
            ["watch.ignore=['plateau', 'overfiting']"],
            "'overfiting', which is no kind of finding; did you mean overfitting?",
        ),
        (["watch.ignore=['x']"], "docs/watch.md names all"),
        (["checkpoint.keep_at=[11]"], "names step 11"),
        (["model.n_head=5"], "which 5 heads do not share evenly"),
        (["model.n_kv_head=4"], "does not divide n_head 6"),
        (["model.qk_norm=true", "model.qkv_bias=true"], "no published architecture"),
        (["data.validation_ratio=1.0"], "below 1"),
        (["tokenizer.from=x"], "either from or train_vocab_size"),
        (["model.vocab_size=299"], "use at least 300"),
        (["data.train.0.source=python-stdlib"], "either path or source"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(tmp_path: Path, changes: list[str], says: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(GOOD)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, changes)
    assert any(says in problem for problem in caught.value.problems)
