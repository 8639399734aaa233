"""Several adapters of one frozen base in one forward pass: rows of all models side by side, K times as many.

Each model keeps its tensors and its head. The pass is made by a copy of the first one without weights of its
own, whose adapted layers read those of all models; its rows stand in the order of the models.

K models, n rows of each
"""

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from etude.models.families.table import family_of
from etude.models.lora import LoRALinear, find_layers
from etude.models.parts import head_modules


class StackedLinear(nn.Module):
    """One adapted layer of K models, on the rows (K x n, in) of all: one frozen product, K updates.

    The ranks may differ: shorter ones are filled up with zeros, which add nothing.
    """

    def __init__(self, layers: Sequence[LoRALinear]) -> None:
        super().__init__()
        self._layers = tuple(layers)  # no modules of this one: each belongs to its model

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out), the first dimension in the order of the models."""
        rows = x.flatten(0, -2)
        if any(layer.lora_magnitude_vector is not None for layer in self._layers):
            parts = zip(self._layers, rows.chunk(len(self._layers)))
            return torch.cat([layer(part) for layer, part in parts]).view(*x.shape[:-1], -1)
        return self._of_rows(rows).view(*x.shape[:-1], -1)

    def _of_rows(self, x: Tensor) -> Tensor:
        """(K x n, in) to (K x n, out)."""
        first, count = self._layers[0], len(self._layers)
        base = first.frozen(x)
        dropped = functional.dropout(x, first.dropout, self.training).view(count, -1, x.shape[-1])
        rank = max(len(layer.lora_A.weight) for layer in self._layers)
        A = torch.stack([_fill(layer.lora_A.weight, rank) for layer in self._layers])  # (K, r, in)
        B = torch.stack([_fill(layer.lora_B.weight.T * layer.scale, rank) for layer in self._layers])
        is_cast = torch.is_autocast_enabled(x.device.type)
        low = torch.bmm(dropped if is_cast else dropped.to(A.dtype), A.mT)
        base.view(count, -1, base.shape[-1]).baddbmm_(low.type_as(base), B.type_as(base))
        return base


def stack(models: Sequence[nn.Module]) -> nn.Module:
    """A model whose forward pass is that of all models, on K times the rows of one.

    It shares the frozen weights of the first, and holds none of its own.
    """
    first, layers = models[0], [find_layers(model) for model in models]
    kept: Any = (*first.parameters(), *first.buffers())
    whole = copy.deepcopy(first, {id(each): each for each in kept})
    for name in layers[0]:
        whole.set_submodule(name, StackedLinear([each[name] for each in layers]))
    return whole


def why_not_stacked(model: nn.Module) -> str | None:
    """The reason why a model cannot share a forward pass with others, or None."""
    if not family_of(model).stacks:
        return "only decoders that etude computes itself are stacked"
    if not find_layers(model):
        return "it has no [adapter]"
    if any(layer.is_quantized for layer in find_layers(model).values()):
        return "model.quantize: its base is read in 4 bits"
    heads = tuple(f"{name}." for name in head_modules(model))
    others = [name for name, each in model.named_parameters() if each.requires_grad and ".lora_" not in name]
    if other := next((name for name in others if not name.startswith(heads)), None):
        return f"{other} is trained whole"
    return None


def draws(model: nn.Module) -> bool:
    """True if a forward pass of training drops something."""
    layers = find_layers(model).values()
    return bool(getattr(model.config, "dropout", 0.0)) or any(layer.dropout for layer in layers)


def share_frozen(model: nn.Module, other: nn.Module) -> bool:
    """Let a model hold the frozen weights of another one; False, and nothing is done, if they differ."""
    ours, theirs = _frozen(model), _frozen(other)
    if ours.keys() != theirs.keys() or find_layers(model).keys() != find_layers(other).keys():
        return False
    pairs = [(each, theirs[name]) for name, each in ours.items()]
    if not all(_is_same(each, given) for each, given in pairs):
        return False
    for each, given in pairs:
        each.data = given.data
    return True


class OnePass:
    """One forward pass for all models, made when the first of them is called."""

    def __init__(self, whole: nn.Module, models: Sequence[nn.Module]) -> None:
        self._whole, self._models = whole, models
        self._hidden: tuple[Tensor, ...] | None = None
        self._drawn: list[Tensor] = []

    @contextlib.contextmanager
    def called_by(self, place: int) -> Iterator[None]:
        """While entered, a call of one of the models gives its rows of the pass."""

        def forward(*given: Any, **named: Any) -> Tensor:
            if self._hidden is None:
                self._hidden = self._make(given, named)
                self._drawn = _generators()
            _set_generators(self._drawn)  # whatever a head draws follows on the pass
            return self._hidden[place]

        model: Any = self._models[place]
        model.forward = forward
        try:
            yield
        finally:
            del model.forward

    def _make(self, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Tensor, ...]:
        count = len(self._models)

        def widen(value: Any) -> Any:
            return value.repeat(count, *[1] * (value.dim() - 1)) if isinstance(value, Tensor) else value

        with _DrawAlike(count) if draws(self._models[0]) else contextlib.nullcontext():
            hidden: Tensor = self._whole(
                *map(widen, given), **{name: widen(each) for name, each in named.items()}
            )
        return hidden.chunk(count)


class _DrawAlike(TorchFunctionMode):
    """Dropout of K x n rows by the draws of n, K times: each model is alone with the generator."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func is functional.dropout:
            if named.get("p", 0.5) and named.get("training", True):
                return self._each(func, args[:1], args[1:], named)
        elif func is functional.scaled_dot_product_attention and named.get("dropout_p"):
            return self._each(func, args[:3], args[3:], named)
        return func(*args, **named)

    def _each(
        self, func: Callable[..., Any], rows: Sequence[Tensor], others: Any, named: dict[str, Any]
    ) -> Tensor:
        drawn, made = _generators(), []
        for parts in zip(*(each.chunk(self._count) for each in rows)):
            _set_generators(drawn)
            made.append(func(*parts, *others, **named))
        return torch.cat(made)


def _generators() -> list[Tensor]:
    """The states of the generators of this process."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states.append(torch.cuda.get_rng_state())
    return states


def _set_generators(states: Sequence[Tensor]) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state)


def _fill(matrix: Tensor, rank: int) -> Tensor:
    """(r, width) with rows of zeros up to a rank."""
    return functional.pad(matrix, (0, 0, 0, rank - len(matrix))) if len(matrix) < rank else matrix


def _frozen(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: each for name, each in model.named_parameters() if not each.requires_grad}


def _is_same(one: Tensor, other: Tensor) -> bool:
    if one.data_ptr() == other.data_ptr() and one.shape == other.shape:
        return True
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
