"""Labels of classified texts: their names and order, and their places among the classes of a model."""

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from etude.data.rows import NO_VALUES
from etude.data.samples.sample import Flags, Ints
from etude.errors import InputError
from etude.scores.order import NUMBER, sort_key
from etude.text import kind_of

_MOST_CHARACTERS = 256
_LABELS = 1000  # from here on there must be ten rows of each
_FEW = 0.05  # a smaller share of rows with no label or several is named, as it may be an oversight
_LIST_AS_TEXT = re.compile(r"\[\s*(\d+|['\"].*['\"]|.*,.*)?\s*\]|[01]([\s,;|]+[01])+", re.DOTALL)
_SHOWN = 100


@dataclass(frozen=True)
class Labels:
    """The labels of a classification.

    names  of all
    multi  a text may have several, or none
    notes  for a person
    """

    names: tuple[str, ...]
    multi: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """The labels of a run over the classes of the model it starts from.

    names    of the outputs
    columns  (k,) the output of each label of the data
    kept     how many of the model's outputs, the first ones, keep their meaning; 0: the head is drawn anew
    note     what a person should know of it; empty if the model has no labels of its own
    """

    names: tuple[str, ...]
    columns: tuple[int, ...]
    kept: int
    note: str


def read_label(row: dict[str, Any], field: str, name: str) -> Any:
    """The label of a row: a name, a whole number, true or false, or a list of them. Raises: InputError."""
    if field not in row:
        raise InputError(
            f"{name} has no label field {field!r}; its fields are: {str(list(row)[:20])[1:-1][:160]}"
        )
    value = row[field]
    values = value if isinstance(value, list) else [value]
    for each in values:
        is_flag = isinstance(value, list) and isinstance(each, float) and each in (0.0, 1.0)
        if not (isinstance(each, str | int | bool) or is_flag) or not str(each).strip():
            raise InputError(
                f"{name}: label is {_shown(value)}; expected a name or whole number, a list of them, or of 0 "
                f"and 1{_advise_whole(value)}"
            )
        wrong = None
        if len(str(each)) > _MOST_CHARACTERS:
            wrong = (
                f"has {len(str(each)):,} characters; a label has at most {_MOST_CHARACTERS}: is that the "
                "right field?"
            )
        elif any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in str(each)):
            wrong = "holds a control character or a line break; take it out"
        elif isinstance(each, str) and _LIST_AS_TEXT.fullmatch(each.strip()):
            wrong = 'is text that looks like a list; write a JSON list, as [0, 1, 1] or ["a", "b"]'
        if wrong is not None:
            raise InputError(f"{name}: label {ascii(each)[:60]} {wrong}")
    return value


def _shown(value: Any) -> str:
    """A label as JSON has it, cut; a text in the quotes that all errors have."""
    try:
        return repr(value)[:60] if isinstance(value, str) else json.dumps(value, ensure_ascii=False)[:60]
    except RecursionError:
        return kind_of(value)


def _advise_whole(value: Any) -> str:
    """Advice for whole numbers written with a fraction, as pandas does beside empty cells."""
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(x, int | float) and math.isfinite(x) and x == int(x) for x in values):
        return ""
    whole = [int(x) for x in values]
    return f"; write {_shown(whole if isinstance(value, list) else whole[0])} (in pandas: astype(int))"


def labelling(value: Any) -> tuple[str, ...]:
    """A label that equals others of the same meaning: the order matters in a 0/1 vector, not in a set."""
    values = value if isinstance(value, list) else [value]
    spelled = [json.dumps(each) for each in values]
    return tuple(spelled if _is_vector(value) else sorted(spelled))


