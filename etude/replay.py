"""A run made again: its recipe, and the changes that people and the watch made while it went on.

`replay` makes a run again whole; `replay_intervals` only stretches between its checkpoints, drawn by lot, and
compares what comes of them with what the run wrote down.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch

from etude import durable
from etude.engine.checkpoint import OPTIMIZER_FILE, newest_valid, verify_checkpoint, weights_file
from etude.engine.tensor_files import read_tensors
from etude.errors import DamageError, InputError
from etude.plan import make_plan
from etude.recipe.course import Change
from etude.recipe.life import Life
from etude.recipe.load import diff, recipe_hash
from etude.recipe.schema import Recipe
from etude.records.changes import all_changes
from etude.records.events import Attempt, Control, Evaluation, Event, Generation, Step, to_json
from etude.records.folder import checkpoint_name, list_checkpoints, step_of
from etude.records.journal import write_journal
from etude.records.lease import write_lease
from etude.records.ledger import Ledger
from etude.records.lineage import records_until
from etude.records.store import Run
from etude.report.deviations import Deviation
from etude.report.verifying import Verification
from etude.run import run_recipe
from etude.start import Options, find_first
from etude.text import plural

_TIMES = {"time", "seconds", "wait_seconds", "crc"}  # fields of records that no replay gives again
# On other hardware or versions: largest relative differences of losses, gradient norms and weights.
_LOSS, _NORM, _WEIGHTS = 0.01, 0.05, 0.01
_LOOSE = {"loss": _LOSS, "grad_norm": _NORM, "perplexity": _NORM, "bits_per_byte": _LOSS, "loss_error": _NORM}


def replay(recipe: Recipe, run: Run, options: Options) -> tuple[Recipe, Options]:
    """The recipe and the options that give the weights of a run again, bit for bit, on the same hardware.

    It has the values that the run found by itself, its changes from the start, and goes as far as that went:
    to the end of a finished run, else to its newest checkpoint.

    Raises: InputError if the recipe is another one, or the run began with other weights.
    """
    run.require_own_recipe()
    if recipe_hash(recipe) not in (run.info["recipe_hash"], recipe_hash(run.recipe)):
        others = [
            f"{key} = {new}"
            for key, (_, new) in diff(run.recipe, recipe).items()
            if new not in (None, "auto")
        ]
        advice = f"give the recipe as it was, {run.path / 'recipe.toml'}"
        raise InputError(f"the recipe is not that of run {run.name} ({', '.join(others[:3])}); {advice}")
    if own := run.info.get("origin", {}).get("changes"):
        parent = run.info["origin"]["run"]
        raise InputError(
            f"run {run.name} is a fork of {parent} with another {min(own)}, which its first steps did not "
            f"have; replay {parent}, and fork that"
        )
    if find_first(options).sha256 != run.info.get("weights"):
        parent = run.info.get("parent")
        advice = f"give them with --from {parent}@..." if parent else "leave --from out"
        raise InputError(f"run {run.name} began with other first weights; {advice}")
    changes = all_changes(entry.event for entry in run.ledger().entries)
    again = tuple(Change(each.step, each.key, each.value, each.reason, channel="replay") for each in changes)
    end = None
    if run.is_unfinished:
        path, _ = newest_valid(run.checkpoints, run.info["id"])
        end = (path and step_of(path.name)) or 0
        if not end:
            raise InputError(f"run {run.name} has no checkpoint of a step yet, so there is nothing to replay")
    return run.recipe, replace(options, replays=run, changes=again, stop_at=end)


class Interval(NamedTuple):
    """The steps of a run between two of its checkpoints, or between its start and the first."""

    first: int
    last: int


def replay_intervals(
    run: Run, count: int, seed: int, drawn: Sequence[Interval] | None = None
) -> Verification:
    """Train stretches of a run again, each from a checkpoint to the next that is kept, and compare.

    Weights, optimizer and the records of steps, evaluations and texts have to be the same, bit for bit; with
    other hardware or versions within the tolerances above. The folder of the run is only read.

    count: of intervals that are drawn by lot, with `seed`; all of them where there are fewer
    drawn: those, in place of a draw

    Raises: InputError if the run cannot be made again here, as without its data.
    """
    made = Verification(run.info["id"])
    _require_replayable(run)
    recipe = _alone(run.recipe)
    fingerprint = make_plan(recipe, today=run.day).fingerprint
    if fingerprint != run.environment["data_fingerprint"]:
        stated, rule = (
            run.environment["data_fingerprint"][:16],
            "the rows here are not those it was trained on",
        )
        made.deviations.append(Deviation("environment.json", "data", stated, fingerprint[:16], rule))
        return made
    known = replayable_intervals(run)
    if drawn is None:
        drawn = sorted(random.Random(seed).sample(known, min(count, len(known))))
    if not known:
        made.open.append("the run keeps no checkpoint of a step, so there is no interval to replay")
    elif len(drawn) < count:
        made.open.append(f"the run has {plural(len(known), 'interval')} between kept checkpoints")
    for interval in drawn:
        made.count("intervals replayed")
        made.count("steps replayed", interval.last - interval.first)
        made.add(_replay_one(run, recipe, interval, made))
    return made


def replayable_intervals(run: Run) -> list[Interval]:
    """The intervals between the checkpoints of a run, and that before the first if its start is known."""
    steps = [step for path in list_checkpoints(run.checkpoints) if (step := step_of(path.name)) is not None]
    is_start_known = run.info.get("weights") is None and "origin" not in run.info
    steps = [0, *(step for step in steps if step)] if is_start_known else steps
    return [Interval(*each) for each in pairwise(steps)]


def _require_replayable(run: Run) -> None:
    """Raises: InputError if a replay in this process could not give the bits of a run."""
    run.require_own_recipe()
    what = ""
    if run.recipe.train.devices > 1:
        ranks = plural(run.recipe.train.devices, "rank")
        what = f"it was trained on {ranks}, and etude train RECIPE --replay RUN makes it again whole"
    elif run.environment.get("own_code"):
        what = "it was trained with code of its own, which only its program has"
    if what:
        raise InputError(f"intervals of run {run.name} are not replayed: {what}")


def _alone(recipe: Recipe) -> Recipe:
    """A recipe that tells nobody and copies nothing."""
    records = recipe.records.model_copy(update={"trackers": []})
    return recipe.model_copy(update={"records": records, "notify": [], "run": Life()})


def _replay_one(run: Run, recipe: Recipe, interval: Interval, made: Verification) -> Iterator[Deviation]:
    """Train an interval in a folder of its own, and compare its records and its end."""
    ledger, threads = run.ledger(), torch.get_num_threads()
    with durable.temporary_folder("etude-replay-") as folder:
        try:
            again = _begin(run, ledger, interval, folder / run.name)
        except DamageError as error:
            yield Deviation("checkpoints", "checkpoint", checkpoint_name(interval.first), "", str(error))
            return
        torch.set_num_threads(run.environment.get("threads", threads))
        try:
            options = Options(runs=folder, resume=again, stop_at=interval.last, has_report=False)
            run_recipe(recipe, options)
        finally:
            torch.set_num_threads(threads)
        records = again.ledger()
        changed = [e.event for e in records.entries if isinstance(e.event, Attempt)][-1].changed
        if changed:
            made.open.append(
                f"bits may differ here, so values are held within tolerances: {'; '.join(changed)}"
            )
        yield from _compare_records(interval, ledger, records, is_like=not changed)
        yield from _compare_end(run, again, interval, is_like=not changed)


def _begin(run: Run, ledger: Ledger, interval: Interval, folder: Path) -> Run:
    """A folder in which a run stands at the first step of an interval, with its later changes.

    Raises: DamageError if the checkpoint there is not what was written.
    """
    durable.make_folder(folder / "checkpoints")
    name = checkpoint_name(interval.first)
    source, target = run.checkpoints / name, folder / "checkpoints" / name
    files = ["run.json", "recipe.toml", "resolved.toml", "environment.json"]
    _copy(run.path, folder, files)
    entries = records_until(ledger, interval.first) if interval.first else []
    if durable.is_plain(source / "manifest.json", follow=False):
        manifest = verify_checkpoint(source, run.info["id"])
        durable.make_folder(target)
        _copy(source, target, [*manifest["files"], "manifest.json"])
    kept = {id(entry.event) for entry in entries}
    later = [
        entry
        for entry in ledger.entries
        if isinstance(entry.event, Control)
        and entry.event.from_step is not None
        and entry.event.from_step < interval.last
        and id(entry.event) not in kept
    ]
    write_journal(folder / "journal.jsonl", [*entries, *later])
    write_lease(folder, "stopped")
    return Run(folder)


def _copy(source: Path, target: Path, names: Sequence[str]) -> None:
    for name in names:
        with durable.open_plain(durable.inside(source, name), follow=False) as file:
            durable.write_file(durable.inside(target, name), iter(lambda: file.read(1 << 20), b""))


def _compare_records(
    interval: Interval, ledger: Ledger, again: Ledger, *, is_like: bool
) -> Iterator[Deviation]:
    """Deviations of the records of an interval from those of its replay."""
    stated, follows = (_by_place(each, interval) for each in (ledger, again))
    rule = f"the replay of steps {interval.first + 1:,} to {interval.last:,} gives another value"
    for place, values in follows.items():
        mine = stated.get(place)
        if mine is None:
            yield Deviation("journal.jsonl", "replay", "", _name(place), f"{rule}, and no record has it")
            continue
        for key, value in values.items():
            if not _is_same(key, mine.get(key), value, is_like=is_like):
                yield Deviation(
                    "journal.jsonl", "replay", f"{_name(place)}: {key} = {mine.get(key)!r}",
                    f"{key} = {value!r}", rule,
                )  # fmt: skip
    for place in stated.keys() - follows.keys():
        if place[0] != "generation":  # a person may have asked for more
            yield Deviation("journal.jsonl", "replay", _name(place), "", f"{rule}: it has no such record")


def _by_place(ledger: Ledger, interval: Interval) -> dict[tuple[str, int, str], dict[str, Any]]:
    """The records that are a function of a run, by type, step and prompt, without times."""
    found: dict[tuple[str, int, str], dict[str, Any]] = {}
    for event, _, _ in ledger.entries:
        is_mine = isinstance(event, Step | Evaluation | Generation) and not getattr(event, "asked", False)
        if is_mine and (interval.first or -1) < _step(event) <= interval.last:
            values = {key: value for key, value in to_json(event, 0.0).items() if key not in _TIMES}
            found[values["type"], _step(event), str(values.get("prompt", ""))] = values
    return found


def _step(event: Event) -> int:
    return int(getattr(event, "step", 0))


def _is_same(key: str, stated: Any, follows: Any, *, is_like: bool) -> bool:
    """True if a value is that of the replay: the same, or near enough on a machine that is another one."""
    if is_like or key == "learning_rate":
        return bool(stated == follows)
    if isinstance(stated, float) and isinstance(follows, float):
        return math.isclose(stated, follows, rel_tol=_LOOSE.get(key, 0.0))
    return bool(stated == follows) or key in ("text", "metrics", "best", "stopped")


def _name(place: tuple[str, int, str]) -> str:
    kind, step, prompt = place
    return f"{kind} {step:,}" + (f" ({prompt[:40]!r})" if prompt else "")


def _compare_end(run: Run, again: Run, interval: Interval, *, is_like: bool) -> Iterator[Deviation]:
    """Deviations of the weights and the optimizer at the end of an interval."""
    name = checkpoint_name(interval.last)
    mine, other = run.checkpoints / name, again.checkpoints / name
    rule = f"the replay of steps {interval.first + 1:,} to {interval.last:,} ends with others"
    for file in (weights_file(other).name, OPTIMIZER_FILE):
        stated, follows = (read_tensors(path / file) for path in (mine, other))
        for tensor in {**follows, **stated}:
            a, b = stated.get(tensor), follows.get(tensor)
            if a is None or b is None or not _is_same_tensor(a, b, is_like=is_like):
                yield Deviation(f"checkpoints/{name}/{file}", "replay", tensor, _difference(a, b), rule)


def _is_same_tensor(a: torch.Tensor, b: torch.Tensor, *, is_like: bool) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if is_like:
        return bool(
            torch.equal(
                a.contiguous().flatten().view(torch.uint8), b.contiguous().flatten().view(torch.uint8)
            )
        )
    distance, size = (a.double() - b.double()).norm(), b.double().norm()
    return bool(distance <= _WEIGHTS * size + 1e-12)


def _difference(a: torch.Tensor | None, b: torch.Tensor | None) -> str:
    if a is None or b is None or a.shape != b.shape:
        return "a tensor of another shape" if a is not None and b is not None else "no such tensor"
    apart = int((a != b).sum())
    return (
        f"{apart:,} of {a.numel():,} numbers are others, by up to {(a.double() - b.double()).abs().max():.3g}"
    )
