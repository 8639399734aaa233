"""Updates of the optimizer, held against its formula at some elements of each tensor."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

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


@dataclass
class Look:
    """Elements of all tensors under Adam before a step and after it: weights, both averages, updates."""

    weights: Tensor
    number: int = 0
    is_skipped: Tensor | None = None
    rate: float = 0.0
    after: tuple[Tensor, Tensor, Tensor, Tensor] | None = None


@dataclass
class Updates:
    """The updates since the last log step, kept on the device until somebody asks.

    A step that is looked at costs a copy of some elements of weights and averages, any other one of averages.
    """

    state: TrainState
    _adams: list[tuple[nn.Parameter, Adam]] = field(default_factory=list)
    _views: list[Tensor] = field(default_factory=list)  # of averages
    _betas: list[float] = field(default_factory=list)
    _kept: list[Tensor] = field(default_factory=list)  # before the first step, and after each
    _measured: list[Tensor] = field(default_factory=list)
    _looks: list[Look] = field(default_factory=list)

    def begin(self) -> None:
        """Forget all steps, as an attempt does."""
        rescaled = {  # by torch, in a forward pass
            each.weight for each in self.state.model.modules()
            if isinstance(each, nn.Embedding) and each.max_norm is not None
        }  # fmt: skip
        self._adams = [
            (parameter, part)
            for part in self.state.optimizer.parts
            if isinstance(part, Adam)
            for parameter in part.parameters
            if parameter.is_contiguous() and parameter.numel() and parameter not in rescaled
        ]
        self._looks.clear()
        self._follow()

    def look(self) -> None:
        """Take the weights before a step that is to be held against the formula."""
        self._looks = [each for each in self._looks if each.after]  # the others were void
        if self._adams:
            self._looks.append(Look(torch.cat([_some(parameter) for parameter, _ in self._adams])))

    def note(self, step: Step) -> None:
        """Take what an update made, without asking the device for it."""
        if not self._views:
            self._follow()
            self._kept = [torch.zeros_like(each) for each in self._kept] if step.number == 1 else []
        if self._kept:
            self._kept.append(torch.cat(self._views))
            self._measured.append(step.measured)
        applied = self.state.optimizer.applied
        if not self._looks or self._looks[-1].after or applied is None:
            return
        found = [part.state[parameter] for parameter, part in self._adams if parameter in part.state]
        if len(found) < len(self._adams):  # which other rules name
            self._looks.pop()
            return
        look = self._looks[-1]
        look.number, look.is_skipped, look.rate = step.number, step.measured[4], applied[0]
        look.after = (
            torch.cat([_some(parameter) for parameter, _ in self._adams]),
            torch.cat([_some(values["exp_avg"]) for values in found]),
            torch.cat([_some(values["exp_avg_sq"]) for values in found]),
            torch.stack([values["step"] for values in found]),
        )

    def end(self) -> tuple[list[int], dict[str, tuple[int, bool]]]:
        """Steps since the last log step that took in no gradient, and tensors whose update was another.

        Those by name, with the step and whether they stood still. The next steps are followed from here.
        """
        dropped = self._find_dropped()
        off: dict[str, tuple[int, bool]] = {}
        for look in self._looks:
            for name, stood in self._find_off(look):
                off.setdefault(name, (look.number, stood))
        self._looks.clear()
        self._follow()
        return dropped, off

    def _follow(self) -> None:
        """Follow averages of tensors that each step reaches; rows of an embedding may be read by none."""
        looked_up = {each.weight for each in self.state.model.modules() if isinstance(each, nn.Embedding)}
        followed = [
            (values[name], _beta_of(part))
            for part in self.state.optimizer.parts
            for parameter, values in part.state.items()
            for name in _AVERAGES
            if name in values and parameter not in looked_up
        ]
        # Evenly spaced, but not by a whole number: every second tensor of an adapter is of one kind.
        count = min(len(followed), _FOLLOWED)
        followed = [followed[place * (len(followed) - 1) // max(count - 1, 1)] for place in range(count)]
        if len(followed) < _FEWEST:
            followed = []
        self._views = [_some(average) for average, _ in followed]
        self._betas = [beta for view, (_, beta) in zip(self._views, followed) for _ in range(len(view))]
        self._kept, self._measured = [torch.cat(self._views)] if followed else [], []

    def _find_dropped(self) -> list[int]:
        """Steps after which the averages had only decayed, though the gradient was not nothing."""
        if not self._measured:
            return []
        kept = torch.stack(self._kept).cpu().double()  # (steps + 1, elements)
        was, now, rounded = kept[:-1], kept[1:], torch.finfo(self._kept[0].dtype).eps * _ROUNDINGS
        betas = torch.tensor(self._betas, dtype=kept.dtype)
        took = (now - betas * was).abs() > rounded * was.abs()
        is_known = (was != 0).any(1)  # at first an adapter's gradients are nothing by right
        asked = torch.stack([took.any(1), is_known, was.square().mean(1).sqrt()], 1).tolist()
        steps = torch.stack([each[:5] for each in self._measured]).tolist()
        count = sum(each.numel() for each in self.state.optimizer.parameters)
        dropped, is_set = [], any(map(_is_set, self._averages()))
        for number, ((any_took, has_known, size), (*_, norm, skipped)) in enumerate(
            zip(asked, steps), self.state.step - len(steps) + 1
        ):
            limit = self.state.course.at(number - 1).max_grad_norm or math.inf
            is_faint = not 0 < norm < math.inf or min(norm, limit) / math.sqrt(count) <= _FAINT * size
            if not any_took and (has_known or not is_set) and not skipped and not is_faint:
                dropped.append(number)
        # Of modules that are reached at times the averages stand still by right, of all tensors never.
        if dropped and (took.any(0).double().mean() > 0.5 or not is_set):
            return dropped
        return []

    def _averages(self) -> Iterator[Tensor]:
        for _, values in self.state.optimizer.states():
            yield from (values[name] for name in _AVERAGES if name in values)

    def _find_off(self, look: Look) -> Iterator[tuple[str, bool]]:
        """Tensors that are not where the formula of Adam brings them, and whether they stood still."""
        if look.after is None or look.is_skipped is None:
            return
        lengths = torch.tensor([len(_some(parameter)) for parameter, _ in self._adams])
        settings = [part.settings for _, part in self._adams]
        decoupled = [part.is_decoupled for _, part in self._adams]
        beta1, beta2, eps, decay, is_decoupled = (
            torch.tensor(values, dtype=torch.float64).repeat_interleave(lengths)
            for values in (
                *([each[name] for each in settings] for name in ("beta1", "beta2", "eps", "weight_decay")),
                decoupled,
            )
        )
        was, is_skipped = look.weights.cpu().double(), float(look.is_skipped)
        now, first, second, steps = (each.cpu().double() for each in look.after)
        steps = steps.repeat_interleave(lengths)
        rounded = torch.finfo(look.weights.dtype).eps * _ROUNDINGS
        size = (second / (1 - beta2**steps)).sqrt() + eps
        update = look.rate * (first / (1 - beta1**steps) / size) * (1 - is_skipped)
        due = was - update - look.rate * decay * is_decoupled * was * (1 - is_skipped)
        allowed = rounded * (was.abs() + now.abs()) + max(_CLOSE, rounded) * update.abs()
        is_clear = due.isfinite() & now.isfinite() & ((second == 0) | (second > _TINY))
        is_off = is_clear & ((now - due).abs() > allowed)
        if not is_off.any():
            return
        has_moved = (now != was) & is_clear
        parts = (torch.split(each, lengths.tolist()) for each in (is_off, has_moved))
        for (parameter, _), off, moved in zip(self._adams, *parts):
            if off.any():
                yield self.state.optimizer.names[parameter], not moved.any()


def _beta_of(part: Adam | Muon) -> float:
    return part.settings["beta1"] if isinstance(part, Adam) else part.momentum


def _some(tensor: Tensor) -> Tensor:
    """Elements of a contiguous tensor, from all of it."""
    flat = tensor.detach().reshape(-1)
    return flat[:: -(-len(flat) // _ELEMENTS)]


def _is_set(tensor: Tensor) -> bool:
    return bool(tensor.any())