def number_labels(
    values: Sequence[Any], chosen: Ints, is_train: Flags, *, fields: str, name_row: Callable[[int], str]
) -> tuple[Labels, npt.NDArray[np.uint8]]:
    """The labels of the training rows in their order, and which of them each row has, (n, k).

    values: the different ones of `read_label`. chosen, is_train: (n,) which of them a row has, and what the
    row is for. fields, name_row: how errors call the label fields, and a row.

    Raises: InputError if a held-out row has another label, if all training rows have the same, if they are as
    many as identifiers, or if lists are neither sets nor vectors.
    """
    in_train = np.bincount(chosen[is_train], minlength=len(values))

    def first(index: int) -> str:
        return name_row(int(np.argmax(chosen == index)))

    length = _vector_length(values)
    sets = _as_sets(values, length, first)
    rows: Counter[str] = Counter()
    for names, count in zip(sets, in_train.tolist()):
        rows.update({name: count for name in names if count})
    known = set(rows) if length is None else {str(place) for place in range(length)}
    if len(known) > max(_LABELS, is_train.sum() / 10):
        raise InputError(
            f"label = {fields} has {len(known):,} names in {int(is_train.sum()):,} training rows, too many "
            "to be learnt; is that the right label field?"
        )
    for index, names in enumerate(sets):
        if unknown := [name for name in names if name not in known]:
            raise InputError(
                f"{first(index)} has label {unknown[0]!r}, which no training row has; those are "
                f"{listed(sorted(known, key=sort_key))}; mend the label, or leave the row out"
            )
    different = {frozenset(names) for names, count in zip(sets, in_train.tolist()) if count}
    if len(known) < 2 or len(different) < 2:
        raise InputError(
            f"all training rows have one label ({listed(sorted(rows, key=sort_key)) or 'none'}); "
            "classification needs two or more: is that the right label field?"
        )
    number = {name: index for index, name in enumerate(sorted(known, key=sort_key))}
    table = np.zeros((len(sets), len(number)), dtype=np.uint8)
    for index, names in enumerate(sets):
        table[index, [number[name] for name in names]] = 1
    multi = any(len(names) != 1 for names in sets)
    counts = np.bincount(chosen, minlength=len(values)).tolist()
    notes = (
        *_notes_on_form(values, sets, counts, length, first),
        *(_notes_on_spelling(values, counts, rows) if length is None else ()),
    )
    return Labels(tuple(number), multi, notes), table[chosen]


def listed(names: Sequence[str]) -> str:
    """Some names in a row, as many as an error has room for, and how many more there are."""
    shown: list[str] = []
    for name in names:
        if sum(len(each) + 2 for each in shown) + len(name) > _SHOWN and shown:
            break
        shown.append(name if len(name) <= _SHOWN else name[: _SHOWN - 1] + "…")
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def lay_over(names: tuple[str, ...], theirs: tuple[str, ...], *, are_named: bool) -> Layout:
    """Lay the labels of the data over the classes of a model, which keep their order.

    are_named: the names are the model's own, not LABEL_0, LABEL_1 ....
    """
    numbers = {str(index): index for index in range(len(theirs))}
    where = {name: index for index, name in enumerate(theirs)}
    if not theirs:
        return Layout(names, tuple(range(len(names))), 0, "")
    if any(name in where for name in names):
        new = [name for name in names if name not in where]
        unused = [name for name in theirs if name not in names]
        parts = [f"the order is the model's: {listed(theirs)}"]
        if unused:
            parts.append(f"no row has {listed(unused)}, which the model keeps")
        if new:
            parts.append(f"new to the model: {listed(new)}, with outputs drawn anew beside those it has")
            parts += _alike(new, theirs)
        out = (*theirs, *new)
        place = {name: index for index, name in enumerate(out)}
        note = "" if names == theirs else "; ".join(parts)
        return Layout(out, tuple(place[name] for name in names), len(theirs), note)
    if set(names) == set(numbers):
        out = theirs if are_named else names
        pairs = listed([f"{number} = {name}" for number, name in enumerate(theirs)])
        columns = tuple(numbers[name] for name in names)
        return Layout(out, columns, len(theirs), f"numbers are the model's: {pairs}")
    same = tuple(range(len(names)))
    if not are_named and len(names) == len(theirs):
        pairs = listed([f"{ours} = {name}" for ours, name in zip(names, theirs)])
        note = (
            f"the model's classes have no names and are taken in order: {pairs}; if they mean something "
            "else, say so in id2label of its config.json"
        )
        return Layout(names, same, len(theirs), note)
    note = f"none of {listed(names)} is a label of the model ({listed(theirs)}): its head is drawn anew"
    return Layout(names, same, 0, "; ".join([note, *_alike(names, theirs)]))


def _is_vector(value: Any) -> bool:
    """True for a vector of 0 and 1: as a set, two or more of these would say nothing."""
    is_list = isinstance(value, list) and len(value) > 1
    return is_list and all(not isinstance(x, str) and x in (0, 1) for x in value)


def _vector_length(values: Sequence[Any]) -> int | None:
    """The length of the vectors that all labels are; None if they are none."""
    if not all(map(_is_vector, values)):
        return None
    lengths = {len(value) for value in values}
    return lengths.pop() if len(lengths) == 1 else None


