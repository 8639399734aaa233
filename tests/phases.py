"""Phases of commands, marked in a small file while a process is inside of them, for whoever kills it."""

import functools
import importlib
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The functions that are a phase, from what lies deepest to what lies around it.
PLACES = {
    "retention": ["etude.engine.checkpoint:retain"],
    "save": ["etude.engine.checkpoint:write_checkpoint"],
    "mirror": ["etude.control.mirror:Mirror._copy"],
    "evaluation": [
        "etude.objectives.examiner:Examiner.evaluate",
        "etude.objectives.examiner:Examiner.compare",
    ],
    "step": ["etude.engine.loop:add_gradients", "etude.engine.loop:_update"],
    "data": ["etude.data.prepared:_build"],
    "start": ["etude.run:begin"],
    "report": ["etude.run:write_report", "etude.sweep.deliverables:make_deliverables"],
    "end": ["etude.records.store:RunWriter.close"],
    "export": ["etude.export:export", "etude.quantize.export:export_quantized"],
    "scoring": ["etude.rescore:rescore"],
    "sweep": ["etude.sweep.controller:Controller.run"],
}
_NAMES = (*PLACES,)


class Phases:
    """The phases of a process and its forks, by way of a file.

    It begins with none where the file is made: `Phases(path, made=True)`.
    """

    def __init__(self, path: Path, *, made: bool = False) -> None:
        if made:
            path.write_bytes(bytes(len(_NAMES)))
        with path.open("r+b") as file:
            self._state = mmap.mmap(file.fileno(), len(_NAMES))

    def inside(self) -> list[str]:
        """The phases that were entered and not left, the deepest first."""
        return [name for name, is_inside in zip(_NAMES, self._state[:]) if is_inside]

    def mark(self) -> None:
        """Have the functions of this process and its forks mark their phases from now on."""
        for number, places in enumerate(PLACES.values()):
            for place in places:
                module, _, path = place.partition(":")
                *above, name = path.split(".")
                owner = functools.reduce(getattr, above, importlib.import_module(module))
                setattr(owner, name, self._marked(number, getattr(owner, name)))

    def _marked(self, number: int, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def marked(*values: Any, **named: Any) -> Any:
            self._state[number] = 1
            try:
                return function(*values, **named)
            finally:
                self._state[number] = 0

        return marked
