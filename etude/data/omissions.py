"""Parts of conversations that a chat template leaves out, found once for each form of conversation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from etude.data.renderer import Renderer, split_generation
from etude.data.tokenize import unmark
from etude.data.turns import EXTRA_CONTENTS, Message, list_fields
from etude.errors import InputError

_MOST_VERDICTS = 4096
_MOST_FIELDS = 32  # each is tried by itself


@dataclass(frozen=True)
class Verdict:
    """The parts of conversations of one form that a template does not write as they are.

    wrong       why it must not write them; empty if it may
    is_mapped   a developer turn is written as a system turn
    is_changed  the content of a turn is written in another way, as without its thoughts
    unread      fields of messages that are not written
    """

    wrong: str = ""
    is_mapped: bool = False
    is_changed: bool = False
    unread: tuple[str, ...] = ()


AS_IT_IS = Verdict()


class Judge:
    """The verdicts on a template, which renders conversations of the same form with other contents."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._verdicts: dict[tuple[object, ...], Verdict] = {}

    def judge(self, messages: list[Message], name: str, *, is_added: bool) -> tuple[list[Message], Verdict]:
        """The messages as the template is to write them, and the verdict on their form.

        is_added: the first message is that of data.system. Raises: InputError if the template leaves out a
        turn, or a part of its content.
        """
        turns = (
            (turn["role"], bool(turn["content"].strip()), *sorted(turn), 0, *list_fields(turn))
            for turn in messages
        )
        form = (is_added, *turns)
        if form not in self._verdicts:
            if len(self._verdicts) >= _MOST_VERDICTS:
                self._verdicts.clear()
            self._verdicts[form] = self._judge_turns(messages, name, is_added)
        verdict = self._verdicts[form]
        if verdict.wrong:
            raise InputError(f"{name}: {verdict.wrong}")
        return _as_system(messages) if verdict.is_mapped else messages, verdict

    def _judge_turns(self, given: list[Message], name: str, is_added: bool) -> Verdict:
        """The verdict by contents that stand nowhere else in the template."""
        tried = [
            {**turn, "content": f"qxz{at}zxq"} if turn["content"].strip() else turn
            for at, turn in enumerate(given)
        ]
        lost = self._find_lost(tried, name)
        if lost == []:
            return self._judge_fields(tried, name, is_added)
        mapped = _as_system(tried)
        if mapped != tried and self._find_lost(mapped, name) == []:
            return replace(self._judge_fields(mapped, name, is_added), is_mapped=True)
        if lost is None:  # a refusal here may be none with the contents that it has
            return self._judge_fields(given, name, is_added)
        role = unmark(given[lost[0]]["role"])[:40]
        turn = f"message {lost[0] + 1 - is_added}, of role {role!r}"
        return Verdict(
            f"the chat template leaves out {'data.system' if is_added and not lost[0] else turn}: it does "
            "not write that role, or not there; change the role, join the message with another, or use "
            'data.template = "plain"'
        )

    def _judge_fields(self, given: list[Message], name: str, is_added: bool) -> Verdict:
        """The verdict on fields beside role and content, each tried by itself.

        A field counts as written if only the end of a conversation has it, as the thoughts of the last
        answer.
        """
        unread, is_changed = [], False
        fields = dict.fromkeys(field for turn in given for field in list_fields(turn))
        if len(fields) > _MOST_FIELDS:
            return Verdict(
                f"its messages have {len(fields):,} fields beside role and content, over {_MOST_FIELDS}; "
                "take out those that are not to be learnt"
            )
        for field in fields:
            marks = {at: f"qxz{at}zqx" for at, turn in enumerate(given) if field in list_fields(turn)}
            tried = [{**turn, field: marks[at]} if at in marks else turn for at, turn in enumerate(given)]
            text = self._text_of(tried, name)
            missing = [at for at, mark in marks.items() if mark not in text]
            # One turn of each role stands for the others.
            last = {tried[at]["role"]: at for at in missing}.values() if text else ()
            ends = {at: self._text_of(tried[: at + 1], name) for at in last}
            unwritten = [at for at, end in ends.items() if end and marks[at] not in end]
            if unwritten and field in EXTRA_CONTENTS:
                return Verdict(
                    f"the chat template does not write {field!r} of message {unwritten[0] + 1 - is_added}, "
                    "so it would not be learnt; put it into the content, remove it, or use a template that "
                    "writes it"
                )
            unread += [field] if unwritten else []
            is_changed = is_changed or (bool(missing) and not unwritten and bool(text))
        return Verdict(is_changed=is_changed, unread=tuple(unread))

    def _text_of(self, messages: list[Message], name: str) -> str:
        """The text of messages in lower case; empty if the template refuses them."""
        return (self._renderer.try_render(messages, name) or "").lower()

    def _find_lost(self, messages: list[Message], name: str) -> list[int] | None:
        """The messages that the template leaves out; None if it refuses them."""
        text = self._renderer.try_render(messages, name)
        return None if text is None else find_missing(messages, text)


def find_missing(messages: Sequence[Message], text: str) -> list[int]:
    """The messages whose content is not in a text."""
    plain = unmark(split_generation(text)[0]).lower()
    return [at for at, turn in enumerate(messages) if unmark(turn["content"]).strip().lower() not in plain]


def _as_system(messages: list[Message]) -> list[Message]:
    return [{**turn, "role": "system"} if turn["role"] == "developer" else turn for turn in messages]
