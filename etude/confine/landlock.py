"""Landlock: the folders that a process may read from or write to, and no others, whoever it runs as.

Source: docs.kernel.org/userspace-api/landlock.html.
"""

import ctypes
import os
from collections.abc import Iterable

from etude.confine import kernel

READ = 1 << 2 | 1 << 3  # files and folders
RUN = READ | 1 << 0
WRITE = 1 << 1  # into what is there
CHANGE = READ | WRITE | 1 << 14 | sum(1 << bit for bit in (4, 5, 7, 8))  # make and remove files and folders
# Rights over files by the version that brought them: the first thirteen, REFER, TRUNCATE, IOCTL_DEV.
_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_OF_FILES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
_NETWORK_VERSION, _NETWORK = 4, 0b11  # bind and connect by TCP
_SCOPE_VERSION, _SCOPE = 6, 0b11  # abstract sockets and signals of processes outside
_VERSION_FLAG, _PATH_BENEATH = 1, 1


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def version() -> int:
    """The version of the interface that the kernel offers; 0 if it has none."""
    if kernel.architecture() is None:
        return 0
    try:
        return kernel.call("landlock_create_ruleset", None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def restrict(allowed: Iterable[tuple[str, int]], most_version: int) -> None:
    """Let this process use the paths of `allowed` alone, each with its rights, from now on and for good.

    A path that is not there allows nothing. most_version: of the interface; what is newer is left alone.
    Raises: OSError if the kernel refuses.
    """
    offered = min(version(), most_version)
    files = sum(rights for since, rights in _RIGHTS.items() if since <= offered)
    network = _NETWORK if offered >= _NETWORK_VERSION else 0
    ruleset = _Ruleset(files, network, _SCOPE if offered >= _SCOPE_VERSION else 0)
    # An older kernel refuses a structure that is longer than its own.
    size = 8 if offered < _NETWORK_VERSION else 16 if offered < _SCOPE_VERSION else 24
    handle = kernel.call("landlock_create_ruleset", ctypes.addressof(ruleset), size, 0)
    try:
        for path, rights in allowed:
            _allow(handle, path, rights & files)
        kernel.call("landlock_restrict_self", handle, 0)
    finally:
        os.close(handle)


def _allow(handle: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _OF_FILES
        rule = _PathBeneath(rights, place)
        kernel.call("landlock_add_rule", handle, _PATH_BENEATH, ctypes.addressof(rule), 0)
    finally:
        os.close(place)