def _as_sets(values: Sequence[Any], length: int | None, first: Callable[[int], str]) -> list[tuple[str, ...]]:
    """The names of the labels of each value. Raises: InputError for a list that is neither set nor vector."""
    if length is not None:
        return [tuple(str(place) for place, flag in enumerate(value) if flag) for value in values]
    sets = []
    for index, value in enumerate(values):
        each = value if isinstance(value, list) else [value]
        numbers = [number for number in each if not isinstance(number, str)]
        if len(numbers) > len(set(numbers)) or any(isinstance(number, float) for number in numbers):
            raise InputError(
                f"{first(index)}: label is {str(value)[:60]}, which is no set of classes; as a vector of 0 "
                "and 1 it needs the same length as that of every other row; write such vectors, or lists of "
                "names"
            )
        sets.append(tuple(dict.fromkeys(map(str, each))))
    return sets


def _notes_on_form(
    values: Sequence[Any], sets: Sequence[tuple[str, ...]], counts: Sequence[int], length: int | None,
    first: Callable[[int], str],
) -> Iterator[str]:  # fmt: skip
    """Notes on how lists were read, and on the rows that make the labels several."""
    rows = sum(counts)
    lists = sum(count for value, count in zip(values, counts) if isinstance(value, list))
    odd = [index for index, names in enumerate(sets) if len(names) != 1]
    if length is not None:
        yield f"labels are vectors of 0 and 1, read as labels 0 to {length - 1} by position" + (
            "" if odd else "; each has a single 1, so a row has one label"
        )
    elif 0 < lists < rows:
        yield f"labels are lists in {lists:,} rows and single values in {rows - lists:,}"
    elif lists and not odd:
        yield "every label is a list of one, so a row has one label"
    if length is None and lists and {name for names in sets for name in names} <= {"0", "1"}:
        yield "lists of 0 and 1 with different lengths are read as sets of the labels 0 and 1, not as vectors"
    several = sum(counts[index] for index in odd)
    if length is None and 0 < several < max(_FEW * rows, 2):
        yield (
            f"a row may have several labels or none because {several:,} of {rows:,} rows do, the first "
            f"{first(odd[0])}; if that is an oversight, mend them, and each row has one label"
        )
    twice = sum(
        count for value, names, count in zip(values, sets, counts)
        if length is None and isinstance(value, list) and len(value) > len(names)
    )  # fmt: skip
    if twice:
        yield f"{twice:,} rows name a label twice, which counts once"


def _notes_on_spelling(values: Sequence[Any], counts: Sequence[int], rows: Counter[str]) -> Iterator[str]:
    """Notes on labels that differ as no person would have them differ, with their training rows."""
    kinds: dict[str, Counter[str]] = {}
    for value, count in zip(values, counts):
        for each in value if isinstance(value, list) else [value]:
            kind = {str: "text", bool: "a truth value"}.get(type(each), "a number")
            kinds.setdefault(str(each), Counter())[kind] += count
    for name, spellings in kinds.items():
        if len(spellings) > 1:
            ways = " and ".join(f"as {kind} in {count:,} rows" for kind, count in spellings.items())
            yield f"label {json.dumps(name)} is written {ways}, and read as one"
    for name, spellings in kinds.items():
        if name.strip() in NO_VALUES and (count := spellings["text"]):
            yield (
                f"label {json.dumps(name)} ({count:,} rows) looks like an empty cell as pandas writes it, "
                "and is read as a name; leave such rows out if they have no label"
            )
    alike: dict[str, list[str]] = {}
    for name in sorted(rows, key=sort_key):
        alike.setdefault(_folded(name), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            is_hidden = len({unicodedata.normalize("NFC", name) for name in names}) < len(names)
            each = (f"{json.dumps(name, ensure_ascii=is_hidden)} ({rows[name]:,} rows)" for name in names)
            shown = ", ".join(each)
            yield f"labels that differ in case, blanks, Unicode form or type only are separate: {shown}"


def _alike(names: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """A note on labels of the data that differ in spelling alone from one of the model's."""
    folded = {_folded(name): name for name in theirs}
    alike = [name for name in names if _folded(name) in folded]
    pairs = [f"{json.dumps(name)} from {json.dumps(folded[_folded(name)])}" for name in alike]
    return [f"in spelling alone differs {listed(pairs)}"] if pairs else []


def _folded(name: str) -> str:
    text = unicodedata.normalize("NFKC", name).casefold()
    kept = (sign for sign in text if unicodedata.category(sign) != "Cf" and not sign.isspace())
    text = "".join(kept)
    text = {"true": "1", "false": "0"}.get(text, text)
    return str(Decimal(text).normalize() + 0) if NUMBER.fullmatch(text) else text
