"""Programs of other languages than Python in the bare process: written, compiled and run, each step confined.

A compiler may start processes and write to the folder of the program; the program may read that folder, write
nowhere, and start nothing but where its language cannot do without. Every process is of a `Family`.
"""

import contextlib
import os
import select
import signal
import socket
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from etude.confine import kernel, seccomp
from etude.confine.family import Family, State
from etude.confine.room import Room, Tier, enter

_COMPILE_CPU_SECONDS = 30
_COMPILE_MEMORY = 1 << 30
_COMPILED_BYTES = 64 << 20
_MOST_THREADS = 256
_MOST_OUTPUT = 64 << 20
_KEPT = 1 << 16  # of the end of what is printed
_LOOK_SECONDS = 0.1
_MOST_IDLE = 6  # as of samples in Python


@dataclass(frozen=True)
class Ran:
    """The end of a command.

    status  its exit status, a signal as a negative number
    over    the limit that it went over, "" for none
    output  the end of what it printed, errors among it
    """

    status: int
    over: str
    output: str
    cpu_seconds: float
    peak_bytes: int


def run_program(order: dict[str, Any], tier: Tier) -> dict[str, Any]:
    """Compile and run a program in its folder: `compile`, if a command failed, or `run`; or `unable`."""
    try:
        return _compile_and_run(order, tier)
    except OSError as error:
        return {"unable": str(error)}


def _compile_and_run(order: dict[str, Any], tier: Tier) -> dict[str, Any]:
    build, folder, asleep = order["build"], order["folder"], order["asleep_seconds"]
    for name, text in build["files"].items():
        with open(
            f"{folder}/{os.path.basename(name)}", "w", encoding="utf-8", errors="surrogatepass"
        ) as file:
            file.write(text)
    room = Room(
        _COMPILE_CPU_SECONDS, _COMPILE_MEMORY, limits_space=False, file_bytes=_COMPILED_BYTES,
        readable=(*build["readable"], folder), runnable=(*build["runnable"], folder), writable=(folder,),
        may_fork=True,
    )  # fmt: skip
    environment = {**build["settings"], "PATH": build["path"], "HOME": folder, "TMPDIR": folder}
    for command in build["compile"]:
        ran = _run(command, folder, environment, room, tier, asleep_seconds=asleep)
        if ran.status or ran.over:
            return {"compile": asdict(ran)}
    with contextlib.suppress(OSError):  # a linker may change no rights
        os.chmod(f"{folder}/program", 0o500)
    room = replace(room, **order["room"], file_bytes=0, writable=(), may_fork=build["starts"])
    ran = _run(build["run"], folder, environment, room, tier, asleep_seconds=asleep, given=build["nonce"])
    return {"run": asdict(ran)}


def _run(
    command: list[str], folder: str, environment: dict[str, str], room: Room, tier: Tier, *,
    asleep_seconds: float, given: str = "",
) -> Ran:  # fmt: skip
    """Run one command to its end or to a limit, and end all that it started. given: its standard input."""
    read_given, write_given = os.pipe()
    os.write(write_given, given.encode())
    os.close(write_given)
    printed, prints = os.pipe()
    ours, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        try:
            for number, descriptor in enumerate((read_given, prints, prints)):
                os.dup2(descriptor, number)
            os.dup2(theirs.fileno(), 3, inheritable=False)
            os.closerange(4, 1 << 20)
            os.chdir(folder)
            _confine(room, tier)
            os.execve(command[0], command, environment)
        except OSError as error:
            os.write(3, f"{command[0]}: {error}".encode())
        finally:
            os._exit(127)
    for end in (read_given, prints):
        os.close(end)
    theirs.close()
    family = Family()
    try:
        with ours:
            family.listener = _take_listener(ours)
        return _watch(child, family, printed, room, asleep_seconds)
    finally:
        family.end()
        os.close(printed)


def _confine(room: Room, tier: Tier) -> None:
    """Confine this process, and hand the listener of its forks to the other end of descriptor 3."""
    if kernel.architecture() is not None:
        kernel.end_with_parent()
    if room.may_fork and tier.seccomp:
        with socket.socket(fileno=os.dup(3)) as channel:
            listener = seccomp.ask_before_fork()
            socket.send_fds(channel, [b"."], [listener])
            os.close(listener)
    enter(room, tier)


def _take_listener(channel: socket.socket) -> int | None:
    """The descriptor of the kernel's questions; the channel closes as the command begins.

    Raises: OSError if the process could not be confined, or the command not begun.
    """
    listener, words = None, b""
    while True:
        part, files, _, _ = socket.recv_fds(channel, 1024, 1)
        listener = files[0] if files else listener
        words += part.lstrip(b".")
        if not part:
            break
    if words:
        if listener is not None:
            os.close(listener)
        raise OSError(words.decode("utf-8", "replace"))
    return listener


def _watch(child: int, family: Family, printed: int, room: Room, asleep_seconds: float) -> Ran:
    """Wait for the end of a process, and keep what it prints."""
    handle = os.pidfd_open(child)
    output, size, is_open, over, before = b"", 0, True, "", -1.0
    asleep, idle, last, look = 0.0, 0.0, time.monotonic(), time.monotonic() + _LOOK_SECONDS
    try:
        while not over:
            sources = [each for each in (handle, family.listener, printed) if each is not None]
            ready = select.select(sources[: 3 if is_open else -1], [], [], max(look - time.monotonic(), 0))[0]
            if family.listener in ready:
                family.answer()
            if printed in ready:
                part = os.read(printed, _KEPT)
                output, size, is_open = (output + part)[-_KEPT:], size + len(part), bool(part)
            elif handle in ready:
                break
            if family.is_over:
                over = "processes"
            if size > _MOST_OUTPUT:
                over = "output"
            now = time.monotonic()
            if over or now < look:
                continue
            found = family.state()
            over = _limit(found, room)
            is_asleep = not found.is_running and before == found.seconds
            asleep = asleep + now - last if is_asleep else 0.0
            idle += now - last if is_asleep else 0.0
            if asleep >= asleep_seconds or idle >= _MOST_IDLE * asleep_seconds:
                over = "asleep"
            last, before, look = now, found.seconds, now + _LOOK_SECONDS
    finally:
        os.close(handle)
    if over:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return Ran(
        os.waitstatus_to_exitcode(status), over, output.decode("utf-8", "replace"),
        usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024,
    )  # fmt: skip


def _limit(found: State, room: Room) -> str:
    """The limit that a family goes over, of those that the kernel holds for each process alone."""
    if room.cpu_seconds is not None and found.seconds > room.cpu_seconds:
        return "cpu"
    if found.bytes > room.memory_bytes:
        return "memory"
    return "threads" if found.threads > _MOST_THREADS else ""
