"""seccomp: the system calls that a process may make, as a program for the kernel's packet filter.

What is not allowed fails with EPERM, so that a library goes another way; a call by the numbers of another
architecture ends the process. Source: docs.kernel.org/userspace-api/seccomp_filter.html.
"""

import ctypes
import errno
import os
import struct
from dataclasses import dataclass

from etude.confine import kernel

# Calls that reach nothing but the process itself, and files as far as Landlock lets it.
_FREE = """
read write readv writev pread64 pwrite64 preadv close close_range fstat newfstatat stat lstat statx lseek
mprotect munmap brk mremap madvise msync rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending
rt_sigsuspend rt_sigtimedwait sigaltstack pause access faccessat faccessat2 open openat getdents64
readlink readlinkat getcwd chdir pipe pipe2 dup dup2 dup3 getpid getppid gettid getuid geteuid getgid
getegid getgroups getpgrp getpgid getsid getresuid getresgid umask getpriority nanosleep clock_nanosleep
clock_gettime clock_getres gettimeofday time times getrusage sysinfo uname getrlimit futex futex_waitv
set_robust_list get_robust_list set_tid_address rseq membarrier sched_yield sched_getaffinity
sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min poll ppoll select
pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd2 recvfrom getrandom alarm
setitimer getitimer exit exit_group restart_syscall getcpu arch_prctl
"""
_CHANGE = """
fsync fdatasync ftruncate fallocate rename renameat renameat2 unlink unlinkat mkdir mkdirat rmdir
"""
_FORK = "fork vfork wait4 waitid"
_THREAD = 0x100 | 0x800 | 0x10000  # CLONE_VM, CLONE_SIGHAND, CLONE_THREAD: no process of its own
_NAMESPACES = 0x80 | 0x20000 | 0x2000000 | 0x4000000 | 0x8000000 | 0x10000000 | 0x20000000 | 0x40000000
_TERMINAL = (0x5401, 0x5413, 0x5421, 0x5450, 0x5451)  # its settings and size, FIONBIO, FIONCLEX, FIOCLEX
_DESCRIPTOR = (0, 1, 2, 3, 4, 1030)  # duplicates and flags of descriptors
_NAME = (15, 16, 0x53564D41)  # PR_SET_NAME, PR_GET_NAME, PR_SET_VMA
_LOAD, _JUMP, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x05, 0x15, 0x35, 0x54, 0x06
_ALLOW, _ASK, _ERROR, _KILL = 0x7FFF0000, 0x7FC00000, 0x00050000, 0x80000000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_X32 = 0x40000000
_SET_MODE_FILTER, _WITH_LISTENER = 1, 8


@dataclass(frozen=True)
class Condition:
    """The bits of `mask` of an argument are one of `values`; high: of its upper half."""

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF
    high: bool = False


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def _null(argument: int) -> list[Condition]:
    return [Condition(argument, (0,)), Condition(argument, (0,), high=True)]


_A_THREAD = Condition(0, (_THREAD,), mask=_THREAD | _NAMESPACES)


def conditional(pid: int, *, may_execute: bool = False, may_fork: bool = False) -> dict[str, list[Condition]]:
    """Calls that are allowed if all their conditions hold, for the process of this id."""
    return {
        # Memory that is shared and not in a file counts for no limit. A runtime shares files that it reads.
        "mmap": [
            Condition(3, (0x01, 0x02, 0x22), mask=0x23) if may_execute else Condition(3, (0x02,), mask=0x03)
        ],
        "ioctl": [Condition(1, _TERMINAL)],
        "fcntl": [Condition(1, _DESCRIPTOR)],
        "prctl": [Condition(0, _NAME)],
        "prlimit64": [Condition(0, (0, pid)), *_null(2)],
        "clone": [Condition(0, (0,), mask=_NAMESPACES) if may_fork else _A_THREAD],
        "tgkill": [Condition(0, (pid,))],
        "kill": [Condition(0, (pid,))],
        # A pair of one's own, as event loops have; nothing can be sent to an address.
        "socketpair": [Condition(0, (1,)), Condition(1, (1, 5), mask=0xF)],
        "sendto": _null(4),
    }


