"""The shapes of what operations make, without their numbers, each found once.

torch knows them on its meta device, but finds many by loading its compiler, which takes a second, and by
Python that takes longer than the operation. So element-wise operations and reductions have a rule of ours,
and a call like an earlier one has its answer again.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

META = torch.device("meta")
_REDUCTIONS = ("sum", "mean", "amax", "amin", "linalg_vector_norm", "any", "all", "argmax", "prod")


class Shapes:
    """Tensors of the meta device that have the shapes, strides, dtypes and aliases of results."""

    def __init__(self) -> None:
        self._made: dict[Any, Any] = {}
        self._dtypes: dict[Any, torch.dtype] = {}
        self._views: dict[Any, bool] = {}

    def __call__(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if (is_view := self._views.get(func)) is None:
            is_view = any(each.alias_info is not None for each in func._schema.returns)
            self._views[func] = is_view
        if is_view:  # has no storage of its own
            return self._find(func, *_bodies_of(args, kwargs))
        try:
            key = func, _sign(args), _sign(tuple(kwargs.items()))
            if (made := self._made.get(key)) is not None:
                return _make(made)
        except TypeError:  # of a value that cannot be a key
            key = None
        given, named = _bodies_of(args, kwargs)
        found = self._find(func, given, named)
        if key is not None and _is_fresh(found, (given, named)):
            self._made[key] = _describe(found)
        return found

    def _find(self, func: Any, given: list[Any], named: dict[str, Any]) -> Any:
        if (rule := _RULES.get(func)) is not None:
            return rule(*given, **named)
        name = func._schema.name.removeprefix("aten::")
        is_single = len(func._schema.returns) == 1
        tensors = [value for value in given if isinstance(value, Tensor)]
        if is_single and tensors and torch.Tag.pointwise in func.tags and "memory_format" not in named:
            return self._pointwise(func, given, named, tensors)
        if is_single and name in _REDUCTIONS and len(tensors) == 1:
            return self._reduce(func, given, named)
        return func(*given, **named)

    def _pointwise(self, func: Any, given: list[Any], named: dict[str, Any], tensors: list[Tensor]) -> Tensor:
        shape = _broadcast([each.shape for each in tensors])
        dtype = self._dtype(func, given, named)
        for each in tensors:
            if each.shape == shape and torch._debug_has_internal_overlap(each) == 0:
                return torch.empty_strided(shape, each.stride(), dtype=dtype, device=META)
        return torch.empty(shape, dtype=dtype, device=META)

    def _reduce(self, func: Any, given: list[Any], named: dict[str, Any]) -> Tensor:
        names = [each.name for each in func._schema.arguments]
        values = {each.name: each.default_value for each in func._schema.arguments}
        values |= dict(zip(names, given)) | named
        x, dims = given[0], values.get("dim")
        dims = range(x.dim()) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
        gone = {dim % max(x.dim(), 1) for dim in dims}
        shape = [
            1 if at in gone else size
            for at, size in enumerate(x.shape)
            if at not in gone or values.get("keepdim")
        ]
        return torch.empty(shape, dtype=self._dtype(func, given, named), device=META)

    def _dtype(self, func: Any, given: list[Any], named: dict[str, Any]) -> torch.dtype:
        """By computing with a single number."""

        def small(value: Any) -> Any:
            if isinstance(value, Tensor):
                return torch.ones((1,) * value.dim(), dtype=value.dtype)
            return value

        key = (
            func,
            tuple((v.dtype, v.dim()) if isinstance(v, Tensor) else repr(v) for v in (*given, *named.items())),
        )
        if key not in self._dtypes:
            made: Tensor = func(
                *map(small, given), **{n: small(v) for n, v in named.items() if n != "device"}
            )
            self._dtypes[key] = made.dtype
        return self._dtypes[key]


def body_of(value: Any) -> Any:
    """The meta tensor of a fake tensor, or one in the place of another tensor; other values as they are."""
    if isinstance(value, Tensor):
        body = getattr(value, "body", None)
        if body is not None:
            return body
        return (
            value if value.dim() == 0 or value.device.type == "meta" else torch.empty_like(value, device=META)
        )
    if isinstance(value, list | tuple):
        return type(value)(body_of(each) for each in value)
    return value


def _bodies_of(args: Any, kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    named = {name: body_of(value) for name, value in kwargs.items()}
    if "device" in named:
        named["device"] = META
    return [body_of(value) for value in args], named


def _sign(values: Any) -> Any:
    """A key of a call: shapes, strides and dtypes of tensors, and other values."""
    signs: list[Any] = []
    for value in values:
        if isinstance(value, Tensor):
            body = getattr(value, "body", value)
            signs.append((body.shape, body.stride(), body.dtype))
        elif isinstance(value, list | tuple):
            signs.append(_sign(value))
        else:
            signs.append((type(value), value))
    return tuple(signs)


def _broadcast(shapes: list[torch.Size]) -> torch.Size:
    if all(shape == shapes[0] for shape in shapes):
        return shapes[0]
    rank = max(map(len, shapes))
    wide = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return torch.Size(next((size for size in sizes if size != 1), 1) for sizes in zip(*wide))


def _is_fresh(made: Any, given: Any) -> bool:
    storages = {each.untyped_storage()._cdata for each in _tensors(given)}
    return all(each.untyped_storage()._cdata not in storages for each in _tensors(made))


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [each for part in value for each in _tensors(part)] if isinstance(value, list | tuple) else []


def _describe(value: Any) -> Any:
    if isinstance(value, Tensor):
        return "tensor", value.shape, value.stride(), value.dtype, value.untyped_storage().nbytes()
    if isinstance(value, list | tuple):
        return "many", type(value), [_describe(each) for each in value]
    return "value", value


def _make(made: Any) -> Any:
    if made[0] == "tensor":
        return torch.empty_strided(made[1], made[2], dtype=made[3], device=META)
    if made[0] == "many":
        return made[1](_make(each) for each in made[2])
    return made[1]


def _arange(*bounds: Any, dtype: torch.dtype | None = None, **settings: Any) -> Tensor:
    start, end, step = {1: (0, *bounds, 1), 2: (*bounds, 1), 3: bounds}[len(bounds)]
    whole = all(isinstance(each, int) for each in bounds)
    return torch.empty(
        max(-(-int(end - start) // step), 0) if whole else int((end - start) / step),
        dtype=dtype or (torch.int64 if whole else torch.float32), device=META,
    )  # fmt: skip


def _cat(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    parts = [part for part in parts if part.shape != (0,)] or parts
    shape, dtype = list(parts[0].shape), parts[0].dtype
    shape[dim] = sum(part.shape[dim] for part in parts)
    for part in parts:
        dtype = torch.promote_types(dtype, part.dtype)
    return torch.empty(shape, dtype=dtype, device=META)


def _embedding(weight: Tensor, ids: Tensor, *settings: Any) -> Tensor:
    return torch.empty((*ids.shape, weight.shape[1]), dtype=weight.dtype, device=META)


def _addmm(bias: Tensor, left: Tensor, right: Tensor, **settings: Any) -> Tensor:
    return torch.empty((left.shape[0], right.shape[1]), dtype=left.dtype, device=META)


def _stack(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    shape = list(parts[0].shape)
    shape.insert(dim % (len(shape) + 1), len(parts))
    return torch.empty(shape, dtype=parts[0].dtype, device=META)


def _same(x: Tensor, *settings: Any, **named: Any) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=META)


def _sort(x: Tensor, *settings: Any, **named: Any) -> tuple[Tensor, Tensor]:
    return _like(x), _like(x, dtype=torch.int64)


def _like(x: Tensor, *, dtype: torch.dtype | None = None, **settings: Any) -> Tensor:
    is_dense = torch._debug_has_internal_overlap(x) == 0
    if is_dense and settings.get("memory_format") in (None, torch.preserve_format):
        return torch.empty_strided(x.shape, x.stride(), dtype=dtype or x.dtype, device=META)
    return torch.empty(x.shape, dtype=dtype or x.dtype, device=META)


def _product(left: Tensor, right: Tensor, **settings: Any) -> Tensor:
    return torch.empty((*left.shape[:-1], right.shape[-1]), dtype=left.dtype, device=META)


def _flash_backward(slope: Tensor, q: Tensor, k: Tensor, v: Tensor, *settings: Any, **named: Any) -> Any:
    return tuple(torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=META) for x in (q, k, v))


def _flash(q: Tensor, k: Tensor, v: Tensor, *settings: Any, **named: Any) -> tuple[Any, ...]:
    B, H, T, D = q.shape
    out = torch.empty((B, T, H, D), dtype=q.dtype, device=META).transpose(1, 2)
    sums = torch.empty((B, H, T), dtype=torch.float32, device=META)
    seed, offset = (torch.empty(shape, dtype=torch.uint64, device=META) for shape in ((2,), ()))
    return out, sums, None, None, T, k.shape[2], seed, offset, torch.empty(0, dtype=q.dtype, device=META)


def _flash_of_cpu(q: Tensor, *settings: Any, **named: Any) -> tuple[Tensor, Tensor]:
    B, H, T, _ = q.shape
    sums = torch.empty((B, T, H), dtype=torch.float32, device=META).transpose(1, 2)
    order = sorted(range(4), key=lambda dim: -q.stride()[dim])  # dense, in the order of q
    return torch.empty_permuted(q.shape, order, dtype=q.dtype, device=META), sums


def _flash_backward_of_cpu(slope: Tensor, *heads: Any, **named: Any) -> tuple[Tensor, ...]:
    def make(x: Tensor) -> Tensor:
        B, H, T, D = x.shape
        return torch.empty((B, T, H, D), dtype=x.dtype, device=META).transpose(1, 2)

    return tuple(make(x) for x in heads[:3])


def _gather(x: Tensor, dim: int, ids: Tensor, **settings: Any) -> Tensor:
    return torch.empty(ids.shape, dtype=x.dtype, device=META)


def _index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    places = [place for place, each in enumerate(indices) if each is not None]
    given = [each for each in indices if each is not None]
    is_simple = all(each.dtype == torch.int64 for each in given) and places[-1] - places[0] < len(places)
    if not is_simple:
        made: Tensor = _ATEN.index.Tensor(x, indices)
        return made
    shape = [*x.shape[: places[0]], *_broadcast([each.shape for each in given]), *x.shape[places[-1] + 1 :]]
    return torch.empty(shape, dtype=x.dtype, device=META)


def _softmax(x: Tensor, dim: int, is_widened: Any = False) -> Tensor:
    dtype = is_widened if isinstance(is_widened, torch.dtype) else torch.float32 if is_widened else x.dtype
    return torch.empty(x.shape, dtype=dtype, device=META)


def _softmax_slopes(slope: Tensor, made: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(slope.shape, dtype=dtype, device=META)


def _slopes_of_view(slope: Tensor, shape: Sequence[int], *settings: int) -> Tensor:
    return torch.empty(shape, dtype=slope.dtype, device=META)


def _cumsum(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    usual = x.dtype if x.is_floating_point() else torch.int64
    return _like(x, dtype=dtype or usual)


def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, ...]:
    is_mixed = weight is not None and weight.dtype != x.dtype
    dtype = torch.float32 if is_mixed else x.dtype
    rows = (*x.shape[: x.dim() - len(shape)], *(1 for _ in shape))
    return _same(x), *(torch.empty(rows, dtype=dtype, device=META) for _ in range(2))


def _layer_norm_slopes(
    slope: Tensor, x: Tensor, shape: Sequence[int], mean: Tensor, rstd: Tensor, weight: Tensor | None,
    bias: Tensor | None, wanted: Sequence[bool],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    return tuple(
        None if each is None or not is_wanted else _same(each)
        for each, is_wanted in zip((x, weight, bias), wanted)
    )


_ATEN = torch.ops.aten
_RULES: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((_ATEN.arange.default, _ATEN.arange.start, _ATEN.arange.start_step), _arange),
    _ATEN.cat.default: _cat,
    _ATEN.stack.default: _stack,
    **dict.fromkeys((_ATEN.zeros_like.default, _ATEN.ones_like.default, _ATEN.empty_like.default), _like),
    _ATEN.full_like.default: lambda x, value, **settings: _like(x, **settings),
    _ATEN.embedding.default: _embedding,
    **dict.fromkeys((_ATEN.mm.default, _ATEN.bmm.default), _product),
    _ATEN._scaled_dot_product_flash_attention.default: _flash,
    _ATEN._scaled_dot_product_flash_attention_backward.default: _flash_backward,
    _ATEN.addmm.default: _addmm,
    **dict.fromkeys((_ATEN.roll.default, _ATEN.flip.default, _ATEN.tril.default, _ATEN.triu.default), _same),
    _ATEN._scaled_dot_product_flash_attention_for_cpu.default: _flash_of_cpu,
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward.default: _flash_backward_of_cpu,
    _ATEN.gather.default: _gather,
    _ATEN.index.Tensor: _index,
    _ATEN.index_put.default: lambda x, *settings: _like(x),
    **dict.fromkeys(
        (_ATEN._softmax.default, _ATEN._log_softmax.default, _ATEN._safe_softmax.default), _softmax
    ),
    **dict.fromkeys(
        (_ATEN._softmax_backward_data.default, _ATEN._log_softmax_backward_data.default), _softmax_slopes
    ),
    **dict.fromkeys(
        (_ATEN.select_backward.default, _ATEN.slice_backward.default, _ATEN.unfold_backward.default),
        _slopes_of_view,
    ),
    _ATEN.cumsum.default: _cumsum,
    **dict.fromkeys((_ATEN.sort.default, _ATEN.sort.stable), _sort),
    _ATEN.native_layer_norm.default: _layer_norm,
    _ATEN.native_layer_norm_backward.default: _layer_norm_slopes,
    _ATEN._reshape_alias.default: torch.as_strided,
}
