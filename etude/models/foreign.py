"""Models that run through transformers: looked at, loaded, and asked for logits of positions or samples of a
batch.
"""

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from etude.errors import InputError
from etude.memory import limited_memory
from etude.models.parts import head_modules, keep_labels, label_tensors
from etude.models.weights import REMADE, check_twins, read_weight, tensor_shapes

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
# What files have beside the body of a model, to no use of some.
_BESIDE = re.compile(r"(^|\.)(pooler|position_ids|token_type_ids)(\.|$)")


# Memory for a configuration and for modules without weights, several times what the largest known model
# takes.
_CONFIG_BYTES = 1 << 30


def read_config(path: Path, labels: int = 0) -> Any:
    """The configuration in config.json; with labels that of a classifier.

    Raises: InputError if the family has no such form.
    """
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto as families
    from transformers.utils import logging

    logging.set_verbosity(logging.CRITICAL)  # it quotes the file, whole, also before it raises
    try:
        with limited_memory(_CONFIG_BYTES):
            config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever its many configurations raise
        reason = _reason(error)
        raise InputError(
            f"{path}: transformers cannot read config.json ({reason}); use another model"
        ) from None
    # A file may name an implementation that transformers would fetch and run; the choice is not the file's.
    config._attn_implementation = config._experts_implementation = None
    if labels:
        if config.model_type not in families.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
            raise InputError(
                f"{path} is a {config.model_type} model, which has no form that scores labels; "
                "classification takes BERT, RoBERTa, ModernBERT, T5, Qwen2, Llama and their kin"
            )
        config.num_labels = labels
        return config
    # transformers offers a causal head to encoders too, where every position would see its own target.
    encoders = {*families.MODEL_FOR_MASKED_LM_MAPPING_NAMES, "bert-generation", "cpmant", "xlnet"}
    is_encoder = config.is_encoder_decoder or config.model_type in encoders
    is_causal = config.model_type in families.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if not is_causal or (is_encoder and not getattr(config, "is_decoder", False)):
        raise InputError(
            f"{path} is a {config.model_type} model, which does not predict the next token; use a causal one"
        )
    return config


