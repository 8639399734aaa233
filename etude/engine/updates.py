"""Updates of the optimizer, held against its formula at some elements of each tensor."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import is_

import numpy as np
import torch
from torch import Tensor, nn

from etude.engine.host import Floats
from etude.engine.loop import Step, TrainState
from etude.engine.optim import Adam, Muon

_ELEMENTS = 16  # of a tensor
_FOLLOWED = 8  # tensors whose averages are kept at every step
_FEWEST = 3  # of them that can tell a dropped gradient from one that is nothing
_ROUNDINGS = 8  # of an element in an update
_CLOSE = 1e-3
_FAINT = 1e-4  # of its average: a gradient that might be lost in rounding
_TINY = 1e-36  # squares below are rounded coarsely
_AVERAGES = ("exp_avg", "momentum")
_STATES = ("exp_avg", "exp_avg_sq", "step")  # of Adam


Copied = bytes | Tensor  # values of fp32, or a tensor


class Elements:
    """Some elements of contiguous tensors; views of them are kept, so that one call copies all.

    is_in_a_row  whether those of a tensor follow each other, which is copied in a third of the time; else
                 they come from all of it
    dtype        of the values
    """

    def __init__(self, tensors: Sequence[Tensor], *, is_in_a_row: bool = False) -> None:
        self._tensors, self._places = tensors, [each.data_ptr() for each in tensors]
        self.views = [_a_row(each) if is_in_a_row else _some(each) for each in tensors]
        self.dtype = reduce(torch.promote_types, [each.dtype for each in self.views], torch.bfloat16)
        # The same memory: within a step, where no code of torch or numpy is at hand, this takes a third.
        is_plain = all(
            type(each) is Tensor and each.dtype == torch.float32 and each.is_cpu for each in self.views
        )
        self._is_in_a_row = is_in_a_row
        self._memory = [memoryview(each.numpy()) for each in self.views] if is_plain else []  # type: ignore[arg-type]

    def are_of(self, tensors: Sequence[Tensor | None]) -> bool:
        """True if these are the tensors, and their values stand where they did."""
        if len(tensors) != len(self._tensors) or not all(map(is_, tensors, self._tensors)):
            return False
        return [each.data_ptr() for each in self._tensors] == self._places

    def copy(self) -> Copied:
        """The values as they are now."""
        if not self._memory:
            return torch.cat(self.views)
        return b"".join(self._memory if self._is_in_a_row else [each.tobytes() for each in self._memory])


@dataclass
class Look:
    """A step that is held against the formula: weights before it; weights, averages and counts after it."""

    before: Copied
    number: int = 0
    is_skipped: Tensor | None = None
    rate: float = 0.0
    after: Copied | None = None


@dataclass
class Formula:
    """The settings of Adam for each element of the weights, (elements,), and where each tensor begins."""

    lengths: list[int]
    beta1: Floats
    beta2: Floats
    eps: Floats
    decay: Floats  # that is no part of the gradient
    rounding: Floats

    @classmethod
    def of(cls, adams: Sequence[tuple[nn.Parameter, Adam]], weights: Elements) -> "Formula":
        """The formula of tensors, each under its part of the optimizer."""
        lengths = [len(view) for view in weights.views]
        columns = (
            [part.settings["beta1"] for _, part in adams],
            [part.settings["beta2"] for _, part in adams],
            [part.settings["eps"] for _, part in adams],
            [part.settings["weight_decay"] * part.is_decoupled for _, part in adams],
            [torch.finfo(parameter.dtype).eps * _ROUNDINGS for parameter, _ in adams],
        )
        return cls(lengths, *(np.repeat(np.array(each, dtype=np.float64), lengths) for each in columns))

    def find_off(self, was: Floats, after: Floats, rate: float) -> Iterator[tuple[int, bool]]:
        """Tensors by number that are not where an update brings them, and whether they stood still."""
        now, first, second = after[: 3 * len(was)].reshape(3, -1)
        steps = np.repeat(after[3 * len(was) :], self.lengths)
        with np.errstate(all="ignore"):
            size = np.sqrt(second / (1 - self.beta2**steps)) + self.eps
            update = rate * (first / (1 - self.beta1**steps) / size)
            due = was - update - rate * self.decay * was
            allowed = self.rounding * (np.abs(was) + np.abs(now))
            allowed += np.maximum(self.rounding, _CLOSE) * np.abs(update)
            is_clear = np.isfinite(due + now) & ((second == 0) | (second > _TINY))
            is_off = is_clear & (np.abs(now - due) > allowed)
        if not is_off.any():
            return
        has_moved, ends = (now != was) & is_clear, np.cumsum(self.lengths)
        for number, end in enumerate(ends):
            part = slice(end - self.lengths[number], end)
            if is_off[part].any():
                yield number, not has_moved[part].any()


@dataclass
class Updates:
    """The updates since the last log step, kept on the device until somebody asks.

    A step that is looked at costs a copy of some elements of weights and averages, any other one of averages.

    measured  by each step that was not void
    """

    state: TrainState
    measured: list[Tensor] = field(default_factory=list)
    _adams: list[tuple[nn.Parameter, Adam]] = field(default_factory=list)
    _weights: Elements | None = None
    _moved: Elements | None = None  # weights and states
    _formula: Formula | None = None
    _averages: Elements | None = None
    _followed: list[tuple[Adam | Muon, Tensor, str]] = field(default_factory=list)  # that averages are of
    _states: int = 0  # that there were when they were chosen
    _betas: Floats = field(default_factory=lambda: np.empty(0))
    _kept: list[Copied] = field(default_factory=list)  # before the first step, and after each
    _looks: list[Look] = field(default_factory=list)

    def begin(self) -> None:
        """Forget all steps, as an attempt does."""
        # By torch, in a forward pass.
        rescaled = {name for name, each in self._embeddings() if each.max_norm is not None}
        names = self.state.optimizer.names
        self._adams = [
            (parameter, part)
            for part in self.state.optimizer.parts
            if isinstance(part, Adam)
            for parameter in part.parameters
            if parameter.is_contiguous() and parameter.numel() and names[parameter] not in rescaled
        ]
        self._weights = self._moved = None
        self._looks.clear()
        self.measured.clear()
        self._follow()

    def look(self) -> None:
        """Take the weights before a step that is to be held against the formula."""
        self._looks = [each for each in self._looks if each.after is not None]  # the others were void
        if not self._adams:
            return
        weights = [parameter for parameter, _ in self._adams]
        if self._weights is None or not self._weights.are_of(weights):
            self._weights = Elements(weights)
            self._formula = Formula.of(self._adams, self._weights)
        self._looks.append(Look(self._weights.copy()))

    def note(self, step: Step) -> None:
        """Take what an update made, without asking the device for it."""
        self.measured.append(step.measured)
        if self._averages is None:
            self._follow()
            self._kept = [_zeros_like(each) for each in self._kept] if step.number == 1 else []
        if self._kept and self._averages is not None:
            self._kept.append(self._averages.copy())
        if self._looks and self._looks[-1].after is None:
            self._note_look(step)

    def _note_look(self, step: Step) -> None:
        applied = self.state.optimizer.applied
        if applied is None:
            return
        found = [part.state[parameter] for parameter, part in self._adams if parameter in part.state]
        if len(found) < len(self._adams):  # which other rules name
            self._looks.pop()
            return
        tensors: list[Tensor] = [parameter for parameter, _ in self._adams]
        tensors += [values[name] for name in _STATES for values in found]
        if self._moved is None or not self._moved.are_of(tensors):
            self._moved = Elements(tensors)
        look = self._looks[-1]
        look.number, look.is_skipped, look.rate = step.number, step.measured[4], applied[0]
        look.after = self._moved.copy()

    def asked(self) -> dict[str, Tensor]:
        """Tensors of the steps since the last log step, by name, whose values `end` takes."""
        asked = {"measured": torch.stack(self.measured)} if self.measured else {}
        if len(self._kept) > 1:
            asked["kept"] = _stack(self._kept)
        for look in self._looks:
            if look.after is not None and look.is_skipped is not None:
                asked[f"before {look.number}"] = _stack([look.before])[0]
                asked[f"after {look.number}"] = _stack([look.after])[0]
                asked[f"skipped {look.number}"] = look.is_skipped
        return asked

    def end(self, told: Mapping[str, Floats]) -> tuple[list[int], dict[str, tuple[int, bool]]]:
        """Steps since the last log step that took in no gradient, and tensors whose update was another.

        Those by name, with the step and whether they stood still. The next steps are followed from here.
        told: the values of what was asked.
        """
        dropped = self._find_dropped(told["kept"], told["measured"]) if "kept" in told else []
        off: dict[str, tuple[int, bool]] = {}
        for look in self._looks:
            number = look.number
            if self._formula is None or f"after {number}" not in told:
                continue
            rate = 0.0 if told[f"skipped {number}"] else look.rate
            was, after = told[f"before {number}"], told[f"after {number}"]
            for place, stood in self._formula.find_off(was, after, rate):
                off.setdefault(self.state.optimizer.names[self._adams[place][0]], (number, stood))
        self._looks.clear()
        self.measured.clear()
        self._follow()
        return dropped, off

    def _follow(self) -> None:
        """Follow averages of tensors that each step reaches; rows of an embedding may be read by none."""
        parts = self.state.optimizer.parts
        states = sum(len(part.state) for part in parts)
        now = [part.state.get(parameter, {}).get(name) for part, parameter, name in self._followed]
        if self._averages is not None and states == self._states and self._averages.are_of(now):
            self._kept = self._kept[-1:] or [self._averages.copy()]
            return
        looked_up = {name for name, _ in self._embeddings()}
        found = [
            (part, parameter, name)
            for part in parts
            for parameter, values in part.state.items()
            for name in _AVERAGES
            if name in values and parameter.numel() and self.state.optimizer.names[parameter] not in looked_up
        ]
        # Evenly spaced, but not by a whole number: every second tensor of an adapter is of one kind.
        count = min(len(found), _FOLLOWED)
        followed = [found[place * (len(found) - 1) // max(count - 1, 1)] for place in range(count)]
        self._states, self._averages, self._kept = states, None, []
        self._followed = followed if count >= _FEWEST else []
        if self._followed:
            averages = [part.state[parameter][name] for part, parameter, name in followed]
            self._averages = Elements(averages, is_in_a_row=True)
            betas = [_beta_of(part) for part, _, _ in followed]
            self._betas = np.repeat(betas, [len(view) for view in self._averages.views])
            self._kept = [self._averages.copy()]

    def _embeddings(self) -> Iterator[tuple[str, nn.Embedding]]:
        """Tables, by the names of their weights."""
        for name, each in self.state.model.named_modules():
            if isinstance(each, nn.Embedding):
                yield f"{name}.weight".lstrip("."), each

    def _find_dropped(self, kept: Floats, measured: Floats) -> list[int]:
        """Steps after which the averages had only decayed, though the gradient was not nothing.

        kept: (steps + 1, elements), measured: (steps or more, 7 or more).
        """
        was, now = kept[:-1], kept[1:]
        assert self._averages is not None
        kind = torch.finfo(self._averages.dtype)
        rounded = kind.eps * _ROUNDINGS
        with np.errstate(all="ignore"):
            took = np.abs(now - self._betas * was) > rounded * np.abs(was) + kind.tiny
            took_any: list[bool] = np.logical_or.reduce(took, axis=1).tolist()
            if all(took_any):
                return []
            sizes: list[float] = np.sqrt((was**2).mean(axis=1)).tolist()
        is_known = np.any(was != 0, axis=1).tolist()  # at first an adapter's gradients are nothing by right
        count = sum(each.numel() for each in self.state.optimizer.parameters)
        dropped, is_set = [], any(map(_is_set, self._all_averages()))
        steps = measured[-len(was) :, 3:5].tolist()
        for place, (norm, skipped) in enumerate(steps):
            number = self.state.step - len(steps) + 1 + place
            limit = self.state.course.at(number - 1).max_grad_norm or math.inf
            is_faint = not 0 < norm < math.inf or min(norm, limit) / math.sqrt(count) <= _FAINT * sizes[place]
            is_asked = not took_any[place] and not skipped and not is_faint
            if is_asked and (is_known[place] or not is_set):
                dropped.append(number)
        # Of modules that are reached at times the averages stand still by right, of all tensors never.
        if dropped and (took.any(0).mean() > 0.5 or not is_set):
            return dropped
        return []

    def _all_averages(self) -> Iterator[Tensor]:
        for _, values in self.state.optimizer.states():
            yield from (values[name] for name in _AVERAGES if name in values)


def _beta_of(part: Adam | Muon) -> float:
    return part.settings["beta1"] if isinstance(part, Adam) else part.momentum


def _stack(copies: Sequence[Copied]) -> Tensor:
    """Copies of the same elements, (copies, elements)."""
    if isinstance(copies[0], bytes):
        joined = bytearray(b"".join(copies))  # type: ignore[arg-type]
        return torch.frombuffer(joined, dtype=torch.float32).view(len(copies), -1)
    return torch.stack(copies)  # type: ignore[arg-type]


def _zeros_like(copied: Copied) -> Copied:
    return bytes(len(copied)) if isinstance(copied, bytes) else torch.zeros_like(copied)


def _some(tensor: Tensor) -> Tensor:
    """Elements of a contiguous tensor, from all of it."""
    flat = tensor.detach().reshape(-1)
    return flat[:: -(-len(flat) // _ELEMENTS)]


def _a_row(tensor: Tensor) -> Tensor:
    """Elements from the middle of a contiguous tensor."""
    flat = tensor.detach().reshape(-1)
    first = max(len(flat) - _ELEMENTS, 0) // 2
    return flat[first : first + _ELEMENTS]


def _is_set(tensor: Tensor) -> bool:
    return bool(tensor.any())
