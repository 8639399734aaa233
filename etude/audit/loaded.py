"""Weights as a run begins with them, held against the files that they were loaded from."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from etude.engine.broken import first_few
from etude.engine.checkpoint import trained_tensors
from etude.engine.shards import held_rows
from etude.models.families.family import Pretrained
from etude.models.families.table import family_of
from etude.models.weights import open_tensors, stored
from etude.records.events import Finding
from etude.text import plural

_ROWS = 4  # of each tensor
_THROUGH = (torch.float64, torch.bfloat16, torch.float16)  # dtypes that weights may come through


def find_not_loaded(
    model: nn.Module, base: Pretrained | None, weights: Path | None, new: Collection[str]
) -> Iterator[Finding]:
    """A finding if tensors of a model have other values than the files that they came from.

    weights: the file of a checkpoint that was loaded after the base. new: tensors that no file of the base
    has. Four rows of each tensor are read, after the casts that a load makes; where they differ, the whole
    tensor, in any order. Of a tensor in pieces the rows of this rank are looked at. Tensors of another shape
    than in the file are left out: they are not loaded as they are.
    """
    own = set(model.parameters())
    replaced: set[Tensor] = set()
    if weights is not None:
        mine = {name: each for name, each in trained_tensors(model)[1].items() if each in own}
        replaced = set(mine.values())
        with open_tensors(weights) as file:
            yield from _judge(((name, each, file, name) for name, each in mine.items()), weights)
    if base is not None and len(replaced) < len(own):
        mine = {name: each for name, each in model.named_parameters() if name not in new}
        mine = {name: each for name, each in mine.items() if each not in replaced}
        yield from _judge(_of_base(base, mine), base.path)


# The name and values of a parameter, an open file, and its name there.
_Found = tuple[str, Tensor, Any, str]


def _of_base(base: Pretrained, mine: Mapping[str, Tensor]) -> Iterator[_Found]:
    """Parameters that the files of a pretrained model have."""
    family = family_of(base.config)
    bodies = list(dict.fromkeys(name.partition(".")[0] for name in mine))
    for _, file, given in stored(base.path):
        name = family.name_of(base.config, given)
        # Files of the bare body leave out its name.
        names = [each for each in (name, *(f"{body}.{name}" for body in bodies)) if each in mine]
        if names:
            yield names[0], mine[names[0]], file, given


def _judge(found: Iterable[_Found], source: Path) -> Iterator[Finding]:
    is_loaded = {name: _is_loaded(*each) for name, *each in found}
    if other := [name for name, is_same in is_loaded.items() if not is_same]:
        yield Finding(
            0, "the model does not begin with the weights of its file",
            f"other values than in {source}: {first_few(other)}, of {plural(len(is_loaded), 'tensor')}",
            "draw and change no weight once it is loaded, as a module may that is set up late; start again",
            severity="error", window=[0, 0], kind="weights_not_loaded", confidence=1.0,
            causes=["weights that are drawn anew after a load", "a module that writes to its weights"],
            decided_by="rows of each tensor against those of the file",
        )  # fmt: skip


def _is_loaded(mine: Tensor, file: Any, name: str) -> bool:
    """False if a parameter has other values than its tensor in a file."""
    part = file.get_slice(name)
    if tuple(part.get_shape()) != tuple(mine.shape) or not mine.is_floating_point():
        return True
    held, first = held_rows(mine.detach())
    if mine.ndim < 2:
        rows = [(held, file.get_tensor(name)[first : first + len(held)])]
    else:
        places = {at * (len(held) - 1) // (_ROWS - 1) for at in range(_ROWS)} if len(held) else set()
        rows = [(held[at : at + 1], part[first + at : first + at + 1]) for at in places]
    if all(_fits(each.cpu(), given) for each, given in rows):
        return True
    # A load may bring a tensor into another order.
    ours, whole = held.cpu().flatten().sort()[0], file.get_tensor(name).flatten().sort()[0]
    if len(ours) == len(whole):
        return _fits(ours, whole)
    return any(bool(torch.isin(ours, whole.to(dtype).to(ours.dtype)).all()) for dtype in _THROUGH)


def _fits(mine: Tensor, given: Tensor) -> bool:
    """True if values are those given, or what is left of them after a cast."""
    return any(torch.equal(mine, given.to(dtype).to(mine.dtype)) for dtype in _THROUGH)
