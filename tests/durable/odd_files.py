"""Files that are no plain files of one name, for reading and for writing."""

import os
from pathlib import Path


def not_plain(kind: str, folder: Path) -> Path:
    path = folder / "odd"
    match kind:
        case "link":
            (folder / "target").write_bytes(b"export A=1\nlast line")
            path.symlink_to(folder / "target")
        case "second name":
            (folder / "target").write_bytes(b"export A=1\nlast line")
            path.hardlink_to(folder / "target")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
    return path
