"""A client that runs the cells of a notebook in a kernel of this Python, whatever kernels are installed."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient


class _Kernel(AsyncKernelManager):
    @property
    def kernel_spec(self) -> KernelSpec:
        words = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        return KernelSpec(argv=words, language="python", display_name="Python", env=environment)


def make_client(notebook: Any, folder: Path) -> NotebookClient:
    """A client that has not started its kernel yet; the kernel stands in the folder.

    `execute` needs cleanup_kc=True, or the kernel lives on.
    """
    return NotebookClient(notebook, km=_Kernel(), timeout=600, resources={"metadata": {"path": str(folder)}})


@contextmanager
def kernel(folder: Path) -> Iterator[NotebookClient]:
    """A client of a new notebook whose kernel runs while this is entered."""
    client = make_client(nbformat.v4.new_notebook(), folder)
    with client.setup_kernel(cleanup_kc=True):
        yield client
