"""The bytes of a data file, which is a plain one: unpacked, and no more of them than its source may hold."""

import bz2
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from etude import durable
from etude.errors import InputError

PACKED = (".gz", ".bz2", ".xz", ".zst")
# The files of each kind begin with these bytes, whatever they are called.
_MAGIC = {b"\x1f\x8b\x08": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\0": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
_SKIPPABLE = b"\x2a\x4d\x18"  # behind 50 to 5F; a frame of Zstandard that holds no content
_CHUNK_BYTES = 1 << 20
_PACKED_CHUNK_BYTES = 4 << 10  # at most 128 MiB unpacked, of Zstandard
_XZ_MEMORY_BYTES = 256 << 20
# Rows of real data pack to a tenth, generated ones to a fiftieth.
_BOMB_BYTES, _BOMB_RATIO = 16 << 20, 200
# A member without content takes 9 to 32 bytes, and a microsecond or more to read.
_EMPTY_BYTES, _EMPTY_RATIO = 1 << 20, 20


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
    """Read the bytes of a file, unpacked, in pieces of at most 1 MiB.

    Raises: InputError if it is no plain file, is damaged, or unpacks to far more than its size.
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
                if suffix and raw.tell() > max(_EMPTY_BYTES, _EMPTY_RATIO * size):
                    raise InputError(
                        f"{path} holds {size:,} bytes in its first {raw.tell():,}: most of it is empty or to "
                        "be skipped; unpack it by hand if you trust it, and pack that again"
                    )
                if allowance is not None:
                    allowance.take(len(piece), path)
                yield from (piece[at : at + _CHUNK_BYTES] for at in range(0, len(piece), _CHUNK_BYTES))
    except EOFError as error:
        raise _not_whole(path, suffix, error) from None
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path | str, error: OSError | ValueError) -> InputError:
    """The error for a file or folder that the system does not let be read."""
    what = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    shown = str(path).replace("\0", "\\0")[:400]
    return InputError(f"{shown} cannot be read: {what}; check its name, owner, mode and disk")


def read_head(path: Path, most_bytes: int) -> tuple[bytes, bool]:
    """Read the first bytes of a file, unpacked; True if they are all. Raises: as `read_chunks`."""
    head = b""
    for chunk in read_chunks(path):
        head += chunk
        if len(head) > most_bytes:
            return head[:most_bytes], False
    return head, True


def packing(start: bytes, path: Path) -> str:
    """Find the suffix of the kind that a file is packed in, by its first bytes; empty if it is not.

    Raises: InputError if its name says that it is packed and its bytes do not.
    """
    suffix = next((suffix for magic, suffix in _MAGIC.items() if start.startswith(magic)), "")
    if start[1:4] == _SKIPPABLE and start[0] >> 4 == 5:
        suffix = ".zst"
    if not suffix and start and path.suffix.lower() in PACKED:
        raise _not_whole(path, path.suffix, f"it begins with {start[:4].hex(' ').upper()}")
    return suffix


def _not_whole(path: Path, suffix: str, error: object) -> InputError:
    return InputError(f"{path} is not a whole {suffix} file ({str(error)[:100]}); pack or copy it again")


def _unpack(raw: IO[bytes], suffix: str) -> Iterator[bytes]:
    if not suffix:
        yield from iter(lambda: raw.read(_CHUNK_BYTES), b"")
        return
    start, damage = _reader(suffix)
    # Pieces of an .xz or .bz2 are limited, as a few KB of them unpack to GB.
    limit = [_CHUNK_BYTES] if suffix in (".xz", ".bz2") else []
    member = None
    for packed in iter(lambda: raw.read(_PACKED_CHUNK_BYTES), b""):
        data = packed
        while data := data if member else data.lstrip(b"\0"):  # members may be padded
            member, given = member or start(), data
            while True:
                try:
                    piece = member.decompress(given, *limit)
                except damage as error:
                    raise EOFError(str(error)) from None
                yield piece
                given = b""
                if member.eof or getattr(member, "needs_input", True):
                    break
            data, member = (member.unused_data, None) if member.eof else (b"", member)
    if member is not None:
        raise EOFError("it ends too early")


def _reader(suffix: str) -> tuple[Callable[[], Any], type[Exception]]:
    """The maker of a reader of one member of a packed file, and the error that this raises.

    The libraries' readers of whole files read on without a word where every member is empty, take a .zst that
    was cut off for a whole one, and have no limit of the memory that an .xz demands.
    """
    if suffix == ".zst":
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError
    return {
        ".gz": (lambda: zlib.decompressobj(wbits=31), zlib.error),
        ".bz2": (bz2.BZ2Decompressor, OSError),
        ".xz": (lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES), lzma.LZMAError),
    }[suffix]
