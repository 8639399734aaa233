"""A plan: everything about a run that is known before anything is trained or written."""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch

from etude.data.corpus import Corpus
from etude.data.mixture import Mixture
from etude.data.samples.sample import Samples
from etude.engine.device import choose_device
from etude.engine.precision import choose_precision
from etude.errors import RecipeError, collect
from etude.evaluate.execute import digest
from etude.models.cost import Cost
from etude.models.families.family import Config, Pretrained
from etude.objectives.task import Task
from etude.own import Own
from etude.plan.data import (
    data_sizes,
    join_samples,
    prepare_tasks,
    require_figures,
    require_short_prompts,
    with_exercises,
)
from etude.plan.length import choose_length
from etude.plan.model import (
    choose_model,
    context_of,
    count_adapter,
    find_base,
    measure_model,
    require_vocabulary,
)
from etude.plan.parallel import Parallel, choose_parallel
from etude.recipe.metric import ChosenMetric
from etude.recipe.schema import Recipe

SHORT_RUN = 100  # steps


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A recipe with its data, device, sizes and lengths. Counts are over all ranks.

    model             None where a family runs through transformers, or the user brings a module
    pretrained        the base that model.from names
    trainable         how many of the parameters are updated
    micro_batch_size  samples of one rank; None if it is to be probed
    device_memory     bytes of a device that is not here
    """

    recipe: Recipe
    tasks: tuple[Task, ...]
    train: Samples | Mixture
    metric: ChosenMetric
    model: Config | None
    pretrained: Pretrained | None
    parameters: dict[str, int]
    trainable: int
    cost: Cost
    device: torch.device
    precision: str
    steps: int
    steps_per_epoch: int
    global_batch_size: int
    micro_batch_size: int | None
    device_memory: int | None = None

    @property
    def labels(self) -> int:
        """Outputs of the model as a classifier, 0 if it is none."""
        return int(getattr(self.model, "labels", 0) if self.pretrained is None else self.pretrained.labels)

    @property
    def corpus(self) -> Corpus:
        """The data of the only task, or of the first; all have one tokenizer."""
        return self.tasks[0].corpus

    @property
    def is_validated(self) -> bool:
        """True if there is a validation set, which then every task has."""
        return self.corpus.validation is not None

    @property
    def log_every_steps(self) -> int:
        """Steps between log lines; a short run has a line for each step."""
        return self.recipe.records.log_every_steps or (1 if self.steps <= SHORT_RUN else 10)

    @property
    def parallel(self) -> Parallel:
        """The way that the model lies over the ranks."""
        return choose_parallel(
            self.recipe, parameters=self.parameters["total"], trainable=self.trainable, device=self.device,
            precision=self.precision, room=self.device_memory,
        )  # fmt: skip

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the data of all tasks, and of problems that programs are to solve."""
        if problems := self.tasks[0].exercises:
            return hashlib.sha256(f"{self.corpus.fingerprint}{digest(problems)}".encode()).hexdigest()
        if len(self.tasks) == 1:
            return self.corpus.fingerprint
        return hashlib.sha256(
            "".join(task.name + task.corpus.fingerprint for task in self.tasks).encode()
        ).hexdigest()

    @property
    def held_out(self) -> dict[str, str]:
        """The hash of the rows of each held-out set; of several tasks each under its name."""
        return {
            f"{task.name} {use}".strip(): value
            for task in self.tasks
            for use, value in task.corpus.held_out.items()
        }

    @property
    def data_summary(self) -> dict[str, Any]:
        """The counts of the prepared data; of several tasks each under its name."""
        return {
            f"{task.name} {key}".strip(): value
            for task in self.tasks
            for key, value in task.corpus.summary.items()
        }


def make_plan(
    recipe: Recipe,
    *,
    own: Own = Own(),  # noqa: B008 - frozen
    today: str | None = None,
    needs_weights: bool = True,
) -> Plan:
    """Prepare the data of a recipe, and plan its run.

    own: the code that the user brings. today: the day (YYYY-MM-DD) that a chat template may write.
    needs_weights: as for `find_base`.

    Raises: RecipeError with all problems; a part whose input has one is left out, the others go on.
    """
    problems: list[str] = []
    tasks: tuple[Task, ...] = ()
    with collect(problems):
        device, precision = _choose_machine(recipe)
    with collect(problems):
        base = find_base(recipe, own, needs_weights=needs_weights)
        with collect(problems):
            tasks, base = prepare_tasks(recipe, base, own, today=today)
        # The layers of a model of transformers are known once its classes are counted.
        if tasks or (base is not None and base.reason is None):
            with collect(problems):
                adapter = count_adapter(recipe, base)
    if not tasks:
        raise RecipeError(problems)
    samples, model = join_samples(recipe, tasks), None
    sizes = data_sizes(tasks, samples, base)
    with collect(problems):
        require_vocabulary(recipe, base, sizes)
    with collect(problems):
        model = choose_model(recipe, base, sizes, own)
    with collect(problems):
        require_short_prompts(recipe, tasks[0].corpus, context_of(model, base))
    with collect(problems):
        tasks = with_exercises(recipe, tasks, context_of(model, base))
    with collect(problems):
        require_figures(recipe, tasks, own)
    if problems:
        raise RecipeError(problems)
    size = measure_model(recipe, model, base, sizes, own=own, adapter=adapter)
    return Plan(
        recipe=recipe,
        tasks=tasks,
        train=samples,
        metric=own.choose_metric(recipe.evaluate.metric),
        model=model,
        pretrained=base,
        device=device,
        precision=precision,
        **vars(size),
        **vars(choose_length(recipe, samples, device)),
    )


def _choose_machine(recipe: Recipe) -> tuple[torch.device, str]:
    device = choose_device(recipe.train.device)
    return device, choose_precision(recipe.train.precision, device, targets_per_step=1).name