def empty_model(path: Path, labels: int = 0) -> nn.Module:
    """Modules and names without memory, of a classifier if there are labels. Raises: as `read_config`."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    config = read_config(path, labels)
    kind: Any = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    try:
        with limited_memory(_CONFIG_BYTES), torch.device("meta"):
            model: Any = kind.from_config(config, trust_remote_code=False)
        model.tie_weights()
    except Exception as error:  # transformers raises whatever its many models raise
        reason = _reason(error)
        raise InputError(
            f"{path}: transformers cannot build what config.json says ({reason}); mend the file"
        ) from None
    built: nn.Module = model
    return built


def count_parameters(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """Exact parameters by part.

    shapes: of the tensors in files. Raises: InputError if config.json says others.
    """
    model: Any = empty_model(path)
    _check_twins(model, path, shapes)
    for name, parameter in model.named_parameters():
        # Some files leave out the name of the part that all but the head stand in.
        found = shapes.get(name, shapes.get(name.removeprefix(f"{model.base_model_prefix}.")))
        if found not in (None, tuple(parameter.shape)):
            raise InputError(f"{path}: {name} is {list(found)}, but config.json says {list(parameter.shape)}")
    total = sum(parameter.numel() for parameter in model.parameters())
    embedding = model.get_input_embeddings().weight.numel()
    return {"embedding": embedding, "rest": total - embedding, "total": total}


def load_causal(path: Path, dtype: torch.dtype, dropout: float) -> nn.Module:
    """A causal model. Raises: InputError if a file is damaged or lacks a tensor."""
    from transformers import AutoModelForCausalLM

    model, report = _load_in_transformers(AutoModelForCausalLM, path, read_config(path), dtype, dropout)
    _refuse_unused(model, report["unexpected_keys"], path)
    if missing := [name for name in report["missing_keys"] if not REMADE.search(name)]:
        raise InputError(f"{path} lacks {sorted(missing)[0]}, unlike its config.json; copy the model again")
    return model


def load_classifier(
    path: Path,
    labels: int,
    pad_id: int,
    *,
    theirs: int,
    kept: int,
    dtype: torch.dtype,
    dropout: float,
    seed: int,
) -> tuple[nn.Module, list[str]]:
    """A classifier of transformers, and the names of its weights that no file had, drawn as transformers
    draws them.

    theirs, kept: the labels of the files, and how many of them, the first ones, keep their outputs. Raises:
    InputError if a file is damaged, or lacks weights of the body.
    """
    from transformers import AutoModelForSequenceClassification

    config = read_config(path, labels)
    config.get_text_config().pad_token_id = pad_id
    _check_twins(empty_model(path, labels), path, tensor_shapes(path))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, report = _load_in_transformers(
            AutoModelForSequenceClassification, path, config, dtype, dropout, ignore_mismatched_sizes=True
        )
    _refuse_unused(model, report["unexpected_keys"], path)
    heads = tuple(f"{name}." for name in head_modules(model))
    for name, given, expected in report["mismatched_keys"]:
        if not name.startswith(heads):
            raise InputError(f"{path}: {name} is {list(given)}, but config.json says {list(expected)}")
    missing = sorted(name for name in report["missing_keys"] if not REMADE.search(name))
    if lost := [name for name in missing if not name.startswith(heads)]:
        raise InputError(f"{path} lacks {lost[0]}, unlike its config.json; copy the model again")
    new = {*missing, *(name for name, *_ in report["mismatched_keys"])}
    if theirs and kept != labels:  # what transformers loaded of them, or drew, does not fit the labels
        new.update(_draw_labels(model, path, theirs=theirs, kept=kept, seed=seed))
    elif wrong := sorted(set(label_tensors(model)) & {name for name, *_ in report["mismatched_keys"]}):
        raise InputError(
            f"{path}: {wrong[0]} is of other labels than the {labels:,} in config.json; copy it again"
        )
    return model, sorted(new)


@torch.no_grad()
def _draw_labels(model: nn.Module, path: Path, *, theirs: int, kept: int, seed: int) -> list[str]:
    """Draw the outputs of a head anew, but for the first ones of a file; returns the names of its
    parameters."""
    generator = torch.Generator().manual_seed(seed)
    names = label_tensors(model)
    for name in names:
        parameter = model.get_parameter(name)
        drawn = torch.zeros(parameter.shape)
        if not name.endswith("bias"):
            drawn.normal_(std=0.02, generator=generator)
        given = read_weight(path, [name])
        if given is not None:
            drawn = keep_labels(f"{path}: {name}", given, drawn, theirs=theirs, kept=kept)
        parameter.copy_(drawn)
    return names


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
    each = lengths or (tokens.shape[1],) * tokens.shape[0]
    rows = torch.split(tokens.flatten(), list(each))
    types: tuple[Tensor, ...] = ()
    if token_types is not None and getattr(model.config, "type_vocab_size", 0) > 1:
        types = torch.split(token_types.flatten(), list(each))
    is_paddable = model.config.model_type in (*PADDABLE_DECODERS, *PADDABLE_ENCODERS)
    if len(set(each)) == 1 or (is_paddable and max(each) <= fixed_until(model)):
        return _padded_logits(model, rows, types)
    return torch.cat(
        [_padded_logits(model, rows[at : at + 1], types[at : at + 1]) for at in range(len(rows))]
    )


def fixed_until(model: Any) -> float:
    """Longest sequence, in tokens, up to which rotary frequencies do not depend on how long it is.

    Beyond it the frequencies of dynamic and longrope follow from the longest position of a call.
    """
    config = model.config.get_text_config()
    said = getattr(config, "rope_parameters", None) or {}
    parts = [part for part in said.values() if isinstance(part, dict)] or [said]
    moving = [part for part in parts if part.get("rope_type", "default") not in _FIXED_ROTARY]
    context = int(getattr(config, "max_position_embeddings", None) or 0)
    return min(
        (int(part.get("original_max_position_embeddings") or context) for part in moving), default=math.inf
    )


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"it takes more than {_CONFIG_BYTES >> 30} GiB, far more than modules without weights do"
    return " ".join(str(error).split())[:110]


def _check_twins(model: Any, path: Path, names: Iterable[str]) -> None:
    """Raises: InputError if tensors that the model ties differ in its files.

    transformers leaves them apart then, under a config.json that still ties them.
    """
    body = f"{model.base_model_prefix}."
    tied = {
        target.removeprefix(body): source.removeprefix(body)
        for target, source in getattr(model, "all_tied_weights_keys", {}).items()
    }

    def place(name: str) -> str:
        name = name.removeprefix(body)
        return str(tied.get(name, name))

    check_twins(path, names, place)


def _refuse_unused(model: Any, names: Iterable[str], path: Path) -> None:
    """Raises: InputError if a file has weights for the body that the model has no place for; other heads may
    be there.

    Files of the bare body leave out its name.
    """
    body = model.base_model_prefix
    parts = {name for name, _ in model.get_submodule(body).named_children()}
    for name in sorted(names):
        is_body = name.startswith(f"{body}.") or name.partition(".")[0] in parts
        if is_body and not (REMADE.search(name) or _BESIDE.search(name)):
            raise InputError(f"{path} has {name}, unlike its config.json; copy the model again")


def _takes_mask(model: Any, lengths: tuple[int, ...]) -> bool:
    window = getattr(model.config, "sliding_window", None)
    longest = max(lengths)
    is_seen_whole = window is None or window >= longest
    return model.config.model_type in MASKABLE and is_seen_whole and longest <= fixed_until(model)


def _forget_longest(model: Any) -> None:
    """Bring dynamic rotary frequencies back to the start: transformers keeps those of the longest call so
    far.
    """
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
    sequence = torch.repeat_interleave(torch.tensor(lengths, device=device))
    place = torch.arange(len(sequence), device=device)
    seen = (sequence == sequence[:, None]) & (place <= place[:, None])
    return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill(~seen, torch.finfo(dtype).min)[
        None, None
    ]


def _load_in_transformers(
    kind: Any, path: Path, config: Any, dtype: torch.dtype, dropout: float, **settings: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """The model, and the report of transformers on what the files had."""
    from transformers.utils import logging

    for name in [name for name in vars(config) if re.fullmatch(r"\w*(dropout|pdrop)(_prob)?", name)]:
        if isinstance(getattr(config, name), float | int):
            setattr(config, name, dropout)
    logging.disable_progress_bar()
    try:
        model, report = kind.from_pretrained(
            path, config=config, dtype=dtype, local_files_only=True, trust_remote_code=False,
            use_safetensors=True, output_loading_info=True, **settings,
        )  # fmt: skip
    except Exception as error:  # transformers raises whatever its many models raise
        reason = " ".join(str(error).split())[:110]
        raise InputError(f"{path}: transformers cannot load the model ({reason}); copy it again") from None
    return model, report
