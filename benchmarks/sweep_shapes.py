"""The 72 trials of recipes/code-understanding-72.toml over tiny models: rows, tokenizer, weights, sweep file.

The six models have the configurations of CodeBERT, CodeT5 and CodeT5+ but for their widths, depths and
vocabulary, and random weights. The grids are those of the recipe, with 20 times its learning rates, as
weights that know nothing move too little at the rates for pretrained ones.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "code-understanding-72.toml"
VOCABULARY, RATE = 2000, 20
ROWS, SEQ_LEN = 128, 192
# Layers, width, heads and inner width of each model.
SIZES = {
    "codebert-base": (2, 64, 4, 256), "codet5-small": (1, 64, 4, 256), "codet5-base": (2, 64, 4, 256),
    "codet5p-220m": (2, 64, 4, 256), "codet5-large": (2, 96, 6, 384), "codet5p-770m": (2, 96, 6, 384),
}  # fmt: skip


def make_sweep(
    place: Path, data: Path, *, rows: int = ROWS, seq_len: int = SEQ_LEN, at_once: int = 2
) -> Path:
    """The sweep file in a folder, with all that it names; what is there already is kept.

    data: the folder of train.jsonl, valid.jsonl and test.jsonl, with `code` and `label`
    rows: for training; validation and test have half as many each
    """
    import tomlkit

    path = place / "sweep.toml"
    for use, count in (("train", rows), ("valid", rows // 2), ("test", rows // 2)):
        _write_rows(data / f"{use}.jsonl", place / f"{use}.jsonl", count)
    for seed, name in enumerate(SIZES):
        if not (place / "models" / name / "tokenizer.json").exists():
            _write_model(place / "models" / name, name, seed, place / "train.jsonl")
    values = tomlkit.parse(RECIPE.read_text()).unwrap()
    values["name"] = "tiny-72"
    values["rows"] = rows
    values["resources"] = {"at_once": at_once}
    values["budget"] = {"trials": 72}
    for tier in values["tiers"]:
        for model in tier["models"]:
            model["from"] = f"models/{model['name']}"
        for axis in tier["grid"]:
            if axis["key"] == "optim.learning_rate":
                axis["values"] = [RATE * value for value in axis["values"]]
    base = values["recipe"]
    for use, file in (("train", "train"), ("validation", "valid"), ("test", "test")):
        base["data"][use] = [{"path": f"{file}.jsonl", "field": "code", "label": "label"}]
    base["evaluate"] = {"every_epochs": 1, "metric": "f1"}
    base["checkpoint"] = {"every_steps": 20, "keep": 2}
    base["schedule"]["warmup_steps"] = 4
    base["train"] |= {"seq_len": seq_len, "precision": "fp32", "device": "cpu"}
    values["why"] = {key: values["why"][key] for key in ("schedule.kind", "schedule.warmup_steps")}
    path.write_text(tomlkit.dumps(values), encoding="utf-8")
    return path


def _write_rows(source: Path, target: Path, count: int) -> None:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        lines = source.read_text(encoding="utf-8").splitlines()[:count]
        kept = [{key: json.loads(line)[key] for key in ("code", "label")} for line in lines]
        target.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")


def _write_model(folder: Path, name: str, seed: int, rows: Path) -> None:
    import torch
    from transformers import RobertaConfig, RobertaForMaskedLM, T5Config, T5ForConditionalGeneration

    torch.manual_seed(seed)
    layers, width, heads, inner = SIZES[name]
    model: Any
    if name.startswith("codebert"):
        model = RobertaForMaskedLM(RobertaConfig(
            vocab_size=VOCABULARY, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
            num_attention_heads=heads, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5,
            bos_token_id=0, pad_token_id=1, eos_token_id=2,
        ))  # fmt: skip
    else:
        model = T5ForConditionalGeneration(T5Config(
            vocab_size=VOCABULARY, d_model=width, d_kv=width // heads, d_ff=inner, num_layers=layers,
            num_heads=heads, n_positions=512, feed_forward_proj="relu", bos_token_id=0, pad_token_id=1,
            eos_token_id=2, decoder_start_token_id=1,
        ))  # fmt: skip
    model.save_pretrained(folder)
    _write_tokenizer(folder, rows)


def _write_tokenizer(folder: Path, rows: Path) -> None:
    """Byte-level BPE of the training rows, which puts <s> and </s> around texts as these families do."""
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import RobertaProcessing

    tokenizer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(_codes(rows), VOCABULARY, show_progress=False, special_tokens=special)
    tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = {"bos": "<s>", "eos": "</s>", "pad": "<pad>", "cls": "<s>", "sep": "</s>", "unk": "<unk>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast"} | {
        f"{key}_token": value for key, value in roles.items()
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _codes(rows: Path) -> Iterator[str]:
    for line in rows.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)["code"]
