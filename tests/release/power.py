"""The states of a disk after its power failed: what was synced is there, of all else anything.

A folder of a disk keeps two lists of names, those that it has and those that are synced; a file two contents.
After a call, each choice of names and of data is a state that a file system may come back with. Renames and
new names last once their folder was synced, as POSIX and ext4 have it, and no sooner.
"""

import hashlib
import os
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.release.disk import Call

NAMES = ("made", "synced", "some")
DATA = ("made", "dropped", "halved", "zeroed", "some")


@dataclass(eq=False)
class File:
    """A file as it is written, and as it is synced."""

    content: bytearray = field(default_factory=bytearray)
    synced: bytes = b""


@dataclass(eq=False)
class Folder:
    """A folder as it is written, and as it is synced."""

    names: dict[str, "File | Folder"] = field(default_factory=dict)
    synced: dict[str, "File | Folder"] = field(default_factory=dict)


State = dict[str, bytes | None]  # by path under the root; None for a folder


class Model:
    """A folder of a disk that calls are made on; what is there at first is synced."""

    def __init__(self, root: Path, before: Path | None = None) -> None:
        self.root, self.tree = os.path.realpath(root), Folder()
        self.versions: dict[str, set[bytes]] = {}  # whole contents that files were given by a rename
        for path in sorted(before.rglob("*")) if before else ():
            content = None if path.is_dir() else path.read_bytes()
            node = Folder() if content is None else File(bytearray(content), content)
            folder, name = self._place(f"{self.root}/{path.relative_to(before or root)}")
            folder.names[name] = folder.synced[name] = node

    def make(self, call: Call) -> None:
        """Make a call."""
        if call.path == self.root:
            return self._sync(self.tree) if call.name == "fsync" else None
        if call.path.endswith(" (deleted)"):
            return None
        folder, name = self._place(call.path)
        if call.name in ("open", "mkdir"):
            folder.names[name] = File() if call.name == "open" else Folder()
        elif call.name in ("unlink", "rmdir"):
            del folder.names[name]
        elif call.name in ("rename", "link"):
            self._rename(call, folder, name)
        elif call.name == "fsync":
            self._sync(folder.names[name])
        else:
            file = folder.names[name]
            assert isinstance(file, File), call
            _write(file, call)

    def states(self, seed: int) -> Iterator[tuple[str, State]]:
        """Each state that the power may leave now, with its name."""
        for names in NAMES:
            for data in DATA:
                draw = random.Random(f"{seed} {names} {data}")
                yield f"names {names}, data {data}", dict(_walk(self.tree, "", names, data, draw))

    def _place(self, path: str) -> tuple[Folder, str]:
        *folders, name = path[len(self.root) + 1 :].split("/")
        place = self.tree
        for each in folders:
            found = place.names[each]
            assert isinstance(found, Folder), path
            place = found
        return place, name

    def _rename(self, call: Call, folder: Folder, name: str) -> None:
        node = folder.names[name]
        target, new = self._place(call.target)
        target.names[new] = node
        if call.name == "rename":
            del folder.names[name]
        if isinstance(node, File):
            self.versions.setdefault(new, set()).add(bytes(node.content))

    def _sync(self, node: File | Folder) -> None:
        if isinstance(node, File):
            node.synced = bytes(node.content)
        else:
            node.synced = dict(node.names)


def digest(state: State) -> bytes:
    """A hash that is equal for equal states."""
    found = hashlib.sha256()
    for path in sorted(state):
        content = state[path]
        found.update(f"{path} {-1 if content is None else len(content)} ".encode() + (content or b""))
    return found.digest()


def write_state(folder: Path, state: State) -> None:
    """Write a state into a new folder."""
    folder.mkdir(parents=True)
    for path in sorted(state):
        content = state[path]
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)


def torn(state: State, versions: dict[str, set[bytes]], written_on: Iterable[str]) -> list[str]:
    """Files under their last name that are not as any rename left them; not those that are written in place."""
    return [
        path
        for path, content in state.items()
        if content is not None
        and not (name := path.rpartition("/")[2]).endswith(".tmp")
        and name in versions
        and name not in written_on
        and content not in versions[name]
    ]


def _write(file: File, call: Call) -> None:
    if call.name == "write":
        file.content.extend(bytes(max(call.place - len(file.content), 0)))
        file.content[call.place : call.place + len(call.data)] = call.data
    elif call.name == "posix_fallocate":
        file.content.extend(bytes(max(call.place - len(file.content), 0)))
    else:  # a file is cut
        file.content.extend(bytes(max(call.place - len(file.content), 0)))
        del file.content[call.place :]


def _walk(
    folder: Folder, path: str, names: str, data: str, draw: random.Random
) -> Iterator[tuple[str, bytes | None]]:
    for name in sorted({*folder.names, *folder.synced}):
        how = draw.choice(NAMES[:2]) if names == "some" else names
        node = (folder.names if how == "made" else folder.synced).get(name)
        if isinstance(node, Folder):
            yield f"{path}{name}", None
            yield from _walk(node, f"{path}{name}/", names, data, draw)
        elif node is not None:
            yield f"{path}{name}", _content(node, draw.choice(DATA[:4]) if data == "some" else data)


def _content(file: File, data: str) -> bytes:
    content, synced = bytes(file.content), file.synced
    if data == "made" or content == synced:
        return content
    if data == "dropped":
        return synced
    same = next((at for at, (ours, theirs) in enumerate(zip(content, synced)) if ours != theirs), None)
    same = min(len(content), len(synced)) if same is None else same
    if data == "zeroed":
        return synced[:same] + bytes(len(content) - same)
    return content[: same + (len(content) - same) // 2]
