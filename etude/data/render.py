"""From a conversation to token ids, and which of them are answers."""

import contextlib
import json
import re
import signal
import subprocess
import threading
import weakref
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from etude.data.sandbox import GENERATION
from etude.data.tokenize import MARKS, Tokenizer, any_of, mark_special, unmark
from etude.data.turns import SAID_BESIDE, Message, is_answer, is_unlearnt, list_fields
from etude.errors import InputError
from etude.processes import python_command, python_environment

# What an instruction looks like without a chat template of the model's own. As a chat template, so that it
# can lie in the folder of a trained model, where other tools find it.
PLAIN = (
    "{% for message in messages %}"
    "{{ '' if loop.first else '\n\n' }}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '### Response:\n' + message['content'] + eos_token }}"
    "{% elif message['role'] == 'user' %}{{ '### Instruction:\n' + message['content'] }}"
    "{% else %}{{ '### ' + message['role']|capitalize + ':\n' + message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\n### Response:\n' }}{% endif %}"
)
_LIMIT_SECONDS = 20.0
_MOST_VERDICTS = 4096
_MOST_FIELDS = 32  # each is tried by itself


@dataclass(frozen=True)
class Encoded:
    """The ids of a conversation; `answers` are the places (begin, end) of what is learnt, each with its end
    token.

    has_special  the text of a special token was in a message, and read as text
    is_parted    the ids of a prompt and its answer are not those of both in one piece, so they were made
                 apart
    is_mapped    a developer turn was written as a system turn
    is_changed   the template writes the content of a turn in another way, as without its thoughts
    unread       fields of messages that the template does not write
    """

    ids: list[int]
    answers: list[tuple[int, int]]
    has_special: bool = False
    is_parted: bool = False
    is_mapped: bool = False
    is_changed: bool = False
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Verdict:
    """What a template makes of conversations of one form; `wrong` is why it must not write them, or empty.

    The others are as those of `Encoded`.
    """

    wrong: str = ""
    is_mapped: bool = False
    is_changed: bool = False
    unread: tuple[str, ...] = ()


def find_template(
    folder: Path | str, tokenizer: Tokenizer, *, wanted: str = "auto", system: str | None = None
) -> "ChatTemplate":
    """The chat template that came with a tokenizer, or a plain one; `folder` is only named.

    Raises: InputError if a chat template is `wanted` and there is none.
    """
    own = tokenizer.chat_template
    if wanted == "chat" and own is None:
        raise InputError(
            f'the tokenizer in {folder} has no chat template, which data.template = "chat" needs; '
            'use data.template = "plain"'
        )
    return ChatTemplate(tokenizer, None if wanted == "plain" else own, system=system)


