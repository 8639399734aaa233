"""Room for an answer behind its prompt: the model's context is never made by leaving out what was asked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.errors import RecipeError
from etude.plan import make_plan
from etude.recipe.load import change, recipe_from
from etude.recipe.schema import Recipe
from etude.records.events import Finding
from etude.report.history import read_history
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_gpt2, write_instructions, write_qwen2


@pytest.mark.parametrize("write", [write_qwen2, write_gpt2])
def test_a_question_is_read_whole_however_long_its_answer_may_be(
    write: Callable[[Path], Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    recipe = _recipe(
        write(tmp_path / "base"), tmp_path, {"evaluate.answers": 3, "evaluate.answer_tokens": 256}
    )
    plan, run = make_plan(recipe), run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    history = read_history(run)
    first = [said for said in history.generations if said.step == 0]
    examples, model = plan.corpus.examples, AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    for said in first:
        example = {each.prompt: each for each in examples}[said.prompt]
        most = 256 - len(example.prompt_ids)
        assert said.settings["max_tokens"] == most
        output = model.generate(
            torch.tensor([example.prompt_ids]), max_new_tokens=most, do_sample=False,
            eos_token_id=[*plan.corpus.end_ids],
            suppress_tokens=[*range(plan.corpus.tokenizer.vocab_size, 320)],
        )  # fmt: skip
        written = output[0, len(example.prompt_ids) :].tolist()
        assert said.stopped == (written[-1] in plan.corpus.end_ids)
        assert said.text == plan.corpus.tokenizer.decode(
            [each for each in written if each not in plan.corpus.end_ids]
        )
    (finding,) = [each for each in history.events(Finding) if not each.kind]
    assert "behind 3 of 3 questions the model's context leaves room for fewer" in finding.evidence


def test_a_prompt_that_fills_the_context_is_refused_before_training(tmp_path: Path) -> None:
    recipe = _recipe(
        write_qwen2(tmp_path / "base"), tmp_path, {"evaluate.prompts": ["Hello", "total " * 300]}
    )
    with pytest.raises(
        RecipeError, match=r"evaluate.prompts\[1\] has .* context of 256 .* shorten the prompt"
    ):
        make_plan(recipe)


def _recipe(base: Path, folder: Path, changes: dict[str, Any]) -> Recipe:
    rows = write_instructions(folder / "rows.jsonl")
    values: dict[str, Any] = {
        "name": "room", "model": {"from": str(base)},
        "data": {"train": [{"path": str(rows)}], "validation_ratio": 0.2},
        "train": {"steps": 1, "seq_len": 96, "global_batch_size": 2, "device": "cpu", "precision": "fp32"},
        "optim": {"learning_rate": 1e-3},
    }  # fmt: skip
    return recipe_from(change(values, changes))
