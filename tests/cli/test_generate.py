"""Generating and chatting: with a run or a folder, in turns, and how it ends."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from etude.cli.generate import Sampling, chat, generate_texts, open_speaker, print_texts, stream
from etude.errors import InputError
from etude.evaluate.answers import encode_prompts
from etude.recipe.load import recipe_from
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_gpt2, write_instructions, write_llama, write_qwen2, write_t5

GREEDY = Sampling(max_tokens=12, temperature=0.0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen2(tmp_path_factory.mktemp("generate") / "qwen2")


def test_text_goes_on_as_transformers_does_it(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # One digit: transformers reads the tokenizer of any qwen2 folder by the pattern of Qwen2, which parts
    # digits.
    prompts = ["total = total", "Add 3 to value.\n"]
    texts = generate_texts(str(base), prompts, GREEDY, runs=tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    for prompt, text in zip(prompts, texts):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        no_tokens = list(
            range(len(tokenizer), model.config.vocab_size)
        )  # rows of the embedding without a token
        output = model.generate(
            ids,
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            suppress_tokens=no_tokens,
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


def test_a_run_hears_the_system_message_it_was_trained_with_and_its_checkpoint_is_named(
    base: Path, tmp_path: Path
) -> None:
    recipe = recipe_from({
        "name": "tuned",
        "model": {"from": str(base)},
        "adapter": {"rank": 2},
        "data": {"train": [{"path": str(write_instructions(tmp_path / "rows.jsonl"))}], "system": "left"},
        "train": {"steps": 1, "seq_len": 96, "global_batch_size": 4, "device": "cpu", "precision": "fp32"},
    })  # fmt: skip
    run = run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    told: list[str] = []
    speaker = open_speaker("tuned", tmp_path / "runs", told=told.append)
    assert told == [f"loading {run.name}@step-000001"]
    rendered = "<|im_start|>system\nleft<|im_end|>\n<|im_start|>user\nAdd<|im_end|>\n<|im_start|>assistant\n"
    assert list(speaker.chat.encode_prompt("Add")) == list(speaker.tokenizer.encode_rendered(rendered))


def test_what_is_streamed_is_the_whole_text_also_where_characters_come_in_bytes(
    base: Path, tmp_path: Path
) -> None:
    speaker = open_speaker(str(base), tmp_path)
    ids = [int(token) for token in speaker.tokenizer.encode("value = ")]
    for seed in range(6):
        sampling = Sampling(max_tokens=30, temperature=2.0, seed=seed)
        (text,) = generate_texts(str(base), ["value = "], sampling, runs=tmp_path)
        assert "".join(stream(speaker, ids, sampling)) == text["text"]


@pytest.mark.parametrize("write", [write_qwen2, write_t5, write_gpt2])
def test_weights_in_bf16_are_used_where_that_is_native(
    write: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write(tmp_path / "base")
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr("etude.engine.precision.has_native_bf16", lambda device: True)
    speaker = open_speaker(str(base), tmp_path)
    assert torch.bfloat16 in {parameter.dtype for parameter in speaker.model.parameters()}
    (text,) = generate_texts(str(base), ["total = total"], GREEDY, runs=tmp_path)
    assert text["tokens"] > 0
    ids = encode_prompts(["total = total"], speaker.tokenizer, None)[0]
    assert "".join(stream(speaker, ids, GREEDY)) == text["text"]


def test_an_encoder_decoder_reads_a_text_as_it_was_trained_to_and_only_its_answer_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    base, prompt = write_t5(tmp_path / "t5"), "total value"
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    unknown = list(range(len(tokenizer), model.config.vocab_size))
    written = model.generate(
        **tokenizer(prompt, return_tensors="pt"), max_new_tokens=12, do_sample=False, suppress_tokens=unknown,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    texts = generate_texts(str(base), [prompt], GREEDY, runs=tmp_path)
    assert texts[0]["text"] == tokenizer.decode(written[0], skip_special_tokens=True)
    capsys.readouterr()
    print_texts(texts)
    assert not capsys.readouterr().out.startswith(prompt)
    for refused in (
        lambda: generate_texts(str(base), [prompt], GREEDY, runs=tmp_path, is_instruction=True),
        lambda: talk(base, tmp_path, prompt),
    ):
        with pytest.raises(InputError, match="is an encoder-decoder, which knows no instructions") as caught:
            refused()
        assert "\n" not in str(caught.value)


def test_a_prompt_begins_as_texts_did_in_training(tmp_path: Path) -> None:
    base = write_llama(tmp_path / "llama")
    inner = Tokenizer.from_file(str(base / "tokenizer.json"))
    end = inner.token_to_id("<|endoftext|>")
    inner.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", end)]
    )
    inner.save(str(base / "tokenizer.json"))
    speaker = open_speaker(str(base), tmp_path)
    ids = encode_prompts(["total"], speaker.tokenizer, None)
    assert ids == [[end, *speaker.tokenizer.encode("total").tolist()]] == [inner.encode("total").ids]


def test_a_model_without_keys_and_values_is_refused_in_one_line(tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    base = write_llama(tmp_path / "base")
    (base / "model.safetensors").unlink()
    MambaForCausalLM(MambaConfig(vocab_size=320, hidden_size=16, num_hidden_layers=1)).save_pretrained(base)
    with pytest.raises(InputError, match="a mamba model keeps no keys and values") as caught:
        generate_texts(str(base), ["total"], GREEDY, runs=tmp_path)
    assert "\n" not in str(caught.value)


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


@pytest.mark.parametrize("leave", ["exit", "quit", "/quit", " exit "])
def test_a_word_leaves_a_chat(
    leave: str, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(base, tmp_path, leave, "Add 1 to left.")
    assert capsys.readouterr().out == ""


def test_commands_are_obeyed_and_never_answered_by_the_model(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(base, tmp_path, "Add 1 to left.")
    alone = capsys.readouterr().out.rstrip("\n")
    talk(base, tmp_path, "Add 1 to left.", "/help", "/rset", "/reset", "Add 1 to left.")
    out, err = capsys.readouterr()
    assert out.rstrip("\n") == f"{alone}\n{alone}"  # forgotten, so that the same is answered
    assert "/system TEXT" in err and "(/rset is no command; /help lists them)" in err
    assert err.startswith(f"loading {base}\n")


@pytest.mark.parametrize("line", ["\udcff\udcfe", "a\ud800b", "/system \udcff", "total " * 300])
def test_a_chat_goes_on_after_a_line_that_cannot_be_answered(
    line: str, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(base, tmp_path, "Add 1 to left.")
    alone = capsys.readouterr().out
    talk(base, tmp_path, line, "Add 1 to left.")
    out, err = capsys.readouterr()
    assert out == alone
    assert ("the line is not UTF-8 text" in err) == (line[0] != "t")


def test_a_system_message_that_fills_the_context_is_named_and_taken_back(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(base, tmp_path, "left")
    alone = capsys.readouterr().out
    talk(base, tmp_path, "/system\t" + "total " * 300, "left", "/system\t", "left")
    out, err = capsys.readouterr()
    assert out == alone and "(/system alone takes the system message back)" in err


def test_a_system_message_set_in_a_chat_is_that_of_the_option(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = answers("left")
    chat(str(base), GREEDY, runs=tmp_path, system="value + 1", ask=lambda: next(asked))
    given = capsys.readouterr().out
    talk(base, tmp_path, "/system value + 1", "left")
    assert capsys.readouterr().out == given
    talk(base, tmp_path, "left")
    plain = capsys.readouterr().out
    talk(base, tmp_path, "/system value + 1", "/system", "left")
    assert capsys.readouterr().out == plain != given
    talk(base, tmp_path, "/usr/bin is a path")  # is no command
    assert "is no command" not in capsys.readouterr().err


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
    entry = {"prompt": "a\x1b[2J", "text": "b\x07c", "is_answer": False, "tokens": 2, "stopped": True}
    print_texts([entry])
    assert capsys.readouterr().out == "a\\x1b[2Jb\\x07c\n"
    print_texts([entry | {"is_answer": True}] * 2)
    assert json.dumps(capsys.readouterr().out).count("x07c") == 2


@pytest.mark.parametrize(
    ("values", "says"),
    [({"max_tokens": 0}, "--max-tokens is 0"), ({"temperature": -1.0}, "--temperature"), ({"top_k": 0}, "--top-k"),
     ({"top_p": 1.5}, "--top-p"), ({"temperature": float("nan")}, "--temperature"), ({"seed": -1}, "--seed")],
)  # fmt: skip
def test_a_bad_setting_is_one_line(values: dict[str, float], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Sampling(**values)  # type: ignore[arg-type]


def test_what_does_not_fit_into_the_context_is_said(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        InputError, match="context of 256 holds prompt and answer; expected at most 255; shorten"
    ):
        generate_texts(str(base), ["total " * 300], Sampling(max_tokens=6, temperature=0.0), runs=tmp_path)
    (said,) = generate_texts(str(base), ["="], Sampling(max_tokens=10**9, temperature=0.0), runs=tmp_path)
    assert "context is 256 tokens: behind a prompt of 1 at most 255 are written" in capsys.readouterr().err
    assert said["stopped"] or said["tokens"] == 255
    generate_texts(str(base), ["total"], GREEDY, runs=tmp_path)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("temperature", [1e-4, 1e-30, 1e-320])
def test_the_smaller_the_temperature_the_likelier_the_token(
    temperature: float, base: Path, tmp_path: Path
) -> None:
    greedy, drawn = (
        generate_texts(str(base), ["total = "], Sampling(max_tokens=12, temperature=each), runs=tmp_path)
        for each in (0.0, temperature)
    )
    assert drawn == greedy


def test_a_model_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        open_speaker("nowhere", tmp_path)
