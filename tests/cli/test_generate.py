"""Generating and chatting: with a run or a folder, in turns, and how it ends."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from etude.cli.generate import Sampling, chat, generate_texts, open_speaker, print_texts, stream
from etude.errors import InputError
from etude.recipe.load import recipe_from
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_instructions, write_llama, write_qwen2

GREEDY = Sampling(max_tokens=12, temperature=0.0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen2(tmp_path_factory.mktemp("generate") / "qwen2")


def test_text_goes_on_as_transformers_does_it(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # One digit: transformers reads the tokenizer of any qwen2 folder by the pattern of Qwen2, which parts digits.
    prompts = ["total = total", "Add 3 to value.\n"]
    texts = generate_texts(str(base), prompts, GREEDY, runs=tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    for prompt, text in zip(prompts, texts):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        no_tokens = list(range(len(tokenizer), model.config.vocab_size))  # rows of the embedding without a token
        output = model.generate(
            ids, max_new_tokens=12, do_sample=False, eos_token_id=tokenizer.eos_token_id, suppress_tokens=no_tokens
        )
        assert text["prompt"] == prompt
        assert text["text"] == tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


def test_an_instruction_passes_through_the_chat_template(base: Path, tmp_path: Path) -> None:
    instruction = "Add 34 to value."
    rendered = f"<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n"
    speaker = open_speaker(str(base), tmp_path)
    assert list(speaker.chat.encode_prompt(instruction)) == list(speaker.tokenizer.encode_rendered(rendered))
    (text,) = generate_texts(str(base), [instruction], GREEDY, runs=tmp_path, is_instruction=True)
    assert text["text"] == "".join(stream(speaker, list(speaker.tokenizer.encode_rendered(rendered)), GREEDY))


def test_a_run_hears_the_system_message_it_was_trained_with(base: Path, tmp_path: Path) -> None:
    recipe = recipe_from({
        "name": "tuned",
        "model": {"from": str(base)},
        "adapter": {"rank": 2},
        "data": {"train": [{"path": str(write_instructions(tmp_path / "rows.jsonl"))}], "system": "left"},
        "train": {"steps": 1, "seq_len": 96, "global_batch_size": 4, "device": "cpu", "precision": "fp32"},
    })  # fmt: skip
    run = run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    speaker = open_speaker(run.name, tmp_path / "runs")
    rendered = "<|im_start|>system\nleft<|im_end|>\n<|im_start|>user\nAdd<|im_end|>\n<|im_start|>assistant\n"
    assert list(speaker.chat.encode_prompt("Add")) == list(speaker.tokenizer.encode_rendered(rendered))


def test_what_is_streamed_is_the_whole_text_also_where_characters_come_in_bytes(base: Path, tmp_path: Path) -> None:
    speaker = open_speaker(str(base), tmp_path)
    ids = [int(token) for token in speaker.tokenizer.encode("value = ")]
    for seed in range(6):
        sampling = Sampling(max_tokens=30, temperature=2.0, seed=seed)
        (text,) = generate_texts(str(base), ["value = "], sampling, runs=tmp_path)
        from etude.report.wording import clean

        assert "".join(stream(speaker, ids, sampling)) == clean(text["text"])


def answers(*texts: str) -> Iterator[str]:
    yield from texts
    raise EOFError


def talk(base: Path, runs: Path, *texts: str, sampling: Sampling = GREEDY) -> None:
    asked = answers(*texts)
    chat(str(base), sampling, runs=runs, ask=lambda: next(asked))


def test_a_chat_remembers_its_turns_and_ends_with_the_input(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(base, tmp_path, "Add 1 to left.")
    alone = capsys.readouterr().out
    talk(base, tmp_path, "Add 1 to left.", "", "again", "/quit")
    both = capsys.readouterr().out
    assert both.startswith(alone.rstrip("\n")) and len(both) > len(alone)


def test_turns_that_do_not_fit_are_left_out_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write_llama(tmp_path / "llama")
    talk(base, tmp_path, *["print(total) " * 6] * 4, sampling=Sampling(max_tokens=4, temperature=0.0))
    assert "no longer fit into 256 tokens" in capsys.readouterr().err


def test_ctrl_c_leaves_a_chat_cleanly(base: Path, tmp_path: Path) -> None:
    def interrupt() -> str:
        raise KeyboardInterrupt

    chat(str(base), GREEDY, runs=tmp_path, ask=interrupt)


def test_printed_text_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"prompt": "a\x1b[2J", "text": "b\x07c", "tokens": 2, "stopped": True}
    print_texts([entry], is_instruction=False)
    assert capsys.readouterr().out == "a[2Jbc\n"
    print_texts([entry, entry], is_instruction=True)
    assert json.dumps(capsys.readouterr().out).count("bc") == 2


@pytest.mark.parametrize(
    ("values", "says"),
    [({"max_tokens": 0}, "--max-tokens is 0"), ({"temperature": -1.0}, "--temperature"), ({"top_k": 0}, "--top-k"),
     ({"top_p": 1.5}, "--top-p"), ({"temperature": float("nan")}, "--temperature"), ({"seed": -1}, "--seed")],
)  # fmt: skip
def test_a_bad_setting_is_one_line(values: dict[str, float], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Sampling(**values)  # type: ignore[arg-type]


def test_a_model_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        open_speaker("nowhere", tmp_path)
