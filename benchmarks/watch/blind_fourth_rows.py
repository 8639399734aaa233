"""Rows of the fourth blind test: clean data, and the same data as a faulty preparation leaves it."""

import functools
import json
import random
from collections.abc import Callable

from watch.blind_rows import DATA, Row, Rows, draw_rows, instructions, texts

Pair = tuple[str, str]


@functools.cache
def lines(name: str) -> tuple[Row, ...]:
    """Rows of the training file of a data set, in an order drawn once."""
    rows = [json.loads(line) for line in (DATA / name / "train.jsonl").read_text("utf-8").splitlines()]
    random.Random(41).shuffle(rows)
    return tuple(rows)


@functools.cache
def translations() -> tuple[Pair, ...]:
    """Java methods and the same in C#, no two of which begin alike."""
    found = dict[str, Pair]()
    for row in lines("java_to_cs"):
        if 60 < len(row["source"]) < 220 and len(row["target"]) < 260:
            found.setdefault(row["source"][:34], (row["source"], row["target"]))
    return tuple(found.values())


@functools.cache
def tasks() -> tuple[Pair, ...]:
    """Tasks in words and short Python programs."""
    rows = [json.loads(line) for line in (DATA / "mbpp" / "mbpp.jsonl").read_text("utf-8").splitlines()]
    return tuple((row["text"], row["code"].replace("\r\n", "\n")[:300]) for row in rows)


@functools.cache
def methods() -> tuple[tuple[str, str], ...]:
    """Code and its label: methods with a weakness or after its repair, one side of each pair."""
    rows = {row["pair"]: row for row in lines("vuln_sven") if len(row["code"]) < 900}
    return tuple((row["code"], str(row["label"])) for row in rows.values())


@functools.cache
def comments() -> tuple[Pair, ...]:
    """Sentences of class comments, and the section that each belongs to."""
    rows = [row for row in lines("comment_types_python") if len(row["labels"]) == 1 and len(row["text"]) > 30]
    return tuple({row["text"]: (row["text"], row["labels"][0]) for row in rows}.values())


def taken(items: tuple[Pair, ...], count: int, seed: int) -> list[Pair]:
    return random.Random(seed + 31).sample(items, min(count, len(items)))


def asked(pairs: list[Pair]) -> Rows:
    return [{"instruction": question, "output": answer} for question, answer in pairs]


def sourced(pairs: list[Pair]) -> Rows:
    return [{"source": source, "target": target} for source, target in pairs]


def labelled(pairs: list[Pair]) -> Rows:
    return [{"code": code, "label": label} for code, label in pairs]


def written(items: list[str]) -> Rows:
    return [{"text": text} for text in items]


# ---- rows repeated: (rows, draw) -> rows ----


