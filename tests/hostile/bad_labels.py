"""Labels of rows, and of the models that a classification starts from, that cannot be used."""

import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.case import Case

RECIPE = """name = "labels"
{model}
[[data.train]]
path = "rows.jsonl"
label = "label"
{pair}
[data]
validation = "none"
[train]
objective = "classification"
steps = 1
seq_len = 16
global_batch_size = 4
device = "cpu"
"""
SCRATCH = (
    '[model]\nkind = "encoder"\nn_layer = 1\nn_embd = 16\nn_head = 2\n[tokenizer]\ntrain_vocab_size = 300'
)
GOOD: list[Any] = ["a", "b"] * 6
Make = Callable[[Path], list[str]]


def rows(*labels: Any, pair: list[Any] | None = None) -> Make:
    """Rows with these labels, and then some good ones."""

    def make(folder: Path) -> list[str]:
        seconds = [{} if each is ... else {"other": each} for each in pair] if pair else [{}] * len(labels)
        lines = [
            json.dumps({"text": f"text {number}", **({} if label is ... else {"label": label}), **second})
            for number, (label, second) in enumerate(zip(labels, seconds, strict=True))
        ]
        (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
        (folder / "recipe.toml").write_text(
            RECIPE.format(model=SCRATCH, pair='pair = "other"' if pair else "")
        )
        return ["check", "recipe.toml", "--deep"]

    return make


@functools.cache
def classifier() -> Path:
    """A RoBERTa with the head of a classifier for two labels."""
    from transformers import AutoModelForSequenceClassification

    from tests.bases import write_encoder

    folder = write_encoder(Path(tempfile.mkdtemp()) / "model")
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2).save_pretrained(folder)
    return folder


def model(**config: Any) -> Make:
    """A classifier whose config.json has these keys besides, and good rows."""

    def make(folder: Path) -> list[str]:
        rows(*GOOD)(folder)
        shutil.copytree(classifier(), folder / "model")
        values = json.loads((folder / "model" / "config.json").read_text())
        (folder / "model" / "config.json").write_text(json.dumps(values | config))
        (folder / "recipe.toml").write_text(RECIPE.format(model='[model]\nfrom = "./model"', pair=""))
        return ["check", "recipe.toml", "--deep"]

    return make


NAMES = {"0": "a", "1": "b"}
CASES = [
    Case(name="a label that is null", make=rows(None, *GOOD), says="rows.jsonl:1: label is null"),
    Case(name="a row without a label", make=rows(..., *GOOD), says="rows.jsonl:1 has no label field 'label'"),
    Case(name="a label that is a fraction", make=rows(0.5, *GOOD), says="label is 0.5; expected a name or whole"),
    Case(name="a label with a fraction of nothing", make=rows(1.0, *GOOD), says="label is 1.0; .*; write 1 .in pandas"),
    Case(name="a label that is an object", make=rows({"a": 1}, *GOOD), says="rows.jsonl:1: label is"),
    Case(name="a label of blanks", make=rows("  ", *GOOD), says="rows.jsonl:1: label is"),
    Case(name="a label in a list of lists", make=rows([["a"]], *GOOD), says="rows.jsonl:1: label is"),
    Case(name="a label with a terminal escape", make=rows("\x1b[31ma", *GOOD), says=r"'\\x1b\[31ma' holds a control"),
    Case(name="a label with a line break", make=rows("a\nb", *GOOD), says=r"'a\\nb' holds a control character"),
    Case(name="a label of 10,000 characters", make=rows("x" * 10_000, *GOOD), says="has 10,000 characters"),
    Case(name="a label that is a list as text", make=rows("[1, 0, 1]", *GOOD), says="text that looks like a list"),
    Case(name="a label of 0 and 1 as text", make=rows("0 1 1", *GOOD), says="text that looks like a list"),
    Case(name="soft labels", make=rows([0.3, 0.7], *GOOD), says="rows.jsonl:1: label is"),
    Case(name="vectors of two lengths", make=rows([1, 0, 1], [1, 0], [0, 0, 1]), says="is no set of classes"),
    Case(name="a vector among names", make=rows([1, 0, 1], *GOOD), says="rows.jsonl:1: label is .* is no set"),
    Case(name="one label in all rows", make=rows(*["a"] * 8), says=r"all training rows have one label \(a\)"),
    Case(name="one set in all rows", make=rows(*[["a", "b"]] * 8), says=r"all training rows have one label \(a, b\)"),
    Case(name="no label in any row", make=rows(*[[]] * 8), says=r"all training rows have one label \(none\)"),
    Case(name="a label for each row", make=rows(*range(1200)), says="has 1,200 names in 1,200 training rows"),
    Case(name="a pair whose second text is null", make=rows("a", "b", pair=["x", None]), says="rows.jsonl:2: 'other'"),
    Case(name="a pair without a second text", make=rows("a", "b", pair=["x", ...]), says="rows.jsonl:2: 'other'"),
    Case(name="id2label with a number", make=model(id2label={"0": 5, "1": "b"}), says="names label '0' 5"),
    Case(name="id2label that is a list", make=model(id2label=["a", "b"]), says="id2label is .*expected an object"),
    Case(name="id2label that nests", make=model(id2label={"0": {"a": "b"}, "1": "b"}), says="names label '0'"),
    Case(name="id2label with a negative key", make=model(id2label={"-1": "a", "0": "b"}), says="label number '-1'"),
    Case(name="id2label with a gap", make=model(id2label={"0": "a", "2": "b"}), says="label number '2'"),
    Case(name="id2label with a name twice", make=model(id2label={"0": "a", "1": "a"}), says="the same name twice"),
    Case(
        name="id2label unlike label2id", make=model(id2label=NAMES, label2id={"a": 1, "b": 0}), says="label2id disagree"
    ),
    Case(
        name="200,000 labels",
        make=model(id2label={str(number): str(number) for number in range(200_000)}, label2id=None),
        says="id2label has 200,000 entries",
        quick=False,
    ),
    Case(name="id2label of more labels than the head", make=model(id2label=NAMES | {"2": "c"}, label2id=None),
         says=r"classifier.out_proj.(weight|bias) is \[2(, 32)?\], but config.json says \[3"),
]  # fmt: skip
