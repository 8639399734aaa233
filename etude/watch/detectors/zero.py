"""Losses and gradients that are exactly zero."""

from typing import ClassVar

from etude.records.events import Finding
from etude.watch.point import Facts, Point

_CLEAR = 0.1  # a loss from which no single point leads to zero
_ABRUPT, _MANY = 3, 10  # points


class NoGradient:
    """A loss or a gradient norm of exactly zero: nothing is learnt.

    Rule: the loss is 0 and the norm 0, not finite or unknown; or the norm is 0 at a loss above 0.1. It holds
    at 3 points in a row if the loss was above 0.1 at the point before them and fell to 0 at once, else at 10,
    and then only if these are the first points or the loss is above 0.1, since a loss that reaches 0 step by
    step is learnt. An error where the norm is known and the loss was above 0.1 once, else a warning.
    Source: logs in reports of users, in which a filter shows losses that are NaN, or without targets, as 0.
    Delay: 3 or 10 points. False alarms: none on 27 real and 2,000 made healthy curves.
    """

    kind: ClassVar[str] = "no_gradient"

    def __init__(self, facts: Facts) -> None:
        self._before: float | None = None  # loss of the last point with a gradient
        self._in_a_row = self._since = 0
        self._highest = 0.0
        self._is_reported = False

    def observe(self, point: Point) -> Finding | None:
        loss, norm = point.loss, point.grad_norm
        if loss is None or point.skipped:
            return None
        self._highest = max(self._highest, loss)
        if not (norm == 0 and loss > _CLEAR if loss else norm is None or not 0 < norm < float("inf")):
            self._before, self._in_a_row, self._is_reported = loss, 0, False
            return None
        self._in_a_row += 1
        self._since = point.step if self._in_a_row == 1 else self._since
        is_abrupt = not loss and self._before is not None and self._before > _CLEAR
        is_told = is_abrupt or loss > _CLEAR or self._before is None
        if self._is_reported or not is_told or self._in_a_row < (_ABRUPT if is_abrupt else _MANY):
            return None
        self._is_reported = True
        return self._finding(point.step, loss, norm)

    def untold(self) -> str | None:
        return None

    def _finding(self, step: int, loss: float, norm: float | None) -> Finding:
        before = "" if self._before is None else f"; the loss was {self._before:.4g} before"
        figures = f"loss {loss:.4g}" + ("" if norm is None else f" and gradient norm {norm:g}")
        masked = "targets that are all masked, as where prompts fill the length"
        not_finite = (
            "losses that are not finite, which the log shows as 0 (transformers' logging_nan_inf_filter)"
        )
        if loss:
            causes = [
                "weights that train and get no gradient, as behind frozen inputs with checkpointing",
                "gradients below the range of fp16",
            ]
        else:
            causes = [masked, not_finite] if self._before is None else [not_finite, masked]
        return Finding(
            step,
            "nothing is learnt: the loss or its gradient is exactly zero",
            f"{figures} at each point since step {self._since:,}{before}",
            "see which of these it is before training goes on: count the targets of a batch, print its loss "
            "unfiltered, and list the weights without a gradient",
            severity="error" if norm is not None and self._highest > _CLEAR else "warning",
            window=[self._since, step],
            causes=causes,
            not_tested=["the targets of a batch", "its loss without a filter", "the gradient of each weight"],
            kind=self.kind,
            confidence=0.6,
        )
