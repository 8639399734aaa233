"""A copy of a run folder in a mirror: parts, and a manifest that says which files they make.

A file of over 1 MiB is a part of its own; of one that grows, each 8 MiB are. All others together are one
part. A manifest, written last, makes a copy exist; two copies share the parts of files that stayed the same.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Any

from etude import durable
from etude.errors import DamageError, InputError, MissingError
from etude.records import shape
from etude.records.folder import list_checkpoints, step_of
from etude.records.lease import STATES
from etude.records.store import Run

FORMAT = 1
LARGE_BYTES, BLOCK_BYTES = 1 << 20, 8 << 20
MOST_SMALL_BYTES = 256 << 20  # of the part that holds the small files, which is read whole
_MOST_FILES = 20_000
_LARGEST_PART = (1 << 63) - 1  # bytes of a file
_CHUNK_BYTES = 4 << 20
_GROWING = ("journal.jsonl", "log.txt", "control.jsonl", "outbox.jsonl")
_RECORDS = (
    "run.json", "recipe.toml", "resolved.toml", "environment.json", "best.json", "trainer_state.json",
    *_GROWING,
)  # fmt: skip
DATA = "prepared"  # the folder of a copy in which prepared data lie
_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,120}"
_FILE_PATH = re.compile(
    rf"({'|'.join(map(re.escape, _RECORDS))}|checkpoints/step-[0-9]{{6,18}}/{_NAME}"
    rf"|predictions(/{_NAME}){{1,4}}|{DATA}/[0-9a-f]{{32}}/{_NAME})"
)
_PART_NAME = rf"[0-9]{{6,12}}-[0-9a-f]{{8}}-{_NAME}"
_MANIFEST_NAME = re.compile(r"([0-9]{6,12})-([0-9a-f]{8})-manifest\.json")
_PART = shape.Object({"size": int, "sha256": Annotated[str, shape.matching("[0-9a-f]{64}")]})
_MANIFEST = shape.Object(
    {
        "format": int, "run": Annotated[str, shape.matching(r"[a-z0-9][a-z0-9._-]{0,80}")], "step": int,
        "state": Annotated[str, shape.one_of(*(each for each in STATES if each != "running"))],
        "parts": {str: _PART}, "files": dict[str, list[list[str | int]]],
    },
    {"data": (str, None)},
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """Size and SHA-256 of a part of a copy."""

    size: int
    sha256: str


Place = tuple[str, int, int]  # of bytes: the part, where in it, and how many
PieceKey = tuple[str, int, int, int, int]


@dataclass(frozen=True)
class Manifest:
    """A copy: the places of the bytes of each file, and the parts that they lie in.

    state  of the run when it was made; data: the key of the prepared data in it
    """

    run: str
    step: int
    state: str
    parts: dict[str, Part]
    files: dict[str, list[Place]]
    data: str | None = None

    def to_bytes(self) -> bytes:
        """The manifest as it is written, with its own hash at the end."""
        parts = {name: {"size": part.size, "sha256": part.sha256} for name, part in self.parts.items()}
        values = {
            "format": FORMAT, "run": self.run, "step": self.step, "state": self.state, "data": self.data,
            "parts": parts, "files": {path: [list(each) for each in at] for path, at in self.files.items()},
        }  # fmt: skip
        body = json.dumps(values, separators=(",", ":"))
        return json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "copy": body}).encode()


def read_manifest(content: bytes, name: str) -> Manifest:
    """The manifest in the bytes of a file. Raises: DamageError if it is not whole, or leads elsewhere."""
    if len(content) > durable.LARGEST_JSON_BYTES:
        raise DamageError(f"{name[:80]} is larger than a manifest may be")
    try:
        outer = durable.parse_json(content.decode(), Path(name))
        sealed = shape.fit(outer, shape.Object({"sha256": str, "copy": str}))
        if hashlib.sha256(sealed["copy"].encode()).hexdigest() != sealed["sha256"]:
            raise ValueError("it is not what was written")
        values = durable.parse_json(sealed["copy"], Path(name))
        if isinstance(values, dict) and isinstance(values.get("format"), int) and values["format"] > FORMAT:
            raise InputError(f"{name} has format {values['format']}; this etude reads {FORMAT}; update etude")
        return _manifest(shape.fit(values, _MANIFEST))
    except (ValueError, InputError) as error:
        raise DamageError(f"{name[:80]} is damaged: {str(error)[:200]}") from None


def _manifest(values: dict[str, Any]) -> Manifest:
    """Raises: ValueError if a file would lie elsewhere, or in bytes that there are not."""
    parts = {
        name: Part(**{key: each[key] for key in ("size", "sha256")}) for name, each in values["parts"].items()
    }
    if any(not re.fullmatch(_PART_NAME, name) for name in parts) or len(values["files"]) > _MOST_FILES:
        raise ValueError("it names what is no part, or too many files")
    if any(not 0 <= part.size <= _LARGEST_PART for part in parts.values()):
        raise ValueError("it names a part of a size that no file has")
    files: dict[str, list[Place]] = {}
    for path, places in values["files"].items():
        if not _FILE_PATH.fullmatch(path):
            raise ValueError(f"it names the file {path[:80]!r}, which is none of a run")
        files[path] = [_place(each, parts) for each in places]
    if any(str(folder) in files for path in files for folder in Path(path).parents):
        raise ValueError("it names a file inside of a file")
    size = sum(part.size for part in parts.values())
    if sum(place[2] for places in files.values() for place in places) > size:
        raise ValueError(f"its files have more bytes than the {size:,} of its parts")
    return Manifest(values["run"], values["step"], values["state"], parts, files, values.get("data"))


def _place(values: list[Any], parts: dict[str, Part]) -> Place:
    if [type(each) for each in values] != [str, int, int]:
        raise ValueError("a place of it is none")
    part, start, size = values
    if part not in parts or min(start, size) < 0 or start + size > parts[part].size:
        raise ValueError(f"bytes of {part[:80]} are named that are not there")
    return part, start, size


def manifest_name(number: int, token: str) -> str:
    """The name of a manifest: the number of the copy, and the token of the attempt that made it."""
    return f"{number:06d}-{token}-manifest.json"


def manifest_number(name: str) -> tuple[int, str] | None:
    """Number and token of a manifest by its name; None for another file."""
    found = _MANIFEST_NAME.fullmatch(name)
    return (int(found[1]), found[2]) if found else None


def is_part(name: str) -> bool:
    """True for the name of a part, or of a manifest."""
    return re.fullmatch(_PART_NAME, name) is not None


@dataclass
class Piece:
    """Bytes of an open file of a run: a part of their own, or among the small ones."""

    path: str
    file: BufferedReader
    start: int
    size: int
    is_alone: bool
    key: PieceKey = field(init=False)

    def __post_init__(self) -> None:
        found = os.fstat(self.file.fileno())
        # A block of a file that grows stays as it is, whatever is appended.
        moment = 0 if self.path in _GROWING else found.st_mtime_ns
        self.key = (self.path, found.st_ino, moment, self.start, self.size)

    def chunks(self) -> Iterator[bytes]:
        """The bytes, read piece by piece. Raises: DamageError if there are fewer by now."""
        self.file.seek(self.start)
        left = self.size
        while left:
            chunk = self.file.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise DamageError(f"{self.path} became shorter while it was copied")
            left -= len(chunk)
            yield chunk


def open_pieces(run: Run, data: Path | None) -> tuple[int, list[Piece]]:
    """The step of the newest checkpoint, and every byte of a copy: records, that checkpoint and the best.

    Open files stay whole, also where the run removes a checkpoint meanwhile. Whoever calls closes them.

    Raises: MissingError if a checkpoint was removed just now; InputError if a file is none of the run.
    """
    newest = list_checkpoints(run.checkpoints)[-1:]
    best = run.best
    kept = {path.name for path in newest} | ({best["checkpoint"]} if best else set())
    opened: list[Piece] = []
    try:
        for name in sorted(kept):
            for file in sorted((run.checkpoints / name).iterdir()):
                if _FILE_PATH.fullmatch(str(file.relative_to(run.path))):
                    opened += _pieces(run.path, file)
        for file in sorted((run.path / "predictions").rglob("*")):
            if not file.is_dir() and _FILE_PATH.fullmatch(str(file.relative_to(run.path))):
                opened += _pieces(run.path, file)
        for name in _RECORDS:  # the journal has the records of the checkpoints by now
            if durable.is_plain(run.path / name, follow=False):
                opened += _pieces(run.path, run.path / name)
        if data is not None:
            for file in sorted(data.iterdir()):
                opened += _pieces(data.parents[1], file)
    except FileNotFoundError as error:
        _close(opened)
        raise MissingError(str(error)) from None
    except BaseException:
        _close(opened)
        raise
    steps = [step_of(path.name) or 0 for path in newest]
    return max(steps, default=0), opened


def _pieces(folder: Path, file: Path) -> Iterator[Piece]:
    opened = durable.open_plain(file, follow=False)
    path, size = str(file.relative_to(folder)), os.fstat(opened.fileno()).st_size
    if path in _GROWING:
        whole = size - size % BLOCK_BYTES
        for start in range(0, whole, BLOCK_BYTES):
            yield Piece(path, opened, start, BLOCK_BYTES, is_alone=True)
        yield Piece(path, opened, whole, size - whole, is_alone=False)
    else:
        yield Piece(path, opened, 0, size, is_alone=size > LARGE_BYTES)


def _close(pieces: list[Piece]) -> None:
    for piece in pieces:
        piece.file.close()
