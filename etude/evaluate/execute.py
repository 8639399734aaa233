"""Problems that a model is to solve by code, and the verdicts of a sandbox on what it writes.

A row is of HumanEval's shape (`prompt`, `test`, `entry_point`), of MBPP's (`text` or `prompt`, `test_list`,
`code`) or one's own: `prompt`, `tests` (text or a list of them) and, if there is one, `entry_point`. Rows of
other languages have the shape of MultiPL-E (`language`, `prompt`, `tests`, `stop_tokens`) or HumanEval-X.
"""

import ast
import hashlib
import json
import keyword
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from etude.data.rows import Row
from etude.data.sources import read_all_rows
from etude.errors import InputError
from etude.evaluate.fences import block_of, program_of
from etude.evaluate.languages import PYTHON, Language, complete, cut, find_language, find_tools
from etude.evaluate.sandbox import Problem, Sandbox
from etude.evaluate.verdicts import Verdict
from etude.interruption import with_points

# Where the function that a prompt has begun is over, or a program. Source: arXiv:2107.03374, section 2.1.
_ENDS_OF_FUNCTION = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint", "\n@", "\n```")
_ENDS_OF_PROGRAM = ("\nassert ", '\n"""', "\nprint", "\nif ", "\n```")
_DEFINITION = r"^(?:@.*\n)*(?:async )?def {}\b"  # with the decorators of the function
_MOST_PROBLEMS = 10_000


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """A problem as a model reads it.

    name      of the row
    prompt    text that a sample goes on from
    asked     the same as an instruction
    solution  the row's own, "" if it has none
    stops     texts that end a sample in another language
    """

    name: str
    prompt: str
    asked: str
    problem: Problem
    solution: str = ""
    stops: tuple[str, ...] = ()

    def sample(self, text: str, *, is_answer: bool) -> str:
        """The program that a model has written: its text behind the prompt, or the code of its answer."""
        if self.problem.language:
            if not is_answer:
                return self.prompt + cut(text, self.stops)
            return complete(self.prompt, block_of(text), self.stops)
        name = self.problem.entry_point
        begun = re.search(_DEFINITION.format(name), self.prompt, re.MULTILINE) if name else None
        if not is_answer:
            return self.prompt + _cut(text, _ENDS_OF_FUNCTION if begun else _ENDS_OF_PROGRAM)
        code = program_of(text, name)
        if begun is None or re.search(_DEFINITION.format(name), code, re.MULTILINE):
            return f"{self.prompt[: begun.start() if begun else 0]}\n{code}"
        return self.prompt + code


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The verdicts on the samples of an exercise."""

    exercise: Exercise
    samples: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    unsteady: int = 0

    @property
    def counts(self) -> tuple[int, int]:
        """Samples, and those that passed."""
        return len(self.verdicts), sum(verdict.passed for verdict in self.verdicts)


def read_exercises(path: Path) -> list[Exercise]:
    """The problems of a file. Raises: InputError if it is not there, or a row is no problem."""
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a file of problems, such as HumanEval.jsonl.gz")
    found: list[Exercise] = []
    for name, row in read_all_rows(path):
        found.append(_read(row, name))
        if len(found) > _MOST_PROBLEMS:
            raise InputError(f"{path} has over {_MOST_PROBLEMS:,} rows; expected problems with tests")
    if not found:
        raise InputError(f"{path} has no rows; expected problems with tests")
    return found


def choose_exercises(path: Path, most: int) -> list[Exercise]:
    """So many problems of a file at most, evenly spaced. Raises: InputError as `read_exercises`."""
    every = read_exercises(path)
    count = min(most, len(every))
    return [every[number * len(every) // count] for number in range(count)]


def digest(exercises: Sequence[Exercise]) -> str:
    """A hash of problems and their tests, whatever file they come from."""
    told = json.dumps([_told(each) for each in exercises], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def _told(exercise: Exercise) -> dict[str, Any]:
    """The values that a hash is of; problems in Python have the hash of before there were others."""
    told = {**asdict(exercise), "name": ""}
    if not exercise.problem.language:
        del told["stops"], told["problem"]["language"]
    return told


def judge(sandbox: Sandbox, exercises: Sequence[Exercise], samples: Sequence[Sequence[str]]) -> list[Judged]:
    """Run the samples of each exercise; one that a limit ended by waiting, memory or its own end runs again.

    The second verdict counts, and `unsteady` counts samples whose verdicts differ.
    """
    flat = [(each, exercise.problem) for exercise, some in zip(exercises, samples) for each in some]
    verdicts = list(with_points(sandbox.run(flat)))
    again = [
        place for place, verdict in enumerate(verdicts) if verdict.may_differ and verdict.outcome != "cpu"
    ]
    differ = set()
    for place, verdict in zip(again, with_points(sandbox.run([flat[place] for place in again]))):
        if verdict.outcome != verdicts[place].outcome:
            differ.add(place)
        verdicts[place] = verdict
    judged, start = [], 0
    for exercise, some in zip(exercises, samples):
        end = start + len(some)
        unsteady = sum(start <= place < end for place in differ)
        judged.append(
            Judged(
                exercise=exercise, samples=tuple(some), verdicts=tuple(verdicts[start:end]), unsteady=unsteady
            )
        )
        start = end
    return judged


def check_solutions(sandbox: Sandbox, exercises: Sequence[Exercise]) -> list[str]:
    """The names of exercises whose own solution does not pass, which no model can be blamed for."""
    known = [exercise for exercise in exercises if exercise.solution]
    judged = judge(sandbox, known, [[exercise.solution] for exercise in known])
    return [each.exercise.name for each in judged if not each.counts[1]]


def _read(row: Row, place: str) -> Exercise:
    name = str(row.get("task_id", place))[:100]
    if language := _language(row, place):
        return _read_program(row, language, place)
    if "test" in row and "entry_point" in row:
        prompt, tests = _text(row, "prompt", place), _text(row, "test", place)
        solution = prompt + str(row["canonical_solution"]) if row.get("canonical_solution") else ""
    elif "test_list" in row:
        said = _text(row, "text" if "text" in row else "prompt", place)
        setup = [str(row.get("test_setup_code") or ""), *_list(row, "test_imports", place)]
        listed = _list(row, "test_list", place)
        # MBPP+ keeps its larger tests beside those that a model is shown.
        hidden = [_text(row, "test", place)] if row.get("test") else []
        tests, solution = "\n".join([*setup, *(hidden or listed)]), str(row.get("code") or "")
        prompt = '"""\n{}\n{}\n"""\n'.format(
            said.replace('"""', "'''"), "\n".join(listed).replace('"""', "'''")
        )
        asked = (
            f"{said.strip()}\nYour code should pass these tests:\n```python\n" + "\n".join(listed) + "\n```"
        )
        entry_point = _defined(solution, tests)
        _check_name(entry_point, place)
        problem = Problem(tests=tests, entry_point=entry_point)
        return Exercise(name=name, prompt=prompt, asked=asked, problem=problem, solution=solution)
    elif "tests" in row:
        prompt, given = _text(row, "prompt", place), row["tests"]
        tests = (
            "\n".join(_list(row, "tests", place)) if isinstance(given, list) else _text(row, "tests", place)
        )
        solution = str(row.get("solution") or "")
    else:
        fields = "prompt, tests and entry_point, or those of HumanEval or MBPP"
        raise InputError(
            f"{place} is no problem: it has the fields {', '.join(row)[:100]}; expected {fields}"
        )
    entry_point = str(row.get("entry_point") or "") or _defined(solution, tests)
    _check_name(entry_point, place)
    problem = Problem(tests=tests, entry_point=entry_point, context=prompt)
    asked = f"Complete this code. Answer with the whole of it.\n```python\n{prompt.rstrip()}\n```"
    return Exercise(name=name, prompt=prompt, asked=asked, problem=problem, solution=solution)


