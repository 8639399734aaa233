"""Classifiers of every family, whole and with adapters, against transformers and PEFT."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from etude.data.batch import Batch
from etude.errors import EtudeError, InputError
from etude.export import export, load_model, open_tokenizer
from etude.models.families.table import family_of
from etude.models.lora import add_adapter
from etude.models.parts import find_targets, head_modules
from etude.models.pretrained import count_lora, inspect_model, load_pretrained
from etude.objectives.classification import Classification
from etude.plan import make_plan
from etude.recipe.model import Adapter
from etude.recipe.schema import Recipe
from etude.records.events import Finding
from etude.run import Training
from etude.speaker import open_speaker
from etude.start import Options
from tests import bases
from tests.recipes import classification
from tests.reference import label_loss, padded, train, train_plainly

Write = Callable[[Path], Path]
FAMILIES: dict[str, tuple[Write, list[str]]] = {
    "roberta": (bases.write_encoder, ["query", "value"]),
    "bert": (lambda folder: bases.write_encoder(folder, family="bert"), ["query", "value"]),
    "qwen2": (bases.write_qwen2, ["q_proj", "v_proj"]),
    "llama": (bases.write_llama, ["q_proj", "v_proj"]),
    "t5": (bases.write_t5, ["q", "v"]),
    "t5 gated": (lambda folder: bases.write_t5(folder, gated=True), ["q", "v"]),
    "modernbert": (bases.write_modernbert, ["Wqkv"]),
    "gpt2": (bases.write_gpt2, ["c_attn"]),
}


def label_logits(
    model: torch.nn.Module,
    tokens: torch.Tensor,
    lengths: tuple[int, ...] | None,
    types: torch.Tensor | None = None,
) -> torch.Tensor:
    batch = Batch(tokens=tokens, labels=tokens, lengths=lengths, types=types)
    return family_of(model).label_logits(model, batch)


def recipe_of(rows: Path, base: Path, changes: dict[str, Any] | None = None) -> Recipe:
    settings = {"train.micro_batch_size": 4, "data.validation": "none", "evaluate.metric": "loss"}
    return classification(rows, base, {**settings, **(changes or {})})


def theirs_of(folder: Path, **settings: Any) -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, **settings).eval()


def last(training: Training) -> Path:
    return max(training.run.checkpoints.iterdir())


@pytest.mark.parametrize(("family", "kind", "adapted"), [
    ("qwen2", "single", False), ("llama", "multi", False), ("t5", "pairs", False),
    ("modernbert", "multi", False), ("gpt2", "single", False), ("roberta", "single", True),
    ("bert", "pairs", True), ("qwen2", "multi", True), ("t5 gated", "single", True),
    ("modernbert", "single", True),
])  # fmt: skip
def test_losses_and_the_logits_of_a_checkpoint_are_those_of_transformers_and_peft(
    family: str, kind: str, adapted: bool, tmp_path: Path
) -> None:
    write, targets = FAMILIES[family]
    base = write(tmp_path / "base")
    rows = bases.write_labelled(tmp_path / "rows.jsonl", multi=kind == "multi", pairs=kind == "pairs")
    changes: dict[str, Any] = {"adapter": {"rank": 4, "targets": targets}} if adapted else {}
    if kind == "pairs":
        changes["data.train.0.pair"] = "other"
    recipe = recipe_of(rows, base, changes)
    plan = make_plan(recipe)
    training, ours = train(recipe, tmp_path / "runs")
    model = _first(recipe, plan, last(training))
    split = plan.corpus.train
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in parameters) == plan.trainable
    theirs = train_plainly(
        recipe, split, parameters, lambda ids: label_loss(model, [split.sample(i) for i in ids])
    )
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert ours[-1] < ours[0] - 0.02
    samples = [split.sample(i) for i in range(7)]
    mine = load_model(last(training), dtype=torch.float32)
    tokens = torch.tensor(np.concatenate([sample.tokens for sample in samples]))[None]
    lengths = tuple(len(sample.tokens) for sample in samples)
    types = torch.tensor(
        np.concatenate([sample.positions >= sample.second for sample in samples]).astype(int)
    )[None]
    with torch.no_grad():
        model = _last(base, last(training), adapted)
        expected = model(**padded(samples, model)).logits
        said = label_logits(mine, tokens, lengths, types if kind == "pairs" else None)
    assert torch.allclose(said, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("family", "adapted"), [("qwen2", False), ("qwen2", True), ("llama", False), ("gpt2", False)]
)
def test_texts_are_scored_as_here_where_transformers_encodes_and_pads_them(
    family: str, adapted: bool, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    write, targets = FAMILIES[family]
    base, rows = write(tmp_path / "base"), bases.write_labelled(tmp_path / "rows.jsonl")
    tokenizer = open_tokenizer(base)
    file = base / "config.json"  # as Qwen2.5's: the end token is known, and no padding
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"eos_token_id": tokenizer.eos_id, "pad_token_id": None})
    )
    changes: dict[str, Any] = {"train.steps": 2}
    training, _ = train(
        recipe_of(rows, base, changes | ({"adapter": {"rank": 2, "targets": targets}} if adapted else {})),
        tmp_path / "runs",
    )
    texts = ["total value left", "print", "left total 3 value print"]
    ids = [each[0].tolist() for each in tokenizer.encode_joined([(text, None) for text in texts])]
    tokens, lengths = torch.tensor([token for each in ids for token in each])[None], tuple(map(len, ids))
    batch = AutoTokenizer.from_pretrained(last(training))(texts, padding=True, return_tensors="pt")
    assert [row[mask == 1].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"])] == ids
    with torch.no_grad():
        expected = _last(base, last(training), adapted)(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).logits
        said = label_logits(load_model(last(training), dtype=torch.float32), tokens, lengths)
    torch.testing.assert_close(said, expected, atol=2e-5, rtol=1e-4)


def test_an_adapted_classifier_resumes_and_its_exports_load_with_its_labels(tmp_path: Path) -> None:
    base, rows = bases.write_qwen2(tmp_path / "base"), bases.write_labelled(tmp_path / "rows.jsonl")
    changes = {"train.steps": 6, "checkpoint.every_steps": 3, "adapter": {"rank": 2, "targets": "all-linear"}}
    recipe = recipe_of(rows, base, changes)
    whole, _ = train(recipe, tmp_path / "whole")
    for step in Training(recipe, Options(runs=tmp_path / "parts")):
        if step.number == 4:
            break
    parts, _ = train(recipe, tmp_path / "parts")
    assert (last(whole) / "adapter_model.safetensors").read_bytes() == (
        last(parts) / "adapter_model.safetensors"
    ).read_bytes()
    ours = load_model(last(whole), dtype=torch.float32)
    tokens = torch.randint(5, 250, (4, 9), generator=torch.Generator().manual_seed(1))
    expected = label_logits(ours, tokens, None)
    merged = theirs_of(export(f"{whole.run.path}@last", "merged", tmp_path / "merged"))
    adapted = _last(base, export(f"{whole.run.path}@last", "peft", tmp_path / "peft"), adapted=True)
    for model in (merged, adapted):
        assert model.config.id2label == {0: "none", 1: "out", 2: "sum"}
        torch.testing.assert_close(model(tokens).logits, expected, atol=2e-5, rtol=1e-4)
    card = (tmp_path / "peft" / "README.md").read_text()
    assert "AutoModelForSequenceClassification" in card and "text-classification" in card
    with pytest.raises(InputError, match="is a classifier, which writes no text"):
        open_speaker(str(tmp_path / "merged"), tmp_path)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_an_adapter_of_peft_with_its_classifier_is_loaded(family: str, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    write, targets = FAMILIES[family]
    base = write(tmp_path / "base")
    # PEFT keeps the last layer of a head alone; ModernBERT's has another one, which must be in the base then.
    theirs_of(base, num_labels=3).save_pretrained(base)
    model = get_peft_model(
        theirs_of(base, num_labels=3), LoraConfig("SEQ_CLS", r=4, target_modules=targets)
    ).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_classifier.json").write_text(
        json.dumps({"id2label": {"0": "a", "1": "b", "2": "c"}})
    )
    ours = load_model(tmp_path / "adapter", dtype=torch.float32)
    mine = dict(ours.named_parameters())
    theirs = {name.replace(".modules_to_save.default", ""): p for name, p in model.named_parameters()}
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    heads = [name for name in saved if "lora_" not in name]
    assert heads
    for name in heads:
        assert torch.equal(mine[name.removeprefix("base_model.model.")], theirs[name])
    for name in ("head.dense.weight", "bert.pooler.dense.weight"):
        assert name not in mine or torch.equal(mine[name], theirs[f"base_model.model.{name}"])


def test_a_head_for_as_many_labels_is_kept_and_another_is_drawn_and_said(tmp_path: Path) -> None:
    base, rows = bases.write_qwen2(tmp_path / "base"), bases.write_labelled(tmp_path / "rows.jsonl")
    first, _ = train(recipe_of(rows, base, {"train.steps": 2}), tmp_path / "first")
    trained = load_file(last(first) / "model.safetensors")
    again = make_plan(recipe_of(rows, last(first))).pretrained
    assert again is not None and again.labels == 3
    kept, new = load_pretrained(again, dtype=torch.float32, dropout=0.0, seed=5)
    assert not new and torch.equal(kept.get_parameter("score.weight"), trained["score.weight"])
    two = tmp_path / "two.jsonl"
    two.write_text("".join(f'{{"text": "value {i}", "label": {i % 2}}}\n' for i in range(20)))
    second, _ = train(recipe_of(two, last(first), {"train.steps": 2}), tmp_path / "second")
    said = [entry.event for entry in second.run.ledger().entries if isinstance(entry.event, Finding)]
    assert [each.evidence for each in said if each.what == "new weights"] == ["1 new tensor: score.weight"]
    model = load_model(last(second), dtype=torch.float32)
    assert model.get_parameter("score.weight").shape == (2, 32)


@pytest.mark.parametrize("family", ["qwen2", "t5 gated", "modernbert"])
def test_a_frozen_body_in_bf16_trains_a_head_in_fp32(family: str, tmp_path: Path) -> None:
    write, targets = FAMILIES[family]
    pretrained = replace(inspect_model(write(tmp_path), "classification"), labels=3)
    tokens, losses = torch.randint(5, 250, (1, 12), generator=torch.Generator().manual_seed(1)), []
    for dtype in (torch.float32, torch.bfloat16):
        model, _ = load_pretrained(pretrained, dtype=dtype, dropout=0.0, seed=1)
        names, whole = find_targets(model, targets), head_modules(model)
        add_adapter(model, dict.fromkeys(names, Adapter(rank=2, targets=targets)), 1, whole=whole)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits = label_logits(model, tokens, (5, 7)).float()
        loss, _ = Classification(False).loss_of(logits, torch.eye(3)[:2])
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(float(loss.detach()))
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        assert all(p.dtype == torch.float32 and p.grad is not None for _, p in trained)
        assert {name for name, _ in trained if "lora_" not in name} == {
            f"{part}.{name}" for part in whole for name, _ in model.get_submodule(part).named_parameters()
        }
    assert losses[1] == pytest.approx(losses[0], abs=0.05)


def test_trainable_parameters_are_those_of_the_adapter_and_the_head(tmp_path: Path) -> None:
    rows = bases.write_labelled(tmp_path / "rows.jsonl")
    for family, adapter, head in (
        ("roberta", 2 * 2 * 4 * (32 + 32), 32 * 32 + 32 + 32 * 3 + 3),
        ("bert", 2 * 2 * 4 * (32 + 32), 32 * 32 + 32 + 32 * 3 + 3),
        ("qwen2", 2 * 4 * ((32 + 32) + (32 + 16)), 32 * 3),
        ("modernbert", 2 * 4 * (32 + 96), 32 * 32 + 32 + 32 * 3 + 3),
    ):
        write, targets = FAMILIES[family]
        changes = {"adapter": {"rank": 4, "targets": targets}}
        plan = make_plan(recipe_of(rows, write(tmp_path / family), changes))
        assert (plan.parameters["adapter"], plan.parameters["head"]) == (adapter, head), family
        assert plan.trainable == adapter + head
        assert plan.pretrained is not None and count_lora(plan.pretrained, 4, targets) == adapter


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        (
            "roberta",
            {"adapter": {}},
            r"no linear layer is called 'q_proj'; there are dense, key, query, value$",
        ),
        (
            "t5",
            {"adapter": {"targets": ["out_proj"]}},
            r"no linear layer is called 'out_proj'; .*there are k, o, q",
        ),
        ("qwen2", {"train.seq_len": 300}, r"train.seq_len is 300, but .* reads 256 tokens at most; use 256"),
        ("gpt2", {"train.seq_len": 300}, r"train.seq_len is 300, but .* reads 256 tokens at most; use 256"),
    ],
)
def test_bad_input_is_one_clear_line(family: str, changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    base, rows = FAMILIES[family][0](tmp_path / "base"), bases.write_labelled(tmp_path / "rows.jsonl", 20)
    with pytest.raises(EtudeError, match=said) as caught:
        make_plan(recipe_of(rows, base, changes))
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


def test_a_model_that_cannot_classify_is_refused(tmp_path: Path) -> None:
    from transformers import CodeGenConfig, CodeGenForCausalLM

    sizes = {"vocab_size": 61, "n_positions": 32, "n_embd": 32, "n_layer": 1, "n_head": 4, "rotary_dim": 4}
    CodeGenForCausalLM(CodeGenConfig(**sizes)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is a codegen model, which has no form that scores labels"):
        inspect_model(tmp_path, "classification")


@pytest.mark.parametrize("family", ["roberta", "qwen2", "t5", "modernbert"])
@pytest.mark.parametrize("harm", ["lacks", "shape"])
def test_damaged_bodies_are_refused(family: str, harm: str, tmp_path: Path) -> None:
    base = FAMILIES[family][0](tmp_path)
    tensors = load_file(base / "model.safetensors")
    name = next(
        name for name in sorted(tensors) if "layer" in name and name.endswith("weight") and "norm" not in name
    )
    tensors[name] = torch.zeros(3, 5)
    if harm == "lacks":
        del tensors[name]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    pretrained = replace(inspect_model(base, "classification"), labels=2)
    said = "lacks .*unlike its config.json" if harm == "lacks" else r"is \[3, 5\], but config.json says"
    with pytest.raises(InputError, match=said):
        load_pretrained(pretrained, dtype=torch.float32, dropout=0.0, seed=0)


@pytest.mark.parametrize("family", ["roberta", "modernbert"])
def test_a_body_with_more_blocks_than_its_config_says_is_refused(family: str, tmp_path: Path) -> None:
    base = FAMILIES[family][0](tmp_path)
    values = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**values, "num_hidden_layers": 1, "layer_types": None}))
    pretrained = replace(inspect_model(base, "classification"), labels=2)
    with pytest.raises(InputError, match=r"has .*layers?\.1\..*, unlike its config.json"):
        load_pretrained(pretrained, dtype=torch.float32, dropout=0.0, seed=0)


def test_positions_that_begin_behind_the_padding_leave_room_for_fewer_tokens(tmp_path: Path) -> None:
    from transformers import XLMRobertaConfig

    config = XLMRobertaConfig(
        vocab_size=61, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=34,
    )  # fmt: skip
    bases.write_encoder(tmp_path)
    config.save_pretrained(tmp_path)
    assert inspect_model(tmp_path, "classification").config.longest == 32


def _first(recipe: Recipe, plan: Any, checkpoint: Path) -> Any:
    """Their model with the weights that ours begins with, which keeps what ours trains."""
    first, _ = load_pretrained(plan.pretrained, dtype=torch.float32, dropout=0.0, seed=recipe.seed)
    base = Path(str(recipe.model.from_))
    if recipe.adapter is None:
        model = theirs_of(checkpoint)
        assert model.config.id2label == dict(enumerate(plan.corpus.labels.names))
        model.load_state_dict(first.state_dict(), strict=False)
    else:
        import peft

        names = find_targets(first, recipe.adapter.targets)
        add_adapter(first, dict.fromkeys(names, recipe.adapter), recipe.seed, whole=head_modules(first))
        model = peft.PeftModel.from_pretrained(_base(base, checkpoint), checkpoint, is_trainable=True)
        assert set(peft.get_peft_model_state_dict(model)) == set(
            load_file(checkpoint / "adapter_model.safetensors")
        )
        _copy(first, model)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model.train()


def _copy(first: torch.nn.Module, model: Any) -> None:
    from peft import set_peft_model_state_dict

    from etude.models.lora import adapter_tensors

    set_peft_model_state_dict(
        model, {name: tensor.detach() for name, tensor in adapter_tensors(first).items()}
    )


def _last(base: Path, checkpoint: Path, adapted: bool) -> Any:
    if not adapted:
        return theirs_of(checkpoint)
    from peft import PeftModel

    return PeftModel.from_pretrained(_base(base, checkpoint), checkpoint).eval()


def _base(base: Path, checkpoint: Path) -> Any:
    """The base as their classifier, with what config.json of the checkpoint says of labels and tokens."""
    from transformers import AutoConfig

    return theirs_of(base, config=AutoConfig.from_pretrained(checkpoint / "adapter_classifier.json"))
