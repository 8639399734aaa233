"""The token that ends an answer in training ends it wherever text is written: here, and in exports."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.cli.generate import Sampling, generate_texts, open_speaker
from etude.data.prepared import prepare
from etude.errors import InputError
from etude.export import export
from etude.plan import make_plan
from etude.recipe.load import change, recipe_from
from etude.records.store import Run
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_instructions, write_llama, write_qwen2, write_t5

END = "<|turn_end|>"
ENDING = {
    "one token": "<|turn_end|>",
    "a token and a line end": "<|turn_end|>\n",
    "two tokens": "<|turn_end|><|im_end|>",
    "a line end and a token": "\n<|turn_end|>",
}


def write_base(folder: Path, behind: str = END, *, stop_ids: Any = None) -> Path:
    """A Qwen2 whose template writes `behind` after each turn, of which no list of names knows the token."""
    from tokenizers import Tokenizer as Inner

    write_qwen2(folder)
    inner = Inner.from_file(str(folder / "tokenizer.json"))
    inner.add_special_tokens([END])
    inner.save(str(folder / "tokenizer.json"))
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + behind }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ).replace("behind", json.dumps(behind))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if stop_ids is not None:
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stop_ids, "top_k": 7}))
    return folder


def recipe_of(base: Path, rows: Path, changes: dict[str, Any] | None = None) -> Any:
    values = {
        "name": "ends",
        "model": {"from": str(base)},
        "data": {"train": [{"path": str(rows)}], "validation": "none"},
        "train": {"steps": 40, "seq_len": 64, "global_batch_size": 4, "device": "cpu", "precision": "fp32"},
        "optim": {"learning_rate": 1e-2},
        "evaluate": {"answers": 0},
    }
    return recipe_from(change(values, changes or {}))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": "say a", "completion": "a"}) + "\n" for _ in range(8)))
    return path


def token_id(folder: Path, token: str) -> int:
    from transformers import AutoTokenizer

    return int(AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(token))


def eos_ids(folder: Path) -> list[int]:
    from transformers import GenerationConfig

    ids = GenerationConfig.from_pretrained(folder).eos_token_id
    return ids if isinstance(ids, list) else [ids]


def generated(folder: Path, prompt: list[int]) -> list[int]:
    """What transformers writes with its defaults of this folder."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    output = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=24, pad_token_id=0)
    return [int(token) for token in output[0, len(prompt) :]]


