"""Tokenizers, chat templates and generation settings that cannot be used."""

import base64
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bases import write_qwen2
from tests.hostile.case import Case

RECIPE = """\
name = "tokens"
model.n_layer = 1
model.n_head = 1
model.n_embd = 8
tokenizer.from = "tokens"
tokenizer.eos_token = "</s>"
train.seq_len = 16
train.global_batch_size = 1
train.steps = 1
optim.learning_rate = 1e-3

[[data.train]]
path = "text.txt"
"""
SETTINGS, TEMPLATE, GENERATION = "tokenizer_config.json", "chat_template.jinja", "generation_config.json"
Content = dict[str, Any]


def content() -> Content:
    """A tokenizer.json of three tokens."""
    end = {"id": 0, "content": "</s>", "single_word": False, "lstrip": False, "rstrip": False}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": None,
        "post_processor": None, "decoder": None,
        "added_tokens": [{**end, "normalized": False, "special": True}],
        "model": {"type": "BPE", "vocab": {"</s>": 0, "a": 1, "b": 2}, "merges": []},
    }  # fmt: skip


def tokenizer(change: Callable[[Content], object], text: str = "abab" * 100) -> Callable[[Path], list[str]]:
    """A recipe whose tokenizer.json is changed, given to `etude check --deep`."""

    def make(folder: Path) -> list[str]:
        values = content()
        change(values)
        (folder / "tokens").mkdir()
        (folder / "tokens/tokenizer.json").write_text(json.dumps(values))
        (folder / "text.txt").write_text(text)
        (folder / "recipe.toml").write_text(RECIPE)
        return ["check", "recipe.toml", "--deep"]

    return make


def file(name: str, write: Callable[[Path], object]) -> Callable[[Path], list[str]]:
    """A Qwen2 one of whose files is written anew, asked to answer."""

    def make(folder: Path) -> list[str]:
        shutil.copytree(_qwen2(), folder / "model")
        path = folder / "model" / name
        path.unlink(missing_ok=True)
        write(path)
        return ["generate", "model", "--instruction", "--prompt", "a", "--max-tokens", "2"]

    return make


def _setting(**values: Any) -> Callable[[Path], list[str]]:
    return file(SETTINGS, lambda path: path.write_text(json.dumps({"eos_token": "<|im_end|>", **values})))


@functools.cache
def _qwen2() -> Path:
    return write_qwen2(Path(tempfile.mkdtemp()) / "model")


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _replace(old: str, new: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def _charsmap(data: bytes) -> dict[str, Any]:
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}


def _large(path: Path) -> None:
    with path.open("wb") as writer:
        writer.truncate(65 << 20)


def _model(kind: str, **values: Any) -> Callable[[Content], object]:
    return lambda all_: all_.update(model={"type": kind, **values})


def _normalizer(rule: dict[str, Any]) -> Callable[[Content], object]:
    return lambda all_: all_.update(normalizer=rule)


def _added(count: int) -> Callable[[Content], object]:
    like = content()["added_tokens"][0]
    return lambda all_: all_["added_tokens"].extend(
        {**like, "id": 3 + n, "content": f"<{n}>"} for n in range(count)
    )


def given(*words: str) -> Callable[[Path], list[str]]:
    """A Qwen2, and the words that it is given."""

    def make(folder: Path) -> list[str]:
        shutil.copytree(_qwen2(), folder / "model")
        return ["generate", "model", "--max-tokens", "2", *words]

    return make


def overridden(*words: str) -> Callable[[Path], list[str]]:
    """A recipe of a tokenizer that is right, and overrides."""

    def make(folder: Path) -> list[str]:
        return [*tokenizer(lambda all_: None)(folder), *words]

    return make


def turns(*said: tuple[str, dict[str, Any]], template: str | None = None) -> Callable[[Path], list[str]]:
    """A conversation for a Qwen2, with what its turns have beside their content."""

    def make(folder: Path) -> list[str]:
        shutil.copytree(_qwen2(), folder / "model")
        if template is not None:
            (folder / "model" / TEMPLATE).write_text(template)
        rows = [{"role": role, "content": "total", **more} for role, more in said]
        row = json.dumps({"messages": rows}) + "\n"
        (folder / "text.txt").unlink(missing_ok=True)
        (folder / "rows.jsonl").write_text(row * 20)
        recipe = RECIPE.replace("text.txt", "rows.jsonl").split("\n")
        kept = [line for line in recipe if not line.startswith(("model.", "tokenizer."))]
        text = "\n".join(kept).replace('name = "tokens"', 'name = "tokens"\nmodel.from = "./model"')
        (folder / "recipe.toml").write_text(text + 'format = "messages"\n')
        return ["check", "recipe.toml", "--deep"]

    return make


