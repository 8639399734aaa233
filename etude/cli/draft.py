"""The text of a recipe for fine-tuning, fitted to the data, the model and the machine."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from etude.cli.fields import Fields
from etude.recipe.rates import usual_rate
from etude.text import one_line, plural

if TYPE_CHECKING:
    from etude.plan import Plan

_LEAST_STEPS, _MOST_EPOCHS = 30, 10  # few rows are read more than three times, but not by heart
_SHORT_RUN = 100
_EVALUATION_SHARE = 0.15  # by assumed costs, so that it is a fifth at most where they are too low
_SHOWN_LABELS, _RARE = 8, 5  # a label with a fifth of the rows of another is a rare one
_NO_MODEL = "not on this machine yet: a folder, or a hub id"


class _Way(NamedTuple):
    """A way to evaluate: so many times an epoch (None: at the end only), texts answered and their tokens."""

    part: int | None
    answers: int = 0
    tokens: int | None = None  # None: as long as targets are


# From often to seldom; the first that keeps within the share is taken.
_WAYS = {
    "causal": [
        *(_Way(part, 8, tokens) for part, tokens in ((2, 256), (1, 256), (1, 128), (1, 64))),
        *(_Way(None, 8, tokens) for tokens in (64, 32, 16, 8)),
    ],
    "classification": [_Way(2), _Way(1), _Way(None)],
    "seq2seq": [
        *(_Way(part, answers) for part, answers in ((2, 200), (1, 200), (1, 100), (1, 50), (1, 25))),
        *(_Way(None, answers) for answers in (100, 50, 25)),
    ],
}  # fmt: skip
_RECIPE = """\
# {rows} ({format}); the usual one has {usual}, the longest {longest:,} ({counted}).
# For {device} with {memory} GB and {cores}; `etude check {file} --deep` says what it comes to.
name = {name}

[model]
from = {model}
# {size}
{dropout}{adapter}
[[data.train]]
path = {path}
{fields}
{held_out}{clean}[train]
objective = "{objective}"
epochs = {epochs:<4}                      # of {per_epoch} each
seq_len = {seq_len:<6}                   # {fit}
{target_len}global_batch_size = {batch}
activation_checkpointing = {tight}   # true: less memory, a third more time

[optim]
{rate}

[schedule]
warmup_steps = {warmup}

[evaluate]
every_steps = {every:<4}                 # {often}
{metric}patience = 3                       # so many without improvement end the run; the best is kept
{answers}{records}"""
_ADAPTER = """
[adapter]                          # leave the section out to train all weights
rank = {rank:<4}                        # more can learn more, also by heart
alpha = {alpha}
targets = {targets}
"""
_DROPOUT = "dropout = 0.1                      # as such models were trained\n"
_BLEU = 'metric = "bleu"                    # of the answers; or chrf, exact_match, loss\n'
_ANSWERS = """\
answers = {answers:<4}                     # {prompts} answered each time, and judged
answer_tokens = {tokens:<4}               # of each; keeps evaluations near a fifth of the time
"""
_TARGET_LEN = "target_len = {:<6}                # tokens of a target\n"
_RECORDS = """
[records]
log_every_steps = 1                # the run is short
"""

_HELD_OUT = """\
[[data.validation]]                # {rows}; runs that hold out the same rows compare
path = {path}
{fields}
"""

_CLEAN = """\
[data.clean]
undecodable = "drop"               # {files}, binary or not UTF-8; "off" refuses them

