"""Secrets taken out of a text: those known by their form, and those of this process's environment."""

import os
import re

from etude.data.secrets import redact as redact_known
from etude.text import clean

_TELLING = re.compile(r"TOKEN|SECRET|PASS|PWD|CREDENTIAL|KEY|AUTH|COOKIE|WEBHOOK|DSN|_URLS?$|_TO$", re.I)
_SHORTEST = 8  # characters; a shorter value stands in texts by chance
_IN_ADDRESS = re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://)[^\s/\"'<>]{1,512}@", re.I)


def redact(text: str) -> str:
    """The text without secrets, on as many lines, with control characters as visible escapes.

    A variable of the environment is taken for a secret if its name says so, as `..._TOKEN`, and its value has
    eight characters or more and is no number and no path.
    """
    for name, value in _secrets():
        text = text.replace(value, f"<redacted: {name}>")
    text = _IN_ADDRESS.sub(r"\1<redacted>@", text)
    return redact_known(clean(text))


def _secrets() -> list[tuple[str, str]]:
    """Names and values of telling variables, the longest value first: a shorter one may be a part of it."""
    found = [(name, value.strip()) for name, value in os.environ.items() if _TELLING.search(name)]
    found = [each for each in found if len(each[1]) >= _SHORTEST and not _is_plain(each[1])]
    return sorted(found, key=lambda each: -len(each[1]))


def _is_plain(value: str) -> bool:
    return value.startswith(("/", "~", "./")) or re.fullmatch(r"[0-9.,:-]+", value) is not None
