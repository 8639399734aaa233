"""Outcomes of programs, from the end of a process and its words."""

from typing import Any

import pytest

from etude.evaluate.verdicts import Limits, verdict_of_program

_NONCE = "0123456789abcdef" * 2


def _ran(**values: Any) -> dict[str, Any]:
    return {"run": {"status": 0, "over": "", "output": "", "cpu_seconds": 0.1, "peak_bytes": 1, **values}}


@pytest.mark.parametrize(
    ("answer", "outcome", "words"),
    [
        (_ran(output=f"4\n{_NONCE}"), "passed", ""),
        (_ran(output="4\n"), "ended", "before its tests"),
        (_ran(output=_NONCE, status=1), "error", _NONCE),
        (_ran(status=1), "failed", ""),
        (_ran(status=1, output="at x\nAssertionError [ERR]: 1 != 2\nNode.js v20"), "failed", "AssertionError [ERR]: 1 != 2"),
        (_ran(status=-6, output="program: p.c:7: main: Assertion `f() == 6' failed.\n"), "failed", "Assertion `f() == 6' failed"),
        (_ran(status=1, output="assert.equal(f(t))\nReferenceError: t is not defined\n at y"), "error", "ReferenceError: t"),
        (_ran(status=1, output="--- FAIL: TestF (0.00s)\n    no\n"), "failed", "no"),
        (_ran(status=2, output="--- FAIL: TestF (0.00s)\npanic: runtime error: index\n"), "error", "panic: runtime"),
        (_ran(status=-11), "error", "by signal 11"),
        (_ran(status=-9), "ended", "by signal 9"),
        (_ran(status=-9, cpu_seconds=10.1), "cpu", "over 10 s of CPU time"),
        (_ran(status=-24, cpu_seconds=9.1), "cpu", "over 10 s of CPU time"),
        (_ran(status=1, output="Exception in thread \"main\" java.lang.OutOfMemoryError: Java heap"), "memory", "heap"),
        (_ran(status=-9, over="processes"), "memory", "over 64 processes"),
        (_ran(status=-9, over="output", output=_NONCE), "output", "printed over"),
        ({"compile": _ran(status=1, output="p.c: In f\np.c:2:3: error: ‘c’ undeclared\n")["run"]}, "compile", "p.c:2:3: error"),
        ({"compile": _ran(status=-9, over="cpu")["run"]}, "compile", "over its CPU time"),
    ],
)  # fmt: skip
def test_an_end_has_its_outcome(answer: dict[str, Any], outcome: str, words: str) -> None:
    verdict = verdict_of_program(answer, _NONCE, Limits())
    assert verdict.outcome == outcome and words in verdict.words
    assert "\n" not in verdict.words and len(verdict.words) <= 300