def allow_list(*, may_execute: bool = False, may_change: bool = False, may_fork: bool = False) -> bytes:
    """The filter of this process: `_FREE` and what is conditional.

    may_execute: programs that Landlock lets it run. may_change: files where Landlock lets it. may_fork:
    processes of its own, which `ask_before_fork` counts.
    """
    free = [*_FREE.split(), *(["execve"] if may_execute else []), *(_CHANGE.split() if may_change else [])]
    free += _FORK.split() if may_fork else []
    checked = conditional(os.getpid(), may_execute=may_execute, may_fork=may_fork)
    body = [_jump_if(name, _return(_ALLOW)) for name in free]
    body += [_jump_if(name, _conditions(conditions)) for name, conditions in checked.items()]
    # glibc falls back to clone, whose flags a filter can see.
    body.append(_jump_if("clone3", _return(_ERROR | errno.ENOSYS)))
    return b"".join([*_prologue(), *body, _return(_ERROR | errno.EPERM)])


def deny_list(names: list[str]) -> bytes:
    """A filter that lets all calls pass but some, as those of containers do."""
    body = [_jump_if(name, _return(_ERROR | errno.EPERM)) for name in names]
    return b"".join([*_prologue(), *body, _return(_ALLOW)])


def ask_before_fork() -> int:
    """Let the kernel ask before this process, or one that it starts, starts a process; who reads is asked.

    Returns the descriptor to read from. Raises: OSError if the kernel cannot, or another is asked already.
    """
    names = [_jump_if(name, _return(_ASK)) for name in ("fork", "vfork")]
    names += [
        _jump_if("clone", _conditions([_A_THREAD], _ASK)),
        _jump_if("clone3", _return(_ERROR | errno.ENOSYS)),
    ]
    return install(b"".join([*_prologue(), *names, _return(_ALLOW)]), _WITH_LISTENER)


def install(program: bytes, flags: int = 0) -> int:
    """Let the kernel run a filter before each call of this process and all that it starts, for good.

    Returns what the kernel does. Raises: OSError if the kernel has no such filter.
    """
    instructions = ctypes.create_string_buffer(program, len(program))
    filled = _Program(len(program) // 8, ctypes.addressof(instructions))
    kernel.forbid_new_privileges()
    return kernel.call("seccomp", _SET_MODE_FILTER, flags, ctypes.addressof(filled))


def _prologue() -> list[bytes]:
    architecture = kernel.architecture()
    assert architecture is not None
    return [
        _step(_LOAD, _ARCHITECTURE_AT),
        _step(_EQUAL, architecture, 1, 0),
        _return(_KILL),
        _step(_LOAD, _NUMBER_AT),
        _step(_AT_LEAST, _X32, 0, 1),
        _return(_KILL),
    ]


def _jump_if(name: str, then: bytes) -> bytes:
    """Do `then`, which returns, if the call is that of a name."""
    found = kernel.number(name)
    return b"" if found is None else _step(_EQUAL, found, 0, len(then) // 8) + then


def _conditions(conditions: list[Condition], otherwise: int = _ERROR | errno.EPERM) -> bytes:
    """Allow if all hold, else fail or what else is said."""
    refuse, checks = _return(otherwise), b""
    for condition in reversed(conditions):
        check = _step(_LOAD, _ARGUMENTS_AT + 8 * condition.argument + 4 * condition.high)
        if condition.mask != 0xFFFFFFFF:
            check += _step(_AND, condition.mask)
        *others, last = condition.values
        for place, value in enumerate(others):
            check += _step(_EQUAL, value, len(others) - place + 1, 0)
        # The last value that it may have: on, or past it to the refusal.
        check += _step(_EQUAL, last, 1, 0) + refuse
        checks = check + checks
    return checks + _return(_ALLOW)


def _return(value: int) -> bytes:
    return _step(_RETURN, value)


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)
