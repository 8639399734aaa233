"""Data that cannot be read: odd files, odd rows, odd globs, and more than memory holds."""

import bz2
import gzip
import json
import lzma
import os
import socket
from collections.abc import Callable
from pathlib import Path

import zstandard

from tests.hostile.case import Case

RECIPE = """
name = "bad"
[tokenizer]
train_vocab_size = 300
[data]
validation = "none"
[[data.train]]
path = "{path}"
{more}
[train]
steps = 1
seq_len = 16
global_batch_size = 1
device = "cpu"
"""
ROW = b'{"text": "some text of a row"}\n'
EMPTY = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}


def recipe(folder: Path, path: str, more: str = "") -> list[str]:
    (folder / "recipe.toml").write_text(RECIPE.format(path=path, more=more))
    return ["data", "show", "recipe.toml"]


def file(name: str, content: bytes | Callable[[], bytes], more: str = "") -> Callable[[Path], list[str]]:
    """A source of one file with this content."""

    def make(folder: Path) -> list[str]:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content())
        return recipe(folder, name, more)

    return make


def long_prompt(folder: Path) -> list[str]:
    """A prompt of an evaluation that is as long as the context of the model."""
    (folder / "rows.jsonl").write_bytes(ROW * 9)
    recipe(folder, "rows.jsonl", more="[evaluate]\nprompts = ['fine', '" + "word " * 40 + "']")
    return ["check", "recipe.toml", "--deep"]


def folder_of(fill: Callable[[Path], object], more: str = "") -> Callable[[Path], list[str]]:
    """A source that is a folder, and what lies in it."""

    def make(folder: Path) -> list[str]:
        (folder / "data").mkdir()
        fill(folder / "data")
        return recipe(folder, "data", more)

    return make


def pipe(folder: Path) -> list[str]:
    os.mkfifo(folder / "rows.jsonl")
    return recipe(folder, "rows.jsonl")


def unix_socket(folder: Path) -> list[str]:
    before = Path.cwd()
    os.chdir(folder)  # the name of a socket may have 108 bytes only
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("rows.jsonl")
    os.chdir(before)
    return recipe(folder, "rows.jsonl")


def circle(folder: Path) -> None:
    for number in range(20):
        (folder / f"up{number}").symlink_to(folder, target_is_directory=True)
    (folder / "me.txt").symlink_to(folder / "me.txt")


def deep(folder: Path) -> None:
    for number in range(300):
        folder = folder / f"d{number % 10}"
        folder.mkdir()


def zipped(folder: Path) -> list[str]:
    import zipfile

    with zipfile.ZipFile(folder / "rows.zip", "w") as archive:
        archive.writestr("rows.jsonl", ROW)
    return recipe(folder, "rows.zip")


def short_rows() -> bytes:
    """4 GB of short rows in 400 kB."""
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    block = b'{"text": "a"}\n' * (1 << 20)
    return b"".join(packer.compress(block) for _ in range(300)) + packer.flush()


def asked(**fields: object) -> bytes:
    return json.dumps({"instruction": "Add 1", "output": "2", **fields}).encode()


