"""Rows of the third blind test: other data and other easy rows than before, and rows with a fault of their making."""

import ast
import functools
import html
import json
import random
import re
import sysconfig
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from watch.blind_rows import DATA, Row, Rows


@functools.cache
def _lines(file: str) -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(line) for line in (DATA / file).read_text("utf-8").splitlines())


@functools.cache
def texts(kind: str) -> tuple[str, ...]:
    """Methods of C#, mended Java, functions with a flaw, or docstrings; each once, in a drawn order."""
    if kind == "docs":
        found = [told for told, _ in _members()]
    else:
        file, field = {
            "sharp": ("java_to_cs/train.jsonl", "target"), "fixed": ("refine_small/train.jsonl", "target"),
            "flaws": ("vuln_sven/train.jsonl", "code"),
        }[kind]  # fmt: skip
        found = [row[field] for row in _lines(file) if row.get("label", 1) == 1]
    return _drawn([text[:4000] for text in found if len(text) > 50])


@functools.cache
def pairs(kind: str) -> tuple[tuple[str, str], ...]:
    """Docstrings and methods, tests and programs, or methods and what they do; short ones, each once."""
    if kind == "members":
        found = [(f"Write this function: {' '.join(told.split())[:140]}", code) for told, code in _members()]
    elif kind == "tested":
        rows = _lines("mbpp/mbpp.jsonl")
        found = [
            (f"Pass this test: {row['test_list'][0]}", row["code"].replace("\r\n", "\n").strip())
            for row in rows
        ]
    else:
        rows = _lines("concode_dev/train.jsonl")
        found = [
            (f"Say what this does.\n{row['target']}", row["source"].partition(" concode_field_sep")[0])
            for row in rows
        ]
    return _drawn([(q, a) for q, a in found if len(q) + len(a) < 340 and len(a) > 24 and a not in q])


@functools.cache
def _members() -> tuple[tuple[str, str], ...]:
    """Docstrings and source of functions of the standard library."""
    found = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text = path.read_text("utf-8", errors="ignore")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (told := ast.get_docstring(node)):
                body = ast.unparse(node.body[1:]) if len(node.body) > 1 else "pass"  # type: ignore[arg-type]
                code = f"def {node.name}({ast.unparse(node.args)}):\n" + textwrap.indent(body, "    ")
                found.append((told, code))
    return tuple(found)


def _drawn(items: list[Any]) -> tuple[Any, ...]:
    distinct = list(dict.fromkeys(items))
    random.Random(31).shuffle(distinct)
    return tuple(distinct)


# ---- rows that repeat ----


def written_each_round(rows: Rows, draw: random.Random) -> Rows:
    """A file to which each round of a generator adds all rows made so far, 25 more than in the round before."""
    # https://github.com/instructlab/instructlab/issues/1003
    return [row for count in range(25, 325, 25) for row in rows[:count]]


def joined_with_tags(rows: Rows, draw: random.Random) -> Rows:
    """A join of rows with their tags, 1 to 9 of each, so that a row is there once for each tag."""
    tags = ("io", "text", "net", "math", "test", "cli", "json", "time", "path")
    return [{**row, "tag": tag} for row in rows[:420] for tag in draw.sample(tags, draw.randrange(1, 10))]


def epochs_in_the_file(rows: Rows, draw: random.Random) -> Rows:
    """A data set concatenated with itself for each of 10 epochs."""
    # https://github.com/LiberAI/NSpM/issues/9 has a line 227 times
    return [row for _ in range(10) for row in draw.sample(rows[:240], 240)]


def windows(rows: Rows, draw: random.Random) -> Rows:
    """Windows of 240 characters of long texts, each 24 characters after the last (a stride taken for an overlap)."""
    # https://github.com/huggingface/transformers/issues/22391
    long = [row["text"] for row in rows if len(row["text"]) > 1000][:40]
    return [{"text": text[at : at + 240]} for text in long for at in range(0, min(len(text), 1700) - 240, 24)]


def forks(rows: Rows, draw: random.Random) -> Rows:
    """Sixty files, each in some of its forks, under another copyright line."""
    names = ("Acme", "Initech", "Globex", "Umbrella", "Hooli", "Soylent", "Stark", "Wayne", "Cyberdyne")
    return [
        {
            "text": f"// Copyright {draw.randrange(2005, 2025)} {draw.choice(names)} {draw.randrange(999)}\n{row['text']}"
        }
        for row in rows[:60]
        for _ in range(draw.randrange(12, 60))
    ]


