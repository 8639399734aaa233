"""Findings about a run before the first step of an attempt: its model, its labels and its checkpoints."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from etude.audit import audit
from etude.audit.loaded import find_not_loaded
from etude.data.corpus import label_notes
from etude.engine import checkpoint as checkpoints
from etude.engine.loop import TrainState
from etude.plan import Plan
from etude.plan.stated import find_disagreements
from etude.records import events
from etude.records.folder import checkpoint_name
from etude.start import Options, untrained_finding
from etude.text import plural


def find_at_start(plan: Plan, state: TrainState, new_weights: list[str]) -> Iterator[events.Finding]:
    """Findings about the model and the labels of a run that is at its start."""
    if state.step:
        return
    if new_weights:
        names = f"{plural(len(new_weights), 'new tensor')}: {', '.join(new_weights[:4])}"
        yield events.Finding(0, "new weights", names, "learnt from the start", severity="info")
    if finding := untrained_finding(plan, state.model):
        yield finding
    for said in find_disagreements(plan):
        yield events.Finding(0, "stated figures", said, "mend the recipe, or what it states")
    for task in plan.tasks:
        for note in label_notes(task.corpus):
            advice = "if that is not meant, mend the label fields, or id2label in config.json of the model"
            yield events.Finding(0, task.named("labels of the data"), note, advice)


def find_at_resume(
    folder: Path, step: int, foreign: list[str], damage: list[str], start: str
) -> Iterator[events.Finding]:
    """Findings about the checkpoints in the folder of an attempt that goes on from `start`.

    foreign: names that are none of a checkpoint. damage: of newer checkpoints, in words.
    """
    if foreign:
        more = " ..." if len(foreign) > 3 else ""
        evidence = f"{', '.join(foreign[:3])}{more} in {folder.name}"
        advice = f"left as it is: a checkpoint is named as {checkpoint_name(200)} is"
        yield events.Finding(step, "not a checkpoint", evidence, advice)
    for problem in damage:
        yield events.Finding(step, "damaged checkpoint", problem, f"the run continues from {start}")


def find_faults(
    plan: Plan, options: Options, state: TrainState, checkpoint: Path | None, new_weights: list[str], *,
    is_main: bool,
) -> list[events.Finding]:  # fmt: skip
    """Faults that a look at the loaded weights finds, and at the start tests of the model, on all ranks.

    The model may not be that of its files: of a checkpoint, first weights, or the base. is_main: the rank
    that holds the run; the others are held against it.
    """
    found = _find_not_loaded(plan, options, state, checkpoint, new_weights) if is_main else []
    if state.step:
        return found
    # All ranks are tested, as a loss of the user's may join them.
    is_known = options.model is None and options.weights is None and not new_weights
    is_fresh = plan.pretrained is None if is_known else None
    return [*found, *audit(plan, state, options.own, is_fresh=is_fresh).findings]


def _find_not_loaded(
    plan: Plan, options: Options, state: TrainState, checkpoint: Path | None, new_weights: list[str]
) -> list[events.Finding]:
    weights = checkpoints.weights_file(checkpoint) if checkpoint else options.first_weights
    base = plan.pretrained if options.model is None else None
    found = find_not_loaded(state.model, base, weights, new_weights)
    return [replace(each, step=state.step) for each in found]
