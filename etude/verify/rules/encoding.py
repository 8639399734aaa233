"""Text that was decoded twice: `â€“` for a dash, `Ã©` for é."""

import re
from collections.abc import Iterator

from etude.text import one_line
from etude.verify.facts import Facts
from etude.verify.verdicts import CONTRADICTS, Finding, note

_SUSPECT = re.compile(r"[ÂÃâÅÄð][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]{1,3}")
_MOST = 20


def check_encoding(facts: Facts) -> Iterator[Finding]:
    """Lines with signs that are the bytes of another sign, read as Windows-1252."""
    count = 0
    for number, line in enumerate(facts.document.lines, 1):
        if len(line) > 20_000 or line.isascii():
            continue
        for match in _SUSPECT.finditer(line):
            meant = _decoded(match[0])
            if meant:
                count += 1
                yield note(
                    CONTRADICTS,
                    "encoding",
                    number,
                    one_line(match[0], 20),
                    "its bytes are UTF-8 that was decoded twice",
                    fits=meant,
                )
                break
        if count >= _MOST:
            return


def _decoded(text: str) -> str | None:
    for length in range(len(text), 1, -1):
        for encoding in ("cp1252", "latin-1"):
            try:
                return text[:length].encode(encoding).decode("utf-8")
            except UnicodeError:
                continue
    return None
