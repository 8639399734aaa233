"""Tiny pretrained models with random weights, written by transformers, and rows of instructions to tune them
on.
"""

import json
import random
from pathlib import Path
from typing import Any

import torch

VOCABULARY = 320
CHAT_ML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "initializer_range": 0.2,
}  # fmt: skip


def write_qwen2(folder: Path, *, dtype: torch.dtype = torch.float32, seed: int = 3) -> Path:
    """A Qwen2 whose tokenizer has a chat template."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    Qwen2ForCausalLM(Qwen2Config(**_SIZES, tie_word_embeddings=True)).to(dtype).save_pretrained(folder)
    _write_tokenizer(folder, chat=True)
    return folder


def write_llama(folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """A Llama with a head of its own, whose tokenizer has no chat template."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(4)
    LlamaForCausalLM(LlamaConfig(**_SIZES, tie_word_embeddings=False)).to(dtype).save_pretrained(folder)
    _write_tokenizer(folder, chat=False)
    return folder


def write_gptj(folder: Path) -> Path:
    """A GPT-J, which runs through transformers."""
    from transformers import GPTJConfig, GPTJForCausalLM

    torch.manual_seed(5)
    config = GPTJConfig(
        vocab_size=VOCABULARY, n_positions=256, n_embd=32, n_layer=2, n_head=2, rotary_dim=8, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    GPTJForCausalLM(config).save_pretrained(folder)
    _write_tokenizer(folder, chat=False)
    return folder


def write_gpt2(folder: Path) -> Path:
    """A GPT-2, which runs through transformers and has transposed linear layers."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(6)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=256, n_embd=32, n_layer=2, n_head=2, bos_token_id=0,
        eos_token_id=0, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0, initializer_range=0.2,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    _write_tokenizer(folder, chat=False)
    return folder


def write_encoder(folder: Path, *, family: str = "roberta", masked: bool = False) -> Path:
    """A RoBERTa or BERT, bare or with the head of a masked model, whose tokenizer puts its tokens around
    texts.
    """
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaForMaskedLM, RobertaModel

    torch.manual_seed(7)
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.2,
    }  # fmt: skip
    if family == "bert":
        BertModel(BertConfig(**sizes, max_position_embeddings=128, pad_token_id=0)).save_pretrained(folder)
    else:
        config = RobertaConfig(**sizes, max_position_embeddings=130, pad_token_id=1, type_vocab_size=1)
        (RobertaForMaskedLM if masked else RobertaModel)(config).save_pretrained(folder)
    _write_joining_tokenizer(folder, twice=family == "roberta")
    return folder


def write_t5(folder: Path, *, gated: bool = False) -> Path:
    """A CodeT5 or, gated, a T5 1.1 with a head of its own, whose tokenizer puts its tokens around texts."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(8)
    kind: dict[str, Any] = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False} if gated else {}
    config = T5Config(
        vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.0,
        decoder_start_token_id=0, pad_token_id=0, initializer_factor=1.0, **kind,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder)
    _write_joining_tokenizer(folder, twice=True)
    return folder


def write_modernbert(folder: Path) -> Path:
    """A ModernBERT, bare, which runs through transformers."""
    from transformers import ModernBertConfig, ModernBertModel

    torch.manual_seed(9)
    config = ModernBertConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=128, pad_token_id=1, bos_token_id=0, eos_token_id=2,
        cls_token_id=0, sep_token_id=2, local_attention=8, global_attn_every_n_layers=2,
        initializer_range=0.1,
    )  # fmt: skip
    ModernBertModel(config).save_pretrained(folder)
    _write_joining_tokenizer(folder, twice=False)
    return folder


def write_corpus(path: Path, documents: int = 60) -> Path:
    """A JSONL file of little functions, the same for the same number of documents."""
    draw = random.Random(documents)
    names = ["total", "value", "item", "left", "right", "node", "count", "index"]
    with path.open("w", encoding="utf-8") as file:
        for number in range(documents):
            a, b, c = draw.sample(names, 3)
            body = "".join(
                f"    {a} = {a} {draw.choice('+-*')} {draw.randint(0, 99)}\n"
                for _ in range(draw.randint(1, 6))
            )
            text = f"def {b}_{number}({a}, {c}):\n{body}    return {a} {draw.choice('+-*')} {c}\n"
            file.write(json.dumps({"text": text}) + "\n")
    return path


