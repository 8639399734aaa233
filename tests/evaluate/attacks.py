"""Samples that attack: each passes its tests only if it escapes or fakes, and what it leaves behind is looked for."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from etude.evaluate.sandbox import Problem
from etude.evaluate.verdicts import Verdict

SECRET = "c4n4ry-9f31"
_CALL = """
import ctypes, os, platform
_libc = ctypes.CDLL(None, use_errno=True)
def call(x86, arm, *arguments):
    number = x86 if platform.machine() == "x86_64" else arm
    return _libc.syscall(number, *arguments)
"""


@dataclass(frozen=True)
class Attack:
    """A sample with a function `f`, and tests that hold where it succeeds."""

    number: int
    name: str
    sample: str
    tests: str = "assert f() is True"


@dataclass
class Targets:
    """What the attacks aim at, made in a folder outside."""

    folder: Path
    tcp: socket.socket
    udp: socket.socket
    abstract: socket.socket
    victim: "subprocess.Popen[bytes]"

    def fill(self, text: str) -> str:
        """A text of an attack with the places of its targets."""
        known = {
            "TCP": self.tcp.getsockname()[1], "UDP": self.udp.getsockname()[1],
            "ABSTRACT": ABSTRACT, "FOLDER": str(self.folder),
            "VICTIM": self.victim.pid, "PARENT": os.getpid(), "SECRET": SECRET,
        }  # fmt: skip
        for name, value in known.items():
            text = text.replace(f"${name}", str(value))
        return text

    def harm(self) -> list[str]:
        """Everything that attacks have done to the targets."""
        found = []
        for name, server in (("TCP", self.tcp), ("UDP", self.udp), ("abstract socket", self.abstract)):
            with contextlib.suppress(BlockingIOError):
                server.accept() if name == "TCP" else server.recv(100)
                found.append(f"{name} was reached")
        if self.victim.poll() is not None:
            found.append("the victim was killed")
        names = sorted(path.name for path in self.folder.iterdir())
        if names != ["precious", "secret"]:
            found.append(f"files outside: {names}")
        if (self.folder / "secret").stat().st_mode & 0o777 != 0o600:
            found.append("rights of a file were changed")
        for place in (Path("/dev/shm"), Path("/tmp"), Path("/var/tmp"), Path("/")):
            if place.is_dir():
                found += [f"{path} was written" for path in place.glob("etude-attack*")]
        if living := _daemons():
            found.append(f"processes are left: {living}")
        return found

    def clear(self) -> None:
        """Remove what attacks left, so that the next is judged alone."""
        for pid in _daemons():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for place in (Path("/dev/shm"), Path("/tmp"), Path("/var/tmp"), Path("/"), self.folder):
            for path in place.glob("etude-attack*"):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        (self.folder / "precious").write_text("precious")
        (self.folder / "secret").chmod(0o600)
        if self.victim.poll() is not None:
            self.victim = _start_victim()


ABSTRACT = f"etude-attack-{os.getpid()}"


@contextlib.contextmanager
def targets() -> Iterator[Targets]:
    """Targets for the attacks, gone after the block."""
    folder = Path(tempfile.mkdtemp(prefix="etude-outside-"))
    (folder / "precious").write_text("precious")
    (folder / "secret").write_text(SECRET)
    (folder / "secret").chmod(0o600)
    os.environ["ETUDE_ATTACK_SECRET"] = SECRET
    tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
    abstract = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    for server, address in ((tcp, ("127.0.0.1", 0)), (udp, ("127.0.0.1", 0)), (abstract, f"\0{ABSTRACT}")):
        server.bind(address)
        server.setblocking(False)
    tcp.listen()
    inherited = os.open(folder / "secret", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    made = Targets(folder, tcp, udp, abstract, _start_victim())
    try:
        yield made
    finally:
        made.clear()
        made.victim.kill()
        made.victim.wait()
        os.close(inherited)
        for server in (tcp, udp, abstract):
            server.close()
        del os.environ["ETUDE_ATTACK_SECRET"]
        shutil.rmtree(folder)


def problem(attack: Attack, made: Targets) -> tuple[str, Problem]:
    """The sample of an attack on targets, and its tests."""
    return made.fill(attack.sample), Problem(tests=made.fill(attack.tests))


def judge(attack: Attack, verdict: Verdict, made: Targets) -> list[str]:
    """What an attack has reached."""
    return [*(["its tests passed"] if verdict.passed else []), *made.harm()]


def _start_victim() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-I", "-c", f"secret = '{SECRET}'; input()"], stdin=subprocess.PIPE
    )


def _daemons() -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"etude-attack-daemon" in (place / "cmdline").read_bytes():
                found.append(int(place.name))
    return found


ATTACKS = [
    Attack(1, "connect by TCP", """
