"""From steps on the device to records in the journal, without waiting for the device at every step."""

import math
import time
from collections.abc import Callable, Collection, Sequence

import torch

from etude.engine.loop import Step
from etude.engine.stragglers import RankTimes
from etude.errors import FaultError
from etude.models.cost import Cost
from etude.records import events
from etude.records.head import Head
from etude.records.store import RunWriter
from etude.records.window import mean_loss
from etude.watch.resources import ResourceSampler

# Steps in a row that may be skipped: fp16 needs a few to find its scale, a broken run skips for ever.
_MAX_SKIPPED = 50
_LATE_SECONDS = 1.0
_WIDER = {"fp16": ", or train.precision bf16 or fp32", "bf16": ", or train.precision fp32"}


class Recorder:
    """Collects steps and writes them down; on ranks without a run folder it only keeps count.

    cost         of a token and of a target; matrix_rate: operations a second of all devices, measured
    precision    of the training, as advice on steps that are not finite takes it
    ignore       kinds of findings that are not recorded
    watch        gives the findings that records lead to, which are recorded after them
    """

    ignore: Collection[str] = ()
    watch: Callable[[Sequence[events.Event]], Sequence[events.Event]] | None = None

    def __init__(
        self,
        writer: RunWriter | None,
        *,
        device: torch.device,
        cost: Cost,
        matrix_rate: float,
        precision: str = "fp32",
    ) -> None:
        self._writer = writer
        self._wider = _WIDER.get(precision, "")
        self._cost, self.matrix_rate = cost, matrix_rate
        self._sampler = ResourceSampler(device.index if device.type == "cuda" else None)
        self._is_ahead = device.type != "cpu"  # of the device, which is asked for more than it has done
        self._on_device: list[Step] = []
        self._drained = time.monotonic()
        self.forget()

    def forget(self) -> None:
        """Count from here on, as an attempt does at its start."""
        self._since_log: list[events.Step] = []
        self._since_save: list[events.Step] = []
        self._skipped_in_a_row = 0

    def add(self, step: Step) -> None:
        self._on_device.append(step)

    def drain_late(self) -> None:
        """Drain if that was over a second ago, so that who watches slow steps sees each of them."""
        if time.monotonic() - self._drained > _LATE_SECONDS:
            self.drain()

    def drain(self) -> None:
        """Fetch the figures of the steps since the last time, in one transfer, and write them down.

        Raises: FaultError if no step of the last 50 was finite, or if one left a weight that is not: so
        whoever saves or evaluates drains first.
        """
        if not self._on_device:
            return
        steps, self._on_device = self._on_device, []
        self._drained = time.monotonic()
        measured, waited = self._fetch(steps)
        records = [_record(step, waited / len(steps), *figures) for step, figures in zip(steps, measured)]
        self._since_log += records
        self._since_save += records
        self.write(*records)
        for record in records:
            self._skipped_in_a_row = self._skipped_in_a_row + 1 if record.skipped else 0
        if broken := [step.number for step, row in zip(steps, measured) if row[5]]:
            cause = f"the update of step {broken[0]} made some weights infinite or NaN"
            remedy = "lower optim.learning_rate or optim.weight_decay"
            advice = f"{remedy}, and start again with --new or --from RUN@last"
            self.write(events.Finding(broken[0], "non-finite weights", cause, advice))
            self.sync()
            raise FaultError(f"{cause}; they are not saved, and what was saved before stays; {advice}")
        if self._skipped_in_a_row >= _MAX_SKIPPED:
            raise FaultError(
                f"the last {self._skipped_in_a_row} steps had no finite loss or gradient and changed "
                f"nothing; lower optim.learning_rate{self._wider}, and start again with --new"
            )

    def log(self, ranks: RankTimes | None = None) -> None:
        """Write down the steps since the last log step, at what cost they were made, and how ranks differ."""
        self.drain()
        steps, self._since_log = self._since_log, []
        seconds = sum(step.seconds for step in steps)
        tokens, targets = sum(step.tokens or 0 for step in steps), sum(step.targets for step in steps)
        computed = sum(step.computed_tokens or step.tokens or 0 for step in steps)
        self.write(
            events.Resource(
                step=steps[-1].step,
                tokens_per_second=_rate(tokens, seconds, 1),
                mfu=_rate(self._cost.operations(computed, targets), seconds * self.matrix_rate, 4),
                wait_ratio=_rate(sum(step.wait_seconds for step in steps), seconds, 4),
                **vars(self._sampler.read()),
                slowest_rank=ranks and ranks.slowest,
                slowest_seconds=ranks and round(ranks.most, 6),
                median_seconds=ranks and round(ranks.median, 6),
            )
        )
        self.beat()

    def memory(self) -> int:
        """Bytes in use now, on the GPU if there is one."""
        return self._sampler.memory()

    def beat(self, state: str = "running") -> None:
        """Show that the run is alive."""
        if self._writer:
            self._writer.beat(state)

    def loss_since_save(self) -> float:
        """Mean training loss per target over the steps since the last call; NaN if there were none."""
        steps, self._since_save = [step for step in self._since_save if not step.skipped], []
        return mean_loss(steps)

    def write(self, *given: events.Event) -> None:
        records = [each for each in given if not self._is_ignored(each)]
        if self._writer and records:
            self._writer.append(*records)
            if self.watch and (found := self.watch(records)):
                self._writer.append(*found)

    def _is_ignored(self, record: events.Event) -> bool:
        return isinstance(record, events.Finding) and record.kind in self.ignore

    def head(self) -> Head | None:
        """The head of the journal so far, on the rank that writes it."""
        return self._writer.journal.head() if self._writer else None

    def sync(self) -> None:
        """Make all that was written durable."""
        if self._writer:
            self._writer.sync()

    def close(self) -> None:
        self._sampler.close()

    def _fetch(self, steps: list[Step]) -> tuple[list[list[float]], float]:
        """The figures of steps, and the seconds that the device still needed to make them."""
        started = time.perf_counter()
        measured = torch.stack([step.measured for step in steps]).cpu().double().tolist()
        return measured, time.perf_counter() - started if self._is_ahead else 0.0


def _rate(amount: float, seconds: float, digits: int) -> float:
    """An amount a second; NaN where a clock stood still or went back."""
    return round(amount / seconds, digits) if seconds > 0 else math.nan


def _record(
    step: Step,
    waited: float,
    loss_sum: float,
    targets: float,
    tokens: float,
    norm: float,
    skipped: float,
    is_broken: float,
    computed: float,
    loss_scale: float | None = None,
) -> events.Step:
    return events.Step(
        step=step.number,
        epoch=step.epoch,
        loss=loss_sum / targets if targets else math.nan,
        grad_norm=norm,
        learning_rate=step.learning_rate,
        targets=max(round(targets), 1) if targets else 0,  # weighted sums may be below 1
        tokens=int(tokens),
        samples=step.samples,
        seconds=max(round(step.seconds + waited, 6), 0.0),
        wait_seconds=max(round(step.wait_seconds, 6), 0.0),
        skipped=bool(skipped),
        loss_scale=loss_scale,
        computed_tokens=int(computed) if computed < tokens else None,
    )
