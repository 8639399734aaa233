"""The ranks of a plan: joined at the start, and told of each other's end."""

import contextlib
import json
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import metadata
from typing import Any

import torch

from etude.control.ranks import IDLE_SECONDS
from etude.engine.device import device_name
from etude.engine.world import World, join_world
from etude.errors import InputError
from etude.plan import Plan
from etude.recipe.load import flatten
from etude.records.events import Finding
from etude.start import Options
from etude.text import parse_duration, plural, shorten

_DATA, _WEIGHTS = "data prepared", "weights of model.from"
_PLACES = ("path", "from", "mirror")
_ADVICE = (
    "every step takes as long as the slowest, a micro-batch is what fits on the smallest, and bits depend on "
    "which rank has which; choose machines of one type"
)


def join_ranks(plan: Plan, stack: contextlib.ExitStack) -> World:
    """Join the ranks of a run until the stack closes.

    Each machine has prepared the data once, in its own cache. Raises: InputError if the number of ranks is
    another than the recipe's, or their data, models, recipes or packages differ.
    """
    hung, lost = map(parse_duration, (plan.recipe.run.hung_after, plan.recipe.run.lost_after))
    world = join_world(
        plan.device, idle_seconds=hung, silence_seconds=lost, sum_seconds=max(hung, IDLE_SECONDS)
    )
    stack.push(lambda _, error, __: world.leave(error))
    if world.size != plan.recipe.train.devices:
        raise InputError(
            f"train.devices is {plan.recipe.train.devices}, but the run has {plural(world.size, 'rank')}; "
            "start them by etude train --devices, or set train.devices to their number"
        )
    ours = json.loads(json.dumps(_alike(plan), default=str))
    _require_alike(world.agree(ours), ours)
    return replace(world, devices=world.gather(device_name(world.device)))  # nobody goes on before all can


def _alike(plan: Plan) -> dict[str, Any]:
    """Values by name that all ranks have alike; files may lie elsewhere on each machine."""
    recipe = flatten(plan.recipe.to_dict())
    return {
        _DATA: plan.fingerprint,
        _WEIGHTS: plan.pretrained and plan.pretrained.digest,
        "etude": metadata.version("etude-workbench"),
        "torch": torch.__version__,
        **{key: value for key, value in recipe.items() if key.rpartition(".")[2] not in _PLACES},
    }


def _require_alike(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Raises: InputError that names the first value that is another than that of rank 0."""
    here = socket.gethostname()
    for key in dict.fromkeys([*theirs, *ours]):
        one, other = ours.get(key), theirs.get(key)
        if one == other:
            continue
        if key in (_DATA, _WEIGHTS):
            advice = "give all machines the same files, tokenizer and packages"
            raise InputError(f"the {key} on {here} differ from those of rank 0; {advice}")
        says = f"{key} is {shorten(one, 60)} on {here} and {shorten(other, 60)} on rank 0"
        raise InputError(f"{says}; give all machines the same recipe and packages")


def find_mixed(devices: Sequence[str]) -> Iterator[Finding]:
    """A finding, where ranks have devices of several types."""
    ranks: dict[str, list[int]] = {}
    for rank, name in enumerate(devices):
        ranks.setdefault(name, []).append(rank)
    if len(ranks) > 1:
        parts = [f"{shorten(name, 60)}: {_count_ranks(each)}" for name, each in ranks.items()]
        yield Finding(0, "ranks on several types of devices", "; ".join(parts), _ADVICE)


def _count_ranks(ranks: Sequence[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    return f"{len(ranks):,} ranks, as {', '.join(map(str, ranks[:3]))}"


def answer_signal(world: World, options: Options, name: str) -> None:
    """Show that a signal came; one may say that another rank has ended, as torchrun then stops the rest."""
    if world.others is not None:
        world.others.suspect()
    if options.view:
        options.view.acknowledge(name)
