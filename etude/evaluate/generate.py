"""Continue prompts with a decoder: greedy or sampled, many at a time."""

import torch
from torch import Tensor
from torch.nn import functional

from etude.errors import InputError
from etude.models.decoder import Cache, Decoder


@torch.no_grad()
def generate(
    model: Decoder,
    prompts: list[list[int]],
    *,
    max_tokens: int,
    eos_id: int | None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    vocab_size: int | None = None,
) -> list[list[int]]:
    """The tokens that follow each prompt, without the prompt and without the end token.

    temperature: 0 takes the likeliest token. top_k: draw among this many. top_p: draw among the likeliest tokens whose
    probabilities reach this sum. vocab_size: ids from here on are rows of the embedding without a token, never drawn.
    Prompt and continuation fit the model's context: of a longer prompt the last tokens are kept, and max_tokens is at
    most the context less one. An empty prompt starts after an end token. No random state outside is touched.

    Raises: InputError if a prompt is empty and there is no end token.
    """
    max_tokens = min(max_tokens, model.config.context - 1)
    if eos_id is None and not all(prompts):
        raise InputError(f"prompt {prompts.index([]) + 1} is empty; expected at least one token; write a word or two")
    if not prompts or max_tokens < 1:
        return [[] for _ in prompts]
    kept = [(prompt or [eos_id or 0])[max_tokens - model.config.context :] for prompt in prompts]
    generator = torch.Generator().manual_seed(seed)
    was_training = model.training
    model.eval()
    try:
        drawn: list[Tensor] = []
        finished = torch.zeros(len(prompts), dtype=torch.bool)
        tokens, positions, documents = _left_padded(kept, model.head_weight().device)
        cache = Cache()
        while True:
            # forward, not __call__: a compiled model would be compiled again for each length.
            hidden = model.forward(tokens, positions=positions, documents=documents, cache=cache)[:, -1]
            logits = functional.linear(hidden, model.head_weight()).float()[:, :vocab_size]
            chosen = _choose(logits.cpu(), temperature, top_k, top_p, generator)
            drawn.append(chosen)
            finished |= chosen == eos_id if eos_id is not None else False
            if len(drawn) == max_tokens or bool(finished.all()):
                break
            tokens, positions = chosen[:, None].to(tokens.device), positions[:, -1:] + 1
            if documents is not None:
                documents = functional.pad(documents, (0, 1), value=1)
    finally:
        model.train(was_training)
    rows: list[list[int]] = torch.stack(drawn, dim=1).tolist()
    return [row[: row.index(eos_id)] if eos_id in row else row for row in rows]


def _left_padded(prompts: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
    """Tokens, positions and documents (B, T) of prompts that end together; the padding is a document of its own."""
    T = max(len(prompt) for prompt in prompts)
    tokens = torch.tensor([[0] * (T - len(prompt)) + prompt for prompt in prompts], device=device)
    padding = torch.tensor([T - len(prompt) for prompt in prompts], device=device)[:, None]
    positions = torch.arange(T, device=device) - padding
    documents = (positions >= 0).long() if bool(padding.any()) else None
    return tokens, positions.clamp(min=0), documents


def _choose(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator
) -> Tensor:
    """One token (B,) for each row of logits (B, V) fp32."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    ordered, ids = torch.sort(logits / temperature, dim=-1, descending=True, stable=True)
    if top_k is not None:
        ordered[:, top_k:] = -torch.inf
    probabilities = ordered.softmax(dim=-1)
    if top_p is not None:
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = probabilities.masked_fill(before >= top_p, 0.0)
    return ids.gather(1, torch.multinomial(probabilities, 1, generator=generator))[:, 0]
