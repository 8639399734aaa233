"""A mean of weights beside the models that it was made of: whether it helps, on the same rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from etude.recipe.metric import ChosenMetric
from etude.records.events import plain
from etude.report.markdown import code, prose, table
from etude.report.program import load_model
from etude.report.quantized import Beside
from etude.report.wording import metric_title, short, with_interval
from etude.text import plural


@dataclass(frozen=True, kw_only=True)
class Averaged:
    """The result of averaging weights.

    members   values of the deciding figure, by the name of each checkpoint, in the order given
    used      those whose weights are in the mean; with is_greedy the ones that were taken
    best      the member that the mean is held against: the best one by the deciding figure
    figure    the deciding one: the metric of the run, or the loss where rows do not pair by the metric
    figures   of the best member (original), of the mean and their difference, on the validation samples
    samples   how many these are
    """

    members: Mapping[str, float]
    used: tuple[str, ...]
    best: str
    figure: str
    figures: Mapping[str, Beside]
    samples: int
    is_greedy: bool

    heading = "Average"
    whose = "its best member"
    asks = True

    @property
    def said(self) -> str:
        """A sentence on what the weights are."""
        return f"The mean of {plural(len(self.used), 'checkpoint')}."

    def program(self, auto: str) -> list[str]:
        """Lines of Python that load it. auto: the class of transformers."""
        return load_model(auto)

    @property
    def helps(self) -> bool | None:
        """True if the mean is better than the best member beyond the noise of the rows, False if worse."""
        difference = self.figures[self.figure].difference
        if difference is None:
            return None
        low, high = sorted(ChosenMetric.parse(self.figure).sign * bound for bound in difference[1:])
        return True if low > 0 else False if high < 0 else None

    @property
    def verdict(self) -> str:
        """A sentence on whether it helps."""
        beside, title = self.figures[self.figure], metric_title(self.figure)
        if len(self.used) == 1:
            return f"no other member makes {self.best} better, so the outcome is its weights alone"
        said = {
            True: f"better than {self.best}, the best member, beyond the noise of the rows",
            False: f"worse than {self.best}, the best member, beyond the noise of the rows",
            None: f"not distinguishable from {self.best}, the best member",
        }[self.helps]
        if beside.difference is None:
            return f"{said}: rows do not pair"
        value, low, high = beside.difference
        return f"{said}: {title} {value:+.2g} [{low:.2g}, {high:.2g}]"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        figures = {
            name: {
                "best_member": plain(each.original), "average": plain(each.made),
                "difference": plain(each.difference),
            }
            for name, each in self.figures.items()
        }  # fmt: skip
        return {
            "members": plain(dict(self.members)), "used": list(self.used), "best_member": self.best,
            "greedy": self.is_greedy, "figure": self.figure, "helps": self.helps, "verdict": self.verdict,
            "samples": self.samples, "figures": figures,
        }  # fmt: skip

    def rows(self) -> Iterator[tuple[str, str]]:
        """The result in rows of a name and a value."""
        title = metric_title(self.figure)
        for name, value in self.members.items():
            yield name, f"{title} {short(value)}{'' if name in self.used else ', left out'}"
        mean = self.figures[self.figure].made
        yield "average", f"{title} {with_interval(*mean, rows=self.samples)}"
        yield "verdict", self.verdict

    def section(self) -> str:
        """The section of a model card."""
        title = prose(metric_title(self.figure))
        members = [
            [code(name), short(value), "yes" if name in self.used else "no"]
            for name, value in self.members.items()
        ]
        how = (
            "taken one after another while the figure did not get worse" if self.is_greedy else "all of them"
        )
        rows = [[prose(metric_title(name)), *each.cells(self.samples)] for name, each in self.figures.items()]
        said = (
            f"The weights are the mean of {plural(len(self.used), 'checkpoint')}, {how}; an adapter was "
            f"merged into its base first. On the same {plural(self.samples, 'validation sample')}, intervals "
            f"of 95 %, the mean is {prose(self.verdict)}."
        )
        if self.is_greedy:
            said += " Members were chosen on these same samples, so its figures are a little too good."
        header = ("on validation samples", "best member", "mean", "difference")
        return "\n\n".join([said, table(("member", title, "in the mean"), members), table(header, rows)])