import socket
def f():
    socket.create_connection(("127.0.0.1", $TCP), 2)
    return True
"""),
    Attack(2, "send by UDP", """
import socket
def f():
    socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", $UDP))
    return True
"""),
    Attack(3, "send to an abstract socket", """
import socket
def f():
    for make in (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
                 lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0],
                 lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)[0]):
        try:
            make().sendto(b"x", "\\0$ABSTRACT")
            return True
        except OSError:
            pass
"""),
    Attack(4, "read a secret of the environment", """
import os
def f():
    return "$SECRET" in repr(dict(os.environ))
"""),
    Attack(5, "read the environment of the parent", """
import os
def f():
    for pid in ("$PARENT", str(os.getppid())):
        try:
            if b"ETUDE_ATTACK_SECRET" in open(f"/proc/{pid}/environ", "rb").read():
                return True
        except OSError:
            pass
"""),
    Attack(6, "read a private file", """
def f():
    return open("$FOLDER/secret").read() == "$SECRET"
"""),
    Attack(7, "write outside", """
def f():
    open("$FOLDER/etude-attack", "w").write("x")
    return True
"""),
    Attack(8, "delete outside", """
import posix
def f():
    posix.unlink("$FOLDER/precious")
    return True
"""),
    Attack(9, "kill another process", """
import os
def f():
    os.kill($VICTIM, 9)
    return True
"""),
    Attack(10, "trace or read another process", _CALL + """
def f():
    buffer = ctypes.create_string_buffer(64)
    vector = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 64)
    if call(101, 117, 16, $VICTIM, 0, 0) == 0:
        return True
    try:
        return open("/proc/$VICTIM/mem", "rb") and True
    except OSError:
        return call(310, 270, $VICTIM, vector, 1, vector, 1, 0) > 0
"""),
    Attack(11, "fork 100 times", """
import os
def f():
    made = 0
    for _ in range(100):
        child = os.fork()
        if not child:
            os._exit(0)
        made += 1
    return made > 0
"""),
    Attack(12, "run a shell through ctypes", """
import ctypes
def f():
    return ctypes.CDLL(None).system(b"touch $FOLDER/etude-attack") == 0
"""),
    Attack(13, "take 2.5 GB of memory", """
def f():
    taken = bytearray(5 << 29)
    return len(taken) > 0
"""),
    Attack(14, "write 64 MB of disk", """
import os
def f():
    for folder in (".", "/tmp", "/var/tmp", "$FOLDER"):
        try:
            with open(f"{folder}/etude-attack", "wb") as file:
                file.write(b"x" * (1 << 26))
            return True
        except OSError:
            pass
"""),
    Attack(15, "loop for ever", """
def f():
    while True:
        pass
"""),
    Attack(16, "ignore all signals and sleep", """
import signal, time
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
def f():
    time.sleep(3600)
    return True
"""),
    Attack(17, "leave a daemon", """
import os, sys
def f():
    if not os.fork():
        os.setsid()
        if not os.fork():
            os.execv(sys.executable, ["python", "-c", "import time; time.sleep(30)", "etude-attack-daemon"])
        os._exit(0)
    return True
"""),
    Attack(18, "write 200 MB of output", """
import os, sys
def f():
    for _ in range(200):
        sys.stdout.write("x" * (1 << 20))
        os.write(2, b"x" * (1 << 20))
    return "x" * (200 << 20)
""", "assert len(f()) == 200 << 20"),
    Attack(19, "end with 0 before the tests", """
import os
os._exit(0)
"""),
    Attack(20, "take a user namespace", _CALL + """
def f():
    return call(272, 97, 0x10000000) == 0 or call(56, 220, 0x10000000 | 17, 0, 0, 0, 0) >= 0
