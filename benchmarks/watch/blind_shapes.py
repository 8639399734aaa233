"""The four shapes of the blind test, and the small pretrained models that two of them begin with."""

import functools
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from measure import WORK
from torch import nn
from torch.nn.functional import cross_entropy

from watch.blind_rows import ask_even, ask_json, draw_rows, getter, instructions, log_lines, setter, texts

SHAPES = ("decoder", "gpt2", "gptj", "qwen")
VOCABULARY, WIDTH, CONTEXT = 1024, 64, 128
_STEPS, _ROWS = 700, 16  # of the pretraining of a base
_FOR_BASES = 1500  # texts and instructions at the end of each list that runs do not see
_CHAT = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def shape_values(shape: str, *, is_full: bool = False) -> dict[str, Any]:
    """The part of a recipe that makes a shape; is_full: all weights of a model that the user loads."""
    optim = {"learning_rate": 5e-3}
    if shape == "decoder":
        model = {"n_layer": 2, "n_head": 4, "n_embd": WIDTH, "qk_norm": True}
        return {"model": model, "tokenizer": {"train_vocab_size": VOCABULARY}, "optim": optim}
    if shape == "gpt2":
        return {"tokenizer": {"train_vocab_size": VOCABULARY}, "optim": optim}
    folder = str(base_of(shape))
    if is_full:
        return {"tokenizer": {"from": folder}, "optim": {"learning_rate": 2e-3}}
    adapter = {"rank": 8, "alpha": 16, "targets": "all-linear"}
    return {"model": {"from": folder}, "adapter": adapter, "optim": {"learning_rate": 1e-2}}


def own_model(shape: str, seed: int) -> nn.Module:
    """The module that the user brings: a GPT-2 from scratch, or a Qwen2 whose weights are all trained."""
    from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    if shape == "gpt2":
        sizes = {"n_positions": CONTEXT, "n_embd": WIDTH, "n_layer": 2, "n_head": 4}
        config = GPT2Config(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, **sizes)
        new: nn.Module = GPT2LMHeadModel(config)
        return new
    loaded: nn.Module = AutoModelForCausalLM.from_pretrained(base_of(shape), dtype=torch.float32)
    return loaded


@functools.cache
def base_of(shape: str) -> Path:
    """The folder of a small pretrained GPT-J or Qwen2, which is trained on first use (a minute)."""
    folder = WORK / "watch-blind" / shape
    if not (folder / "done").exists():
        tokenizer = _write_tokenizer(folder, is_chat=shape == "qwen")
        _train(_new(shape), tokenizer, is_chat=shape == "qwen").save_pretrained(folder)
        (folder / "done").touch()
    return folder


def _new(shape: str) -> Any:
    from transformers import GPTJConfig, GPTJForCausalLM, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(5)
    if shape == "gptj":
        sizes: Mapping[str, Any] = {
            "n_positions": 256,
            "n_embd": WIDTH,
            "n_layer": 2,
            "n_head": 4,
            "rotary_dim": 8,
        }
        return GPTJForCausalLM(GPTJConfig(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, **sizes))
    sizes = {
        "hidden_size": WIDTH, "intermediate_size": 3 * WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "tie_word_embeddings": True,
    }  # fmt: skip
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=VOCABULARY, **sizes))


def _corpus(*, is_chat: bool) -> list[str]:
    """Texts for a base: code, speeches, conversations and formatted rows, as real bases have seen them."""
    found = [*texts("functions")[-_FOR_BASES:], *texts("speeches")[-_FOR_BASES:]]
    for make in (log_lines, setter, getter):
        found += draw_rows(make, _FOR_BASES // 3, seed=900)
    pairs = [*instructions("headers")[-_FOR_BASES // 2 :], *instructions("alpaca")[-_FOR_BASES // 3 :]]
    for ask in (ask_even, ask_json):
        pairs += draw_rows(ask, _FOR_BASES // 3, seed=900)
    for question, answer in pairs:
        if is_chat:
            turns = (("user", question), ("assistant", answer))
            found.append("".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns))
        else:
            found.append(f"### Instruction:\n{question}\n\n### Response:\n{answer}")
    random.Random(3).shuffle(found)
    return found


def _write_tokenizer(folder: Path, *, is_chat: bool) -> Any:
    from tokenizers import Tokenizer

    from etude.data.bpe import train_tokenizer
    from etude.data.tokenize import TRAINED_EOS

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_str(train_tokenizer(iter(_corpus(is_chat=False)), VOCABULARY - 8).to_json())
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": TRAINED_EOS}
    if is_chat:
        tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
        config |= {"eos_token": "<|im_end|>", "chat_template": _CHAT}
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer


def _train(model: Any, tokenizer: Any, *, is_chat: bool) -> Any:
    """Pretrain a base by a plain loop."""
    from etude.data.tokenize import TRAINED_EOS

    end = tokenizer.token_to_id(TRAINED_EOS)
    ids = torch.tensor([
        token for text in _corpus(is_chat=is_chat) for token in [*tokenizer.encode(text).ids, end]
    ])  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    draw = torch.Generator().manual_seed(1)
    for _ in range(_STEPS):
        places = torch.randint(len(ids) - CONTEXT - 1, (_ROWS,), generator=draw)
        rows = ids[places[:, None] + torch.arange(CONTEXT + 1)]
        loss = cross_entropy(model(input_ids=rows[:, :-1]).logits.flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model