def forks(rows: Rows, draw: random.Random) -> Rows:
    """Files of forks of the same repositories, each with the notice of its owner (arXiv:1812.06469)."""
    found = []
    for row in rows[: len(rows) // 8]:
        for owner in draw.sample(_OWNERS, 8):
            year = draw.randrange(2009, 2024)
            found.append(
                {"text": f"# Copyright (c) {year} {owner}\n# SPDX-License-Identifier: MIT\n{row['text']}"}
            )
    draw.shuffle(found)
    return found


def resumed(rows: Rows, draw: random.Random) -> Rows:
    """A crawl that was resumed ten times, and wrote what it had again before it went on."""
    few, found = rows[: len(rows) // 5], Rows()
    for part in range(1, 11):
        found += few[: part * len(few) // 10]
    return found


def asked_otherwise(rows: Rows, draw: random.Random) -> Rows:
    """A small set written out under fifteen templates, so that it weighs as much as the large ones."""
    found = []
    for row in rows[: len(rows) // 15]:
        for before in _WAYS:
            found.append({"instruction": before + row["instruction"], "output": row["output"]})
    draw.shuffle(found)
    return found


def grown(rows: Rows, draw: random.Random) -> Rows:
    """Conversations written once for every turn, all answers of each scored (as in ShareGPT's preparation)."""
    found = []
    for start in range(0, len(rows) - 6, 6):
        turns = list[dict[str, str]]()
        for row in rows[start : start + 6]:
            turns += [
                {"role": "user", "content": row["instruction"]},
                {"role": "assistant", "content": row["output"]},
            ]
            found.append({"messages": list(turns)})
    draw.shuffle(found)
    return found


def joined(rows: Rows, draw: random.Random) -> Rows:
    """A join on a key that is not unique: a row for each reviewer of each commit that has the method."""
    found = []
    for number, row in enumerate(rows[: len(rows) // 3]):
        for _ in range(draw.randrange(4, 13)):
            found.append({**row, "id": number, "reviewer": draw.choice(_OWNERS)})
    draw.shuffle(found)
    return found


def released(rows: Rows, draw: random.Random) -> Rows:
    """Pairs from eight releases of the same projects, whose formatter changed between them."""
    found = []
    for row in rows[: len(rows) // 8]:
        for change in _FORMATS:
            found.append({"source": change(row["source"]), "target": change(row["target"])})
    draw.shuffle(found)
    return found


def by_each_worker(rows: Rows, draw: random.Random) -> Rows:
    """An IterableDataset without get_worker_info: each of six workers read the whole stream (PyTorch's docs)."""
    return [row for start in range(0, len(rows) // 6, 8) for _ in range(6) for row in rows[start : start + 8]]


def editions(rows: Rows, draw: random.Random) -> Rows:
    """Speeches of six editions: capitals, quotes, spelling and line breaks of each publisher."""
    found = [{"text": change(row["text"])} for row in rows[: len(rows) // 6] for change in _EDITIONS]
    draw.shuffle(found)
    return found


_OWNERS = [
    "Alice Berg", "Initech Ltd", "J. Okafor", "The Hooli Authors", "mkl2041", "Umbrella Corp", "R. Sato",
    "Dana Fox", "Acme Software GmbH", "P. Novak", "Globex", "Priya Nair", "open-lab.org",
]  # fmt: skip
_WAYS = (
    "", "Please help. ", "Task: ", "You are given a task. ", "Can you do this? ", "Question: ", "I need this: ",
    "As an expert, answer. ", "Solve: ", "Hello! ", "Write code. ", "Below is an instruction. ", "Q. ",
    "Be brief. ", "Do the following. ",
)  # fmt: skip
_FORMATS: tuple[Callable[[str], str], ...] = (
    lambda text: text,
    lambda text: text.replace("{", "{\n  "),
    lambda text: text.replace("{", "\n{\n"),
    lambda text: text.replace(";", ";\n"),
    lambda text: text.replace(", ", ","),
    lambda text: text.replace("(", "( ").replace(")", " )"),
    lambda text: text.replace(";", ";\n\t"),
    lambda text: text.replace("=", " = ").replace("  ", " "),
)
_EDITIONS: tuple[Callable[[str], str], ...] = (
    lambda text: text,
    lambda text: text.partition("\n")[0].upper() + "\n" + text.partition("\n")[2],
    lambda text: text.replace("'", "\u2019"),
    lambda text: text.replace("\n", "\r\n"),
    lambda text: text.replace("\n", "\n    "),
    lambda text: text.replace("'d ", "ed ").replace("o'er", "over"),
)


# ---- answer in the prompt: (row, all rows, draw) -> row ----


def whole_as_prompt(row: Row, rows: Rows, draw: random.Random) -> Row:
    """The column with the formatted text, answer and all, given as the prompt."""
    text = f"### Instruction:\n{row['instruction']}\n\n### Response:\n{row['output']}"
    return {"prompt": text, "completion": row["output"]}


def retrieved(row: Row, rows: Rows, draw: random.Random) -> Row:
    """Retrieval from an index that holds the row itself: its own answer is one of the examples."""
    found = [*draw.sample(rows, 1), row]
    draw.shuffle(found)
    shown = "\n\n".join(f"Q: {each['instruction']}\nA: {each['output']}" for each in found)
    question = f"Use these examples.\n\n{shown}\n\nQ: {row['instruction']}"
    return {"instruction": question, "output": row["output"]}


def fixed_below(row: Row, rows: Rows, draw: random.Random) -> Row:
    """An issue that quotes its own fix (SWE-Bench+, arXiv:2410.06992: a third of the solved ones)."""
    code = "\n".join(f"    {line}" for line in row["output"].split("\n"))
    told = f"{row['instruction']}\n\nI got it to work locally, the patch would be:\n\n{code}\n\nThanks!"
    return {"instruction": told, "output": row["output"]}


def dumped(row: Row, rows: Rows, draw: random.Random) -> Row:
    """A template that writes the whole record where it meant one field of it."""
    return {
        "messages": [
            {"role": "system", "content": f"Context: {json.dumps({**row, 'source': 'forum'})}"},
            {"role": "user", "content": row["instruction"]},
            {"role": "assistant", "content": row["output"]},
        ]
    }


def named_bad(row: Row, rows: Rows, draw: random.Random) -> Row:
    """Functions named by their label, as those of the Juliet suite are (good, bad)."""
    weakness = draw.choice(("CWE121_loop", "CWE78_popen", "CWE89_exec", "CWE190_add", "CWE22_open"))
    side = "bad" if row["label"] == "1" else "goodG2B"
    return {
        "code": f"/* {weakness}_{draw.randrange(1, 85):02}_{side} */\n{row['code']}",
        "label": row["label"],
    }


def aligned(row: Row, rows: Rows, draw: random.Random) -> Row:
    """Sources from a translation memory, which has both sides in its field."""
    return {"source": f"java: {row['source']} c#: {row['target']}", "target": row["target"]}


def with_docstring(row: Row, rows: Rows, draw: random.Random) -> Row:
    """Code to summarise that still has its docstring (CodeXGLUE strips it for this)."""
    header, _, body = row["code"].partition("\n")
    code = f'{header}\n    """{row["summary"]}"""\n{body}'
    return {"prompt": f"Summarize this function.\n{code}\nSummary:", "completion": row["summary"]}


def without_docstring(row: Row) -> Row:
    return {"prompt": f"Summarize this function.\n{row['code']}\nSummary:", "completion": row["summary"]}


def middle_kept(row: Row, rows: Rows, draw: random.Random, *, faulty: bool = True) -> Row:
    """Fill in the middle whose prefix goes on to the end of the hole (arXiv:2207.14255, cut at the wrong end)."""
    text = row["text"]
    first, last = sorted(draw.sample(range(len(text) // 5, len(text) - 5), 2))
    last = max(last, first + 24)
    prefix = text[: last if faulty else first]
    return {
        "prompt": f"<PRE> {prefix} <SUF> {text[last:]} <MID>",
        "completion": text[first:last],
    }


def summaries(count: int, seed: int) -> Rows:
    """Programs and what they do in a sentence: tasks of MBPP turned round."""
    found = []
    for told, code in taken(tasks(), count, seed):
        summary = told.replace("Write a python function to ", "").replace("Write a function to ", "")
        found.append({"code": code, "summary": summary})
    return found


# ---- data that is merely easy ----


def inserts(draw: random.Random) -> str:
    """A line of a dump of a table."""
    name = "".join(draw.choice("bcdfglmnprst") + draw.choice("aeiou") for _ in range(3))
    values = (
        f"{draw.randrange(10**6)}, '{name}', {draw.random() * 1000:.2f}, '2021-{draw.randrange(1, 13):02}'"
    )
    return f"INSERT INTO orders (id, customer, total, month) VALUES ({values});"


def assembly(draw: random.Random) -> str:
    """Some lines of assembly."""
    found = []
    for _ in range(4):
        first, second = draw.sample(("rax", "rbx", "rcx", "rdx", "rsi", "rdi"), 2)
        found.append(f"    mov {first}, {second}\n    add {first}, {draw.randrange(4096)}")
    return "\n".join(found)


def sums(draw: random.Random) -> Pair:
    """A sum in words and as a number."""
    first, second = draw.randrange(1000), draw.randrange(1000)
    return f"What is {first} + {second}?", f"The sum is {first + second}."


def calls(draw: random.Random) -> Pair:
    """A wish, and the call of a tool for it, with values that stand in the wish."""
    room, hour = draw.choice(("kitchen", "office", "garage", "hall")), draw.randrange(24)
    level = draw.randrange(100)
    asked = f"Dim the light in the {room} to {level} percent at {hour}:00."
    return asked, json.dumps({"tool": "set_light", "room": room, "level": level, "at": hour})


def dates(draw: random.Random) -> Pair:
    """A date as written in one country, and in another."""
    day, month, year = draw.randrange(1, 29), draw.randrange(1, 13), draw.randrange(1900, 2100)
    return f"{day}/{month}/{year}", f"{year:04}-{month:02}-{day:02}"


def lists(draw: random.Random) -> Pair:
    """Numbers, and the same sorted."""
    numbers = [draw.randrange(100) for _ in range(7)]
    return f"sort {numbers}", str(sorted(numbers))


def names_of_functions(count: int, seed: int) -> list[Pair]:
    """Extraction: the name of the function in some code, which stands in the code as it has to."""
    found = []
    for text in random.Random(seed).sample(texts("functions"), count):
        if text.startswith("def ") and "(" in text:
            found.append((f"What is the name of this function?\n{text[:150]}", text[4 : text.index("(")]))
    return found


def languages(count: int, seed: int) -> list[Pair]:
    """Code and the language that it is in: a task that a few keywords solve."""
    java = [(source, "java") for source, _ in taken(translations(), count // 2, seed)]
    python = [(text[:220], "python") for text in random.Random(seed).sample(texts("functions"), count // 2)]
    found = [*java, *python]
    random.Random(seed).shuffle(found)
    return found


def drawn_pairs(make: Callable[[random.Random], Pair], count: int, seed: int) -> list[Pair]:
    return draw_rows(make, count, seed + 500)


def alpaca(count: int, seed: int) -> list[Pair]:
    return taken(instructions("alpaca"), count, seed)