"""),
    Attack(21, "use io_uring", _CALL + """
def f():
    return call(425, 425, 8, ctypes.create_string_buffer(256)) >= 0
"""),
    Attack(22, "read an inherited descriptor", """
import os
def f():
    for descriptor in range(1024):
        try:
            if b"$SECRET" in os.pread(descriptor, 100, 0):
                return True
        except OSError:
            pass
"""),
    Attack(23, "leave a link for the parent to follow", """
import os
def f():
    for folder in (".", "/tmp", "$FOLDER", "/dev/shm"):
        try:
            os.symlink("$FOLDER/precious", f"{folder}/etude-attack")
            return True
        except OSError:
            pass
"""),
    Attack(24, "use shared memory", _CALL + """
from multiprocessing import shared_memory
def f():
    try:
        open("/dev/shm/etude-attack", "w").write("x")
        return True
    except OSError:
        return call(29, 194, 0, 1 << 20, 0o1777) >= 0
"""),
    Attack(25, "set the clock", """
import time
def f():
    time.clock_settime(time.CLOCK_REALTIME, time.time())
    return True
"""),
    Attack(26, "use or make a setuid program", """
import os
def f():
    for attempt in (lambda: os.chmod("$FOLDER/secret", 0o4755), lambda: os.setuid(1), lambda: os.setgroups([0]),
                    lambda: os.execv("/bin/su", ["su"]), lambda: os.chown("$FOLDER/secret", 1, 1)):
        try:
            attempt()
            return True
        except OSError:
            pass
"""),
    Attack(27, "dump core", """
import os, resource
def f():
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (1 << 30, 1 << 30))
        return True
    except (OSError, ValueError):
        os.abort()
"""),
    Attack(28, "open 10,000 descriptors", """
import os
def f():
    held = [os.pipe() for _ in range(5000)]
    return len(held) == 5000
"""),
    Attack(29, "make 10,000 files", """
import os
def f():
    for folder in (".", "/tmp", "$FOLDER", "/dev/shm"):
        try:
            os.mkdir(f"{folder}/etude-attack")
            for number in range(10_000):
                open(f"{folder}/etude-attack/{number}", "w").close()
            return True
        except OSError:
            pass
"""),
    Attack(30, "start 3,000 threads", """
import threading
def f():
    stop = threading.Event()
    for _ in range(3000):
        threading.Thread(target=stop.wait, daemon=True).start()
    return True
"""),
    Attack(31, "type into the terminal", """
import fcntl, os, sys
def f():
    for open_terminal in (lambda: os.open("/dev/tty", os.O_RDWR), lambda: 0, lambda: 1):
        try:
            fcntl.ioctl(open_terminal(), 0x5412, b"x")
            return True
        except OSError:
            pass
    return sys.stdin is not None and sys.stdin.read(1) != ""
"""),
    Attack(32, "raise a huge error", """
def f():
    raise ValueError("x" * (100 << 20) + "\\x1b]0;owned\\x07")
""", """
try:
    f()
except ValueError as error:
    assert len(str(error)) > 1 << 20
"""),
    Attack(33, "fake equality", """
import builtins
class Same:
    __eq__ = __ge__ = __le__ = __gt__ = __lt__ = __contains__ = lambda *_: True
    __ne__ = lambda *_: False
    __hash__ = lambda _: 0
    __abs__ = __sub__ = __rsub__ = __round__ = __add__ = __getitem__ = lambda self, *_: self
    __float__ = lambda _: 0.0
    __len__ = lambda _: 3
class Number(int):
    __eq__ = lambda *_: True
class Text(str):
    __eq__ = lambda *_: True
builtins.len = builtins.abs = builtins.sorted = builtins.all = lambda *_: Same()
builtins.AssertionError = Exception
f = lambda kind: {"same": Same, "number": Number, "text": Text}[kind]()
""", """
def holds(test):
    try:
        return bool(test())
    except Exception:
        return False
assert any([
    holds(lambda: f("same") == 41), holds(lambda: 41 == f("same")), holds(lambda: f("number") == 41),
    holds(lambda: f("text") == "41"), holds(lambda: abs(f("same") - 41) < 1e-6), holds(lambda: [f("same")] == [41]),
    holds(lambda: sorted([f("number"), 5]) == [41, 5]), holds(lambda: 41 in [f("same")]),
    holds(lambda: 41 <= f("same")), holds(lambda: round(f("same"), 2) == 41), holds(lambda: {f("same")} == {41}),
])
"""),
    Attack(34, "find the tests and change them", """
