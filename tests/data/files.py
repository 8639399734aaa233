"""Data files for tests: packed in each way that is read, written in a line, and refused in one."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from etude.data.sources import read_documents
from etude.errors import InputError
from etude.recipe.data import Source

ALPACA = [{"instruction": f"Add {n} and 1", "input": "", "output": f"{n + 1}"} for n in range(12)]
PACKS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress,
}  # fmt: skip


def write(path: Path, content: str | bytes) -> Path:
    """The path, with its content."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path: Path, **settings: Any) -> str:
    """The one line with which a source of a recipe is refused."""
    with pytest.raises(InputError) as caught:
        list(read_documents(Source(path=str(path), **settings)))
    message = str(caught.value)
    assert "\n" not in message and len(message) < 800
    return message
