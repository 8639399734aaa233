"""A second version of a recipe from what the watch found in a run, and the strategy behind it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.errors import InputError, RecipeError
from etude.recipe.edit import edit
from etude.recipe.load import flatten, read_recipe_text, recipe_from, with_changes
from etude.recipe.schema import Recipe
from etude.recipe.toml import parse, toml_text
from etude.records.events import SEVERITIES, Finding
from etude.records.store import Run
from etude.report.findings import where
from etude.report.history import History, read_history
from etude.report.strategy import EFFECTS, write_strategy
from etude.watch.journal import facts_of, points_of
from etude.watch.watcher import Watcher

_FILLED_IN = {"records.log_every_steps", "optim.weight_decay"}  # when the run began
_LENGTHS = {"train.seq_len", "train.target_len"}


@dataclass(frozen=True)
class Improvement:
    """The next version of a recipe: checked, as text with its reasons, and as a strategy in Markdown.

    changes  of the recipe, by key
    taken    the finding behind each of them
    reasons  what each of them was, and why it changed, as the comments of the text say
    """

    recipe: Recipe
    text: str
    strategy: str
    changes: dict[str, Any]
    taken: dict[str, Finding]
    reasons: dict[str, str]


def improve(run: Run, file: Path | None = None) -> Improvement:
    """Change the recipe of a run as the findings of the watch advise. Reads the run folder only.

    file: where the recipe will stand, as the strategy names it; by default NAME.toml.

    Raises: InputError if no finding names a change, or the folder is damaged.
    """
    history = read_history(run)
    if not history.attempts:
        raise InputError(f"run {run.name} has no record yet; train it first")
    findings = find_all(history)
    taken, values = _choose(run.recipe, findings)
    if not taken:
        raise InputError(_why_nothing(run.name, [each for each in findings if each.advice]))
    name = next_name(run.recipe.name)
    recipe = with_changes(run.recipe, {**values, "name": name, "records.parent": run.name})
    old = flatten(run.recipe.to_dict())
    reasons = {key: _reason(key, old.get(key), finding) for key, finding in taken.items()}
    header = f"Second version of the recipe of run {run.name}, by what its watch found."
    text = edit(
        read_recipe_text(run.path / "recipe.toml"),
        {**_not_in_text(run), "name": name, **values, "records.parent": run.name},
        reasons,
        header,
    )
    strategy = write_strategy(history, recipe, findings, taken, file or Path(f"{name}.toml"))
    return Improvement(recipe, text, strategy, values, taken, reasons)


def _why_nothing(name: str, findings: Sequence[Finding]) -> str:
    if not findings:
        return f"run {name} has no finding that names a change of its recipe; it found nothing"
    more = f"; etude watch {name} names {len(findings) - 1:,} more" if findings[1:] else ""
    return f"run {name} needs more than another recipe: {findings[0].what}: {findings[0].advice}{more}"


def find_all(history: History) -> list[Finding]:
    """The findings of the watch in a journal, and what the detectors of today see in its records."""
    recorded = [each for each in history.events(Finding) if each.kind]
    has_weights = bool(history.run.info.get("weights"))
    facts = facts_of(history.run.recipe, history.attempts[-1], history.data, has_first_weights=has_weights)
    watcher, kinds = Watcher.of(facts), {each.kind for each in recorded}
    for point in points_of(entry.event for entry in history.ledger.entries):
        watcher.add(point)
    found = [*recorded, *(each for each in watcher.findings if each.kind not in kinds)]
    return sorted(found, key=lambda each: (SEVERITIES.index(each.severity), each.step))


def next_name(name: str) -> str:
    """The name of the next version: `run-v2` after `run`, `run-v3` after `run-v2`."""
    found = re.fullmatch(r"(.*)-v(\d{1,6})", name)
    base, number = (found[1], int(found[2]) + 1) if found else (name, 2)
    return f"{base[: 63 - len(f'-v{number}')]}-v{number}"


def _choose(recipe: Recipe, findings: list[Finding]) -> tuple[dict[str, Finding], dict[str, Any]]:
    """The changes that recipes take, each key as the worst finding has it; a journal may name other keys.

    Beside a fault that was certain before the first step, but for samples that are too short, only what a
    test decided counts: other findings of the curve may be its doing.
    """
    first = [each for each in findings if not each.step and each.severity != "info"]
    if any(each.changes.keys() - _LENGTHS for each in first):
        findings = [each for each in findings if not each.step or each.decided_by]
    taken: dict[str, Finding] = {}
    values: dict[str, Any] = {}
    old = flatten(recipe.to_dict())
    for finding in findings:
        for key, value in _fit(recipe, finding).items():
            if key in taken or value == old.get(key) or key not in EFFECTS or not _is_plain(value):
                continue
            try:
                with_changes(recipe, {**values, key: value})
            except RecipeError:
                continue
            taken[key], values[key] = finding, value
    return taken, values


def _is_plain(value: Any) -> bool:
    """True for what one key takes: no table, and no list of tables."""
    return not any(isinstance(each, dict | list) for each in (value if isinstance(value, list) else [value]))


def _fit(recipe: Recipe, finding: Finding) -> dict[str, Any]:
    """The changes of a finding, with steps in place of epochs where the recipe counts these."""
    changes, best = dict(finding.changes), (finding.window or [0])[0]
    if "train.epochs" in changes and recipe.train.steps:
        del changes["train.epochs"]
        if recipe.schedule.warmup_steps >= best > 0:
            changes["schedule.warmup_steps"] = best // 10
        changes["train.steps"] = best
    return changes


def _not_in_text(run: Run) -> dict[str, Any]:
    """Values of the run that the text of its recipe lacks: overrides, and paths from the root."""
    given = flatten(recipe_from(parse(read_recipe_text(run.path / "recipe.toml"), "recipe.toml")).to_dict())
    had = flatten(run.recipe.to_dict())
    changed = {key: had[key] for key in had.keys() & given.keys() if given[key] not in ("auto", had[key])}
    added = {key: had[key] for key in had.keys() - given.keys() - _FILLED_IN if not key.startswith("model.")}
    return {key: value for key, value in had.items() if key in changed or key in added}


def _reason(key: str, old: Any, finding: Finding) -> str:
    was = f"was {toml_text(old)}" if old is not None else "was not set"
    return f"{was}: {finding.what}, {where(finding)}"
