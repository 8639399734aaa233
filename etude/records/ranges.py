"""Values that figures can have: one beyond is no measurement, whatever its checksum says."""

import math
from collections.abc import Collection, Iterable

from etude.records.events import Evaluation, Event, Scores

_SHARE, _PERCENT, _ANY_LOSS = (0.0, 1.0), (0.0, 100.0), (0.0, math.inf)
_RANGES = {
    **dict.fromkeys(("loss", "perplexity", "bits_per_byte"), _ANY_LOSS),
    **dict.fromkeys(("bleu", "chrf"), _PERCENT),
    "mcc": (-1.0, 1.0),
    **dict.fromkeys(
        (
            "accuracy", "f1", "precision", "recall", "f1_macro", "precision_macro", "recall_macro",
            "f1_micro", "precision_micro", "recall_micro", "stop_rate", "repetition", "distinct_2",
            "trailing_text", "format_kept", "exact_match", "edit_similarity", "parse_rate",
        ),
        _SHARE,
    ),
}  # fmt: skip
_ROUNDING = 1e-3  # of the upper end, or of a nat: bf16 and sums of floats leave less


def is_possible(event: Event, own_code: Collection[str] = ()) -> bool:
    """True for a record whose figures are all within their ranges; NaN is a figure of nothing.

    own_code: keys of the user's code in the environment, as `loss` and `metric NAME`, which have no range.
    """
    if isinstance(event, Evaluation):
        own = {"loss": event.loss, "perplexity": event.perplexity, "bits_per_byte": event.bits_per_byte}
        values = [(name, value) for name, value in {**own, **event.metrics}.items() if value is not None]
        return _are_possible(values, own_code)
    if isinstance(event, Scores):
        figures = [figure for system in event.systems.values() for figure in system.items()]
        return _are_possible([(name, values[0]) for name, values in figures], own_code)
    return True


def is_in_range(name: str, value: float) -> bool:
    """True for a value that a figure of this name can have: `f1`, `kinds:f1` of a task, `f1/capability`."""
    low, high = _RANGES.get(name.partition("/")[0].rpartition(":")[2], (-math.inf, math.inf))
    rounding = _ROUNDING * (high if high < math.inf else 1.0)
    return math.isnan(value) or low - rounding <= value <= high + rounding


def _are_possible(values: Iterable[tuple[str, float]], own_code: Collection[str]) -> bool:
    has_own_loss = bool({"loss", "model"} & set(own_code))
    return all(
        is_in_range(name, value)
        or f"metric {name}" in own_code
        or (has_own_loss and _RANGES[name.partition("/")[0].rpartition(":")[2]] is _ANY_LOSS)
        for name, value in values
    )
