"""One thread that writes all answers: those of a decoder side by side, as they come."""

import secrets
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from etude.errors import EtudeError
from etude.evaluate.generate import choose, generate_steps
from etude.models.families.table import family_of
from etude.serve.prefixes import Prefixes
from etude.serve.rows import Rows
from etude.speaker import Speaker
from etude.text import shorten


@dataclass(frozen=True)
class Limits:
    """Numbers that no request goes beyond.

    rows          answers that are written side by side
    waiting       answers that wait for a row
    context       tokens of a prompt and its answer
    seconds       from asking until an answer ends
    prefix_bytes  keys and values of prompts that are kept
    """

    rows: int = 32
    waiting: int = 256
    context: int = 4096
    seconds: float = 120.0
    prefix_bytes: int = 256 << 20


@dataclass(frozen=True)
class Draw:
    """Settings for drawing the tokens of one answer, as `generate_steps` takes them."""

    max_tokens: int
    end_ids: tuple[int, ...]
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = field(default_factory=lambda: secrets.randbits(62))


@dataclass(frozen=True)
class End:
    """The end of an answer: reason "stop", "length", "time" or "fault", and a line for the last two."""

    reason: str
    text: str = ""


class BusyError(EtudeError):
    """As many answers wait as the engine lets wait."""


@dataclass(eq=False)
class Answer:
    """An answer that is asked for; `told` is called with its tokens and then its end, by the engine's thread.

    shared  tokens of the prompt that were not read again
    """

    prompt: list[int]
    draw: Draw
    told: Callable[["Answer", int | End], None]
    deadline: float
    is_dropped: bool = False
    shared: int = 0
    written: int = 0
    generator: torch.Generator | None = None
    steps: Iterator[list[int]] | None = None


