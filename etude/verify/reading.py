"""A training document as blocks with their places: Markdown, notebook, log, configuration, trainer state."""

import html
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from etude.durable import parse_json, read_bytes
from etude.errors import InputError

MOST_BYTES = 10 * 2**20
MOST_COLUMNS, MOST_LINE = 200, 20_000  # what is longer is read, counted and not examined
_MOST_LINES = 200_000
_CONFIGS, _LOGS = (".toml", ".yaml", ".yml", ".cfg", ".ini", ".conf"), (".log", ".out", ".err", ".jsonl")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})\s*([\w+-]*)")
_HEADING = re.compile(r"^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
_ITEM = re.compile(r"^(\s*)(?:[-*+•]|\d{1,3}[.)])\s+(?:\[[ xX]\]\s+)?")
_RULE = re.compile(r"^\s*\|?[\s:|-]*-[\s:|-]*$")
_ASSIGNMENT = re.compile(r"^[\s{,]*[\"']?([A-Za-z_][\w .\-/]{0,60}?)[\"']?\s*[:=]\s*(\S.*)$")
_REST = re.compile(r"^\s*\d{4}-\d\d-\d\d[ T][\d:.,]+\s+(?:[A-Z]+\s+)?")
_OPENED = re.compile(r"^( {0,40})[\"']?([A-Za-z_][\w.-]{0,60})[\"']?\s*:\s*\{?\s*$")
_PYTHON = ("python", "py", "python3", "ipython")
_RECORD = re.compile(
    r"[\"']?([A-Za-z_][\w./-]{0,40}(?: "
    r"[A-Za-z]{1,12})?)[\"']?\s*[:=]\s*[\"']?(-?\d[\d.,]*(?:e[-+]?\d+)?%?s?)"
    r"(?=[\s\"',;|})\]]|$)(?!\s?[x×*/+=])"
)
# Names and values with blanks between them, of these names only: step 100 loss 5.12 lr 3e-4
_WORDED = re.compile(
    r"(?:^|(?<=[\s|,;\[(]))((?:(?:train|val|valid|validation|eval|test)[ _])?(?:step|iter(?:ation)?|epoch"
    r"|loss|val|ppl|perplexity|lr|learning rate|acc|accuracy|f1|tok/s|tokens/s|mfu|grad[_ ]norm|norm|dt|time"
    r"|elapsed|tokens))"
    r"\s+(-?\d[\d.,]*(?:e[-+]?\d+)?%?(?:ms|s)?)(?=[\s,;|)\]/:]|$)", re.I
)  # fmt: skip


_BAR = re.compile(r"\s*Epoch \d+: 100%\|[^|]{0,40}\| (\d{1,9})/\1 ")


@dataclass(frozen=True)
class Block:
    """A piece of a document: its kind, its text without marks, and the line of the file that each part is on.

    kind     "heading", "prose", "item", "table" or "code"
    section  the headings that it stands under, outermost first
    starts   the offset in `text` at which each of its lines begins
    lines    the line of the file of each of them; of a table, of each row
    rows     of a table: cells by row, the header first
    """

    kind: str
    text: str
    section: tuple[str, ...]
    starts: tuple[int, ...]
    lines: tuple[int, ...]
    rows: tuple[tuple[str, ...], ...] = ()
    language: str = ""

    def line_at(self, offset: int) -> int:
        """The line of the file that an offset of the text is on."""
        at = 0
        while at + 1 < len(self.starts) and self.starts[at + 1] <= offset:
            at += 1
        return self.lines[at]


@dataclass(frozen=True)
class Document:
    """A document that was read.

    lines     its lines as they are shown
    unread    what was left out of the examination, in words
    notebook  True if its code blocks run one after the other
    """

    name: str
    lines: list[str]
    blocks: list[Block]
    unread: list[str] = field(default_factory=list)
    notebook: bool = False


def read_document(path: Path) -> Document:
    """Read a document, and a trainer_state.json beside it. Raises: InputError if it is no text, or large."""
    text = _decode(path, read_bytes(path, most_bytes=MOST_BYTES))
    suffix = path.suffix.lower()
    if suffix == ".ipynb":
        document = _read_notebook(path, text)
    elif suffix == ".json":
        document = _read_json(path, text)
    else:
        lines = text.splitlines()
        document = read_lines(
            path.name, lines, form="log" if suffix in _LOGS else "config" if suffix in _CONFIGS else ""
        )
    beside = path.parent / "trainer_state.json"
    if path.name != beside.name and beside.is_file() and not beside.is_symlink():
        state = _read_json(beside, _decode(beside, read_bytes(beside, most_bytes=MOST_BYTES)))
        shift = len(document.lines)
        document.lines.extend(["", f"-- {beside.name} --", *state.lines])
        document.blocks.extend(_shifted(block, shift + 2) for block in state.blocks)
    return document


def read_lines(name: str, lines: list[str], *, form: str = "", notebook: bool = False) -> Document:
    """The document of lines of Markdown, or with form "log" or "config" of those."""
    unread = []
    if len(lines) > _MOST_LINES:
        unread.append(f"{len(lines) - _MOST_LINES:,} lines after the first {_MOST_LINES:,}")
    long = sum(len(line) > MOST_LINE for line in lines[:_MOST_LINES])
    if long:
        unread.append(f"{long:,} lines of more than {MOST_LINE:,} characters")
    kept = ["" if len(line) > MOST_LINE else line.expandtabs(4) for line in lines[:_MOST_LINES]]
    if form:
        blocks = list(_plain_blocks(kept, range(1, len(kept) + 1), ()))
    else:
        blocks = list(_markdown_blocks(kept))
    return Document(name, lines, blocks, unread, notebook)


def plain(text: str) -> str:
    """Text of Markdown without its marks: emphasis, code spans, links, tags, TeX."""
    text = html.unescape(re.sub(r"<[^<>\n]{1,200}>", " ", text))
    text = re.sub(r"!?\[([^\[\]]{0,300})\]\([^()\s]{0,500}\)", r"\1", text)
    for old, new in (
        ("\\times", "×"),
        ("\\cdot", "×"),
        ("\\approx", "≈"),
        ("\\%", "%"),
        ("\\", ""),
        ("$", ""),
        ("`", ""),
        ("**", ""),
        ("__", ""),
    ):
        text = text.replace(old, new)
    text = re.sub(r"(?<![\d\s])\*|\*(?![\d\s])", "", text)
    return text.replace("\u00a0", " ").replace("\u202f", " ").replace("~~", "")


def _decode(path: Path, content: bytes) -> str:
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        raise InputError(f"{path} is no text in UTF-8 or UTF-16; give the document as text") from None
    if "\x00" in text[:4096]:
        raise InputError(f"{path} is no text: it holds zero bytes; give the document as text")
    if not text.strip():
        raise InputError(f"{path} is empty; give a document with figures")
    return text


def _markdown_blocks(lines: list[str]) -> Iterator[Block]:
    section: tuple[str, ...] = ()
    levels: list[int] = []
    at, last = 0, len(lines)
    if last and lines[0].strip() == "---":  # front matter
        end = next((n for n in range(1, min(last, 200)) if lines[n].strip() in ("---", "...")), 0)
        yield from _plain_blocks(lines[1:end], range(2, end + 1), ())
        at = end + 1 if end else 0
    while at < last:
        line = lines[at]
        if not line.strip() or re.match(r"^\s*<!--[^<>]{0,300}-->\s*$", line):
            at += 1
        elif fence := _FENCE.match(line):
            end = at + 1
            while end < last and not lines[end].strip().startswith(fence[1]):
                end += 1
            yield from _code_blocks(lines[at + 1 : end], at + 2, fence[2].lower(), section)
            at = end + 1
        elif heading := _HEADING.match(line):
            level = len(heading[1])
            while levels and levels[-1] >= level:
                levels.pop()
                section = section[:-1]
            levels.append(level)
            section = (*section, f"{plain(heading[2])}")
            yield Block("heading", plain(heading[2]), section, (0,), (at + 1,))
            at += 1
        elif (
            "|" in line
            and at + 1 < last
            and "-" in lines[at + 1]
            and "|" in lines[at + 1]
            and _RULE.match(lines[at + 1])
        ):
            end = at + 2
            while end < last and "|" in lines[end] and lines[end].strip():
                end += 1
            yield _table(lines, at, end, section)
            at = end
        else:
            end = at + 1
            while end < last and lines[end].strip() and not _opens(lines, end):
                end += 1
            yield _paragraph(lines[at:end], at + 1, section)
            at = end


def _opens(lines: list[str], at: int) -> bool:
    """True if a line begins a block of its own."""
    line = lines[at]
    return bool(
        _ITEM.match(line) or _FENCE.match(line) or _HEADING.match(line)
        or ("|" in line and at + 1 < len(lines) and "|" in lines[at + 1] and _RULE.match(lines[at + 1]))
    )  # fmt: skip


def _paragraph(lines: list[str], first: int, section: tuple[str, ...]) -> Block:
    kind = "item" if _ITEM.match(lines[0]) else "prose"
    parts = [
        plain(re.sub(r"^[\s>]+", "", _ITEM.sub("", line, 1) if n == 0 else line))
        for n, line in enumerate(lines)
    ]
    starts, offset = [], 0
    for part in parts:
        starts.append(offset)
        offset += len(part) + 1
    return Block(kind, " ".join(parts), section, tuple(starts), tuple(range(first, first + len(lines))))


def _table(lines: list[str], at: int, end: int, section: tuple[str, ...]) -> Block:
    numbers = [at, *range(at + 2, end)]
    rows = [_cells(lines[number]) for number in numbers]
    return Block("table", "", section, (0,), tuple(number + 1 for number in numbers), tuple(rows))


def _cells(line: str) -> tuple[str, ...]:
    body = line.strip().removeprefix("|")
    body = body[:-1] if body.endswith("|") and not body.endswith("\\|") else body
    return tuple(
        plain(cell).strip() for cell in re.split(r"(?<!\\)\|", body, maxsplit=MOST_COLUMNS)[:MOST_COLUMNS]
    )


def _code_blocks(lines: list[str], first: int, language: str, section: tuple[str, ...]) -> Iterator[Block]:
    text = "\n".join(lines)
    if language in _PYTHON or (not language and re.search(r"^(?:import|from) \w|^def \w", text, re.M)):
        yield Block("code", text, section, (0,), (first,), language="python")
    elif language in ("", "text", "log", "yaml", "yml", "toml", "json", "console", "output", "ini", "txt"):
        yield from _plain_blocks(lines, range(first, first + len(lines)), (*section, f"lines {first}"))
    else:
        yield Block("code", text, section, (0,), (first,), language=language)


def _plain_blocks(lines: list[str], numbers: Iterable[int], section: tuple[str, ...]) -> Iterator[Block]:
    """Lines of a log or a configuration: records with several named figures as tables, others one by one."""
    tables: dict[tuple[Any, ...], list[tuple[int, dict[str, str]]]] = {}
    inner: tuple[str, ...] = ()
    path: list[tuple[int, str]] = []
    for number, line in zip(numbers, lines):
        stripped = line.strip()
        value, _, comment = line.partition("#") if stripped.startswith("#") else line.partition(" #")
        if pairs := _pairs(value) or (_pairs(comment) if not value.strip() else {}):
            tables.setdefault((inner, *sorted(pairs)), []).append((number, pairs))
            rest = _REST.sub(" ", _RECORD.sub(" ", _WORDED.sub(" ", value)))
            value, comment = "", comment if value.strip() else ""
            if re.search(r"\d \w*(?:steps|epochs?|tokens|examples|samples)\b", rest):
                yield Block("prose", plain(" ".join(rest.split())), section + inner, (0,), (number,))
        if head := re.fullmatch(r"\[{1,2}([\w.\- ]{1,80})\]{1,2}", stripped):
            inner, path = (head[1],), []
            continue
        if opened := _OPENED.match(value):
            indent = len(opened[1])
            path = [*(each for each in path if each[0] < indent), (indent, opened[2])]
            continue
        if found := _ASSIGNMENT.match(value):
            text = f"{found[1]}: {found[2].strip().rstrip(',').strip(chr(34) + chr(39))}"
            indent = len(value) - len(value.lstrip())
            path = [each for each in path if each[0] < indent]
            yield Block("item", text, (*section, *inner, *(key for _, key in path)), (0,), (number,))
        elif value.strip() and stripped[0] not in ";{}[]":
            yield Block("prose", plain(value.strip()), section + inner, (0,), (number,))
        if comment.strip():
            yield Block("prose", plain(comment.strip("# ")), section + inner, (0,), (number,))
    yield from (_records(records, section + key[0]) for key, records in tables.items())


def _pairs(line: str) -> dict[str, str]:
    """The named figures of a line of a log, if there are several; none of a sentence."""
    pairs = {name.strip(): value.rstrip(",") for name, value in _RECORD.findall(line)}
    worded = {name: value.rstrip(",") for name, value in _WORDED.findall(line)}
    if "val" in worded and any(name.lower() in ("loss", "train loss", "train_loss") for name in worded):
        worded["val loss"] = worded.pop("val")  # the other is of the training
    if bar := _BAR.match(line):
        worded["steps_per_epoch"] = bar[1]
    if len(pairs) >= 2:
        return {name: value for name, value in worded.items() if name not in pairs} | pairs
    every = worded | pairs
    rest = re.findall(r"[A-Za-z]{2,}", _WORDED.sub(" ", line))
    return every if len(every) >= 2 and len(rest) <= 2 + len(pairs) else {}


def _records(records: list[tuple[int, dict[str, str]]], section: tuple[str, ...]) -> Block:
    names = tuple(records[0][1])
    rows = [names, *(tuple(pairs[name] for name in names) for _, pairs in records)]
    numbers = (records[0][0], *(number for number, _ in records))
    return Block("table", "", section, (0,), numbers, tuple(rows), language="records")


def _read_notebook(path: Path, text: str) -> Document:
    value = parse_json(text, path)
    cells = value.get("cells") if isinstance(value, dict) else None
    if not isinstance(cells, list):
        raise InputError(f"{path} is no notebook: it has no list of cells; give a notebook of format 4")
    lines: list[str] = []
    for cell in cells:
        if not isinstance(cell, dict):
            continue
        source = _joined(cell.get("source"))
        if cell.get("cell_type") == "code":
            plain_source = "\n".join(
                line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))
            )
            lines += ["```python", *plain_source.splitlines(), "```"]
            for output in cell.get("outputs") or []:
                shown = (
                    _joined(output.get("text") or (output.get("data") or {}).get("text/plain"))
                    if isinstance(output, dict)
                    else ""
                )
                if shown.strip():
                    lines += ["```text", *shown.replace("```", "").splitlines(), "```"]
        else:
            lines += source.splitlines()
        lines.append("")
    return read_lines(path.name, lines, notebook=True)


