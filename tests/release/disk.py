"""The calls of this process to a disk, under one folder: counted, written down, or failing at the n-th.

It takes the place of functions of `os`, so it sees all that etude writes, whatever module asks for it, in
every thread; not what compiled code writes, nor what other processes do.
"""

import base64
import errno
import functools
import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_MAKES = os.O_CREAT | os.O_TRUNC
_NEEDS_NO_ROOM = ("unlink", "rmdir", "ftruncate", "fsync")
_BY_NAME = ("rename", "replace", "link", "unlink", "remove", "mkdir", "rmdir")
_BY_FILE = ("write", "fsync", "ftruncate", "posix_fallocate")
_SAME = {"replace": "rename", "remove": "unlink"}


@dataclass(frozen=True)
class Fault:
    """A way to fail: an error of the system, or `kill`, `torn` (half is written, then killed), `short`.

    lasting: the calls after it fail too, as on a disk that stays full
    """

    error: int = 0
    how: str = "error"
    lasting: bool = False


FAULTS = {
    "kill": Fault(how="kill"),
    "torn": Fault(how="torn"),
    "short": Fault(how="short"),
    "full": Fault(errno.ENOSPC, lasting=True),
    "full once": Fault(errno.ENOSPC),
    "failing": Fault(errno.EIO),
    "failed": Fault(errno.EIO, lasting=True),
    "read-only": Fault(errno.EROFS, lasting=True),
    "over quota": Fault(errno.EDQUOT, lasting=True),
}


@dataclass(frozen=True)
class Call:
    """A call that changed a disk: `open`, `write`, `fsync`, `ftruncate`, `rename`, `link`, `unlink`, ...

    path    absolute
    place   of a write or a cut; a size of a truncation
    target  of a rename or a link
    """

    name: str
    path: str
    place: int = 0
    data: bytes = b""
    target: str = ""

    def to_json(self) -> str:
        data = base64.b64encode(self.data).decode()
        return json.dumps([self.name, self.path, self.place, data, self.target])

    @classmethod
    def from_json(cls, line: str) -> "Call":
        name, path, place, data, target = json.loads(line)
        return cls(name, path, place, base64.b64decode(data), target)


@dataclass
class Disk:
    """Calls under `root` in their order; the one with number `at` (from 0) meets a fault, if one is given.

    told: a file that then says which call it was
    """

    root: Path
    at: int = -1
    fault: Fault | None = None
    told: Path | None = None
    calls: list[Call] = field(default_factory=list)
    _real: dict[str, Callable[..., Any]] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.RLock)

    def __enter__(self) -> "Disk":
        self._prefix = f"{os.path.realpath(self.root)}/"
        for name in ("open", *_BY_NAME, *_BY_FILE):
            self._real[name] = getattr(os, name)
            setattr(os, name, functools.partial(getattr(self, f"_{_kind(name)}"), name))
        return self

    def __exit__(self, *_: object) -> None:
        for name, function in self._real.items():
            setattr(os, name, function)

    def _open(self, name: str, path: Any, flags: int, *rest: Any, **named: Any) -> int:
        full = self._path(path, named.get("dir_fd"))
        if full is None or not flags & _MAKES or (os.path.lexists(full) and not flags & os.O_TRUNC):
            return int(self._real[name](path, flags, *rest, **named))
        return int(
            self._do(Call("truncate" if os.path.lexists(full) else "open", full), path, flags, *rest, **named)
        )

    def _named(self, name: str, path: Any, *rest: Any, **named: Any) -> Any:
        full = self._path(path, named.get("dir_fd", named.get("src_dir_fd")))
        if full is None:
            return self._real[name](path, *rest, **named)
        target = self._path(rest[0], None) if name in ("rename", "replace", "link") else None
        return self._do(
            Call(_SAME.get(name, name), full, target=target or ""), path, *rest, as_=name, **named
        )

    def _filed(self, name: str, descriptor: int, *rest: Any) -> Any:
        full = self._path_of(descriptor)
        if full is None:
            return self._real[name](descriptor, *rest)
        if name == "write":
            is_append = _flags(descriptor) & os.O_APPEND
            place = os.fstat(descriptor).st_size if is_append else os.lseek(descriptor, 0, os.SEEK_CUR)
            return self._do(Call(name, full, place, bytes(rest[0])), descriptor, *rest)
        place = rest[0] if name == "ftruncate" else sum(rest)
        return self._do(Call(name, full, place), descriptor, *rest)

    def _do(self, call: Call, *values: Any, as_: str = "", **named: Any) -> Any:
        """Make a call, unless it is to fail, and note it."""
        real = self._real[as_ or ("open" if call.name == "truncate" else call.name)]
        with self._lock:
            number = len(self.calls)
            is_hit = number == self.at or bool(
                self.fault and self.fault.lasting and number > self.at >= 0 and self.fault.how == "error"
            )
            if is_hit and self.fault is not None:
                if self.told and number == self.at:
                    self.told.write_text(f"{call.name} {call.path[len(self._prefix) :]} {call.place}")
                if self.fault.how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                if self.fault.how in ("torn", "short") and call.name == "write":
                    values = (values[0], call.data[: (len(call.data) + 1) // 2])
                if self.fault.how == "error" and _can_fail(call.name, self.fault.error):
                    self.calls.append(call)
                    raise OSError(self.fault.error, os.strerror(self.fault.error), call.path)
            done = real(*values, **named)
            if is_hit and self.fault is not None and self.fault.how == "torn":
                os.kill(os.getpid(), signal.SIGKILL)
            if call.name == "write":
                call = Call(call.name, call.path, call.place, call.data[:done])
            self.calls.append(call)
            return done

    def _path(self, path: Any, folder: int | None) -> str | None:
        """The absolute path of a name, if it lies under the root."""
        if isinstance(path, int):
            return None
        name = os.fsdecode(path)
        if not name.startswith("/"):
            name = f"{_name_of(folder) if folder else Path.cwd()}/{name}"
        above, _, last = name.rstrip("/").rpartition("/")
        name = f"{os.path.realpath(above or '/')}/{last}"
        return name if name.startswith(self._prefix) else None

    def _path_of(self, descriptor: int) -> str | None:
        name = _name_of(descriptor)
        return name if f"{name}/".startswith(self._prefix) else None


def _kind(name: str) -> str:
    return "open" if name == "open" else "named" if name in _BY_NAME else "filed"


def _can_fail(name: str, error: int) -> bool:
    """A full disk still lets files be removed."""
    return not (error in (errno.ENOSPC, errno.EDQUOT) and name in _NEEDS_NO_ROOM)


def _name_of(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def _flags(descriptor: int) -> int:
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("flags:")).split()[1], 8)
