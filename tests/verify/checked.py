"""Short documents, checked."""

from etude.verify.checking import Checked, check_document
from etude.verify.reading import read_lines
from etude.verify.verdicts import CONTRADICTS


def check(text: str) -> Checked:
    """The verdicts on a document of Markdown."""
    return check_document(read_lines("document.md", text.strip("\n").splitlines()))


def verdicts(text: str, rule: str = "") -> list[tuple[str, str]]:
    """(verdict, quoted) of the findings on a document by a rule."""
    return [(each.verdict, each.quoted) for each in check(text).findings if rule in ("", each.rule)]


def contradicted(text: str) -> list[str]:
    """What a document contradicts."""
    return [each.quoted for each in check(text).findings if each.verdict == CONTRADICTS]


def fits(text: str) -> list[str]:
    """The values that would fit where a document contradicts."""
    return [each.fits for each in check(text).findings if each.verdict == CONTRADICTS]
