"""The bare process of the sandbox."""

import ast
import os
import subprocess
import sys
import time

from etude.evaluate import apart
from etude.processes import python_command, python_environment


def test_it_loads_neither_torch_nor_anything_of_the_data() -> None:
    program = "import sys, etude.evaluate.apart; print(sorted(m for m in sys.modules if m.startswith('etude') or m in ('torch', 'numpy')))"
    command = python_command("x")[:-2]
    said = subprocess.run(
        [*command, "-c", program], capture_output=True, text=True, env=python_environment(), check=True
    )
    assert ast.literal_eval(said.stdout) == [
        "etude", "etude.confine", "etude.confine.family", "etude.confine.kernel", "etude.confine.landlock", "etude.confine.room", "etude.confine.seccomp", "etude.evaluate",
        "etude.evaluate.apart", "etude.evaluate.arrays", "etude.evaluate.programs", "etude.evaluate.sides", "etude.evaluate.wire",
    ]  # fmt: skip


def test_the_end_of_a_process_has_its_signal_unless_it_was_ours() -> None:
    for code, expected in (("import os; os.kill(os.getpid(), 11)", 11), ("import time; time.sleep(600)", 0)):
        child = os.fork()
        if not child:
            os.execv(sys.executable, [sys.executable, "-I", "-c", code])
        time.sleep(0)
        ended = _end_when_over(child) if expected else apart._end(child, is_waiting=False)
        assert ended["signal"] == expected and ended["peak_bytes"] > 0


def _end_when_over(child: int) -> dict[str, object]:
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    return apart._end(child, is_waiting=True)