def _language(row: Row, place: str) -> Language | None:
    """The language of a row; None of Python. HumanEval-X says it before the number of the task."""
    is_x = "declaration" in row and "test" in row
    said = row.get("language") or (str(row.get("task_id", "")).partition("/")[0] if is_x else PYTHON)
    try:
        language = find_language(str(said))
        if language is not None:
            find_tools(language)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    return language


def _read_program(row: Row, language: Language, place: str) -> Exercise:
    """A problem in another language, whose tests are the end of the program."""
    prompt, field = _text(row, "prompt", place), "tests" if "tests" in row else "test"
    listed = isinstance(row.get(field), list)
    tests = "\n".join(_list(row, field, place)) if listed else _text(row, field, place)
    behind = str(row.get("canonical_solution") or "")
    said = f"Complete this {language.name} code. Answer with the whole of it."
    return Exercise(
        name=str(row.get("task_id") or row.get("name") or place)[:100], prompt=prompt,
        asked=f"{said}\n```{language.spellings[0]}\n{prompt.rstrip()}\n```",
        problem=Problem(tests=tests, language=language.name.lower()),
        solution=str(row.get("solution") or "") or (prompt + behind if behind else ""),
        stops=tuple(_list(row, "stop_tokens", place)),
    )  # fmt: skip


def _check_name(entry_point: str, place: str) -> None:
    """Raises: InputError unless an entry point is the name of a function, and not one of Python's own."""
    if not entry_point:
        return
    is_own = keyword.iskeyword(entry_point) or entry_point.startswith("__")
    if not entry_point.isidentifier() or is_own:
        raise InputError(f"{place}: entry_point is {entry_point[:50]!r}; expected the name of a function")


def _defined(solution: str, tests: str) -> str:
    """The function of a solution that its tests call first; "" if that is not known."""
    try:
        defined = {each.name for each in ast.parse(solution).body if isinstance(each, ast.FunctionDef)}
        calls = [each.func for each in ast.walk(ast.parse(tests)) if isinstance(each, ast.Call)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    return next((call.id for call in calls if isinstance(call, ast.Name) and call.id in defined), "")


def _cut(text: str, ends: tuple[str, ...]) -> str:
    places = [place for end in ends if (place := text.find(end)) >= 0]
    return text[: min(places, default=len(text))]


def _text(row: Row, field: str, place: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{place}: {field} is {_short(value)}; expected text")
    return value


def _list(row: Row, field: str, place: str) -> list[str]:
    value = row.get(field) or []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InputError(f"{place}: {field} is {_short(value)}; expected a list of texts")
    return value


def _short(value: Any) -> str:
    return "not there" if value is None else repr(value)[:50]
