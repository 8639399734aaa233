"""pass@k of the programs that a model writes during an evaluation."""

import functools
from collections import Counter
from dataclasses import replace
from typing import Any

from etude.evaluate.exam import Exam
from etude.evaluate.execute import Exercise, check_solutions, digest, judge
from etude.evaluate.sandbox import Sandbox, cores, require_tier
from etude.evaluate.solve import write_programs
from etude.evaluate.verdicts import Limits
from etude.objectives.kind import Measured
from etude.recipe.schema import Execute, Recipe
from etude.records import events
from etude.report.judged import Sampled
from etude.scores.pass_at_k import figure
from etude.text import one_line, plural

_NAMED = 5
_WIDTH = 2 * 1.959964  # of an interval of 95 %, in standard errors


def names_of_programs(recipe: Recipe) -> set[str]:
    """The figures of programs, where there are problems for them."""
    execute = recipe.evaluate.execute
    return {f"pass@{k}" for k in execute.k} if execute else set()


def require_sandbox(recipe: Recipe) -> None:
    """Raises: InputError if programs are to be run and this kernel cannot confine them."""
    if recipe.evaluate.execute is not None:
        require_tier()


def sampled_by(execute: Execute, *, seed: int, instruction: bool) -> Sampled:
    """The way in which a recipe draws samples."""
    return Sampled(
        ks=tuple(dict.fromkeys(execute.k)), samples=execute.samples, temperature=execute.warmth,
        top_p=execute.top_p, max_tokens=execute.max_tokens, seed=seed, instruction=instruction,
        cpu_seconds=execute.cpu_seconds,
    )  # fmt: skip


def measure_programs(exam: Exam, measured: Measured) -> Measured:
    """Let the model solve the exercises, and add the share that passes; each rank has a part of them.

    Instructions are asked by the chat template, as the data is.
    """
    execute = exam.recipe.evaluate.execute
    if execute is None or not exam.exercises:
        return measured
    corpus, rank, ranks = exam.corpus, exam.world.rank, exam.world.size
    sampled = sampled_by(execute, seed=exam.recipe.seed, instruction=bool(len(corpus.examples)))
    mine = exam.exercises[rank::ranks]
    with exam.precision.autocast():
        programs = write_programs(
            exam.model, corpus.tokenizer, corpus.chat, mine, sampled, end_ids=corpus.end_ids, step=exam.step
        )
    limits, processes = Limits(cpu_seconds=sampled.cpu_seconds), max(cores() // ranks, 1)
    with Sandbox(limits=limits, processes=processes) as sandbox:
        judged = judge(sandbox, mine, programs)
    outcomes = Counter(verdict.outcome for each in judged for verdict in each.verdicts)
    ours = {
        "passed": [each.counts[1] for each in judged], "outcomes": dict(outcomes),
        "unsteady": sum(each.unsteady for each in judged), "sandbox": str(sandbox.tier),
        "unsolved": _unsolved(mine, limits, processes),
    }  # fmt: skip
    parts = exam.world.gather(ours)
    passed = [0] * len(exam.exercises)
    for number, part in enumerate(parts):
        passed[number::ranks] = part["passed"]
    settings: dict[str, Any] = {
        "temperature": sampled.temperature,
        "top_p": sampled.top_p,
        "max_tokens": sampled.max_tokens,
    }
    settings |= {"instruction": sampled.instruction, "cpu_seconds": sampled.cpu_seconds, "seed": sampled.seed}
    executed = events.Execution(
        step=exam.step, problems=digest(exam.exercises), passed=passed, samples=sampled.samples,
        ks=list(sampled.ks), sandbox=parts[0]["sandbox"], unsteady=sum(part["unsteady"] for part in parts),
        settings=settings,
        outcomes=dict(sum((Counter(part["outcomes"]) for part in parts), Counter())),
    )  # fmt: skip
    unsolved = [name for part in parts for name in part["unsolved"]]
    return _with(measured, executed, unsolved)


def _with(measured: Measured, executed: events.Execution, unsolved: list[str]) -> Measured:
    """The same with the figures of programs, their errors, and the problems that nobody can solve here."""
    counts = [(executed.samples, each) for each in executed.passed]
    found = {f"pass@{k}": figure(counts, k) for k in executed.ks}

    def standard_error(name: str) -> float:
        if name not in found:
            return measured.standard_error(name)
        return (found[name][2] - found[name][1]) / _WIDTH

    findings = list(measured.findings)
    if unsolved:
        some = ", ".join(map(one_line, unsolved[:_NAMED]))
        evidence = f"the own solution of {plural(len(unsolved), 'problem')} does not pass here: {some}"
        advice = "leave these problems out, or mend their tests"
        findings.append(events.Finding(executed.step, "problems without a solution", evidence, advice))
    figures = {name: value for name, (value, _, _) in found.items()}
    return replace(
        measured, figures=measured.figures | figures, findings=findings, standard_error=standard_error,
        executed=executed,
    )  # fmt: skip


@functools.cache
def _unsolved(exercises: tuple[Exercise, ...], limits: Limits, processes: int) -> list[str]:
    """The names of exercises whose own solution does not pass; tried once by a process."""
    with Sandbox(limits=limits, processes=processes) as sandbox:
        return check_solutions(sandbox, exercises)