def answered(
    turn: dict[str, object], name: str = "messages", first: str = "role"
) -> Callable[[Path], list[str]]:
    """A conversation, and after it one whose second turn is this one."""
    second = {"role": "content", "from": "value"}[first]
    asks, answers = ({first: role, second: "total"} for role in ("user", "assistant"))
    rows = [{name: [asks, answers]}, {name: [asks, {**answers, **turn}]}]
    return file("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())


def write_files(**contents: bytes) -> Callable[[Path], None]:
    """Files by name, with `_` for the dot."""

    def fill(folder: Path) -> None:
        for name, content in contents.items():
            (folder / name.replace("_", ".")).write_bytes(content)

    return fill


CASES = [
    Case(name="prompt of an evaluation that fills the context", make=long_prompt,
         says=r"evaluate.prompts\[1\] has \d+ tokens, and the model's context of 16 .* shorten the prompt"),
    Case(name="rows in a pipe", make=pipe, says="is not a plain file"),
    Case(name="rows in a socket", make=unix_socket, says="is not a plain file"),
    Case(name="rows in a device", make=lambda folder: recipe(folder, "/dev/zero"), says="is not a plain file"),
    Case(name="rows that are missing", make=lambda folder: recipe(folder, "rows.jsonl"), says="does not exist"),
    Case(name="the root of the file system", make=lambda folder: recipe(folder, "/"), says="a folder of the system"),
    Case(name="the folder of processes", make=lambda folder: recipe(folder, "/proc"), says="a folder of the system"),
    Case(name="an empty folder", make=folder_of(lambda folder: None), says="no file that matches"),
    Case(name="a folder of links in circles", make=folder_of(circle), says="no file that matches"),
    Case(name="a deep folder without a file", make=folder_of(deep), says="no file that matches"),
    Case(name="a glob of a hundred folders",
         make=folder_of(deep, f'glob = "{"**/" * 100}*.py"'), says="no file that matches"),
    Case(name="a glob of thirty folders and stars",
         make=folder_of(deep, f'glob = "{"**/*/" * 15}*.py"'), says="no file that matches"),
    Case(name="a glob of too many parts", make=folder_of(deep, f'glob = "{"a/" * 100}*.py"'), says="over 32 parts"),
    Case(name="a glob out of the folder", make=folder_of(deep, 'glob = "../*"'), says="within the folder"),
    Case(name="a glob from the root", make=folder_of(deep, 'glob = "/dev/*"'), says="within the folder"),
    Case(name="an empty file", make=file("rows.jsonl", b""), says="is empty"),
    Case(name="rows in UTF-16", make=file("rows.jsonl", ROW.decode().encode("utf-16")), says="begins with FF FE"),
    Case(name="rows in UTF-16 without a mark",
         make=file("rows.csv", "text\nabc\n".encode("utf-16-le")), says="not UTF-8 text: .* are NUL"),
    Case(name="a text in Latin-1", make=file("a.txt", "caf\xe9".encode("latin-1")), says="0xe9, as in Latin-1"),
    Case(name="rows nested a hundred thousand deep",
         make=file("rows.jsonl", b'{"text": ' + b"[" * 100_000), says="rows.jsonl:1 nests"),
    Case(name="a row with half a surrogate pair", make=file("rows.jsonl", b'{"text": "\\ud800"}'), says="surrogate"),
    Case(name="a number of 5,000 digits",
         make=file("rows.jsonl", b'{"text": "a", "n": ' + b"9" * 5000 + b"}"), says="too many digits"),
    Case(name="a field twice", make=file("rows.jsonl", b'{"text": "a", "text": "b"}'), says="'text' twice"),
    Case(name="lines that end with CR", make=file("rows.jsonl", ROW.replace(b"\n", b"\r") * 3), says="CR alone"),
    Case(name="an array that was cut off", make=file("rows.json", b"[" + ROW + b","), says="row 2, line 2"),
    Case(name="an object instead of rows", make=file("rows.json", b'{"data": [' + ROW + b"]}"), says="fields 'data'"),
    Case(name="a table with a cell too many", make=file("a.csv", b"text\na,b\n"), says="a.csv:2 has 2 fields"),
    Case(name="a table with an open quote", make=file("a.csv", b'text\n"a\n' * 9), says="not valid CSV"),
    Case(name="a Parquet file", make=file("rows.parquet", b"PAR1" + bytes(99)), says="a Parquet file"),
    Case(name="a ZIP archive", make=zipped, says="a ZIP archive"),
    Case(name="no Zstandard in .zst", make=file("rows.jsonl.zst", ROW), says="not a whole .zst file"),
    *(Case(name=f"half a million members without content in {suffix}",
           make=file(f"rows.jsonl{suffix}", pack(b"") * 500_000), says="is empty or to be skipped")
      for suffix, pack in EMPTY.items()),
    Case(name="Zstandard that skips 4 GB",
         make=file("rows.jsonl.zst", b"\x50\x2a\x4d\x18" + b"\xff" * 4 + ROW), says="it ends too early"),
    Case(name="half of a .gz", make=file("rows.jsonl.gz", gzip.compress(ROW * 99)[:-9]), says="not a whole .gz file"),
    Case(name="tools beside messages", make=file("rows.jsonl", asked(tools=[{"name": "f"}])), says="'tools'"),
    Case(name="a turn of nobody", make=answered({"role": "critic"}), says="jsonl:2 has the unknown role 'critic'"),
    Case(name="a turn of nobody in ShareGPT",
         make=answered({"from": "gpt_4"}, "conversations", "from"), says="unknown role 'gpt_4' in message 2"),
    Case(name="a role of 10,000 letters", make=answered({"role": "\n'x" * 9999}), says="the unknown role"),
    Case(name="an empty role", make=answered({"role": " "}), says="the unknown role ' '"),
    Case(name="a call of a function",
         make=answered({"content": None, "function_call": {"name": "f"}}), says="calls in message 2 .'function_call'"),
    Case(name="a call of a function as text",
         make=answered({"function_call": "f()"}), says="has tool calls in message 2 .'function_call'"),
    Case(name="a call of a tool without content",
         make=answered({"content": None, "tool_calls": [{"id": 1}]}), says="tool calls in message 2 .'tool_calls'"),
    Case(name="tools within a turn", make=answered({"tools": [{}, 1]}), says="has tool calls in message 2 .'tools'"),
    Case(name="pictures in a turn", make=answered({"images": ["a.png"]}), says="'images' in message 2, which is not"),
    Case(name="a sound in a turn", make=answered({"audio": {"id": "a"}}), says="not read as an object"),
    Case(name="thoughts as a list", make=answered({"thinking": ["so"]}), says="'thinking' in message 2, which is not"),
    Case(name="thoughts without an answer",
         make=answered({"content": "", "reasoning_content": "so"}), says="'reasoning_content' in message 2, but no"),
    Case(name="a refusal without content",
         make=answered({"content": None, "refusal": "No."}), says="has null as 'content' in message 2"),
    Case(name="a turn with two contents",
         make=answered({"content": "other"}, "conversations", "from"), says="both 'value' and 'content'"),
    Case(name="a turn with two roles",
         make=answered({"role": "user"}, "conversations", "from"), says="both 'from' and 'role'"),
    Case(name="a history that is none", make=file("rows.jsonl", asked(history="before")), says="'history' a turn 1"),
    Case(name="a turn of thousands of fields",
         make=answered({f"field {n}": "a" for n in range(3000)}), says="3,000 fields beside role and content, over 32"),
    Case(name="a row of 40 MB",
         make=file("rows.jsonl", lambda: b'{"text": "' + b"some words " * 4_000_000 + b'"}'), says="max_row_bytes"),
    Case(name="a row of 40 MB in an array",
         make=file("rows.json", lambda: b'[{"text": "' + b"some words " * 4_000_000 + b'"}]'), says="max_row_bytes"),
    Case(name="a text of 2 MB without a border", make=file("a.txt", b"x" * 2_000_000),
         says="a.txt has over 1,572,864 bytes in a stretch without a place to cut it"),
    Case(name="a text of 2 MB of other signs without a border",
         make=file("a.txt", "\u4e2d\u6587\u3002".encode() * 220_000), says="over 1,572,864 bytes in a stretch"),
    Case(name="a text of 40 MB without a border", make=file("a.txt", lambda: b"x" * 40_000_000), says="stretch",
         quick=False),
    Case(name="rows of one letter only",
         make=file("rows.jsonl", lambda: b'{"text": "' + b"x" * 40_000_000 + b'"}', "max_row_bytes = 99_000_000"),
         says="stretch", quick=False),
    Case(name="4 GB of short rows", make=file("rows.jsonl.zst", short_rows), says="over 200 times", quick=False),
    Case(name="more bytes than a source may hold",
         make=file("rows.jsonl", ROW * 9, "max_bytes = 99"), says="raise its max_bytes"),
    Case(name="a picture among the parts of a turn",
         make=answered({"content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]}),
         says="jsonl:2 has a part 'image_url' in message 2 of 'messages', which is not read; only text is"),
    Case(name="a part of a name of 10,000 letters",
         make=answered({"content": [{"type": "\n'x" * 9999}]}), says="has a part .* which is not read"),
    Case(name="a part without a type", make=answered({"content": [{"image": "a.png"}]}), says="has a part 'image'"),
    Case(name="an empty part", make=answered({"content": [{}]}), says="has a part '' in message 2"),
    Case(name="a part that is a number", make=answered({"content": [3]}), says="has a number as a part in message 2"),
    Case(name="a text part of null",
         make=answered({"content": [{"type": "text", "text": None}]}), says="has null as 'text' of a part"),
    Case(name="a content that is an object",
         make=answered({"content": {"text": "a"}}), says="an object as 'content' .*list of text parts"),
    Case(name="a role that is a number", make=answered({"role": 1}), says="has a number as 'role' in message 2"),
    Case(name="answers that are all marked",
         make=file("rows.jsonl", json.dumps({"messages": [{"role": "user", "content": "q"}, {
             "role": "assistant", "content": "a", "weight": 0}]}).encode()), says="every one .1. is marked"),
    Case(name="a history of messages with a picture",
         make=file("rows.jsonl", asked(history=[{"role": "user", "content": [{"type": "image"}]}])),
         says="has a part 'image' in message 1 of 'history'"),
    Case(name="rows without a text beside one file of code",
         make=folder_of(write_files(a_py=b"code", log_jsonl=b'{"id": 1}')),
         says='other files with glob, or set format = "text" to read this one whole'),
    Case(name="rows without a text beside code, with a group",
         make=folder_of(write_files(a_py=b"code", b_py=b"code", log_jsonl=b'{"id": 1}'), 'group_by = "repo"'),
         says="a.py has no rows, which group_by = 'repo' needs"),
    Case(name="rows some of which hold no text among code",
         make=folder_of(write_files(a_py=b"1", b_py=b"2", c_py=b"3", d_jsonl=ROW + b'{"id": 1}')),
         says="d.jsonl:2 has no field 'text'.*glob"),
    Case(name="a folder of pictures", make=folder_of(write_files(a_png=b"\x89PNG\0")), says="is binary: .* glob"),
    Case(name="an object among rows",
         make=folder_of(write_files(a_json=b'{"a": 1}', b_jsonl=ROW)), says="choose other files with glob"),
]  # fmt: skip
