"""What the rows of JSONL hold: a text each, or a conversation each, whose answers are to be learnt."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from etude.data.turns import Message, check_row_marks, is_answer, read_mark
from etude.errors import InputError

Row = dict[str, Any]
Kind = Literal["text", "prompt", "alpaca", "messages", "sharegpt"]

_PAIRS = (
    ("prompt", "completion"), ("prompt", "response"), ("prompt", "answer"), ("prompt", "output"),
    ("question", "answer"), ("question", "response"), ("query", "response"), ("query", "answer"),
    ("instruction", "response"), ("instruction", "completion"), ("instruction", "answer"),
    ("problem", "solution"), ("input", "output"),
)  # fmt: skip
_CONVERSATIONS = ("messages", "conversations", "conversation")
_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant"}


@dataclass(frozen=True)
class Format:
    """A kind of rows, and the fields that hold their content: what is asked first, the answer last."""

    kind: Kind
    fields: tuple[str, ...]

    def __str__(self) -> str:
        if self.kind == "text":
            return f"field {self.fields[0]}"
        return f"{self.kind} ({', '.join(self.fields)})"

    def read(self, row: Row) -> tuple[str, list[Message] | None]:
        """The text of a row and, unless the row is nothing else, its messages.

        Raises: InputError that says what is missing, but not in which row.
        """
        if self.kind == "text":
            return _string(row, self.fields[0], hint="set field to one of"), None
        check_row_marks(row)
        messages = _READERS[self.kind](row, self.fields)
        system = row.get("system")
        if isinstance(system, str) and system.strip() and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": system})
        return "\n\n".join(message["content"] for message in messages), messages


def find_format(rows: Sequence[Row], field: str, wanted: str | None) -> Format:
    """The format that all of the first rows of a source have, instructions before text; `wanted` narrows the choice.

    If none fits all of them, the one that fits most, so that a row without it can be named; text if none fits any.
    """
    candidates = [form for form in _candidates(field) if wanted in (None, form.kind)]
    best = max(candidates, key=lambda form: sum(_fits(form, row) for row in rows))
    return best if wanted is not None or any(_fits(best, row) for row in rows) else Format("text", (field,))


def has_answer(messages: Sequence[Message]) -> bool:
    return any(map(is_answer, messages))


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


def _read_pair(row: Row, fields: tuple[str, ...]) -> list[Message]:
    question, answer = _string(row, fields[0]), _string(row, fields[1])
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _read_alpaca(row: Row, fields: tuple[str, ...]) -> list[Message]:
    question, answer = _string(row, "instruction"), _string(row, "output")
    given = _string(row, "input") if row.get("input") is not None else ""
    if given.strip():
        question = f"{question}\n\n{given}"
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _read_messages(row: Row, fields: tuple[str, ...], role: str = "role", content: str = "content") -> list[Message]:
    turns = row.get(fields[0])
    if not isinstance(turns, list) or not turns:
        raise InputError(f"has no list {fields[0]!r} with at least one message")
    messages = []
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict) or not isinstance(turn.get(role), str) or not isinstance(turn.get(content), str):
            raise InputError(f"has a message {number} without the strings {role!r} and {content!r}")
        if turn.get("tool_calls"):
            raise InputError(f"has tool calls in message {number}, which are not supported")
        others = {name: value for name, value in turn.items() if isinstance(value, str) and name not in (role, content)}
        said = _ROLES.get(turn[role].lower(), turn[role].lower())
        mark = read_mark(turn, number, is_assistant=said == "assistant")
        messages.append({"role": said, "content": turn[content], **others, **mark})
    return messages


def _read_sharegpt(row: Row, fields: tuple[str, ...]) -> list[Message]:
    return _read_messages(row, fields, role="from", content="value")


_READERS: dict[Kind, Callable[[Row, tuple[str, ...]], list[Message]]] = {
    "prompt": _read_pair,
    "alpaca": _read_alpaca,
    "messages": _read_messages,
    "sharegpt": _read_sharegpt,
}


def _string(row: Row, name: str, hint: str = "fields that hold one") -> str:
    value = row.get(name)
    if isinstance(value, str):
        return value
    what = "has no" if name not in row else f"has a {type(value).__name__} as"
    strings = [repr(field) for field, value in row.items() if isinstance(value, str)][:20]
    raise InputError(
        f"{what} field {name!r}, which must be a string; {hint}: {', '.join(strings) or '(no field holds a string)'}"
    )
