"""GGUF exports: transformers' own reader computes what etude computes, and what cannot be written is refused."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.errors import FaultError, InputError
from etude.evaluate.generate import generate
from etude.export import export, find_end_ids, load_model, open_chat
from etude.quantize.export import export_quantized
from etude.quantize.gguf import GgufSettings
from etude.recipe.load import recipe_from
from etude.records.store import Run
from etude.report.quantized import Gguf, Quantized
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_corpus, write_instructions, write_labelled, write_llama, write_qwen2
from tests.recipes import classification, finetuning, tiny

pytest.importorskip("gguf", reason="the extra gguf is not installed")
TOKENS = torch.arange(5, 45).reshape(2, 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(cache))
        yield tmp_path_factory.mktemp("gguf")


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    """A Qwen3 from scratch."""
    values = tiny(write_corpus(folder / "corpus.jsonl", 60), {"train.seq_len": 96})
    return run_recipe(recipe_from(values), Options(runs=folder / "runs")).run


@pytest.fixture(scope="module")
def tuned(folder: Path) -> Run:
    """An adapter on a Qwen2 in bf16 with a chat template, which has learnt to end its answers."""
    base = write_qwen2(folder / "qwen2", dtype=torch.bfloat16)
    recipe = finetuning(
        write_instructions(folder / "rows.jsonl"), base,
        {"adapter": {"rank": 4, "alpha": 8.0}, "train.steps": 30, "optim.learning_rate": 2e-2},
    )  # fmt: skip
    return run_recipe(recipe, Options(runs=folder / "runs")).run


@pytest.fixture(scope="module")
def llama(folder: Path) -> Run:
    """All weights of a Llama, whose queries and keys have another order in GGUF."""
    rows = write_instructions(folder / "llama.jsonl")
    recipe = finetuning(rows, write_llama(folder / "llama"), {"train.steps": 2, "name": "llama"})
    return run_recipe(recipe, Options(runs=folder / "runs")).run


def write(run: Run, form: str, out: Path, most_loss: float = 9.0) -> tuple[Quantized, Gguf, Any]:
    """The result of an export, and the model of transformers that its reader makes of the file."""
    from transformers import AutoModelForCausalLM

    result = export_quantized(str(run.path), GgufSettings(form=form, most_loss=most_loss), out)
    assert isinstance(result.form, Gguf)
    extra = {} if result.form.head_dim is None else {"head_dim": result.form.head_dim}
    file = result.form.file
    model = AutoModelForCausalLM.from_pretrained(out, gguf_file=file, dtype=torch.float32, **extra)
    return result, result.form, model.eval()


@pytest.mark.parametrize("which", ["run", "tuned", "llama"])
def test_transformers_computes_the_same_of_a_file_in_f16(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    trained: Run = request.getfixturevalue(which)
    _, _, theirs = write(trained, "F16", tmp_path / "out")
    kind = "merged" if which == "tuned" else "hf"
    ours: Any = load_model(export(str(trained.path), kind, tmp_path / "whole"), dtype=torch.float32)
    with torch.no_grad():
        for parameter in ours.parameters():
            if parameter.ndim == 2:
                parameter.copy_(parameter.half())
        expected, found = ours.logits(TOKENS), theirs(input_ids=TOKENS).logits
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    mine = generate(ours, [TOKENS[0].tolist()], max_tokens=64, end_ids=())[0].ids
    answer = theirs.generate(
        TOKENS[:1], max_new_tokens=64, min_new_tokens=64, do_sample=False, eos_token_id=None
    )
    assert answer[0, 20:].tolist() == mine


def test_an_answer_ends_where_it_ends_in_etude(tuned: Run, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    _, form, theirs = write(tuned, "F16", tmp_path / "out")
    whole = export(str(tuned.path), "merged", tmp_path / "whole")
    chat = open_chat(whole)
    ends = find_end_ids(whole, chat, is_chat=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out", gguf_file=form.file)
    message = [{"role": "user", "content": "Add 7 to total."}]
    text = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    assert text == "<|im_start|>user\nAdd 7 to total.<|im_end|>\n<|im_start|>assistant\n"
    ids = torch.tensor([chat.encode_prompt("Add 7 to total.")])
    assert theirs.config.eos_token_id == ends[0] == tokenizer.eos_token_id
    ours = generate(load_model(whole, dtype=torch.float32), ids.tolist(), max_tokens=64, end_ids=ends)[0]
    answer = theirs.generate(ids, max_new_tokens=64, do_sample=False)[0, ids.shape[1] :].tolist()
    assert answer[-1] == ends[0] and len(answer) < 64
    assert answer[:-1] == [token for token in ours.ids if token not in ends]


@pytest.mark.parametrize("form", ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"])
def test_what_is_measured_is_what_transformers_reads(form: str, llama: Run, tmp_path: Path) -> None:
    result, told, theirs = write(llama, form, tmp_path / "out")
    settings = GgufSettings(form=form)
    whole = export(str(llama.path), "hf", tmp_path / "whole")
    ours: Any = settings.read(tmp_path / "out", whole, None)
    with torch.no_grad():
        torch.testing.assert_close(theirs(input_ids=TOKENS).logits, ours.logits(TOKENS), atol=1e-4, rtol=1e-4)
    assert result.gain is None or result.gain < 2
    assert told.instead.keys() >= ({"token_embd.weight"} if "_K" in form else set())  # rows of 32 numbers
    assert result.file_bytes[1] < result.file_bytes[0]


def test_the_gain_of_tuning_that_is_kept_is_told(tuned: Run, folder: Path, tmp_path: Path) -> None:
    result, _, _ = write(tuned, "Q8_0", tmp_path / "out")
    assert result.base_loss is not None and result.base_loss > result.figures["loss"].original[0]
    loss = result.figures["loss"]
    before, after = loss.original[0], loss.made[0]
    assert result.gain == pytest.approx((result.base_loss - after) / (result.base_loss - before))
    assert result.gain > 0.95
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Gain kept" in card and 'gguf_file="model-Q8_0.gguf"' in card and "llama-cli" in card


def test_a_folder_has_the_file_a_modelfile_and_a_card(run: Run, tmp_path: Path) -> None:
    result, form, _ = write(run, "Q8_0", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "model-Q8_0.gguf", "Modelfile", "README.md",
    }  # fmt: skip
    assert "FROM ./model-Q8_0.gguf" in (tmp_path / "out" / "Modelfile").read_text()
    assert form.texts is not None and form.bits_per_byte is not None and result.base_loss is None
    assert json.loads(json.dumps(result.to_dict()))["splits"] == form.splits


def test_text_that_costs_too_much_in_llama_cpp_leaves_nothing(run: Run, tmp_path: Path) -> None:
    with pytest.raises(FaultError, match=r"llama.cpp splits text as .* at best, which costs"):
        write(run, "Q8_0", tmp_path / "out", most_loss=0.0)
    assert not list(tmp_path.iterdir())


def test_what_gguf_does_not_know_is_refused(run: Run, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--type q3 is not known; use one of f16"):
        GgufSettings(form="Q3")
    with pytest.raises(InputError, match="--max-loss is nan"):
        write(run, "Q8_0", tmp_path / "out", most_loss=float("nan"))
    recipe = classification(write_labelled(folder / "labels.jsonl"))
    labels = run_recipe(recipe, Options(runs=folder / "runs")).run
    with pytest.raises(InputError, match="--to gguf is for models that write text"):
        write(labels, "Q8_0", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_adapter_without_its_base_or_on_another_is_refused(
    tuned: Run, folder: Path, tmp_path: Path
) -> None:
    shutil.move(folder / "qwen2", folder / "away")
    try:
        with pytest.raises(InputError, match="qwen2"):
            write(tuned, "Q8_0", tmp_path / "out")
        write_qwen2(folder / "qwen2", dtype=torch.bfloat16, seed=4)
        with pytest.raises(InputError, match="was trained on other weights"):
            write(tuned, "Q8_0", tmp_path / "out")
    finally:
        shutil.rmtree(folder / "qwen2", ignore_errors=True)
        shutil.move(folder / "away", folder / "qwen2")
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_missing_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(InputError, match=r'needs the package gguf; pip install "etude-workbench\[gguf\]"'):
        write(run, "Q8_0", tmp_path / "out")