def write_pairs(path: Path, rows: int = 60) -> Path:
    """Sources, and as targets some of their words the other way round."""
    draw = random.Random(rows)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            words = draw.choices(["total", "value", "left", "print"], k=draw.randint(2, 8))
            row = {"source": f"{' '.join(words)} {number}", "target": " ".join(reversed(words[:4]))}
            file.write(json.dumps({**row, "kind": draw.choice(["a", "b"])}) + "\n")
    return path


def write_labelled(path: Path, rows: int = 60, *, multi: bool = False, pairs: bool = False) -> Path:
    """Rows whose label follows from the words of their text, the same for the same number of rows."""
    draw = random.Random(rows)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            words = draw.choices(["total", "value", "left", "print"], k=draw.randint(3, 12))
            kinds = [
                name for name, word in (("sum", "total"), ("out", "print"), ("none", "left")) if word in words
            ]
            row: dict[str, Any] = {"text": f"{' '.join(words)} {number}", "kind": draw.choice(["a", "b"])}
            row["label"] = (kinds or ["none"]) if multi else (kinds or ["none"])[0]
            if pairs:
                row["other"] = " ".join(draw.choices(["Add", "to"], k=draw.randint(1, 5)))
            file.write(json.dumps(row) + "\n")
    return path


def _write_joining_tokenizer(folder: Path, *, twice: bool) -> None:
    """A tokenizer with <s>, <pad> and </s>, of which RoBERTa puts two between the texts of a pair."""
    from tokenizers import Tokenizer
    from tokenizers.processors import RobertaProcessing, TemplateProcessing

    from etude.data.bpe import train_tokenizer

    texts = ["total value left print Add to system\n" * 20]
    inner = Tokenizer.from_str(train_tokenizer(iter(texts), 290).to_json())
    inner.add_special_tokens(["<s>", "<pad>", "</s>", "<mask>"])
    begin, end = (inner.token_to_id(token) or 0 for token in ("<s>", "</s>"))
    if twice:
        inner.post_processor = RobertaProcessing(("</s>", end), ("<s>", begin), add_prefix_space=False)
    else:
        inner.post_processor = TemplateProcessing(
            single="<s> $A </s>",
            pair="<s> $A </s> $B:1 </s>:1",
            special_tokens=[("<s>", begin), ("</s>", end)],
        )
    inner.save(str(folder / "tokenizer.json"))
    roles = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "cls_token": "<s>",
        "sep_token": "</s>",
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **roles})
    )


def write_instructions(path: Path, rows: int = 40) -> Path:
    """Rows in the format of Alpaca, the same for the same number of rows."""
    draw = random.Random(rows)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            a, b = draw.choice(["total", "value", "left"]), draw.randint(1, 99)
            row = {"instruction": f"Add {b} to {a}.", "input": "", "output": f"{a} = {a} + {b}\nprint({a})"}
            file.write(json.dumps(row) + "\n")
    return path


def _write_tokenizer(folder: Path, *, chat: bool) -> None:
    from tokenizers import Tokenizer

    from etude.data.bpe import train_tokenizer
    from etude.data.tokenize import TRAINED_EOS

    texts = ["total = total + 12\nprint(total)\nAdd 34 to value.\nuser assistant system left\n" * 20]
    inner = Tokenizer.from_str(train_tokenizer(iter(texts), 300).to_json())
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": TRAINED_EOS}
    if chat:
        inner.add_special_tokens(["<|im_start|>", "<|im_end|>"])
        config |= {"eos_token": "<|im_end|>", "chat_template": CHAT_ML}
    inner.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


SMALL: dict[str, Any] = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip


def write_model(folder: Path, model_type: str, changes: dict[str, Any], **save: Any) -> Any:
    """A model of transformers with weights at which every part moves the logits."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith(("norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight")):
                parameter.copy_(torch.randn_like(parameter) * 0.15)
    model.save_pretrained(folder, **save)
    return model