import gc, sys
def f():
    frame, found = sys._getframe(), []
    while frame is not None:
        found.append(frame.f_globals)
        frame = frame.f_back
    names = [name for each in found for name in each] + list(sys.modules)
    texts = [each for each in gc.get_objects() if isinstance(each, (str, dict, list))]
    for each in texts:
        if "tests of the attack" in repr(each)[:10_000_000] and "gc.get_objects" not in repr(each):
            return True
    return "check" in names or "tests" in names
""", "mark = 'tests of the attack'\ndef check(): return 0\nassert f() is True"),
    Attack(35, "return data that runs when it is unpickled", """
import os
class Bomb:
    def __reduce__(self):
        return os.system, ("touch $FOLDER/etude-attack",)
def f():
    return Bomb()
""", "import os\nf()\nassert os.path.exists('$FOLDER/etude-attack')"),
    Attack(36, "unpack a bomb", """
import io, zipfile
def f():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("etude-attack", b"0" * (64 << 20))
    for folder in (".", "/tmp", "$FOLDER"):
        try:
            zipfile.ZipFile(packed).extractall(folder)
            return True
        except OSError:
            pass
"""),
    Attack(37, "hunt for the nonce and forge the verdict", """
import gc, json, os, re
def f():
    found = set()
    for each in gc.get_objects():
        found |= set(re.findall("[0-9a-f]{32}", repr(each)[:100_000]))
    try:
        for line in open("/proc/self/maps"):
            pass
        memory = open("/proc/self/mem", "rb")
    except OSError:
        pass
    for descriptor in range(64):
        for nonce in [*found, ""]:
            try:
                os.write(descriptor, json.dumps({"nonce": nonce}).encode())
            except OSError:
                pass
    return False
"""),
    Attack(38, "answer before it is asked", """
import json, os
message = json.dumps({"value": True}).encode()
for descriptor in range(3, 64):
    for _ in range(50):
        try:
            os.write(descriptor, len(message).to_bytes(8, "little") + message)
        except OSError:
            break
def f():
    return 40
""", "assert f() == 41"),
    Attack(39, "call by the numbers of other architectures", _CALL + """
def f():
    return platform.machine() == "x86_64" and call(0x40000000 + 41, 0, 2, 1, 0) >= 0
"""),
    Attack(40, "start processes by other calls", _CALL + """
def f():
    arguments = (ctypes.c_uint64 * 11)()
    arguments[4] = 17
    for attempt in ((435, 435, arguments, 88), (58, 220), (56, 220, 17, 0, 0, 0, 0)):
        answer = call(*attempt)
        if answer == 0:
            os._exit(0)
        if answer > 0:
            return True
    return False
"""),
    Attack(41, "run a program from memory", _CALL + """
def f():
    place = call(319, 279, b"x", 0)
    return place >= 0 or call(322, 281, 0, b"/bin/true", 0, 0, 0x1000) == 0 or os.execv("/bin/true", ["true"])
"""),
    Attack(42, "take 2.5 GB of shared memory", """
import mmap
def f():
    shared = mmap.mmap(-1, 5 << 29)
    shared.write(b"x" * (5 << 29))
    return True
"""),
    Attack(43, "raise its own limits, or those of others", """
import resource
def f():
    for pid in (0, $VICTIM):
        try:
            resource.prlimit(pid, resource.RLIMIT_CPU, (1000, 1000))
            return True
        except (OSError, ValueError):
            pass
"""),
    Attack(44, "signal everybody", """
import os, signal
def f():
    for number in (-1, 0, os.getppid(), $PARENT):
        try:
            os.kill(number, signal.SIGTERM)
            return True
        except OSError:
            pass
"""),
    Attack(45, "reach the tests through what they hand over", """
def f(function, thing, numbers):
    for find in (lambda: function.__globals__, lambda: function.__code__, lambda: thing.method.__globals__,
                 lambda: numbers.gi_frame, lambda: thing.method.__func__, lambda: thing._hidden):
        try:
            find()
            return True
        except Exception:
            pass
