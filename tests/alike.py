"""Steps of runs that take the same memory: of the same model, optimizer and sizes of a batch."""

from dataclasses import fields
from typing import Any

import numpy as np

from etude.data.batch import NO_TARGET
from etude.plan import Plan
from etude.plan.memory import Subject, subjects_of
from etude.prefixes import Row

_BESIDE = {  # what no tensor of a step depends on, but by the batch
    "name", "seed", "tokenizer", "data", "schedule", "evaluate", "checkpoint", "watch", "criteria", "stated",
    "records", "run", "notify",
}  # fmt: skip


def step_of(plan: Plan, micro_batch_size: int) -> str:
    """All that the trace of the longest step of a plan depends on; equal for steps that are alike."""
    values = plan.recipe.model_dump(exclude=_BESIDE)
    del values["train"]["steps"], values["optim"]["learning_rate"]
    return repr((values, [_subject(each) for each in subjects_of(plan, micro_batch_size)]))


def _subject(subject: Subject) -> list[Any]:
    own = [
        getattr(subject, each.name)
        for each in fields(subject)
        if each.name not in ("recipe", "batch", "objective")
    ]
    batch = {each.name: _size(getattr(subject.batch, each.name)) for each in fields(subject.batch)}
    return [*own, type(subject.objective).__name__, batch, (subject.batch.labels == NO_TARGET).tobytes()]


def _size(value: Any) -> Any:
    if isinstance(value, Row):
        return value.map(np.shape)
    return value.shape if isinstance(value, np.ndarray) else value
