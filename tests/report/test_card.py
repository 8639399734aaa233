"""Cards of exported models: figures from the journal, and code that the named classes can run."""

import ast
import inspect
import math
from pathlib import Path

import pytest

from etude.recipe.load import recipe_from
from etude.records.store import Run, create_run
from etude.report.card import model_card
from tests.report.runs import attempt, evaluation, finished_run, loss_at, window


def loading(card: str) -> ast.Module:
    return ast.parse(card.split("```python\n")[1].split("```")[0])


def tuned(runs: Path, objective: str = "causal") -> Run:
    """A run that tuned a model of the hub, with an adapter."""
    labels = {"label": "label"} if objective == "classification" else {}
    train = {"objective": objective, "steps": 40, "global_batch_size": 8}
    recipe = recipe_from({
        "name": "small", "model": {"from": "Qwen/Qwen2.5-Coder-0.5B"}, "adapter": {"rank": 4},
        "data": {"train": [{"path": "rows.jsonl", **labels}]}, "train": train,
    })  # fmt: skip
    writer = create_run(runs, recipe)
    writer.append(attempt(trainable=250), *window(1, 5), evaluation(5, 2.0))
    writer.close("finished")
    return writer.run


def test_a_card_counts_the_steps_up_to_its_checkpoint_only(tmp_path: Path) -> None:
    card = model_card(finished_run(tmp_path), "step-000020", "hf")
    kept, last = range(1, 21), range(16, 21)
    loss = sum(loss_at(n) * (100 + n) for n in last) / sum(100 + n for n in last)
    assert "| Steps | 20 of 40, 1.00 epochs |" in card
    assert f"| Training loss | {loss:.4f} nats a target, mean of 5 steps |" in card
    assert f"| Targets | {sum(100 + n for n in kept):,} |" in card
    assert f"| 20 (this model) | 2.5000 | {math.exp(2.5):.2f} | 5,000 |" in card and "2.6000" not in card


def test_the_share_that_was_trained_is_told(tmp_path: Path) -> None:
    card = model_card(tuned(tmp_path), "step-000005", "peft")
    assert "1,000, of which 250 were trained (25.0000 %)" in card
    assert 'base_model: "Qwen/Qwen2.5-Coder-0.5B"' in card and '"lora"' in card


@pytest.mark.parametrize(
    ("kind", "objective", "auto", "parts"),
    [
        ("hf", "causal", "AutoModelForCausalLM", 2),
        ("merged", "causal", "AutoModelForCausalLM", 2),
        ("peft", "causal", "AutoModelForCausalLM", 4),
        ("peft", "classification", "AutoModelForSequenceClassification", 4),
    ],
)
def test_the_code_of_a_card_imports_what_there_is_and_loads_each_part(
    kind: str, objective: str, auto: str, parts: int, tmp_path: Path
) -> None:
    import peft
    import transformers

    code = loading(model_card(tuned(tmp_path, objective), "step-000005", kind))
    names = {alias.name for node in code.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert auto in names and ("PeftModel" in names) == (kind == "peft")
    for name in names:
        owner = peft if name == "PeftModel" else transformers
        assert inspect.isclass(getattr(owner, name)) and hasattr(getattr(owner, name), "from_pretrained")
    calls = [node.func for node in ast.walk(code) if isinstance(node, ast.Call)]
    used = [ast.unparse(call).removesuffix(".from_pretrained") for call in calls]
    assert sorted(used) == sorted(names) and len(used) == parts