HALF, TORN = "\ud800", "holds half of a surrogate pair"
SETTINGS_OF: list[tuple[str, Any, str]] = [
    ("chat_template", 7, "chat_template = 7; expected a text"),
    ("chat_template", [1, 2], "chat_template = {}; expected a text"),
    ("chat_template", [{"name": [1], "template": "a"}], "expected a text, or texts by name"),
    ("chat_template", [{"name": "tool_use", "template": "a"}], "of which one is called default"),
    ("chat_template", {"default": 3}, "chat_template = 3; expected a text"),
    ("chat_template", "{{ 1 }}" * 300_000, "has 2,100,000 characters, over 1,048,576"),
    ("chat_template", HALF, TORN), ("eos_token", HALF, TORN), ("bos_token", f"<{HALF}", TORN),
    ("added_tokens_decoder", {"900": {"content": HALF, "special": True}}, TORN),
    ("extra_special_tokens", [HALF], TORN), ("eos_token", ["a"], "expected the text of a token, or null"),
    ("pad_token", {"content": [1]}, r"pad_token = {.content.: .1.}; expected the text of a token, or null"),
    ("eos_token", "\x1b]0;a\x07", r"eos_token = '.*', which is none of its tokens; set tokenizer.eos_token"),
    ("add_bos_token", "no", 'add_bos_token = "no"; expected true, false or null'),
    ("split_special_tokens", "true", "expected true, false or null"), ("legacy", {}, "expected true, false"),
    ("eos_token", "x" * 1_000_000, "which is none of its tokens; set tokenizer.eos_token"),
]  # fmt: skip
DEEP = b"[" * 100_000 + b"]" * 100_000
CASES = [
    Case(
        name="a tokenizer with an id of four milliards",
        make=tokenizer(lambda all_: all_["model"]["vocab"].update(c=4_000_000_000)),
        says="has an id 4,000,000,000, over",
    ),
    Case(
        name="a tokenizer with an id below 0",
        make=tokenizer(lambda all_: all_["model"]["vocab"].update(c=-1)),
        says="is no tokenizer.json",
    ),
    Case(
        name="a normalizer that makes a letter a million",
        make=tokenizer(_normalizer(_replace("a", "a" * 1_000_000))),
        says="has rules that make a text 1,000,000 times as long",
    ),
    Case(
        name="a normalizer that doubles a rare word twenty times",
        make=tokenizer(
            _normalizer({"type": "Sequence", "normalizers": [_replace("xyzzy", "xyzzy" * 2)] * 20})
        ),
        says="has rules that make a text 1,048,576 times as long",
    ),
    Case(
        name="a normalizer that puts a million letters first",
        make=tokenizer(_normalizer({"type": "Prepend", "prepend": "a" * 1_000_000})),
        says="has rules that make a text 1,000,000 times as long",
    ),
    Case(
        name="a decoder that makes a token a million letters",
        make=tokenizer(lambda all_: all_.update(decoder=_replace("a", "a" * 1_000_000))),
        says="has rules that make a decoded text 1,000,000 times as long",
    ),
    Case(
        name="a Split pattern that backtracks",
        make=tokenizer(lambda all_: all_.update(pre_tokenizer=_split("(a+)+$"))),
        says="is no tokenizer.json .*retry-limit",
    ),
    Case(
        name="a Split pattern that backtracks on the data alone",
        make=tokenizer(lambda all_: all_.update(pre_tokenizer=_split("(q+q+)+y")), text="q" * 40 + "ab"),
        says="cannot read the text that begins .*retry-limit|is no tokenizer.json .*retry-limit",
    ),
    Case(
        name="a Split pattern whose time grows with the square of a word",
        make=tokenizer(lambda all_: all_.update(pre_tokenizer=_split(r"\w*\w*!|."))),
        says="takes over 6 s of the processor to load and to read a few short texts",
        quick=False,
    ),
    *(
        Case(
            name=f"settings of a tokenizer with {key} = {json.dumps(value)[:40]}",
            make=_setting(**{key: value}),
            says=says,
        )
        for key, value, says in SETTINGS_OF
    ),
    Case(
        name="settings of a tokenizer that say eos_token twice",
        make=file(SETTINGS, lambda path: path.write_text('{"eos_token": "<|im_end|>", "eos_token": "a"}')),
        says="has the key 'eos_token' twice",
    ),
    Case(
        name="settings of a tokenizer that are a list",
        make=file(SETTINGS, lambda path: path.write_text("[1]")),
        says="holds no JSON object",
    ),
    Case(
        name="special tokens with half a surrogate pair",
        make=file("special_tokens_map.json", lambda path: path.write_text('{"pad_token": "\\ud800"}')),
        says="special_tokens_map.json holds half of a surrogate pair",
    ),
    Case(
        name="a chat template of a million letters",
        make=file(TEMPLATE, lambda path: path.write_text("{{ 1 }}" * 300_000)),
        says="the chat template of the tokenizer has 2,100,000 characters, over 1,048,576",
    ),
    Case(
        name="a Split pattern that is no pattern",
        make=tokenizer(lambda all_: all_.update(pre_tokenizer=_split("((("))),
        says="is no tokenizer.json",
    ),
    Case(
        name="a precompiled map that is cut short",
        make=tokenizer(_normalizer(_charsmap(b"\0\0\0"))),
        says="is no tokenizer.json .*precompiled_charsmap",
    ),
    Case(
        name="a precompiled map that claims gigabytes",
        make=tokenizer(_normalizer(_charsmap(b"\xff" * 5))),
        says="breaks its process|is no tokenizer.json",
    ),
    Case(
        name="a tokenizer of words without one for unknown words",
        make=tokenizer(_model("WordLevel", vocab={"</s>": 0, "a": 1}, unk_token="[UNK]")),
        says="cannot read the text that begins 'abab.*Missing .UNK. token",
    ),
    Case(
        name="a Unigram without a token for unknown text",
        make=tokenizer(
            _model("Unigram", vocab=[["</s>", 0.0], ["a", -1.0]], unk_id=None), text="\u00e9t\u00e9 " * 50
        ),
        says="cannot read the text that begins .*unk_id",
    ),
    Case(
        name="a Unigram whose unknown token is not there",
        make=tokenizer(_model("Unigram", vocab=[["</s>", 0.0]], unk_id=77)),
        says="is no tokenizer.json",
    ),
    Case(
        name="a tokenizer without a token",
        make=tokenizer(_model("BPE", vocab={}, merges=[])),
        says="0 tokens are too few",
    ),
    Case(
        name="a tokenizer with 200,000 added tokens",
        make=tokenizer(_added(200_000)),
        says="has 200,001 added tokens, over",
        quick=False,
    ),
    Case(
        name="a tokenizer that is nested deeply",
        make=file("tokenizer.json", lambda path: path.write_bytes(DEEP)),
        says="tokenizer.json is nested too deeply",
    ),
    Case(
        name="a tokenizer that is a pipe",
        make=file("tokenizer.json", os.mkfifo),
        says="tokenizer.json is a pipe",
    ),
    Case(
        name="a tokenizer that never ends",
        make=file("tokenizer.json", lambda path: path.symlink_to("/dev/zero")),
        says="tokenizer.json is a device",
    ),
    Case(
        name="a tokenizer of 65 MiB",
        make=file("tokenizer.json", _large),
        says="tokenizer.json is larger than",
    ),
    Case(
        name="a tokenizer in UTF-16",
        make=file("tokenizer.json", lambda path: path.write_text(json.dumps(content()), "utf-16")),
        says="tokenizer.json is not UTF-8",
    ),
    Case(
        name="tokenizer settings that are a pipe",
        make=file(SETTINGS, os.mkfifo),
        says=f"{SETTINGS} is a pipe",
    ),
    Case(
        name="tokenizer settings that are a folder",
        make=file(SETTINGS, Path.mkdir),
        says=f"{SETTINGS} is a folder",
    ),
    Case(
        name="tokenizer settings in UTF-16",
        make=file(SETTINGS, lambda path: path.write_text("{}", "utf-16")),
        says=f"{SETTINGS} is not UTF-8",
    ),
    Case(
        name="tokenizer settings that are nested deeply",
        make=file(SETTINGS, lambda path: path.write_bytes(DEEP)),
        says=f"{SETTINGS} is nested too deeply",
    ),
    Case(name="a chat template that is a pipe", make=file(TEMPLATE, os.mkfifo), says=f"{TEMPLATE} is a pipe"),
    Case(
        name="a chat template that is a folder",
        make=file(TEMPLATE, Path.mkdir),
        says=f"{TEMPLATE} is a folder",
    ),
    Case(
        name="a chat template that never ends",
        make=file(TEMPLATE, lambda path: path.symlink_to("/dev/zero")),
        says=f"{TEMPLATE} is a device",
    ),
    Case(
        name="a chat template in UTF-16",
        make=file(TEMPLATE, lambda path: path.write_text("{{ a }}", "utf-16")),
        says=f"{TEMPLATE} is not UTF-8",
    ),
    Case(
        name="a chat template that leaves out what is asked",
        make=file(TEMPLATE, lambda path: path.write_text("hello<|im_end|>")),
        says="the chat template leaves out message 1, of role 'user'",
    ),
    Case(
        name="a chat template that fills the memory",
        make=file(TEMPLATE, lambda path: path.write_text("{{ 'x' * 10 ** 11 }}{{ messages[0].content }}")),
        says="the chat template refuses it .MemoryError|breaks its process",
    ),
    Case(
        name="generation settings that are a pipe",
        make=file(GENERATION, os.mkfifo),
        says=f"{GENERATION} is a pipe",
    ),
    Case(
        name="generation settings in UTF-16",
        make=file(GENERATION, lambda path: path.write_text("{}", "utf-16")),
        says=f"{GENERATION} is not UTF-8",
    ),
    Case(
        name="generation settings that are nested deeply",
        make=file(GENERATION, lambda path: path.write_bytes(DEEP)),
        says=f"{GENERATION} is nested too deeply",
    ),
    Case(
        name="generation settings of 65 MiB",
        make=file(GENERATION, _large),
        says=f"{GENERATION} is larger than",
    ),
    Case(
        name="an end token that is a word",
        make=file(GENERATION, lambda path: path.write_text('{"eos_token_id": "</s>"}')),
        says="eos_token_id is '</s>'; expected an id",
    ),
    Case(
        name="a prompt with a byte that is no UTF-8",
        make=given("--prompt", "a\udcff"),
        says="--prompt is not UTF-8",
    ),
    Case(name="a prompt with half a pair", make=given("--prompt", "\ud800"), says="--prompt is not UTF-8"),
    Case(
        name="a temperature of NaN",
        make=given("--prompt", "a", "--temperature", "nan"),
        says="--temperature is nan",
    ),
    Case(name="a top-p of NaN", make=given("--prompt", "a", "--top-p", "nan"), says="--top-p is nan"),
    Case(
        name="an override with a byte that is no UTF-8",
        make=overridden('evaluate.prompts=["\udcff"]'),
        says="evaluate.prompts .override. is .* not UTF-8 text",
    ),
    Case(
        name="a turn of half a weight",
        make=turns(("user", {}), ("assistant", {"weight": 0.5})),
        says="has weight '0.5' in message 2; expected 0 or 1",
    ),
    Case(
        name="a question that is to be learnt",
        make=turns(("user", {"train": True}), ("assistant", {})),
        says="marks message 1 as one to learn",
    ),
    Case(
        name="thoughts that the template does not write",
        make=turns(("user", {}), ("assistant", {"reasoning_content": "hm"})),
        says="the chat template does not write 'reasoning_content' of message 2",
    ),
    Case(
        name="thoughts that the template takes for content elsewhere",
        make=turns(("user", {"thinking": "total"}), ("assistant", {})),
        says="the chat template does not write 'thinking' of message 1",
    ),
    Case(
        name="a refusal that the template does not write",
        make=turns(("user", {}), ("assistant", {}), ("user", {}), ("assistant", {"refusal": "No."})),
        says="the chat template does not write 'refusal' of message 4",
    ),
    Case(
        name="a picture by its name",
        make=turns(("user", {"images": "a.png"}), ("assistant", {})),
        says="the chat template does not write 'images' of message 1",
    ),
    Case(
        name="a turn of a role that the template leaves out",
        make=turns(
            ("user", {}),
            ("observation", {}),
            ("assistant", {}),
            template="{% for m in messages if m.role != 'tool' %}{{ m.role + m.content }}<|im_end|>{% endfor %}"
            "{% if add_generation_prompt %}assistant{% endif %}",
        ),
        says="the chat template leaves out message 2, of role 'tool'",
    ),
    Case(
        name="a template that ends no answer",
        make=turns(
            ("user", {}),
            ("assistant", {}),
            template="{% for m in messages %}{{ m.role + m.content }}</s>{% endfor %}"
            "{% if add_generation_prompt %}assistant{% endif %}",
        ),
        says="writes no special token after an answer .it ends '.*</s>'",
    ),
    Case(
        name="settings of a tokenizer that split special tokens",
        make=_setting(split_special_tokens=True),
        says="split_special_tokens = true",
    ),
    Case(
        name="settings of a tokenizer that conflict with its file",
        make=_setting(tokenizer_class="Qwen2Tokenizer", add_prefix_space=True),
        says="add_prefix_space = true, but pre_tokenizer.add_prefix_space of tokenizer.json has false",
    ),
    Case(
        name="a list of added tokens that is none",
        make=_setting(added_tokens_decoder={"0": {"content": None}}),
        says="added_tokens_decoder has .*expected an id with",
    ),
]
