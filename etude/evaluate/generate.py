"""Continue prompts with a causal model, or answer them with an encoder-decoder: greedy or sampled."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from etude.errors import InputError
from etude.evaluate.tasks import without_dropout
from etude.interruption import interruption_point
from etude.models.families.table import family_of
from etude.models.t5 import T5, T5Cache

_ROWS_AT_ONCE, _BLOCK = 64, 128
_SMALL_TEMPERATURE = 1e-3


@dataclass(frozen=True)
class Continuation:
    """Tokens without prompt and end token, and the end token if one came before `max_tokens`."""

    ids: list[int]
    end: int | None

    @property
    def stopped(self) -> bool:
        return self.end is not None


def generate(
    model: nn.Module, prompts: Sequence[Sequence[int]], *, end_ids: Sequence[int], **settings: Any
) -> list[Continuation]:
    """The continuation of each prompt, of `room` tokens at most; settings as for `generate_steps`.

    Prompts that leave less room than others are continued apart, so that none shortens those of others.
    """
    ends, rooms = set(end_ids), [room(model, prompt, settings["max_tokens"]) for prompt in prompts]
    continued: dict[int, Continuation] = {}
    for most in dict.fromkeys(rooms):
        some = [index for index, each in enumerate(rooms) if each == most]
        asked = [prompts[index] for index in some]
        steps = list(generate_steps(model, asked, end_ids=end_ids, **{**settings, "max_tokens": most}))
        for index, row in zip(some, zip(*steps) if steps else [()] * len(some)):
            length = next((place for place, token in enumerate(row) if token in ends), None)
            continued[index] = Continuation(list(row[:length]), None if length is None else row[length])
    return [continued[index] for index in range(len(prompts))]


def room(model: nn.Module, prompt: Sequence[int], max_tokens: int) -> int:
    """The number of tokens that may follow a prompt: max_tokens, or fewer where the context ends before.

    Raises: InputError if the prompt fills the context.
    """
    context, length = context_of(model), max(len(prompt), 1)
    if length >= context:
        raise InputError(
            f"a prompt has {length:,} tokens, and the model's context of {context:,} holds prompt and "
            f"answer; expected at most {context - 1:,}; shorten the prompt"
        )
    return min(max_tokens, context - length)


@torch.inference_mode()
def write_answers(
    model: T5,
    sources: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    end_ids: Sequence[int],
    vocab_size: int | None = None,
) -> list[Continuation]:
    """The likeliest answer of an encoder-decoder to each source, as `generate` gives it at temperature 0.

    _ROWS_AT_ONCE are answered at a time: those that wait take the places of those that ended.
    """
    device, ends = model.head_weight().device, set(end_ids)
    # The longest first: answers that take long have begun when places become empty, and there is less to pad.
    waiting = sorted(range(len(sources)), key=lambda index: len(sources[index]))
    written: list[list[int]] = [[] for _ in sources]

    def read(count: int) -> tuple[list[int], T5Cache]:
        some = [waiting.pop() for _ in range(min(count, len(waiting)))]
        tokens = torch.tensor([token for index in some for token in sources[index]], device=device)[None]
        return some, model.start(tokens, tuple(len(sources[index]) for index in some), max_tokens)

    with without_dropout(model):
        rows, cache = read(_ROWS_AT_ONCE) if sources and max_tokens > 0 else ([], None)
        tokens = torch.full((len(rows),), model.config.start_id)
        ages = [0] * len(rows)
        while cache is not None:
            interruption_point()
            tokens = _likeliest(model.advance(tokens.to(device), cache)[:, :vocab_size])
            ages = [age + 1 for age in ages]
            for row, token in zip(rows, tokens.tolist()):
                if len(written[row]) < max_tokens and not (written[row] and written[row][-1] in ends):
                    written[row].append(token)
            ended = [
                place
                for place, row in enumerate(rows)
                if written[row][-1] in ends or ages[place] == max_tokens
            ]
            if max(ages) < max_tokens and len(ended) < max(len(rows) // 8, 1):
                continue
            fresh = ended[: len(waiting)]
            if fresh:
                new, others = read(len(fresh))
                cache.refill(fresh, others)
                tokens[fresh] = model.config.start_id
                for place, row in zip(fresh, new):
                    rows[place], ages[place] = row, 0
            if len(fresh) < len(ended):
                left = sorted(set(range(len(rows))) - set(ended[len(fresh) :]))
                if not left:
                    break
                rows, ages = [rows[place] for place in left], [ages[place] for place in left]
                tokens = tokens[left]
                cache.select(left)
    return [_continuation(ids, ends) for ids in written]


def _continuation(ids: list[int], ends: set[int]) -> Continuation:
    return Continuation(ids[:-1], ids[-1]) if ids and ids[-1] in ends else Continuation(ids, None)


@torch.inference_mode()
def generate_steps(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    end_ids: Sequence[int],
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    vocab_size: int | None = None,
) -> Iterator[list[int]]:
    """The next token of every prompt, again and again, until each has drawn an end token, or `max_tokens`.

    model: a Decoder, a T5, or a causal model of transformers. temperature: 0 takes the likeliest. top_k: draw
    among this many. top_p: draw among the likeliest tokens whose probabilities reach this sum. vocab_size:
    ids from here on are rows of the embedding without a token, never drawn. Prompts are read whole, and
    max_tokens is the `room` behind the longest at most. An empty prompt starts after an end token. No random
    state outside is touched.

    Raises: InputError if a prompt fills the context, if one is empty and there is no end token, or if a model
    of transformers has no cache of keys.
    """
    max_tokens = min((room(model, prompt, max_tokens) for prompt in prompts), default=0)
    if not end_ids and not all(prompts):
        at = next(number for number, prompt in enumerate(prompts, 1) if not prompt)
        raise InputError(f"prompt {at} is empty; expected at least one token; write a word or two")
    if not prompts or max_tokens < 1:
        return
    kept = [list(prompt or end_ids[:1]) for prompt in prompts]
    generator = torch.Generator().manual_seed(seed)
    ends = torch.tensor(list(end_ids), dtype=torch.long)
    finished, alive = torch.zeros(len(prompts), dtype=torch.bool), torch.arange(len(prompts))
    with without_dropout(model):
        read = family_of(model).reader
        assert read is not None, "a model of this family writes no text"
        logits, advance, select = read(model, kept, max_tokens)
        for drawn in range(1, max_tokens + 1):
            interruption_point()
            chosen = ends[:1].repeat(len(prompts)) if len(alive) < len(prompts) else torch.empty_like(alive)
            logits = logits[:, :vocab_size].float()
            # The likeliest is found where the logits are; draws are made on the CPU, alike for all devices.
            logits = logits if temperature == 0 else logits.cpu()
            chosen[alive] = choose(logits, temperature, top_k, top_p, generator)
            finished |= torch.isin(chosen, ends)
            yield chosen.tolist()
            if drawn == max_tokens or bool(finished.all()):
                return
            # Rows at their end are left out, but not where that would change the draws of the others.
            going_on = (~finished[alive]).nonzero()[:, 0]
            if select is not None and temperature == 0 and 4 * len(going_on) <= 3 * len(alive):
                select(going_on)
                alive = alive[going_on]
            logits = advance(chosen[alive])


def context_of(model: nn.Module) -> int:
    """Tokens of a sequence at most; 2**30 without a limit."""
    return family_of(model).context(model)


def choose(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator
) -> Tensor:
    """One token (B,) for each row of logits (B, V) fp32, on the CPU."""
    if temperature == 0:
        return _likeliest(logits)
    if temperature < _SMALL_TEMPERATURE:  # a quotient of fp32 would be infinite
        logits = (logits - logits.amax(dim=-1, keepdim=True)).double()
    ordered, ids = torch.sort(logits / temperature, dim=-1, descending=True, stable=True)
    if top_k is not None:
        ordered[:, top_k:] = -torch.inf
    probabilities = ordered.softmax(dim=-1)
    if top_p is not None:
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = probabilities.masked_fill(before >= top_p, 0.0)
    _require(bool(ordered[:, 0].isfinite().all()))
    return ids.gather(1, torch.multinomial(probabilities, 1, generator=generator))[:, 0]


def _likeliest(logits: Tensor) -> Tensor:
    """The first of the highest logits (B, V) in each row, (B,) int64 on the CPU.

    Raises: InputError if one is NaN or infinite.
    """
    ids = _find_highest(logits)
    highest = logits.gather(1, ids[:, None])[:, 0]
    # The host waits for the device once.
    found = torch.where(highest.isfinite(), ids, -1).cpu()
    _require(bool((found >= 0).all()))
    return found


def _require(is_finite: bool) -> None:
    """Raises: InputError if the highest logits are not finite; NaN is above all others."""
    if not is_finite:
        raise InputError(
            "the model's logits of the next token are NaN or infinite, so it can write no text; use other "
            "weights, or in a run a higher train.precision"
        )


def _find_highest(logits: Tensor) -> Tensor:
    """The place of the first of the highest logits (B, V) in each row, or of a NaN, (B,) int64.

    argmax looks at one number at a time, amax at eight: 64 x 32,100 in blocks take 0.4 ms, not 2.1.
    """
    width = logits.shape[1]
    blocks = width // _BLOCK
    if logits.device.type != "cpu" or not blocks:
        return logits.argmax(dim=-1)
    tops = logits[:, : blocks * _BLOCK].view(-1, blocks, _BLOCK).amax(dim=2)
    tops = torch.cat([tops, logits[:, width - _BLOCK :].amax(dim=1, keepdim=True)], dim=1)
    first = (tops.argmax(dim=1, keepdim=True) * _BLOCK).clamp(max=width - _BLOCK)
    block = logits.gather(1, first + torch.arange(_BLOCK))
    return first[:, 0] + block.argmax(dim=1)
