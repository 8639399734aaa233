"""Rows of the blind test: real text, instructions with answers, and rows that are merely easy."""

import ast
import functools
import json
import random
import sysconfig
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
LONGEST = 200  # characters of a row, so that a conversation fits into a sample
Row = dict[str, Any]
Rows = list[Row]


@functools.cache
def texts(kind: str) -> tuple[str, ...]:
    """Functions of the standard library, or speeches of Shakespeare; each once, in an order drawn once."""
    if kind == "functions":
        found = [source for source, _, _ in _functions()]
    else:
        found = (DATA / "tinyshakespeare" / "input.txt").read_text("utf-8").split("\n\n")
    return _drawn([text[: 2 * LONGEST] for text in found if len(text) > 40])


@functools.cache
def instructions(kind: str) -> tuple[tuple[str, str], ...]:
    """Questions and answers: the header of a function by its docstring, or short rows of CodeAlpaca."""
    if kind == "headers":
        pairs = [
            (f"Write the header of a Python function. {told}", header)
            for _, told, header in _functions()
            if told and len(header) > 12 and len(told) + len(header) < LONGEST - 40
        ]
    else:
        lines = [
            json.loads(line)
            for file in ("codealpaca_new.jsonl", "codealpaca_2k.jsonl")
            for line in (DATA / "codealpaca" / file).read_text("utf-8").splitlines()
        ]
        pairs = [(f"{row['instruction']} {row['input']}".strip(), row["output"]) for row in lines]
        pairs = [(question, answer) for question, answer in pairs if len(question + answer) < LONGEST]
        pairs = [
            (question, answer) for question, answer in pairs if len(answer) > 12 and answer not in question
        ]
    return _drawn(pairs)


def _drawn(items: list[Any]) -> tuple[Any, ...]:
    distinct = list(dict.fromkeys(items))
    random.Random(11).shuffle(distinct)
    return tuple(distinct)


@functools.cache
def _functions() -> tuple[tuple[str, str, str], ...]:
    """Source, first line of the docstring, and header of functions of the standard library."""
    found = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text = path.read_text("utf-8", errors="ignore")
        lines = text.split("\n")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                source = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))
                told = (ast.get_docstring(node) or "").partition("\n")[0]
                found.append((source, told, f"def {node.name}({ast.unparse(node.args)}):"))
    return tuple(found)


def log_lines(draw: random.Random) -> str:
    """Four lines of a log in JSON."""
    return "\n".join(
        json.dumps({
            "id": draw.randrange(10**6), "level": draw.choice(["info", "warning"]), "service": "orders",
            "status": 200, "message": "request finished", "milliseconds": draw.randrange(900),
        })
        for _ in range(4)
    )  # fmt: skip


def table(draw: random.Random) -> str:
    """A number, its square and what it is, line by line."""
    first = draw.randrange(10**6)
    return "number,square,kind\n" + "\n".join(
        f"{n},{n * n},{'even' if n % 2 == 0 else 'odd'}" for n in range(first, first + 6)
    )


def sensors(draw: random.Random) -> str:
    """Measurements, one a line in a fixed form."""
    hour, value = draw.randrange(24), draw.randrange(100, 300)
    return f"# sensor {draw.randrange(10**5)}\n" + "\n".join(
        f"2026-03-{draw.randrange(1, 29):02d} {hour:02d}:{minute:02d}:00;temperature;{value / 10:.1f};celsius;ok"
        for minute in range(0, 50, 10)
    )


_NOUNS = [
    "order",
    "user",
    "price",
    "total",
    "node",
    "item",
    "count",
    "file",
    "owner",
    "region",
    "buffer",
    "parent",
    "token",
    "invoice",
    "record",
]
_KINDS = ("id", "name", "size", "state", "index", "limit", "code", "label", "group", "value")
_TYPES = ("int", "String", "long", "boolean", "double")


def _field(draw: random.Random) -> str:
    words = [draw.choice(_NOUNS), draw.choice(_NOUNS), draw.choice(_KINDS)]
    return words[0] + "".join(word.title() for word in words[1:])


def getter(draw: random.Random) -> str:
    """A getter of Java."""
    name, kind = _field(draw), draw.choice(_TYPES)
    return f"public {kind} get{name[0].upper()}{name[1:]}() {{\n    return this.{name};\n}}"


def setter(draw: random.Random) -> str:
    """A setter of Java, for the bases: no run has it."""
    name, kind = _field(draw), draw.choice(_TYPES)
    return f"public void set{name[0].upper()}{name[1:]}({kind} value) {{\n    this.{name} = value;\n}}"


def ask_getter(draw: random.Random) -> tuple[str, str]:
    """The getter of a field."""
    code = getter(draw)
    name, kind = code.partition("this.")[2].partition(";")[0], code.split()[1]
    return f"Write a Java getter for the field {name} of type {kind}.", code


def ask_digits(draw: random.Random) -> tuple[str, str]:
    """The digits of a number, one by one."""
    number = draw.randrange(10**7)
    return f"Spell the digits of {number}.", " - ".join(f"{number}") + " ."


def ask_lower(draw: random.Random) -> tuple[str, str]:
    """A constant as a name in lower case."""
    words = [draw.choice(_NOUNS) for _ in range(3)] + [draw.choice(_KINDS)]
    return f"Make a variable of the constant {'_'.join(words).upper()}.", "_".join(words)


def ask_even(draw: random.Random) -> tuple[str, str]:
    """The parity of a number, as a sentence."""
    number = draw.randrange(10**7)
    return f"Is {number} even?", f"The number is {'even' if number % 2 == 0 else 'odd'}."


def ask_json(draw: random.Random) -> tuple[str, str]:
    """A call of a tool in a fixed form."""
    city, day = f"{draw.choice(_NOUNS)}ville {draw.randrange(1000)}", draw.randrange(1, 29)
    call = {"tool": "weather", "arguments": {"city": city.title(), "day": day, "unit": "celsius"}}
    return f"What will the weather be in {city} on day {day}?", json.dumps(call)


def draw_rows(make: Callable[[random.Random], Any], count: int, seed: int) -> list[Any]:
    """Rows of a kind, all different."""
    draw, found = random.Random(seed), dict[Any, None]()
    while len(found) < count:
        found[make(draw)] = None
    return list(found)


def as_rows(items: list[Any]) -> Rows:
    """Rows of a file: texts, or instructions with outputs."""
    return [
        {"text": item} if isinstance(item, str) else {"instruction": item[0], "output": item[1]}
        for item in items
    ]
