"""Log windows: the steps of one log line and their means, the same for every reader of records."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from etude.records.events import REFUSALS, Control, Event, Resource, Step

_FEW_STEPS = 10  # over which a loss that is noisy from step to step is read


@dataclass(frozen=True)
class Window:
    """The steps between two log lines, and the resources measured over them.

    resource  None while the window is open
    elapsed   seconds of the run, over all attempts, when the window ended; 0 if its reader keeps no times
    refused   requests that were refused or void meanwhile
    """

    steps: list[Step]
    resource: Resource | None = None
    elapsed: float = 0.0
    refused: int = 0

    @property
    def step(self) -> int:
        """The last step."""
        return self.steps[-1].step

    @property
    def loss(self) -> float:
        """Mean training loss in nats per target."""
        return mean_loss(self.steps)

    @property
    def grad_norm(self) -> float:
        """Gradient norm of the last step that changed weights."""
        return _kept(self.steps)[-1].grad_norm

    @property
    def skipped(self) -> int:
        """The number of its steps that changed no weight."""
        return sum(step.skipped for step in self.steps)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last step."""
        return self.steps[-1].learning_rate

    @property
    def seconds(self) -> float:
        """Seconds of the steps."""
        return sum(step.seconds for step in self.steps)


def join_short_end(windows: Sequence[Window]) -> list[Window]:
    """The windows, the last one joined to the one before it if it has less than half as many steps.

    A run that ends shortly after a log line would end with the mean of a few noisy steps.
    """
    if len(windows) < 2 or 2 * len(windows[-1].steps) >= len(windows[-2].steps):
        return list(windows)
    *others, last, short = windows
    return [
        *others,
        replace(short, steps=[*last.steps, *short.steps], resource=short.resource or last.resource),
    ]


class OpenWindow:
    """Collects steps until a Resource record ends their window."""

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self.refused = 0

    def add(self, event: Event) -> Window | None:
        """The window that a record ends, else None."""
        if isinstance(event, Step):
            self._steps.append(event)
        self.refused += isinstance(event, Control) and event.action in REFUSALS
        if not isinstance(event, Resource) or not self._steps:
            return None
        steps, self._steps = self._steps, []
        refused, self.refused = self.refused, 0
        return Window(steps, event, refused=refused)

    def rest(self) -> Window | None:
        """The steps since the last window, which no record has ended yet."""
        return Window(self._steps) if self._steps else None


def mean_steps(log_window: int | None, steps: int) -> int:
    """The number of steps whose mean is the first, or last, loss of a run.

    These are the steps of a log window, or ten where each step has its line, but at most half of all steps.
    """
    wanted = log_window if log_window and log_window > 1 else _FEW_STEPS
    return max(min(wanted, steps // 2), 1)


def mean_loss(steps: Sequence[Step]) -> float:
    """Mean loss in nats per target over the targets of the steps; NaN without targets.

    Skipped steps count only where all are skipped.
    """
    kept = _kept(steps)
    targets = sum(step.targets for step in kept)
    return sum(step.loss * step.targets for step in kept) / targets if targets else float("nan")


def _kept(steps: Sequence[Step]) -> Sequence[Step]:
    return [step for step in steps if not step.skipped] or steps
