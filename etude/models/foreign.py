"""Logits and texts of models that run through transformers, each sample as if it were alone."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from etude.errors import InputError
from etude.models.families.family import Reader
from etude.models.packing import find_lasts

# Families that take a mask of the whole row as it is, so that one call does for all its sequences. In others
# a window, a recurrence or a mask of their own would be lost without a word.
MASKABLE = ("gpt2", "gptj", "gpt_neox", "starcoder2", "gemma", "phi", "llama", "qwen2")
# Families in which padding changes nothing that a sample gets; in others a convolution, a Fourier transform,
# a pooled sequence or a recurrence sees it. Decoders are padded on the left to write, all of them on the
# right to be scored.
PADDABLE_DECODERS = (
    "bloom", "codegen", "cohere", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_bigcode", "gpt_neox", "gptj",
    "granite", "llama", "mistral", "mixtral", "mpt", "olmo", "olmo2", "opt", "phi", "phi3", "qwen2", "qwen3",
    "smollm3", "stablelm", "starcoder2",
)  # fmt: skip
PADDABLE_ENCODERS = (
    "albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "esm",
    "eurobert", "modernbert", "mpnet", "rembert", "roberta", "xlm-roberta",
)  # fmt: skip
# Rotary frequencies that are the same for every length.
_FIXED_ROTARY = ("default", "linear", "llama3", "yarn", "proportional")


def scored_logits(
    model: nn.Module,
    tokens: Tensor,
    positions: Tensor | None,
    lengths: tuple[int, ...] | None,
    scored: Tensor | None,
) -> Tensor:
    """Logits (n, V) of the scored positions of tokens (B, T); arguments as for `Decoder.forward`.

    Sequences that lie end to end are kept apart by a mask, added to the scores, or by a call for each.
    """
    _forget_longest(model)
    if lengths is None:
        logits: Tensor = model(input_ids=tokens, position_ids=positions, use_cache=False).logits.flatten(0, 1)
    elif _takes_mask(model, lengths):
        mask = _block_mask(lengths, next(model.parameters()).dtype, tokens.device)
        named = {} if scored is None else {"logits_to_keep": scored}
        output = model(
            input_ids=tokens, position_ids=positions, attention_mask=mask, use_cache=False, **named
        )
        return output.logits[0]  # type: ignore[no-any-return]
    else:
        each = []
        for part in torch.split(tokens, list(lengths), dim=1):
            _forget_longest(model)
            each.append(model(input_ids=part, use_cache=False).logits[0])
        logits = torch.cat(each)
    return logits if scored is None else logits[scored]


def label_logits(
    model: Any, tokens: Tensor, lengths: tuple[int, ...] | None, token_types: Tensor | None
) -> Tensor:
    """Logits (n, labels) of the samples in tokens (B, T); arguments as for `Encoder.forward`.

    Samples are padded to the longest where that changes nothing, else there is a call for each.
    """
    sizes = list(lengths or (tokens.shape[1],) * tokens.shape[0])
    rows = torch.split(tokens.flatten(), sizes)
    types: tuple[Tensor, ...] = ()
    if token_types is not None and getattr(model.config, "type_vocab_size", 0) > 1:
        types = torch.split(token_types.flatten(), sizes)
    is_paddable = model.config.model_type in (*PADDABLE_DECODERS, *PADDABLE_ENCODERS)
    if len(set(sizes)) == 1 or (is_paddable and max(sizes) <= fixed_until(model)):
        return _padded_logits(model, rows, types)
    alone = [_padded_logits(model, rows[at : at + 1], types[at : at + 1]) for at in range(len(rows))]
    return torch.cat(alone)


def states(model: Any, tokens: Tensor, lengths: tuple[int, ...] | None) -> Tensor:
    """Last hidden states (N, C) of tokens (B, T), a call for each sample; lengths: as for `label_logits`."""
    each = []
    for part in torch.split(tokens.flatten(), list(lengths or (tokens.shape[1],) * tokens.shape[0])):
        _forget_longest(model)
        each.append(model.base_model(input_ids=part[None], use_cache=False).last_hidden_state[0])
    return torch.cat(each)


def read_prompts(model: Any, prompts: list[list[int]], max_tokens: int) -> Reader:
    """Read prompts of different lengths beside each other where the family allows it."""
    if max(map(len, prompts)) + max_tokens > fixed_until(model):
        return _read_again(model, prompts)
    is_paddable = model.config.model_type in PADDABLE_DECODERS
    if is_paddable or len(set(map(len, prompts))) == 1:
        return _read_side_by_side(model, prompts)
    readers = [_read_side_by_side(model, [prompt]) for prompt in prompts]

    def advance(chosen: Tensor) -> Tensor:
        return torch.cat([reader.advance(token) for reader, token in zip(readers, torch.split(chosen, 1))])

    return Reader(torch.cat([reader.logits for reader in readers]), advance)


def fixed_until(model: Any) -> float:
    """Longest sequence, in tokens, up to which rotary frequencies do not depend on how long it is.

    Beyond it the frequencies of dynamic and longrope follow from the longest position of a call.
    """
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    parts = [part for part in rope.values() if isinstance(part, dict)] or [rope]
    moving = [part for part in parts if part.get("rope_type", "default") not in _FIXED_ROTARY]
    context = int(getattr(config, "max_position_embeddings", None) or 0)
    return min(
        (int(part.get("original_max_position_embeddings") or context) for part in moving), default=math.inf
    )


def _read_again(model: Any, prompts: list[list[int]]) -> Reader:
    """The same without a cache, for rotary frequencies that change with the length: a step reads all rows."""
    device = next(model.parameters()).device
    rows = [list(prompt) for prompt in prompts]

    def read() -> Tensor:
        lengths = tuple(map(len, rows))
        tokens = torch.tensor([token for row in rows for token in row], device=device)[None]
        return scored_logits(model, tokens, None, lengths, find_lasts(lengths, device))

    def advance(chosen: Tensor) -> Tensor:
        for row, token in zip(rows, chosen.tolist()):
            row.append(token)
        return read()

    return Reader(read(), advance)


def _read_side_by_side(model: Any, prompts: list[list[int]]) -> Reader:
    """The same with a cache: prompts of different lengths are padded on the left, and the mask grows."""
    device, longest = next(model.parameters()).device, max(map(len, prompts))
    tokens = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    places, lengths = torch.arange(longest), torch.tensor(list(map(len, prompts)))
    mask = (places >= longest - lengths[:, None]).long().to(device)
    given = {"attention_mask": mask}
    if not mask.all():  # else the model counts positions as it was trained to, some from behind the padding's
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
            wrong = "keeps no keys and values to go on from, which writing text here needs"
            advice = "use another model, or leave out evaluate.prompts and evaluate.answers"
            raise InputError(f"a {model.config.model_type} model {wrong}; {advice}")
        logits: Tensor = output.logits[:, -1]
        return logits

    return Reader(read(tokens), advance)


def _takes_mask(model: Any, lengths: tuple[int, ...]) -> bool:
    window = getattr(model.config, "sliding_window", None)
    longest = max(lengths)
    is_seen_whole = window is None or window >= longest
    return model.config.model_type in MASKABLE and is_seen_whole and longest <= fixed_until(model)


def _forget_longest(model: Any) -> None:
    """Bring dynamic rotary frequencies back to the start: transformers keeps those of the longest call."""
    if fixed_until(model) == math.inf:
        return
    for module in model.modules():
        if (original := getattr(module, "original_max_seq_len", None)) is not None:
            for name in [name for name in vars(module) if name.endswith("max_seq_len_cached")]:
                setattr(module, name, original)
            for name, kept in list(module.named_buffers(recurse=False)):
                if name.endswith("original_inv_freq"):
                    setattr(module, name.replace("original_inv_freq", "inv_freq"), kept.clone())


def _padded_logits(model: Any, rows: Sequence[Tensor], types: Sequence[Tensor]) -> Tensor:
    """Logits (n, labels) of samples by one call, padded on the right to the longest."""
    _forget_longest(model)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    padding = model.config.get_text_config().pad_token_id
    padded = nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=padding)
    given = {"token_type_ids": nn.utils.rnn.pad_sequence(list(types), batch_first=True)} if types else {}
    logits: Tensor = model(input_ids=padded, attention_mask=mask, **given).logits
    return logits


def _block_mask(lengths: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """(1, 1, T, T): 0 within a sequence up to the token itself, the lowest number of the dtype elsewhere."""
    sequence = torch.repeat_interleave(torch.tensor(lengths, device=device), output_size=sum(lengths))
    place = torch.arange(len(sequence), device=device)
    seen = (sequence == sequence[:, None]) & (place <= place[:, None])
    mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill(~seen, torch.finfo(dtype).min)
    return mask[None, None]
