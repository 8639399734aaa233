"""The metric of a recipe, taken apart once: task, name and direction."""

from dataclasses import dataclass

_LOWER_IS_BETTER = ("loss", "perplexity", "bits_per_byte", "repetition", "trailing_text")


@dataclass(frozen=True)
class ChosenMetric:
    """The figure that says which moment of a run is the best.

    task  the name of its task, "" where a run has one task or the figure is of the whole run
    name  of the figure, without the task
    """

    task: str
    name: str
    lower_is_better: bool

    @classmethod
    def parse(cls, text: str, *, lower_is_better: bool | None = None) -> "ChosenMetric":
        """Read "f1" or "task:f1".

        lower_is_better: given for a metric of one's own, whose name does not tell.
        """
        task, _, name = text.rpartition(":")
        is_lower = name in _LOWER_IS_BETTER if lower_is_better is None else lower_is_better
        return cls(task, name, is_lower)

    @property
    def sign(self) -> int:
        """1 where a higher value is better, -1 where a lower one is."""
        return -1 if self.lower_is_better else 1

    def gain(self, value: float, other: float) -> float:
        """The amount by which a value is better than another; negative if it is worse."""
        return self.sign * (value - other)

    def __str__(self) -> str:
        return f"{self.task}:{self.name}" if self.task else self.name
