"""The names of findings; tests/test_docs.py holds them against the code and the page on the watch."""

import re

from etude.engine.broken import ADVICE
from etude.recipe.findings import FINDINGS
from etude.watch.watcher import DETECTORS


def test_findings_of_detectors_and_rules_are_named_each_once() -> None:
    assert {detector.kind for detector in DETECTORS} | ADVICE.keys() <= set(FINDINGS)
    assert len(set(FINDINGS)) == len(FINDINGS) and all(re.fullmatch("[a-z_]+", each) for each in FINDINGS)
