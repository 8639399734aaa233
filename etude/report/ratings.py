"""Ratings of the texts of a run by people."""

from collections.abc import Sequence
from dataclasses import dataclass

from etude.records.events import Rating
from etude.report.wording import number
from etude.text import one_line, plural


@dataclass(frozen=True)
class Ratings:
    """Ratings of one run, in counts; `mean` is of those from 1 to 5.

    duels   by name of the other run, how often this one was found better, as good and worse
    """

    count: int
    mean: float | None
    raters: list[str]
    duels: dict[str, tuple[int, int, int]]

    def __str__(self) -> str:
        """In one line; empty where nobody rated."""
        scored = self.count - sum(map(sum, self.duels.values()))
        parts = [f"{number(self.mean, 2)} of 5, mean of {plural(scored, 'rating')}"] if scored else []
        for other, (better, as_good, worse) in self.duels.items():
            parts.append(
                f"better than {one_line(other)} {better}, as good {as_good}, worse {plural(worse, 'time')}"
            )
        return f"{'; '.join(parts)} (by {one_line(', '.join(self.raters))})" if parts else ""


def count_ratings(ratings: Sequence[Rating]) -> Ratings:
    """Count the ratings of a run."""
    scores = [rating.score for rating in ratings if rating.against is None]
    duels: dict[str, tuple[int, int, int]] = {}
    for other in sorted({rating.against for rating in ratings if rating.against is not None}):
        mine = [rating.score for rating in ratings if rating.against == other]
        duels[other] = mine.count(1), mine.count(0.5), mine.count(0)
    mean = sum(scores) / len(scores) if scores else None
    return Ratings(len(ratings), mean, sorted({rating.rater for rating in ratings}), duels)