"""


@dataclass(frozen=True)
class LabelCounts:
    """The labels of the rows in their order, and the rows that each has; multi: a row may have several."""

    counts: dict[str, int]
    multi: bool
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        named = [f"{one_line(name, 40)} in {rows:,}" for name, rows in self.counts.items()][:_SHOWN_LABELS]
        more = len(self.counts) - len(named)
        names = ", ".join(named) + (f" and {more:,} more" if more else "")
        per_row = "several or none" if self.multi else "one"
        return f"{plural(len(self.counts), 'label')}, {per_row} a row: {names}"

    @property
    def has_rare(self) -> bool:
        """True if a label has far fewer rows than another."""
        return _RARE * min(self.counts.values()) <= max(self.counts.values())


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The data, the model and the machine that a recipe should fit.

    objective the kind of training
    fields    those that are read; none where rows are instructions or texts
    unread    columns of the rows, and `left_out` files of a folder, that nothing reads
    tokens    of each of the first rows, ascending, but for targets; `is_guess` if from bytes, for want of a
              tokenizer
    written   tokens of their targets, ascending, for seq2seq
    weights   parameters of the model, `context` its tokens; None if it is not there, and `problem` why
    targets   layers that get an adapter; None where all weights are trained
    is_named  true for a classifier, whose labels keep their order
    base      model.from: a folder or a hub id; `title` names it
    memory    bytes
    """

    base: str
    title: str

    objective: str
    fields: Fields
    format: str
    rows: int
    unread: list[str]
    tokens: list[int]
    written: list[int]
    labels: LabelCounts | None
    is_guess: bool
    weights: int | None
    context: int | None
    targets: str | list[str] | None
    is_named: bool
    problem: str | None
    left_out: list[str]
    device: str
    memory: int
    cores: int

    @property
    def usual(self) -> int:
        """Tokens of the row in the middle."""
        return self.tokens[len(self.tokens) // 2]


def recipe_text(
    data: Path,
    out: Path,
    facts: Facts,
    validation: tuple[int, Path] | None = None,
    plan: "Plan | None" = None,
) -> str:
    """The recipe as TOML, its values chosen from what was found out.

    validation: number of the rows to hold out, and their file. plan: that of the same recipe, by which
    numbers are exact.
    """
    batch = next((size for size in (32, 16, 8) if facts.rows >= 50 * size), 4)
    guessed = -(-facts.rows * (100 if validation else 95) // 100 // batch)
    per_epoch = plan.steps_per_epoch if plan else max(guessed, 1)
    epochs = min(max(3, -(-_LEAST_STEPS // per_epoch)), _MOST_EPOCHS)
    longest_target = min(_room(facts.written), facts.context or 2**24)
    every, way = _choose_evaluation(plan, facts.objective, epochs * per_epoch, per_epoch, longest_target)
    seq_len = min(_room(facts.tokens), facts.context or 2**24)
    given = f"{facts.title}-{data.name.partition('.')[0]}".lower()
    name = re.sub(r"[^a-z0-9._-]+", "-", given).strip("-._")[:64] or "my-run"
    # Frozen weights take 2 bytes each, others 16; if they fill a third of the memory, activations need care.
    taken = (2 if facts.targets else 16) * (facts.weights or 0)
    size = f"{facts.weights:,} parameters" if facts.weights else _NO_MODEL
    fields = "".join(f"{line}\n" for line in _field_lines(facts))
    return _RECIPE.format(
        rows=plural(facts.rows, "row"), format=facts.format, usual=plural(facts.usual, "token"),
        longest=facts.tokens[-1], counted="guessed from bytes" if facts.is_guess else "counted",
        device=facts.device, cores=plural(facts.cores, "core"), memory=round(facts.memory / 1e9),
        file=_quoted(out.name)[1:-1], name=_quoted(name), model=_quoted(facts.base), size=size,
        dropout="" if facts.targets else _DROPOUT, adapter=_adapter_text(facts), epochs=epochs,
        per_epoch=("" if plan else "about ") + plural(per_epoch, "step"),
        path=_path_from(out, data), fields=fields,
        held_out=_held_out_text(*validation, out, facts) if validation else "",
        clean=_CLEAN.format(files=plural(len(facts.left_out), "file")) if facts.left_out else "",
        objective=facts.objective,
        seq_len=seq_len, fit=_describe_fit(facts, seq_len, plan),
        target_len=_TARGET_LEN.format(longest_target) if facts.written else "",
        batch=batch, tight=str(3 * taken > facts.memory).lower(), rate=_rate_text(facts),
        warmup=min(epochs * per_epoch // 30, 100), every=every,
        often=_describe_every(every, per_epoch, epochs), metric=_metric_text(facts),
        answers=_answers_text(facts, way, longest_target, plan),
        records=_RECORDS if epochs * per_epoch < _SHORT_RUN else "",
    )  # fmt: skip


def _room(lengths: list[int]) -> int:
    """Tokens that 99 in 100 rows fit into, in steps of 64."""
    if not lengths:
        return 0
    most = lengths[min(99 * len(lengths) // 100, len(lengths) - 1)]
    return max(-(-most // 64) * 64, 64)


def _field_lines(facts: Facts) -> Iterator[str]:
    for key, name in facts.fields.values.items():
        line = f"{key} = {_quoted(name)}"
        yield f"{line:<34} # guessed by its name" if key in facts.fields.guessed else line
    if facts.labels:
        yield f"# {facts.labels}"
        if facts.labels.has_rare:
            yield '# [loss] class_weights = "balanced" gives rare labels more weight'


def _adapter_text(facts: Facts) -> str:
    if facts.targets is None:
        return ""
    rank = 16 if facts.rows >= 500 else 8
    return _ADAPTER.format(rank=rank, alpha=2 * rank, targets=json.dumps(facts.targets))


def _rate_text(facts: Facts) -> str:
    rate = usual_rate(facts.objective, adapter=facts.targets is not None)
    why = "LoRA; all weights want a tenth of it" if facts.targets else "training all weights"
    return f"learning_rate = {f'{rate:.0e}'.replace('e-0', 'e-')}               # usual for {why}"


def _metric_text(facts: Facts) -> str:
    """The line of the metric; validation loss, the default, needs none."""
    if not facts.labels:
        return _BLEU if facts.written else ""
    second = one_line(list(facts.labels.counts)[1], 40)
    of = f"of label {second}" if len(facts.labels.counts) == 2 else "mean over the labels"
    if facts.is_named:
        of = "of the second label of two, else the mean over the labels"
    return f'metric = "f1"                      # {of}\n'


def _answers_text(facts: Facts, way: _Way, target: int, plan: "Plan | None") -> str:
    if not way.answers or facts.format == "text":
        return ""
    held_out = len(plan.corpus.validation or ()) if plan else way.answers
    answers = min(way.answers, max(held_out, 1))
    prompts = "sources" if facts.written else "instructions"
    return _ANSWERS.format(answers=answers, prompts=prompts, tokens=way.tokens or target)


def _choose_evaluation(
    plan: "Plan | None", objective: str, steps: int, per_epoch: int, target: int
) -> tuple[int, _Way]:
    """Steps between evaluations and their way, so that they take a fifth of the time at most.

    The scores at the end, which cannot be had for less, are not among them.
    """
    from etude.plan.forecast import assume_costs, evaluations_seconds, forecast

    each_epoch = [way for way in _WAYS[objective] if way.part == 1]
    if plan is None:
        return per_epoch, each_epoch[len(each_epoch) // 2]
    costs = assume_costs(plan, 1.0, 0)
    for way in _WAYS[objective]:
        every = max(per_epoch // way.part, 1) if way.part else steps
        asked = {"every_steps": every, "answers": way.answers, "answer_tokens": way.tokens or target or 1}
        evaluation = plan.recipe.evaluate.model_copy(update=asked)
        recipe = plan.recipe.model_copy(update={"evaluate": evaluation})
        asking = replace(plan, recipe=recipe, steps=steps)
        if evaluations_seconds(asking, costs) <= _EVALUATION_SHARE * forecast(asking, costs).seconds:
            break
    return every, way


def _describe_every(every: int, per_epoch: int, epochs: int) -> str:
    if every == epochs * per_epoch:
        return "before training and at its end"
    if every == per_epoch:
        return "each epoch"
    return "half an epoch" if 2 * every == per_epoch else "about half an epoch"


def _describe_fit(facts: Facts, seq_len: int, plan: "Plan | None") -> str:
    """Rows that fit into a sample: of those of training by the plan, else of those that were looked at."""
    if facts.format == "text":
        return "texts are read end to end, in pieces of so many tokens"
    count, rows = len(facts.tokens), "rows"
    fit = sum(size <= seq_len for size in facts.tokens)
    if plan:
        counts, rows = plan.corpus.summary["train"], "training rows"
        count = len(plan.train) + (counts.get("dropped") or 0)
        fit = count - sum(counts.get(key) or 0 for key in ("truncated", "cut_away", "dropped"))
    if fit == count:
        return f"the only {rows[:-1]} fits" if count == 1 else f"all {count:,} {rows} fit"
    return f"{fit:,} of {count:,} {rows} fit; longer ones are cut, and counted"


def _held_out_text(rows: int, validation: Path, out: Path, facts: Facts) -> str:
    fields = "".join(f"{key} = {_quoted(name)}\n" for key, name in facts.fields.values.items())
    return _HELD_OUT.format(rows=plural(rows, "row"), path=_path_from(out, validation), fields=fields)


def _path_from(out: Path, path: Path) -> str:
    """A path as the recipe in `out` names it."""
    here, path = out.absolute().parent, path.absolute()
    return _quoted(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")  # plain in JSON, but not in TOML
