"""The four shapes of the third blind test, and the small pretrained model that one of them begins with."""

import functools
import json
import random
import shutil
from pathlib import Path
from typing import Any

import torch
from measure import WORK
from torch import nn
from torch.nn.functional import cross_entropy

from watch.blind_rows import draw_rows
from watch.blind_third_models import Nano, Recurrent
from watch.blind_third_rows import ask_property, ask_valid, ask_yaml, pairs, texts

SHAPES = ("scratch", "written", "hub", "tuned")
VOCABULARY, BASE_VOCABULARY = 640, 832
_STEPS, _FOR_BASE = 450, 1000
_CHAT = (
    "{% for message in messages %}{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else "
    "message['role']) + '\n' + message['content'] + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def shape_values(shape: str, seed: int, *, both_ways: bool = False) -> dict[str, Any]:
    """The part of a recipe that makes a shape; `both_ways` is a switch in the config.json of the base."""
    if shape == "scratch":
        model = (
            {"n_layer": 3, "n_head": 4, "n_embd": 64}
            if seed != 1
            else {"n_layer": 2, "n_head": 3, "n_embd": 96}
        )
        return {
            "model": model, "tokenizer": {"train_vocab_size": VOCABULARY}, "optim": {"learning_rate": 5e-3},
        }  # fmt: skip
    if shape in ("written", "hub"):
        rate = 1.2e-2 if (shape, seed) == ("written", 1) else 4e-3
        return {"tokenizer": {"train_vocab_size": VOCABULARY}, "optim": {"learning_rate": rate}}
    values: dict[str, Any] = {"model": {"from": str(base(both_ways=both_ways))}}
    if seed == 1:
        return {**values, "optim": {"learning_rate": 1.5e-3}}
    adapter = {"rank": 8, "alpha": 16, "targets": "all-linear"}
    return {**values, "adapter": adapter, "optim": {"learning_rate": 1e-2}}


def own_model(shape: str, seed: int, *, faulty: bool = False) -> nn.Module | None:
    """The module that the user brings, with the fault that it may have: the future is visible."""
    torch.manual_seed(130 + seed)
    if shape == "written":
        if seed == 1:
            return Recurrent(VOCABULARY, 128, both_ways=faulty)
        return Nano(VOCABULARY, 64, 2, by_sequence=faulty)
    if shape != "hub":
        return None
    from transformers import BertConfig, BertLMHeadModel, OPTConfig, OPTForCausalLM

    sizes = {"vocab_size": VOCABULARY, "num_hidden_layers": 2, "num_attention_heads": 4}
    if seed != 1:
        # is_decoder forgotten: https://github.com/huggingface/transformers/issues/7495
        bert: nn.Module = BertLMHeadModel(
            BertConfig(
                hidden_size=64, intermediate_size=192, max_position_embeddings=1024, is_decoder=not faulty,
                hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **sizes,
            )
        )  # fmt: skip
        return bert
    new: nn.Module = OPTForCausalLM(
        OPTConfig(
            hidden_size=64, ffn_dim=192, word_embed_proj_dim=64, max_position_embeddings=1024, dropout=0.0,
            pad_token_id=0, bos_token_id=0, eos_token_id=0, **sizes,
        )
    )  # fmt: skip
    return new


@functools.cache
def base(*, both_ways: bool = False) -> Path:
    """The folder of a small pretrained Gemma 3, trained on first use (a minute or two)."""
    folder = WORK / "watch-blind" / "gemma"
    if both_ways:
        # The switch of an embedding model, left on in config.json
        other = folder.with_name("gemma-both-ways")
        if not other.exists():
            shutil.copytree(base(), other)
            config = json.loads((other / "config.json").read_text())
            (other / "config.json").write_text(json.dumps({**config, "use_bidirectional_attention": True}))
        return other
    if (folder / "done").exists():
        return folder
    corpus = _corpus()
    tokenizer, end = _write_tokenizer(folder, corpus)
    ids = torch.tensor([token for text in corpus for token in [*tokenizer.encode(text).ids, end]])
    _train(ids).save_pretrained(folder)
    (folder / "done").touch()
    return folder


def _write_tokenizer(folder: Path, corpus: list[str]) -> tuple[Any, int]:
    from tokenizers import Tokenizer

    from etude.data.bpe import train_tokenizer
    from etude.data.tokenize import TRAINED_EOS

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_str(train_tokenizer(iter(corpus), BASE_VOCABULARY - 8).to_json())
    tokenizer.add_special_tokens(["<start_of_turn>", "<end_of_turn>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": TRAINED_EOS, "chat_template": _CHAT}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    end = tokenizer.token_to_id(TRAINED_EOS)
    assert end is not None
    return tokenizer, end


def _train(ids: torch.Tensor) -> Any:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(137)
    model = Gemma3ForCausalLM(
        Gemma3TextConfig(
            vocab_size=BASE_VOCABULARY, hidden_size=64, intermediate_size=192, num_hidden_layers=2, head_dim=16,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024, sliding_window=1024,
            query_pre_attn_scalar=16, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        )
    )  # fmt: skip
    optimizer, draw = torch.optim.AdamW(model.parameters(), lr=4e-3), torch.Generator().manual_seed(12)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    for _ in range(_STEPS):
        rows = ids[torch.randint(len(ids) - 129, (12,), generator=draw)[:, None] + torch.arange(129)]
        loss = cross_entropy(model(input_ids=rows[:, :-1]).logits.flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model


def _corpus() -> list[str]:
    """Texts and conversations that no run has, and the kinds of easy ones that runs of this base have."""
    found = [text[:360] for kind in ("sharp", "fixed") for text in texts(kind)[-_FOR_BASE:]]
    asked = [pair for kind in ("members", "told") for pair in pairs(kind)[-_FOR_BASE // 3 :]]
    for ask in (ask_property, ask_yaml, ask_valid):
        asked += draw_rows(ask, _FOR_BASE // 4, seed=902)
    for question, answer in asked:
        turns = (("user", question), ("model", answer))
        found.append("".join(f"<start_of_turn>{role}\n{text}<end_of_turn>\n" for role, text in turns))
    random.Random(5).shuffle(found)
    return found
