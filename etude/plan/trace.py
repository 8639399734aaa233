"""One training step of a model without numbers: the storages that live in it, from its own code.

A fake tensor has a shape and a storage, but no memory. Loop, objective, model and optimizer run on fake
tensors as they run on a device; a mode below autograd sees each operation and notes when a storage begins
and ends. For the kernels of a GPU that is not there, functions of `stand_ins.py` stand in.
"""

import contextlib
import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from etude.plan.casts import Casts
from etude.plan.shapes import Shapes
from etude.plan.stand_ins import attend, norm

_META, _CPU = torch.device("meta"), torch.device("cpu")
_COUNTED, _MOST_COUNTED = (torch.int64, torch.bool), 1 << 20
_NUMBER = re.compile(r"\d+")


@dataclass(slots=True)
class Block:
    """A storage of a traced step.

    kind    weights, optimizer state, gradients, or "" for what the step makes
    phase   forward, loss, backward or optimizer: when it was made
    module  where it was made: the name of the module at work, or ""
    what    operation, dtype and shape
    kept    whether it was there when the backward pass began
    """

    nbytes: int
    kind: str
    phase: str
    module: str
    what: str
    kept: bool = False

    @property
    def place(self) -> str:
        """The module without the number of its block, so that alike storages have one name."""
        return _NUMBER.sub("*", self.module) or self.phase


@dataclass
class Trace:
    """The storages of a step, in the order in which they began, and the events.

    events       number of a block + 1 where it begins, less than zero where it ends
    step_begins  how many events there were before the step
    """

    blocks: list[Block] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    step_begins: int = 0


class FakeTensor(torch.Tensor):
    """A tensor with shape, strides, dtype and storage, but no numbers; `device` is the one it stands for.

    numbers  those of ids and of masks made of them, which models look at; None where they are not known
    """

    body: Tensor
    stands_for: torch.device
    numbers: Tensor | None = None

    @staticmethod
    def __new__(cls, body: Tensor, device: torch.device) -> "FakeTensor":
        fake: FakeTensor = torch.Tensor._make_subclass(cls, body, False, device_for_backend_keys=device)
        fake.body, fake.stands_for = body, device
        return fake

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise RuntimeError(f"{func} of a fake tensor outside of its trace")

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.stands_for

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return self.stands_for.type == "cuda"


