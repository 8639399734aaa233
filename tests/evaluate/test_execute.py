"""Problems of several shapes, and the verdicts on what a model writes for them."""

import json
from pathlib import Path
from typing import Any

import pytest

from etude.confine.room import strongest
from etude.errors import InputError
from etude.evaluate.execute import check_solutions, choose_exercises, digest, judge, read_exercises
from etude.evaluate.sandbox import Sandbox
from etude.evaluate.verdicts import Limits

_TIER = strongest()
needs_kernel = pytest.mark.skipif(not _TIER.confines, reason=f"this kernel confines nothing ({_TIER})")
# Of the shape of HumanEval, of MBPP and one's own; their solutions pass.
ROWS: list[dict[str, Any]] = [
    {
        "task_id": "a/0", "prompt": 'import math\n\n\ndef half(x):\n    return x / 2\n\n\ndef area(r):\n    """Area of a circle."""\n',
        "entry_point": "area", "canonical_solution": "    return math.pi * r * r\n",
        "test": "def check(candidate):\n    assert math.isclose(half(candidate(1)), math.pi / 2)\n    assert candidate(0) == 0\n",
    },
    {
        "task_id": 7, "text": "Write a function to add numbers.", "code": "def sum(a, b):\r\n  return a + b",
        "test_setup_code": "", "test_list": ["assert sum(1, 2) == 3", "assert sum(0, 0) == 0"], "challenge_test_list": [],
    },
    {
        "task_id": 8, "prompt": "Write a function to check.", "code": "def check(n):\n  return n > 0",
        "test_imports": ["import math"], "test_list": ["assert check(math.pi) == True"],
    },
    {"prompt": "def twice(x):\n", "tests": ["assert twice(2) == 4"], "entry_point": "twice", "solution": "def twice(x):\n    return 2 * x"},
    {"prompt": "# a stack\n", "tests": "s = Stack()\ns.push(1)\nassert len(s) == 1", "solution": "class Stack:\n    def __init__(self):\n        self.items = []\n    def push(self, x):\n        self.items.append(x)\n    def __len__(self):\n        return len(self.items)"},
]  # fmt: skip


def write(folder: Path, rows: list[Any]) -> Path:
    path = folder / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@needs_kernel
def test_the_solutions_of_all_shapes_pass_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    wrong = {**ROWS[3], "task_id": "wrong", "solution": "def twice(x):\n    return x"}
    exercises = read_exercises(write(tmp_path, [*ROWS, wrong]))
    with Sandbox(limits=Limits(cpu_seconds=2, asleep_seconds=2.0), processes=2) as sandbox:
        assert check_solutions(sandbox, exercises) == ["wrong"]


@needs_kernel
def test_the_tests_of_mbpp_plus_are_run_and_not_those_that_it_shows(tmp_path: Path) -> None:
    """github.com/EleutherAI/lm-evaluation-harness/issues/4212: only the assertion of the prompt was run there."""
    test = "import numpy as np\nfor inp, exp in [([1, 2], 3), ([0, 0], 0), ([5, 5], 10)]:\n    assert np.allclose(add(*inp), exp)"
    row = {**ROWS[1], "text": "Add.", "code": "def add(a, b):\n    return a + b", "test_list": ["assert add(1, 2) == 3"], "test": test}  # fmt: skip
    (exercise,) = read_exercises(write(tmp_path, [row]))
    assert "assert add(1, 2) == 3" in exercise.prompt and "10" not in exercise.prompt + exercise.asked
    with Sandbox(processes=1) as sandbox:
        shown, right = (
            sandbox.judge(f"def add(a, b): return {what}", exercise.problem) for what in ("3", "a + b")
        )
    assert (shown.outcome, right.outcome) == ("failed", "passed")


def test_a_function_that_a_prompt_begins_ends_before_what_follows_it(tmp_path: Path) -> None:
    first, second, _, own, stack = read_exercises(write(tmp_path, ROWS))
    written = "    return 1\n\ndef other():\n    pass\nprint(area(2))"
    assert first.sample(written, is_answer=False) == first.prompt + "    return 1\n"
    assert second.sample("def sum(a, b):\n    return 3\ndef g(): pass\nassert sum", is_answer=False).endswith(
        "def g(): pass"
    )
    assert own.sample("    return 3\nif x:", is_answer=False) == "def twice(x):\n    return 3"
    assert stack.problem.entry_point == ""


def test_the_code_of_an_answer_is_taken_from_its_fence(tmp_path: Path) -> None:
    first, second, *_ = read_exercises(write(tmp_path, ROWS))
    whole = "Sure:\n```python\ndef area(r):\n    return 3\n```\nThat is it."
    assert "import math" in first.sample(whole, is_answer=True) and "Sure" not in first.sample(
        whole, is_answer=True
    )
    assert first.sample("```\n    return 3\n```", is_answer=True) == first.prompt + "    return 3"
    assert second.sample(whole, is_answer=True) == "\ndef area(r):\n    return 3"


@needs_kernel
def test_samples_are_counted_by_problem_and_unsteady_ones_run_again(tmp_path: Path) -> None:
    exercises = read_exercises(write(tmp_path, [ROWS[3], ROWS[3]]))
    right, wrong, ends = (
        "def twice(x):\n    return 2 * x",
        "def twice(x):\n    return x",
        "import os\nos._exit(0)",
    )
    with Sandbox(limits=Limits(cpu_seconds=2, asleep_seconds=2.0), processes=2) as sandbox:
        judged = judge(sandbox, exercises, [[right, wrong], [ends]])
    assert [each.counts for each in judged] == [(2, 1), (1, 0)]
    assert judged[1].verdicts[0].outcome == "ended" and judged[1].unsteady == 0


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ({"text": "a document"}, "is no problem"),
        ({"prompt": "x", "tests": "pass", "language": "cobol"}, "language is 'cobol'"),
        ({"prompt": "", "tests": "pass"}, "prompt is ''"),
        ({"prompt": "x", "tests": [1]}, "tests is"),
        ({"prompt": "x", "tests": "pass", "entry_point": "a b"}, "entry_point is 'a b'"),
        ({"prompt": "x", "test": None, "entry_point": "f"}, "test is not there"),
    ],
)
def test_a_row_that_is_no_problem_is_named(tmp_path: Path, row: dict[str, Any], wrong: str) -> None:
    with pytest.raises(InputError, match=r"problems.jsonl:2") as raised:
        read_exercises(write(tmp_path, [ROWS[3], row]))
    assert wrong in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_exercises(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    "name", ["import os", "None", "class", "__builtins__", "f()", "f\n", "x" * 10_000 + "!"]
)
def test_a_hostile_entry_point_is_no_name_of_a_function(name: str, tmp_path: Path) -> None:
    row = {"prompt": "x = 1\n", "tests": "pass", "entry_point": name}
    with pytest.raises(InputError, match="expected the name of a function") as caught:
        read_exercises(write(tmp_path, [row]))
    assert len(str(caught.value)) < 400


def test_the_digest_is_of_problems_and_not_of_their_file(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    rows = [{**row, "task_id": None} for row in ROWS]
    one, two = (read_exercises(write(folder, rows)) for folder in (tmp_path, tmp_path / "other"))
    assert digest(one) == digest(two) != digest(one[1:])
    path = write(tmp_path, ROWS)
    assert [each.prompt for each in choose_exercises(path, 2)] == [ROWS[0]["prompt"], one[2].prompt]
    assert len(choose_exercises(path, 99)) == len(ROWS)