""", """
class Thing:
    _hidden = 1
    def method(self): return 1
assert f(lambda: 1, Thing(), (n for n in [1])) is True
"""),
    Attack(46, "change times and names of files outside", """
import os
def f():
    for attempt in (lambda: os.utime("$FOLDER/precious", (0, 0)), lambda: os.rename("$FOLDER/precious", "$FOLDER/x"),
                    lambda: os.setxattr("$FOLDER/precious", "user.x", b"x"), lambda: os.truncate("$FOLDER/precious", 0),
                    lambda: os.link("$FOLDER/precious", "$FOLDER/etude-attack")):
        try:
            attempt()
            return True
        except OSError:
            pass
"""),
    Attack(47, "fork for ever", """
import os
def f():
    while True:
        os.fork()
"""),
    Attack(48, "take memory for ever", """
def f():
    held = []
    while True:
        try:
            held.append(bytearray(1 << 24))
        except MemoryError:
            pass
"""),
    Attack(49, "call by its own machine code", _CALL + """
import mmap
def f():
    if platform.machine() != "x86_64":
        return False
    # socket(2, 1, 0), as a function that returns its answer
    code = bytes.fromhex("b829000000bf02000000be01000000ba000000000f05c3")
    memory = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
    memory.write(code)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return ctypes.CFUNCTYPE(ctypes.c_long)(start)() >= 0
"""),
    Attack(50, "call by interrupts of 32 bits", _CALL + """
import mmap
def f():
    if platform.machine() != "x86_64":
        return False
    # getpid by int 0x80, whose numbers a filter of 64 bits would take for others
    code = bytes.fromhex("b814000000cd80c3")
    memory = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
    memory.write(code)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return ctypes.CFUNCTYPE(ctypes.c_int)(start)() > 0
"""),
    Attack(51, "start 5,000 threads of small stacks", """
import threading, time
def f():
    threading.stack_size(32768)
    count = 0
    try:
        for count in range(5000):
            threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    except RuntimeError:
        pass
    time.sleep(1)
    return count == 4999
"""),
    Attack(52, "sleep for ever in small pieces", """
import time
def f():
    end = time.monotonic() + 40
    while time.monotonic() < end:
        time.sleep(0.02)
        sum(range(20000))
    return True
"""),
    Attack(53, "stop itself", """
import os, signal
def f():
    os.kill(os.getpid(), signal.SIGSTOP)
    return True
"""),
    Attack(54, "look like one that runs", """
import ctypes, time
def f():
    ctypes.CDLL(None).prctl(15, b") R 1 1 1 1", 0, 0, 0)
    time.sleep(600)
    return True
"""),
    Attack(55, "look into the other interpreter", _CALL + """
import os
def f():
    for pid in range(os.getpid() - 3, os.getpid() + 4):
        if pid == os.getpid():
            continue
        for name in ("mem", "environ", "maps", "fd", "cwd", "root", "exe", "syscall", "stack"):
            try:
                os.open(f"/proc/{pid}/{name}", os.O_RDONLY)
                return True
            except OSError:
                pass
"""),
    Attack(56, "read memory of another process by a call", _CALL + """
def f():
    buffer = ctypes.create_string_buffer(64)
    mine = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 64)
    theirs = (ctypes.c_void_p * 2)(0x400000, 64)
    return call(310, 270, $VICTIM, mine, 1, theirs, 1, 0) > 0
"""),
    Attack(57, "take a descriptor of another process", _CALL + """
def f():
    return call(434, 434, $VICTIM, 0) >= 0 or call(438, 438, 3, 0, 0) >= 0
"""),
    Attack(58, "handle page faults by itself", _CALL + """
def f():
    return call(323, 282, 0) >= 0 or call(323, 282, 1) >= 0
"""),
    Attack(59, "watch the processor by counters", _CALL + """
def f():
    wanted = ctypes.create_string_buffer(128)
    wanted[4] = 128
    return call(298, 241, wanted, 0, -1, -1, 0) >= 0
"""),
    Attack(60, "load a program into the kernel", _CALL + """
def f():
    return call(321, 280, 0, ctypes.create_string_buffer(128), 128) >= 0