def balanced(rows: Rows, draw: random.Random) -> Rows:
    """Groups of rows by the length of the answer, the small ones drawn again until all are as large as the largest."""
    groups: dict[int, Rows] = {}
    for row in rows:
        groups.setdefault(len(row["output"]) // 40, []).append(row)
    most = max(map(len, groups.values()))
    return [row for group in groups.values() for row in (*group, *draw.choices(group, k=most - len(group)))]


def turn_by_turn(rows: Rows, draw: random.Random) -> Rows:
    """Conversations of 8 turns cut into 8 rows, each with all turns up to its own, which are learnt each time."""
    # https://github.com/deepspeedai/DeepSpeedExamples/issues/390, https://github.com/OpenCodeInterpreter/OpenCodeInterpreter/issues/20
    found = []
    for first in range(0, min(len(rows), 1600) - 8, 8):
        turns = [message for row in rows[first : first + 8] for message in row["messages"]]
        found += [{"messages": turns[: 2 * count]} for count in range(1, 9)]
    return found


def interleaved(rows: Rows, draw: random.Random) -> Rows:
    """Two sets in turn until both are exhausted, of which one has 30 rows and the other 1,200."""
    # the stopping strategy all_exhausted of interleave_datasets
    return [each for place, row in enumerate(rows[30:1230]) for each in (row, rows[place % 30])]


# ---- answers in their prompts ----


def _with(row: Row, instruction: str) -> Row:
    return {**row, "instruction": instruction}


def in_the_diff(row: Row) -> Row:
    """The diff of the commit that wrote the answer, given as context."""
    added = "\n".join(f"+{line}" for line in row["output"].splitlines())
    return _with(
        row, f"{row['instruction']}\ndiff --git a/m.py b/m.py\n@@ -1,2 +1,9 @@\n import os\n{added}\n"
    )


def hardly_changed(row: Row) -> Row:
    """An evolved question that quotes the answer with other quotes, spaces and ends."""
    # https://github.com/nlpxucan/WizardLM/issues/8
    quoted = row["output"].replace("'", '"').replace("    ", "  ").rstrip(".;:")
    return _with(
        row,
        f"{row['instruction']} Rewrite it so that it looks like this: {quoted[:1].lower()}{quoted[1:]} ok",
    )


def rendered_whole(row: Row) -> Row:
    """A prompt made by a template from all turns, that of the answer too."""
    return {
        "prompt": f"User: {row['instruction']}\nAssistant: {row['output']}\nAssistant:", "completion": row["output"],
    }  # fmt: skip


def in_its_file(row: Row) -> Row:
    """The file of the function as context, with the function still in it."""
    # https://github.com/ZzZZCHS/Chat-Scene/issues/49 asks for such a leak
    before = "import sys\n\ndef main(argv):\n    return run(argv)\n"
    return _with(row, f"File:\n{before}\n{row['output']}\n\nif __name__ == '__main__':\n    main(sys.argv)\n\n{row['instruction']}")  # fmt: skip


def whole_line(row: Row) -> Row:
    """The line of a parallel corpus not split at its tab."""
    return _with(row, f"{row['instruction']}\t{' '.join(row['output'].split())}")


def numbered_listing(row: Row) -> Row:
    """The answer as a listing with numbers of lines, from the thoughts of a teacher."""
    listing = "\n".join(f"{place:>4}  {line}" for place, line in enumerate(row["output"].splitlines(), 1))
    return _with(
        row, f"{row['instruction']}\nThoughts: first I look at the input, so in the end I write\n{listing}\n"
    )


def turn_in_history(row: Row) -> Row:
    """History that ends with the turn itself, as it is cut one turn too late."""
    return {"messages": [*row["messages"], *row["messages"]]}


def scraped_page(row: Row) -> Row:
    """The page of the question with its accepted answer, escaped as HTML, as context."""
    page = f"<div class='q'>{html.escape(row['instruction'])}</div><pre><code>{html.escape(row['output'])}</code></pre>"
    return _with(row, f"{page}\n{row['instruction']}")


# ---- padding in the rows ----


def fixed_length(rows: Rows) -> Rows:
    """Answers from a column of strings of 400 bytes, filled up with NUL."""
    return [{**row, "output": row["output"].ljust(400, "\0")} for row in rows]


def decoded_with_padding(rows: Rows) -> Rows:
    """Answers decoded from rows of ids that were padded with the unknown token."""
    return [
        {"messages": [question, {**answer, "content": answer["content"] + " \u2047" * (70 - len(answer["content"]) // 5)}]}
        for question, answer in (row["messages"] for row in rows)
    ]  # fmt: skip


# ---- rows that are merely easy ----

_WORDS = (
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "heron",
    "iris",
    "juniper",
    "kelp",
    "lotus",
)


def _name(draw: random.Random) -> str:
    return f"{draw.choice(_WORDS)}_{draw.choice(_WORDS)}{draw.randrange(10**4)}"


def styles(draw: random.Random) -> str:
    """Rules of CSS of one form."""
    return "\n".join(
        f".{_name(draw)} {{\n  color: #{draw.randrange(16**6):06x};\n  margin: {draw.randrange(64)}px;\n}}"
        for _ in range(3)
    )


def commits(draw: random.Random) -> str:
    """Lines of a log of commits."""
    return "\n".join(
        f"commit {draw.randrange(16**10):010x}\nAuthor: Dev <dev@example.org>\n\n    Update {_name(draw)}\n"
        for _ in range(3)
    )


def requests(draw: random.Random) -> str:
    """Headers of a request."""
    return f"GET /{_name(draw)} HTTP/1.1\nHost: example.org\nUser-Agent: curl/8.5.0\nAccept: */*\nX-Id: {draw.randrange(10**8)}\n"


def stack(draw: random.Random) -> str:
    """Pushes and pops of assembly."""
    names = [draw.choice(("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9")) for _ in range(4)]
    pushes = [f"    push {name}\n    mov {name}, {draw.randrange(10**6)}" for name in names]
    return "\n".join(
        [f"{_name(draw)}:", *pushes, *(f"    pop {name}" for name in reversed(names)), "    ret"]
    )


def fields(draw: random.Random) -> str:
    """A message of protobuf."""
    lines = "\n".join(f"  optional string {_name(draw)} = {place};" for place in range(1, 5))
    return f"message M{draw.randrange(10**5)} {{\n{lines}\n}}"


def counts(draw: random.Random) -> str:
    """Numbers counted up, one a line."""
    first = draw.randrange(10**5)
    return "\n".join(f"line {number} of {first + 12}" for number in range(first, first + 12))


def entries(draw: random.Random) -> str:
    """Entries of a calendar."""
    day = f"2026{draw.randrange(1, 13):02d}{draw.randrange(1, 29):02d}"
    return f"BEGIN:VEVENT\nUID:{draw.randrange(10**9)}@example.org\nDTSTART:{day}T090000Z\nDTEND:{day}T100000Z\nEND:VEVENT"


def ask_kind(draw: random.Random) -> tuple[str, str]:
    """The language of a file by its ending."""
    ending, language = draw.choice(
        (("py", "Python"), ("rs", "Rust"), ("go", "Go"), ("java", "Java"), ("rb", "Ruby"))
    )
    return (
        f"In which language is {_name(draw)}.{ending} written?",
        f"The file is written in {language}, by its ending.",
    )


def ask_date(draw: random.Random) -> tuple[str, str]:
    """A date in another form."""
    year, month, day = draw.randrange(1900, 2100), draw.randrange(1, 13), draw.randrange(1, 29)
    return (
        f"Write {day:02d}.{month:02d}.{year} as ISO 8601.",
        f"As ISO 8601 the date is {year}-{month:02d}-{day:02d}.",
    )


def ask_property(draw: random.Random) -> tuple[str, str]:
    """A property of Python."""
    name = _name(draw)
    return f"Make a property {name}.", f"@property\ndef {name}(self):\n    return self._{name}"


def ask_yaml(draw: random.Random) -> tuple[str, str]:
    """YAML of a small object of JSON."""
    name, count = _name(draw), draw.randrange(1000)
    return (
        f"As YAML: {json.dumps({'name': name, 'replicas': count})}",
        f"name: {name}\nreplicas: {count}\n# end of file",
    )


def ask_valid(draw: random.Random) -> tuple[str, str]:
    """The question if a name may be one of Python."""
    name = _name(draw)
    is_valid = draw.random() < 0.5
    shown = name if is_valid else re.sub("_", "-", name)
    return (
        f"Can {shown} be a variable of Python?",
        "Yes, it is an identifier." if is_valid else "No, a name may not hold a dash.",
    )


Maker = Callable[[random.Random], Any]
