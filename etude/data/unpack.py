"""The bytes of a data file: a plain file, unpacked if it is packed, and no more of them than its source may
hold.
"""

import bz2
import gzip
import lzma
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from etude import durable
from etude.errors import InputError

PACKED = (".gz", ".bz2", ".xz", ".zst")
# The files of each kind begin with these bytes, whatever they are called.
_MAGIC = {b"\x1f\x8b\x08": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\0": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
_CHUNK_BYTES = 1 << 20
_PACKED_CHUNK_BYTES = 4 << 10  # of Zstandard, at most 128 MiB unpacked
_XZ_MEMORY_BYTES = 256 << 20
# Rows of real data pack to a tenth, generated ones to a fiftieth.
_BOMB_BYTES, _BOMB_RATIO = 16 << 20, 200


@dataclass
class Allowance:
    """The bytes that may still be read of a source, unpacked; `most` of them at first."""

    most: int
    read: int = 0

    def take(self, size: int, path: Path) -> None:
        """Raises: InputError if the source holds more."""
        self.read += size
        if self.read > self.most:
            raise InputError(
                f"{path}: its source holds over {self.most:,} bytes, unpacked; raise max_bytes of the source "
                "if so much is meant"
            )


def content_name(path: Path) -> str:
    """The name of what a file holds, in lower case: `rows.jsonl` of `Rows.jsonl.gz`."""
    name = path.name.lower()
    return next((name.removesuffix(suffix) for suffix in PACKED if name.endswith(suffix)), name)


def read_chunks(path: Path, allowance: Allowance | None = None) -> Iterator[bytes]:
    """The bytes of a file, unpacked, in pieces of at most 1 MiB.

    Raises: InputError if it is no plain file, cannot be read, is damaged or unpacks to far more than its
    size.
    """
    size, suffix = 0, ""
    try:
        with durable.open_plain(path) as raw:
            suffix = packing(raw.peek(16), path)
            for piece in _unpack(raw, suffix):
                size += len(piece)
                if suffix and size > _BOMB_BYTES and size > _BOMB_RATIO * raw.tell():
                    raise InputError(
                        f"{path} unpacks to over {_BOMB_RATIO} times its size; unpack it by hand if you "
                        "trust it"
                    )
                if allowance is not None:
                    allowance.take(len(piece), path)
                yield from (piece[at : at + _CHUNK_BYTES] for at in range(0, len(piece), _CHUNK_BYTES))
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
        raise _not_whole(path, suffix, error) from None
    except OSError as error:
        if suffix == ".bz2" and error.errno is None:
            raise _not_whole(path, suffix, error) from None
        what = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(f"{path} cannot be read: {what}; check its owner, mode and disk") from None


def read_head(path: Path, most_bytes: int) -> tuple[bytes, bool]:
    """The first bytes of a file, unpacked, and whether they are all. Raises: as `read_chunks`."""
    head = b""
    for chunk in read_chunks(path):
        head += chunk
        if len(head) > most_bytes:
            return head[:most_bytes], False
    return head, True


def packing(start: bytes, path: Path) -> str:
    """The suffix of the kind a file is packed in, by its first bytes; empty if it is not.

    Raises: InputError if its name says that it is packed and its bytes do not.
    """
    found = next((suffix for magic, suffix in _MAGIC.items() if start.startswith(magic)), "")
    if not found and start and path.suffix.lower() in PACKED:
        raise _not_whole(path, path.suffix, f"it begins with {start[:4].hex(' ').upper()}")
    return found


def _not_whole(path: Path, suffix: str, error: object) -> InputError:
    return InputError(f"{path} is not a whole {suffix} file ({str(error)[:100]}); pack or copy it again")


def _unpack(raw: IO[bytes], suffix: str) -> Iterator[bytes]:
    if suffix == ".zst":
        return _unpack_zstd(raw)
    if suffix == ".xz":
        return _unpack_xz(raw)
    file: Any = raw
    if suffix == ".gz":
        file = gzip.GzipFile(fileobj=raw)
    elif suffix == ".bz2":
        file = bz2.BZ2File(raw)
    return iter(lambda: file.read(_CHUNK_BYTES), b"")


def _unpack_xz(raw: IO[bytes]) -> Iterator[bytes]:
    # The library's own reader has no limit of memory, which the file itself demands.
    stream, data = None, b""
    while data or (data := raw.read(_CHUNK_BYTES)):
        stream = stream or lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)
        while True:
            yield stream.decompress(data, _CHUNK_BYTES)
            data = b""
            if stream.eof or stream.needs_input:
                break
        if stream.eof:
            data, stream = stream.unused_data.lstrip(b"\0"), None
    if stream is not None:
        raise EOFError("it ends too early")


def _unpack_zstd(raw: IO[bytes]) -> Iterator[bytes]:
    # The library's own reader takes a file that was cut off for a whole one; this object knows where a frame
    # ends.
    import zstandard

    frame = None
    try:
        while data := raw.read(_PACKED_CHUNK_BYTES):
            while data:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                yield frame.decompress(data)
                data, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    except zstandard.ZstdError as error:
        raise EOFError(str(error)) from None
    if frame is not None:
        raise EOFError("it ends too early")
