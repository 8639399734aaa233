"""Tokenizers load as other tools load them, and what is none is refused in one line."""

import json
from pathlib import Path

import pytest

from etude.data.bpe import train_tokenizer
from etude.data.spellings import token_bytes
from etude.data.tokenize import Tokenizer
from etude.data.tokenizer_files import load_tokenizer, tokenizer_key
from etude.errors import InputError
from etude.recipe import schema
from tests.data.tokenizers import CODE, SHARED, needs_shared, save, section, trained_tokenizer


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return trained_tokenizer()


def described(trained: Tokenizer, folder: Path, **files: str) -> Tokenizer:
    """The trained tokenizer in a folder, with other files beside it."""
    folder.mkdir()
    (folder / "tokenizer.json").write_text(trained.to_json())
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)
    return load_tokenizer(section(folder))


def test_a_folder_loads_as_it_was_and_in_transformers(trained: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = save(trained, tmp_path / "t")
    again = load_tokenizer(section(folder))
    assert (
        again.fingerprint
        == trained.fingerprint
        == load_tokenizer(section(folder / "tokenizer.json")).fingerprint
    )
    theirs = AutoTokenizer.from_pretrained(str(folder))
    for text in CODE:
        assert theirs.encode(text) == trained.encode(text).tolist() == again.encode(text).tolist()
        assert theirs.decode(theirs.encode(text)) == text
    assert theirs.eos_token_id == 0 and len(theirs) == trained.vocab_size


def test_settings_that_cut_or_pad_are_taken_out(trained: Tokenizer, tmp_path: Path) -> None:
    content = json.loads(trained.to_json())
    content["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    loaded = load_tokenizer(section(tmp_path / "tokenizer.json"))
    assert len(loaded.encode("abcdefg")) > 2


def test_an_end_token_that_is_not_marked_special_becomes_so(trained: Tokenizer, tmp_path: Path) -> None:
    content = json.loads(trained.to_json())
    content["added_tokens"][0]["special"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    loaded = load_tokenizer(section(tmp_path / "tokenizer.json"))
    assert loaded.eos_id not in loaded.encode("a<|endoftext|>b")


def test_the_end_token_is_asked_for_where_it_cannot_be_found(trained: Tokenizer, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(trained.to_json().replace("<|endoftext|>", "<stop>"))
    with pytest.raises(InputError, match=r"tokenizer\.eos_token"):
        load_tokenizer(section(file))
    assert load_tokenizer(section(file, "<stop>")).eos_id == 0
    with pytest.raises(InputError, match="no token of the tokenizer"):
        load_tokenizer(section(file, "<other>"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "<stop>"}}')
    assert load_tokenizer(section(file)).eos_token == "<stop>"


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"model": {"type": "BPE"}}'])
def test_what_is_no_tokenizer_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(InputError, match=r"tokenizer\.json") as caught:
        load_tokenizer(section(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_or_an_empty_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.json"):
        with pytest.raises(InputError):
            load_tokenizer(section(path))
    with pytest.raises(InputError):
        tokenizer_key(section(tmp_path / "missing.json"))


@needs_shared
@pytest.mark.parametrize(
    ("name", "eos"), [("gpt2", "<|endoftext|>"), ("qwen2", "<|im_end|>"), ("codet5", "</s>")]
)
def test_a_folder_with_vocabulary_and_merges_encodes_as_transformers_does(name: str, eos: str) -> None:
    from transformers import AutoTokenizer

    ours, theirs = load_tokenizer(section(SHARED / name)), AutoTokenizer.from_pretrained(str(SHARED / name))
    assert ours.eos_token == eos and ours.eos_id == theirs.eos_token_id and ours.vocab_size == len(theirs)
    for text in [*CODE, "naïve 你好 <b>\n\n\n  x"]:
        assert ours.encode(text).tolist() == theirs.encode(text, add_special_tokens=False)
    sizes = token_bytes(ours)
    assert sizes is not None and sizes[ours.encode(CODE[0])].sum() == len(CODE[0].encode())
    assert sizes[ours.eos_id] == 0


def test_an_end_token_that_is_asked_for_goes_into_the_files(trained: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    described(trained, tmp_path / "a", tokenizer_config__json='{"eos_token": "<|endoftext|>", "x": 1}')
    tokenizer = load_tokenizer(section(tmp_path / "a", "a"))
    saved = save(tokenizer, tmp_path / "b")
    assert AutoTokenizer.from_pretrained(str(saved)).eos_token == "a"
    assert json.loads((saved / "tokenizer_config.json").read_text())["x"] == 1


def test_a_changed_chat_template_is_noticed(trained: Tokenizer, tmp_path: Path) -> None:
    described(trained, tmp_path / "a", tokenizer_config__json="{}", chat_template__jinja="j")
    before = tokenizer_key(section(tmp_path / "a"))
    (tmp_path / "a" / "chat_template.jinja").write_text("k")
    assert tokenizer_key(section(tmp_path / "a")) != before


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja"])
def test_files_of_a_tokenizer_in_another_encoding_are_refused(
    name: str, encoding: str, tmp_path: Path
) -> None:
    trained = train_tokenizer(["some text"], 300)
    for file, content in (trained.files() | {"chat_template.jinja": b"{{ messages }}"}).items():
        (tmp_path / file).write_bytes(content.decode().encode(encoding) if file == name else content)
    with pytest.raises(InputError, match=f"{name} (of the tokenizer )?is not UTF-8 text"):
        _ = load_tokenizer(schema.Tokenizer(from_=str(tmp_path))).chat_template


def test_the_chat_template_is_found_wherever_it_is_written(trained: Tokenizer, tmp_path: Path) -> None:
    config = {"eos_token": {"content": "<|endoftext|>"}, "bos_token": None, "pad_token": "ab"}
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    plain = described(trained, tmp_path / "a", tokenizer_config__json=json.dumps(config))
    assert plain.chat_template is None
    assert plain.variables == {"eos_token": "<|endoftext|>", "pad_token": "ab"}
    for number, (template, expected) in enumerate([("c", "c"), (named, "d")]):
        text = json.dumps(config | {"chat_template": template})
        assert (
            described(trained, tmp_path / f"b{number}", tokenizer_config__json=text).chat_template == expected
        )
    file = described(trained, tmp_path / "c", tokenizer_config__json=text, chat_template__jinja="j")
    assert file.chat_template == "j" and file.files()["chat_template.jinja"] == b"j"
