"""The plan of a sweep as a document: tiers, matrices, settings, shared work, resources."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import prod
from typing import Any

from etude.recipe.settings import is_default, shown_settings
from etude.recipe.toml import toml_text
from etude.report.markdown import code, prose, table
from etude.sweep.grid import Sweep, Trial
from etude.sweep.measure import Measured
from etude.sweep.room import room_parts
from etude.sweep.rungs import foresee_range
from etude.sweep.schema import Range, Search, SweepModel, Tier, axes_of, ranges_of, sizes_of
from etude.sweep.stacks import stack_notes
from etude.sweep.tree import Tree, offers, reasons
from etude.text import plural, rough_duration, rough_size

_SOURCE = re.compile(r"data\.(train|validation|test)\.")


def write_plan(sweep: Sweep, measured: Measured, tree: Tree) -> str:
    """The plan as Markdown."""
    file = sweep.file
    parts = [
        f"# {prose(file.name)}",
        prose(file.purpose),
        _summary(sweep, tree),
        "## Tiers",
        *(part for tier in file.tiers for part in _tier(sweep, tier)),
        "## Settings of all trials",
        _settings(sweep),
        "## Shared work",
        *_shared(sweep, measured, tree),
        *_time(sweep, measured, tree),
        "## Resources",
        prose(" ".join(file.resources.strategy.split())),
        _resources(sweep),
        "## Measures of success",
        "\n".join(f"{number}. {prose(each)}" for number, each in enumerate(file.success, 1)),
        "## Trials",
        _trials(sweep, measured, tree),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def shared_line(tree: Tree) -> str:
    """The work of all trials alone and together, in a sentence."""
    saved = 1 - tree.epochs / tree.epochs_alone
    trunks = f"{plural(len(tree.trunks), 'trial')} of {len(tree.stages):,} begin by themselves"
    alone, epochs = f"{tree.epochs_alone:,.1f}", f"{tree.epochs:,.1f}"
    if not tree.epochs < tree.epochs_alone:
        return f"{alone} epochs of models, each trial trained alone; nothing is shared"
    return f"{epochs} epochs of models in place of {alone} ({100 * saved:.1f} % less); {trunks}"


def shared_notes(measured: Measured) -> list[str]:
    """Sentences on what keeps trials from sharing more, and what another schedule would save."""
    lines = [
        f"{each.text} ({plural(each.groups, 'group')} of trials that differ in their length alone)"
        for each in reasons(measured.planned)
    ]
    for offer in offers(measured.planned):
        setting = ", ".join(f"{key} = {toml_text(value)}" for key, value in offer.changes.items())
        lines.append(
            f"a choice: {setting} needs {offer.epochs:,.1f} epochs; results are then those of that schedule"
        )
    return lines


def grid_text(tier: Tier, model: SweepModel, search: Search | None = None) -> str:
    """The grid of a model in short, as `4 trials: 2 learning_rate x 2 epochs`, with its search."""
    names = [" and ".join(key.rpartition(".")[2] for key in axis.keys) for axis in axes_of(tier, model)]
    if ranges := ranges_of(tier, model):
        names.append(f"of a search of {' and '.join(each.key_.rpartition('.')[2] for each in ranges)}")
    sizes = sizes_of(tier, model, search)
    text = " x ".join(f"{size} {name}" for name, size in zip(names, sizes))
    return f"{plural(prod(sizes), 'trial')}: {text or 'no grid'}"


def seconds_of(measured: Measured, tree: Tree) -> float | None:
    """Forecast seconds of the steps that are made; None if a trial has no forecast."""
    if any(stage.name not in measured.seconds for stage in tree.stages):
        return None
    return sum(stage.own_steps * measured.seconds[stage.name] for stage in tree.stages)


def repeats_count(sweep: Sweep) -> int:
    """The number of trainings of the best again; none where there is no choice between trials."""
    return sweep.file.repeats.seeds if len(sweep.trials) > 1 else 0


def forecast_lines(sweep: Sweep, measured: Measured, tree: Tree) -> list[str]:
    """The forecast of time and memory in words, and whether it is beyond the budget."""
    lines, seconds, budget = [], seconds_of(measured, tree), sweep.file.budget.seconds
    count, halved = repeats_count(sweep), foresee_halving(sweep, measured, tree)
    lines += [_halving_line(sweep, tree, halved["steps"])] if halved else []
    if seconds is not None:
        where = ", ".join(dict.fromkeys(measured.where.values()))
        steps = plural(sum(stage.own_steps for stage in tree.stages), "step")
        if halved:
            low, seconds = halved["seconds"]
            times = " to ".join(dict.fromkeys([rough_duration(low), rough_duration(seconds)]))
            lines.append(f"about {times} of device time ({where})")
        else:
            lines.append(f"about {rough_duration(seconds)} of device time for {steps} ({where})")
        costs = [stage.planned.steps * measured.seconds[stage.name] for stage in tree.stages]
        more = count * max(costs, default=0.0)
        if more:
            lines.append(f"up to {rough_duration(more)} more for {plural(count, 'new seed')} of the best")
        if budget is not None and seconds + more > budget:
            lines.append(
                f"more than the budget of {budget / 3600:,.4g} device hours; the rest is not started"
            )
    if sweep.studies:
        lines.append("values that a search will choose are not known yet; these are drawn at random")
    if measured.rooms:
        room = sum(room_parts(measured.rooms, seeds=repeats_count(sweep)).values())
        lines.append(f"up to {rough_size(room)} on disk, with the checkpoints that all trials keep")
    if needs := measured.memory.values():
        sizes = dict.fromkeys([rough_size(min(needs)), rough_size(max(needs))])
        lines.append(f"{' to '.join(sizes)} of memory a trial")
    return lines


def foresee_halving(sweep: Sweep, measured: Measured, tree: Tree) -> dict[str, tuple[float, float]]:
    """The steps, and seconds where they can be foreseen, of trials that pause at rungs, each as a range.

    Empty for a sweep without rungs.
    """
    halving = sweep.file.halving
    if halving is None:
        return {}
    steps: dict[str, list[list[float]]] = {}
    seconds: dict[str, list[list[float]]] = {}
    for stage in tree.stages:
        ends = [*stage.planned.rungs, stage.planned.steps]
        parts = [float(end - begin) for begin, end in pairwise([0, *ends])]
        rate = measured.seconds.get(stage.name, 0.0)
        steps.setdefault(stage.planned.trial.model, []).append(parts)
        seconds.setdefault(stage.planned.trial.model, []).append([rate * part for part in parts])
    found = {"steps": foresee_range(list(steps.values()), halving.reduction_factor)}
    if seconds_of(measured, tree) is not None:
        found["seconds"] = foresee_range(list(seconds.values()), halving.reduction_factor)
    return found


def _halving_line(sweep: Sweep, tree: Tree, steps: tuple[float, float]) -> str:
    """The rungs of a sweep and the steps that it needs, in a sentence."""
    given = sweep.file.halving
    assert given is not None
    low, high = (f"{round(each):,}" for each in steps)
    rungs = f"{', '.join(f'{rung:,}' for rung in given.rungs)} {given.unit}"
    return (
        f"trials of a model pause at {rungs}, and about one of {given.reduction_factor} goes on: {low} to "
        f"{high} steps in 9 of 10 orders of them, of {tree.steps_alone:,} for all"
    )


def _summary(sweep: Sweep, tree: Tree) -> str:
    counts = [
        str(prod(sizes_of(tier, model, sweep.file.search)))
        for tier in sweep.file.tiers
        for model in tier.models
    ]
    total = f"{' + '.join(counts)} = {len(sweep.trials):,} trials of {plural(len(counts), 'model')}"
    return f"{total}; {shared_line(tree)}."


def _tier(sweep: Sweep, tier: Tier) -> Iterable[str]:
    yield f"### {prose(tier.name)} (priority {tier.priority})"
    yield prose(tier.why)
    rows = [
        [
            prose(model.name),
            code(model.from_) if model.from_ else "",
            _value_count(sizes_of(tier, model, sweep.file.search)),
            prose(model.why),
        ]
        for model in tier.models
    ]
    yield table(["model", "from", "trials", "why"], rows)
    trials = [trial for trial in sweep.trials if trial.tier == tier.name]
    known = {*_common(sweep.trials), *(key for trial in trials for key in trial.values)}
    yield from _own_settings(sweep, "this tier", trials, known)
    known |= _common(trials).keys()
    for model in tier.models:
        mine = [trial for trial in trials if trial.model == model.name]
        yield from _own_settings(sweep, prose(model.name), mine, known)
    yield _matrix(tier.grid)
    yield _ranges(tier.search)
    for model in [model for model in tier.models if model.grid or model.search]:
        yield f"{prose(model.name)} has {'grids' if model.grid else 'ranges'} of its own:"
        yield _matrix(model.grid)
        yield _ranges(model.search)


def _own_settings(sweep: Sweep, of: str, trials: Sequence[Trial], known: set[str]) -> Iterable[str]:
    """A table of settings that some trials have in common, without the keys known otherwise."""
    rows = [
        [code(key), code(toml_text(value)), prose(sweep.file.why.get(key, ""))]
        for key, value in _common(trials).items()
        if key not in known
    ]
    if rows:
        yield table([f"setting of {of}", "value", "why"], rows)


def _value_count(sizes: Sequence[int]) -> str:
    return f"{' x '.join(map(str, sizes))} = {prod(sizes)}" if len(sizes) > 1 else str(prod(sizes))


def _matrix(axes: Sequence[Any]) -> str:
    rows = []
    for axis in axes:
        keys = ", ".join(code(key) for key in axis.keys)
        for index, value in enumerate(axis.values):
            rows.append([keys if not index else "", code(toml_text(value)), prose(axis.reason(index))])
    return table(["key", "value", "why"], rows) if rows else ""


def _ranges(ranges: Sequence[Range]) -> str:
    rows = [[code(each.key_), prose(_range_text(each)), prose(each.why)] for each in ranges]
    return table(["key", "searched", "why"], rows) if rows else ""


def _range_text(given: Range) -> str:
    if given.values is not None:
        return ", ".join(map(toml_text, given.values))
    text = f"{toml_text(given.low)} to {toml_text(given.high)}"
    return f"{text}, each factor as likely" if given.log else text


def _settings(sweep: Sweep) -> str:
    """The data, and settings that all trials have in common and that are no defaults, with their reasons."""
    common = _common(sweep.trials)
    sources = [
        [code(use), ", ".join(code(source.path or source.source) for source in sources), ""]
        for use in ("train", "validation", "test")
        if isinstance(sources := getattr(sweep.trials[0].recipe.data, use), list) and sources
        and all(getattr(trial.recipe.data, use) == sources for trial in sweep.trials)
    ]  # fmt: skip
    rows = [
        [code(key), code(toml_text(value)), prose(sweep.file.why.get(key, ""))]
        for key, value in common.items()
    ]
    return table(["key", "value", "why"], [[f"data: {use}", *rest] for use, *rest in sources] + rows)


def _common(trials: Sequence[Trial]) -> dict[str, Any]:
    """Settings that trials have in common and that are no defaults."""
    first, *others = [shown_settings(trial.recipe) for trial in trials]
    return {
        key: value
        for key, value in first.items()
        if key not in ("name", "model.from")
        and not _SOURCE.match(key)
        and value not in ([], {})
        and not is_default(key, value)
        and all(other.get(key) == value for other in others)
    }


def _shared(sweep: Sweep, measured: Measured, tree: Tree) -> Iterable[str]:
    shared = tree.epochs < tree.epochs_alone
    yield f"{shared_line(tree)}.{' What trials have in common is trained once, to the same bits.' * shared}"
    notes = [*shared_notes(measured), *stack_notes(sweep, tree, measured)]
    yield "\n".join(f"- {prose(note)}" for note in notes)


def _time(sweep: Sweep, measured: Measured, tree: Tree) -> Iterable[str]:
    lines, budget = list[str](), sweep.file.budget.seconds
    lines += [f"- {line}" for line in forecast_lines(sweep, measured, tree)]
    if budget is not None:
        lines.append(f"- budget: {budget / 3600:,.4g} device hours")
    yield "## Time"
    yield "\n".join([*lines, *(f"- {prose(note)}" for note in measured.notes)]) or "- no forecast"
    if models := measured.problems_by_model:
        yield "## Before it can start"
        yield "\n".join(f"- {prose(name)}: {prose(text)}" for name, text in models.items())


def _resources(sweep: Sweep) -> str:
    given, lines = sweep.file.resources, []
    if given.memory_gb is not None:
        lines.append(f"- memory that trials hold together: {given.memory_gb:g} GB")
    if given.at_once is not None:
        lines.append(f"- trials at once: {given.at_once}")
    order = sorted(sweep.file.tiers, key=lambda tier: -tier.priority)
    lines.append(f"- order: {', then '.join(prose(tier.name) for tier in order)}")
    return "\n".join(lines)


def _trials(sweep: Sweep, measured: Measured, tree: Tree) -> str:
    stages = {stage.name: stage for stage in tree.stages}
    rows = [
        [
            str(number), code(trial.name), f"{stages[trial.name].planned.steps:,}",
            f"{stages[trial.name].own_steps:,}", _parent(stages[trial.name].parent, stages[trial.name].fork),
        ]
        for number, trial in enumerate(sweep.trials, 1)
    ]  # fmt: skip
    return table(["", "trial", "steps", "made", "goes on from"], rows)


def _parent(parent: str | None, step: int) -> str:
    return f"{code(parent)} at step {step:,}" if parent else ""


def trial_rows(trials: Sequence[Trial], tree: Tree) -> list[list[str]]:
    """A row for each trial, for a terminal: name, steps, own steps, and the trial that it goes on from."""
    stages = {stage.name: stage for stage in tree.stages}
    rows = [["trial", "tier", "steps", "made", "goes on from"]]
    for trial in trials:
        stage = stages[trial.name]
        parent = f"{stage.parent} at step {stage.fork:,}" if stage.parent else ""
        rows.append([trial.name, trial.tier, f"{stage.planned.steps:,}", f"{stage.own_steps:,}", parent])
    return rows