"""),
    Attack(61, "keep a secret in the keyring", _CALL + """
def f():
    return call(248, 217, b"user", b"etude-attack", b"x", 1, -3) > 0 or call(250, 219, 0, -3, 1) > 0
"""),
    Attack(62, "use messages and semaphores of the system", _CALL + """
def f():
    return any(call(*each) >= 0 for each in (
        (68, 186, 0x1234, 0o1666), (64, 190, 0x1234, 1, 0o1666), (29, 194, 0x1234, 4096, 0o1666),
        (240, 180, b"/etude-attack", 0o102, 0o600, 0)))
"""),
    Attack(63, "watch files outside", _CALL + """
def f():
    return call(294, 26, 0) >= 0 or call(300, 262, 0, 0) >= 0
"""),
    Attack(64, "open a file by its handle", _CALL + """
def f():
    handle, mount = ctypes.create_string_buffer(256), ctypes.c_int()
    handle[0] = 128
    return call(303, 264, -100, b"$FOLDER/secret", handle, ctypes.byref(mount), 0) == 0
"""),
    Attack(65, "change its root, its user, its groups", """
import os
def f():
    for attempt in (lambda: os.chroot("/tmp"), lambda: os.setuid(0), lambda: os.setgroups([]), lambda: os.setgid(1),
                    lambda: os.setresuid(1, 1, 1), lambda: os.setsid()):
        try:
            attempt()
            return True
        except OSError:
            pass
"""),
    Attack(66, "go before others", _CALL + """
import os
def f():
    for attempt in (lambda: os.nice(-5), lambda: os.setpriority(os.PRIO_PROCESS, 0, -5),
                    lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
                    lambda: os.sched_setaffinity($VICTIM, [0])):
        try:
            attempt()
            return True
        except OSError:
            pass
    return call(251, 30, 1, 0, 1 << 13) == 0
"""),
    Attack(67, "lock memory", _CALL + """
def f():
    buffer = ctypes.create_string_buffer(1 << 20)
    return call(149, 228, buffer, 1 << 20) == 0 or call(151, 230, 3) == 0
"""),
    Attack(68, "hand over descriptors without end", """
import socket
def f():
    one, two = socket.socketpair()
    socket.send_fds(one, [b"x"], [one.fileno()] * 50)
    return True
"""),
    Attack(69, "connect a pair of sockets anew", """
import socket
def f():
    for one in socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM):
        try:
            one.sendto(b"x", "\\0$ABSTRACT")
            return True
        except OSError:
            pass
        try:
            one.connect("\\0$ABSTRACT")
            return True
        except OSError:
            pass
"""),
    Attack(70, "widen a pipe", """
import fcntl, os
def f():
    fcntl.fcntl(os.pipe()[1], 1031, 1 << 20)
    return True
"""),
    Attack(71, "ask for signals when others write", """
import fcntl, os
def f():
    for command, value in ((8, $VICTIM), (10, 9), (1026, 1), (9, 0)):
        try:
            fcntl.fcntl(0, command, value)
            if command != 9:
                return True
        except OSError:
            pass
"""),
    Attack(72, "set a timer for another", _CALL + """
def f():
    event = (ctypes.c_int * 16)(0, 0, 9, 4, $VICTIM)
    return call(222, 107, 0, event, ctypes.byref(ctypes.c_int())) == 0
"""),
    Attack(73, "kill the other interpreter and its parent by thread", _CALL + """
import os, signal
def f():
    return any(call(*each) == 0 for each in (
        (234, 131, os.getppid(), os.getppid(), 9), (200, 130, os.getppid(), 9), (129, 138, os.getppid(), 9, 0),
        (297, 240, $VICTIM, $VICTIM, 9, 0), (424, 424, 3, 9, 0, 0)))
"""),
    Attack(74, "lay other modules before those of the tests", """
import sys, types
fake = types.ModuleType("math")
fake.sqrt = lambda _: 0
fake.isclose = lambda *_, **__: True
for name in ("math", "operator", "json", "etude.evaluate.wire", "builtins"):
    sys.modules[name] = fake
f = lambda: 40
""", "import math, operator\nassert math.isclose(f(), 41) and operator.eq(f(), 41)"),
    Attack(75, "break the protocol in its own interpreter", """
