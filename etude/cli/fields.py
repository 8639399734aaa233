"""Fields of rows that a recipe names: those given, and others found by the names usual for them."""

import difflib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from etude.errors import InputError, RecipeError
from etude.recipe.data import Source

Row = dict[str, Any]

_KEYS = ("field", "pair", "target", "label")
_FIRST_ROWS, _SHOWN = 100, 20
_MOST_LABEL_CHARACTERS = 256
_TEXTS = (
    "text", "code", "func", "function", "source_code", "source", "content", "snippet", "body", "sentence",
    "query", "question", "instruction", "prompt", "docstring", "nl", "input",
)  # fmt: skip
_LABELS = ("label", "labels", "class", "classes", "category", "categories", "target", "is_vulnerable", "y")
_TWO_TEXTS = (
    ("query", "code"), ("code1", "code2"), ("func1", "func2"), ("text1", "text2"),
    ("sentence1", "sentence2"), ("question", "code"),
)  # fmt: skip
_SIDES = (
    ("source", "target"), ("src", "tgt"), ("src", "trg"), ("buggy", "fixed"), ("before", "after"),
    ("java", "cs"), ("nl", "code"), ("input_text", "target_text"),
)  # fmt: skip


@dataclass(frozen=True)
class Fields:
    """Keys of a source and the fields that they name; `guessed` are the keys that nobody gave."""

    values: Mapping[str, str] = field(default_factory=dict)
    guessed: frozenset[str] = frozenset()

    def source(self, path: Path) -> Source:
        """The source that reads these fields."""
        return Source.model_validate({"path": str(path.absolute()), **self.values})

    def with_guess(self, guess: Mapping[str, str]) -> "Fields":
        """The fields, and others for keys that have none."""
        new = {key: name for key, name in guess.items() if key not in self.values}
        values = {**self.values, **new}
        ordered = {key: values[key] for key in _KEYS if key in values}
        return replace(self, values=ordered, guessed=self.guessed | set(new))


def read_first_rows(data: Path) -> list[Row]:
    """The first rows of the data; none if its files are texts. Raises: InputError if it cannot be read."""
    from etude.data.layout import look_through

    source = Source(path=str(data.absolute()))
    rows = (
        row
        for file in look_through(source).files
        if file.is_read_by_rows
        for _, row in file.rows(source.max_row_bytes, undecodable=True)
        if row is not None
    )
    return list(itertools.islice(rows, _FIRST_ROWS))


def check_given(given: Mapping[str, str], rows: Sequence[Row], data: Path) -> None:
    """Check that the rows have the fields. Raises: RecipeError with near names for each that they lack."""
    names = _names(rows)
    problems = []
    for key, name in given.items():
        if not rows:
            problems.append(f"{data} has texts and no rows, so --{key} {name!r} names nothing; leave it out")
        elif name not in names:
            near = difflib.get_close_matches(name[:100], names, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            problems.append(f"--{key}: {data} has no field {name[:60]!r}; {hint}{_list(names)}")
    if problems:
        raise RecipeError(problems)


def find_labelled(given: Fields, rows: Sequence[Row], data: Path) -> Fields:
    """Find text and label of rows to classify. Raises: InputError if no name tells."""
    found = given.with_guess(_first("label", _LABELS, filter(_is_label_of(rows), _names(rows))))
    if "label" not in found.values:
        raise InputError(
            f"{data} has no field that is called as labels mostly are ({', '.join(_LABELS[:4])}); name it "
            f"with --label FIELD; {_list(_names(rows))}"
        )
    texts = _texts(rows, found)
    if not found.values.keys() & {"field", "pair"}:
        two = next((two for two in _TWO_TEXTS if set(two) <= set(texts)), ())
        found = found.with_guess(dict(zip(("field", "pair"), two)))
    return _find_text(found, rows, data)


def find_sides(given: Fields, rows: Sequence[Row], data: Path) -> Fields | None:
    """Find source and target of rows; None if no name tells the target.

    Raises: InputError if the target was given, and no name tells the source.
    """
    texts = set(_texts(rows, Fields())) | set(given.values.values())
    for source, target in _SIDES:
        guess = {"field": source, "target": target}
        if {source, target} <= texts and all(
            given.values.get(key, name) == name for key, name in guess.items()
        ):
            return given.with_guess(guess)
    return _find_text(given, rows, data) if "target" in given.values else None


def has_labels(rows: Sequence[Row]) -> bool:
    """True if rows have a field that is called as labels mostly are."""
    return bool(_first("label", _LABELS, filter(_is_label_of(rows), _names(rows))))


def why_no_target(rows: Sequence[Row], data: Path) -> str:
    """The problem of rows without anything that an encoder-decoder could learn to write, or to say."""
    return (
        f"{data} has no fields that are called as source and target mostly are; name them with --field FIELD "
        f"--target FIELD, or a label with --label FIELD; {_list(_names(rows))}"
    )


def _find_text(found: Fields, rows: Sequence[Row], data: Path) -> Fields:
    texts = _texts(rows, found)
    found = found.with_guess(
        _first("field", _TEXTS, texts) or _first("field", texts[:1], texts[: len(texts) == 1])
    )
    if "field" not in found.values:
        raise InputError(
            f"{data}: no name tells which field is the text; name it with --field FIELD; {_list(texts)}"
        )
    return found


def _texts(rows: Sequence[Row], found: Fields) -> list[str]:
    """Names of fields that hold text in each row and are not taken yet."""
    names = (name for name in _names(rows) if name not in found.values.values())
    return [
        name for name in names if all(isinstance(row.get(name), str) and row[name].strip() for row in rows)
    ]


def _is_label_of(rows: Sequence[Row]) -> Any:
    """A test of names: whether the first rows hold what can be a label."""

    def is_label(name: str) -> bool:
        values = [row[name] for row in rows if name in row]
        single = itertools.chain.from_iterable(
            value if isinstance(value, list) else [value] for value in values
        )
        return all(
            isinstance(each, int | str | float) and len(str(each)) <= _MOST_LABEL_CHARACTERS
            for each in single
        )

    return is_label


def _first(key: str, usual: Sequence[str], names: Any) -> dict[str, str]:
    """The first usual name that is there, in lower case or not."""
    there = {name.lower(): name for name in reversed(list(names))}
    return next(({key: there[name]} for name in usual if name in there), {})


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:_SHOWN])
    return f"its fields are: {shown}{' ...' if len(names) > _SHOWN else ''}"
