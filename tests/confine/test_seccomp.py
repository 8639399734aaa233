"""The filter of system calls, run by the kernel and by an interpreter of its instructions."""

import errno
import os
import signal
import struct
import threading

import pytest

from etude.confine import kernel, seccomp
from tests.confine.apart import outcome

pytestmark = pytest.mark.skipif(kernel.architecture() is None, reason="not Linux on x86-64 or aarch64")


def _answer(
    program: bytes, name_or_number: str | int, *arguments: int, architecture: int | None = None
) -> int:
    """What a filter returns for a call, by the rules of the packet filter."""
    number = kernel.number(name_or_number) if isinstance(name_or_number, str) else name_or_number
    filled = [*arguments, *[0] * (6 - len(arguments))]
    arch = kernel.architecture() if architecture is None else architecture
    data = struct.pack("=IIQ6Q", number, arch, 0, *[value & (1 << 64) - 1 for value in filled])
    steps = list(struct.iter_unpack("HBBI", program))
    at = value = 0
    while True:
        code, yes, no, given = steps[at]
        at += 1
        if code == 0x20:
            (value,) = struct.unpack_from("=I", data, given)
        elif code == 0x54:
            value &= given
        elif code in (0x15, 0x35):
            at += yes if (value == given if code == 0x15 else value >= given) else no
        else:
            assert code == 0x06
            return given


_ALLOWED, _DENIED, _KILLED = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000


def test_what_reaches_others_is_denied_and_what_does_not_is_allowed() -> None:
    program, own = seccomp.allow_list(), os.getpid()
    for name in ("read", "openat", "futex", "exit_group"):
        assert _answer(program, name) == _ALLOWED, name
    for name in ("execve", "unshare", "mount", "ptrace", "bpf", "keyctl", "setns", "seccomp", "capset"):
        assert _answer(program, name) == _DENIED, name
    assert _answer(program, "clone3") == 0x00050000 | errno.ENOSYS
    assert _answer(seccomp.allow_list(may_execute=True), "execve") == _ALLOWED
    for number in (
        425,
        426,
        319,
        310,
        41,
        42,
        57,
        58,
        438,
        434,
    ):  # of x86-64: io_uring, memfd, sockets, fork ...
        if kernel.architecture() == 0xC000003E:
            assert _answer(program, number) == _DENIED
    assert _answer(program, "kill", own, 15) == _answer(program, "tgkill", own, own, 6) == _ALLOWED
    for other in (own + 1, 0, -1, -own, 1):
        assert _answer(program, "kill", other, 15) == _answer(program, "tgkill", other, other, 6) == _DENIED


def test_arguments_decide_where_they_matter() -> None:
    program, own = seccomp.allow_list(), os.getpid()
    thread = 0x3D0F00  # the flags of glibc
    assert _answer(program, "clone", thread) == _ALLOWED
    for flags in (17, 0, 0x100, thread | 0x10000000, thread & ~0x10000):
        assert _answer(program, "clone", flags) == _DENIED, hex(flags)
    assert _answer(program, "mmap", 0, 1, 3, 0x22) == _ALLOWED
    for flags in (0x21, 0x01, 0x03, 0x23):
        assert _answer(program, "mmap", 0, 1, 3, flags) == _DENIED, hex(flags)
    assert (
        _answer(program, "prlimit64", 0, 7, 0, 1) == _answer(program, "prlimit64", own, 7, 0, 1) == _ALLOWED
    )
    for arguments in ((0, 7, 1), (0, 7, 1 << 32), (1, 7, 0)):
        assert _answer(program, "prlimit64", *arguments) == _DENIED
    assert _answer(program, "sendto", 3, 0, 0, 0, 0) == _ALLOWED
    assert _answer(program, "sendto", 3, 0, 0, 0, 1 << 40) == _DENIED
    assert _answer(program, "ioctl", 0, 0x5401) == _ALLOWED
    assert _answer(program, "ioctl", 0, 0x5412) == _DENIED  # typing into a terminal
    for value in (15, 16, 0x53564D41):
        assert _answer(program, "prctl", value) == _ALLOWED
    assert _answer(program, "prctl", 4) == _DENIED


def test_calls_by_other_numbers_end_the_process() -> None:
    program = seccomp.allow_list()
    assert _answer(program, "read", architecture=0x40000003) == _KILLED
    assert _answer(program, 0x40000000) == _answer(program, 0x40000000 + 41) == _KILLED


def test_the_kernel_takes_the_filter_and_threads_still_start() -> None:
    def attempt() -> list[str]:
        seccomp.install(seccomp.allow_list())
        said: list[str] = []
        thread = threading.Thread(target=lambda: said.append("thread"))
        thread.start()
        thread.join()
        for name, try_it in (("fork", os.fork), ("kill", lambda: os.kill(1, signal.SIGCONT))):
            try:
                try_it()
                said.append(name)
            except PermissionError:
                pass
        return said

    assert outcome(attempt) == ["thread"]
