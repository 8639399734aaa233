"""An index beside a journal: what a reader made of all its lines, so that the next need not read them.

It is a cache: it counts only for a journal of the same size, time and last bytes, and may be deleted. It has
a seal that this user alone can make, so that the index of a folder that came from elsewhere does not count.
"""

import hmac
import json
import os
import secrets
import zlib
from pathlib import Path
from typing import Any

from etude import durable
from etude.errors import InputError, MissingError, StorageError
from etude.records.shape import fit

NAME = "journal.index"
_FORMAT = 2
_TAIL_BYTES = 1 << 16
_KEY_BYTES = 32


def read_index(journal: Path, kind: Any, maker: int) -> Any:
    """The content of the index, as `fit` takes it for a kind; None if it is not of this journal as it is.

    maker  a number of the code that made the content; other code makes its own
    """
    try:
        index = durable.read_json_object(journal.with_name(NAME), follow=False)
        known = {**_of(journal), "maker": maker, "content": index.get("content")}
        is_ours = hmac.compare_digest(str(index.pop("seal", "")).encode(), _seal(known).encode())
        return fit(known["content"], kind) if is_ours and index == known else None
    except (InputError, StorageError, OSError, ValueError, RecursionError):
        return None


def write_index(journal: Path, size: int, content: Any, maker: int) -> None:
    """Write the index of the first `size` bytes of a journal, unless it has grown; a failure is no matter."""
    try:
        index = {**_of(journal), "maker": maker, "content": content}
        if index["size"] == size:
            durable.write_json(journal.with_name(NAME), {**index, "seal": _seal(index)})
    except (InputError, StorageError, OSError):
        return


def _of(journal: Path) -> dict[str, Any]:
    """The journal that an index is made of."""
    with durable.open_plain(journal, follow=False) as file:
        status = os.fstat(file.fileno())
        file.seek(max(status.st_size - _TAIL_BYTES, 0))
        tail = zlib.crc32(file.read(_TAIL_BYTES))
    return {"format": _FORMAT, "size": status.st_size, "time": status.st_mtime_ns, "tail": tail}


def _seal(index: dict[str, Any]) -> str:
    """HMAC-SHA-256 (hex) of an index by a key among the shared files of this user.

    Raises: InputError, StorageError if there is no such key, and none can be written.
    """
    path = durable.cache_folder("index") / "key"
    try:
        key = durable.read_bytes(path, most_bytes=_KEY_BYTES, follow=False)
    except MissingError:
        key = secrets.token_bytes(_KEY_BYTES)
        durable.make_folder(path.parent)
        durable.write_file(path, key, private=True)
    return hmac.digest(key, json.dumps(index).encode(), "sha256").hex()
