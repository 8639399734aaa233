"""Fine-tuning from a recipe to files that other tools load, against transformers and PEFT."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.errors import EtudeError
from etude.models.lora import adapter_tensors, add_adapter
from etude.models.parts import find_targets
from etude.models.pretrained import inspect_model, load_pretrained
from etude.plan import make_plan
from etude.recipe.schema import Recipe
from etude.records.events import Evaluation, Generation
from etude.run import Training
from etude.start import Options
from tests import bases
from tests.bases import write_instructions
from tests.recipes import finetuning
from tests.reference import train, train_plainly

BASES: dict[str, Callable[[Path], Path]] = {
    "qwen2": bases.write_qwen2, "llama": bases.write_llama, "gptj": bases.write_gptj,
    "gpt2": bases.write_gpt2,
}  # fmt: skip
TARGETS = {
    "qwen2": ["q_proj", "down_proj"],
    "llama": ["v_proj"],
    "gptj": ["q_proj", "fc_in"],
    "gpt2": ["c_attn"],
}


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("mode", ["lora", "full"])
def test_losses_are_those_of_transformers_and_peft(kind: str, mode: str, tmp_path: Path) -> None:
    base, rows = BASES[kind](tmp_path / "base"), write_instructions(tmp_path / "rows.jsonl")
    adapter = {"adapter": {"rank": 4, "alpha": 8.0, "targets": TARGETS[kind]}} if mode == "lora" else {}
    rate = 5e-3 if mode == "lora" else 1e-3
    recipe = finetuning(rows, base, {**adapter, "optim.learning_rate": rate, "train.micro_batch_size": 2})
    _, ours = train(recipe, tmp_path / "runs")
    theirs = _train_in_transformers(recipe, kind)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert ours[-1] < ours[0] - 0.1


def _train_in_transformers(recipe: Recipe, kind: str) -> list[float]:
    """The same steps by padded batches, one at a time, with torch's AdamW."""
    from transformers import AutoModelForCausalLM

    plan = make_plan(recipe)
    assert plan.pretrained is not None
    model: Any = AutoModelForCausalLM.from_pretrained(recipe.model.from_, dtype=torch.float32)
    for name in ("attn_pdrop", "resid_pdrop", "embd_pdrop"):
        assert getattr(model.config, name, 0.0) == 0.0
    if recipe.adapter is not None:
        from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

        settings = LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS[kind], fan_in_fan_out=kind == "gpt2")
        model = get_peft_model(model, settings)
        ours = load_pretrained(plan.pretrained, dtype=torch.float32, dropout=0.0)[0]
        names = find_targets(ours, recipe.adapter.targets)
        add_adapter(ours, dict.fromkeys(names, recipe.adapter), recipe.seed)
        set_peft_model_state_dict(model, {name: t.detach() for name, t in adapter_tensors(ours).items()})
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    split = plan.corpus.train

    def loss_of(ids: Any) -> torch.Tensor:
        samples = [split.sample(i) for i in ids]
        longest = max(len(sample.tokens) for sample in samples)
        tokens = torch.zeros(len(samples), longest, dtype=torch.long)
        labels, mask = torch.full_like(tokens, -100), torch.zeros_like(tokens)
        for row, sample in enumerate(samples):
            length = len(sample.tokens)
            tokens[row, :length], labels[row, :length] = (
                torch.tensor(sample.tokens),
                torch.tensor(sample.labels),
            )
            mask[row, :length] = 1
        logits = model(input_ids=tokens, attention_mask=mask).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)

    return train_plainly(recipe, split, trained, loss_of)


