"""The bytes of a log through the safe door: plain files of a limited size, unpacked and decoded."""

import codecs
import io
import zlib
from pathlib import Path
from typing import IO

from etude import durable
from etude.errors import InputError

MOST_BYTES = 64 << 20  # of text, unpacked
_GZIP = b"\x1f\x8b"
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_LOOKED_AT_BYTES = 4096
_OTHERS = {
    b"PK\x03\x04": "a zip archive, as weights of torch are",
    b"\x80": "a pickle, which is never opened",
    b"\x93NUMPY": "an array of numpy",
    b"\x89HDF": "an HDF5 file",
    b"\x89PNG": "a picture",
    b"%PDF": "a PDF",
    b"SQLite": "an SQLite database",
    b"\x28\xb5\x2f\xfd": "packed by zstd; unpack it first",
    b"BZh": "packed by bzip2; unpack it first",
    b"\xfd7zXZ": "packed by xz; unpack it first",
    b"PAR1": "a Parquet file; export it as CSV",
}  # fmt: skip


def open_log(path: Path) -> IO[bytes]:
    """A log from its first byte, unpacked where gzip packed it.

    Raises: InputError if it is empty, no plain file, or too large unpacked.
    """
    file = durable.open_plain(path)
    try:
        head = file.read(2)
        if not head:
            raise InputError(f"{path} is empty; give a log that has figures")
        file.seek(0)
        if head != _GZIP:
            return file
        unpacked = _unpack(path, file)
    except BaseException as error:
        file.close()
        if isinstance(error, OSError):
            raise InputError(
                f"{path} cannot be read: {error.strerror}; give a log that has figures"
            ) from None
        raise
    file.close()
    return io.BytesIO(unpacked)


def read_text(path: Path, file: IO[bytes]) -> str:
    """The rest of a log as text, from any of the encodings that loggers and shells write.

    Raises: InputError if it is no text, or too large.
    """
    content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise InputError(f"{path} is larger than {MOST_BYTES:,} bytes, the most that a log in text may have")
    for head, what in _OTHERS.items():
        if content.startswith(head):
            raise InputError(f"{path} is no log: it is {what}")
    text = content.decode(_encoding(content), "replace").removeprefix("\ufeff")
    if text[:_LOOKED_AT_BYTES].count("\0") or not text.strip():
        what = "holds bytes that are no text" if text.strip() else "holds nothing but white space"
        raise InputError(f"{path} is no log: it {what}; give a log that has figures")
    return text


def _encoding(content: bytes) -> str:
    for mark, name in _MARKS:
        if content.startswith(mark):
            return name
    head = content[:_LOOKED_AT_BYTES]
    for name, nuls in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
        if len(head) > 8 and nuls.count(0) > 0.9 * len(nuls):
            return name
    return "utf-8"


def _unpack(path: Path, file: IO[bytes]) -> bytes:
    """The bytes that gzip packed, also those before a torn end. Raises: InputError if they are too many."""
    unpacked, stream = bytearray(), zlib.decompressobj(wbits=31)
    while piece := file.read(1 << 16):
        while piece:
            try:
                unpacked += stream.decompress(piece, MOST_BYTES + 1 - len(unpacked))
            except zlib.error:
                return _some(path, unpacked)
            if len(unpacked) > MOST_BYTES:
                raise InputError(
                    f"{path} is larger than {MOST_BYTES:,} bytes unpacked, the most that a log may have"
                )
            piece = stream.unconsumed_tail
            if stream.eof:  # others may follow, as of a log that was packed by parts
                piece, stream = stream.unused_data, zlib.decompressobj(wbits=31)
    return _some(path, unpacked)


def _some(path: Path, unpacked: bytearray) -> bytes:
    if not unpacked:
        raise InputError(f"{path} is no log: it begins as gzip does, and cannot be unpacked")
    return bytes(unpacked)
