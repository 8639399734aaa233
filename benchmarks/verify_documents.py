"""Contradictions found and false verdicts of `etude verify` on documents that its rules were not written on.

    python benchmarks/verify_documents.py

Counts alone are printed: whoever writes rules shall not learn what these documents say.
"""

import json
import time
from pathlib import Path

from etude.verify.checking import check_path
from etude.verify.verdicts import CONTRADICTS

ROOT = Path(__file__).parents[1]
FROZEN = ROOT / "tests" / "verify" / "documents" / "frozen"


def main() -> None:
    planted: dict[str, list[dict[str, object]]] = json.loads((FROZEN / "expected.json").read_text())
    count = {"documents": len(planted), "planted": 0, "found": 0, "false": 0, "figures": 0, "examined": 0}
    slowest = 0.0
    for name, faults in planted.items():
        begun = time.perf_counter()
        checked = check_path(FROZEN / name)
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
            count["found"] += bool(hits)
        count["planted"] += len(faults)
        count["false"] += len(bad) - len(told)
        count["figures"] += checked.figures
        count["examined"] += checked.examined
    result = {**count, "slowest_seconds": round(slowest, 3)}
    print(json.dumps(result))
    (ROOT / "benchmarks/results/verify_documents.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
