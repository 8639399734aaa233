"""`etude prepare` from JSONL to tokens on disk, against `datasets.map` with the same tokenizer, and again
when cached.

etude also hashes, groups, fsyncs and checks what it writes; both sides start as a new process and end with
tokens on disk.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import WORK, answer, median, peer_python, take_turns, versions, write_result

PEER = ["datasets", "transformers==5.23.0", "tokenizers==0.23.3"]
DATA = WORK / "prepare"
VOCABULARY, CACHED_LIMIT_SECONDS = 8192, 1.0
CLAIM = "Seconds to tokenise JSONL end to end, against datasets.map (the better of 1 and 2 processes), and peak memory"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=40)
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    DATA.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(DATA / "tokenizer.json")
    small, large = DATA / "quarter.jsonl", DATA / "whole.jsonl"
    _write_rows(small, asked.megabytes * 10**6 // 4)
    _write_rows(large, asked.megabytes * 10**6)
    python = peer_python("datasets", PEER)
    sides = {
        "etude": lambda: _etude(large, again=True),
        "etude, cached": lambda: _etude(large, again=False),
        "etude, a quarter of the rows": lambda: _etude(small, again=True),
        "datasets, 1 process": lambda: _datasets(python, large, 1),
        "datasets, 2 processes": lambda: _datasets(python, large, 2),
    }
    taken = take_turns(sides, asked.turns)
    result: dict[str, Any] = {
        side: {
            "seconds": round(median([turn["seconds"] for turn in turns]), 3),
            "peak_bytes_of_largest_process": round(median([turn["peak_bytes"] for turn in turns])),
            "tokens": turns[0]["tokens"],
        }
        for side, turns in taken.items()
    }
    best = min(result[side]["seconds"] for side in result if side.startswith("datasets"))
    rows = [
        [side, r["seconds"], round(r["seconds"] / best, 2), f"{r['peak_bytes_of_largest_process'] / 1e6:.0f}"]
        for side, r in result.items()
    ]
    facts = {
        "bytes": large.stat().st_size,
        "ratio": round(result["etude"]["seconds"] / best, 3),
        "cached_limit_seconds": CACHED_LIMIT_SECONDS,
        "peer": versions(python, ["datasets", "transformers", "tokenizers"]),
    }
    write_result(
        "prepare",
        CLAIM,
        {**facts, "sides": result},
        [["side", "seconds", "share of best peer's", "peak MB"], *rows],
    )


def _write_tokenizer(path: Path) -> None:
    from etude.data.bpe import train_tokenizer
    from etude.data.sources import read_documents
    from etude.recipe.data import Source

    if not path.exists():
        documents = (document.text for document in read_documents(Source(source="python-stdlib")))
        path.write_text(train_tokenizer(documents, VOCABULARY).to_json(), "utf-8")


def _write_rows(path: Path, size: int) -> None:
    """Files of the standard library as rows, over and over, each with a first line of its own."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*/*.py"))
    texts = [
        file.read_text("utf-8")
        for file in files
        if "site-packages" not in file.parts and "test" not in file.parts
    ]
    written = row = 0
    with path.open("w", encoding="utf-8") as output:
        while written < size:
            line = json.dumps({"text": f"# row {row}\n{texts[row % len(texts)]}"}) + "\n"
            output.write(line)
            written, row = written + len(line), row + 1


def _etude(rows: Path, *, again: bool) -> dict[str, Any]:
    recipe = DATA / f"{rows.stem}.toml"
    recipe.write_text(
        'name = "bench-prepare"\n[tokenizer]\nfrom = "tokenizer.json"\n[[data.train]]\npath = '
        f'"{rows.name}"\n'
        "[train]\nsteps = 1\nglobal_batch_size = 8\n[schedule]\nwarmup_steps = 0\n"
    )
    command = [
        sys.executable,
        "-m",
        "etude",
        "prepare",
        str(recipe),
        "--json",
        *(["--again"] if again else []),
    ]
    measured = _measure(command, {"ETUDE_CACHE": str(DATA / "cache")})
    return measured | {
        "tokens": sum(source["tokens"] for source in json.loads(measured.pop("output"))["sources"])
    }


def _datasets(python: Path, rows: Path, processes: int) -> dict[str, Any]:
    cache = DATA / "datasets"
    shutil.rmtree(cache, ignore_errors=True)
    command = [str(python), __file__, "worker", str(rows), str(processes), str(cache)]
    measured = _measure(command, {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"})
    told: dict[str, Any] = json.loads(measured.pop("output").strip().splitlines()[-1][1:])
    return measured | told


def _measure(command: Sequence[str], environment: dict[str, str]) -> dict[str, Any]:
    """Seconds, output, and the peak of the largest process, which for the peer leaves out what its workers
    add.
    """
    code = (
        "import json, resource, subprocess, sys, time; started = time.perf_counter();"
        "output = subprocess.run(sys.argv[1:], check=True, stdout=subprocess.PIPE, text=True).stdout;"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss;"
        "print(json.dumps([time.perf_counter() - started, peak, output]))"
    )
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        check=True,
        capture_output=True,
        text=True,
        env=kept | environment,
    )
    seconds, peak, output = json.loads(done.stdout)
    return {
        "seconds": seconds,
        "peak_bytes": peak * (1 if sys.platform == "darwin" else 1024),
        "output": output,
    }


def _run_datasets(rows: str, processes: int, cache: str) -> None:
    from datasets import load_dataset
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(DATA / "tokenizer.json"))
    loaded = load_dataset("json", data_files=rows, split="train", cache_dir=cache)
    mapped = loaded.map(
        lambda batch: {"input_ids": tokenizer(batch["text"], return_attention_mask=False)["input_ids"]},
        batched=True,
        num_proc=processes,
        remove_columns=["text"],
    )
    # Counted in the stored table; one end token a row, which etude writes too.
    lengths = mapped.data.column("input_ids")
    answer({"tokens": sum(len(chunk.values) for chunk in lengths.chunks) + len(mapped)})


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        _run_datasets(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        main()
