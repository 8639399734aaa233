"""Programs of the tests, each in a process of its own, or in the ranks of torchrun."""

import os
import subprocess
import sys
from pathlib import Path


def run_program(
    name: str, words: list[str], cache: Path, *, ranks: int, seconds: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run a program of tests/, in ranks of torchrun where there are several, for so many seconds at most."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return subprocess.run(
        [sys.executable, *(torchrun if ranks > 1 else []), str(Path(__file__).with_name(f"{name}.py")), *words],
        check=False, capture_output=True, text=True, timeout=seconds, cwd=Path(__file__).parents[1],
        env={**os.environ, "ETUDE_CACHE": str(cache), "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
