"""From a conversation to token ids, and which of them are answers."""

import json
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from etude.data.omissions import AS_IT_IS, Judge, Verdict, find_missing
from etude.data.renderer import Part, Renderer, split_generation
from etude.data.tokenize import MARKS, Tokenizer, any_of, mark_special, unmark
from etude.data.turns import GENERATION, Message, is_answer, is_unlearnt
from etude.errors import InputError

# An instruction without a chat template of the model's own. It is a chat template so that it can lie in the
# folder of a trained model, where other tools find it.
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


@dataclass(frozen=True)
class Encoded:
    """The ids of a conversation, and the places (begin, end) of its answers, each with its end token.

    has_special  the text of a special token was in a message, and read as text
    is_parted    prompt and answer were encoded apart, as in one piece they would have other ids
    """

    ids: list[int]
    answers: list[tuple[int, int]]
    has_special: bool = False
    is_parted: bool = False
    verdict: Verdict = AS_IT_IS


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


@dataclass(frozen=True, eq=False)
class ChatTemplate:
    """The text that a model was trained on, made of messages.

    `given` is Jinja; None makes a plain template. `system` is put before conversations without a system
    message. Text that looks like a special token within a message is marked, so that
    `Tokenizer.encode_rendered` reads it as text. A conversation that a template takes longer for than
    `limit_seconds` is refused.
    """

    tokenizer: Tokenizer
    given: str | None
    _: KW_ONLY
    system: str | None = None
    limit_seconds: float = _LIMIT_SECONDS
    today: str | None = None

    @property
    def is_plain(self) -> bool:
        return self.given is None or self.given.endswith(PLAIN)

    @cached_property
    def source(self) -> str:
        """The template, as Jinja; the plain one begins with the token before a text of the tokenizer."""
        if self.given is not None:
            return self.given
        bos_id = self.tokenizer.bos_id
        bos = "" if bos_id is None else self.tokenizer.decode([bos_id], skip_special=False)
        return (f"{{{{ {json.dumps(bos, ensure_ascii=False)} }}}}" if bos else "") + PLAIN

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """The text of messages. Raises: InputError if the template refuses them, or takes too long."""
        name = "the conversation"
        written, _ = self._prepare(messages, name)
        whole, _ = self._renderer.render(written, [(None, add_generation_prompt)], name)
        return split_generation(whole)[0]

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
        written = [self._prepare(*given) for given in zip(conversations, names)]
        texts = [self._find_answers(messages, name) for (messages, _), name in zip(written, names)]
        # Whole where that gives the ids of the prompts too, as it nearly always does; else piece by piece.
        easy = [index for index, (text, _) in enumerate(texts) if unmark(text) == text]
        wholes = self.tokenizer.encode_with_starts([texts[index][0] for index in easy])
        prompts = [_prompts(*texts[index], starts) for index, (_, starts) in zip(easy, wholes)]
        heads = iter(self.tokenizer.encode_rendered_batch([text for part in prompts for text, _, _ in part]))
        encoded: dict[int, Encoded] = {}
        for index, (ids, _), part in zip(easy, wholes, prompts):
            places = [(at, head, end) for (_, at, end), head in zip(part, heads)]
            if all(ids[at : at + len(head)] == head for at, head, _ in places):
                encoded[index] = Encoded(ids, [(at + len(head), end) for at, head, end in places])
        made = (encoded.get(index) or self._encode_in_pieces(*texts[index]) for index in range(len(texts)))
        return [
            replace(each, verdict=_note_changes(verdict, messages, text))
            for each, (messages, verdict), (text, _) in zip(made, written, texts)
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
        self._renderer.close()

    @cached_property
    def _renderer(self) -> Renderer:
        variables, seconds = self.tokenizer.variables, self.limit_seconds
        return Renderer(self.source, variables, limit_seconds=seconds, today=self.today)

    @cached_property
    def _judge(self) -> Judge:
        return Judge(self._renderer)

    def _prepare(self, messages: Sequence[Message], name: str) -> tuple[list[Message], Verdict]:
        """The messages with the system message and marks. Raises: InputError as `Judge.judge`."""
        has_system = any(message["role"] in ("system", "developer") for message in messages)
        opening = [{"role": "system", "content": self.system}] if self.system and not has_system else []
        given, specials = [*opening, *messages], self.tokenizer.special_tokens
        try:
            marked = [{key: mark_special(value, specials) for key, value in turn.items()} for turn in given]
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        return self._judge.judge(marked, name, is_added=bool(opening))

    def _find_answers(self, messages: list[Message], name: str) -> tuple[str, list[tuple[int, int]]]:
        """The text of a conversation, and the places of its answers, each up to behind its end token."""
        answered = [at for at, turn in enumerate(messages) if is_answer(turn)]
        # Before each answer, and through it.
        wanted: list[Part] = [(at + late, not late) for at in answered for late in (0, 1)]
        rendered, parts = self._renderer.render(messages, [(None, False), *wanted], name)
        whole, generated = split_generation(rendered)
        if GENERATION[0] in rendered:
            learnt = _choose_learnt(messages, generated, name)
            marked = [(begin, self._find_ending(whole, begin, end)) for begin, end in learnt]
            spans = [(begin, end) for begin, end in marked if not self._is_blank(whole[begin:end])]
        else:
            contents = [messages[at]["content"].strip() for at in answered]
            triples = zip(contents, parts[::2], parts[1::2])
            spans = [self._find_between(whole, *triple, name) for triple in triples]
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

    def _find_between(
        self, whole: str, content: str, prompt: tuple[int, str], through: tuple[int, str], name: str
    ) -> tuple[int, int]:
        """The place of an answer in the whole, between the conversation before it and that with it.

        prompt, through: of these the length shared with the whole, and the rest.
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

    def _find_ending(self, whole: str, begin: int, end: int) -> int:
        """The end of a marked place: without white space, with the end token even behind the mark."""
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


def _prompts(text: str, spans: list[tuple[int, int]], starts: list[int]) -> list[tuple[str, int, int]]:
    """The text before each answer, its first token, and the token behind the answer; `starts` of the tokens.

    The text begins at the end token of the answer before: no token behind a special one depends on those
    before it.
    """
    prompts, at = [], 0
    for begin, end in spans:
        behind = bisect_left(starts, end)
        prompts.append((text[starts[at] if at else 0 : begin], at, behind))
        at = behind - 1
    return prompts


def _note_changes(verdict: Verdict, messages: list[Message], text: str) -> Verdict:
    """The verdict on a form, of one conversation of it: with its own contents some may be changed."""
    return replace(verdict, is_changed=verdict.is_changed or bool(find_missing(messages, text)))


def _choose_learnt(
    messages: list[Message], generated: list[tuple[int, int]], name: str
) -> list[tuple[int, int]]:
    """The marked places that are of turns to be learnt. Raises: InputError if it is unknown which are."""
    turns = [turn for turn in messages if turn["role"] == "assistant"]
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
        'unknown; add {% generation %} marks to it, or use data.template = "plain"'
    )