class Engine:
    """The model with the answers that it writes. A decoder of etude takes a step of all of them at once.

    Models that have no such cache, as those of transformers, take a step of each in turn. At temperature 0
    the tokens are those of `generate`, and with a seed those of `generate` for one prompt.

    told: is called with the traceback of a fault of etude
    """

    def __init__(self, speaker: Speaker, limits: Limits, told: Callable[[str], None]) -> None:
        self.speaker, self.limits, self._told = speaker, limits, told
        self.prefixes = Prefixes(limits.prefix_bytes)
        model = speaker.model
        self._rows = Rows(cast(Any, model), self.prefixes) if family_of(model).joins else None
        self._waiting: deque[Answer] = deque()
        self._active: list[Answer] = []
        self._tokens: list[int] = []  # the last one of each row
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def context(self) -> int:
        """Tokens of a prompt and its answer at most."""
        return min(self.speaker.context, self.limits.context)

    @property
    def is_idle(self) -> bool:
        """True while no answer is written or waits."""
        with self._changed:
            return not self._active and not self._waiting

    def ask(
        self, asked: Sequence[tuple[list[int], Draw]], told: Callable[[Answer, int | End], None]
    ) -> list[Answer]:
        """Ask for answers to prompts, for all of them or none. Raises: BusyError."""
        deadline = time.monotonic() + self.limits.seconds
        answers = [Answer(prompt, draw, told, deadline) for prompt, draw in asked]
        with self._changed:
            if len(self._waiting) + len(answers) > self.limits.waiting:
                raise BusyError(f"{len(self._waiting):,} answers are waiting already; try again later")
            self._waiting.extend(answers)
            self._changed.notify()
        return answers

    def drop(self, answers: Sequence[Answer]) -> None:
        """Write no more of answers; their rows are free for others."""
        with self._changed:
            for answer in answers:
                answer.is_dropped = True
            self._changed.notify()

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    @torch.inference_mode()
    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing or self._waiting or self._active)
                if self._is_closing:
                    return
            try:
                with self.speaker.precision.autocast():
                    self._step()
            except Exception as error:  # memory that is short, too: what is written has an end
                self._tell_fault(error)
                for answer in list(self._active):
                    self._finish(answer, _fault(error))

    def _step(self) -> None:
        """One token of each answer; before it, those that have ended leave and those that wait join."""
        now = time.monotonic()
        for answer in list(self._active):
            if answer.is_dropped or now > answer.deadline:
                self._finish(answer, self._too_long())
        while (joining := self._next()) is not None:
            if joining.is_dropped or now > joining.deadline:
                joining.told(joining, self._too_long())
                continue
            self._begin(joining)
        if self._rows is None:
            for answer in list(self._active):
                self._guard(answer, self._advance_alone, answer)
        elif self._active:
            logits = self._rows.advance(torch.tensor(self._tokens))
            self._choose_all(list(self._active), logits)

    def _tell_fault(self, error: Exception) -> None:
        self._told("".join(traceback.format_exception(error, limit=-4)).rstrip())

    def _next(self) -> Answer | None:
        with self._changed:
            has_room = len(self._active) < self.limits.rows
            return self._waiting.popleft() if self._waiting and has_room else None

    def _too_long(self) -> End:
        return End("time", f"the answer took over {self.limits.seconds:g} s; ask for fewer tokens")

    def _begin(self, answer: Answer) -> None:
        if self._rows is None:
            values = vars(answer.draw)
            vocabulary = self.speaker.tokenizer.vocab_size
            answer.steps = generate_steps(
                self.speaker.model, [answer.prompt], **values, vocab_size=vocabulary
            )
            self._active.append(answer)
            return
        answer.generator = torch.Generator().manual_seed(answer.draw.seed)
        try:
            logits = self._rows.join(answer.prompt)
        except Exception as error:  # as of memory; the others go on
            self._tell_fault(error)
            answer.told(answer, _fault(error))
            return
        answer.shared = self._rows.shared
        self._active.append(answer)
        self._tokens.append(0)
        self._choose_all([answer], logits)

    def _choose_all(self, answers: list[Answer], logits: Tensor) -> None:
        """Choose the next token of answers by logits (B, V), the likeliest ones at once."""
        logits = logits[:, : self.speaker.tokenizer.vocab_size].float()
        greedy = [at for at, answer in enumerate(answers) if answer.draw.temperature == 0]
        chosen: dict[int, int] = {}
        if len(greedy) == len(answers) and bool(logits.amax(dim=-1).isfinite().all()):
            chosen = dict(enumerate(choose(logits, 0.0, None, None, torch.default_generator).tolist()))
        for at, answer in enumerate(answers):
            if at in chosen:
                self._take(answer, chosen[at])
            else:
                self._guard(answer, self._choose_alone, answer, logits[at : at + 1])

    def _choose_alone(self, answer: Answer, logits: Tensor) -> None:
        draw = answer.draw
        assert answer.generator is not None
        logits = logits if draw.temperature == 0 else logits.cpu()
        token = choose(logits, draw.temperature, draw.top_k, draw.top_p, answer.generator)
        self._take(answer, int(token))

    def _advance_alone(self, answer: Answer) -> None:
        assert answer.steps is not None
        step = next(answer.steps, None)
        if step is None:
            self._finish(answer, End("length"))
        else:
            self._take(answer, step[0])

    def _guard(self, answer: Answer, work: Callable[..., None], *given: Any) -> None:
        """Do what may fail for one answer alone; the others go on."""
        try:
            work(*given)
        except EtudeError as error:
            self._finish(answer, End("fault", shorten(str(error), 300)))

    def _take(self, answer: Answer, token: int) -> None:
        if token in answer.draw.end_ids:
            self._finish(answer, End("stop"))
            return
        answer.written += 1
        answer.told(answer, token)
        if answer.written >= answer.draw.max_tokens:
            self._finish(answer, End("length"))
        elif self._rows is not None:
            self._tokens[self._active.index(answer)] = token

    def _finish(self, answer: Answer, end: End) -> None:
        """Take an answer out; its row is given to the last one."""
        at = self._active.index(answer)
        if self._rows is None:
            self._active.pop(at)
        else:
            self._rows.leave(at)
            self._active[at], self._tokens[at] = self._active[-1], self._tokens[-1]
            self._active.pop()
            self._tokens.pop()
        answer.steps = None
        answer.told(answer, end)


def _fault(error: Exception) -> End:
    return End("fault", f"the model failed: {shorten(str(error), 200)}")
