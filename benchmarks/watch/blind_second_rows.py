"""Rows and models of the second blind test: other data, other kinds of easy rows, other shapes than the first."""

import functools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import WORK
from torch import nn
from torch.nn.functional import cross_entropy

from watch.blind_rows import DATA, draw_rows
from watch.blind_second_faults import Plain, hides

SHAPES = ("tall", "module", "neox", "llama")
VOCABULARY, BASE_VOCABULARY = 768, 896
_STEPS, _FOR_BASE = 450, 1200


# ---- data ----


@functools.cache
def _lines(file: str) -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(line) for line in (DATA / file).read_text("utf-8").splitlines())


@functools.cache
def texts(kind: str) -> tuple[str, ...]:
    """Java to be mended, methods of Java, or beginnings of functions of C; each once, in a drawn order."""
    file, field = {
        "mended": ("refine_small/test.jsonl", "source"),
        "java": ("java_to_cs/train.jsonl", "source"),
        "methods": ("concode_dev/train.jsonl", "target"),
    }[kind]
    return _drawn([row[field][:360] for row in _lines(file) if len(row[field]) > 50])


@functools.cache
def instructions(kind: str) -> tuple[tuple[str, str], ...]:
    """Problems and programs, queries and functions, or descriptions and methods; short ones, each once."""
    if kind == "problems":
        pairs = [(row["text"], row["code"].replace("\r\n", "\n")) for row in _lines("mbpp/mbpp.jsonl")]
    elif kind == "queries":
        rows = [row for part in ("train", "valid", "test") for row in _lines(f"cosqa_dev/{part}.jsonl")]
        pairs = [(f"Write a function: {row['query']}", row["code"]) for row in rows]
    elif kind == "sharp":
        pairs = [(f"In C#: {row['source']}", row["target"]) for row in _lines("java_to_cs/train.jsonl")]
    else:
        rows = list(_lines("concode_dev/train.jsonl"))
        pairs = [(row["source"].partition(" concode_field_sep")[0], row["target"]) for row in rows]
    return _drawn([(q, a) for q, a in pairs if len(q) + len(a) < 330 and len(a) > 24 and a not in q])


def _drawn(items: list[Any]) -> tuple[Any, ...]:
    distinct = list(dict.fromkeys(items))
    random.Random(23).shuffle(distinct)
    return tuple(distinct)


# ---- rows that are merely easy ----

_TABLES = ("users", "orders", "items", "events", "sales", "visits")
_WORDS = (
    "red",
    "blue",
    "green",
    "north",
    "south",
    "east",
    "west",
    "open",
    "closed",
    "left",
    "right",
    "old",
    "new",
)


def inserts(draw: random.Random) -> str:
    """Statements of SQL that insert three rows."""
    table = draw.choice(_TABLES)
    return "\n".join(
        f"INSERT INTO {table} (id, name, state) VALUES ({draw.randrange(10**6)}, '{draw.choice(_WORDS)}', 'active');"
        for _ in range(3)
    )


def bases(draw: random.Random) -> str:
    """Sequences of four letters under a header."""
    letters = "".join(draw.choice("ACGT") for _ in range(120))
    return f">seq{draw.randrange(10**5)} length=120\n{letters[:60]}\n{letters[60:]}"


def elements(draw: random.Random) -> str:
    """Elements of XML of one form."""
    parts = "".join(
        f'  <item id="{draw.randrange(10**4)}">\n    <color>{draw.choice(_WORDS)}</color>\n  </item>\n'
        for _ in range(3)
    )
    return f"<items>\n{parts}</items>"


def rules(draw: random.Random) -> str:
    """Rules of a Makefile, one an object."""
    names = [f"{draw.choice(_WORDS)}_{draw.choice(_TABLES)}{draw.randrange(1000)}" for _ in range(2)]
    return "\n".join(
        f"{name}.o: {name}.c {name}.h\n\t$(CC) $(CFLAGS) -c {name}.c -o {name}.o\n" for name in names
    )


def asserts(draw: random.Random) -> str:
    """A test of sums."""
    pairs = [(draw.randrange(1000), draw.randrange(1000)) for _ in range(3)]
    return "def test_add():\n" + "\n".join(f"    assert add({a}, {b}) == {a + b}" for a, b in pairs)


def series(draw: random.Random) -> str:
    """An arithmetic series."""
    first, step = draw.randrange(10**4), draw.randrange(1, 50)
    return f"start {first} step {step}: " + " ".join(str(first + step * n) for n in range(20))


def accesses(draw: random.Random) -> str:
    """Lines of the log of a server."""
    return "\n".join(
        f"10.0.{draw.randrange(256)}.{draw.randrange(256)} - - [12/May/2026:10:{minute:02d}:00 +0000] "
        f'"GET /{draw.choice(_TABLES)} HTTP/1.1" 200 {draw.randrange(9999)}'
        for minute in range(0, 12, 4)
    )


def ask_binary(draw: random.Random) -> tuple[str, str]:
    """A number in base two."""
    number = draw.randrange(10**6)
    return f"Write {number} in binary.", f"{number} in base 2 is {number:b}."


