"""Files of tensors, as safetensors: written by one process, or by all ranks at once, each its rows.

Rows of a tensor that follow each other are bytes of its file that follow each other, so that a file written
in pieces is the file that one process would write, and is read by any number of ranks.
"""

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from etude import durable
from etude.errors import InputError
from etude.models.weights import open_tensors

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Piece:
    """Rows of a tensor that lie on a rank: `rows` from `first` on, of those of the whole `shape`."""

    shape: tuple[int, ...]
    first: int
    rows: int

    @classmethod
    def of(cls, shape: tuple[int, ...], rank: int, ranks: int) -> "Piece":
        """The piece of a rank: of R rows on n ranks, R / n of them, rounded up; of the last ranks fewer."""
        most = -(-shape[0] // ranks)
        first = min(rank * most, shape[0])
        return cls(shape, first, min(most, shape[0] - first))


def safetensors(tensors: Tensors) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file, piece by piece, without a second copy of the tensors."""
    head, places = _lay_out(tensors, {})
    yield head
    yield from (_bytes_of(tensors[name]) for name in places if tensors[name].numel())


def begin_file(path: Path, tensors: Tensors, places: Mapping[str, Piece]) -> None:
    """Make a file of tensors of which this rank holds some rows, for all ranks to write their rows into."""
    head, begins = _lay_out(tensors, places)
    last = next(reversed(begins), None)
    size = begins[last] + _size_of(tensors[last], places.get(last)) if last else len(head)
    durable.make_sized(path, head, size)


def write_rows(path: Path, tensors: Tensors, places: Mapping[str, Piece], *, is_main: bool) -> None:
    """Write the rows of this rank into a file that was begun; what all ranks hold is that of rank 0."""
    _, begins = _lay_out(tensors, places)
    for name, begin in begins.items():
        tensor, place = tensors[name], places.get(name)
        if tensor.numel() and (place or is_main):
            row = _size_of(tensor, place) // place.shape[0] if place else 0
            durable.write_at(path, _bytes_of(tensor), begin + row * (place.first if place else 0))
    durable.sync_file(path)


def read_tensors(
    path: Path, place_of: Callable[[str], Piece | None] = lambda _: None
) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, or the rows of a rank of those that have a place.

    Raises: InputError for anything else, or where a placed one has another shape; a pickle is never opened.
    """
    read: dict[str, torch.Tensor] = {}
    with open_tensors(path) as tensors:
        for name in tensors.keys():  # noqa: SIM118 - not a dictionary
            place = place_of(name)
            if place is None:
                read[name] = tensors.get_tensor(name)
                continue
            part = tensors.get_slice(name)
            if tuple(part.get_shape()) != place.shape:
                theirs, ours = list(part.get_shape()), list(place.shape)
                raise InputError(
                    f"{path}: {name} is {theirs}, the model has {ours}; give the weights of the same model"
                )
            read[name] = part[place.first : place.first + place.rows]
    return read


def _lay_out(tensors: Tensors, places: Mapping[str, Piece]) -> tuple[bytes, dict[str, int]]:
    """The head of a file, and where each tensor begins in it, in their order there."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset, begins = 0, dict[str, int]()
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        place = places.get(name)
        end = offset + _size_of(tensor, place)
        shape = list(place.shape if place else tensor.shape)
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": shape, "data_offsets": [offset, end]}
        begins[name], offset = offset, end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = struct.pack("<Q", len(text)) + text
    return head, {name: len(head) + begin for name, begin in begins.items()}


def _size_of(tensor: torch.Tensor, place: Piece | None) -> int:
    """Bytes of a whole tensor."""
    return math.prod(place.shape if place else tensor.shape) * tensor.element_size()


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    return memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
