"""Texts of a model: continuations of fixed prompts, and answers to instructions it was not trained on."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, cast

from torch import nn

from etude.data.corpus import Corpus
from etude.data.examples import Example
from etude.data.render import ChatTemplate
from etude.data.secrets import redact, redact_parts
from etude.data.tokenize import Tokenizer
from etude.engine.out_of_memory import rows_in_parts
from etude.evaluate.generate import Continuation, generate, room, write_answers
from etude.models.families.table import family_of
from etude.models.t5 import T5
from etude.recipe.schema import Recipe
from etude.records import events
from etude.scores.answers import Answer

ROWS_AT_ONCE = 16  # answers that are written together


def continue_prompts(model: nn.Module, corpus: Corpus, recipe: Recipe, step: int) -> list[events.Generation]:
    """Continuations of `evaluate.prompts`, which are instructions where the data holds instructions."""
    settings: dict[str, Any] = {
        "max_tokens": recipe.evaluate.sample_tokens,
        "temperature": recipe.evaluate.temperature,
        "top_k": recipe.evaluate.top_k,
        "top_p": recipe.evaluate.top_p,
        "seed": recipe.seed,
    }
    tokenizer = corpus.tokenizer
    chat = corpus.chat if len(corpus.examples) else None
    is_source = family_of(model).has_source
    ids = encode_prompts(recipe.evaluate.prompts, tokenizer, chat, is_source=is_source)
    parts = rows_in_parts()
    done = parts.do(ids, lambda rows: _generate(model, corpus, rows, settings))
    continued = list(chain.from_iterable(done))
    befores = [[]] * len(ids) if chat or is_source else ids
    texts = (
        redact_parts([prompt, tokenizer.decode_after(before, part.ids)])
        for prompt, before, part in zip(recipe.evaluate.prompts, befores, continued)
    )
    return [
        events.Generation(step, prompt, text, _as_done(model, settings, each), stopped=part.stopped)
        for (prompt, text), part, each in zip(texts, continued, ids)
    ]


def encode_prompts(
    prompts: Sequence[str], tokenizer: Tokenizer, chat: ChatTemplate | None, *, is_source: bool = False
) -> list[list[int]]:
    """The ids of prompts as a model was trained to read them; with a chat template they are instructions.

    is_source: an encoder-decoder has no such template; it reads a text as the tokenizer surrounds it.
    """
    if is_source:
        return [ids.tolist() for ids, *_ in tokenizer.encode_joined([(prompt, None) for prompt in prompts])]
    if chat is not None:
        return [chat.encode_prompt(prompt) for prompt in prompts]
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    return [begin + tokenizer.encode(prompt).tolist() for prompt in prompts]


def answer(
    model: nn.Module, corpus: Corpus, recipe: Recipe, step: int
) -> tuple[list[events.Generation], list[Answer]]:
    """Greedy answers to `evaluate.answers` evenly spaced validation rows, to record and to score.

    The records show no secret; the answers that are scored are as the model wrote them.
    """
    count = min(recipe.evaluate.answers, len(corpus.examples))
    examples = [corpus.examples[index * len(corpus.examples) // count] for index in range(count)]
    settings: dict[str, Any] = {"max_tokens": recipe.evaluate.answer_tokens, "temperature": 0.0}
    continued = greedy(model, corpus, [each.prompt_ids for each in examples], settings["max_tokens"])
    answers = [as_answer(example, part, corpus) for example, part in zip(examples, continued)]
    texts = [
        events.Generation(
            step, redact(example.prompt), redact(answer.text), _as_done(model, settings, example.prompt_ids),
            redact(answer.reference), stopped=answer.stopped, capability=answer.capability,
        )
        for example, answer in zip(examples, answers)
    ]  # fmt: skip
    return texts, answers


def greedy(
    model: nn.Module, corpus: Corpus, prompts: Sequence[Sequence[int]], max_tokens: int
) -> list[Continuation]:
    """The likeliest continuation of each prompt; those of similar length are read together."""
    settings: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 0.0}
    parts = rows_in_parts()
    if family_of(model).has_source:
        source, vocab_size = cast(T5, model), corpus.tokenizer.vocab_size

        def write(sources: list[Sequence[int]]) -> list[Continuation]:
            return write_answers(
                source, sources, max_tokens=max_tokens, end_ids=corpus.end_ids, vocab_size=vocab_size
            )

        return list(chain.from_iterable(parts.do(list(prompts), write)))
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    continued: dict[int, Continuation] = {}
    for low in range(0, len(order), ROWS_AT_ONCE):
        some = order[low : low + ROWS_AT_ONCE]
        asked = [prompts[index] for index in some]
        done = parts.do(asked, lambda rows: _generate(model, corpus, rows, settings))
        continued |= dict(zip(some, chain.from_iterable(done)))
    return [continued[index] for index in range(len(prompts))]


def as_answer(example: Example, part: Continuation, corpus: Corpus) -> Answer:
    """The answer to an example, as text beside its reference."""
    return Answer(corpus.tokenizer.decode(part.ids), example.reference, part.stopped, example.capability)


def _as_done(model: nn.Module, settings: dict[str, Any], prompt: Sequence[int]) -> dict[str, Any]:
    """The settings with the number of tokens that the model's context had room for."""
    return settings | {"max_tokens": room(model, prompt, settings["max_tokens"])}


def _generate(
    model: nn.Module, corpus: Corpus, prompts: Sequence[Sequence[int]], settings: dict[str, Any]
) -> list[Continuation]:
    vocab_size = corpus.tokenizer.vocab_size
    return generate(model, prompts, end_ids=corpus.end_ids, vocab_size=vocab_size, **settings)
