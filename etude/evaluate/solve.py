"""Programs that a model writes for exercises, the same ones for the same seed, step and exercise."""

import hashlib
import json
from collections.abc import Sequence
from itertools import chain
from typing import Any

from torch import nn

from etude.data.render import ChatTemplate
from etude.data.tokenize import Tokenizer
from etude.engine.out_of_memory import rows_in_parts
from etude.errors import InputError
from etude.evaluate.answers import ROWS_AT_ONCE, encode_prompts
from etude.evaluate.execute import Exercise
from etude.evaluate.generate import Continuation, context_of, generate
from etude.report.judged import Sampled


def write_programs(
    model: nn.Module, tokenizer: Tokenizer, chat: ChatTemplate | None, exercises: Sequence[Exercise],
    sampled: Sampled, *, end_ids: Sequence[int], step: int = 0,
) -> list[list[str]]:  # fmt: skip
    """The samples of each exercise. chat: asks by its template, if `sampled.instruction`.

    Raises: InputError if an exercise leaves no room in the model's context.
    """
    prompts = encode_exercises(exercises, tokenizer, chat if sampled.instruction else None)
    require_room(exercises, prompts, context_of(model))
    settings: dict[str, Any] = {
        "max_tokens": sampled.max_tokens, "temperature": sampled.temperature, "top_p": sampled.top_p,
        "top_k": None, "end_ids": end_ids, "vocab_size": tokenizer.vocab_size,
    }  # fmt: skip
    written = (_write_likeliest if sampled.temperature == 0 else _draw)(
        model, exercises, prompts, sampled, step, settings
    )
    is_answer = sampled.instruction
    texts = (
        [tokenizer.decode_after([] if is_answer else prompt, each.ids) for each in some]
        for prompt, some in zip(prompts, written)
    )
    return [
        [exercise.sample(text, is_answer=is_answer) for text in some]
        for exercise, some in zip(exercises, texts)
    ]


def encode_exercises(
    exercises: Sequence[Exercise], tokenizer: Tokenizer, chat: ChatTemplate | None
) -> list[list[int]]:
    """The ids of exercises; with a chat template they are asked as instructions."""
    texts = [exercise.prompt if chat is None else exercise.asked for exercise in exercises]
    return encode_prompts(texts, tokenizer, chat)


def require_room(exercises: Sequence[Exercise], prompts: Sequence[Sequence[int]], context: int) -> None:
    """Raises: InputError if an exercise fills a context of so many tokens."""
    longest = max(map(len, prompts), default=0)
    if longest >= context:
        at = exercises[[len(each) for each in prompts].index(longest)].name
        raise InputError(f"{at} has {longest:,} tokens, and the model reads {context:,}; leave it out")


def _write_likeliest(
    model: nn.Module, exercises: Sequence[Exercise], prompts: Sequence[Sequence[int]], sampled: Sampled,
    step: int, settings: dict[str, Any],
) -> list[list[Continuation]]:  # fmt: skip
    """The one sample of each exercise; prompts of similar length are read together."""
    order, parts = sorted(range(len(prompts)), key=lambda place: len(prompts[place])), rows_in_parts()
    written: dict[int, list[Continuation]] = {}
    for low in range(0, len(order), ROWS_AT_ONCE):
        some = order[low : low + ROWS_AT_ONCE]
        done = parts.do([prompts[place] for place in some], lambda rows: generate(model, rows, **settings))
        written |= {place: [each] for place, each in zip(some, chain.from_iterable(done))}
    return [written[place] for place in range(len(prompts))]


def _draw(
    model: nn.Module, exercises: Sequence[Exercise], prompts: Sequence[Sequence[int]], sampled: Sampled,
    step: int, settings: dict[str, Any],
) -> list[list[Continuation]]:  # fmt: skip
    """The samples of each exercise, drawn apart from those of others."""
    parts, written = rows_in_parts(), []
    for exercise, prompt in zip(exercises, prompts):

        def draw(numbers: list[int]) -> list[Continuation]:
            seed = _seed(sampled.seed, step, exercise, numbers[0])  # noqa: B023 - called at once
            return generate(model, [prompt] * len(numbers), seed=seed, **settings)  # noqa: B023

        numbers = list(range(sampled.samples))
        some = [numbers[low : low + ROWS_AT_ONCE] for low in range(0, len(numbers), ROWS_AT_ONCE)]
        written.append(list(chain.from_iterable(each for part in some for each in parts.do(part, draw))))
    return written


def _seed(seed: int, step: int, exercise: Exercise, first: int) -> int:
    """A seed for some samples of an exercise at a step, whatever others are drawn and by which rank."""
    told = json.dumps([seed, step, first, exercise.prompt, exercise.problem.tests]).encode()
    return int.from_bytes(hashlib.sha256(told).digest()[:8], "little") >> 1