class ChatTemplate:
    """How messages become the text that a model was trained on.

    `given` is Jinja; None makes a plain template. `system` is put before conversations without a system
    message. Text that looks like a special token within a message is marked, so that
    `Tokenizer.encode_rendered` reads it as text. A conversation that a template takes longer for than
    `limit_seconds` is refused.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        given: str | None,
        *,
        system: str | None = None,
        limit_seconds: float = _LIMIT_SECONDS,
        today: str | None = None,
    ) -> None:
        self.system = system
        self.tokenizer = tokenizer
        self._given = given
        self._limit_seconds = limit_seconds
        self._today = today
        self._lock = threading.Lock()
        self._verdicts: dict[tuple[Any, ...], _Verdict] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_plain(self) -> bool:
        return self._given is None or self._given.endswith(PLAIN)

    @cached_property
    def source(self) -> str:
        """The template, as Jinja; the plain one begins with the token by which the tokenizer
        begins a text."""
        if self._given is not None:
            return self._given
        bos_id = self.tokenizer.bos_id
        bos = "" if bos_id is None else self.tokenizer.decode([bos_id], skip_special=False)
        return (f"{{{{ {json.dumps(bos, ensure_ascii=False)} }}}}" if bos else "") + PLAIN

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """The text of messages. Raises: InputError if the template refuses them, or takes too long."""
        name = "the conversation"
        written, _ = self._written(messages, name)
        whole, _ = self._render(written, [(None, add_generation_prompt)], name)
        return _without_generation(whole)[0]

    def encode_prompt(self, instruction: str) -> list[int]:
        """The ids after which the answer to an instruction begins."""
        text = self.render([{"role": "user", "content": instruction}], add_generation_prompt=True)
        return [int(token) for token in self.tokenizer.encode_rendered(text)]

    def encode(self, conversations: Sequence[Sequence[Message]], names: Sequence[str]) -> list[Encoded]:
        """The ids of whole conversations, whose prompts are those of `encode_prompt`.

        An answer is what the template marks by {% generation %}; without such marks, what follows the prompt
        of each assistant message that is not blank, up to and with the token that ends it.

        Raises: InputError with the name of the conversation that the template refuses or leaves a turn out
        of, or where no answer is found.
        """
        written = [self._written(*each) for each in zip(conversations, names)]
        found = [self._find_answers(messages, name) for (messages, _), name in zip(written, names)]
        # Whole where that gives the ids of the prompts too, as it nearly always does; else piece by piece.
        easy = [index for index, (text, _) in enumerate(found) if unmark(text) == text]
        wholes = self.tokenizer.encode_with_starts([found[index][0] for index in easy])
        prompts = [_prompts(*found[index], starts) for index, (_, starts) in zip(easy, wholes)]
        heads = iter(self.tokenizer.encode_rendered_batch([text for each in prompts for text, _, _ in each]))
        encoded: dict[int, Encoded] = {}
        for index, (ids, _), each in zip(easy, wholes, prompts):
            places = [(at, head, end) for (_, at, end), head in zip(each, heads)]
            if all(ids[at : at + len(head)] == head for at, head, _ in places):
                encoded[index] = Encoded(ids, [(at + len(head), end) for at, head, end in places])
        made = [encoded.get(index) or self._encode_in_pieces(*found[index]) for index in range(len(found))]
        return [
            replace(
                each,
                is_mapped=verdict.is_mapped,
                is_changed=verdict.is_changed or bool(_missing(messages, text)),
                unread=verdict.unread,
            )
            for each, (messages, verdict), (text, _) in zip(made, written, found)
        ]

    def find_end(self) -> int | None:
        """The id that the template writes behind an answer; None if it writes no special token there."""
        asked = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes"}]
        try:
            (encoded,) = self.encode([asked], ["the chat template"])
        except InputError:
            return None
        return encoded.ids[encoded.answers[-1][1] - 1]

    def close(self) -> None:
        """End the process that renders; the next call starts another."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def _with_system(self, messages: Sequence[Message], name: str) -> list[Message]:
        has_system = any(message["role"] in ("system", "developer") for message in messages)
        opening = [{"role": "system", "content": self.system}] if self.system and not has_system else []
        specials = self.tokenizer.special_tokens
        try:
            return [
                {key: mark_special(value, specials) for key, value in each.items()}
                for each in [*opening, *messages]
            ]
        except InputError as error:
            raise InputError(f"{name}: {error}") from None

    def _written(self, messages: Sequence[Message], name: str) -> tuple[list[Message], _Verdict]:
        """The messages, none of which the template leaves out, and what it makes of them.

        Raises: InputError if the template leaves out a turn, or a part of what is said in it.
        """
        given = self._with_system(messages, name)
        is_added = len(given) > len(messages)
        key = (
            is_added,
            *(
                (each["role"], bool(each["content"].strip()), *sorted(each), 0, *list_fields(each))
                for each in given
            ),
        )
        if key not in self._verdicts:
            if len(self._verdicts) >= _MOST_VERDICTS:
                self._verdicts.clear()
            self._verdicts[key] = self._judge_turns(given, name, is_added=is_added)
        verdict = self._verdicts[key]
        if verdict.wrong:
            raise InputError(f"{name}: {verdict.wrong}")
        return _as_system(given) if verdict.is_mapped else given, verdict

    def _judge_turns(self, given: list[Message], name: str, *, is_added: bool) -> _Verdict:
        """What the template makes of conversations like this one.

        It is tried with other contents, which stand nowhere else in the template.
        """
        tried = [
            {**each, "content": f"qxz{at}zxq"} if each["content"].strip() else each
            for at, each in enumerate(given)
        ]
        lost = self._lost(tried, name)
        if lost == []:
            return self._judge_fields(tried, name, is_added)
        if any(each["role"] == "developer" for each in given) and self._lost(_as_system(tried), name) == []:
            return replace(self._judge_fields(_as_system(tried), name, is_added), is_mapped=True)
        if lost is None:  # what is refused here is refused, or not, with the contents that it has
            return self._judge_fields(given, name, is_added)
        role = unmark(given[lost[0]]["role"])[:40]
        which = (
            "data.system"
            if is_added and not lost[0]
            else f"message {lost[0] + 1 - is_added}, of role {role!r}"
        )
        return _Verdict(
            f"the chat template leaves out {which}: it does not write that role, or not there; "
            'change the role, join the message with another, or use data.template = "plain"'
        )

    def _judge_fields(self, given: list[Message], name: str, is_added: bool) -> _Verdict:
        """Which fields beside role and content the template does not write, each tried as the contents are.

        A field is also written if only the end of a conversation has it, as the thoughts of the last answer.
        """
        unread, is_changed = [], False
        fields = dict.fromkeys(field for each in given for field in list_fields(each))
        if len(fields) > _MOST_FIELDS:
            return _Verdict(
                f"its messages have {len(fields):,} fields beside role and content, over {_MOST_FIELDS}; "
                "take out those that are not to be learnt"
            )
        for field in fields:
            tried = [
                {**each, field: f"qxz{at}zqx"} if field in list_fields(each) else each
                for at, each in enumerate(given)
            ]
            written = self._text_of(tried, name)
            missing = [
                at for at, each in enumerate(tried) if each != given[at] and f"qxz{at}zqx" not in written
            ]
            # One turn of each role stands for the others.
            ends = {tried[at]["role"]: at for at in missing}.values() if written else ()
            unwritten = [
                at
                for at in ends
                if f"qxz{at}zqx" not in (self._text_of(tried[: at + 1], name) or f"qxz{at}zqx")
            ]
            if unwritten and field in SAID_BESIDE:
                return _Verdict(
                    f"the chat template does not write {field!r} of message {unwritten[0] + 1 - is_added}, "
                    "so it would not be learnt; put it into the content, remove it, or use a template that "
                    "writes it"
                )
            unread += [field] if unwritten else []
            is_changed = is_changed or (bool(missing) and not unwritten and bool(written))
        return _Verdict(is_changed=is_changed, unread=tuple(unread))

    def _text_of(self, messages: list[Message], name: str) -> str:
        """The text of messages; empty if the template refuses them."""
        return str(self._ask(messages, [(None, False)], name).get("text", "")).lower()

    def _lost(self, messages: list[Message], name: str) -> list[int] | None:
        """The messages that the template leaves out; None if it refuses them."""
        answer = self._ask(messages, [(None, False)], name)
        return None if "error" in answer else _missing(messages, answer["text"])

    def _find_answers(self, messages: list[Message], name: str) -> tuple[str, list[tuple[int, int]]]:
        """The text of a conversation, and where its answers begin and end; an end lies behind an
        end token."""
        answered = [at for at, turn in enumerate(messages) if is_answer(turn)]
        # Before each answer, and through it.
        wanted = [(at + late, not late) for at in answered for late in (0, 1)]
        rendered, parts = self._render(messages, [(None, False), *wanted], name)
        whole, generated = _without_generation(rendered)
        if GENERATION[0] in rendered:
            marked = [
                (begin, self._ending(whole, begin, end)) for begin, end in _learnt(messages, generated, name)
            ]
            spans = [(begin, end) for begin, end in marked if not self._is_blank(whole[begin:end])]
        else:
            contents = [messages[at]["content"].strip() for at in answered]
            spans = [self._between(whole, *each, name) for each in zip(contents, parts[::2], parts[1::2])]
        for begin, end in spans:
            if self._special_at_end(whole[begin:end]) is None:
                raise InputError(
                    f"{name}: the chat template writes no special token after an answer (it ends "
                    f"{unmark(whole[begin:end])[-20:]!r}), so nothing would teach the model to stop; "
                    'use data.template = "plain", or a tokenizer whose template does'
                )
        if any(end > begin for (_, end), (begin, _) in pairwise(spans)):
            raise _unclear(name)
        if not spans and parts:
            raise InputError(f'{name}: the chat template leaves out the answer; use data.template = "plain"')
        return whole, spans

    def _between(
        self, whole: str, content: str, prompt: tuple[int, str], through: tuple[int, str], name: str
    ) -> tuple[int, int]:
        """Where an answer lies in the whole; `prompt` is the conversation before and `through` with it, each
        as the number of characters it begins with as the whole does, and what it has then instead.
        """
        (begin, instead), (shared, rest) = prompt, through
        if instead:
            raise _unclear(name)
        place, end = begin, 0
        for special in self._written_specials.finditer(whole, begin):
            if place >= shared:
                break
            if content in whole[place : min(special.start(), shared)]:
                end = special.end()
            place = special.end()
        if not end and not rest:  # the template writes the content in another way
            end = len(whole[:shared].rstrip())
        if not end:  # in another way once something follows; but its end token is the same
            wanted = self._special_at_end((whole[begin:shared] + rest).rstrip())
            specials = self._written_specials.finditer(whole, begin)
            end = next((special.end() for special in specials if special[0] == wanted), 0)
        if not end:
            raise _unclear(name)
        return begin, end

    def _ending(self, whole: str, begin: int, end: int) -> int:
        """The end of what a template marked: without white space, with the end token even if that follows the
        mark.
        """
        end = begin + len(whole[begin:end].rstrip())
        if self._special_at_end(whole[begin:end]) is None:
            behind = whole[end:].lstrip()
            special = next((token for token in self.tokenizer.special_tokens if behind.startswith(token)), "")
            end = len(whole) - len(behind) + len(special) if special else end
        return end

    def _is_blank(self, answer: str) -> bool:
        return not answer.removesuffix(self._special_at_end(answer) or "").strip()

    def _special_at_end(self, text: str) -> str | None:
        return next((token for token in self.tokenizer.special_tokens if text.endswith(token)), None)

    @cached_property
    def _written_specials(self) -> re.Pattern[str]:
        """The special tokens that the template itself wrote."""
        return re.compile(f"(?<!{MARKS[0]})(?:{any_of(self.tokenizer.special_tokens).pattern})")

    def _encode_in_pieces(self, text: str, spans: list[tuple[int, int]]) -> Encoded:
        ids: list[int] = []
        answers, place = [], 0
        for begin, end in spans:
            ids += self.tokenizer.encode_rendered(text[place:begin], is_start=place == 0)
            first = len(ids)
            ids += self.tokenizer.encode_rendered(text[begin:end], is_start=False)
            answers.append((first, len(ids)))
            place = end
        ids += self.tokenizer.encode_rendered(text[place:], is_start=place == 0)
        return Encoded(ids, answers, has_special=unmark(text) != text, is_parted=unmark(text) == text)

    def _render(
        self, messages: list[Message], parts: list[tuple[int | None, bool]], name: str
    ) -> tuple[str, list[tuple[int, str]]]:
        """A part is so many messages, with the start of an answer or without: the text of the first, and of
        each other the number of characters that it begins with as the first does, and what follows then.
        """
        answer = self._ask(messages, parts, name)
        if "error" in answer:
            reason = " ".join(unmark(answer["error"]).split())
            raise InputError(f'{name}: the chat template refuses it ({reason}); use data.template = "plain"')
        return answer["text"], [(shared, rest) for shared, rest in answer["parts"]]

    def _ask(
        self, messages: list[Message], parts: list[tuple[int | None, bool]], name: str
    ) -> dict[str, Any]:
        """What the process says to a request. Raises: InputError if it ends or takes too long."""
        request = json.dumps({"messages": messages, "parts": parts}).encode() + b"\n"
        with self._lock:
            answer: dict[str, Any] = json.loads(self._exchange(request, name))
        return answer

    def _exchange(self, request: bytes, name: str) -> bytes:
        try:
            self._process = process = self._process or self._start()
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(request)
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                raise BrokenPipeError
            return line
        except BaseException as error:
            code = self._process.wait() if self._process and isinstance(error, OSError) else 0
            self.close()
            if not isinstance(error, OSError):
                raise
            what = (
                f"takes over {self._limit_seconds:g} s" if code == -signal.SIGALRM else "breaks its process"
            )
            raise InputError(
                f"the chat template {what} on {name}; "
                'it may be broken or hostile: use data.template = "plain", or another tokenizer'
            ) from None

    def _start(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            python_command("etude.data.sandbox"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=python_environment(), start_new_session=True,
        )  # fmt: skip
        weakref.finalize(self, _end, process)
        surroundings = {
            "template": self.source,
            "variables": self.tokenizer.variables,
            "limit_seconds": self._limit_seconds,
            "today": self._today,
        }
        assert process.stdin is not None
        process.stdin.write(json.dumps(surroundings).encode() + b"\n")
        return process


def _prompts(text: str, spans: list[tuple[int, int]], starts: list[int]) -> list[tuple[str, int, int]]:
    """The text before each answer, its first token, and the token behind the answer; `starts` as of the
    tokens.

    The text begins at the end token of the answer before: what follows a special token does not depend on
    what is before it.
    """
    prompts, at = [], 0
    for begin, end in spans:
        behind = bisect_left(starts, end)
        prompts.append((text[starts[at] if at else 0 : begin], at, behind))
        at = behind - 1
    return prompts


def _as_system(messages: list[Message]) -> list[Message]:
    return [{**each, "role": "system"} if each["role"] == "developer" else each for each in messages]


def _missing(messages: list[Message], text: str) -> list[int]:
    """The messages whose content is not in a text."""
    plain = unmark(_without_generation(text)[0]).lower()
    return [at for at, each in enumerate(messages) if unmark(each["content"]).strip().lower() not in plain]


def _learnt(messages: list[Message], generated: list[tuple[int, int]], name: str) -> list[tuple[int, int]]:
    """Those of the marked places that are of turns to be learnt.

    Raises: InputError if it cannot be told which are.
    """
    turns = [each for each in messages if each["role"] == "assistant"]
    if not any(map(is_unlearnt, turns)):
        return generated
    if len(turns) != len(generated):
        raise InputError(
            f"{name}: the chat template marks {len(generated)} places by {{% generation %}} in {len(turns)} "
            "assistant turns, so it is unknown which is not to be learnt; take out the marks of the row or "
            "of the template"
        )
    return [place for place, turn in zip(generated, turns) if not is_unlearnt(turn)]


def _unclear(name: str) -> InputError:
    return InputError(
        f"{name}: the chat template changes what stands before an answer, so which part is the answer is "
        "unknown; "
        'add {% generation %} marks to it, or use data.template = "plain"'
    )


def _without_generation(text: str) -> tuple[str, list[tuple[int, int]]]:
    """A text without the marks of {% generation %}, and the places that were between them."""
    pieces = re.split(f"[{''.join(GENERATION)}]", text)
    ends = [0]
    for piece in pieces:
        ends.append(ends[-1] + len(piece))
    return "".join(pieces), [(ends[index], ends[index + 1]) for index in range(1, len(pieces), 2)]


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
