"""The Python in an answer that is written in Markdown."""

import ast
import re
import warnings

from markdown_it import MarkdownIt

# Blocks alone, so that the time grows with the length of a text.
_MARKDOWN = MarkdownIt("zero").enable(["code", "fence", "list", "blockquote"])
_LANGUAGE = re.compile(r"[{.\s]*([^\s{}]*)")
_PYTHON = ("", "python", "python3", "py", "py3")
_BEGINNING = re.compile(r"^(?:@|class |def |async def |from |import )", re.MULTILINE)


def program_of(answer: str, entry_point: str) -> str:
    """The code of an answer: its first block of Python that defines the entry point, else its first one.

    Text before a fence that nothing opened counts as a block, as does an answer without fences. Thoughts
    up to `</think>` are left out.
    """
    text = re.sub(r"\r\n?", "\n", answer.rpartition("</think>")[2])
    fences = [token for token in _MARKDOWN.parse(text) if token.type == "fence" and token.map]
    blocks = [token.content.removesuffix("\n") for token in fences if is_python(token.info)]
    begin = fences[0].map[0] if fences and fences[0].map else None
    blocks.append(_without_words("\n".join(text.split("\n")[:begin])))
    if entry_point:
        defined = re.compile(
            rf"^(?:(?:async )?def|class) {entry_point}\b|^{entry_point}\s*[:=]", re.MULTILINE
        )
        blocks.sort(key=lambda block: not defined.search(block))
    return next((block for block in blocks if block.strip()), "")


def block_of(answer: str) -> str:
    """The first block of code of an answer, in any language; without one the answer."""
    text = re.sub(r"\r\n?", "\n", answer.rpartition("</think>")[2])
    return next((token.content for token in _MARKDOWN.parse(text) if token.type == "fence"), text)


def is_python(info: str) -> bool:
    """True if the words behind a fence name Python, or no language."""
    found = _LANGUAGE.match(info)
    return found is not None and found[1].lower() in _PYTHON


def _without_words(text: str) -> str:
    """Code without the sentences that stand before it."""
    begun = _BEGINNING.search(text)
    return text[begun.start() :] if begun and not _is_code(text[: begun.start()]) else text


def _is_code(text: str) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
