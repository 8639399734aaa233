"""Near-duplicates of many documents: the data gate of etude against datasketch and against rensa used
plainly.

All sides read the same JSONL, use 128 permutations, the same 5-token shingles and Jaccard 0.8. etude also
finds exact duplicates, checks every pair by true Jaccard similarity, and writes down what repeats what; the
peers only estimate.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from measure import WORK, median, peer_python, take_turns, versions, write_result

PEER = ["datasketch==2.0.0", "rensa==0.5.0", "numpy"]
DATA = WORK / "dedup"
CLAIM = "Seconds to find the near-duplicates of documents, and peak memory of all processes together"
GOAL = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--compared", type=int, default=100_000, help="most documents that the peers get")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--gigabytes", type=float, default=0, help="instead: etude alone on one file of this size"
    )
    asked = parser.parse_args()
    DATA.mkdir(parents=True, exist_ok=True)
    if asked.gigabytes:
        _large(asked.gigabytes)
        return
    python = peer_python("datasketch", PEER)
    result: dict[str, Any] = {}
    rows = []
    for count in asked.documents:
        file = DATA / f"{count}.jsonl"
        copies = _write_rows(file, count)
        sides: dict[str, Callable[[], dict[str, Any]]] = {"etude": partial(_etude, file)}
        if count <= asked.compared:
            for peer in ("datasketch", "rensa"):
                sides[peer] = partial(_measure, [str(python), __file__, "worker", peer, str(file)])
        taken = take_turns(sides, asked.turns if count <= asked.compared else 1)
        told = {
            side: {
                "seconds": round(median([turn["seconds"] for turn in turns]), 3),
                "peak_bytes": round(median([turn["peak_bytes"] for turn in turns])),
                "found": turns[0]["found"],
            }
            for side, turns in taken.items()
        }
        result[str(count)] = {"bytes": file.stat().st_size, "planted": copies, **told}
        for side, r in told.items():
            ratio = round(r["seconds"] / told["etude"]["seconds"], 2)
            rows.append(
                [f"{count:,}", side, r["seconds"], ratio, f"{r['peak_bytes'] / 1e6:.0f}", f"{r['found']:,}"]
            )
    head = ["documents", "side", "seconds", "times etude's", "peak MB", "duplicates found"]
    facts = {"goal": GOAL, "peer": versions(python, ["datasketch", "rensa"])}
    write_result("dedup", CLAIM, {**facts, "sizes": result}, [head, *rows])


def _large(gigabytes: float) -> None:
    file = DATA / "large.jsonl"
    _write_rows(file, None, size=int(gigabytes * 1e9), lines=(40, 400))
    told = {"bytes": file.stat().st_size, **_etude(file)}
    file.unlink()
    table = [["GB", "seconds", "peak MB of all processes"]]
    row = [f"{told['bytes'] / 1e9:.1f}", f"{told['seconds']:.0f}", f"{told['peak_bytes'] / 1e6:.0f}"]
    write_result("dedup-large", "The data gate on one large file: memory stays bounded", told, [*table, row])


def _write_rows(
    path: Path, count: int | None, *, size: int = 2**62, lines: tuple[int, int] = (4, 16), seed: int = 1
) -> int:
    """Documents made of lines of the standard library drawn by chance, one in ten a copy with a
    word changed."""
    draw = random.Random(seed)
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    pool = sorted({line for file in files for line in file.read_text("utf-8").splitlines() if len(line) > 20})
    recent: list[str] = []
    written = number = copies = 0
    with path.open("w", encoding="utf-8") as output:
        while (count is None or number < count) and written < size:
            if recent and draw.random() < 0.1:
                text = re.sub(r"\b[a-z]+\b", "changed", draw.choice(recent), count=1)
                copies += 1
            else:
                text = "\n".join(draw.choices(pool, k=draw.randint(*lines)))
                recent = [*recent[-99:], text]
            line = json.dumps({"text": text}) + "\n"
            output.write(line)
            written, number = written + len(line), number + 1
    return copies


def _etude(file: Path) -> dict[str, Any]:
    code = (
        "import sys, json; from etude.recipe.load import recipe_from; from etude.data.gate import examine;"
        "gate = examine(recipe_from({'name': 'x', 'tokenizer': {'train_vocab_size': 300}, 'data': {'train': "
        "[{'path': sys.argv[1]}], 'deduplicate': 'near'}, 'train': {'steps': 1, 'global_batch_size': 1}}), "
        "again=True);print(json.dumps({'found': int((gate.same_as >= 0).sum())}))"
    )
    return _measure([sys.executable, "-c", code, str(file)])


def _measure(command: Sequence[str]) -> dict[str, Any]:
    """Seconds, what it printed, and the most memory that it and its children had at once, looked at every 50
    ms.
    """
    import psutil

    started = time.perf_counter()
    environment = {**os.environ, "ETUDE_CACHE": str(DATA / "cache")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    watched, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        try:
            everyone = [watched, *watched.children(recursive=True)]
            peak = max(peak, sum(each.memory_info().rss for each in everyone))
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.05)
    seconds = time.perf_counter() - started
    assert process.stdout is not None
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}")
    return {
        "seconds": seconds,
        "peak_bytes": peak,
        **json.loads(process.stdout.read().strip().splitlines()[-1]),
    }


def _shingles(text: str) -> list[str]:
    tokens = re.findall(r"\w+|[^\w\s]", text.lower())
    return [" ".join(tokens[at : at + 5]) for at in range(max(len(tokens) - 4, 1))]


def _run_peer(side: str, path: str) -> None:
    found = 0
    with Path(path).open(encoding="utf-8") as file:
        texts = (json.loads(line)["text"] for line in file)
        if side == "datasketch":
            from datasketch import MinHash, MinHashLSH

            index = MinHashLSH(threshold=0.8, num_perm=128)
            for number, text in enumerate(texts):
                sketch = MinHash(num_perm=128)
                sketch.update_batch([shingle.encode() for shingle in set(_shingles(text))])
                if index.query(sketch):
                    found += 1
                else:
                    index.insert(number, sketch, check_duplication=False)
        else:
            from rensa import RMinHashDeduplicator

            deduplicator = RMinHashDeduplicator(threshold=0.8, num_perm=128, use_lsh=True)
            kept = deduplicator.add_pairs((str(number), _shingles(text)) for number, text in enumerate(texts))
            found = sum(not each for each in kept)
    print(json.dumps({"found": found}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        _run_peer(sys.argv[2], sys.argv[3])
    else:
        main()
