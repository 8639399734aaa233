"""Heads of a journal: its bytes until a moment, as one hash that no line of them changes without.

Checkpoints, their records and the end of an attempt hold them: each is a link to all that came before.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from etude import durable
from etude.records.shape import Object, fit, matching

_BLOCK_BYTES = 1 << 20
HEAD = Object({"bytes": int, "sha256": Annotated[str, matching("[0-9a-f]{64}")]})


class Head(NamedTuple):
    """The first bytes of a journal, all of them whole lines, and their SHA-256."""

    bytes: int
    sha256: str

    @classmethod
    def read(cls, value: Any) -> "Head | None":
        """A head from a file; None where an older etude wrote none. Raises: ValueError if it is none."""
        return None if value is None else cls(**{name: fit(value, HEAD)[name] for name in cls._fields})


class Growing:
    """The head of a file that grows by whole lines; each byte is hashed once.

    read: gives the bytes from a place on, at most so many
    """

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self._read, self._hash, self._bytes = read, hashlib.sha256(), 0

    def head(self) -> Head:
        """The head of the whole lines so far, whoever wrote them."""
        rest = b""
        while block := self._read(self._bytes + len(rest), _BLOCK_BYTES):
            lines, end, rest = (rest + block).rpartition(b"\n")
            self._hash.update(lines + end)
            self._bytes += len(lines) + len(end)
        return Head(self._bytes, self._hash.hexdigest())


def hash_until(path: Path, places: Iterable[int]) -> dict[int, str]:
    """SHA-256 of the first bytes of a journal, by their number; none for what it does not have."""
    found, so_far, at = {}, hashlib.sha256(), 0
    with durable.open_plain(path, follow=False) as file:
        for place in sorted(set(places)):
            while at < place and (block := file.read(min(_BLOCK_BYTES, place - at))):
                so_far.update(block)
                at += len(block)
            if at < place:
                break
            found[place] = so_far.hexdigest()
    return found


def hash_lines(path: Path) -> dict[str, int]:
    """The numbers of bytes until the end of each line of a journal, by the SHA-256 of these bytes."""
    found, so_far, size = dict[str, int](), hashlib.sha256(), 0
    with durable.open_plain(path, follow=False) as file:
        for line in file:
            so_far.update(line)
            size += len(line)
            found[so_far.hexdigest()] = size
    return found
