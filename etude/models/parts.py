"""Parts of a model by name: layers that an adapter goes on, heads of classifiers, sizes, finite numbers."""

import difflib
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import nn

from etude.errors import InputError


def find_targets(model: nn.Module, targets: str | list[str]) -> list[str]:
    """The linear modules that an adapter goes on: those whose names end in a target, or all; never the head.

    Raises: InputError that lists what there is if a target fits none.
    """
    linear = linear_layers(model)
    if targets == "all-linear":
        return linear
    chosen: set[str] = set()
    for target in targets:
        found = [name for name in linear if name == target or name.endswith("." + target)]
        if not found:
            known = sorted({name.rpartition(".")[2] for name in linear})
            near = difflib.get_close_matches(target, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            wrong = f"adapter.targets: no linear layer is called {target!r}"
            raise InputError(f"{wrong}; {hint}there are {', '.join(known)}")
        chosen.update(found)
    return [name for name in linear if name in chosen]


def linear_layers(model: nn.Module) -> list[str]:
    """The linear modules by name, the Conv1D of GPT-2 among them, without the head."""
    heads = {getattr(model, "get_output_embeddings", lambda: getattr(model, "lm_head", None))()}
    for name in head_modules(model):
        heads.update(model.get_submodule(name).modules())
    return [
        name
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D") and module not in heads
    ]


def head_modules(model: nn.Module) -> list[str]:
    """The modules of a classifier behind its body, BERT's pooler included; another model has none."""
    is_own = hasattr(model, "classify") and model.labels  # a module of a user's may have labels of its own
    if not is_own and "ForSequenceClassification" not in type(model).__name__:
        return []
    children = [name for name, child in model.named_children() if next(child.parameters(), None) is not None]
    body = getattr(model, "base_model_prefix", children[0])
    poolers = [name for name, _ in model.get_submodule(body).named_children() if name == "pooler"]
    return [f"{body}.{name}" for name in poolers] + [name for name in children if name != body]


def linear_shape(module: nn.Module) -> tuple[int, int]:
    """(outputs, inputs) of a linear layer; the weight of a Conv1D of transformers is transposed."""
    first, second = module.weight.shape  # type: ignore[misc]
    return (int(second), int(first)) if type(module).__name__ == "Conv1D" else (int(first), int(second))


def label_tensors(model: nn.Module) -> list[str]:
    """The parameters with a row for each label: those of the last linear layer of a classifier's head."""
    layers = [
        f"{head}.{name}".rstrip(".")
        for head in head_modules(model)
        for name, module in model.get_submodule(head).named_modules()
        if isinstance(module, nn.Linear)
    ]
    return [
        f"{last}.{name}" for last in layers[-1:] for name, _ in model.get_submodule(last).named_parameters()
    ]


def keep_labels(
    name: str, given: torch.Tensor, drawn: torch.Tensor, *, theirs: int, kept: int
) -> torch.Tensor:
    """A parameter with a row for each label: the first `kept` of the `theirs` in a file, the rest drawn.

    Raises: InputError if that of the file has other sizes.
    """
    if not kept:
        return drawn
    expected = (theirs, *drawn.shape[1:])
    if tuple(given.shape) != expected:
        wrong = f"{name} is {list(given.shape)}, but config.json says {list(expected)}"
        raise InputError(f"{wrong}; copy the model again")
    return torch.cat([given[:kept].to(drawn), drawn[kept:]])


def count_parts(model: nn.Module) -> dict[str, int]:
    """Exact parameters of the embedding of tokens, a classifier's head and the rest, shared ones once."""
    total = sum(parameter.numel() for parameter in model.parameters())
    embedding = max(part.weight.numel() for part in model.modules() if isinstance(part, nn.Embedding))
    heads = [model.get_submodule(name) for name in head_modules(model)]
    head = sum(parameter.numel() for part in heads for parameter in part.parameters())
    return {"embedding": embedding, "rest": total - embedding - head, "head": head, "total": total}


def count_products(model: nn.Module) -> int:
    """The weights that each token is multiplied with: of matrices but embeddings and heads.

    Of experts (experts, out, in) those count that a token is sent to.
    """
    left_out = {getattr(model, "get_output_embeddings", lambda: getattr(model, "lm_head", None))()}
    left_out.update(part for name in head_modules(model) for part in model.get_submodule(name).modules())
    text: Any = getattr(model, "config", None)
    text = text.get_text_config() if hasattr(text, "get_text_config") else text
    chosen, experts = (getattr(text, name, None) for name in ("num_experts_per_tok", "num_local_experts"))
    total = 0.0
    for module in model.modules():
        if module in left_out or isinstance(module, nn.Embedding):
            continue
        for weight in module.parameters(recurse=False):
            if weight.dim() == 2:
                total += weight.numel()
            elif weight.dim() == 3:
                total += weight.numel() * (chosen or 1) / (experts or chosen or 1)
    return round(total)


def find_non_finite(tensors: Iterable[tuple[str, torch.Tensor]], masks: Collection[str] = ()) -> str | None:
    """The name of the first tensor that holds NaN or infinity, or None; those in `masks` may be infinite."""
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
        raise not_finite(name, broken, model.get_parameter(broken).dtype)


def not_finite(name: str, broken: str, dtype: torch.dtype) -> InputError:
    """The error for a broken weight of the model that is called `name`."""
    kept = str(dtype).removeprefix("torch.")
    return InputError(
        f"{name}: {broken} holds NaN or infinity in {kept}, so nothing can be learnt from it; copy the model "
        "again, or use other weights"
    )


def quantize(model: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Turn the linear layers of a frozen model, but the head, into 4-bit ones that compute in `dtype`.

    Source: QLoRA, arXiv:2305.14314 (the format nf4), by bitsandbytes. Raises: InputError if that is not
    installed.
    """
    try:
        import bitsandbytes
    except ImportError:
        advice = 'pip install "etude-workbench[quant]", or leave it out'
        raise InputError(f"model.quantize needs bitsandbytes; {advice}") from None

    class FourBits(bitsandbytes.nn.Linear4bit):  # type: ignore[misc]
        """Gives back what autocast computes in, as other linear layers do, not the dtype that it gets."""

        def forward(self, x: torch.Tensor) -> Any:
            if torch.is_autocast_enabled(x.device.type):
                x = x.to(torch.get_autocast_dtype(x.device.type))
            return super().forward(x)

    for name in find_targets(model, "all-linear"):
        layer = model.get_submodule(name)
        if type(layer) is not nn.Linear:
            wrong = f"{name} is a {type(layer).__name__}, which cannot be quantised"
            raise InputError(f"model.quantize: {wrong}; leave it out")
        settings = {"bias": layer.bias is not None, "compute_dtype": dtype, "quant_type": "nf4"}
        small = FourBits(layer.in_features, layer.out_features, **settings)
        small.weight = bitsandbytes.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
        small.bias = layer.bias
        model.set_submodule(name, small.to(device))
