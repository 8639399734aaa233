"""The strategy of a second version of a recipe: the problem, the changes, and signs that they help."""

import math
import shlex
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from etude.recipe.load import flatten
from etude.recipe.schema import Recipe
from etude.recipe.toml import toml_text
from etude.records.events import Evaluation, Finding, Step
from etude.report.findings import cause_text, where
from etude.report.history import History, metric_value
from etude.report.markdown import code, prose, table
from etude.report.summary import summarize_history
from etude.report.wording import at_step, duration, metric_title, short
from etude.text import plural

_MOST_TOLD = 50  # findings


def write_strategy(
    history: History, recipe: Recipe, findings: Sequence[Finding], taken: Mapping[str, Finding], file: Path
) -> str:
    """Markdown on the second version of the recipe of a run.

    findings: of the watch, the worst first; taken: the finding behind each changed key; file: of the recipe.
    """
    summary = summarize_history(history)
    ordered = sorted(findings, key=lambda each: each not in taken.values())  # those that are acted on first
    parts: list[tuple[str, Iterator[str]]] = [
        ("## Problem", _problem(summary["verdict"], ordered)),
        ("## Changes", _changes(history.run.recipe, recipe, taken)),
        ("## Timeline", _timeline(history, recipe)),
        ("## Good signs", _good_signs(history, recipe)),
        ("## Bad signs", _bad_signs(ordered)),
        ("## Success", _success(history, recipe, taken)),
        ("## Next steps", _next_steps(history.run.name, recipe, file)),
    ]
    sections = [(heading, [*lines]) for heading, lines in parts]
    title = f"Strategy: {prose(recipe.name)} after run {prose(history.run.name)}"
    blocks = [f"# {title}", *(block for heading, lines in sections if lines for block in (heading, *lines))]
    return "\n\n".join(blocks) + "\n"


def _problem(verdict: Sequence[str], findings: Sequence[Finding]) -> Iterator[str]:
    lines = []
    for finding in findings[:_MOST_TOLD]:
        causes = f" {text}" if (text := cause_text(finding)) else ""
        open_ = f" Not tested: {prose('; '.join(finding.not_tested))}." if finding.not_tested else ""
        what = f"**{prose(finding.what)}** ({where(finding)}): {prose(finding.evidence)}."
        to_do = f" To do: {prose(finding.advice)}." if finding.advice else ""
        lines.append(f"- {what}{causes}{to_do}{open_}")
    if (more := len(findings) - _MOST_TOLD) > 0:
        lines.append(f"- and {more:,} more in the journal")
    yield "\n".join(lines)
    yield f"The run as a whole: {prose(' '.join(verdict))}"


def _changes(before: Recipe, after: Recipe, taken: Mapping[str, Finding]) -> Iterator[str]:
    old, new = flatten(before.to_dict()), flatten(after.to_dict())
    rows = [
        (
            code(key), code(_shown(old.get(key))), code(_shown(new.get(key))),
            prose(_effect(key, old.get(key), new.get(key))),
        )
        for key, finding in taken.items()
    ]  # fmt: skip
    yield table(("key", "V1", "V2", "expected effect"), rows)
    if sources := dict.fromkeys(finding.source for finding in taken.values() if finding.source):
        yield f"Sources: {prose('; '.join(sources))}."


def _effect(key: str, old: object, new: object) -> str:
    """The effect that a change should have, in terms of the figures of the run."""
    if key == "optim.learning_rate" and isinstance(old, float) and isinstance(new, float):
        return _LOWER_RATE if new < old else _HIGHER_RATE
    return EFFECTS[key]


_LOWER_RATE = "smaller updates: the loss falls more slowly at first, and without a jump"
_HIGHER_RATE = "larger updates: the loss falls faster"
EFFECTS = {
    "optim.learning_rate": _LOWER_RATE,
    "train.max_grad_norm": "a single batch moves the weights by a bounded step",
    "train.epochs": "training ends where validation was best; the gap to training loss stays small",
    "train.steps": "training ends where validation was best; the gap to training loss stays small",
    "train.precision": "activations and gradients stay within range, so that no step is skipped",
    "train.seq_len": "fewer samples are cut before their end",
    "train.target_len": "fewer targets are cut before their end",
    "optim.weight_decay": "the weights keep what they learn",
    "adapter.alpha": "the adapter moves the model by what it learns",
    "adapter.dropout": "training loss comes down to validation loss, and both fall faster",
    "model.dropout": "training loss comes down to validation loss, and both fall faster",
    "loss.label_smoothing": "the truth is most of the target; the loss falls below that of a guess",
    "schedule.min_lr_ratio": "the learning rate stays above zero up to the last step",
    "schedule.warmup_steps": "the first updates are small, and the loss does not jump",
    "evaluate.patience": "training ends once validation no longer gets better, beyond its noise",
    "evaluate.min_improvement": "a gain counts where it is above the noise of the evaluation",
    "data.deduplicate": "no row is seen twice in an epoch; training loss tells of new rows",
    "data.leakage.action": "validation holds unseen rows alone; its loss rises to what it is worth",
}


