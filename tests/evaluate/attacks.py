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

from etude.evaluate.sandbox import Problem, Verdict

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
        for place in (Path("/dev/shm"), Path("/tmp"), Path("/")):
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
        for place in (Path("/dev/shm"), Path("/tmp"), Path("/"), self.folder):
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
]  # fmt: skip