class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The mode under which a step runs on fake tensors of a device."""

    def __init__(
        self, device: torch.device, workspace: Callable[[Any, Any], int] = lambda func, args: 0
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device, self.trace = device, Trace()
        self.kind, self.phase = "", "forward"
        self.modules: list[str] = []
        self.at_block_end: Callable[[], None] = lambda: None
        self._workspace = workspace
        self._known: dict[int, int] = {}
        self._refs: dict[int, Any] = {}
        self._shapes = Shapes()
        self._rules: dict[Any, Callable[[Any, Any], Any] | None] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # which would load torch's compiler, a second

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if extra := self._workspace(func, args):
            number = self._begin(extra, func, None, kind="workspace")
            try:
                return self._make(func, args, kwargs)
            finally:
                self._end(number)
        return self._make(func, args, kwargs)

    def _make(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """The results of an operation, whose storages begin here."""
        if func not in self._rules:
            self._rules[func] = _rule(func)
        if (rule := self._rules[func]) is not None:
            written = rule(args, kwargs)
            if getattr(written, "numbers", None) is not None and _compute(func, args, kwargs) is None:
                written.numbers = None
            return written
        made = self._wrap(self._shapes(func, args, kwargs), func)
        several = made if isinstance(made, list | tuple) else [made]
        if all(map(_is_counted, several)):
            found = _compute(func, args, kwargs)
            for fake, numbers in zip(several, [found] if isinstance(found, Tensor) else found or ()):
                fake.numbers = numbers
        if func is torch.ops.aten._to_copy.default and getattr(args[0], "_is_param", False):
            self.note([made], "cast weights")
        return made

    def fake(self, like: Tensor, kind: str, dtype: torch.dtype | None = None) -> FakeTensor:
        """A fake tensor with the shape of a tensor, and a storage of its own."""
        before, self.kind = self.kind, kind
        made: FakeTensor = torch.empty(like.shape, dtype=dtype or like.dtype)  # type: ignore[assignment]
        self.kind = before
        return made

    def note(self, tensors: Iterable[Tensor | None], kind: str) -> None:
        """Say of what kind the storages of some fake tensors are."""
        for tensor in tensors:
            if isinstance(tensor, FakeTensor):
                self.trace.blocks[self._known[tensor.body.untyped_storage()._cdata]].kind = kind

    def hold(self, nbytes: int, kind: str) -> None:
        """Note bytes that are held from here to the end."""
        self._begin(nbytes, kind, None, kind=kind)

    def begin_step(self, workspaces: Sequence[int] = ()) -> None:
        """Say that the step begins; workspaces: bytes that kernels hold all the time."""
        for nbytes in workspaces:
            self.hold(nbytes, "workspace")
        self.trace.step_begins = len(self.trace.events)

    def keep(self) -> None:
        """Mark all storages that are there."""
        for number in self._known.values():
            self.trace.blocks[number].kept = True

    def _wrap(self, value: Any, func: Any) -> Any:
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            key = storage._cdata
            if key not in self._known:
                number = self._begin(storage.nbytes(), func, value)
                self._known[key] = number
                self._refs[number] = weakref.ref(storage, lambda _, key=key: self._forget(key))  # type: ignore[misc]
            return FakeTensor(value, self.device)
        if isinstance(value, list | tuple):
            return type(value)(self._wrap(each, func) for each in value)
        return value

    def _begin(self, nbytes: int, func: Any, value: Tensor | None, kind: str | None = None) -> int:
        what = str(func).removeprefix("aten.").partition(".")[0]
        if value is not None:
            what += f" {str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
        module = self.modules[-1] if self.modules else ""
        self.trace.blocks.append(Block(nbytes, self.kind if kind is None else kind, self.phase, module, what))
        self.trace.events.append(len(self.trace.blocks))
        return len(self.trace.blocks) - 1

    def _forget(self, key: int) -> None:
        number = self._known.pop(key)
        del self._refs[number]
        self._end(number)

    def _end(self, number: int) -> None:
        self.trace.events.append(-number - 1)


class Phases(TorchFunctionMode):
    """The mode above autograd: it keeps calls away from a device that is not there, and tells the phases."""

    def __init__(self, tracer: Tracer, model: nn.Module) -> None:
        super().__init__()
        self._tracer, self._model = tracer, model
        self._casts = Casts(tracer.device)
        tracer.at_block_end = self._casts.clear

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") == "__get__":  # a property as shape or dtype
            return func(*args)
        if func is torch.Tensor.backward:
            self._tracer.phase = "backward"
            self._casts.clear()
            self._tracer.keep()
            with self:  # for what is computed again
                loss = args[0]
                torch.autograd.Variable._execution_engine.run_backward(
                    (loss,),
                    (torch.ones_like(loss),),
                    False,
                    False,
                    (),
                    allow_unreachable=True,
                    accumulate_grad=True,
                )
            self._tracer.note((parameter.grad for parameter in self._model.parameters()), "gradients")
            self._tracer.phase = "optimizer"
            return None
        args, kwargs = self._casts(func, args, kwargs)
        if func is functional.scaled_dot_product_attention:
            return attend(self._tracer.device, *args, **kwargs)
        if func is functional.rms_norm and self._tracer.device.type == "cuda":
            return norm(*args, **kwargs)
        if func is torch.Tensor.pin_memory or getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": _META}
        if any(isinstance(value, torch.device) for value in args):
            args = tuple(_META if isinstance(value, torch.device) else value for value in args)
        return func(*args, **kwargs)


@contextlib.contextmanager
def tracing(tracer: Tracer, model: nn.Module) -> Iterator[None]:
    """Run what is inside on fake tensors; modules of a model tell where they are at work."""
    names: dict[nn.Module, str] = {}

    def enter(module: nn.Module, given: Any) -> None:
        if module not in names:  # at first, and once an adapter is in
            names.update({part: name for name, part in model.named_modules()})
        if not tracer.modules and tracer.phase != "backward":
            tracer.phase = "forward"
        tracer.modules.append(names.get(module, ""))

    def leave(module: nn.Module, given: Any, made: Any) -> None:
        tracer.modules.pop()
        if not tracer.modules and tracer.phase == "forward":
            tracer.phase = "loss"
        elif not tracer.modules:  # of what is computed again
            tracer.at_block_end()

    handles = [
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave, always_call=True),
    ]
    try:
        with torch.random.fork_rng(devices=[]), tracer, Phases(tracer, model):
            yield
    finally:
        for handle in handles:
            handle.remove()


def fake_weights(model: nn.Module, tracer: Tracer, dtype_of: Callable[[str, Tensor], torch.dtype]) -> None:
    """Put fake tensors in the place of all parameters and buffers of a model."""
    made: dict[Tensor, FakeTensor] = {}
    for prefix, module in model.named_modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is None:
                    continue
                if tensor not in made:
                    full = f"{prefix}.{name}".lstrip(".")
                    made[tensor] = fake = tracer.fake(tensor, "weights", dtype_of(full, tensor))
                    tracer.trace.blocks[-1].module = prefix
                    if table is module._parameters:
                        fake._is_param = True
                        fake.requires_grad_(tensor.requires_grad)
                table[name] = made[tensor]


def _rule(func: Any) -> Callable[[Any, Any], Any] | None:
    """The answer of operations that make no storage: what they wrote to."""
    written = [each for each in func._schema.arguments if each.alias_info and each.alias_info.is_write]
    if not written:
        if func is torch.ops.aten._local_scalar_dense.default:
            return lambda args, kwargs: _number(args[0])
        return None
    returns = func._schema.returns
    if not returns:
        return lambda args, kwargs: None
    if len(returns) == 1 and returns[0].alias_info is not None:
        name, place = written[0].name, [each.name for each in func._schema.arguments].index(written[0].name)
        return lambda args, kwargs: kwargs[name] if name in kwargs else args[place]
    return None


def _number(tensor: Tensor) -> Any:
    known = getattr(tensor, "numbers", None)
    return (torch.zeros((), dtype=tensor.dtype, device=_CPU) if known is None else known).item()


def _is_counted(value: Any) -> bool:
    is_fake = isinstance(value, FakeTensor)
    return is_fake and value.dtype in _COUNTED and value.numel() <= _MOST_COUNTED


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The numbers that an operation makes, or None if it is not known what of."""
    try:
        named = {name: _numbers_of(value) for name, value in kwargs.items()}
        return func(*_numbers_of(args), **named | ({"device": _CPU} if "device" in named else {}))
    except (_UnknownError, RuntimeError, NotImplementedError, TypeError, IndexError):
        return None


class _UnknownError(Exception):
    """The numbers of a tensor are not known."""


def _numbers_of(value: Any) -> Any:
    if isinstance(value, FakeTensor):
        if value.numbers is None:
            raise _UnknownError
        return value.numbers
    if isinstance(value, Tensor):
        return value.clone()  # which may be written to
    return type(value)(map(_numbers_of, value)) if isinstance(value, list | tuple) else value
