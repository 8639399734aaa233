"""The files of the page, read once when the server starts: only a name in this table can be served."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from etude import durable

WEB = Path(__file__).parent / "web"
_MOST_BYTES = 4 << 20
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class Asset:
    """A file of the page: its bytes, its content type and its ETag."""

    content: bytes
    kind: str
    etag: str


def read_assets(folder: Path = WEB) -> dict[str, Asset]:
    """Every file of the page by its name below the folder; files of other types are left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in _TYPES and path.is_file() and not path.is_symlink():
            content = durable.read_bytes(path, most_bytes=_MOST_BYTES, follow=False)
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[path.relative_to(folder).as_posix()] = Asset(content, _TYPES[path.suffix], etag)
    return found
