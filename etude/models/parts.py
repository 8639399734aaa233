"""Parts of a model by name: linear layers that an adapter goes on, the head of a classifier, how large they
are, and whether their numbers are finite."""

import difflib
from collections.abc import Collection, Iterable

import torch
from torch import nn

from etude.errors import InputError


def find_targets(model: nn.Module, targets: str | list[str]) -> list[str]:
    """The linear modules that an adapter goes on: those whose names end in a target, or all; never the head.

    Raises: InputError that lists what there is if a target fits none.
    """
    head = getattr(model, "get_output_embeddings", lambda: getattr(model, "lm_head", None))()
    heads = [module for name in head_modules(model) for module in model.get_submodule(name).modules()] + [
        head
    ]
    linear = [
        name
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
        and not any(module is each for each in heads)
    ]
    if targets == "all-linear":
        return linear
    chosen: set[str] = set()
    for target in targets:
        found = [name for name in linear if name == target or name.endswith("." + target)]
        if not found:
            known = sorted({name.rpartition(".")[2] for name in linear})
            near = difflib.get_close_matches(target, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise InputError(
                f"adapter.targets: no linear layer is called {target!r}; {hint}there are {', '.join(known)}"
            )
        chosen.update(found)
    return [name for name in linear if name in chosen]


def head_modules(model: nn.Module) -> list[str]:
    """The modules of a classifier behind its body, BERT's pooler included, which are trained whole.

    A model that is no classifier has none.
    """
    if not getattr(model, "labels", 0) and "ForSequenceClassification" not in type(model).__name__:
        return []
    children = [name for name, child in model.named_children() if next(child.parameters(), None) is not None]
    body = getattr(model, "base_model_prefix", children[0])
    poolers = [name for name, _ in model.get_submodule(body).named_children() if name == "pooler"]
    return [f"{body}.{name}" for name in poolers] + [name for name in children if name != body]


def label_tensors(model: nn.Module) -> list[str]:
    """The parameters of a classifier that have a row for each label: those of the last linear layer of its
    head.
    """
    layers = [
        f"{head}.{name}".rstrip(".")
        for head in head_modules(model)
        for name, module in model.get_submodule(head).named_modules()
        if isinstance(module, nn.Linear)
    ]
    return (
        [f"{layers[-1]}.{name}" for name, _ in model.get_submodule(layers[-1]).named_parameters()]
        if layers
        else []
    )


def keep_labels(
    name: str, given: torch.Tensor, drawn: torch.Tensor, *, theirs: int, kept: int
) -> torch.Tensor:
    """A parameter with a row for each label: the first `kept` rows of a file's, which has `theirs`, the rest
    as drawn.

    Raises: InputError if the file's has other sizes.
    """
    if not kept:
        return drawn
    expected = (theirs, *drawn.shape[1:])
    if tuple(given.shape) != expected:
        raise InputError(
            f"{name} is {list(given.shape)}, but config.json says {list(expected)}; copy the model again"
        )
    return torch.cat([given[:kept].to(drawn), drawn[kept:]])


def count_parts(model: nn.Module) -> dict[str, int]:
    """Exact parameters of the embedding of tokens, of a classifier's head, and of the rest,
    shared ones once."""
    total = sum(parameter.numel() for parameter in model.parameters())
    embedding = max(part.weight.numel() for part in model.modules() if isinstance(part, nn.Embedding))
    heads = [model.get_submodule(name) for name in head_modules(model)]
    head = sum(parameter.numel() for part in heads for parameter in part.parameters())
    return {"embedding": embedding, "rest": total - embedding - head, "head": head, "total": total}


def find_non_finite(tensors: Iterable[tuple[str, torch.Tensor]], masks: Collection[str] = ()) -> str | None:
    """The name of the first tensor that holds NaN or infinity, or None.

    Those in `masks` may hold infinities.
    """
    for name, tensor in tensors:
        if not tensor.is_floating_point():
            continue
        if tensor.element_size() == 1:  # torch computes nothing in eight bits
            tensor = tensor.float()
        # A sum is finite only if all is, and takes a tenth of the time of looking at each number.
        if tensor.detach().sum(dtype=torch.promote_types(tensor.dtype, torch.float32)).isfinite():
            continue
        broken = tensor.isnan() if name in masks else ~tensor.isfinite()
        if broken.any():
            return name
    return None


def require_finite(model: nn.Module, name: str) -> None:
    """Raises: InputError if a weight of the model that is called `name` is NaN or infinite."""
    if (broken := find_non_finite(model.named_parameters())) is not None:
        dtype = str(model.get_parameter(broken).dtype).removeprefix("torch.")
        raise InputError(
            f"{name}: {broken} holds NaN or infinity in {dtype}, so nothing can be learnt from it; "
            "copy the model again, or use other weights"
        )


def quantize(model: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Turn the linear layers of a frozen model, but the head, into 4-bit ones that compute in `dtype`.

    Source: QLoRA, arXiv:2305.14314 (the format nf4), by bitsandbytes. Raises: InputError if that is not
    installed.
    """
    try:
        import bitsandbytes
    except ImportError:
        raise InputError(
            'model.quantize needs bitsandbytes; pip install "etude-workbench[quant]", or leave it out'
        ) from None
    for name in find_targets(model, "all-linear"):
        layer = model.get_submodule(name)
        if type(layer) is not nn.Linear:
            raise InputError(
                f"model.quantize: {name} is a {type(layer).__name__}, which cannot be quantised; leave it out"
            )
        small = bitsandbytes.nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=dtype,
            quant_type="nf4",
        )
        small.weight = bitsandbytes.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
        small.bias = layer.bias
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, small.to(device))
