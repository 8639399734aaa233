"""Step time of a run whose channel is a server that never answers, against the same run without a channel.

    python benchmarks/notify.py

The runs are made in turn, each in a process of its own, and tell of every evaluation and finding. Figures are
the medians of the steps of a run but its first ten, and the median ratio of two runs of a turn, with the
smallest and largest.
"""

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).parents[1]
TRAIN = """
import sys
from pathlib import Path
from etude.recipe.load import recipe_from
from etude.run import run_recipe
from etude.start import Options
import etude.notify.notifier as notifier

rows, runs, steps, hangs = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "hangs"
notifier.END_SECONDS = 0.5
recipe = recipe_from({
    "name": "bench", "model": {"n_layer": 4, "n_head": 4, "n_embd": 128}, "tokenizer": {"train_vocab_size": 500},
    "data": {"train": [{"path": rows}]},
    "train": {"steps": steps, "seq_len": 64, "global_batch_size": 8, "device": "cpu", "precision": "fp32"},
    "evaluate": {"every_steps": 20, "max_samples": 8}, "records": {"log_every_steps": 5},
    "notify": [{"channel": "webhook", "on": ["evaluation", "finding", "milestone", "finished"]}] if hangs else [],
})
run = run_recipe(recipe, Options(runs=runs, new=True)).run
told = (run.path / "outbox.jsonl").read_text().count("evaluation ") if hangs else 0
assert not hangs or told > 1, "nothing was told"
seconds = [each.event.seconds for each in run.ledger().entries if type(each.event).__name__ == "Step"]
print(sorted(seconds[10:])[len(seconds[10:]) // 2])
"""


def hold_all(server: socket.socket, held: list[socket.socket]) -> None:
    """Accept whoever comes, and say nothing."""
    while True:
        held.append(server.accept()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args()
    server, held = socket.create_server(("127.0.0.1", 0)), list[socket.socket]()
    threading.Thread(target=hold_all, args=(server, held), daemon=True).start()
    found: dict[str, list[float]] = {"none": [], "hangs": []}
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        draw = random.Random(3)
        texts = [f"def f{draw.random()}(x):\n    return x * {draw.random()}\n" for _ in range(300)]
        rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "ETUDE_CACHE": f"{folder}/cache",
            "ETUDE_WEBHOOK_URL": f"http://127.0.0.1:{server.getsockname()[1]}/",
        }  # fmt: skip
        for turn in range(given.turns):
            for name in ("none", "hangs") if turn % 2 else ("hangs", "none"):
                words = [sys.executable, "-c", TRAIN, str(rows), f"{folder}/runs", str(given.steps), name]
                done = subprocess.run(
                    words, env=environment, cwd=folder, capture_output=True, text=True, check=True
                )
                found[name].append(float(done.stdout.split()[-1]))
    ratios = [hangs / none for none, hangs in zip(found["none"], found["hangs"])]
    result = {
        "steps": given.steps, "turns": given.turns, "connections": len(held), "seconds": found,
        "ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios),
    }  # fmt: skip
    (ROOT / "benchmarks" / "results" / "notify.json").write_text(json.dumps(result, indent=2) + "\n")
    none, hangs = (statistics.median(found[name]) * 1000 for name in ("none", "hangs"))
    print(f"median step: {none:.2f} ms without a channel, {hangs:.2f} ms with one that hangs")
    print(f"ratio {result['ratio']:.3f} ({result['lowest']:.3f} to {result['highest']:.3f})")


if __name__ == "__main__":
    main()
