"""Payloads of a bounded size: long texts and lists are cut, and what was cut is said."""

from collections.abc import Collection
from typing import Any

from etude.text import clean

_LONGEST_TEXT, _LONGEST_LIST = 20_000, 5_000
_MOST_CHARACTERS = 4 << 20
_LONGEST_NAME = 200
_DEEPEST = 30
_MOST_SAID = 50


def trim(payload: dict[str, Any], *, but: Collection[str] = ()) -> dict[str, Any]:
    """A payload in which no text and no list is endless; `cut` says in sentences what was left out.

    Characters that could drive a terminal, or turn the direction of a line, become visible escapes.

    but: names of lists whose entries are trimmed already
    """
    trimmed = _Trimmed()
    others = {name: value for name, value in payload.items() if name not in but}
    found: dict[str, Any] = trimmed.value(others, "", 0)
    found |= {name: trimmed.items(payload[name], name) for name in but}
    if trimmed.cut:
        found["cut"] = [*trimmed.cut[:_MOST_SAID], *(["and more"] if len(trimmed.cut) > _MOST_SAID else [])]
    return found


class _Trimmed:
    """The sentences on what was cut, and the characters that are left of the whole."""

    def __init__(self) -> None:
        self.cut: list[str] = []
        self._left = _MOST_CHARACTERS

    def value(self, value: Any, where: str, depth: int) -> Any:
        if depth > _DEEPEST:
            self.cut.append(f"{where}: nested too deeply")
            return None
        if isinstance(value, str):
            return self._text(value, where)
        if isinstance(value, dict):
            items = self.items(list(value.items()), where)
            return {
                clean(str(name)[:_LONGEST_NAME]): self.value(
                    each, f"{where}.{name}"[-60:].strip("."), depth + 1
                )
                for name, each in items
            }
        if isinstance(value, list | tuple):
            return [self.value(each, where, depth + 1) for each in self.items(list(value), where)]
        self._left -= 8
        return value

    def _text(self, text: str, where: str) -> str:
        most = max(min(_LONGEST_TEXT, self._left), 0)
        if len(text) > most:
            self.cut.append(f"{where or 'text'}: {most:,} of {len(text):,} characters")
            text = text[:most]
        self._left -= len(text)
        return clean(text)

    def items(self, items: list[Any], where: str) -> list[Any]:
        most = _LONGEST_LIST if self._left > 0 else 0
        if len(items) > most:
            self.cut.append(f"{where or 'list'}: {most:,} of {len(items):,} entries")
        return items[:most]
