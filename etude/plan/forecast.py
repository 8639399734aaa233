"""The forecast of a run: time, memory and disk, from the costs of a few of its steps."""

import math
import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from etude.objectives.choose import join_kinds
from etude.plan import Plan
from etude.plan.work import Work, evaluation_work, final_work, has_baselines
from etude.records import events

# The share of the measured rate of matrix products that a step reaches, and how far that is out.
USUAL_SHARE, ARITHMETIC_INTERVAL = 0.4, (0.5, 2.5)
_DEFAULT_MINUTES = 10.0
# Bytes of records, as the runs of tests have them: of a step, of an evaluation and of a text.
_STEP_BYTES, _EVALUATION_BYTES, _TEXT_BYTES = 320, 500, 700
# The baselines of the final scores and their intervals take seconds, and then longer with more rows.
_BASELINE_SECONDS, _ROW_SECONDS = 1.0, 0.0005
# The prompt of a text takes this share of the loss of a sample.
_PROMPT_SHARE = 0.2
# Where no text has been written yet, a token of each row takes this share of reading a sample, but at least
# the calls of all layers: each takes as long as so many operations however small it is, and a step makes ten
# times those of a forward. In runs of decoders of 0.03, 0.9, 11 and 61 million parameters on a CPU a token
# took 0.05, 0.04, 0.03 and 0.035 of a step of four samples; these rules say 0.07 and 0.0375.
_WRITING_SHARE, _READING_SHARE = 0.3, 0.4  # the latter of the matrix rate
_CALL_OPERATIONS, _CALL_OPERATIONS_OF_GPU = {"cpu": 6e7}, 1e10
_STEP_CALLS, _USUAL_LAYERS = 10, 12
# In bf16 on a CPU, oneDNN keeps what it made for the lengths of batches, as many as engine/world.py lets it:
# with a decoder of two layers 0.2 GB after 8 steps, and 0.6 GB from step 30 on.
_KERNEL_BYTES, _KERNEL_STEPS = 0.6e9, 15
_LEAST_STEPS, _MOST_STEPS, _ENOUGH_SECONDS = 3, 10, 2.0
# A checkpoint makes the journal durable and copies what is trained; its files are written meanwhile, and the
# next one waits for them. On the small machine 7 ms for 0.1 and for 62 MB, and 0.19 s to write 86 MB.
_SAVE_SECONDS, _COPIED_BYTES = 0.006, 8e9  # a second
_WRITE_SECONDS, _WRITTEN_BYTES = 0.015, 450e6
_START_SECONDS = 1.0  # tests before the first step
# Python, torch, data and model before the first record of a run; the report and the end of the process.
_READY_SECONDS, _REPORT_SECONDS = 3.0, 1.0
# The report and the end, when a session is about to be over, and the share added to what was measured.
_LEAVE_SECONDS, _LEAVE_SHARE = 5.0, 1.25
_RECENT_STEPS, _RECENT = 100, 3  # the others: evaluations and checkpoints
# The share by which steps alike differ from one minute to the next on a machine that others use, too.
_DRIFT = 0.1


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs of a run that were measured in its first steps, or assumed.

    step_seconds        a step
    sample_seconds      the loss of a held-out sample
    token_seconds       a token of each of the texts that are written together
    memory_bytes        of the GPU, or of the process where there is none
    tried               steps after which that was
    checkpoint_seconds  of training that waits for a checkpoint to be taken; None: by its bytes
    write_seconds       of a checkpoint's files, which only the next one waits for; None: by its bytes
    start_seconds       from the first record to the first step, without evaluations
    ready_seconds       of the process before the first record: Python, data and model
    interval            shares of the seconds forecast between which the truth is to lie
    """

    step_seconds: float
    sample_seconds: float
    token_seconds: float
    memory_bytes: int
    tried: int = 0
    checkpoint_seconds: float | None = None
    write_seconds: float | None = None
    start_seconds: float = _START_SECONDS
    ready_seconds: float = _READY_SECONDS
    interval: tuple[float, float] = (1 - _DRIFT, 1 + _DRIFT)


def forecast(plan: Plan, costs: Costs, step: int = 0) -> events.Forecast:
    """The whole run, from its first record to its last, by the costs known after a step.

    One that stops early takes less.
    """
    count, each, last = count_evaluations(plan), evaluation_work(plan), final_work(plan)
    in_evaluations = evaluations_seconds(plan, costs) + _seconds(last, costs) + _baseline_seconds(plan)
    in_steps = plan.steps * costs.step_seconds
    made = count_saves(plan, in_steps + in_evaluations)
    in_saves = _saves_seconds(plan, costs, made)
    others = costs.start_seconds + in_evaluations + in_saves
    seconds = in_steps + others
    records = plan.steps * _STEP_BYTES + count * (_EVALUATION_BYTES + each.texts * _TEXT_BYTES)
    return events.Forecast(
        step=step,
        seconds=round(seconds, 3),
        evaluation_seconds=round(others, 3),
        memory_bytes=costs.memory_bytes + _kernel_bytes(plan, costs.tried),
        disk_bytes=kept_checkpoints(plan, made) * checkpoint_bytes(plan) + records + last.texts * _TEXT_BYTES,
        checkpoint_seconds=round(in_saves, 3),
        interval=[round(share * seconds, 3) for share in costs.interval],
    )


def beside_seconds(costs: Costs) -> float:
    """Seconds of the process before the first record of a run, and after its last."""
    return costs.ready_seconds + _REPORT_SECONDS


def evaluations_seconds(plan: Plan, costs: Costs) -> float:
    """Seconds of the evaluations before and during training, without the scores at its end."""
    return count_evaluations(plan) * _seconds(evaluation_work(plan), costs)


def assume_costs(plan: Plan, step_seconds: float, memory_bytes: int) -> Costs:
    """Costs where those of steps alone are known: forward is a third of a step, half with frozen weights."""
    forward = 1 / 3 if plan.trainable == plan.parameters["total"] else 1 / 2
    each = forward * step_seconds / min(plan.global_batch_size, len(plan.train))
    return Costs(
        step_seconds=step_seconds,
        sample_seconds=each,
        token_seconds=max(_WRITING_SHARE * each, _calls_share(plan) * step_seconds),
        memory_bytes=memory_bytes,
    )


def costs_at(plan: Plan, rate: float, interval: tuple[float, float]) -> Costs:
    """Costs at so many operations a second on each device of a plan, by arithmetic."""
    operations = plan.cost.operations(*work_of_step(plan))
    if plan.recipe.train.activation_checkpointing:  # the forward again: 2 of 6 operations, 2 of 4 if frozen
        operations *= 4 / 3 if plan.trainable == plan.parameters["total"] else 3 / 2
    seconds = operations / rate / plan.recipe.train.devices
    return replace(assume_costs(plan, seconds, least_memory(plan)), interval=interval)


def least_memory(plan: Plan) -> int:
    """Bytes of weights, gradients and the two moments of the optimizer."""
    frozen = plan.parameters["total"] - plan.trainable
    width = 0.5 if plan.recipe.model.quantize else 4 if plan.precision == "fp32" else 2
    return round(width * frozen) + 16 * plan.trainable


def work_of_step(plan: Plan) -> tuple[float, float]:
    """Mean tokens and targets of a step."""
    samples = min(plan.global_batch_size, len(plan.train))
    scored = sum(task.corpus.train.spans.scored for task in plan.tasks) / len(plan.train)
    return samples * plan.train.tokens_per_sample, samples * scored


def _calls_share(plan: Plan) -> float:
    """The time of the calls of a forward as a share of that of a step, by arithmetic."""
    layers = getattr(plan.model, "n_layer", _USUAL_LAYERS)
    calls = layers * _CALL_OPERATIONS.get(plan.device.type, _CALL_OPERATIONS_OF_GPU)
    forwards = max(plan.global_batch_size // (plan.micro_batch_size or plan.global_batch_size), 1)
    return calls / (
        plan.cost.operations(*work_of_step(plan)) / _READING_SHARE + _STEP_CALLS * forwards * calls
    )


def count_evaluations(plan: Plan) -> int:
    """The evaluations before and during training."""
    is_before = plan.pretrained is not None or join_kinds(plan.tasks).is_worth_scoring_untrained
    return _later_evaluations(plan) + (is_before and plan.is_validated)


def reading_seconds(work: Work, costs: Costs) -> float:
    """Seconds for the losses of samples, and for reading the prompts of texts."""
    return (work.samples + _PROMPT_SHARE * work.texts) * costs.sample_seconds


def checkpoint_bytes(plan: Plan) -> int:
    """Weights that are trained, the optimizer's state, and the files of the tokenizer."""
    state = 8 * plan.trainable
    if plan.recipe.optim.kind == "muon":  # has one moment of the matrices within the blocks
        state -= 4 * sum(plan.parameters.get(part, 0) for part in ("attention", "feed_forward"))
    return 4 * plan.trainable + state + sum(map(len, plan.corpus.tokenizer.files().values()))


