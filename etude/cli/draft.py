"""The text of a recipe for fine-tuning, fitted to the data, the model and the machine."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from etude.text import plural

if TYPE_CHECKING:
    from etude.plan import Plan

_LEAST_STEPS, _MOST_EPOCHS = 30, 10  # few rows are read more than three times, but not by heart
_SHORT_RUN = 100
_EVALUATION_SHARE = 0.15  # by assumed costs, so that it is a fifth at most where they are too low
# From often to seldom: parts of an epoch, None for the end only; and tokens of an answer.
_WAYS = ((2, 256), (1, 256), (1, 128), (1, 64), (None, 64), (None, 32), (None, 16), (None, 8))
_NO_MODEL = "not on this machine yet: a folder, or a hub id"
_RECIPE = """\
# {rows} ({format}); the usual one has {usual}, the longest {longest:,} ({counted}).
# For {device} with {memory} GB and {cores}; `etude check {file} --deep` says what it comes to.
name = {name}

[model]
from = {model}
# {size}

[adapter]                          # leave the section out to train all weights
rank = {rank:<4}                        # more can learn more, also by heart
alpha = {alpha}
targets = {targets}

[[data.train]]
path = {path}

{held_out}{clean}[train]
epochs = {epochs:<4}                      # of {per_epoch} each
seq_len = {seq_len:<6}                   # {fit}
global_batch_size = {batch}
activation_checkpointing = {tight}   # true: less memory, a third more time

[optim]
learning_rate = 2e-4               # usual for LoRA; all weights want a tenth of it

[schedule]
warmup_steps = {warmup}

[evaluate]
every_steps = {every:<4}                 # {often}
patience = 3                       # so many without improvement end the run; the best is kept
answers = {answers:<4}                     # instructions answered each time, and judged
answer_tokens = {answer_tokens:<4}               # of each; keeps evaluations near a fifth of the time
{records}"""

_RECORDS = """
[records]
log_every_steps = 1                # the run is short
"""

_HELD_OUT = """\
[[data.validation]]                # {rows}; runs that hold out the same rows compare
path = {path}

"""

_CLEAN = """\
[data.clean]
undecodable = "drop"               # {files}, binary or not UTF-8; "off" refuses them

