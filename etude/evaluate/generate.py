"""Continue prompts with a causal model, or answer them with an encoder-decoder: greedy or sampled, many at a
time.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from etude.errors import InputError
from etude.models.decoder import Cache, Decoder
from etude.models.foreign import PADDABLE_DECODERS, fixed_until, scored_logits
from etude.models.packed import TokenReader, is_worth_it
from etude.models.t5 import T5
from etude.models.t5_cache import T5Cache

_ROWS_AT_ONCE, _BLOCK = 64, 128
_SMALL_TEMPERATURE = 1e-3


@dataclass(frozen=True)
class Continuation:
    """Tokens without the prompt and the end token, and the end token that came before `max_tokens`, if one
    did.
    """

    ids: list[int]
    end: int | None

    @property
    def stopped(self) -> bool:
        return self.end is not None


def generate(
    model: nn.Module, prompts: Sequence[Sequence[int]], *, end_ids: Sequence[int], **settings: Any
) -> list[Continuation]:
    """The continuation of each prompt, of `room` tokens at most; settings as for `generate_steps`.

    Prompts that leave less room than others are continued apart, so that none shortens what is said to
    another.
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
    """How many tokens may follow a prompt: max_tokens, or fewer where the model's context ends before.

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
    """The likeliest answer of an encoder-decoder to each source, as `generate` gives it without a
    temperature.

    Whatever their number, _ROWS_AT_ONCE are answered at a time: those that wait take the places of those that
    ended.
    """
    device, was_training, ends = model.head_weight().device, model.training, set(end_ids)
    # The longest first: answers that take long have begun when places become empty, and there is less to pad.
    waiting = sorted(range(len(sources)), key=lambda index: len(sources[index]))
    said: list[list[int]] = [[] for _ in sources]
    model.eval()

    def read(count: int) -> tuple[list[int], T5Cache]:
        some = [waiting.pop() for _ in range(min(count, len(waiting)))]
        tokens = torch.tensor([token for index in some for token in sources[index]], device=device)[None]
        return some, model.start(tokens, tuple(len(sources[index]) for index in some), max_tokens)

    try:
        rows, cache = read(_ROWS_AT_ONCE) if sources and max_tokens > 0 else ([], None)
        tokens = torch.full((len(rows),), model.config.start_id, device=device)
        ages = [0] * len(rows)
        while cache is not None:
            tokens = _likeliest(model.advance(tokens, cache)[:, :vocab_size])
            ages = [age + 1 for age in ages]
            for row, token in zip(rows, tokens.tolist()):
                if len(said[row]) < max_tokens and not (said[row] and said[row][-1] in ends):
                    said[row].append(token)
            ended = [
                place for place, row in enumerate(rows) if said[row][-1] in ends or ages[place] == max_tokens
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
                rows, ages, tokens = (
                    [rows[place] for place in left],
                    [ages[place] for place in left],
                    tokens[left],
                )
                cache.select(left)
    finally:
        model.train(was_training)
    return [
        Continuation(ids[:-1], ids[-1]) if ids and ids[-1] in ends else Continuation(ids, None)
        for ids in said
    ]


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
        at = next(index for index, prompt in enumerate(prompts) if not prompt)
        raise InputError(f"prompt {at + 1} is empty; expected at least one token; write a word or two")
    if not prompts or max_tokens < 1:
        return
    kept = [list(prompt or end_ids[:1]) for prompt in prompts]
    generator = torch.Generator().manual_seed(seed)
    ends = torch.tensor(list(end_ids), dtype=torch.long)
    finished, alive = torch.zeros(len(prompts), dtype=torch.bool), torch.arange(len(prompts))
    was_training = model.training
    model.eval()
    try:
        read = (
            _read_decoder
            if isinstance(model, Decoder)
            else _read_t5
            if isinstance(model, T5)
            else _read_foreign
        )
        logits, advance, select = read(model, kept, max_tokens)
        for drawn in range(1, max_tokens + 1):
            chosen = (
                ends[:1].repeat(len(prompts))
                if len(alive) < len(prompts)
                else torch.empty(len(alive), dtype=torch.long)
            )
            logits = logits[:, :vocab_size].float()
            # The likeliest is found where the logits are; draws are made on the CPU, the same for every
            # device.
            logits = logits if temperature == 0 else logits.cpu()
            chosen[alive] = _choose(logits, temperature, top_k, top_p, generator).cpu()
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
    finally:
        model.train(was_training)


Advance = Callable[[Tensor], Tensor]
Select = Callable[[Tensor], None]


def context_of(model: nn.Module) -> int:
    """Most tokens of a sequence."""
    if isinstance(model, Decoder):
        return model.config.longest
    if isinstance(model, T5):
        return 2**30
    config: Any = model.config
    return int(
        getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 2**30
    )


def _read_decoder(model: Any, prompts: list[list[int]], max_tokens: int) -> tuple[Tensor, Advance, None]:
    """Logits (B, V) after the prompts, read end to end without padding, and what gives those after one more
    token.
    """
    device, lengths = model.head_weight().device, tuple(map(len, prompts))
    positions = torch.cat([torch.arange(length) for length in lengths])[None].to(device)
    tokens = torch.tensor([token for prompt in prompts for token in prompt], device=device)[None]
    is_mixed = torch.is_autocast_enabled(
        device.type
    )  # then keys and values come in that dtype, weights do not
    dtype = torch.get_autocast_dtype(device.type) if is_mixed else model.model.norm.weight.dtype
    cache = Cache(model.config, len(prompts), max(lengths) + max_tokens, dtype=dtype, device=device)
    # forward, not __call__: a compiled model would be compiled again for each length.
    hidden = model.forward(tokens, positions=positions, lengths=lengths, cache=cache)
    last = torch.tensor(lengths, device=device).cumsum(0) - 1

    if is_worth_it(model, len(prompts)):
        return model.head(hidden[0, last]), TokenReader(model, cache), None

    def advance(chosen: Tensor) -> Tensor:
        return cast(Tensor, model.head(model.forward(chosen[:, None].to(device), cache=cache)[:, 0]))

    return model.head(hidden[0, last]), advance, None


def _read_t5(model: Any, prompts: list[list[int]], max_tokens: int) -> tuple[Tensor, Advance, Select]:
    """Logits (B, V) of the first tokens of answers, what gives those after one more, and what leaves out
    rows.
    """
    device, lengths = model.head_weight().device, tuple(map(len, prompts))
    tokens = torch.tensor([token for prompt in prompts for token in prompt], device=device)[None]
    cache = model.start(tokens, lengths, max_tokens)

    def advance(chosen: Tensor) -> Tensor:
        return cast(Tensor, model.advance(chosen.to(device), cache))

    return advance(torch.full((len(prompts),), model.config.start_id)), advance, cache.select


def _read_foreign(model: Any, prompts: list[list[int]], max_tokens: int) -> tuple[Tensor, Advance, None]:
    """The same for a model of transformers; prompts of different lengths stand beside each other where they
    may.
    """
    if max(map(len, prompts)) + max_tokens > fixed_until(model):
        return _read_again(model, prompts)
    is_paddable = model.config.model_type in PADDABLE_DECODERS
    if is_paddable or len(set(map(len, prompts))) == 1:
        return _read_side_by_side(model, prompts)
    each = [_read_side_by_side(model, [prompt]) for prompt in prompts]

    def advance(chosen: Tensor) -> Tensor:
        return torch.cat([go_on(token) for (_, go_on, _), token in zip(each, torch.split(chosen, 1))])

    return torch.cat([logits for logits, _, _ in each]), advance, None


def _read_again(model: Any, prompts: list[list[int]]) -> tuple[Tensor, Advance, None]:
    """The same without a cache, for rotary frequencies that change with the length: each step reads all of a
    row.
    """
    device = next(model.parameters()).device
    rows = [list(prompt) for prompt in prompts]

    def read() -> Tensor:
        lengths = tuple(map(len, rows))
        tokens = torch.tensor([token for row in rows for token in row], device=device)[None]
        return scored_logits(model, tokens, None, lengths, torch.tensor(lengths, device=device).cumsum(0) - 1)

    def advance(chosen: Tensor) -> Tensor:
        for row, token in zip(rows, chosen.tolist()):
            row.append(token)
        return read()

    return read(), advance, None


def _read_side_by_side(model: Any, prompts: list[list[int]]) -> tuple[Tensor, Advance, None]:
    """The same with a cache: prompts of different lengths are padded on the left, and the mask grows."""
    device = next(model.parameters()).device
    longest = max(map(len, prompts))
    tokens = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor(
        [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device
    )
    given = {"attention_mask": mask}
    if (
        not mask.all()
    ):  # else the model counts positions as it was trained to: some begin behind that of the padding
        given["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    past: Any = None

    def advance(chosen: Tensor) -> Tensor:
        given["attention_mask"] = functional.pad(given["attention_mask"], (0, 1), value=1)
        if "position_ids" in given:
            given["position_ids"] = given["position_ids"][:, -1:] + 1
        return read(chosen[:, None].to(device))

    def read(tokens: Tensor) -> Tensor:
        nonlocal past
        output = model(input_ids=tokens, past_key_values=past, use_cache=True, logits_to_keep=1, **given)
        past = getattr(output, "past_key_values", None)
        if past is None:
            raise InputError(
                f"a {model.config.model_type} model keeps no keys and values to go on from, which writing "
                "text here needs; use another model, or leave out evaluate.prompts and evaluate.answers"
            )
        logits: Tensor = output.logits[:, -1]
        return logits

    return read(tokens), advance, None


def _choose(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator
) -> Tensor:
    """One token (B,) for each row of logits (B, V) fp32."""
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
    _require_finite(ordered[:, 0])
    return ids.gather(1, torch.multinomial(probabilities, 1, generator=generator))[:, 0]


def _likeliest(logits: Tensor) -> Tensor:
    """The first of the highest logits (B, V) in each row, (B,) int64.

    Raises: InputError if one is NaN or infinite.
    """
    ids = _find_highest(logits)
    _require_finite(logits.gather(1, ids[:, None]))
    return ids


def _require_finite(highest: Tensor) -> None:
    """Raises: InputError if one of the highest logits is NaN or infinite; NaN is above all others."""
    if not bool(highest.isfinite().all()):
        raise InputError(
            "the model's logits of the next token are NaN or infinite, so it can write no text; use other "
            "weights, or in a run a higher train.precision"
        )


def _find_highest(logits: Tensor) -> Tensor:
    """The place of the first of the highest logits (B, V) in each row, or of a NaN, (B,) int64.

    argmax looks at one number at a time, amax at eight: of 64 x 32,100 in blocks 0.4 ms instead of 2.1 (one
    thread).
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
