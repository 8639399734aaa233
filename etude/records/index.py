"""An index beside a journal: what a reader made of all its lines, so that the next need not read them.

It is a cache: it counts only for a journal of the same size, time and last bytes, and may be deleted.
"""

import json
import os
import zlib
from pathlib import Path
from typing import Any

from etude import durable
from etude.errors import InputError, StorageError
from etude.records.shape import fit

NAME = "journal.index"
_FORMAT = 1
_TAIL_BYTES = 1 << 16


def read_index(journal: Path, kind: Any, maker: int) -> Any:
    """The content of the index, as `fit` takes it for a kind; None if it is not of this journal as it is.

    maker  a number of the code that made the content; other code makes its own
    """
    try:
        index = durable.read_json_object(journal.with_name(NAME), follow=False)
        content = index.pop("content", None)
        known = {**_key(journal), "maker": maker, "content_crc": _crc(content)}
        return fit(content, kind) if index == known else None
    except (InputError, OSError, ValueError, RecursionError):
        return None


def write_index(journal: Path, size: int, content: Any, maker: int) -> None:
    """Write the index of the first `size` bytes of a journal, unless it has grown; a failure is no matter."""
    try:
        key = _key(journal)
        if key["size"] == size:
            index = {**key, "maker": maker, "content_crc": _crc(content), "content": content}
            durable.write_json(journal.with_name(NAME), index)
    except (InputError, StorageError, OSError):
        return


def _key(journal: Path) -> dict[str, int]:
    with durable.open_plain(journal, follow=False) as file:
        status = os.fstat(file.fileno())
        file.seek(max(status.st_size - _TAIL_BYTES, 0))
        tail = zlib.crc32(file.read(_TAIL_BYTES))
    return {"format": _FORMAT, "size": status.st_size, "time": status.st_mtime_ns, "tail": tail}


def _crc(content: Any) -> int:
    return zlib.crc32(json.dumps(content).encode())
