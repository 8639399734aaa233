"""Rules of the loop that are broken, and what to do about each."""

from collections.abc import Sequence
from dataclasses import dataclass

from etude.records.events import Finding

_NAMED = 3


@dataclass(frozen=True)
class Broken:
    """An invariant that does not hold: a finding without its step.

    is_exact  False where some elements of the tensors tell it, not all
    """

    kind: str
    what: str
    evidence: str
    advice: str
    severity: str = "error"
    is_exact: bool = True


ADVICE = {
    "ranks_differ": "start again from a checkpoint on one device, and look for a module that skips a rank",
    "never_moved": "raise optim.learning_rate, or name adapter.targets that the loss reaches",
    "tensor_not_moved": "see that the loss reaches these tensors, or freeze them",
    "frozen_moved": "do not write to frozen tensors in a forward pass or a loss",
    "tensor_not_stepped": "keep the parameter objects that the optimizer was given, and unfreeze none later",
    "clip_skipped": "clip before the update: by train.max_grad_norm alone",
    "rate_off_schedule": "change the rate in the recipe, or by a change of the run, which the schedule knows",
    "samples_off_plan": "start again from a checkpoint; if it stays so, report this",
    "update_wrong": "write to no trained weight in a forward pass, and leave updates to the optimizer",
    "gradients_dropped": "leave gradients alone between the backward pass and the update",
    "checkpoint_differs": "keep the modules and parameters that the run began with; report this",
    "precision_off": "leave autocast to etude, and switch it off in no part of the model that trains",
    "steps_off_plan": "start again; if it stays so, report this",
    "gradients_kept": "make no backward pass between steps, and leave it to etude to set gradients to zero",
    "evaluation_trains": "let metrics and modules read only: no optimizer, and no backward pass",
    "optimizer_state_wrong": "start again from an earlier checkpoint: state has the dtype of its weights",
    "optimizer_state_lost": "start again from an earlier checkpoint, and leave the optimizer alone",
}


def broken(kind: str, what: str, evidence: str) -> Broken:
    """The broken rule of a kind, with its advice."""
    return Broken(kind, what, evidence, ADVICE[kind])


def finding(step: int, rule: Broken) -> Finding:
    """The finding of a broken rule at a step."""
    checked = "exactly" if rule.is_exact else "at some elements of the tensors"
    return Finding(
        step, rule.what, rule.evidence, rule.advice, severity=rule.severity, window=[step, step],
        kind=rule.kind, confidence=1.0 if rule.is_exact else 0.9,
        decided_by=f"a rule of the loop, checked {checked}",
    )  # fmt: skip


def first_few(names: list[str]) -> str:
    """The first names of a list, and how many more it has."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")


def first_numbers(values: Sequence[int]) -> str:
    """The first numbers of a list."""
    return ", ".join(map(str, values[:_NAMED])) + (" ..." if len(values) > _NAMED else "")