def _joined(value: Any) -> str:
    if isinstance(value, list):
        return "".join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) else ""


def _read_json(path: Path, text: str) -> Document:
    """A configuration or a trainer state; the history of a state is a table, with a line for each record."""
    value = parse_json(text, path)
    history = value.get("log_history") if isinstance(value, dict) else None
    if not isinstance(history, list):
        lines = text.splitlines() if text.count("\n") > 1 else json.dumps(value, indent=1).splitlines()
        return read_lines(path.name, lines, form="config")
    shown = text.split("\n")
    places = _places(text, len(history)) if len(shown) > len(history) else None
    lines, numbers = [], []
    for key, each in value.items():
        if isinstance(each, int | float | str) and not isinstance(each, bool):
            lines.append(f"{key}: {each}"[:MOST_LINE])
            numbers.append(places[0].get(key, 1) if places else len(lines))
    for at, record in enumerate(history[:_MOST_LINES]):
        if isinstance(record, dict):
            pairs = (f"{key}={each}" for key, each in record.items() if isinstance(each, int | float))
            lines.append(", ".join(pairs)[:MOST_LINE])
            numbers.append(places[1][at] if places else len(lines))
    unread = [f"{len(history) - _MOST_LINES:,} records"] if len(history) > _MOST_LINES else []
    return Document(path.name, shown if places else lines, list(_plain_blocks(lines, numbers, ())), unread)


def _places(text: str, count: int) -> tuple[dict[str, int], list[int]] | None:
    """(the line of each key, the line of each record) of a trainer state that is printed on many lines."""
    keys: dict[str, int] = {}
    for number, row in enumerate(text.split("\n"), 1):
        if found := re.match(r"\s{0,8}\"([^\"\\]{1,80})\"\s*:", row):
            keys.setdefault(found[1], number)
    opening = re.search(r"\"log_history\"\s*:\s*\[", text)
    at = opening.end() if opening else 0
    line, lines = text.count("\n", 0, at) + 1, []
    for _ in range(count):
        gap = re.compile(r"[\s,]*").match(text, at)
        start = gap.end() if gap else at
        line += text.count("\n", at, start)
        lines.append(line)
        try:
            _, at = json.JSONDecoder().raw_decode(text, start)
        except ValueError:  # the name of the history stands elsewhere too
            return None
        line += text.count("\n", start, at)
    return keys, lines


def _shifted(block: Block, shift: int) -> Block:
    """A block of a file beside the document, under a heading of its name."""
    lines = tuple(line + shift for line in block.lines)
    return replace(block, section=("trainer_state.json", *block.section), lines=lines)