def written_by_peft(base: Path, adapter: Path, prompt: list[int]) -> list[int]:
    """What PEFT writes, loaded as the model card shows."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, GenerationConfig

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter))
    model.generation_config = GenerationConfig.from_pretrained(adapter)
    ids: list[int] = model.generate(
        input_ids=torch.tensor([prompt]), do_sample=False, max_new_tokens=24, pad_token_id=0
    )[0].tolist()
    return ids


@pytest.mark.parametrize(
    "adapter", [None, {"rank": 8, "alpha": 64.0, "targets": "all-linear"}], ids=["full", "lora"]
)
def test_a_tuned_model_stops_here_and_in_transformers(
    adapter: dict[str, Any] | None, rows: Path, tmp_path: Path
) -> None:
    base = write_base(tmp_path / "base", stop_ids=[0, 5])
    run: Run = run_recipe(recipe_of(base, rows, {"adapter": adapter}), Options(runs=tmp_path / "runs")).run
    greedy = Sampling(max_tokens=24, temperature=0.0)
    (text,) = generate_texts(str(run.path), ["say a"], greedy, runs=tmp_path, is_instruction=True)
    assert (text["text"], text["stopped"]) == ("a", True)
    end = token_id(base, END)
    out = export(str(run.path), "hf" if adapter is None else "merged", tmp_path / "out")
    assert set(eos_ids(out)) == {0, 5, end}
    prompt = open_speaker(str(out), tmp_path).chat.encode_prompt("say a")
    assert generated(out, prompt)[-1] == end and len(generated(out, prompt)) < 10
    if adapter is not None:
        peft = export(str(run.path), "peft", tmp_path / "peft")
        assert set(eos_ids(peft)) == {0, 5, end}
        assert written_by_peft(base, peft, prompt)[-1] == end
    # What the base says besides is kept, too.
    assert json.loads((out / "generation_config.json").read_text())["top_k"] == 7


@pytest.mark.parametrize("behind", ENDING.values(), ids=ENDING)
def test_the_end_is_the_last_token_that_is_learnt_of_an_answer(
    behind: str, rows: Path, tmp_path: Path
) -> None:
    base = write_base(tmp_path / "base", behind)
    corpus = prepare(recipe_of(base, rows), tokenizer_folder=base)
    sample = corpus.train.sample(0)
    learnt = sample.labels[sample.labels >= 0]
    assert corpus.end_ids == (0, int(learnt[-1])) == (0, token_id(base, END))
    assert open_speaker(str(base), tmp_path, is_chat=True).end_ids == corpus.end_ids


def test_a_token_that_also_stands_within_answers_ends_none(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    settings = json.loads((base / "tokenizer_config.json").read_text())
    # As Harmony: thoughts end as earlier turns do, and the last answer in its own way.
    settings["chat_template"] = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' and "
        "loop.last %}{% generation %}{{ 'hm<|turn_end|>' + m['content'] + '<|im_end|>' }}{% endgeneration %}"
        "{% else %}{{ m['content'] + '<|turn_end|>' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    said = [("user", "left"), ("assistant", "value"), ("user", "left"), ("assistant", "total")]
    row = {"messages": [{"role": role, "content": content} for role, content in said]}
    (tmp_path / "rows.jsonl").write_text(4 * (json.dumps(row) + "\n"))
    corpus = prepare(recipe_of(base, tmp_path / "rows.jsonl"), tokenizer_folder=base)
    assert corpus.end_ids == (0, token_id(base, "<|im_end|>"))


@pytest.mark.parametrize("is_text", [True, False], ids=["texts", "conversations"])
def test_a_model_goes_on_stopping_where_its_base_stops(is_text: bool, rows: Path, tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base")
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": [9, 0]}))
    if is_text:
        rows.write_text("".join(json.dumps({"text": f"total = {n} + value"}) + "\n" for n in range(40)))
    run = run_recipe(recipe_of(base, rows, {"train.steps": 1}), Options(runs=tmp_path / "runs")).run
    assert eos_ids(export(str(run.path), "hf", tmp_path / "out")) == [0, 9]
    assert open_speaker(str(run.path), tmp_path).end_ids == (0, 9)


def test_an_encoder_decoder_keeps_where_its_base_stops(tmp_path: Path) -> None:
    base = write_t5(tmp_path / "base")
    (base / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [1, 7], "decoder_start_token_id": 0})
    )
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"text": f"total {n}", "target": "left"}) + "\n" for n in range(8)))
    changes = {
        "train.objective": "seq2seq",
        "data.train": [{"path": str(pairs), "target": "target"}],
        "train.steps": 1,
    }
    run = run_recipe(recipe_of(base, pairs, changes), Options(runs=tmp_path / "runs")).run
    eos = token_id(base, "</s>")
    assert eos_ids(export(str(run.path), "hf", tmp_path / "out")) == [eos, 1, 7]


def test_the_ids_of_config_json_count_where_there_is_no_generation_config(rows: Path, tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base")
    (base / "generation_config.json").unlink()
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"eos_token_id": [0, 4]}))
    assert make_plan(recipe_of(base, rows)).corpus.end_ids == (0, 4)


def test_an_adapter_of_another_tool_stops_where_its_base_stops(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = write_base(tmp_path / "base", stop_ids=[0, 5])
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(tmp_path / "adapter")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "adapter" / name).write_bytes((base / name).read_bytes())
    speaker = open_speaker(str(tmp_path / "adapter"), tmp_path, is_chat=True)
    assert speaker.end_ids == (0, 5, token_id(base, END))


def test_stop_ids_of_another_vocabulary_are_not_taken_over(rows: Path, tmp_path: Path) -> None:
    base, other = write_base(tmp_path / "base", stop_ids=[0, 40]), write_qwen2(tmp_path / "other")
    changes = {"tokenizer": {"from": str(other)}}
    assert 40 not in make_plan(recipe_of(base, rows, changes)).corpus.end_ids
    assert 40 in make_plan(recipe_of(base, rows)).corpus.end_ids


def test_a_template_without_an_end_is_refused_in_training_and_said_in_writing(
    rows: Path, tmp_path: Path
) -> None:
    base = write_base(tmp_path / "base", "</s>")  # which this tokenizer reads as letters
    with pytest.raises(InputError, match="writes no special token after an answer") as caught:
        prepare(recipe_of(base, rows), tokenizer_folder=base)
    assert "(it ends 'a</s>')" in str(caught.value)
    told: list[str] = []
    assert open_speaker(str(base), tmp_path, is_chat=True, told=told.append).end_ids == (0,)
    assert "writes no special token behind an answer, so it ends only at <|endoftext|>" in told[-1]


@pytest.mark.parametrize("said", ["zero", [0, "x"], -1, {"a": 1}, True])
def test_stop_ids_that_are_no_ids_are_one_line(said: Any, rows: Path, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", stop_ids=said)
    with pytest.raises(InputError, match=r"generation_config.json: eos_token_id is .*; expected an id"):
        make_plan(recipe_of(base, rows))


def test_instructions_that_a_run_never_saw_do_not_change_where_a_text_ends(tmp_path: Path) -> None:
    base = write_qwen2(tmp_path / "base")
    instructions = write_instructions(tmp_path / "rows.jsonl", 12)
    corpus = prepare(recipe_of(base, instructions, {"data.template": "plain"}), tokenizer_folder=base)
    assert corpus.end_ids == (corpus.tokenizer.eos_id,)
