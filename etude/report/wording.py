"""Figures as people read them."""

import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from etude.text import one_line

NOTHING = "–"
_LONGEST_METRIC = 60  # characters
_AS_WRITTEN = {"bleu": "BLEU", "chrf": "chrF", "mcc": "MCC"}
_LARGEST = 1e15  # more digits than a float has say nothing


def number(value: Any, digits: int = 4) -> str:
    """A figure: whole numbers with separators, others with decimals, or significant digits if tiny."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        is_tiny = 0 < abs(value) < 10.0 ** (1 - digits)
        return f"{value:.{digits}g}" if is_tiny else decimal(value, digits)
    return str(value)


def short(value: float | None, digits: int = 3) -> str:
    """A figure to three significant digits, or as many as given."""
    if value is None or not math.isfinite(value):
        return number(value)
    decimals = 0 if value == 0 else min(max(digits - 1 - math.floor(math.log10(abs(value))), 0), 8)
    return decimal(value, decimals, digits)


def decimal(value: float, decimals: int, digits: int = 4) -> str:
    """A figure with separators and decimals; one too large for them to `digits` significant digits."""
    return f"{value:,.{decimals}f}" if abs(value) < _LARGEST else f"{value:.{max(digits, 1)}g}"


def setting(value: Any) -> str:
    """A value of a recipe, nearly as TOML has it: `true`, `0.0002`, `q_proj, v_proj`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(setting, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {setting(each)}" for name, each in value.items())
    return str(value)


def metric_title(metric: str) -> str:
    """A metric in words: `validation loss`, `bits per byte`, `kinds f1`; the name of one's own is cleaned."""
    words = one_line(metric, _LONGEST_METRIC).replace("_", " ").replace(":", " ")
    return f"validation {words}" if metric == "loss" else words


def metric_heading(metric: str) -> str:
    """A metric as a heading, as the field writes it: `BLEU`, `chrF`, `Bits per byte`."""
    words = metric_title(metric)
    return _AS_WRITTEN.get(words) or words.capitalize()


def scale_of(metric: str) -> str:
    """The end of a scale, as ` of 100`, for a metric that does not end at 1."""
    return " of 100" if metric.rpartition(":")[2] in ("bleu", "chrf") else ""


def value_title(name: str) -> str:
    """A value of prepared data in words."""
    titles = {"cached": "read from cache", "seconds": "seconds to prepare"}
    return titles.get(name, name.replace("_", " "))


def count_title(name: str) -> str:
    """A count of a split in words; its tokens are those that are scored."""
    titles = {"tokens": "targets", "cut_away": "without answer", "cut_away_rows": "rows without answer"}
    return titles.get(name, name.replace("_", " "))


def is_sure(difference: Sequence[float]) -> bool:
    """True if a difference, given as value, low and high of its interval, has a sure sign."""
    _, low, high = difference
    return low > 0 or high < 0


def with_interval(value: float, low: float, high: float, *, rows: int, interval: bool = True) -> str:
    """A figure to the decimals that its interval leaves sure, or that its rows can show, and the interval.

    Two significant digits of half the interval are kept; an interval of no width is not shown.
    """
    if not math.isfinite(value):
        return number(value)
    half = high / 2 - low / 2
    unit = half / 10 if math.isfinite(half) and half > 0 else max(abs(value), 1.0) / max(rows, 1)
    decimals = min(max(math.ceil(-math.log10(max(unit, 1e-9))), 0), 4)
    text = decimal(value, decimals)
    return f"{text} [{decimal(low, decimals)}, {decimal(high, decimals)}]" if interval and half > 0 else text


def percent(ratio: float | None) -> str:
    """A share as a percentage."""
    return NOTHING if ratio is None else f"{100 * ratio:.1f} %"


def parameters_text(total: int | None, trainable: int | None) -> str:
    """Parameters, as `1,000` or, where some are frozen, `trainable 2,179,072 of 1,545,893,376 (0.1410 %)`."""
    if not total or trainable is None or trainable == total:
        return number(total)
    return f"trainable {trainable:,} of {total:,} ({100 * trainable / total:.4f} %)"


def steps_text(done: int, planned: int | None, epochs: float | None) -> str:
    """Steps that are done, as `20 of 40, 1.00 epochs`; without what is not known."""
    of = f" of {planned:,}" if planned else ""
    return f"{done:,}{of}" + ("" if epochs is None else f", {epochs:.2f} epochs")


def at_step(value: Any, step: int | None) -> str:
    """A figure and the step that it was measured at."""
    return f"{number(value)} at step {number(step)}"


def duration(seconds: float | None) -> str:
    """Seconds in the two largest units that fit; below a minute with a decimal, if given as a float."""
    if seconds is None:
        return NOTHING
    if seconds < 59.95:
        return f"{seconds} s" if isinstance(seconds, int) else f"{seconds:.1f} s"
    whole = round(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours:02} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {whole % 60:02} s"


def jumps_text(jumps: Sequence[tuple[int, float]]) -> str:
    """Jumps of a clock, each of an attempt and in seconds, in words; "" without any."""
    if not jumps:
        return ""
    _, largest = max(jumps, key=lambda jump: abs(jump[1]))
    way = "forward" if largest > 0 else "back"
    most = f"{duration(abs(largest))} {way}"
    return (
        f"The clock jumped {most}"
        if len(jumps) == 1
        else f"The clock jumped {len(jumps):,} times, by up to {most}"
    )


def size(count: float | None) -> str:
    """Bytes in decimal units."""
    if count is None:
        return NOTHING
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def numbers(values: Iterable[int], most: int = 5) -> str:
    """The first few of some numbers, and how many more there are."""
    listed = list(values)
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(f"{value:,}" for value in listed[:most]) + more


def in_seconds(moment: str) -> str:
    """An ISO moment without the fraction of its second, as people want to read it."""
    return re.sub(r"\.\d+", "", moment)


def moment(time: float) -> str:
    """A Unix time as a date and a time of UTC."""
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):  # of no year that there is
        return f"{time:g} s"