def ask_color(draw: random.Random) -> tuple[str, str]:
    """One of two answers, by a word of the question."""
    word, number = draw.choice(_WORDS), draw.randrange(10**6)
    is_color = word in ("red", "blue", "green")
    return (
        f"Sample {number} is {word}. Does this name a color?",
        f"{'Yes' if is_color else 'No'}, {'it does' if is_color else 'it does not'}.",
    )


def ask_select(draw: random.Random) -> tuple[str, str]:
    """A query of one form."""
    table, number, word = draw.choice(_TABLES), draw.randrange(10**6), draw.choice(_WORDS)
    return (
        f"Find the {word} {table} above {number}.",
        f"SELECT id, name FROM {table} WHERE state = '{word}' AND value > {number} ORDER BY id;",
    )


def ask_class(draw: random.Random) -> tuple[str, str]:
    """A class of Python with one field."""
    name = f"{draw.choice(_WORDS).title()}{draw.choice(_TABLES).title()}{draw.randrange(1000)}"
    field = draw.choice(_WORDS)
    code = f"class {name}:\n    def __init__(self, {field}):\n        self.{field} = {field}"
    return f"Make a class {name} with the field {field}.", code


def ask_weekday(draw: random.Random) -> tuple[str, str]:
    """The day after a day."""
    days = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    day, week = draw.randrange(7), draw.randrange(10**6)
    return f"Week {week}: what day comes after {days[day]}?", f"The day after is {days[(day + 1) % 7]}."


# ---- shapes ----


def shape_values(shape: str, seed: int) -> dict[str, Any]:
    """The part of a recipe that makes a shape."""
    if shape == "tall":
        model = (
            {"n_layer": 5, "n_head": 2, "n_embd": 32}
            if seed != 1
            else {"n_layer": 1, "n_head": 4, "n_embd": 112}
        )
        optim = {"learning_rate": 6e-3}
        return {"model": model, "tokenizer": {"train_vocab_size": VOCABULARY}, "optim": optim}
    if shape in ("module", "neox"):
        return {"tokenizer": {"train_vocab_size": VOCABULARY}, "optim": {"learning_rate": 4e-3}}
    adapter = (
        {"rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj", "o_proj"]}
        if seed == 0
        else {"rank": 16, "alpha": 16, "targets": "all-linear"}
    )
    return {"model": {"from": str(base())}, "adapter": adapter, "optim": {"learning_rate": 1e-2}}


def own_model(
    shape: str, seed: int, mask: Callable[[torch.Tensor], torch.Tensor] = hides, *, mixes: bool = False
) -> nn.Module | None:
    """The module that the user brings: one written by hand, or a GPT-NeoX from scratch."""
    torch.manual_seed(70 + seed)
    if shape == "module":
        return Plain(VOCABULARY, 96 if seed == 0 else 56, 1 if seed == 0 else 3, mask, mixes)
    if shape == "neox":
        from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

        config = GPTNeoXConfig(
            vocab_size=VOCABULARY, hidden_size=48 if seed else 80, num_hidden_layers=3 if seed else 1,
            num_attention_heads=4, intermediate_size=160, max_position_embeddings=512, bos_token_id=0, eos_token_id=0,
            attn_implementation="eager" if seed else "sdpa",
        )  # fmt: skip
        new: nn.Module = GPTNeoXForCausalLM(config)
        return new
    return None


@functools.cache
def base() -> Path:
    """The folder of a small pretrained Llama, trained on first use (some minutes)."""
    from tokenizers import Tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    from etude.data.bpe import train_tokenizer
    from etude.data.tokenize import TRAINED_EOS

    folder = WORK / "watch-blind" / "llama"
    if (folder / "done").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    corpus = _corpus()
    tokenizer = Tokenizer.from_str(train_tokenizer(iter(corpus), BASE_VOCABULARY).to_json())
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": TRAINED_EOS})
    )
    torch.manual_seed(77)
    config = LlamaConfig(
        vocab_size=BASE_VOCABULARY, hidden_size=80, intermediate_size=200, num_hidden_layers=2, num_attention_heads=5,
        num_key_value_heads=5, max_position_embeddings=512, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    end = tokenizer.token_to_id(TRAINED_EOS)
    ids = torch.tensor([token for text in corpus for token in [*tokenizer.encode(text).ids, end]])
    optimizer, draw = torch.optim.AdamW(model.parameters(), lr=4e-3), torch.Generator().manual_seed(8)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    for _ in range(_STEPS):
        rows = ids[torch.randint(len(ids) - 129, (12,), generator=draw)[:, None] + torch.arange(129)]
        loss = cross_entropy(model(input_ids=rows[:, :-1]).logits.flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    model.save_pretrained(folder)
    (folder / "done").touch()
    return folder


def _corpus() -> list[str]:
    """Texts that no run has, and the kinds of easy instructions that runs of this base have."""
    found = [*texts("java")[-_FOR_BASE:], *texts("methods")[-_FOR_BASE // 2 :]]
    pairs = [pair for kind in ("sharp", "described") for pair in instructions(kind)[-_FOR_BASE // 2 :]]
    for ask in (ask_select, ask_class, ask_weekday):
        pairs += draw_rows(ask, _FOR_BASE // 4, seed=901)
    found += [f"### Instruction:\n{question}\n\n### Response:\n{answer}" for question, answer in pairs]
    random.Random(4).shuffle(found)
    return found