def count_saves(plan: Plan, seconds: float) -> int:
    """Checkpoints that a run makes in so many seconds."""
    recipe = plan.recipe.checkpoint
    every, minutes = recipe.every_steps, recipe.every_minutes or _DEFAULT_MINUTES
    # An evaluation that is the best so far is saved as well, most often at the same steps.
    best = max(_later_evaluations(plan), 1)
    return max(-(-plan.steps // every), best) if every else best + int(seconds / 60 / minutes)


def kept_checkpoints(plan: Plan, made: int) -> int:
    """Checkpoints on disk at the end: the newest, the best beside them, and those kept for good."""
    recipe = plan.recipe.checkpoint
    kept_for_good = len([step for step in recipe.keep_at if step <= plan.steps])
    return made if recipe.keep == "all" else min(made, recipe.keep + plan.is_validated) + kept_for_good


def weights_bytes(plan: Plan) -> int:
    """The weights that are trained alone, as one exports them."""
    return 4 * plan.trainable


class Pace:
    """The pace of a run: its forecast, made at its beginning, and the time that its parts take now.

    plan  that is forecast, which changes as the run does
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._steps: list[float] = []
        self._recent: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._evaluations: list[float] = []
        self._saves: list[float] = []
        self._write_seconds: float | None = None
        self._is_done = False
        self._begun = time.perf_counter()
        self._before_steps = 0.0
        self._beside: float | None = None  # seconds that a step takes in logs, records and findings

    @property
    def is_known(self) -> bool:
        """True once enough steps are known for a forecast."""
        return self._is_done

    def add_evaluation(self, seconds: float) -> None:
        """Take in an evaluation, the first of which is the one before training where there is one."""
        self._evaluations.append(seconds)

    def add_checkpoint(self, seconds: float, write_seconds: float | None) -> None:
        """Take in the seconds that training waited for a checkpoint, and those of writing the last one."""
        self._saves.append(seconds)
        self._write_seconds = write_seconds

    def add_step(self, number: int, seconds: float) -> bool:
        """Take in a step from the first on; True once, when enough of them are known."""
        self._recent.append(seconds)
        if self._is_done or number != len(self._steps) + 1:
            return False
        self._steps.append(seconds)
        if number == 1:
            self._before_steps = max(self._elsewhere(), 0.0)
        is_enough = number >= _LEAST_STEPS and sum(self._steps) >= _ENOUGH_SECONDS
        self._is_done = is_enough or number in (_MOST_STEPS, self.plan.steps)
        return self._is_done

    def forecast(self, memory_bytes: int) -> events.Forecast:
        """The forecast by the steps so far, the first of which is left out, as it takes longer."""
        known = self._steps[1:] or self._steps
        if self._beside is None:  # of the steps that are counted, not of those that come later
            self._beside = max(self._elsewhere() - self._before_steps, 0.0) / len(known)
        usual = statistics.median(known)
        costs = replace(
            self._costs(usual + self._beside, memory_bytes),
            tried=len(self._steps),
            checkpoint_seconds=min(self._saves, default=None),  # others waited for those before them
            write_seconds=self._write_seconds,
            start_seconds=self._before_steps + max(self._steps[0] - usual, 0.0),
            interval=spread_of(known),
        )
        return forecast(self.plan, costs, len(self._steps))

    def leaving_seconds(self, steps: int) -> float:
        """Seconds for so many steps more, a checkpoint and the end of the process, at the worst of late."""
        size = checkpoint_bytes(self.plan)
        saved = max(self._saves[-_RECENT:], default=_SAVE_SECONDS + size / _COPIED_BYTES)
        written = (
            _WRITE_SECONDS + size / _WRITTEN_BYTES if self._write_seconds is None else self._write_seconds
        )
        return _LEAVE_SHARE * (steps * max(self._recent, default=0.0) + saved + written) + _LEAVE_SECONDS

    def evaluation_seconds(self) -> float:
        """Seconds of the next evaluation, at the worst of late."""
        if not self._evaluations:
            return _LEAVE_SHARE * _seconds(evaluation_work(self.plan), self._costs_of_late())
        return _LEAVE_SHARE * max(self._evaluations[-_RECENT:])

    def comparison_seconds(self) -> float:
        """Seconds of the scores at the end."""
        work = final_work(self.plan)
        return _LEAVE_SHARE * (_seconds(work, self._costs_of_late()) + _baseline_seconds(self.plan))

    def _costs_of_late(self) -> Costs:
        return self._costs(statistics.median(self._recent or [0.0]), 0)

    def _costs(self, step_seconds: float, memory_bytes: int) -> Costs:
        """Costs by the seconds of a step, and by the first evaluation if there was one."""
        costs, work = assume_costs(self.plan, step_seconds, memory_bytes), evaluation_work(self.plan)
        first = self._evaluations[0] if self._evaluations else None
        if first is not None and work.tokens:
            rest = max(first - reading_seconds(work, costs), 0.0)
            return replace(costs, token_seconds=rest / work.tokens)
        if first is not None and work.samples:
            return replace(costs, sample_seconds=first / work.samples)
        return costs

    def _elsewhere(self) -> float:
        """Seconds that were spent in neither steps nor evaluations nor checkpoints."""
        counted = sum(self._steps) + sum(self._evaluations) + sum(self._saves)
        return time.perf_counter() - self._begun - counted


def spread_of(seconds: Sequence[float]) -> tuple[float, float]:
    """The shares of a forecast between which the truth is to lie, by the steps that it rests on."""
    error = 0.0
    if len(seconds) > 1:
        error = 2 * statistics.stdev(seconds) / math.sqrt(len(seconds)) / max(statistics.mean(seconds), 1e-9)
    width = min(math.hypot(_DRIFT, error), 0.9)
    return 1 - width, 1 + width


def _kernel_bytes(plan: Plan, tried: int) -> int:
    """Memory that a run takes on after some steps: kernels of oneDNN for batches of new lengths."""
    is_half_on_cpu = plan.device.type == "cpu" and plan.precision != "fp32"
    if not is_half_on_cpu or round(plan.train.tokens_per_sample) >= plan.recipe.train.seq_len:
        return 0
    decay = math.exp(-tried / _KERNEL_STEPS) - math.exp(-max(plan.steps, tried) / _KERNEL_STEPS)
    return round(_KERNEL_BYTES * decay)


def _later_evaluations(plan: Plan) -> int:
    """The evaluations after the first step; the last step has one."""
    every = plan.recipe.evaluate.every_steps
    every = every or (plan.recipe.evaluate.every_epochs or 1) * plan.steps_per_epoch
    return -(-plan.steps // every) if plan.is_validated else 0


def _seconds(work: Work, costs: Costs) -> float:
    return reading_seconds(work, costs) + work.tokens * costs.token_seconds


def _baseline_seconds(plan: Plan) -> float:
    """Seconds for baselines, and for the intervals of scores, of the tasks that have such."""
    compared = [
        task.corpus for task in plan.tasks if has_baselines(task) and task.kind.is_compared(task.corpus)
    ]
    rows = sum(len(split) for each in compared for split in (each.train, each.validation, each.test) if split)
    return len(compared) * _BASELINE_SECONDS + rows * _ROW_SECONDS


def _saves_seconds(plan: Plan, costs: Costs, made: int) -> float:
    """Seconds that training waits for so many checkpoints, measured or by their bytes.

    The files of one are written while training goes on, but the next one, or the end, waits for them.
    """
    size, between = checkpoint_bytes(plan), plan.steps * costs.step_seconds / max(made, 1)
    taken, written = costs.checkpoint_seconds, costs.write_seconds
    taken = _SAVE_SECONDS + size / _COPIED_BYTES if taken is None else taken
    written = _WRITE_SECONDS + size / _WRITTEN_BYTES if written is None else written
    return made * taken + (made - 1) * max(written - between, 0.0) + written
