"""The four shapes of the fourth blind test, and the small GPT-NeoX that one of them adapts."""

import functools
from pathlib import Path
from typing import Any

import torch
from measure import WORK

from watch.blind_fourth_models import VOCABULARY, WIDTH
from watch.blind_shapes import VOCABULARY as BASE_VOCABULARY
from watch.blind_shapes import _train, _write_tokenizer

SHAPES = ("decoder", "lora", "pairs", "module")


def shape_values(shape: str, objective: str, *, is_own: bool) -> dict[str, Any]:
    """The part of a recipe that makes a shape; pairs are seq2seq or classification."""
    tokenizer, optim = {"train_vocab_size": VOCABULARY}, {"learning_rate": 3e-3}
    if shape == "lora":
        adapter = {"rank": 8, "alpha": 16, "targets": "all-linear"}
        return {"model": {"from": str(base())}, "adapter": adapter, "optim": {"learning_rate": 2e-3}}
    kind = {"causal": "decoder", "seq2seq": "encoder-decoder", "classification": "encoder"}[objective]
    if is_own:
        return {"tokenizer": tokenizer, "optim": optim} | (
            {} if kind == "decoder" else {"model": {"kind": kind}}
        )
    model = {"kind": kind, "n_layer": 3 if kind == "decoder" else 2, "n_head": 4, "n_embd": WIDTH}
    return {"model": model, "tokenizer": tokenizer, "optim": optim}


@functools.cache
def base() -> Path:
    """The folder of a small pretrained GPT-NeoX that knows a chat template; trained on first use (a minute)."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    folder = WORK / "watch-blind-fourth" / "neox"
    if not (folder / "done").exists():
        tokenizer = _write_tokenizer(folder, is_chat=True)
        torch.manual_seed(6)
        sizes = {
            "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": 3,
            "num_attention_heads": 4, "max_position_embeddings": 1024,
        }  # fmt: skip
        config = GPTNeoXConfig(
            vocab_size=BASE_VOCABULARY, rotary_pct=0.5, bos_token_id=0, eos_token_id=0, **sizes
        )
        _train(GPTNeoXForCausalLM(config), tokenizer, is_chat=True).save_pretrained(folder)
        (folder / "done").touch()
    return folder
