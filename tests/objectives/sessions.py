"""A run that has begun and made no step yet: its model, its data and its kind of training."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from etude.data.loader import iterate_once
from etude.engine.batch import DeviceBatch, to_device
from etude.recipe.schema import Recipe
from etude.records.ending import Ending
from etude.records.events import Finding
from etude.records.store import Run
from etude.session import Session, begin
from etude.start import Options


@contextlib.contextmanager
def begun(recipe: Recipe, runs: Path, **options: object) -> Iterator[Session]:
    """The session of a new run."""
    with contextlib.ExitStack() as stack:
        yield begin(recipe, Options(runs=runs, **options), stack, lambda: Ending("stopped"))


def one_batch(session: Session) -> DeviceBatch:
    """All validation samples of the first task as one batch."""
    split = session.plan.corpus.validation
    assert split is not None
    (batch,) = iterate_once(split, len(split), session.recipe.data.attend_across_documents)
    return to_device(batch, torch.device("cpu"))


def found(run: Run) -> dict[str, Finding]:
    """The broken rules of the loop in a run, by kind; the last of each."""
    events = [entry.event for entry in run.ledger().entries]
    return {
        each.kind: each
        for each in events
        if isinstance(each, Finding) and each.decided_by.startswith("a rule")
    }