"""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The data, the model and the machine that a recipe should fit.

    unread   columns of the rows that nothing reads
    tokens   of each of the first rows, ascending; `is_guess` if from bytes, for want of a tokenizer
    weights  parameters of the model, `context` its tokens; None if it is not there, and `problem` why
    left_out files of a folder that are no texts
    targets  layers that get an adapter
    base     model.from: a folder or a hub id; `title` names it
    memory   bytes
    """

    base: str
    title: str

    format: str
    rows: int
    unread: list[str]
    tokens: list[int]
    is_guess: bool
    weights: int | None
    context: int | None
    targets: str | list[str]
    problem: str | None
    left_out: list[str]
    device: str
    memory: int
    cores: int

    @property
    def usual(self) -> int:
        """Tokens of the row in the middle."""
        return self.tokens[len(self.tokens) // 2]


def recipe_text(data: Path, out: Path, facts: Facts, held_out: str = "", plan: "Plan | None" = None) -> str:
    """The recipe as TOML, its values chosen from what was found out; `held_out` is a section of its own.

    plan: that of the same recipe, by which numbers are exact.
    """
    batch = next((size for size in (32, 16, 8) if facts.rows >= 50 * size), 4)
    guessed = -(-facts.rows * (100 if held_out else 95) // 100 // batch)
    per_epoch = plan.steps_per_epoch if plan else max(guessed, 1)
    epochs = min(max(3, -(-_LEAST_STEPS // per_epoch)), _MOST_EPOCHS)
    every, answer_tokens = _choose_evaluation(plan, epochs * per_epoch, per_epoch)
    most = facts.tokens[min(99 * len(facts.tokens) // 100, len(facts.tokens) - 1)]
    seq_len = min(max(-(-most // 64) * 64, 64), facts.context or 2**24)
    rank = 16 if facts.rows >= 500 else 8
    given = f"{facts.title}-{data.name.partition('.')[0]}".lower()
    name = re.sub(r"[^a-z0-9._-]+", "-", given).strip("-._")[:64] or "my-run"
    # Frozen weights take 2 bytes each; where they fill a third of the memory, activations need care.
    is_tight = facts.weights is not None and 6 * facts.weights > facts.memory
    size = f"{facts.weights:,} parameters" if facts.weights else _NO_MODEL
    return _RECIPE.format(
        rows=plural(facts.rows, "row"), format=facts.format, usual=plural(facts.usual, "token"),
        longest=facts.tokens[-1], counted="guessed from bytes" if facts.is_guess else "counted",
        device=facts.device, cores=plural(facts.cores, "core"), memory=round(facts.memory / 1e9),
        file=_quoted(out.name)[1:-1], name=_quoted(name), model=_quoted(facts.base), size=size,
        rank=rank, alpha=2 * rank, epochs=epochs,
        per_epoch=("" if plan else "about ") + plural(per_epoch, "step"),
        path=_path_from(out, data), held_out=held_out,
        seq_len=seq_len, fit=_describe_fit(facts, seq_len, plan),
        batch=batch, tight=str(is_tight).lower(), warmup=min(epochs * per_epoch // 30, 100),
        every=every, often=_describe_every(every, per_epoch, epochs),
        clean=_CLEAN.format(files=plural(len(facts.left_out), "file")) if facts.left_out else "",
        answers=0 if facts.format == "text" else 8, answer_tokens=answer_tokens,
        records=_RECORDS if epochs * per_epoch < _SHORT_RUN else "", targets=json.dumps(facts.targets),
    )  # fmt: skip


def _choose_evaluation(plan: "Plan | None", steps: int, per_epoch: int) -> tuple[int, int]:
    """Steps between evaluations and tokens of an answer, so that they take a fifth of the time at most."""
    from etude.plan.forecast import assume_costs, forecast

    every, tokens = per_epoch, 128
    for part, tokens in _WAYS if plan else ():
        every = max(per_epoch // part, 1) if part else steps
        assert plan is not None
        evaluation = plan.recipe.evaluate.model_copy(update={"every_steps": every, "answer_tokens": tokens})
        recipe = plan.recipe.model_copy(update={"evaluate": evaluation})
        said = forecast(replace(plan, recipe=recipe, steps=steps), assume_costs(plan, 1.0, 0))
        if said.evaluation_seconds <= _EVALUATION_SHARE * said.seconds:
            break
    return every, tokens


def _describe_every(every: int, per_epoch: int, epochs: int) -> str:
    if every == epochs * per_epoch:
        return "before training and at its end"
    if every == per_epoch:
        return "each epoch"
    return "half an epoch" if 2 * every == per_epoch else "about half an epoch"


def _describe_fit(facts: Facts, seq_len: int, plan: "Plan | None") -> str:
    """The rows that fit into a sample: of all of them by the plan, else of those that were looked at."""
    if facts.format == "text":
        return "texts are read end to end, in pieces of so many tokens"
    count = facts.rows if plan else len(facts.tokens)
    fit = sum(size <= seq_len for size in facts.tokens)
    if plan:
        parts = (plan.corpus.summary.get(use) or {} for use in ("train", "validation"))
        fit = count - sum(
            part.get(key) or 0 for part in parts for key in ("truncated", "cut_away", "dropped")
        )
    if fit == count:
        return "the only row fits" if count == 1 else f"all {count:,} rows fit"
    return f"{fit:,} of {count:,} rows fit; longer ones are cut, and counted"


def held_out_section(rows: int, validation: Path, out: Path) -> str:
    """The section of a recipe that names the rows to hold out."""
    return _HELD_OUT.format(rows=plural(rows, "row"), path=_path_from(out, validation))


def _path_from(out: Path, path: Path) -> str:
    """A path as the recipe in `out` names it."""
    here, path = out.absolute().parent, path.absolute()
    return _quoted(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")  # plain in JSON, but not in TOML
