"""What a tokenizer_config.json says beside a tokenizer.json: ids are those of AutoTokenizer, or it is
refused.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Inner
from tokenizers import models, normalizers, pre_tokenizers, processors

from etude.data.tokenize import Tokenizer
from etude.data.tokenizer_files import load_tokenizer
from etude.errors import InputError
from etude.recipe import schema
from tests.bases import write_encoder, write_llama, write_qwen2, write_t5
from tests.conftest import SHARED

TEXTS = (
    "total a", "a</s>b", " a </s> b", "a</s>\n b\n", "x <s> \n</s>", "Total \u00e9t\u00e9 A ab B",
    "\u4f60\u597d a", "a[SEP] b", "<|im_start|>user\n a<|im_end|> \n b", "a <|im_end|>  <|endoftext|> b", "",
    "  ", "<b>\n\n\n\tx",
)  # fmt: skip
PLAIN = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}


def load(folder: Path) -> Tokenizer:
    return load_tokenizer(schema.Tokenizer.model_validate({"from": str(folder)}))


def require_the_ids_of_transformers(folder: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    ours, theirs = load(folder), AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    for text in TEXTS:
        assert ours.encode_rendered(text) == theirs(text, add_special_tokens=False).input_ids, text
        split = theirs(text, add_special_tokens=False, split_special_tokens=True).input_ids
        assert ours.encode(text).tolist() == split, text
    return ours


def set_up(folder: Path, inner: Inner, **settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    inner.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def byte_level(folder: Path, *, added: dict[str, Any] | None = None, **settings: Any) -> Path:
    """A tokenizer with <s> and </s>, of which `added` changes the flags of </s>."""
    base = write_encoder(folder)
    content = json.loads((base / "tokenizer.json").read_text())
    for token in content["added_tokens"]:
        token.update((added or {}) if token["content"] == "</s>" else {})
    (base / "config.json").unlink()
    given = json.loads((base / "tokenizer_config.json").read_text())
    return set_up(folder, Inner.from_str(json.dumps(content)), **given | settings)


def word_piece(folder: Path, *, lower: bool = True, **settings: Any) -> Path:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [
        "total",
        "Total",
        "\u00e9t\u00e9",
        "ete",
        "a",
        "b",
        "B",
        "\u4f60",
        "\u597d",
        "\u4f60\u597d",
        "##b",
    ]
    vocabulary = {token: index for index, token in enumerate([*special, *words])}
    inner = Inner(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=lower)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.add_special_tokens(special)
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    roles = {f"{role}_token": f"[{role.upper()}]" for role in ("unk", "sep", "pad", "cls", "mask")}
    return set_up(folder, inner, **{"tokenizer_class": "BertTokenizer", **roles, **settings})


def llama(folder: Path, *, scheme: str = "first", **settings: Any) -> Path:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a", "b"]
    vocabulary = {token: index for index, token in enumerate([*tokens, "\u2581a", "\u2581b"])}
    merges = [("\u2581", "a"), ("\u2581", "b")]
    inner = Inner(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    inner.add_special_tokens(["<unk>", "<s>", "</s>"])
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    roles = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return set_up(folder, inner, **{"tokenizer_class": "LlamaTokenizer", **roles, **settings})


@pytest.mark.parametrize(
    "added",
    [
        {"rstrip": True},
        {"lstrip": True},
        {"lstrip": True, "rstrip": True},
        {"normalized": True},
        {"single_word": True},
    ],
)
def test_an_end_token_keeps_the_flags_that_the_file_gives_it(added: dict[str, bool], tmp_path: Path) -> None:
    ours = require_the_ids_of_transformers(byte_level(tmp_path / "t", added=added))
    end = next(each for each in json.loads(ours.to_json())["added_tokens"] if each["content"] == "</s>")
    assert {flag: end[flag] for flag in PLAIN} == PLAIN | added


def test_an_end_token_that_becomes_special_keeps_its_other_flags(tmp_path: Path) -> None:
    ours = load(byte_level(tmp_path / "t", added={"special": False, "rstrip": True}))
    assert ours.eos_id not in ours.encode("a</s>b")
    require_the_ids_of_transformers(tmp_path / "t")


@pytest.mark.parametrize("flags", [{"rstrip": True}, {"lstrip": True, "rstrip": True}, {"single_word": True}])
def test_flags_of_added_tokens_decoder_are_put_over_those_of_the_file(
    flags: dict[str, bool], tmp_path: Path
) -> None:
    listed = {"292": {"content": "</s>", **PLAIN, **flags}, "289": {"content": "<s>", **PLAIN, **flags}}
    require_the_ids_of_transformers(byte_level(tmp_path / "t", added_tokens_decoder=listed))


def test_a_hundred_thousand_added_tokens_are_added_at_once(tmp_path: Path) -> None:
    inner = Inner(models.BPE({"</s>": 0, "a": 1}, []))
    inner.add_special_tokens(["</s>"])
    inner.save(str(tmp_path / "tokenizer.json"))
    listed = {str(2 + n): {"content": f"<{n}>", "special": n % 2 == 0} for n in range(100_000)}
    settings = {"eos_token": "</s>", "added_tokens_decoder": listed, "extra_special_tokens": ["<1>"]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(schema.Tokenizer(from_=str(tmp_path)))  # took minutes, one by one
    assert tokenizer.added_ids == (0, *range(2, 100_002))
    assert tokenizer.special_ids == (0, 2, 3, *range(4, 100_002, 2))


def test_a_plain_token_that_the_settings_give_a_role_is_special(tmp_path: Path) -> None:
    ours = require_the_ids_of_transformers(byte_level(tmp_path / "t", additional_special_tokens=["total"]))
    assert "total" in ours.special_tokens


HARMLESS: list[tuple[Any, dict[str, Any]]] = [
    (word_piece, {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}),
    (word_piece, {"strip_accents": True, "never_split": None, "do_basic_tokenize": True}),
    (word_piece, {"do_lower_case": False, "lower": False}),
    (word_piece, {"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast"}),
    (llama, {"legacy": False, "add_bos_token": True, "add_eos_token": False, "sp_model_kwargs": {}}),
    (llama, {"scheme": "always", "legacy": True, "add_prefix_space": True}),
    (llama, {"scheme": "never", "add_prefix_space": False, "legacy": True}),
    (llama, {"legacy": True, "add_prefix_space": None, "tokenizer_class": "PreTrainedTokenizerFast"}),
    (byte_level, {"add_prefix_space": False, "trim_offsets": True, "errors": "replace"}),
    (byte_level, {"add_prefix_space": False, "tokenizer_class": "RobertaTokenizer", "do_lower_case": True}),
    (byte_level, {"add_prefix_space": True, "tokenizer_class": "PreTrainedTokenizerFast"}),
    (byte_level, {"split_special_tokens": False, "model_max_length": 10**30, "padding_side": "left"}),
    (byte_level, {"add_bos_token": True, "add_eos_token": True, "legacy": True}),
]


@pytest.mark.parametrize(("make", "settings"), HARMLESS)
def test_settings_that_say_the_same_or_are_not_applied_load(
    make: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    require_the_ids_of_transformers(make(tmp_path / "t", **settings))


CONFLICTS: list[tuple[Any, dict[str, Any], str]] = [
    (word_piece, {"do_lower_case": False}, "do_lower_case = false.*has true"),
    (word_piece, {"lower": False, "do_lower_case": True}, "do_lower_case = true.*has false"),
    (word_piece, {"strip_accents": False}, "strip_accents = false.*has true"),
    (word_piece, {"tokenize_chinese_chars": False}, "tokenize_chinese_chars = false.*has true"),
    *(
        (
            byte_level,
            {"add_prefix_space": True, "tokenizer_class": name},
            "add_prefix_space = true.*has false",
        )
        for name in ("GPT2Tokenizer", "RobertaTokenizerFast", "GPTNeoXTokenizer")
    ),
    (
        byte_level,
        {"do_lower_case": True, "tokenizer_class": "BertTokenizer"},
        "do_lower_case = true.*has false",
    ),
    (byte_level, {"split_special_tokens": True}, "split_special_tokens = true.*false"),
    (byte_level, {"add_bos_token": False}, "add_bos_token = false.*has true"),
    (llama, {"add_eos_token": True}, "add_eos_token = true.*has false"),
    (llama, {"add_prefix_space": False}, "add_prefix_space = false.*has true"),
    (llama, {"scheme": "never", "add_prefix_space": True}, "add_prefix_space = true.*has false"),
    (llama, {"legacy": True}, "legacy = true.*has false"),
    (llama, {"scheme": "always", "legacy": False}, "legacy = false.*has true"),
]


@pytest.mark.parametrize(("make", "settings", "says"), CONFLICTS)
def test_settings_that_conflict_with_the_file_are_refused_with_both_values(
    make: Any, settings: dict[str, Any], says: str, tmp_path: Path
) -> None:
    folder = make(tmp_path / "t", **settings)
    with pytest.raises(InputError, match=says) as caught:
        load(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) <= 300


@pytest.mark.parametrize("listed", [["</s>"], {"x": {"content": "a"}}, {"1": "</s>"}, {"1": {"content": 3}}])
def test_a_malformed_list_of_added_tokens_is_refused(listed: Any, tmp_path: Path) -> None:
    folder = byte_level(tmp_path / "t", added_tokens_decoder=listed)
    with pytest.raises(InputError, match="added_tokens_decoder"):
        load(folder)


@pytest.mark.parametrize("write", [write_qwen2, write_llama, write_encoder, write_t5])
def test_the_tiny_models_encode_as_transformers_does(write: Any, tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "config.json").unlink()
    require_the_ids_of_transformers(folder)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the tokenizers of the project are not beside it")
@pytest.mark.parametrize("name", ["gpt2", "qwen2", "codet5", "roberta"])
def test_real_tokenizers_encode_as_transformers_does(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = SHARED / "data" / "tokenizers" / name
    require_the_ids_of_transformers(folder)
    AutoTokenizer.from_pretrained(str(folder)).save_pretrained(tmp_path / "saved")  # as folders are published
    require_the_ids_of_transformers(tmp_path / "saved")


def test_a_side_to_cut_on_that_is_none_or_only_in_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='truncation_side = "middle"; expected left or right'):
        load(byte_level(tmp_path / "a", truncation_side="middle"))
    folder = byte_level(tmp_path / "b")
    inner = Inner.from_file(str(folder / "tokenizer.json"))
    inner.enable_truncation(8, direction="left")
    inner.save(str(folder / "tokenizer.json"))
    with pytest.raises(InputError, match=r"cuts texts on the left, and tokenizer_config\.json names no side"):
        load(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "truncation_side": "left"}))
    assert load(folder).truncation_side == "left"