def test_a_run_is_judged_before_and_after_and_its_best_is_kept(tmp_path: Path) -> None:
    base, rows = bases.write_qwen2(tmp_path / "base"), write_instructions(tmp_path / "rows.jsonl")
    recipe = finetuning(rows, base, {
        "adapter.rank": 4, "evaluate.answers": 3, "evaluate.answer_tokens": 12,
        "evaluate.prompts": ["Add 1 to left."],
    })  # fmt: skip
    training = Training(recipe, Options(runs=tmp_path / "runs"))
    for _ in training:
        pass
    events = [entry.event for entry in training.run.ledger().entries]
    evaluations = [event for event in events if isinstance(event, Evaluation)]
    assert [event.step for event in evaluations] == [0, 10, 20]
    assert not evaluations[0].best and evaluations[-1].loss < evaluations[0].loss
    assert {"stop_rate", "exact_match", "bleu", "repetition"} <= set(evaluations[0].metrics)
    answers = [event for event in events if isinstance(event, Generation) and event.reference is not None]
    assert [event.step for event in answers] == [0] * 3 + [10] * 3 + [20] * 3
    assert training.run.best is not None
    best = training.run.checkpoints / training.run.best["checkpoint"]
    assert {path.name for path in best.glob("*adapter*")} == {
        "adapter_model.safetensors",
        "adapter_config.json",
    }
    assert training.run.environment["base"]["sha256"] == inspect_model(base).digest


def test_an_adapter_goes_on_only_with_its_own_base(tmp_path: Path) -> None:
    base, rows = bases.write_qwen2(tmp_path / "base"), write_instructions(tmp_path / "rows.jsonl")
    recipe = finetuning(rows, base, {"adapter.rank": 4})
    training = Training(recipe, Options(runs=tmp_path / "runs"))
    for step in training:
        if step.number == 7:
            break
    bases.write_qwen2(tmp_path / "other", seed=9)
    (tmp_path / "other" / "model.safetensors").replace(base / "model.safetensors")
    with pytest.raises(EtudeError, match="other weights than when it started"):
        next(iter(Training(recipe, Options(runs=tmp_path / "runs"))))


def test_micro_batches_and_their_sizes_do_not_change_the_losses(tmp_path: Path) -> None:
    base, rows = bases.write_qwen2(tmp_path / "base"), write_instructions(tmp_path / "rows.jsonl")
    curves = []
    for size in (1, 2, 4):
        recipe = finetuning(
            rows, base, {"adapter.rank": 4, "train.micro_batch_size": size, "train.steps": 10}
        )
        steps = Training(recipe, Options(runs=tmp_path / f"runs-{size}"))
        curves.append([float(step.measured[0] / step.measured[1]) for step in steps])
    assert curves[0] == pytest.approx(curves[1], rel=1e-5) and curves[0] == pytest.approx(curves[2], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adapter.rank": 0}, "adapter.rank"), ({"adapter.targets": ["q_prj"]}, "did you mean q_proj"),
        ({"adapter.targets": []}, "at least 1 entry"),
        ({"model.from": "Qwen/Qwen2.5-Coder-1.5"}, "did you mean Qwen/Qwen2.5-Coder-1.5B"),
        ({"model.from": "/nowhere"}, "does not exist"),
        ({"model.n_layer": 3}, "belongs to a model from scratch"),
        ({"model": {}, "tokenizer": {"train_vocab_size": 300}, "adapter.rank": 4}, "needs a pretrained model"),
        ({"tokenizer.train_vocab_size": 300}, "makes ids that a pretrained model does not know"),
        ({"train.seq_len": 8}, "seq_len"),
        ({"train.seq_len": 257}, "train.seq_len is 257, but .* reads 256 tokens at most; use 256"),
        ({"train.seq_len": 257, "model.from": "GPT2"}, "reads 256 tokens at most; use 256"),
        ({"train.seq_len": 24, "data.too_long": "refuse"}, "seq_len"),
        ({"data.template": "chat", "model.from": "LLAMA"}, "no chat template"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_nothing_is_written(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    base, rows = bases.write_qwen2(tmp_path / "base"), write_instructions(tmp_path / "rows.jsonl")
    if changes.get("model.from") == "LLAMA":
        changes = changes | {"model.from": str(bases.write_llama(tmp_path / "llama"))}
    if changes.get("model.from") == "GPT2":
        changes = changes | {"model.from": str(bases.write_gpt2(tmp_path / "gpt2"))}
    with pytest.raises(EtudeError, match=said) as caught:
        training = Training(finetuning(rows, base, changes), Options(runs=tmp_path / "runs"))
        next(iter(training))
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.exit_code == 2 and not (tmp_path / "runs").exists()
