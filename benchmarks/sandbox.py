"""Code that attacks the sandbox of samples, by tier of confinement; and samples that are right, on a
loaded machine.

`attacks`: all of `tests/evaluate/attacks.py` on the kernel as it is, without namespaces, under a filter
such as containers have, and with Landlock masked to older versions. `right`: the solutions of HumanEval
and MBPP while twice as many processes compute as there are cores. `reference`: verdicts and pass@k beside
those of the code of human-eval on the same completions. `languages`: right and wrong samples in other languages,
and attacks on their compilers and runtimes, as far as they are installed.
"""

import argparse
import importlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

from measure import FOLDER, WORK, write_result

sys.path.insert(0, str(FOLDER.parent))

from etude.confine import seccomp
from etude.confine.room import Tier, strongest
from etude.errors import InputError
from etude.evaluate.execute import read_exercises
from etude.evaluate.sandbox import Problem, Sandbox
from etude.evaluate.verdicts import Limits
from etude.scores.pass_at_k import pass_at_k
from tests.evaluate import attacks, runtime_attacks
from tests.evaluate.samples import PROBLEMS

CLAIM = (
    "Attacks on the sandbox by tier of confinement: what they reached and whether their tests passed; solutions of "
    "HumanEval and MBPP at twice the load; verdicts beside those of human-eval"
)
# Calls that the profiles of containers deny to processes without rights.
CONTAINER = ["unshare", "setns", "mount", "pidfd_getfd", "ptrace", "bpf", "keyctl"]
TIERS = {
    "as it is": Tier(7, True, True), "no namespaces": Tier(7, True, False), "in a container": Tier(7, True, True),
    "Landlock 5": Tier(5, True, True), "Landlock 4": Tier(4, True, True), "Landlock 3": Tier(3, True, True),
    "Landlock 1": Tier(1, True, False), "no Landlock": Tier(0, True, True),
}  # fmt: skip
LANGUAGE_TIERS = ("as it is", "no namespaces", "Landlock 3", "Landlock 1")
QUICK = Limits(cpu_seconds=2, asleep_seconds=2.0, memory_bytes=256 << 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, help="folder with humaneval/HumanEval.jsonl.gz and mbpp/mbpp.jsonl"
    )
    parser.add_argument(
        "--human-eval",
        type=Path,
        help="checkout of github.com/openai/human-eval, whose line that runs code is not a comment",
    )
    parser.add_argument("--tier", choices=TIERS, help="attack this tier alone, and print JSON")
    parser.add_argument("--languages", choices=TIERS, help="languages in this tier alone, and print JSON")
    asked = parser.parse_args()
    if asked.languages:
        print(json.dumps(languages(asked.languages)))
        return
    if asked.tier:
        print(json.dumps(attack(asked.tier)))
        return
    WORK.mkdir(exist_ok=True)
    result: dict[str, Any] = {"attacks": {name: attack_apart(name) for name in TIERS}}
    result["languages"] = {name: attack_apart(name, "--languages") for name in LANGUAGE_TIERS}
    rows = [["part", "result"]]
    for name, found in result["languages"].items():
        tried = (
            f"{found['attacks']} attacks, {len(found['reached'])} reached, {len(found['unusable'])} unusable"
        )
        told = f"{found['right']} of {found['samples']} samples judged rightly; {tried} ({found['tier']})"
        rows.append([f"languages, {name}", told])
    for name, found in result["attacks"].items():
        rows.append(
            [
                f"attacks, {name}",
                found.get("refused")
                or f"{found['attacks']} tried, {len(found['reached'])} reached, {len(found['unusable'])} unusable ({found['tier']})",
            ]
        )
    if asked.data:
        for file in ("humaneval/HumanEval.jsonl.gz", "mbpp/mbpp.jsonl"):
            result[file] = found = right(asked.data / file)
            rows.append(
                [file, f"{found['passed']} of {found['problems']} pass, {found['seconds_each']:.3f} s each"]
            )
    if asked.data and asked.human_eval:
        result["reference"] = found = beside(asked.data / "humaneval/HumanEval.jsonl.gz", asked.human_eval)
        rows.append(["beside human-eval", f"{found['equal']} of {found['completions']} verdicts are equal"])
    write_result("sandbox", CLAIM, result, rows)


def attack_apart(tier: str, part: str = "--tier") -> dict[str, Any]:
    command = [sys.executable, __file__, part, tier]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=FOLDER)
    return json.loads(done.stdout) if done.returncode == 0 else {"failed": done.stderr[-2000:]}


def attack(name: str) -> dict[str, Any]:
    """All attacks on a tier, and after each a sample that is right."""
    if name == "in a container":
        seccomp.install(seccomp.deny_list(CONTAINER))
    tier = strongest(TIERS[name])
    try:
        sandbox = Sandbox(tier=tier, limits=QUICK, processes=1)
    except InputError as error:
        return {"refused": str(error), "tier": str(tier)}
    reached: dict[str, list[str]] = {}
    outcomes: Counter[str] = Counter()
    unusable = []
    good = Problem(tests="assert f([2, 1]) == [1, 2]")
    with sandbox, attacks.targets() as made:
        for each in attacks.ATTACKS:
            verdict = sandbox.judge(*attacks.problem(each, made))
            outcomes[verdict.outcome] += 1
            if found := attacks.judge(each, verdict, made):
                reached[each.name] = found
                made.clear()
            if not sandbox.judge("f = sorted", good).passed:
                unusable.append(each.name)
    return {
        "tier": str(tier), "attacks": len(attacks.ATTACKS), "reached": reached, "unusable": unusable,
        "outcomes": dict(outcomes),
    }  # fmt: skip


