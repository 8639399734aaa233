"""Turns of a conversation: their roles, their contents, and the marks of those that are not learnt."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from etude.errors import InputError
from etude.text import kind_of

Message = dict[str, str]
# Around what a template marks by {% generation %}. Unicode keeps these for use within a program.
GENERATION = "\ufdd2", "\ufdd3"

# The names of role and content in a turn, for each kind of conversation.
_ROLE_AND_CONTENT = {"messages": ("role", "content"), "sharegpt": ("from", "value")}
# Each role, and its names elsewhere: ShareGPT, LLaMA-Factory, ms-swift, OpenAssistant, Gemini, Llama. The
# model makes the call of a tool, but not its result.
_ROLES = {
    "system": (),
    "developer": (),
    "user": ("human", "prompter"),
    "assistant": (
        "gpt", "chatgpt", "ai", "bot", "chatbot", "model", "llm", "ai_assistant", "bing", "bard",
        "function_call", "tool_call",
    ),
    "tool": ("observation", "function", "function_response", "tool_response", "tool_result", "ipython"),
}  # fmt: skip
_ROLE_OF = {name: role for role, others in _ROLES.items() for name in (role, *others)}
_CALLS = ("tool_calls", "tool_call", "function_calls", "function_call", "tools", "functions")
_CONTENTS = ("content", "value")
_OF_PARTS = ("type", "text")
_TEXTS = (None, "text", "input_text", "output_text")  # types of parts: of chat templates, of OpenAI
# Fields of a turn that hold a part of its content, so that it must not be learnt without them.
EXTRA_CONTENTS = (
    "reasoning_content", "reasoning", "reasoning_details", "thinking", "thinking_content", "thinking_blocks",
    "think", "thought", "thoughts", "refusal", "image", "images", "image_url", "audio", "audios", "video",
    "videos", "file", "files", "attachments", "documents", "parts", "tool_responses",
)  # fmt: skip
# Marks of other tools: `weight` of OpenAI and Mistral, `train` of Axolotl, `loss` of ms-swift.
_LEARNT_IF_TRUE = (
    "weight", "train", "training", "trainable", "loss", "loss_mask", "loss_scale", "loss_weight",
)  # fmt: skip
_WEIGHTS = ("weight", "loss_weight")
_LEARNT_IF_FALSE = ("masked",)
_UNREADABLE = ("mask", "train_detail", "training_detail")  # of unknown sense, or of parts of a turn
_MARKS = (*_LEARNT_IF_TRUE, *_LEARNT_IF_FALSE, *_UNREADABLE)
# A turn that is not learnt has this; _read_mark lets no such string in from a row.
NOT_LEARNT = {"weight": "0"}
# What other tools learn of a row, which the recipe says here for all rows.
_OF_ROWS = {
    "train_on_inputs": True, "train_on_prompt": True, "completion_only_loss": False, "completion_only": False
}  # fmt: skip


def is_answer(message: Message) -> bool:
    """True for a turn that is an answer to be learnt."""
    return message["role"] == "assistant" and message["content"].strip() != "" and not is_unlearnt(message)


def is_unlearnt(message: Message) -> bool:
    """True for a turn that is marked as not to be learnt."""
    return message.get("weight") == NOT_LEARNT["weight"]


def count_unlearnt(messages: Sequence[Message]) -> int:
    """The number of assistant turns that are marked as not to be learnt."""
    return sum(message["role"] == "assistant" and is_unlearnt(message) for message in messages)


def is_empty(value: Any) -> bool:
    """True for null, an empty text, list or object, one of these as text, or an object of nulls alone."""
    if isinstance(value, dict):
        return all(each is None or each in ("", [], {}) for each in value.values())
    return value is None or value in ("", "[]", "{}", "null") or value == []


def list_texts(message: Message) -> Iterator[str]:
    """All contents of a turn."""
    yield message["content"]
    yield from (message[name] for name in EXTRA_CONTENTS if not is_empty(message.get(name, "").strip()))


def list_fields(message: Message) -> list[str]:
    """The fields of a message beside its role, content and mark that hold any text."""
    read = ("role", "content", *_MARKS)
    return [name for name, text in message.items() if name not in read and not is_empty(text.strip())]


def list_unread(turn: Mapping[str, Any]) -> list[str]:
    """The fields of a turn that nothing reads: neither strings nor marks; of contents in parts, theirs."""
    lists = [turn[name] for name in _CONTENTS if isinstance(turn.get(name), list)]
    parts = [part for each in lists for part in each if isinstance(part, dict)]
    read = (*_MARKS, *_CONTENTS)
    others = ((name, value) for name, value in turn.items() if name not in read)
    names = [name for name, value in others if not isinstance(value, str | None) and not is_empty(value)]
    fields = ((name, value) for part in parts for name, value in part.items() if name not in _OF_PARTS)
    return names + [name for name, value in fields if not is_empty(value)]


def name_unread(field: str) -> str:
    """The name of a field of messages among the columns that nothing reads."""
    return f"{field[:60]} of messages"


def read_messages(turns: Any, field: str, kind: str = "messages") -> list[Message]:
    """Read the turns in a field of a row. Raises: InputError naming the message, but not the row."""
    role, content = _ROLE_AND_CONTENT[kind]
    if not isinstance(turns, list) or not turns:
        raise InputError(f"has no list {field!r} with at least one message")
    messages = []
    for number, turn in enumerate(turns, 1):
        where = f"message {number} of {field!r}"
        if not isinstance(turn, dict):
            raise InputError(
                f"has {kind_of(turn)} as {where}; expected an object with {role!r} and {content!r}"
            )
        _check_calls(turn, number)
        if not isinstance(turn.get(role), str):
            what = f"{kind_of(turn[role])} as" if role in turn else "no field"
            raise InputError(f"has {what} {role!r} in {where}; expected a string")
        turn = {**turn, content: _read_content(turn, content, where)}
        if kind == "sharegpt":
            _check_twice(turn, number)
        name = _read_role(turn[role], number)
        others = _read_fields(turn, number, {role, content, "role", "content"})
        mark = _read_mark(turn, number, is_assistant=name == "assistant")
        message = {"role": name, "content": turn[content], **others, **mark}
        texts = list(list_texts(message))
        if len(texts) > 1 and not texts[0].strip():
            lone = next(name for name in list_fields(message) if message[name] == texts[1])
            raise InputError(
                f"has {lone!r} in message {number}, but no {content!r}, so it answers nothing; leave it out"
            )
        messages.append(message)
    return messages


def _check_twice(turn: Mapping[str, Any], number: int) -> None:
    """Raise InputError if a turn of ShareGPT has another role or content in the fields of a message, too."""
    role, content = turn.get("role"), turn.get("content")
    is_other = isinstance(role, str) and _read_role(role, number) != _read_role(turn["from"], number)
    if is_other or (isinstance(content, str) and content.strip() not in ("", turn["value"].strip())):
        what = "'from' and 'role'" if is_other else "'value' and 'content'"
        raise InputError(f"has in message {number} both {what}, which differ; keep one of them")


def _read_role(role: str, number: int) -> str:
    """The role of a message, which data may call by another name. Raises: InputError for an unknown one."""
    known = _ROLE_OF.get(role.strip().lower().replace("-", "_").replace(" ", "_"))
    if known is None:
        others = "human, gpt, ai, bot, model, function_call, observation ..."
        raise InputError(
            f"has the unknown role {role[:30]!r} in message {number}; known are {', '.join(_ROLES)} "
            f"({others}): rename it"
        )
    return known


def _read_content(turn: Mapping[str, Any], name: str, where: str) -> str:
    """The content of a message: a string, or parts that are all text, joined as transformers joins them.

    where: how errors call the message. Raises: InputError that names what is no text.
    """
    value = turn.get(name)
    if isinstance(value, str):
        return value
    if name not in turn:
        raise InputError(f"has no field {name!r} in {where}; expected a string")
    if not isinstance(value, list):
        raise InputError(
            f"has {kind_of(value)} as {name!r} in {where}; expected a string, or a list of text parts"
        )
    return "".join(_read_part(part, where) for part in value)


def _read_part(part: Any, where: str) -> str:
    if not isinstance(part, dict):
        form = '{"type": "text", "text": "..."}'
        raise InputError(f"has {kind_of(part)} as a part in {where}; expected {form}")
    kind = part.get("type")
    if kind not in _TEXTS or (kind is None and "text" not in part):
        named = repr(kind if isinstance(kind, str) else next(iter(part), ""))[:40]
        raise InputError(f"has a part {named} in {where}, which is not read; only text is: leave the row out")
    if not isinstance(part.get("text"), str):
        raise InputError(f"has {kind_of(part.get('text'))} as 'text' of a part in {where}; expected a string")
    return str(part["text"])


def _check_calls(turn: Mapping[str, Any], number: int) -> None:
    """Raises: InputError if a message calls a tool in a field of its own, or brings tools."""
    for name in _CALLS:
        if turn.get(name) and not is_empty(turn[name]):
            raise InputError(
                f"has tool calls in message {number} ({name!r}), which are not supported; leave the row out"
            )


def _read_fields(turn: Mapping[str, Any], number: int, read: Collection[str]) -> Message:
    """The strings of a message for the chat template, without the marks and the fields `read` before.

    Raises: InputError for a field with a part of the content in a form that is not read.
    """
    for name in EXTRA_CONTENTS:
        if isinstance(turn.get(name), list | dict) and not is_empty(turn[name]):
            form = "a list" if isinstance(turn[name], list) else "an object"
            raise InputError(
                f"has {name!r} in message {number}, which is not read as {form}; leave the row out, or write "
                "it as text"
            )
    others = ((name, value) for name, value in turn.items() if name not in (*read, *_MARKS))
    return {name: value for name, value in others if isinstance(value, str)}


def _read_mark(turn: Mapping[str, Any], number: int, *, is_assistant: bool) -> Message:
    """The mark of a message from those of its turn: NOT_LEARNT, or nothing. null is no mark.

    Raises: InputError for a mark that is not 0 or 1, marks that disagree, or one that wants another turn to
    be learnt.
    """
    marks = {name: turn[name] for name in _MARKS if name in turn}
    wanted: dict[str, bool] = {}
    for name, value in marks.items():
        if value is None:
            continue
        if name in _UNREADABLE:
            raise InputError(f"has {name!r} in message {number}, which is not read; mark turns by weight")
        if not isinstance(value, int | float) or value not in (0, 1):
            raise InputError(
                f"has {name} {str(value)[:40]!r} in message {number}; expected 0 or 1, or false or true"
            )
        wanted[name] = bool(value) == (name in _LEARNT_IF_TRUE)
    if not is_assistant:  # a weight of 1 is what a turn has by default
        wanted = {name: value for name, value in wanted.items() if name not in _WEIGHTS or not value}
    if len(set(wanted.values())) > 1:
        raise InputError(f"has marks in message {number} that disagree ({', '.join(wanted)}); keep one")
    if not is_assistant and any(wanted.values()):
        raise InputError(
            f"marks message {number} as one to learn ({', '.join(wanted)}), but only assistant turns are; "
            "take the mark out, or set data.answers_only = false to learn all turns"
        )
    return dict(NOT_LEARNT) if is_assistant and wanted and not any(wanted.values()) else {}


def check_row_marks(row: Mapping[str, Any]) -> None:
    """Raises: InputError if a row wants more of itself learnt than its answers."""
    for name, contrary in _OF_ROWS.items():
        if row.get(name) is contrary:
            raise InputError(
                f"has {name} {str(contrary).lower()}, which is not read for a row; set data.answers_only = "
                "false for all rows, or remove the field"
            )
