"""One request that is being answered: its choices, as their tokens come from the engine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from etude.serve.engine import Answer, Draw, End, Engine
from etude.serve.pieces import Pieces


class AnswerError(Exception):
    """An answer that has no end of its own: too long, or a fault. Status, and one line."""

    def __init__(self, end: End) -> None:
        super().__init__(end.text)
        self.status, self.text = 504 if end.reason == "time" else 500, end.text


@dataclass(eq=False)
class Choice:
    """A text that grows; `reason` says why it ended, None until then."""

    index: int
    pieces: Pieces
    text: str = ""
    tokens: int = 0
    reason: str | None = None


class Reply:
    """The choices of a request. Whoever opens one closes it, and its rows are free.

    goes_on: the text goes on from that of the prompt. Raises: BusyError if too many answers wait.
    """

    def __init__(
        self, engine: Engine, asked: Sequence[tuple[list[int], Draw]], stops: list[str], goes_on: bool = False
    ) -> None:
        loop = asyncio.get_running_loop()
        self._engine = engine
        self._events: asyncio.Queue[tuple[Answer, int | End]] = asyncio.Queue()

        def told(answer: Answer, event: int | End) -> None:
            with contextlib.suppress(RuntimeError):  # a loop that has ended reads no more
                loop.call_soon_threadsafe(self._events.put_nowait, (answer, event))

        self.answers = engine.ask(asked, told)
        tokenizer = engine.speaker.tokenizer
        self.choices = [
            Choice(at, Pieces(tokenizer, stops, prompt if goes_on else ()))
            for at, (prompt, _) in enumerate(asked)
        ]
        self._choice_of = dict(zip(self.answers, self.choices))

    async def grow(self) -> AsyncIterator[tuple[Choice, str]]:
        """Each choice that has grown, or ended, and its new text. Raises: AnswerError."""
        left = len(self.choices)
        while left:
            answer, event = await self._events.get()
            choice = self._choice_of[answer]
            if choice.reason is not None:  # a token that came while it was being stopped
                continue
            if isinstance(event, End):
                if event.text:
                    raise AnswerError(event)
                piece, choice.reason = choice.pieces.end(), event.reason
            else:
                choice.tokens += 1
                piece = choice.pieces.add(event)
            if choice.pieces.is_stopped:
                choice.reason = "stop"
                self._engine.drop([answer])
            choice.text += piece
            left -= choice.reason is not None
            if piece or choice.reason:
                yield choice, piece

    def usage(self, per_prompt: int) -> dict[str, object]:
        """Tokens that were read and written; a prompt counts once for all its choices."""
        prompts = self.answers[::per_prompt]
        read, written = sum(len(each.prompt) for each in prompts), sum(each.tokens for each in self.choices)
        return {
            "prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": sum(each.shared for each in prompts)},
        }  # fmt: skip

    def close(self) -> None:
        """Write no more."""
        self._engine.drop(self.answers)
