"""What a tiny model answers, held against its own greedy generation by transformers."""

import json
from pathlib import Path

import pytest
import torch

from etude.data.corpus import Corpus
from etude.data.prepared import prepare
from etude.evaluate.answers import answer, continue_prompts
from etude.models.pretrained import inspect_model, load_pretrained
from etude.recipe.load import recipe_from, with_changes
from etude.recipe.schema import Recipe
from etude.scores import answers as scores
from etude.scores.answers import Answer
from tests.bases import write_instructions, write_qwen2

TOKENS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answers")
    write_instructions(folder / "rows.jsonl")
    return write_qwen2(folder / "qwen2").parent


def load(folder: Path, **evaluate: object) -> tuple[Recipe, Corpus, torch.nn.Module]:
    recipe = recipe_from(
        {
            "name": "tiny",
            "model": {"from": str(folder / "qwen2")},
            "data": {"train": [{"path": str(folder / "rows.jsonl")}], "validation_ratio": 0.3},
            "train": {
                "epochs": 1,
                "seq_len": 128,
                "global_batch_size": 4,
                "device": "cpu",
                "precision": "fp32",
            },
            "evaluate": {"answer_tokens": TOKENS, **evaluate},
        }
    )
    model = load_pretrained(inspect_model(folder / "qwen2"), dtype=torch.float32, dropout=0.0)[0]
    return recipe, prepare(recipe, tokenizer_folder=folder / "qwen2"), model


def test_answers_are_those_of_transformers_and_scored_against_their_references(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    recipe, corpus, model = load(folder, answers=4)
    texts, answers = answer(model, corpus, recipe, 7)
    oracle = AutoModelForCausalLM.from_pretrained(folder / "qwen2")
    tokenizer = AutoTokenizer.from_pretrained(folder / "qwen2")
    count = len(corpus.examples)
    for text, index in zip(texts, [index * count // 4 for index in range(4)], strict=True):
        example = corpus.examples[index]
        ids = torch.tensor([example.prompt_ids])
        suppressed = list(range(corpus.tokenizer.vocab_size, oracle.config.vocab_size))
        whole = oracle.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=TOKENS,
            eos_token_id=corpus.end_ids, suppress_tokens=suppressed, pad_token_id=0,
        )  # fmt: skip
        new = whole[0, ids.shape[1] :].tolist()
        stopped = new[-1] in corpus.end_ids
        assert text.text == tokenizer.decode(new[:-1] if stopped else new, skip_special_tokens=True)
        assert (text.stopped, text.reference, text.prompt, text.step) == (
            stopped,
            example.reference,
            example.prompt,
            7,
        )
        assert text.settings == {"max_tokens": TOKENS, "temperature": 0.0}
    said = [Answer(text.text, text.reference or "", bool(text.stopped)) for text in texts]
    assert scores.score(answers) == pytest.approx(scores.score(said), nan_ok=True)


def test_more_answers_than_examples_are_all_of_them_once(folder: Path) -> None:
    recipe, corpus, model = load(folder, answers=1000)
    texts, _ = answer(model, corpus, recipe, 0)
    assert [text.prompt for text in texts] == [example.prompt for example in corpus.examples]


def test_prompts_are_asked_as_instructions_and_the_same_each_time(folder: Path) -> None:
    recipe, corpus, model = load(folder, prompts=["Add 1 to total."], sample_tokens=8, temperature=1.0)
    before = torch.random.get_rng_state()
    first, again = (continue_prompts(model, corpus, recipe, 3) for _ in range(2))
    assert first == again and torch.equal(before, torch.random.get_rng_state())
    assert (
        first[0].prompt == "Add 1 to total." and first[0].reference is None and first[0].stopped is not None
    )
    assert model.training is load(folder)[2].training


def test_secrets_are_scored_but_not_recorded(folder: Path, tmp_path: Path) -> None:
    key = "AK" + "IA" + "QW7ZTY5UPLKM3N2B"
    row = json.dumps({"instruction": f"Print {key}", "output": f"print('{key}')"})
    (tmp_path / "rows.jsonl").write_text(f"{row}\n{row.replace('Print', 'Show')}\n")
    prompt = f"Say {key}"
    changes = {
        "data.train.0.path": str(tmp_path / "rows.jsonl"),
        "evaluate.answers": 1,
        "evaluate.prompts": [prompt],
    }
    recipe, _, model = load(folder)
    recipe = with_changes(recipe, changes)
    corpus = prepare(recipe, tokenizer_folder=folder / "qwen2")
    texts, answers = answer(model, corpus, recipe, 7)
    assert answers[0].reference == f"print('{key}')"
    recorded = [*texts, *continue_prompts(model, corpus, recipe, 7)]
    assert key not in str(recorded) and "<redacted: AWS access key id>" in str(texts[0].reference)
    assert recorded[1].prompt == "Say <redacted: AWS access key id>"
