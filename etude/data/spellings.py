"""The bytes of text that each id of a tokenizer stands for."""

import json
import re

import numpy as np

from etude.data.lost import BYTE_SIGNS
from etude.data.tokenize import Ids, Tokenizer
from etude.errors import InputError


def token_bytes(tokenizer: Tokenizer) -> Ids | None:
    """The number of bytes of each id, 0 for special tokens, shape (vocab_size,); None if not byte-level."""
    content = json.loads(tokenizer.to_json())
    if '"ByteLevel"' not in json.dumps([content["pre_tokenizer"], content["decoder"]]):
        return None
    sizes = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for token, index in content["model"]["vocab"].items():
        sizes[index] = len(token)  # one character stands for one byte
    for added in content["added_tokens"]:
        sizes[added["id"]] = 0 if added["special"] else len(added["content"].encode())
    return sizes


def token_spellings(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes of each id, none for special tokens.

    Ids of byte-level tokenizers tell them, and those of others that spell unknown text in bytes. Raises:
    InputError for other tokenizers.
    """
    content = json.loads(tokenizer.to_json())
    vocab = content["model"]["vocab"]  # of a Unigram a list, by id
    pairs = (
        vocab.items() if isinstance(vocab, dict) else zip((entry[0] for entry in vocab), range(len(vocab)))
    )
    spellings = [b""] * tokenizer.vocab_size
    is_byte_level = token_bytes(tokenizer) is not None
    if tokenizer.can_lose_text or not (is_byte_level or content["model"].get("byte_fallback")):
        raise InputError(
            "loss.token_weights needs a tokenizer whose ids tell the bytes of the text, and this one leaves "
            "out some; use a byte-level one (that of CodeT5, GPT-2, Qwen, or a trained one), or leave "
            "token_weights out"
        )
    for token, index in pairs:
        if is_byte_level:
            spellings[index] = bytes(BYTE_SIGNS[sign] for sign in token if sign in BYTE_SIGNS)
        elif re.fullmatch("<0x[0-9A-F]{2}>", token):
            spellings[index] = bytes([int(token[3:5], 16)])
        else:
            spellings[index] = token.replace("\u2581", " ").encode()
    for added in content["added_tokens"]:
        spellings[added["id"]] = b"" if added["special"] else added["content"].encode()
    return spellings
