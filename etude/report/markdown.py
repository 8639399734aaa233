"""Markdown that foreign text cannot break out of."""

import json
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

from etude.text import clean


def render(template: str, sections: dict[str, Any]) -> str:
    """Fill a template of this folder with finished Markdown, which is not escaped again."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=False, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    text = resources.files("etude.report").joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(text).render(sections)


def code(value: object) -> str:
    """Text as a code span on one line, also inside a table."""
    text = " ".join(clean(str(value)).split())
    ticks = "`" * (_longest_run(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{ticks}{pad}{text}{pad}{ticks}".replace("|", "\\|")


def fence(text: str) -> str:
    """Text as a fenced block, the fence longer than any in the text."""
    text = clean(text)
    ticks = "`" * max(_longest_run(text) + 1, 3)
    return f"{ticks}text\n{text}\n{ticks}"


def prose(value: object) -> str:
    """Text as plain words on one line: whatever means something in Markdown or HTML is escaped."""
    text = re.sub(r"([\\`*_{}\[\]<>|~$&#!])", r"\\\1", " ".join(clean(str(value)).split()))
    text = re.sub(r"(?::(?=//)|(?<=www)\.)", r"\\\g<0>", text, flags=re.IGNORECASE)  # an address is no link
    text = re.sub(r"^(\d{1,9})?([.)]|[-+])(?=\s|$)", r"\1\\\2", text)  # a list
    return re.sub(r"^(?=[=-]+$)", r"\\", text)  # a line under a heading


def quoted(value: object) -> str:
    """A value as YAML reads it back: JSON without the characters that YAML refuses."""
    if isinstance(value, list):
        return f"[{', '.join(quoted(item) for item in value)}]"
    return json.dumps(clean(value) if isinstance(value, str) else value, ensure_ascii=False)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [list(header), ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