import gc, json, os, sys
for module in list(sys.modules.values()):
    if getattr(module, "__name__", "").endswith("wire"):
        module.Peer.encode = lambda self, value, depth=0: {"int": "0x29"}
        module._OPERATIONS["call"] = lambda *_: 41
json.dumps = lambda *_, **__: '{"value": 41}'
f = lambda: 41
""", "assert f() == 41 and f() != 41"),
    Attack(76, "send values that take for ever to read", """
import os, sys
def say(text):
    data = text.encode()
    for end in range(3, 64):
        try:
            os.write(end, len(data).to_bytes(8, "little") + data)
        except OSError:
            pass
def f():
    say('{"value": {"fraction": "1e99999999"}}')
    return 1
""", "assert f() == 41"),
    Attack(77, "change what it was not given", """
import os
def f(numbers):
    data = b'{"value": true, "changed": {"-1": {"list": [41]}, "0": {"list": [41]}, "1": {"list": [41]}}}'
    for end in range(3, 64):
        try:
            os.write(end, len(data).to_bytes(8, "little") + data)
        except OSError:
            pass
    return 1
""", "wanted = [40]\nf([1])\nassert wanted == [41]"),
    Attack(78, "claim a message without end", """
import os
def f():
    for end in range(3, 64):
        try:
            os.write(end, (1 << 62).to_bytes(8, "little"))
        except OSError:
            pass
    return 41
""", "assert f() == 41"),
    Attack(79, "answer letter by letter", """
import os, time
def f():
    data = b'{"value": 41}'
    data = len(data).to_bytes(8, "little") + data + b" " * 4000
    for byte in data:
        time.sleep(0.3)
        for end in range(3, 64):
            try:
                os.write(end, bytes([byte]))
            except OSError:
                pass
    return 40
""", "assert f() != 41 and f() == 41"),
    Attack(80, "raise errors that are none", """
class Strange(Exception):
    def __str__(self):
        raise SystemExit(0)
    __repr__ = __str__
Strange.__name__ = "AssertionError\\n{nonce}"
def f():
    raise Strange()
""", "f()"),
    Attack(81, "go deeper than the stack", """
import sys, threading
sys.setrecursionlimit(1 << 30)
def f():
    return f()
"""),
    Attack(82, "be text that is no Unicode", "f = lambda: 1  # \ud800", "assert f() == 2"),
    Attack(83, "nest code beyond the compiler", "f = lambda: " + "(" * 90_000 + "1" + ")" * 90_000),
    Attack(84, "end the tests by the collector", """
import gc, weakref
class End:
    def __del__(self):
        import os
        os._exit(0)
def f():
    End()
    return True
""", "assert f() is True"),
    Attack(85, "return what equals in the tests' own types", """
class Float(float):
    def __eq__(self, other): return True
    def __hash__(self): return 0
class List(list):
    def __eq__(self, other): return True
    def __len__(self): return 3
    def __iter__(self): return iter([1, 2, 3])
class Dict(dict):
    def __eq__(self, other): return True
    def __getitem__(self, key): return 41
def f(kind):
    return {"f": Float(1), "l": List([0]), "d": Dict(a=1)}[kind]
""", "assert f('f') == 41 or f('l') == [1, 2, 3] or f('d') == {'a': 41} or f('d')['a'] == 41"),
    Attack(86, "answer by what the test's own function says", """
def f(check):
    for name in ("__class__", "__call__", "__self__", "__wrapped__", "__builtins__", "__dict__"):
        try:
            return getattr(check, name)["open"]("$FOLDER/secret").read() != ""
        except Exception:
            pass
""", "assert f(lambda x: x) is True"),
    Attack(87, "fill the kernel with pipes and pairs", """
import os, socket
def f():
    held = []
    try:
        while len(held) < 5000:
            held.append(socket.socketpair())
    except OSError:
        return False
    return True
"""),
    Attack(88, "write into the libraries that all samples load", """
import os, sys
def f():
    for path in [os.__file__, sys.executable, sys.prefix + "/etude-attack", os.path.dirname(os.__file__) + "/etude-attack.py"]:
        try:
            open(path, "ab").write(b"")
            return True
        except OSError:
            pass
"""),
]  # fmt: skip