def languages(name: str) -> dict[str, Any]:
    """Samples in other languages whose outcome is known, and attacks, in a tier."""
    tier = strongest(TIERS[name])
    wrong: list[list[str]] = []
    counts: Counter[str] = Counter()
    seconds: dict[str, list[float]] = {}
    with Sandbox(tier=tier, limits=Limits(cpu_seconds=5, asleep_seconds=5.0)) as sandbox:
        for row, samples in PROBLEMS:
            file = WORK / "problem.jsonl"
            file.write_text(json.dumps(row) + "\n")
            try:
                (exercise,) = read_exercises(file)
            except InputError as error:
                counts[str(error).partition(": ")[2]] += 1
                continue
            known = [
                (want, exercise.sample(text, is_answer=False))
                for want, texts in samples.items()
                for text in texts
            ]
            known += [("passed", exercise.solution)] if exercise.solution else []
            for want, program in known:
                started = time.perf_counter()
                verdict = sandbox.judge(program, exercise.problem)
                seconds.setdefault(exercise.problem.language, []).append(time.perf_counter() - started)
                counts["samples"] += 1
                wrong += (
                    [[exercise.name, want, verdict.outcome, verdict.words]] if verdict.outcome != want else []
                )
    reached: dict[str, list[str]] = {}
    unusable: list[str] = []
    tried: Counter[str] = Counter()
    good = Problem(tests="assert f([2, 1]) == [1, 2]")
    with Sandbox(tier=tier, limits=QUICK, processes=1) as sandbox, attacks.targets() as made:
        for each in runtime_attacks.ATTACKS:
            try:
                verdict = sandbox.judge(*runtime_attacks.problem(each, made))
            except InputError:
                continue
            tried[each.name.partition(":")[0]] += 1
            if found := attacks.judge(each, verdict, made):
                reached[each.name] = found
                made.clear()
            if not sandbox.judge("f = sorted", good).passed:
                unusable.append(each.name)
    judged = counts.pop("samples")
    return {
        "tier": str(tier), "samples": judged, "right": judged - len(wrong), "wrong": wrong, "missing": dict(counts),
        "seconds_each": {key: sum(each) / len(each) for key, each in seconds.items()},
        "attacks": sum(tried.values()), "attacks_by_language": dict(tried), "reached": reached, "unusable": unusable,
    }  # fmt: skip


def right(file: Path) -> dict[str, Any]:
    """The solutions of a file while twice as many processes compute as there are cores."""
    exercises = read_exercises(file)
    spin = [sys.executable, "-I", "-c", "while True: pass"]
    load = [subprocess.Popen(spin) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        with Sandbox() as sandbox:
            started = time.perf_counter()
            verdicts = list(sandbox.run([(each.solution, each.problem) for each in exercises]))
            seconds = time.perf_counter() - started
            again = [at for at, verdict in enumerate(verdicts) if not verdict.passed]
            second = list(sandbox.run([(exercises[at].solution, exercises[at].problem) for at in again]))
            tier, processes = str(sandbox.tier), len(os.sched_getaffinity(0))
    finally:
        for child in load:
            child.kill()
            child.wait()
    return {
        "problems": len(exercises), "passed": sum(verdict.passed for verdict in verdicts), "tier": tier,
        "seconds_each": seconds * processes / len(exercises), "cpu_seconds_most": max(v.cpu_seconds for v in verdicts),
        "run_again": {exercises[at].name: [verdicts[at].outcome, v.outcome] for at, v in zip(again, second)},
    }  # fmt: skip


def beside(file: Path, checkout: Path) -> dict[str, Any]:
    """Verdicts and pass@k beside those of human-eval, on right, broken and cut completions."""
    from etude.data.sources import read_all_rows

    rows = [row for _, row in read_all_rows(file)]
    exercises = read_exercises(file)
    completions = [[*_completions(row["canonical_solution"])] for row in rows]
    with Sandbox() as sandbox:
        flat = [
            (each.prompt + text, each.problem)
            for each, texts in zip(exercises, completions)
            for text in texts
        ]
        ours = [verdict.passed for verdict in sandbox.run(flat)]
    sys.path.insert(0, str(checkout))
    check = importlib.import_module("human_eval.execution").check_correctness

    theirs = [
        check(row, text, timeout=30.0)["passed"] for row, texts in zip(rows, completions) for text in texts
    ]
    differ = [place for place, (a, b) in enumerate(zip(ours, theirs)) if a != b]
    size = len(completions[0])
    counts = [(size, sum(ours[at : at + size])) for at in range(0, len(ours), size)]
    exact = {k: sum(_exact(n, c, k) for n, c in counts) / len(counts) for k in (1, 3)}
    found = {k: sum(pass_at_k(n, c, k) for n, c in counts) / len(counts) for k in exact}
    return {
        "completions": len(ours), "passed": sum(ours), "equal": len(ours) - len(differ),
        "differ": [[rows[place // size]["task_id"], ours[place], theirs[place]] for place in differ],
        "pass_at_k": found, "off_from_exact": max(abs(found[k] - float(exact[k])) for k in exact),
    }  # fmt: skip


def _completions(solution: str) -> list[str]:
    """A solution, and what a model might have made of it."""
    changed = [
        solution.replace(a, b, 1)
        for a, b in (("+", "-"), ("<", "<="), ("return ", "return not "), ("0", "1"), ("[", "("))
    ]
    return [solution, *changed, solution[: len(solution) // 2], "    pass\n"]


def _exact(samples: int, passed: int, k: int) -> Fraction:
    """The share of the choices of k samples in which one passed, counted one by one."""
    chosen = list(itertools.combinations(range(samples), k))
    return Fraction(sum(min(each) < passed for each in chosen), len(chosen))


if __name__ == "__main__":
    main()
