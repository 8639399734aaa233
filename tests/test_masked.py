"""Masked-language-model training of an encoder, against transformers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from etude.data.loader import Loader
from etude.errors import EtudeError
from etude.export import export
from etude.models.pretrained import load_pretrained
from etude.plan import make_plan
from tests.bases import write_encoder, write_labelled, write_qwen2
from tests.recipes import STEPS, masked
from tests.reference import adamw, train, update


@pytest.mark.parametrize("family", ["roberta", "bert"])
def test_losses_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM

    base = write_encoder(tmp_path / "base", family=family, masked=family == "roberta")
    rows = write_labelled(tmp_path / "rows.jsonl")
    recipe = masked(rows, base, {"train.micro_batch_size": 4})
    plan = make_plan(recipe)
    training, ours = train(recipe, tmp_path / "runs")
    first, _ = load_pretrained(plan.pretrained, dtype=torch.float32, dropout=0.0, seed=recipe.seed)  # type: ignore[arg-type]
    final = training.run.checkpoints / max(path.name for path in training.run.checkpoints.iterdir())
    model: Any = AutoModelForMaskedLM.from_pretrained(final, dtype=torch.float32)
    model.load_state_dict(first.state_dict(), strict=False)
    model.tie_weights()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    optimizer = adamw(model.parameters(), 2e-3)
    loader = Loader(
        plan.corpus.train,
        global_batch_size=8,
        micro_batch_size=1,
        seed=recipe.seed,
        attend_across_documents=True,
    )
    theirs = []
    for step in range(STEPS):
        batches = loader.load(step).micro_batches
        longest = max(batch.tokens.shape[1] for batch in batches)
        ids = torch.full((len(batches), longest), model.config.pad_token_id)
        seen, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for row, batch in enumerate(batches):
            length = batch.tokens.shape[1]
            ids[row, :length], seen[row, :length] = torch.tensor(batch.tokens[0]), 1
            labels[row, :length] = torch.tensor(batch.labels[0])
        loss = model(input_ids=ids, attention_mask=seen, labels=labels).loss
        theirs.append(update(optimizer, loss))
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_a_classifier_goes_on_from_a_masked_model_and_transformers_loads_both(tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    rows = write_labelled(tmp_path / "rows.jsonl", 80)
    training, losses = train(masked(rows, None, {"data.sample": "row"}), tmp_path / "runs")
    assert losses[-1] < losses[0] - 0.5
    folder = training.run.checkpoints / training.run.best["checkpoint"]
    model = AutoModelForMaskedLM.from_pretrained(folder)
    assert model.config.vocab_size >= len(AutoTokenizer.from_pretrained(folder))
    assert AutoTokenizer.from_pretrained(folder).mask_token == "<mask>"
    labelled = {"data.train": [{"path": str(rows), "label": "label"}], "train.objective": "classification"}
    recipe = masked(
        rows, folder, {**labelled, "evaluate.metric": "f1", "data.sample": "row", "train.steps": 4}
    )
    plan = make_plan(recipe)
    built, new = load_pretrained(plan.pretrained, dtype=torch.float32, dropout=0.0, seed=1)  # type: ignore[arg-type]
    assert all(name.startswith(("classifier", "bert.pooler")) for name in new)
    own = dict(model.named_parameters())
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert torch.equal(dict(built.named_parameters())[name], own[name])
    train(recipe, tmp_path / "runs")


def test_micro_batches_do_not_change_losses(tmp_path: Path) -> None:
    rows = write_labelled(tmp_path / "rows.jsonl", 30)
    changes = {"train.steps": 5, "data.validation": "none"}
    _, whole = train(masked(rows, None, changes), tmp_path / "whole")
    _, parts = train(masked(rows, None, {**changes, "train.micro_batch_size": 2}), tmp_path / "parts")
    assert parts == pytest.approx(whole, rel=1e-6)


def test_every_token_of_a_row_can_be_hidden_and_none_is_in_two_rows(tmp_path: Path) -> None:
    rows = write_labelled(tmp_path / "rows.jsonl", 30)
    corpus = make_plan(masked(rows, None, {"data.sample": "row", "data.validation": "none"})).corpus
    texts = []
    for index in range(len(corpus.train)):
        sample = corpus.train.sample(index)
        texts.append(np.where(sample.labels >= 0, sample.labels, sample.tokens))
    given = [json.loads(line)["text"] for line in rows.read_text().splitlines()]
    decoded = corpus.tokenizer.decode(np.concatenate(texts).tolist(), skip_special=False)
    assert decoded == "".join(f"{text}<|endoftext|>" for text in given)


def test_of_instructions_tokens_of_question_and_answer_are_hidden(tmp_path: Path) -> None:
    path = tmp_path / "alpaca.jsonl"
    rows = [{"instruction": f"Add {index} to a number", "output": f"x + {index}"} for index in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = make_plan(masked(path, None, {"data.validation": "none", "train.seq_len": 200})).corpus
    for index, row in enumerate(rows):
        sample = corpus.train.sample(index)
        assert (sample.labels >= 0).any()
        whole = corpus.tokenizer.decode(np.where(sample.labels >= 0, sample.labels, sample.tokens))
        assert str(row["instruction"]) in whole and str(row["output"]) in whole
    assert len(train(masked(path, None, {"train.steps": 3}), tmp_path / "runs")[1]) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.kind": "decoder"}, r'is "decoder", but train.objective = "masked" needs kind = "encoder"'),
        ({"evaluate.answers": 2}, r"asks for generated text, which masked does not write"),
        (
            {"train.objective": "causal", "model.kind": "decoder", "train.mask_ratio": 0.3},
            r"belongs to .*masked",
        ),
        ({"evaluate.metric": "f1"}, r'evaluate.metric is "f1"; this run knows loss, perplexity'),
    ],
)
def test_bad_input_is_one_clear_line(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    rows = write_labelled(tmp_path / "rows.jsonl", 30)
    with pytest.raises(EtudeError, match=said):
        make_plan(masked(rows, None, changes))


def test_a_tokenizer_without_a_mask_is_refused(tmp_path: Path) -> None:
    rows, base = write_labelled(tmp_path / "rows.jsonl", 30), write_qwen2(tmp_path / "base")
    with pytest.raises(EtudeError, match="the tokenizer has no mask token"):
        make_plan(masked(rows, None, {"tokenizer": {"from": str(base)}}))


def test_an_adapter_is_merged_into_its_base(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForMaskedLM

    base, rows = write_encoder(tmp_path / "base", masked=True), write_labelled(tmp_path / "rows.jsonl")
    changes = {"train.steps": 3, "adapter": {"rank": 2, "targets": ["query", "value"]}}
    training, _ = train(masked(rows, base, changes), tmp_path / "runs")
    tokens = torch.randint(5, 250, (2, 9), generator=torch.Generator().manual_seed(1))
    merged = AutoModelForMaskedLM.from_pretrained(
        export(f"{training.run.path}@last", "merged", tmp_path / "merged")
    )
    plain = AutoModelForMaskedLM.from_pretrained(base)
    with torch.no_grad():
        before = plain(tokens).logits
        adapted: Any = PeftModel.from_pretrained(
            plain, export(f"{training.run.path}@last", "peft", tmp_path / "peft")
        )
        expected = adapted.eval()(tokens).logits
        assert (expected - before).abs().max() > 1e-4
        torch.testing.assert_close(merged.eval()(tokens).logits, expected, atol=2e-5, rtol=1e-4)
    assert not (tmp_path / "merged" / "generation_config.json").exists()
