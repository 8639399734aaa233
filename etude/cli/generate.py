"""Text for `etude generate` and `etude chat`, by the model of a run or of a folder."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from etude.cli.printing import print_json_line, print_text, say
from etude.errors import InputError
from etude.speaker import Speaker, open_speaker
from etude.text import plural, shorten

_LEAVES = ("exit", "quit", "/exit", "/quit")
_HELP = """\
/help         this list
/reset        forget what was said
/system TEXT  set the system message, or without TEXT take it back
exit, quit    leave"""


@dataclass(frozen=True)
class Sampling:
    """Settings for drawing tokens; temperature 0 takes the likeliest.

    Raises: InputError if a value is out of its range.
    """

    max_tokens: int = 128
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 17

    def __post_init__(self) -> None:
        likeliest = "0 for the likeliest token"
        for name, is_right, expected in (
            ("max-tokens", self.max_tokens >= 1, "at least 1; try 128"),
            ("temperature", 0 <= self.temperature < math.inf, f"at least 0; try 0.8, or {likeliest}"),
            ("top-k", self.top_k is None or self.top_k >= 1, "at least 1; try 50"),
            ("top-p", self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1; try 0.95"),
            ("seed", 0 <= self.seed < 2**63, "at least 0; try 17"),
        ):
            if not is_right:
                value = getattr(self, name.replace("-", "_"))
                raise InputError(f"--{name} is {value}; it must be {expected}")


def generate_texts(
    given: str, prompts: list[str], sampling: Sampling, *, runs: Path, is_instruction: bool = False
) -> list[dict[str, Any]]:
    """Continue each prompt, all in one batch; with `is_instruction` through the chat template.

    An encoder-decoder answers. Raises: as `open_speaker`, and InputError if it is to hear an instruction.
    """
    from etude.evaluate.answers import encode_prompts
    from etude.evaluate.generate import generate
    from etude.models.families.table import family_of

    for prompt in prompts:
        _check_text("--prompt", prompt)
    speaker = open_speaker(given, runs, is_chat=is_instruction, told=say)
    if is_instruction:
        _require_chat(speaker, given)
    is_source, asked = family_of(speaker.model).has_source, speaker.chat if is_instruction else None
    ids = encode_prompts(prompts, speaker.tokenizer, asked, is_source=is_source)
    _say_what_is_cut(speaker, ids, sampling.max_tokens)
    with speaker.precision.autocast():
        continued = generate(speaker.model, ids, **speaker.settings(asdict(sampling)))
    is_answer = is_instruction or is_source
    return [
        {
            "prompt": prompt,
            "text": speaker.tokenizer.decode_after([] if is_answer else before, entry.ids),
            "is_answer": is_answer,
            "tokens": len(entry.ids),
            "stopped": entry.stopped,
        }
        for prompt, before, entry in zip(prompts, ids, continued)
    ]


def print_texts(texts: list[dict[str, Any]]) -> None:
    """Each prompt and what followed; where that is an answer, it alone."""
    for entry in texts:
        if len(texts) > 1:
            print_text(f"--- {entry['prompt']!r}")
        print_text(entry["text"] if entry["is_answer"] else entry["prompt"] + entry["text"])


def chat(
    given: str,
    sampling: Sampling,
    *,
    runs: Path,
    system: str | None = None,
    ask: Callable[[], str] | None = None,
    as_json: bool = False,
) -> None:
    """Talk with a model in turns; answers are printed as they come. Ctrl-C, Ctrl-D or exit ends it.

    as_json: print each answer as a line of JSON when it is whole.

    Turns that no longer fit into the model's context are left out, oldest first, and that is said.
    """
    _check_text("--system", system or "")
    speaker = open_speaker(given, runs, is_chat=True, told=say)
    _require_chat(speaker, given)
    ask = ask or (lambda: input("" if as_json else "> "))
    talk = Talk(system)
    say("/help lists the commands of a chat; Ctrl-C, Ctrl-D or exit leaves it")
    try:
        while (text := ask().strip()) not in _LEAVES:
            try:
                _check_text("the line", text)
                if not text or talk.obey(text):
                    continue
                asked = [*talk.turns, {"role": "user", "content": text}]
                kept, ids = _fit(speaker, talk.opening, asked, sampling.max_tokens)
                _say_what_is_cut(speaker, [ids], sampling.max_tokens)
            except InputError as error:  # of this turn; the chat goes on
                say(f"({shorten(error)})")
                if talk.system:
                    say("(/system alone takes the system message back)")
                if as_json:
                    print_json_line({"prompt": text, "error": shorten(error)})
                continue
            if as_json:
                answer = _print_line(speaker, ids, sampling, prompt=text)
            else:
                answer = _print_stream(speaker, ids, sampling)
            talk.turns = [*kept, {"role": "assistant", "content": answer}]
    except (EOFError, KeyboardInterrupt):
        say("") if as_json else print_text()


def _print_stream(speaker: Speaker, ids: list[int], sampling: Sampling) -> str:
    """Print an answer as it comes."""
    answer = ""
    for piece in stream(speaker, ids, sampling):
        answer += piece
        print_text(piece, end="")
    print_text()
    return answer


def _print_line(speaker: Speaker, ids: list[int], sampling: Sampling, *, prompt: str) -> str:
    """Print an answer as a line of JSON."""
    from etude.evaluate.generate import generate

    with speaker.precision.autocast():
        (entry,) = generate(speaker.model, [ids], **speaker.settings(asdict(sampling)))
    answer = speaker.tokenizer.decode(entry.ids)
    print_json_line({"prompt": prompt, "text": answer, "tokens": len(entry.ids), "stopped": entry.stopped})
    return answer


@dataclass
class Talk:
    """The turns of a chat, and the system message that a person has set."""

    system: str | None
    turns: list[dict[str, str]] = field(default_factory=list)

    @property
    def opening(self) -> list[dict[str, str]]:
        """The turn that comes before all others; none where nobody has set one."""
        return [{"role": "system", "content": self.system}] if self.system else []

    def obey(self, text: str) -> bool:
        """Do what a command says, as `/reset`, and say so; False for any other text."""
        if not re.fullmatch(r"/[a-z]+(\s.*)?", text, re.DOTALL):
            return False
        command, *values = text.split(maxsplit=1)
        if command == "/reset":
            self.turns = []
            say("(what was said is forgotten)")
        elif command == "/system":
            self.system = values[0] if values else None
            say("(system message set)" if self.system else "(no system message but that of the model)")
        elif command == "/help":
            say(_HELP)
        else:
            say(f"({shorten(command, 40)} is no command; /help lists them)")
        return True


def stream(speaker: Speaker, ids: list[int], sampling: Sampling) -> Iterator[str]:
    """The answer piece by piece; an unfinished character, or half a line end, is held back."""
    from etude.evaluate.generate import generate_steps

    drawn: list[int] = []
    shown = ""
    with speaker.precision.autocast():
        for (token,) in generate_steps(speaker.model, [ids], **speaker.settings(asdict(sampling))):
            if token in speaker.end_ids:
                break
            drawn.append(token)
            text = speaker.tokenizer.decode(drawn)
            if not text.endswith(("\ufffd", "\r")):
                yield text[len(shown) :]
                shown = text
    yield speaker.tokenizer.decode(drawn)[len(shown) :]


def _check_text(name: str, text: str) -> None:
    """Raises: InputError for half of a surrogate pair, as which Python takes a byte that is no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        where = f"{name} is not UTF-8 text (character {error.start + 1})"
        raise InputError(f"{where}; give it in UTF-8") from None