def _shown(value: object) -> str:
    return "not set" if value is None else toml_text(value)


def _timeline(history: History, recipe: Recipe) -> Iterator[str]:
    """Times of the second version, at the speed that was measured in the first."""
    steps = [step for step in history.events(Step) if step.seconds > 0]
    if not steps:
        return
    a_step = statistics.median(step.seconds for step in steps)
    evaluations = [each.seconds for each in history.events(Evaluation)]
    a_check = statistics.fmean(evaluations) if evaluations else 0.0
    per_epoch, planned = _steps_of(history, recipe)
    every = recipe.evaluate.every_steps or (recipe.evaluate.every_epochs or 1) * per_epoch
    checks = planned // every if evaluations else 0
    rows = [
        ("an epoch", f"{per_epoch:,}", duration(per_epoch * a_step)),
        ("between evaluations", f"{every:,}", duration(every * a_step + a_check)),
        ("in all", f"{planned:,}", duration(planned * a_step + checks * a_check)),
    ]
    yield table(("", "steps", "time"), rows)
    step_time = f"{1000 * a_step:.0f} ms" if a_step < 1 else duration(a_step)
    yield f"At {step_time} a step and {duration(a_check)} an evaluation, as measured in the first run."
    if per_epoch < (before := history.attempts[-1].steps_per_epoch):
        yield (
            f"Without the rows that repeat an epoch has about {plural(per_epoch, 'step')}, where V1 had "
            f"{before:,}. Fewer steps learn less, whatever the rows are worth: compare at the same step, or "
            "raise `train.epochs` for as many steps."
        )


def _steps_of(history: History, recipe: Recipe) -> tuple[int, int]:
    """Steps of an epoch and of all of the second version, without the rows that it leaves out as copies."""
    per_epoch, how = history.attempts[-1].steps_per_epoch, recipe.data.deduplicate
    if how != history.run.recipe.data.deduplicate:
        counted = history.data.summary.get("duplicates", []) if history.data else []
        shares = [each.get("share", 0) for each in counted if how == "near" or each.get("kind") == "exact"]
        per_epoch = max(math.ceil(round(per_epoch * (1 - sum(shares)), 6)), 1)
    return per_epoch, recipe.train.steps or math.ceil((recipe.train.epochs or 1) * per_epoch)


def _to_beat(history: History, recipe: Recipe) -> Evaluation | None:
    """The evaluation of the first version that the second is to better: the best one that it comes to."""
    if history.is_best_worse:
        return history.evaluations[0]
    _, planned = _steps_of(history, recipe)
    if history.best is None or history.best.step <= planned:
        return history.best
    return next((each for each in reversed(history.evaluations) if each.step <= planned), None)


def _good_signs(history: History, recipe: Recipe) -> Iterator[str]:
    best = _to_beat(history, recipe)
    losses = [step.loss for step in history.steps if math.isfinite(step.loss)]
    signs = []
    if losses:
        signs.append(f"the training loss falls step by step from about {short(losses[0])}, without a jump")
    if best is not None and math.isfinite(best.loss):
        by = f"by step {best.step:,}" if best.step else "of the model before training"
        signs.append(f"the validation loss comes below {short(best.loss)} {by}, and stays there")
    if signs:
        yield "\n".join(f"- {prose(sign)}" for sign in signs)


def _bad_signs(findings: Sequence[Finding]) -> Iterator[str]:
    first: dict[str, Finding] = {}
    for finding in findings[:_MOST_TOLD]:
        first.setdefault(finding.kind, finding)
    lines = [f"- again: {prose(each.what)} (in V1 {prose(each.evidence)})" for each in first.values()]
    if lines:
        yield "\n".join(lines)


def _success(history: History, recipe: Recipe, taken: Mapping[str, Finding]) -> Iterator[str]:
    kinds = list(dict.fromkeys(code(finding.kind) for finding in taken.values()))
    lines = [f"the watch finds no {' and no '.join(kinds)}"]
    best = _to_beat(history, recipe)
    if best is not None:
        name, value = metric_title(str(history.metric)), metric_value(best, str(history.metric))
        at = at_step(value, best.step) if best.step else f"{short(value)} before training"
        lines.append(f"{prose(name)} better than {prose(at)}, beyond the noise of the rows")
    lines += [prose(str(criterion)) for criterion in recipe.criteria]
    yield "\n".join(f"- {line}" for line in lines)


def _next_steps(name: str, recipe: Recipe, file: Path) -> Iterator[str]:
    named = shlex.quote(str(file))
    commands = (f"check {named} --deep", f"train {named}", f"compare {name} {recipe.name}")
    yield "\n".join(f"- {code(f'etude {command}')}" for command in commands)
