"""Parts of words that stand for a name."""

import re
from pathlib import Path

from etude.verify.cues import CUES, CUES_OF
from etude.verify.names import NAMES

DOCUMENTS = Path(__file__).parent / "documents" / "develop"


def test_no_name_is_found_in_a_text_without_its_cues() -> None:
    assert set(CUES_OF) <= set(NAMES)
    patterns = {name: re.compile(NAMES[name].words, re.I) for name in CUES_OF}
    for path in DOCUMENTS.glob("*.md"):
        for line in path.read_text("utf-8").lower().splitlines():
            cues = {cue for cue in CUES if cue in line}
            for name, pattern in patterns.items():
                assert cues & CUES_OF[name] or not pattern.search(line) or not pattern.search(line)[0], (
                    name,
                    line,
                )  # type: ignore[index]
