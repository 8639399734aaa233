"""The program of an answer is found whatever Markdown a model writes around it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.evaluate.execute import Exercise
from etude.evaluate.fences import block_of, program_of
from etude.evaluate.sandbox import Problem

_ADD = "def add(a, b):\n    return a + b"
# Each was taken for another program, or for none, by this or by another evaluation; addresses of theirs:
# github.com/noonghunna/benchlocal-cli/issues/120, github.com/erwins-enkel/shepherd/issues/2329.
_ANSWERS = {
    "in a fence": f"```python\n{_ADD}\n```",
    "without a fence": _ADD,
    "without an end": f"```python\n{_ADD}",
    "of another name": f"```python3\n{_ADD}\n```",
    "of a name with attributes": f"```{{.python}}\n{_ADD}\n```",
    "with words behind the name": f'```python title="a.py"\n{_ADD}\n```',
    "of four": f"````python\n{_ADD}\n````",
    "of tildes": f"~~~python\n{_ADD}\n~~~",
    "ended and never opened": f"{_ADD}\n```\n",
    "ended, with words behind": f"{_ADD}\n```\nThis adds two numbers.",
    "behind another language": f"Install:\n```bash\npip install x\n```\nThen:\n```python\n{_ADD}\n```\n",
    "behind an example": f"Call it:\n```python\nprint(add(1, 2))\n```\nIt is\n```python\n{_ADD}\n```\n",
    "behind imports": f"```python\nimport math\n```\nand\n```python\n{_ADD}\n```",
    "before an example": f"```python\n{_ADD}\n```\nUse:\n```python\nraise SystemExit\n```",
    "in a list": "1. Here:\n   ```python\n   def add(a, b):\n       return a + b\n   ```\n",
    "in a quotation": "> ```python\n> def add(a, b):\n>     return a + b\n> ```\n",
    "with a fence in a docstring": (
        "```python\ndef add(a, b):\n    \"\"\"\n    ```\n    add(1, 2)\n    ```\n    \"\"\"\n    return a + b\n```"
    ),
    "behind a sentence": f"Here is the code:\n\n{_ADD}\n",
    "behind a constant": f"ZERO = 0\n{_ADD} + ZERO\n",
    "behind a thought": f"<think>\n```python\ndef add(a, b): return 0\n```\n</think>\n```python\n{_ADD}\n```",
    "with line ends of Windows": f"```python\n{_ADD}\n```".replace("\n", "\r\n"),
    "as a lambda": "```python\nadd = lambda a, b: a + b\n```",
}  # fmt: skip


@pytest.mark.parametrize("answer", _ANSWERS.values(), ids=_ANSWERS)
def test_the_program_of_an_answer_is_found(answer: str) -> None:
    names: dict[str, object] = {}
    exec(program_of(answer, "add"), names)
    assert callable(names["add"]) and names["add"](1, 2) == 3


def test_an_answer_without_the_function_is_its_first_block() -> None:
    assert program_of("```js\nx\n```\n```py\n    return 1\n```\n```\ny\n```", "f") == "    return 1"
    assert program_of("    return 1", "f") == "    return 1" and program_of("", "") == ""


@pytest.mark.parametrize(
    "prompt",
    ["import functools\n\n@functools.cache\ndef add(a, b):\n", "async def add(a, b):\n", "def add(a, b):\n"],
)
def test_a_function_that_is_answered_whole_takes_the_place_of_the_one_in_the_prompt(prompt: str) -> None:
    exercise = Exercise(name="", prompt=prompt, asked="", problem=Problem(tests="", entry_point="add"))
    names: dict[str, object] = {}
    exec(exercise.sample(f"```python\n{_ADD}\n```", is_answer=True), names)
    assert callable(names["add"]) and names["add"](1, 2) == 3
    assert exercise.sample("```python\n    return 3\n```", is_answer=True) == prompt + "    return 3"


def test_a_prompt_that_begins_another_function_is_no_beginning_of_it() -> None:
    exercise = Exercise(
        name="", prompt="def add_all(x):\n    return sum(x)\n", asked="",
        problem=Problem(tests="", entry_point="add"),
    )  # fmt: skip
    assert exercise.sample(f"\n{_ADD}", is_answer=False).endswith(_ADD)


@given(st.text("`~>- \n\tpydef1.", max_size=200), st.sampled_from(["", "f"]))
def test_any_text_is_read(text: str, name: str) -> None:
    assert isinstance(program_of(text, name), str)


def test_a_block_of_another_language_is_taken_as_it_is() -> None:
    assert block_of("<think>```c\nno\n```</think>Here:\n```c\nint f();\n```\nand `g`.") == "int f();\n"
    assert block_of("int f();") == "int f();"
