"""The interpreters of a sample and of its tests."""

import ast

import pytest

from etude.confine.room import strongest
from etude.evaluate import sides
from etude.evaluate.sandbox import Problem, Sandbox
from etude.evaluate.verdicts import Limits

_TIER = strongest()
needs_kernel = pytest.mark.skipif(not _TIER.confines, reason=f"this kernel confines nothing ({_TIER})")


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(limits=Limits(cpu_seconds=2, asleep_seconds=2.0), processes=1) as made:
        yield made


def test_the_complete_part_of_a_prompt_is_imports_constants_and_whole_functions() -> None:
    prompt = 'import math\nLIMIT = 3\ndef double(x):\n    return 2 * x\ndef f(x):\n    """Two.\n    """\n'
    kept = sides._complete_part(prompt, "f").body
    assert [ast.unparse(each).split("\n")[0] for each in kept] == [
        "import math",
        "LIMIT = 3",
        "def double(x):",
    ]
    cut = "import math\ndef f(x):\n    # add one"
    assert [ast.unparse(each) for each in sides._complete_part(cut, "f").body] == ["import math"]
    assert sides._complete_part("Write a function that (", "f").body == []


@needs_kernel
def test_tests_use_functions_of_the_prompt_and_not_those_that_a_sample_puts_in_their_place(sandbox) -> None:
    prompt = "def double(x):\n    return 2 * x\ndef f(x):\n    "
    tests = "def check(candidate):\n    assert double(candidate(3)) == 8"
    sample = prompt + "return 1\n\ndef double(x):\n    return 8\n"
    assert sandbox.judge(sample, Problem(tests=tests, entry_point="f", context=prompt)).outcome == "failed"


@needs_kernel
def test_an_entry_point_may_have_the_name_of_a_function_of_python(sandbox) -> None:
    sample = "def sum(a, b):\n    return a + b"
    assert sandbox.judge(sample, Problem(tests="assert sum(1, 2) == 3", entry_point="sum")).passed
    assert sandbox.judge(sample, Problem(tests="assert sum([1, 2]) == 3")).passed  # Python's own


@needs_kernel
def test_classes_of_a_sample_serve_its_tests(sandbox) -> None:
    sample = (
        "class Node:\n    def __init__(self, data):\n        self.data, self.left = data, None\n"
        "def depth(node):\n    return 0 if node is None else 1 + depth(node.left)"
    )
    tests = "root = Node(1)\nroot.left = Node(2)\nroot.left.left = Node(3)\nassert depth(root) == 3"
    assert sandbox.judge(sample, Problem(tests=tests)).passed


@needs_kernel
@pytest.mark.parametrize(
    "sample",
    ["import sys; sys.exit(0)", "raise ValueError('no')", "def f(", "import os; os._exit(0)", "", "import atexit, os\natexit.register(lambda: os._exit(0))\nraise SystemExit(0)"],
)  # fmt: skip
def test_a_sample_that_ends_or_cannot_be_imported_fails_whatever_its_tests(sandbox, sample: str) -> None:
    tests = "try:\n    assert f() == 1\nexcept NameError:\n    raise"
    assert sandbox.judge(sample, Problem(tests=tests)).outcome in ("ended", "error")
