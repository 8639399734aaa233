"""A plan as plain values, for JSON and for the rows that people read."""

from typing import Any

from etude.data.mixture import Mixture
from etude.plan import Plan


def plan_values(plan: Plan) -> dict[str, Any]:
    """The figures of a plan by name; a count that is not known before the start is None.

    tokens, targets  read and scored in all steps
    operations       of floating point, in all steps
    """
    recipe, train = plan.recipe, plan.train
    totals = train if isinstance(train, Mixture) else train.spans
    epochs, rest = divmod(plan.steps, plan.steps_per_epoch)
    samples = epochs * len(train) + rest * plan.global_batch_size
    targets, tokens = samples * totals.scored / len(train), samples * train.tokens_per_sample
    held_out = [task.corpus.validation for task in plan.tasks if task.corpus.validation]
    return {
        "model": recipe.model.from_,
        "parameters": plan.parameters,
        "trainable": plan.trainable,
        "train_samples": len(train),
        "train_targets": totals.targets,
        "validation_samples": sum(map(len, held_out)),
        "validation_targets": sum(split.spans.targets for split in held_out),
        "steps": plan.steps,
        "steps_per_epoch": plan.steps_per_epoch,
        "epochs": plan.steps / plan.steps_per_epoch,
        "global_batch_size": plan.global_batch_size,
        "micro_batch_size": plan.micro_batch_size,
        "tokens": round(tokens),
        "targets": round(targets),
        "operations": plan.cost.operations(tokens, targets),
        "metric": recipe.evaluate.metric,
        "lower_is_better": plan.metric.lower_is_better,
        "device": plan.device.type,
        "devices": recipe.train.devices,
        "precision": plan.precision,
    }
