"""The bound of the cache of columns: what nobody looked at for long goes, then what was looked at first."""

import contextlib
import os
import re
import stat
import time
from pathlib import Path

from etude import durable
from etude.errors import EtudeError

MOST_BYTES = 10 << 30
MOST_SECONDS = 30 * 86400.0  # that columns stay unused
_NAME = re.compile(r"([0-9]+)-[0-9a-f]{32}")


def mark_used(folder: Path) -> None:
    """Note on the folder of columns that it is in use; a failure is no matter."""
    with contextlib.suppress(OSError):
        os.utime(folder, follow_symlinks=False)


def clean_columns(most_bytes: int = MOST_BYTES, most_seconds: float = MOST_SECONDS) -> int:
    """Remove columns of this user that are unused for long, and the longest unused beyond a size; the bytes.

    Columns that are asked for again are made again from the journal of their run.
    """
    removed, oldest = 0, time.time() - most_seconds
    with contextlib.suppress(EtudeError, OSError):
        found = sorted(filter(None, map(_measure, durable.cache_folder("columns").iterdir())))
        total = sum(size for _, size, _ in found)
        for used, size, path in found:
            if used >= oldest and total - removed <= most_bytes:
                break
            durable.remove_folder(path, first="head.json")  # without which the rest counts for nothing
            removed += size
    return removed


def _measure(folder: Path) -> tuple[float, int, Path] | None:
    """The last use of columns (Unix time), their bytes and folder; None for what is not of this user."""
    status, name = folder.lstat(), _NAME.fullmatch(folder.name)
    is_ours = name is not None and int(name[1]) == os.geteuid() == status.st_uid
    if not is_ours or not stat.S_ISDIR(status.st_mode):
        return None
    return status.st_mtime, sum(path.lstat().st_size for path in folder.iterdir()), folder
