"""The table of families: one look-up, and a new family is a module and a row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.evaluate.generate import generate
from etude.models.families import table
from etude.models.families.foreign import FOREIGN
from etude.models.families.table import FAMILIES, family_of
from etude.models.pretrained import inspect_model, load_pretrained
from etude.recipe.kinds import TRAINING_KINDS
from etude.run import Training
from etude.start import Options
from tests import bases
from tests.models.families.sketch import GPT, Gpt
from tests.recipes import finetuning

BASES: dict[str, Callable[[Path], Path]] = {
    "decoder": bases.write_qwen2, "encoder": lambda folder: bases.write_encoder(folder, masked=True),
    "encoder-decoder": bases.write_t5, "transformers": bases.write_gpt2,
}  # fmt: skip
BLOCKS = {
    "decoder": "model.layers.", "encoder": "roberta.encoder.layer.", "encoder-decoder": "block.",
    "transformers": "transformer.h.",
}  # fmt: skip


@pytest.mark.parametrize("name", BASES)
def test_a_configuration_and_its_model_are_of_one_family(name: str, tmp_path: Path) -> None:
    objective = "masked" if name == "encoder" else None
    found = inspect_model(BASES[name](tmp_path), objective)
    model, new = load_pretrained(found, dtype=torch.float32, dropout=0.0)
    family = family_of(found.config)
    assert family.name == name and family_of(model) is family and not new


@pytest.mark.parametrize("name", BASES)
def test_parts_add_up_and_blocks_hold_each_layer_once(name: str, tmp_path: Path) -> None:
    found = inspect_model(BASES[name](tmp_path), "masked" if name == "encoder" else None)
    model, _ = load_pretrained(found, dtype=torch.float32, dropout=0.0)
    family = family_of(model)
    parts, cost = family.measure(found.config, 0, 16, 0)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert parts["total"] == total == sum(size for part, size in parts.items() if part != "total")
    assert cost.per_token > 0
    within = {id(part) for block in family.blocks(model) for part in block.parameters()}
    expected = {id(part) for key, part in model.named_parameters() if BLOCKS[name] in key}
    assert within == expected and within


def test_each_kind_of_training_has_a_family_that_trains_it_from_scratch() -> None:
    for kind in TRAINING_KINDS.values():
        family = table.family_named(kind.model)
        assert kind.name in family.objectives and family.from_recipe is not None


def test_a_module_of_no_family_is_one_of_transformers() -> None:
    assert family_of(torch.nn.Linear(2, 2)) is FOREIGN


def test_a_new_family_is_a_module_and_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPT-2 as own: same logits, the same text, training, and a checkpoint that transformers loads."""
    from transformers import AutoModelForCausalLM

    base = bases.write_gpt2(tmp_path / "base")
    assert family_of(inspect_model(base).config) is FOREIGN
    monkeypatch.setattr(table, "FAMILIES", (*FAMILIES, GPT))
    found = inspect_model(base)
    ours, _ = load_pretrained(found, dtype=torch.float32, dropout=0.0)
    theirs: Any = AutoModelForCausalLM.from_pretrained(base).eval()
    assert found.reason is None and isinstance(ours, Gpt) and family_of(ours) is GPT
    tokens = torch.randint(5, 250, (1, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = ours(tokens, lengths=(5, 7)) @ ours.head_weight().T
        expected = torch.cat([theirs(part).logits for part in torch.split(tokens, [5, 7], dim=1)], dim=1)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    written = generate(ours, [tokens[0].tolist()], max_tokens=6, end_ids=(0,))[0]
    again = theirs.generate(tokens, max_new_tokens=6, do_sample=False, eos_token_id=0, pad_token_id=0)
    assert again[0, 12:].tolist()[: len(written.ids)] == written.ids
    rows = bases.write_instructions(tmp_path / "rows.jsonl")
    changes = {"adapter": None, "train.steps": 2, "optim.learning_rate": 1e-3}
    training = Training(finetuning(rows, base, changes), Options(runs=tmp_path / "runs"))
    losses = [float(step.measured[0] / step.measured[1]) for step in training]
    assert losses[1] < losses[0]
    saved = max(training.run.checkpoints.iterdir(), key=lambda path: path.name)
    trained = AutoModelForCausalLM.from_pretrained(saved)
    assert not torch.equal(trained.transformer.wte.weight, theirs.transformer.wte.weight)
