"""Hold the memory that is foreseen of a training step against what it takes, over configurations drawn at random.

Families of etude and of transformers, all loaded from a folder as a run loads them; kinds of training; sizes and
heads; LoRA, DoRA, recomputation, accumulation, dropout; rows beside each other and end to end; fp32 and bf16. The
truth is that of `estimate.py` on a CPU. Each configuration follows from its number.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from estimate import end_to_end_of, foresee, pairs_of, profile_steps, rows_of, subject_of, summarize
from measure import FOLDER, describe_machine

LABELS = 3
GROUPED = ("qwen2", "llama", "starcoder2", "gemma", "gemma2", "phi")
CAUSAL = (
    "qwen2", "llama", "gpt2", "gptj", "gpt_neox", "starcoder2", "gemma", "gemma2", "phi", "opt", "bloom",
)  # fmt: skip
READERS = ("roberta", "bert", "distilbert", "deberta-v2", "electra", "modernbert")
# The names of a configuration's sizes where they are not those of most.
NAMES = {
    "gpt2": {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"},
    "gptj": {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"},
    "bloom": {"num_hidden_layers": "n_layer", "num_attention_heads": "n_head"},
    "distilbert": {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"},
    "t5": {"hidden_size": "d_model", "num_hidden_layers": "num_layers", "num_attention_heads": "num_heads"},
}


@dataclass
class Case:
    """A configuration that was drawn: of a model, an adapter, a batch and a step."""

    family: str
    objective: str
    layers: int
    heads: int
    kv_heads: int
    width: int
    vocabulary: int
    ffn: int
    rows: int
    length: int
    precision: str
    dropout: float
    is_tied: bool
    is_packed: bool
    accumulates: bool
    train: dict[str, Any] = field(default_factory=dict)
    adapter: dict[str, Any] | None = None

    def __str__(self) -> str:
        said = [
            f"{self.family} {self.objective}",
            f"{self.layers} x {self.width}, {self.heads}/{self.kv_heads} heads, vocabulary {self.vocabulary}",
            self.precision,
        ]
        if self.adapter:
            kind = "DoRA" if self.adapter["dora"] else "LoRA"
            said.append(
                f"{kind} on {self.adapter['targets']}" + " with dropout" * bool(self.adapter["dropout"])
            )
        words = {
            "recomputed": self.train["activation_checkpointing"], "accumulated": self.accumulates,
            "tied": self.is_tied, "packed": self.is_packed, "dropout": bool(self.dropout),
        }  # fmt: skip
        said += [word for word, holds in words.items() if holds]
        return ", ".join(said + ([] if self.is_packed else [f"{self.rows} rows of {self.length}"]))


def draw_case(number: int) -> Case:
    """The configuration of a number."""
    draw = random.Random(f"memory {number}")
    objective = draw.choice(
        ("causal", "causal", "causal", "classification", "classification", "masked", "seq2seq")
    )
    family = {
        "causal": draw.choice(CAUSAL), "masked": "roberta", "seq2seq": "t5",
        "classification": draw.choice((*READERS, *READERS, "qwen2", "llama", "gpt2")),
    }[objective]  # fmt: skip
    heads = draw.choice((4, 8))
    adapter = None
    if draw.random() < 0.5 and objective != "masked":
        adapter = {
            "rank": draw.choice((4, 8, 16)), "targets": "all-linear", "dora": draw.random() < 0.4,
            "dropout": draw.choice((0.0, 0.0, 0.1)),
        }  # fmt: skip
    return Case(
        family, objective, layers=draw.randint(1, 6), heads=heads, width=32 * heads,
        kv_heads=draw.choice((1, 2, heads)) if family in GROUPED else heads,
        vocabulary=draw.choice((2_000, 8_000)), ffn=draw.choice((2, 3, 4)) * 32 * heads,
        rows=draw.choice((2, 5, 8)), length=draw.choice((64, 128, 200)), precision=draw.choice(("fp32", "bf16")),
        dropout=draw.choice((0.0, 0.1)), is_tied=draw.random() < 0.5, is_packed=draw.random() < 0.4,
        accumulates=draw.random() < 0.3, train={"activation_checkpointing": draw.random() < 0.3}, adapter=adapter,
    )  # fmt: skip


def prepare(case: Case, folder: Path) -> tuple[Any, Callable[[], Any]]:
    """The subject of a case, and what loads its model; a model with drawn weights is written into the folder."""
    import torch

    from etude.models.build import adapt, build, choose_config
    from etude.models.families.family import NewModel
    from etude.models.pretrained import inspect_model
    from etude.objectives.causal import Causal
    from etude.objectives.classification import Classification
    from etude.objectives.masked import Masked
    from etude.objectives.seq2seq import Seq2Seq

    _write(case, folder)
    labels = LABELS if case.objective == "classification" else 0
    pretrained = replace(inspect_model(folder, case.objective), labels=labels)
    kinds: dict[str, Callable[[], Any]] = {
        "causal": Causal, "masked": Masked, "seq2seq": Seq2Seq, "classification": lambda: Classification(False),
    }  # fmt: skip
    fields = {"classification": {"label": "label"}, "seq2seq": {"field": "source", "target": "target"}}
    changes: dict[str, Any] = {
        "data": {"train": [{"path": "none", **fields.get(case.objective, {})}]},
        "model": {"from": str(folder), "dropout": case.dropout},
        "train": {**case.train, "objective": case.objective},
    }
    if case.adapter:
        changes["adapter"] = case.adapter
    subject = subject_of(
        pretrained.config, kinds[case.objective](), _batch(case, labels), changes, precision=case.precision,
        accumulates=case.accumulates, labels=labels,
    )  # fmt: skip
    new = NewModel(vocab_size=case.vocabulary, seq_len=128, pad_id=0, labels=labels)
    subject = replace(subject, model=choose_config(subject.recipe, pretrained, new))
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[case.precision]

    def load() -> Any:
        model, _ = build(subject.recipe, subject.model, pretrained, dtype)
        adapt(subject.recipe, model)
        return model

    return subject, load


def _write(case: Case, folder: Path) -> None:
    import torch
    import transformers

    sizes = {
        "hidden_size": case.width, "num_hidden_layers": case.layers, "num_attention_heads": case.heads,
"intermediate_size": case.ffn, "vocab_size": case.vocabulary,
        "max_position_embeddings": 1024, "pad_token_id": 0,
    }  # fmt: skip
    if case.objective == "causal":
        sizes |= {"tie_word_embeddings": case.is_tied}
    if case.family in GROUPED:
        sizes |= {"num_key_value_heads": case.kv_heads}
    match case.family:
        case "gpt2" | "gptj":
            sizes |= {"n_positions": 1024, "n_inner": case.ffn, "rotary_dim": 16}
        case "gemma" | "gemma2":
            sizes |= {"head_dim": 32, "sliding_window": 64}
        case "opt":
            sizes |= {"ffn_dim": case.ffn, "word_embed_proj_dim": case.width}
        case "distilbert":
            sizes |= {"hidden_dim": case.ffn}
        case "electra":
            sizes |= {"embedding_size": case.width}
        case "t5":
            sizes |= {"d_ff": case.ffn, "d_kv": 32, "num_decoder_layers": case.layers}
            del sizes["intermediate_size"], sizes["max_position_embeddings"]
        case "roberta":
            sizes |= {"pad_token_id": 1, "max_position_embeddings": 1026, "type_vocab_size": 1}
    named = {NAMES.get(case.family, {}).get(name, name): value for name, value in sizes.items()}
    config = transformers.AutoConfig.for_model(case.family, **named)
    kind: Any = {
        "causal": transformers.AutoModelForCausalLM, "seq2seq": transformers.AutoModelForSeq2SeqLM,
        "masked": transformers.AutoModelForMaskedLM, "classification": transformers.AutoModel,
    }[case.objective]  # fmt: skip
    torch.manual_seed(0)
    kind.from_config(config).save_pretrained(folder)


def _batch(case: Case, labels: int) -> Any:
    if case.objective == "seq2seq":
        return pairs_of(case.vocabulary)
    if case.objective == "masked":
        return end_to_end_of(case.vocabulary, every=7)
    if case.is_packed:
        return end_to_end_of(case.vocabulary, labels=labels)
    return rows_of(case.rows, case.length, case.vocabulary, labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--only", type=int, help="the case of this number; nothing is written")
    asked = parser.parse_args()
    cases: dict[str, Any] = {}
    for number in range(asked.count) if asked.only is None else [asked.only]:
        case = draw_case(number)
        with tempfile.TemporaryDirectory() as name:
            subject, load = prepare(case, Path(name))
            found = foresee(subject) | profile_steps(subject, load)
        found.pop("process_growth")  # of all cases so far
        found["error"] = found["foreseen"] / found["measured"] - 1
        cases[f"{number}: {case}"] = found
        print(f"{number}: {100 * found['error']:+.2f} % {case} ({found['phase']})", flush=True)
        told = {"date": time.strftime("%Y-%m-%d"), "machine": describe_machine(), "cases": cases}
        told["summary"] = summarize(cases)
        if asked.only is None:
            (FOLDER / "results" / "estimate_random.json").write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told["summary"], indent=1))


if __name__ == "__main__":
    main()