def _say_what_is_cut(speaker: Speaker, prompts: list[list[int]], max_tokens: int) -> None:
    """Say where the context of the model ends what is written before `max_tokens` do.

    Raises: InputError if a prompt fills the context.
    """
    from etude.evaluate.generate import room

    rooms = [room(speaker.model, prompt, max_tokens) for prompt in prompts]
    if rooms and min(rooms) < max_tokens:
        longest = max(map(len, prompts))
        context = f"the model's context is {plural(speaker.context, 'token')}"
        say(f"{context}: behind a prompt of {longest:,} at most {min(rooms):,} are written")


def _require_chat(speaker: Speaker, given: str) -> None:
    from etude.models.families.table import family_of

    if family_of(speaker.model).has_source:
        what = f"{given} is an encoder-decoder, which knows no instructions"
        raise InputError(f"{what}; use etude generate without --instruction")


def _fit(
    speaker: Speaker, opening: list[dict[str, str]], turns: list[dict[str, str]], max_tokens: int
) -> tuple[list[dict[str, str]], list[int]]:
    """The newest turns that leave room for an answer, and their ids."""
    room = speaker.context - min(max_tokens, speaker.context // 2)
    kept = turns
    while True:
        text = speaker.chat.render([*opening, *kept], add_generation_prompt=True)
        ids = [int(token) for token in speaker.tokenizer.encode_rendered(text)]
        if len(ids) <= room or len(kept) == 1:
            break
        kept = kept[2:]
    if len(kept) < len(turns):
        left_out = plural(len(turns) - len(kept), "turn")
        say(f"({left_out} no longer fit into {plural(speaker.context, 'token')} and are left out)")
    return kept, ids
