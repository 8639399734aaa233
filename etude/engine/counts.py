"""Updates that the optimizer has counted, held against those that were made."""

import weakref
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from etude.engine.broken import Broken, broken, first_few
from etude.engine.host import Floats, to_host
from etude.engine.loop import TrainState


@dataclass
class Counts:
    """The state of the optimizer as the last log step left it: updates counted, and what counts none."""

    state: TrainState
    _updates: float = 0.0
    _counts: dict[str, float] = field(default_factory=dict)
    _buffers: dict[str, weakref.ref[Tensor]] = field(default_factory=dict)
    _asked: list[str] = field(default_factory=list)  # names of the tensors whose counts were asked for

    def begin(self) -> None:
        """Take the state as it is for the start, as an attempt does."""
        self._counts = {name: float(value) for name, value in to_host(self._find_counted()).items()}
        self._buffers = self._find_buffers()
        self._updates = max(self._counts.values(), default=0.0)

    def asked(self) -> dict[str, Tensor]:
        """Counts of the device, for `find`."""
        counted = self._find_counted()
        self._asked = list(counted)
        return {"counts": torch.stack(list(counted.values()))} if counted else {}

    def find(
        self, told: Mapping[str, Floats], reported: Collection[str], *, looks_at_model: bool
    ) -> Iterator[Broken]:
        """State that was there is still there, and has counted the updates, equally many of each tensor.

        told: the values of what was asked, and `measured` by each step; reported: kinds that were told
        before; looks_at_model: whether weights that came later are looked for, too.
        """
        if "measured" in told:
            self._updates += float((1 - told["measured"][:, 4]).sum())
        counts = told["counts"].tolist() if "counts" in told else []
        if not looks_at_model and self._is_plain(counts):
            return
        before, buffers = self._counts, self._buffers
        self._counts = dict(zip(self._asked, counts))
        self._buffers = self._find_buffers()
        most = max(self._counts.values(), default=0.0)
        lost = [name for name, count in before.items() if self._counts.get(name, -1.0) < count]
        if not lost and most < self._updates:
            lost = list(self._counts)
        forgot = [
            name for name, kept in buffers.items() if kept() is not self._buffers.get(name, lambda: None)()
        ]
        if lost or forgot:
            counted = (
                f", with {self._counts.get(lost[0], 0):,.0f} updates of {self._updates:,.0f}" if lost else ""
            )
            yield broken(
                "optimizer_state_lost", "the optimizer lost its state", first_few(lost + forgot) + counted
            )
        self._updates = max(most, self._updates) if not lost else most
        yield from self._find_left_out(
            most, may_be_lost=bool(lost) or "optimizer_state_lost" in reported, looks_at_model=looks_at_model
        )

    def _is_plain(self, counts: list[float]) -> bool:
        """True if each tensor was there before, trains, and has counted all updates."""
        names, known = self.state.optimizer.names, self._counts
        if not len(counts) == len(known) == len(names) or self._asked != list(known):
            return False
        if counts.count(self._updates) < len(counts) or not all(each.requires_grad for each in names):
            return False
        self._counts = dict.fromkeys(known, self._updates)
        return True

    def _find_left_out(self, most: float, *, may_be_lost: bool, looks_at_model: bool) -> Iterator[Broken]:
        optimizer = self.state.optimizer
        known = {id(each) for each, _ in optimizer.states()}  # tensors are hashed by slow code
        late = [name for name, count in self._counts.items() if count < most]
        late += [name for each, name in optimizer.names.items() if id(each) not in known]
        late += [
            name
            for name, each in (self.state.parameters.items() if looks_at_model else ())
            if each.requires_grad and each not in optimizer.names
        ]
        frozen = [name for each, name in optimizer.names.items() if not each.requires_grad]
        if frozen and not late:
            yield broken(
                "tensor_not_stepped", "trained weights were frozen after the start", first_few(frozen)
            )
        if late and not may_be_lost:
            yield broken(
                "tensor_not_stepped", "the optimizer leaves out some of the weights",
                f"{first_few(late)} had fewer updates than the {max(most, 1):,.0f} of others",
            )  # fmt: skip

    def _find_counted(self) -> dict[str, Tensor]:
        """Updates that the optimizer has counted, by the name of the tensor; Muon counts none."""
        names, states = self.state.optimizer.names, self.state.optimizer.states()
        return {names[each]: values["step"] for each, values in states if "step" in values}

    def _find_buffers(self) -> dict[str, weakref.ref[Tensor]]:
        """State of tensors whose updates are not counted: they stay the same objects."""
        return {
            f"{self.state.optimizer.names[each]} ({name})": weakref.ref(value)
            for each, values in self.state.optimizer.states()
            if "step" not in values
            for name, value in values.items()
        }
