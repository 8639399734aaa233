"""Formats of rows: a text, or a conversation whose answers are to be learnt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from etude.data.turns import (
    NOT_LEARNT,
    Message,
    check_row_marks,
    is_empty,
    list_texts,
    list_unread,
    name_unread,
    read_messages,
)
from etude.errors import InputError
from etude.text import kind_of

Row = dict[str, Any]
Kind = Literal["text", "prompt", "alpaca", "messages", "sharegpt"]

_PAIRS = (
    ("prompt", "completion"), ("prompt", "response"), ("prompt", "answer"), ("prompt", "output"),
    ("question", "answer"), ("question", "response"), ("query", "response"), ("query", "answer"),
    ("instruction", "response"), ("instruction", "completion"), ("instruction", "answer"),
    ("problem", "solution"), ("input", "output"),
)  # fmt: skip
_CONVERSATIONS = ("messages", "conversations", "conversation")
# Beside question and answer: what belongs to the question, what was said before, and what comes first.
_GIVEN = ("input", "context")
_HISTORY = "history"
_SYSTEMS = ("system", "system_prompt", "system_message")
_TOOLS = ("tools", "functions")
_SHOWN_FIELDS, _SHOWN_CHARACTERS = 6, 24


@dataclass(frozen=True)
class Format:
    """A kind of rows, and the fields that hold their content: the question first, the answer last.

    more: further fields that the first rows have and that are read: `context`, `history`, `system` ...
    """

    kind: Kind
    fields: tuple[str, ...]
    more: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.kind == "text":
            return f"field {self.fields[0]}"
        return f"{self.kind} ({', '.join((*self.fields, *self.more))})"

    @property
    def columns(self) -> frozenset[str]:
        """All fields that are read where a row has them."""
        if self.kind == "text":
            return frozenset(self.fields)
        parts = (*_GIVEN, _HISTORY) if self.kind in ("prompt", "alpaca") else ()
        return frozenset((*self.fields, *parts, *_SYSTEMS, *_TOOLS))

    def read(self, row: Row) -> tuple[str, list[Message] | None]:
        """Read the text of a row, and its messages if it has any. Raises: InputError naming the field."""
        if self.kind == "text":
            return _string(row, self.fields[0], hint="set field to one of"), None
        check_row_marks(row)
        for name in _TOOLS:
            if not is_empty(row.get(name)):
                raise InputError(
                    f"has {name!r}, which are not supported; leave such rows out, or remove the field"
                )
        messages = (
            read_messages(row.get(self.fields[0]), self.fields[0], self.kind)
            if self.kind in ("messages", "sharegpt")
            else _read_pair(row, self.fields[0], self.fields[-1])
        )
        system = _system(row)
        if system and messages[0]["role"] not in ("system", "developer"):
            messages.insert(0, {"role": "system", "content": system})
        elif system and messages[0]["content"].strip() != system.strip():
            raise InputError(
                "has one system message in a field of its own and another in its list; remove one"
            )
        return "\n\n".join(text for message in messages for text in list_texts(message)), messages

    def has_fields(self, row: Row) -> bool:
        """True if a row has the fields of the format, whatever they hold."""
        return all(name in row for name in self.fields if self.kind != "alpaca" or name != "input")

    def list_unread(self, row: Row) -> list[str]:
        """List the fields in the messages of a row that neither this format nor a chat template reads."""
        names = self.columns if self.kind != "text" else ()
        lists = [row[name] for name in row if name in names and isinstance(row[name], list)]
        turns = [turn for field in lists for turn in field if isinstance(turn, dict)]
        return list(dict.fromkeys(name_unread(name) for turn in turns for name in list_unread(turn)))


def find_format(rows: Sequence[Row], field: str, wanted: str | None) -> Format:
    """Find the format that most of the first rows of a source have, instructions before text.

    A row without it can then be named. If none fits any row, it is the format whose fields the first row has,
    so that an error can say what is wrong with them. wanted: the kind it has to be.
    """
    candidates = [form for form in _candidates(field) if wanted in (None, form.kind)]
    best = max(candidates, key=lambda form: sum(_fits(form, row) for row in rows))
    if not any(_fits(best, row) for row in rows):
        near = [Format("text", (field,)), *candidates] if wanted is None else candidates
        best = max(near, key=lambda form: _nearness(form, rows[0] if rows else {}))
    names = sorted(best.columns.difference(best.fields, _TOOLS))
    more = (name for name in names if not all(is_empty(row.get(name)) for row in rows))
    return replace(best, more=tuple(more))


def is_readable(row: Row, field: str, wanted: str | None) -> bool:
    """True if any format reads a row."""
    return any(_fits(form, row) for form in _candidates(field) if wanted in (None, form.kind))


def _candidates(field: str) -> Iterator[Format]:
    text = Format("text", (field,))
    if field != "text":  # who names a field wants it
        yield text
    for name in _CONVERSATIONS:
        yield Format("messages", (name,))
        yield Format("sharegpt", (name,))
    yield Format("alpaca", ("instruction", "input", "output"))
    yield from (Format("prompt", pair) for pair in _PAIRS)
    yield text


def _fits(form: Format, row: Row) -> bool:
    try:
        form.read(row)
    except InputError:
        return False
    return True


def _nearness(form: Format, row: Row) -> int:
    """2 if a row has the fields of a format, and its turns their keys; 1 if the fields only; else 0."""
    if not form.has_fields(row):
        return 0
    turns = row[form.fields[0]]
    keys = turns[0].keys() if isinstance(turns, list) and turns and isinstance(turns[0], dict) else ()
    return 1 + bool(keys) * ((form.kind == "sharegpt") == ("from" in keys or "value" in keys))


def _read_pair(row: Row, question: str, answer: str) -> list[Message]:
    more = [name for name in (*_GIVEN, _HISTORY) if not is_empty(row.get(name))]
    more = [name for name in more if name not in (question, answer)]
    if isinstance(row.get(question), list) and isinstance(row.get(answer), list):
        if more:
            raise InputError(
                f"has {more[0]!r} beside {question!r} as a list of messages; write it as one of these"
            )
        # Answers among the messages of the question are not to be learnt, as TRL has it.
        asked = read_messages(row.get(question), question)
        before = [message | NOT_LEARNT if message["role"] == "assistant" else message for message in asked]
        return [*before, *read_messages(row.get(answer), answer)]
    given = (_string(row, name) for name in more if name != _HISTORY)
    texts = [_string(row, question), *filter(str.strip, given)]
    return [*_history(row), *_as_messages("\n\n".join(texts), _string(row, answer))]


def _as_messages(asked: str, answered: str) -> list[Message]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


def _history(row: Row) -> list[Message]:
    """The turns before the question: pairs of a question and its answer, or messages."""
    turns: Any = row.get(_HISTORY)
    if is_empty(turns):
        return []
    if isinstance(turns, list) and isinstance(turns[0], dict):
        return read_messages(turns, _HISTORY, "sharegpt" if "from" in turns[0] else "messages")
    for number, turn in enumerate(turns if isinstance(turns, list) else [None], 1):
        if not (isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn)):
            raise InputError(
                f"has in {_HISTORY!r} a turn {number} that is no pair of strings: [question, answer]"
            )
    return [message for pair in turns for message in _as_messages(*pair)]


def _system(row: Row) -> str:
    """The system message that a field of its own holds; empty if there is none."""
    texts = {name: _string(row, name) for name in _SYSTEMS if not is_empty(row.get(name))}
    texts = {name: text for name, text in texts.items() if text.strip()}
    if len(set(texts.values())) > 1:
        raise InputError(f"has different system messages in {' and '.join(map(repr, texts))}; keep one")
    return next(iter(texts.values()), "")


def _string(row: Row, name: str, hint: str = "fields that hold one") -> str:
    value = row.get(name)
    if isinstance(value, str):
        return value
    what = "has no" if name not in row else f"has {kind_of(value)} as"
    strings = [repr(field[:_SHOWN_CHARACTERS]) for field, value in row.items() if isinstance(value, str)]
    named = ", ".join(strings[:_SHOWN_FIELDS]) + (" ..." if len(strings) > _SHOWN_FIELDS else "")
    others = f"{hint}: {named}" if named else "no field of it is one; give rows that have text"
    raise InputError(f"{what} field {name!r}, which must be a string; {others}")
