"""Rows from named values, as tables and JSON hold them."""

from collections.abc import Iterator, Mapping
from typing import Any

from etude.watch.logs.names import is_of_evaluation, meaning_of
from etude.watch.logs.numbers import number_of
from etude.watch.logs.rows import Row

_SPLITS = ("split", "phase", "mode", "stage", "type", "event", "set", "subset", "prefix", "kind")
_RUNS = ("run", "run_id", "run_name", "experiment", "experiment_id", "trial", "trial_id")
_NAMES = ("tag", "metric", "name", "key", "series", "metric_name")
_VALUES = ("value", "Value", "metric_value")
_DEEPEST, _MOST_NAMES = 4, 500


def row_of(values: Mapping[str, Any]) -> Row:
    """A row of the numbers among named values; blanks and words are left out.

    Words count where they say that the figures are of an evaluation (`split`, `phase` ...), give the name
    of a single value (`tag`, `metric` ...), or name one of several runs (`run`, `trial` ...).
    """
    flat = dict(_flatten(values))
    run = next((str(flat[name])[:80] for name in _RUNS if name in flat), "")
    numbers = {
        name: number
        for name, value in flat.items()
        if name not in _RUNS and (number := number_of(value)) is not None
    }
    label = next((flat[name] for name in _NAMES if isinstance(flat.get(name), str)), None)
    value = next((name for name in _VALUES if name in numbers), None)
    if label and value:
        numbers[label[:200]] = numbers.pop(value)
    said = (flat[name] for name in _SPLITS if isinstance(flat.get(name), str))
    if any(is_of_evaluation(word) for word in said):
        numbers = {_of_evaluation(name): number for name, number in numbers.items()}
    return Row(numbers, run)


def _of_evaluation(name: str) -> str:
    meaning = meaning_of(name)
    is_place = meaning is not None and meaning.figure in ("step", "epoch", "rank", "eval_loss", "metric")
    return name if is_place else f"eval/{name}"


def _flatten(values: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Values by name, those of objects within objects as `outer/inner`."""
    for _, (name, value) in zip(range(_MOST_NAMES), values.items()):
        if isinstance(value, Mapping):
            if depth < _DEEPEST:
                yield from _flatten(value, f"{prefix}{name}/", depth + 1)
        elif not isinstance(value, list):
            yield f"{prefix}{name}", value
