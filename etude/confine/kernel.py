"""Calls of the Linux kernel that no library of ours makes, through ctypes, and their numbers."""

import ctypes
import os
import platform
import sys

# The number that seccomp and audit give an architecture, and the place of its numbers below.
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
# Name, number on x86-64 and on aarch64, - for none. Source: asm/unistd_64.h, asm-generic/unistd.h.
_TABLE = """
read 0 63; write 1 64; readv 19 65; writev 20 66; pread64 17 67; pwrite64 18 68; preadv 295 69;
close 3 57; close_range 436 436; fstat 5 80; newfstatat 262 79; stat 4 -; lstat 6 -; statx 332 291;
lseek 8 62; mmap 9 222; mprotect 10 226; munmap 11 215; brk 12 214; mremap 25 216; madvise 28 233;
msync 26 227; rt_sigaction 13 134; rt_sigprocmask 14 135; rt_sigreturn 15 139; rt_sigpending 127 136;
rt_sigsuspend 130 133; rt_sigtimedwait 128 137; sigaltstack 131 132; pause 34 -; access 21 -;
faccessat 269 48; faccessat2 439 439; open 2 -; openat 257 56; getdents64 217 61; readlink 89 -;
readlinkat 267 78; getcwd 79 17; chdir 80 49; pipe 22 -; pipe2 293 59; dup 32 23; dup2 33 -; dup3 292 24;
getpid 39 172; getppid 110 173; gettid 186 178; getuid 102 174; geteuid 107 175; getgid 104 176;
getegid 108 177; getgroups 115 158; getpgrp 111 -; getpgid 121 155; getsid 124 156; getresuid 118 148;
getresgid 120 150; umask 95 166; getpriority 140 141; nanosleep 35 101; clock_nanosleep 230 115;
clock_gettime 228 113; clock_getres 229 114; gettimeofday 96 169; time 201 -; times 100 153;
getrusage 98 165; sysinfo 99 179; uname 63 160; getrlimit 97 163; prlimit64 302 261; futex 202 98;
futex_waitv 449 449; set_robust_list 273 99; get_robust_list 274 100; set_tid_address 218 96;
rseq 334 293; membarrier 324 283; sched_yield 24 124; sched_getaffinity 204 123; sched_getparam 143 121;
sched_getscheduler 145 120; sched_get_priority_max 146 125; sched_get_priority_min 147 126; poll 7 -;
ppoll 271 73; select 23 -; pselect6 270 72; epoll_create 213 -; epoll_create1 291 20; epoll_ctl 233 21;
epoll_wait 232 -; epoll_pwait 281 22; eventfd2 290 19; socketpair 53 199; sendto 44 206; recvfrom 45 207;
getrandom 318 278; alarm 37 -; setitimer 38 103; getitimer 36 102; exit 60 93; exit_group 231 94;
restart_syscall 219 128; getcpu 309 168; arch_prctl 158 -; ioctl 16 29; fcntl 72 25; prctl 157 167;
clone 56 220; clone3 435 435; tgkill 234 131; kill 62 129; execve 59 221; unshare 272 97; mount 165 40;
setns 308 268; pidfd_getfd 438 438; ptrace 101 117; keyctl 250 219; bpf 321 280; seccomp 317 277;
capset 126 91; landlock_create_ruleset 444 444; landlock_add_rule 445 445; landlock_restrict_self 446 446;
fork 57 -; vfork 58 -; wait4 61 260; waitid 247 95;
fsync 74 82; fdatasync 75 83; ftruncate 77 46; fallocate 285 47; rename 82 -; renameat 264 38;
renameat2 316 276; unlink 87 -; unlinkat 263 35; mkdir 83 -; mkdirat 258 34; rmdir 84 -
"""
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38
_CAPABILITY_VERSION = 0x20080522
_SIGKILL = 9


def architecture() -> int | None:
    """The kernel's number of this processor's architecture; None where no sandbox is known for it."""
    known = sys.platform == "linux" and sys.maxsize > 1 << 32
    return _ARCHITECTURES.get(platform.machine(), (None, 0))[0] if known else None


def number(name: str) -> int | None:
    """The number of a system call on this machine; None if it has no such call."""
    return _NUMBERS[name]


def call(name: str, *arguments: object) -> int:
    """Make a system call. Raises: OSError as the kernel says."""
    found = number(name)
    assert found is not None, name
    return _check(_libc.syscall(ctypes.c_long(found), *map(_as_long, arguments)), name)


def unshare(flags: int) -> None:
    """Leave the namespaces of flags for new ones. Raises: OSError where this is not allowed."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def forbid_new_privileges() -> None:
    """Let nothing that this process starts have more rights than it, as the kernel asks before a filter."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def end_with_parent() -> None:
    """Let the kernel kill this process once the thread that started it has ended."""
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)


def adopt_orphans() -> None:
    """Make this process the parent of all that its children leave behind."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def forbid_dumps() -> None:
    """Leave no core dump, and let no process of this user look into this one."""
    _prctl(_PR_SET_DUMPABLE, 0)


def drop_capabilities() -> None:
    """Give up all rights of root, but that its files are its own."""
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            break  # the kernel knows no more of them, or there is none to give up
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    call("capset", ctypes.addressof(header), ctypes.addressof(nothing))


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), "prctl")


def _as_long(value: object) -> object:
    return ctypes.c_long(value) if isinstance(value, int) else value


def _check(answer: int, name: str) -> int:
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return answer


def _read_table() -> dict[str, int | None]:
    place = _ARCHITECTURES.get(platform.machine(), (None, 0))[1]
    rows = (row.split() for row in _TABLE.replace("\n", " ").split(";"))
    return {name: int(numbers[place]) if numbers[place] != "-" else None for name, *numbers in rows}


_libc = ctypes.CDLL(None, use_errno=True)
_NUMBERS = _read_table()
