"""The state of a process as the kernel has it."""

from pathlib import Path


def confinement(process: int) -> tuple[str, str]:
    """Whether system calls of a process are filtered (2), and whether it may gain rights (1 for no)."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return lines["Seccomp"].strip(), lines["NoNewPrivs"].strip()
