"""JSON logs: trainer_state.json of transformers, JSON Lines, lists of objects, histories of Keras."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etude import durable
from etude.errors import InputError
from etude.watch.logs.named import row_of
from etude.watch.logs.names import meaning_of
from etude.watch.logs.numbers import number_of
from etude.watch.logs.rows import Row, Source

_LISTS = ("log_history", "history", "logs", "metrics", "data", "rows", "records")
_OBJECTIVES = {
    "ForCausalLM": "causal", "LMHeadModel": "causal", "ForMaskedLM": "masked",
    "ForSequenceClassification": "classification", "ForConditionalGeneration": "seq2seq",
}  # fmt: skip
_OVER_TOKENS = ("causal", "masked", "seq2seq")
_MOST_CONFIG_BYTES = 1 << 20


def read_json(path: Path, text: str) -> Source | None:
    """The rows of a log that is one JSON value; None for other text, or JSON that is no log."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict) and isinstance(value.get("log_history"), list):
        rows = _rows(value["log_history"])
        return Source(
            "trainer_state.json of transformers", rows, _facts_of_trainer(value) | facts_beside(path)
        )
    if isinstance(value, dict):
        if columns := _columns(value):
            return Source("history of Keras", columns)
        value = next((value[name] for name in _LISTS if isinstance(value.get(name), list)), None)
    if isinstance(value, list):
        return Source("JSON", _rows(value))
    return None


def read_json_lines(text: str) -> Source | None:
    """The rows of JSON Lines; None if the first line with text is no object."""
    lines = text.splitlines()
    first = next(line for line in lines if line.strip())
    if _object(first) is None:
        return None
    source = Source("JSON Lines", [])
    found = [_object(line) for line in lines if line.strip()]
    source.rows = (row_of(each) for each in found if each is not None)
    if lost := found.count(None):
        source.notes.append(f"{lost:,} lines are no JSON objects, and are left out")
    return source


def facts_beside(path: Path) -> dict[str, Any]:
    """Facts from the config.json and adapter_config.json that transformers saves beside a log."""
    facts: dict[str, Any] = {}
    try:
        config = durable.read_json_object(path.parent / "config.json", most_bytes=_MOST_CONFIG_BYTES)
    except InputError:
        config = {}
    architectures = config.get("architectures")
    names = (
        [name for name in architectures if isinstance(name, str)] if isinstance(architectures, list) else []
    )
    kind = next(
        (kind for end, kind in _OBJECTIVES.items() if any(name.endswith(end) for name in names)), None
    )
    size = config.get("vocab_size")
    if kind:
        facts["objective"] = kind
        if kind in _OVER_TOKENS and type(size) is int and 1 < size < 2**31:
            facts["classes"] = size
    if durable.is_plain(path.parent / "adapter_config.json"):
        facts["is_pretrained"] = True
    return facts


def _object(line: str) -> dict[str, Any] | None:
    if not line.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _rows(values: list[Any]) -> Iterator[Row]:
    for value in values:
        if isinstance(value, dict):
            yield row_of(value)
        elif (
            isinstance(value, list) and len(value) == 3
        ):  # wall time, step, value: as TensorBoard's page saves it
            yield row_of({"step": value[1], "loss": value[2]})


def _columns(value: Mapping[str, Any]) -> list[Row] | None:
    """The rows of lists of numbers by name, one an epoch."""
    inner = value.get("history")
    lists = {
        name: each
        for name, each in (inner if isinstance(inner, dict) else value).items()
        if isinstance(each, list) and each and all(number_of(one) is not None for one in each)
    }
    if not any((meaning := meaning_of(name)) and "loss" in meaning.figure for name in lists):
        return None
    length = max(map(len, lists.values()))
    columns = {name: each for name, each in lists.items() if len(each) == length}
    if not any((meaning := meaning_of(name)) and meaning.figure in ("step", "epoch") for name in columns):
        columns["epoch"] = list(range(1, length + 1))
    return [row_of(dict(zip(columns, cells))) for cells in zip(*columns.values())]


def _facts_of_trainer(state: Mapping[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    steps, epochs = number_of(state.get("max_steps")), number_of(state.get("num_train_epochs"))
    if steps and 0 < steps < 2**53:
        facts["steps"] = int(steps)
        if epochs and 1 <= epochs <= steps and epochs < 2**31:
            facts["steps_per_epoch"] = round(steps / epochs)
    return facts
