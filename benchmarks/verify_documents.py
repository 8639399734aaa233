"""Contradictions found and false verdicts of `etude verify` on documents by other writers.

    python benchmarks/verify_documents.py              # all sets
    python benchmarks/verify_documents.py FOLDER...    # with expected.json in each

The rules were written without a look at the sets named `frozen`; those named `opened` were such once, were read
since, and tell nothing of new documents. Counts alone are printed, so that a frozen set stays unread.
"""

import json
import sys
import time
from pathlib import Path

from etude.verify.checking import check_path
from etude.verify.verdicts import CONTRADICTS

ROOT = Path(__file__).parents[1]
SETS = sorted((ROOT / "tests/verify/documents").glob("[fo][rp]*en*"))


def main() -> None:
    folders = [Path(each) for each in sys.argv[1:]] or SETS
    result = {folder.name: count(folder) for folder in folders}
    print(json.dumps(result, indent=1))
    if folders == SETS:
        (ROOT / "benchmarks/results/verify_documents.json").write_text(json.dumps(result, indent=1) + "\n")


def count(folder: Path) -> dict[str, int | float]:
    """Documents, contradictions and figures of a set, those found, and the slowest document."""
    planted: dict[str, list[dict[str, object]]] = json.loads((folder / "expected.json").read_text())
    counts = {"documents": len(planted), "planted": 0, "found": 0, "false": 0, "figures": 0, "examined": 0}
    slowest = 0.0
    for name, faults in planted.items():
        begun = time.perf_counter()
        checked = check_path(folder / name)
        slowest = max(slowest, time.perf_counter() - begun)
        bad = [each for each in checked.findings if each.verdict == CONTRADICTS]
        told, lines = set[int](), checked.document.lines
        for fault in faults:
            words = [str(fault["quote"]), *map(str, fault.get("also", []))]  # type: ignore[call-overload]
            hits = {
                index
                for index, each in enumerate(bad)
                if any(
                    word in lines[line - 1]
                    for word in words
                    for line in {each.line, *(at for at, _ in each.examined)}
                )
            }
            told |= hits
            counts["found"] += bool(hits)
        counts["planted"] += len(faults)
        counts["false"] += len(bad) - len(told)
        counts["figures"] += checked.figures
        counts["examined"] += checked.examined
    return {**counts, "slowest_seconds": round(slowest, 3)}


if __name__ == "__main__":
    main()
