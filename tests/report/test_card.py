"""Cards of exported models: figures from the journal, and code that the named classes can run."""

import ast
import inspect
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.export import export
from etude.recipe.load import recipe_from
from etude.records.store import Run, create_run
from etude.report.card import hub_id_of, model_card
from etude.run import run_recipe
from etude.start import Options
from tests import misleading as runs
from tests.bases import write_instructions, write_qwen2
from tests.recipes import finetuning
from tests.report.runs import ENVIRONMENT, attempt, evaluation, finished_run, loss_at, window

HUB = "Qwen/Qwen2.5-Coder-0.5B"


def loading(card: str) -> ast.Module:
    return ast.parse(card.split("```python\n")[1].split("```")[0])


def tuned(runs: Path, objective: str = "causal", base: str = HUB, kept: Any = None) -> Run:
    """A run that tuned a model with an adapter."""
    labels = {"label": "label"} if objective == "classification" else {}
    train = {"objective": objective, "steps": 40, "global_batch_size": 8}
    recipe = recipe_from({
        "name": "small", "model": {"from": base}, "adapter": {"rank": 4},
        "data": {"train": [{"path": "rows.jsonl", **labels}]}, "train": train,
    })  # fmt: skip
    writer = create_run(runs, recipe)
    known = {"environment": ENVIRONMENT | ({"base": kept} if kept else {})}
    writer.append(attempt(trainable=250, **known), *window(1, 5), evaluation(5, 2.0))
    writer.close("finished")
    return writer.run


def test_a_card_counts_the_steps_up_to_its_checkpoint_only(tmp_path: Path) -> None:
    card = model_card(finished_run(tmp_path), "step-000020", "hf")
    kept, last = range(1, 21), range(16, 21)
    loss = sum(loss_at(n) * (100 + n) for n in last) / sum(100 + n for n in last)
    assert "| Steps | 20 of 40, 1.00 epochs |" in card
    assert f"| Training loss | {loss:.3f} nats a target, mean of the last 5 steps |" in card
    assert f"| Targets | {sum(100 + n for n in kept):,} |" in card
    assert "| on validation samples | step 20 (this model) |" in card
    assert f"| perplexity | {math.exp(2.5):.2f} |" in card and "| 2.600" not in card
    assert "was not evaluated" not in card


def test_a_card_of_a_step_that_was_not_evaluated_says_so_beside_the_last_figures_before_it(
    tmp_path: Path,
) -> None:
    card = model_card(finished_run(tmp_path), "step-000035", "hf")
    assert "This model itself was not evaluated.\n\n| on validation samples | step 20 |" in card
    assert "(this model)" not in card and "| 2.600" not in card
    assert "not the best checkpoint of its run, which is that of step 20" in card


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
        owner = peft if name in ("PeftModel", "PeftConfig") else transformers
        assert inspect.isclass(getattr(owner, name)) and hasattr(getattr(owner, name), "from_pretrained")
    calls = [node.func for node in ast.walk(code) if isinstance(node, ast.Call)]
    used = [ast.unparse(call).removesuffix(".from_pretrained") for call in calls]
    assert sorted(used) == sorted(names) and len(used) == parts


def test_the_lines_of_an_adapter_of_a_folder_load_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = finetuning(
        write_instructions(tmp_path / "rows.jsonl", 20),
        write_qwen2(tmp_path / "base"),
        {"adapter": {"rank": 2}},
    )
    run = run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    out = export(f"{run.path}@last", "peft", tmp_path / "out")
    monkeypatch.chdir(out)
    found: dict[str, Any] = {}
    exec(compile(loading((out / "README.md").read_text()), "card", "exec"), found)
    assert type(found["model"]).__name__ == "PeftModelForCausalLM"
    assert str(tmp_path) not in (out / "README.md").read_text()


def test_a_base_in_the_cache_of_the_hub_is_named_as_the_hub_names_it(tmp_path: Path) -> None:
    folder = tmp_path / "models--Qwen--Qwen2.5-Coder-0.5B" / "snapshots" / "abc123"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\ntags: [x]\n---\n# Qwen\n")
    run = tuned(tmp_path, base=str(folder), kept={"from": "x", "path": str(folder), "sha256": "c"})
    card = model_card(run, "step-000005", "peft")
    assert 'base_model: "Qwen/Qwen2.5-Coder-0.5B"\nlicense: "apache-2.0"\n' in card
    assert 'AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-Coder-0.5B")' in card
    assert str(tmp_path) not in card and hub_id_of(str(tmp_path / "elsewhere")) is None


def test_a_card_says_what_the_run_was_worth_and_no_value_that_is_none(misleading: Callable[..., Any]) -> None:
    constant = misleading(runs.constant_classifier)
    card = model_card(constant, constant.best["checkpoint"], "hf")
    assert "It predicts the label 1 for all 40 test rows." in card and "perplexity" not in card
    assert "| f1 | 0 | 0.667 |" in card
    endless = misleading(runs.endless_string)
    card = model_card(endless, "step-000030", "hf")
    assert not re.search(r"\bnan\b|\bFalse\b|\bTrue\b|\['", card.split("## Training")[1])
    assert "None of its answers ends by itself" in card and "no person is quoted" not in card
