"""A look at data and model: the kind of training, and lengths as the run then counts them."""

import json
from pathlib import Path

import pytest

from etude.cli.look import look
from etude.errors import InputError
from etude.plan import make_plan
from etude.recipe.load import recipe_from
from tests.bases import (
    write_encoder,
    write_gpt2,
    write_instructions,
    write_labelled,
    write_modernbert,
    write_pairs,
    write_qwen2,
    write_t5,
)


def test_the_kind_follows_from_the_model_and_the_rows(tmp_path: Path) -> None:
    labelled, pairs = write_labelled(tmp_path / "labelled.jsonl"), write_pairs(tmp_path / "pairs.jsonl")
    instructions = write_instructions(tmp_path / "instructions.jsonl")
    models = {}
    for write in (write_encoder, write_modernbert, write_t5, write_qwen2, write_gpt2):
        (tmp_path / write.__name__).mkdir()
        models[write.__name__] = str(write(tmp_path / write.__name__))
    for model, data, objective in (
        ("write_encoder", labelled, "classification"),
        ("write_modernbert", labelled, "classification"),
        ("write_t5", labelled, "classification"),
        ("write_t5", pairs, "seq2seq"),
        ("write_t5", instructions, "seq2seq"),
        ("write_qwen2", labelled, "causal"),
        ("write_gpt2", instructions, "causal"),
    ):
        assert look(data, models[model]).objective == objective, (model, data.name)


@pytest.mark.parametrize(
    ("model", "objective"),
    [("microsoft/codebert-base", "classification"), ("Salesforce/codet5-small", "seq2seq")],
)
def test_the_kind_of_a_model_that_is_not_here_follows_from_its_name(
    model: str, objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    write = {"classification": write_labelled, "seq2seq": write_pairs}[objective]
    facts = look(write(tmp_path / "rows.jsonl"), model)
    assert facts.objective == objective and facts.problem and facts.is_guess and facts.targets is None


def test_lengths_are_those_of_the_prepared_rows(tmp_path: Path) -> None:
    rows, base = write_labelled(tmp_path / "rows.jsonl", 60, pairs=True), write_encoder(tmp_path)
    facts = look(rows, str(base), {"label": "label", "pair": "other"})
    values = {
        "name": "a", "model": {"from": str(base)}, "optim": {"learning_rate": 2e-5},
        "data": {"train": [facts.fields.source(rows).model_dump(exclude_none=True)], "validation": "none"},
        "train": {"objective": "classification", "epochs": 1, "seq_len": 128, "global_batch_size": 8},
    }  # fmt: skip
    plan = make_plan(recipe_from(values))
    assert sum(facts.tokens) == plan.train.tokens_per_sample * len(plan.train)
    assert facts.weights == plan.parameters["total"] and facts.context == 128 and facts.written == []


def test_a_folder_of_texts_is_nothing_for_an_encoder(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("x = 1\n")
    with pytest.raises(InputError, match=r"has texts and no rows; for .* give rows, as JSON Lines or CSV$"):
        look(tmp_path / "src", str(write_encoder(tmp_path)))


def test_plain_texts_are_counted_one_by_one(tmp_path: Path) -> None:
    rows = [json.dumps({"text": f"x = {number}\n"}) + "\n" for number in range(50)]
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    facts = look(tmp_path / "rows.jsonl", str(write_qwen2(tmp_path)))
    assert (facts.format, facts.rows, len(facts.tokens), facts.is_guess) == ("text", 50, 50, False)
