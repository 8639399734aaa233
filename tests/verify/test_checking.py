import json
from pathlib import Path

import pytest

from benchmarks.verify_documents import count
from etude.verify.checking import check_path
from etude.verify.verdicts import CONTRADICTS, UNSETTLED
from tests.verify.checked import check

FOLDER = Path(__file__).parent / "documents"
STATE = FOLDER / "state" / "trainer_state.json"  # in a folder of its own: it is read with what lies beside it
DOCUMENTS = sorted(path for path in (FOLDER / "develop").iterdir() if path.suffix != ".json")


@pytest.mark.parametrize("path", [*DOCUMENTS, STATE], ids=lambda path: path.name)
def test_each_planted_fault_is_found_and_nothing_true_is_contradicted(path: Path) -> None:
    verdicts = path.with_name("faults.json") if path == STATE else path.with_suffix(".json")
    checked, wanted = check_path(path), json.loads(verdicts.read_text("utf-8"))
    told = {
        verdict: [
            checked.document.lines[each.line - 1] for each in checked.findings if each.verdict == verdict
        ]
        for verdict in (CONTRADICTS, UNSETTLED)
    }
    missed = [
        text for verdict in told for text in wanted[verdict] if not any(text in line for line in told[verdict])
    ]  # fmt: skip
    false = [line for line in told[CONTRADICTS] if not any(text in line for text in wanted[CONTRADICTS])]
    assert (missed, false) == ([], [])


@pytest.mark.parametrize(("folder", "missed"), [("opened_first", 0), ("opened_second", 0)])
def test_what_other_writers_planted_is_found_and_nothing_else(folder: str, missed: int) -> None:
    counts = count(FOLDER / folder)
    assert (counts["planted"] - counts["found"], counts["false"]) == (missed, 0)


def test_what_no_rule_looked_at_is_counted_and_listed() -> None:
    checked = check("The office has 14 plants.\n\n5 + 3 = 8 of them.")
    assert (checked.figures, checked.examined) == (4, 3)
    assert checked.unexamined == [(1, "The office has 14 plants.")]
    assert checked.to_dict()["not_examined"] == [{"line": 1, "text": "The office has 14 plants."}]
