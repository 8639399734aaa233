"""Programs of other languages pass by their tests alone, and reach nothing; one compilation of each language."""

import json
import shutil
from pathlib import Path

import pytest

from etude.confine.room import strongest
from etude.evaluate.execute import Exercise, judge, read_exercises
from etude.evaluate.languages import find_language
from etude.evaluate.sandbox import Problem, Sandbox
from etude.evaluate.verdicts import Limits
from tests.evaluate import attacks, runtime_attacks
from tests.evaluate.samples import PROBLEMS

_TIER = strongest()
pytestmark = pytest.mark.skipif(not _TIER.confines, reason=f"this kernel confines nothing ({_TIER})")
# Each compilation takes a second; the others are tried by benchmarks/languages.py.
_COMPILED = {
    "gcd": ["passed", "ended"],
    "first": ["failed"],
    "low": ["passed"],
    "even": ["passed"],
    "add": ["passed"],
}
_TRIED = {
    "javascript: read a file outside", "javascript: write outside", "javascript: start a process", "javascript: connect by TCP",
    "javascript: switch assertions off", "javascript: end early with the event of an end", "bash: read a file outside",
    "bash: write outside", "bash: a fork bomb", "bash: a process that leaves its session", "bash: kill another process",
    "bash: another runtime that connects", "bash: print for ever", "c: include /etc/passwd", "c: assemble a file outside",
}  # fmt: skip


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(limits=Limits(cpu_seconds=5, asleep_seconds=5.0), processes=2) as made:
        yield made


def _read(row: dict[str, object], folder: Path) -> Exercise:
    path = folder / "problems.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return read_exercises(path)[0]


def _has(language: str) -> bool:
    found = find_language(language)
    return found is not None and all(shutil.which(tool) for tool in found.tools)


@pytest.mark.parametrize(
    ("row", "samples"), PROBLEMS, ids=[row.get("name", row.get("task_id")) for row, _ in PROBLEMS]
)
def test_right_samples_pass_and_wrong_ones_are_named(
    row: dict[str, object], samples: dict[str, list[str]], sandbox: Sandbox, tmp_path: Path
) -> None:
    name = str(row.get("name") or row.get("task_id"))
    spelling = str(row.get("language") or name.partition("/")[0])
    is_script = spelling in ("js", "sh", "JavaScript")
    if not _has(spelling) or not (is_script or name in _COMPILED):
        pytest.skip("there is no compiler, or another problem of this language is tried")
    exercise = _read(row, tmp_path)
    chosen = {want: texts for want, texts in samples.items() if is_script or want in _COMPILED[name]}
    texts = [
        exercise.sample(each, is_answer=False)
        for some in chosen.values()
        for each in (some if is_script else some[:1])
    ]
    wanted = [want for want, some in chosen.items() for _ in (some if is_script else some[:1])]
    (judged,) = judge(sandbox, [exercise], [texts])
    assert [verdict.outcome for verdict in judged.verdicts] == wanted, judged.verdicts
    assert judged.counts == (len(wanted), wanted.count("passed"))


@pytest.mark.parametrize(
    "attack", [each for each in runtime_attacks.ATTACKS if each.name in _TRIED], ids=lambda each: each.name
)
def test_no_attack_reaches_anything_or_passes(attack: attacks.Attack, sandbox: Sandbox) -> None:
    if not _has(attack.name.partition(":")[0]):
        pytest.skip("there is no compiler")
    with attacks.targets() as made:
        verdict = sandbox.judge(*runtime_attacks.problem(attack, made))
        assert attacks.judge(attack, verdict, made) == [], verdict
        assert sandbox.judge("f = abs", Problem(tests="assert f(-1) == 1")).passed


def test_a_compiler_that_finds_an_error_is_no_failed_test(sandbox: Sandbox) -> None:
    if not _has("c"):
        pytest.skip("there is no compiler")
    verdict = sandbox.judge(
        "int f(void) { return x; }", Problem(tests="int main(void) { return f(); }", language="c")
    )
    assert (
        verdict.outcome == "compile" and "error: ‘x’ undeclared" in verdict.words and not verdict.may_differ
    )
