"""A turn of a conversation: who says it, what is said, and whether it is to be learnt."""

from collections.abc import Mapping, Sequence
from typing import Any

from etude.errors import InputError

Message = dict[str, str]

# What the tools of others write beside a turn: `weight` of OpenAI and Mistral, `train` of Axolotl, `loss` of ms-swift.
_LEARNT_IF_TRUE = (
    "weight", "train", "training", "trainable", "loss", "loss_mask", "loss_scale", "loss_weight"
)  # fmt: skip
_LEARNT_IF_FALSE = ("masked",)
_UNREADABLE = ("mask", "train_detail", "training_detail")  # of unknown sense, or of parts of a turn
# A turn that is not learnt has this; read_mark lets no such string in from a row.
NOT_LEARNT = {"weight": "0"}
# Of a row: what other tools learn of it. The recipe says so here, for all rows.
_OF_ROWS = {"train_on_inputs": True, "train_on_prompt": True, "completion_only_loss": False, "completion_only": False}


def is_answer(message: Message) -> bool:
    """Whether a turn is an answer that is to be learnt."""
    return message["role"] == "assistant" and message["content"].strip() != "" and not is_unlearnt(message)


def is_unlearnt(message: Message) -> bool:
    """Whether a turn is marked as one that is not to be learnt."""
    return message.get("weight") == NOT_LEARNT["weight"]


def count_unlearnt(messages: Sequence[Message]) -> int:
    """How many assistant turns are marked as not to be learnt."""
    return sum(message["role"] == "assistant" and is_unlearnt(message) for message in messages)


def read_mark(turn: Mapping[str, Any], number: int, *, is_assistant: bool) -> Message:
    """What a message takes over from the marks of its turn: NOT_LEARNT, or nothing. null is no mark.

    Raises: InputError for a mark that is not 0 or 1, marks that disagree, or one that wants another turn to be learnt.
    """
    marks = {name: turn[name] for name in (*_LEARNT_IF_TRUE, *_LEARNT_IF_FALSE, *_UNREADABLE) if name in turn}
    wanted: dict[str, bool] = {}
    for name, value in marks.items():
        if value is None:
            continue
        if name in _UNREADABLE:
            raise InputError(f"has {name!r} in message {number}, which is not read; mark whole turns, by weight 0 or 1")
        if not isinstance(value, int | float) or value not in (0, 1):
            raise InputError(f"has {name} {str(value)[:40]!r} in message {number}; expected 0 or 1, or false or true")
        wanted[name] = bool(value) == (name in _LEARNT_IF_TRUE)
    if len(set(wanted.values())) > 1:
        raise InputError(f"has marks in message {number} that disagree ({', '.join(wanted)}); keep one of them")
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
                f"has {name} {str(contrary).lower()}, which is not read for a row; set data.answers_only = false for "
                "all rows, or remove the field"
            )
