"""Another process of this machine, as Linux shows it: at work, stopped or gone."""

import os
from dataclasses import dataclass
from pathlib import Path

_STOPPED, _ENDED = "Tt", "ZX"


@dataclass
class Neighbour:
    """A process of this machine that others wait for.

    began  its moment of start, in ticks since that of the machine: another process may get the same number
    seen   its state when it was last looked at and not at work, in words
    """

    pid: int
    began: str
    seen: str = ""
    _spent: int | None = None

    @classmethod
    def of(cls, pid: int) -> "Neighbour | None":
        """The process of a number; None if there is none, or on a system without /proc."""
        began = _fields(Path(f"/proc/{pid}/stat"))[19:20]
        return cls(pid, began[0]) if began else None

    @classmethod
    def read(cls, place: str) -> "Neighbour | None":
        """The process whose `own_place` this is; None on another machine, or in another container."""
        pid, _, rest = place.partition(":")
        began, _, machine = rest.partition(":")
        is_near = machine == _machine() != "" and pid.isascii() and pid.isdecimal()
        return cls(int(pid), began) if is_near else None

    def is_at_work(self) -> bool:
        """True if it has used the processor since the last look, or waits for its turn to."""
        states, spent = "", 0
        try:
            has_begun = _fields(Path(f"/proc/{self.pid}/stat"))[19:20] == [self.began]
            for task in Path(f"/proc/{self.pid}/task").iterdir() if has_begun else ():
                states += _fields(task / "stat")[0]
                spent += int((task / "schedstat").read_bytes().split()[0])
        except (OSError, IndexError):  # a thread that has just ended
            pass
        before, self._spent = self._spent, spent
        if not states.strip(_ENDED):
            self.seen = f"its process {self.pid} is gone"
        elif not states.strip(_STOPPED + _ENDED):
            self.seen = f"its process {self.pid} is stopped"
        elif "R" in states or (before is not None and spent != before):
            return True
        else:
            self.seen = f"its process {self.pid} sleeps, and takes no time of the processor"
        return False


def own_place() -> str:
    """The place of this process, by which others on its machine find it; without /proc nothing."""
    own = Neighbour.of(os.getpid())
    return f"{own.pid}:{own.began}:{_machine()}" if own and _machine() else ""


def _machine() -> str:
    """A name of this machine since its start, and of the processes that see each other there."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _fields(stat: Path) -> list[str]:
    """The fields of a process behind its name, which may hold anything; none if it is gone."""
    try:
        return stat.read_bytes().rpartition(b")")[2].decode("ascii", "replace").split()
    except OSError:
        return []
