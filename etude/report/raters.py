"""Several raters of one run, or of two side by side: their agreement, and a verdict where it allows one."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from etude.records.events import Rating, plain
from etude.report.wording import number
from etude.scores.agreement import Agreement, Level, agreement
from etude.scores.intervals import bootstrap
from etude.text import one_line, plural, shorten

# Krippendorff, Content Analysis (2004), section 11.4.2: below it not even tentative conclusions.
LEAST_ALPHA = 0.667
_NAMED = 5


@dataclass(frozen=True)
class Disagreement:
    """An item on which raters differ most, and what each says."""

    prompt: str
    scores: dict[str, float]


@dataclass(frozen=True)
class Raters:
    """Ratings of items by several people; a later rating of the same item by the same rater counts.

    value     mean over items of the mean of their ratings, with its interval of 95 % over items: from 1 to 5,
              or the share in which the run is found better than the other, 0.5 as good
    against   the other run, None where texts were scored alone
    """

    raters: list[str]
    level: Level
    agreement: Agreement
    value: tuple[float, float, float]
    disagreements: list[Disagreement]
    against: str | None = None

    @property
    def allows_verdict(self) -> bool:
        """True if all of the interval of alpha is above what a tentative conclusion needs."""
        return self.agreement.low >= LEAST_ALPHA

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values: dict[str, Any] = plain({**asdict(self), "verdict": self.verdict()})
        return values

    def verdict(self) -> str:
        """The verdict in words, or why there is none."""
        found = self.agreement
        if not found.items:
            return "No verdict: no text has ratings of two raters."
        if math.isnan(found.alpha):
            return "No verdict: all ratings are the same, so agreement cannot be told from habit."
        if not self.allows_verdict:
            why = f"alpha may be {number(found.low, 3)}" if not math.isnan(found.low) else "there is one item"
            return f"No verdict: raters may agree too little ({why}; {LEAST_ALPHA} is needed)."
        value, low, high = self.value
        bounds = f"{number(value, 2)} [{number(low, 2)}, {number(high, 2)}]"
        if self.against is None:
            return f"{bounds} of 5."
        who = "No difference from" if low <= 0.5 <= high else "Better than" if low > 0.5 else "Worse than"
        return f"{who} {one_line(self.against)}: {bounds}, where 0.5 is as good."

    def lines(self) -> list[str]:
        """The agreement, the verdict and the items that raters differ on."""
        found, names = self.agreement, one_line(", ".join(self.raters))
        of = f"{plural(found.ratings, 'rating')} of {plural(found.items, 'text')} by {names}"
        alpha = f"{number(found.alpha, 3)} [{number(found.low, 3)}, {number(found.high, 3)}]"
        lines = [f"Krippendorff's alpha ({self.level}) {alpha}, {of}."] if found.items else [of]
        for each in self.disagreements:
            said = ", ".join(f"{name} {number(score)}" for name, score in sorted(each.scores.items()))
            lines.append(f"differ: {one_line(said)}: {shorten(one_line(each.prompt))}")
        return [*lines, self.verdict()]


def compare_raters(
    ratings: Sequence[Rating], *, against: str | None = None, level: Level = "ordinal"
) -> Raters:
    """The agreement of the ratings of a run, of texts alone or beside the run `against`."""
    items: dict[tuple[int, str, str], dict[str, float]] = {}
    for rating in ratings:
        if rating.against == against:
            items.setdefault((rating.step, rating.prompt, rating.text), {})[rating.rater] = rating.score
    means = np.array([np.mean([*each.values()]) for each in items.values()])
    found = bootstrap(lambda rows: float(means[rows].mean()), len(means))
    value = float(means.mean()) if len(means) else math.nan
    spread = {item: max(each.values()) - min(each.values()) for item, each in items.items()}
    widest = sorted((item for item in items if spread[item] > 0), key=lambda item: -spread[item])[:_NAMED]
    return Raters(
        sorted({name for each in items.values() for name in each}), level,
        agreement([[*each.values()] for each in items.values()], level), (value, found.low, found.high),
        [Disagreement(item[1], items[item]) for item in widest], against,
    )  # fmt: skip
