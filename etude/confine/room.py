"""The confinement of a process by itself: what foreign code in it can reach, the kernel says, not Python.

It takes neither root nor a package nor a namespace. What the kernel offers is found by trying it in a process
apart; without Landlock or without seccomp there is no confinement, and foreign code is not run.
"""

import os
import resource
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import asdict, dataclass

from etude.confine import kernel, landlock, seccomp

# Namespaces of its own for users, the network, messages and the name of the machine.
_APART = 0x10000000 | 0x40000000 | 0x08000000 | 0x04000000
_NEWEST_LANDLOCK = 7
# Files that Python and the libraries of a system read as they start.
_SYSTEM = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo", "/etc/localtime",
)  # fmt: skip


@dataclass(frozen=True)
class Tier:
    """The means of the kernel that confine a process.

    landlock    the version of its interface, 0 for none
    seccomp     whether system calls are filtered
    namespaces  whether there is a network of its own, in which nothing is
    """

    landlock: int = 0
    seccomp: bool = False
    namespaces: bool = False

    @property
    def confines(self) -> bool:
        """True if foreign code can be run in it."""
        return self.landlock > 0 and self.seccomp

    def __str__(self) -> str:
        """The tier as a record has it."""
        names = [
            f"Landlock {self.landlock}" if self.landlock else "",
            "seccomp" if self.seccomp else "",
            "namespaces" if self.namespaces else "",
            "limits",
        ]
        return " + ".join(filter(None, names))

    def to_dict(self) -> dict[str, int]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Room:
    """The limits of a confined process.

    cpu_seconds   of all its threads; then the kernel ends it by SIGXCPU; None where another ends it
    memory_bytes  that it may write to
    limits_space  whether address space counts too, which some runtimes reserve without use
    file_bytes    of a file that it writes
    readable      folders and files that it may read, beside those of Python and the system
    runnable      programs that it may start in its own place, and what they load
    writable      folders in which it may make and remove files
    may_fork      whether it may start processes, which then have the same room each
    """

    cpu_seconds: int | None
    memory_bytes: int
    limits_space: bool = True
    file_bytes: int = 0
    readable: tuple[str, ...] = ()
    runnable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    may_fork: bool = False


def strongest(most: Tier = Tier(_NEWEST_LANDLOCK, True, True)) -> Tier:
    """The strongest tier up to `most` of this kernel, found by trying in processes apart."""
    if kernel.architecture() is None:
        return Tier()
    version = min(landlock.version(), most.landlock)
    return Tier(
        landlock=version if version and _works(lambda: _try_landlock(version)) else 0,
        seccomp=most.seccomp and _works(_try_seccomp),
        namespaces=most.namespaces and _works(leave_namespaces),
    )


def leave_namespaces() -> None:
    """Take namespaces of one's own, with an empty network. Raises: OSError if that is denied."""
    kernel.unshare(_APART)


def enter_strongest(room: Room) -> Tier:
    """Confine this process for good by all that its kernel offers, if only by limits; returns the tier.

    It has one thread or more, and so keeps its namespaces. Raises: as `enter`.
    """
    tier = strongest(Tier(_NEWEST_LANDLOCK, True, False))
    enter(room, tier)
    return tier


def enter(room: Room, tier: Tier) -> None:
    """Confine this process for good, but for namespaces. Raises: OSError if the kernel refuses any of it."""
    limit(room)
    if kernel.architecture() is None:
        return
    kernel.forbid_new_privileges()
    kernel.forbid_dumps()
    if tier.landlock:
        landlock.restrict(_paths(room), tier.landlock)
    kernel.drop_capabilities()
    if tier.seccomp:
        seccomp.install(
            seccomp.allow_list(
                may_execute=bool(room.runnable), may_change=bool(room.writable), may_fork=room.may_fork
            )
        )


def limit(room: Room) -> None:
    """Set the limits of a room that every system has."""
    limits = {
        "DATA": room.memory_bytes, "FSIZE": room.file_bytes, "CORE": 0, "NOFILE": 64,
        "MEMLOCK": 0, "MSGQUEUE": 0, "SIGPENDING": 64, "RTPRIO": 0,
    }  # fmt: skip
    if room.cpu_seconds is not None:
        limits["CPU"] = room.cpu_seconds
    if room.limits_space:
        limits["AS"] = room.memory_bytes
    for name, most in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is not None:
            hard = resource.getrlimit(kind)[1]
            least = most + (
                name == "CPU"
            )  # SIGXCPU says why it ends; who ignores it is killed a second later
            hard = least if hard == resource.RLIM_INFINITY else min(least, hard)
            try:
                resource.setrlimit(kind, (min(most, hard), hard))
            except (OSError, ValueError):
                if kernel.architecture() is not None:  # other systems have names for limits that they lack
                    raise


def _paths(room: Room) -> list[tuple[str, int]]:
    own = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    read = [*own, f"{sys.base_prefix}/lib", *_SYSTEM, "/dev/urandom", "/dev/zero", *room.readable]
    return [
        *((path, landlock.READ) for path in read),
        ("/dev/null", landlock.READ | landlock.WRITE),
        *((path, landlock.RUN) for path in room.runnable),
        *((path, landlock.CHANGE) for path in room.writable),
    ]


def _try_landlock(version: int) -> None:
    """Raises: OSError unless Landlock keeps this process from what it has not been given."""
    kernel.forbid_new_privileges()
    landlock.restrict([("/usr", landlock.READ)], version)
    try:
        os.listdir("/")
    except PermissionError:
        return
    raise OSError("Landlock restricts nothing")


def _try_seccomp() -> None:
    """Raises: OSError unless the filter keeps this process from starting another."""
    seccomp.install(seccomp.allow_list())
    try:
        child = os.fork()
    except PermissionError:
        return
    if not child:
        os._exit(1)
    raise OSError("seccomp filters nothing")


def _works(attempt: Callable[[], None]) -> bool:
    """True if an attempt ends without an error, in a process of its own."""
    child = os.fork()
    if not child:
        try:
            attempt()
            os._exit(0)
        except BaseException:  # whatever a kernel answers
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0
