"""Places for mirrors that fail in the ways of real ones."""

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator

from etude.control.place import Place
from etude.errors import MissingError, StorageError


class Odd:
    """A place over another one, which counts operations, and can lose, hide, refuse or be killed in them.

    hidden   seconds for which a new file is not seen
    lose     tells by the number of a write whether it is dropped without an error
    refuse   the error of every write, if any
    kill_at  the operation in the middle of which the process is killed
    """

    def __init__(
        self, place: Place, *, hidden: float = 0.0, lose: Callable[[int], bool] = lambda number: False,
        kill_at: int = -1,
    ) -> None:  # fmt: skip
        self._place, self._hidden, self._lose, self._kill_at = place, hidden, lose, kill_at
        self.refuse: str | None = None
        self.operations: list[str] = []
        self.lost: list[str] = []
        self._written: dict[str, float] = {}

    def __str__(self) -> str:
        return str(self._place)

    def make(self) -> None:
        self._place.make()

    def names(self) -> list[str]:
        self._count("list")
        return [name for name in self._place.names() if self._is_seen(name)]

    def write(self, name: str, chunks: Iterable[bytes | memoryview]) -> None:
        number = len(self._written)
        self._written[name] = time.monotonic()
        if self.refuse:
            raise StorageError(self.refuse)
        if self._lose(number):
            self.lost.append(name)
            for _ in chunks:
                pass
            return
        self._place.write(name, self._half(name, chunks))

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        self._count(f"read {name}")
        if not self._is_seen(name):
            raise MissingError(f"{name} does not exist")
        yield from self._place.read(name, start)

    def remove(self, name: str, *, is_large: bool) -> None:
        if is_large:
            self._count(f"truncate {name}")
        self._count(f"remove {name}")
        self._place.remove(name, is_large=is_large)

    def _half(self, name: str, chunks: Iterable[bytes | memoryview]) -> Iterator[bytes]:
        whole = b"".join(bytes(each) for each in chunks)
        yield whole[: len(whole) // 2]
        self._count(f"write {name}")
        yield whole[len(whole) // 2 :]

    def _count(self, what: str) -> None:
        if len(self.operations) == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.operations.append(what)

    def _is_seen(self, name: str) -> bool:
        return time.monotonic() - self._written.get(name, -1e9) >= self._hidden
