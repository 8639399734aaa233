"""Look whether each fault of the third blind test is one: what the run says, and what its model is worth.

python benchmarks/watch/blind_third_truth.py [--tell FILE]

Each case and its setup without the fault is trained for 240 steps with the watch off. `trained` is the loss of
the last 20 steps as the run has it; `worth` is that of tokens of held-out rows without the fault, each asked for
after the tokens before it alone, as in writing. To be run after `blind_third.py`; its figures are put into
results/watch_blind_third.json beside the runs.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from etude import Metric, Options, Training
from etude.recipe.load import change, recipe_from
from watch.blind import ACCEPTED
from watch.blind_third import TWIN, build, recipe_values
from watch.blind_third_losses import samples, scores
from watch.blind_third_shapes import SHAPES
from watch.grid import quick

RESULT = Path(__file__).resolve().parents[1] / "results" / "watch_blind_third.json"
STEPS, LAST, PLACES = 240, 20, 160


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tell", type=Path, required=True, help="JSON Lines of finished runs, added to")
    options = parser.parse_args()
    told = options.tell.read_text("utf-8").splitlines() if options.tell.exists() else []
    done = {tuple(run["case"]): run for run in map(json.loads, told)}
    for case in [
        (cause, shape, seed) for cause in (TWIN, *ACCEPTED) for shape in SHAPES for seed in range(2)
    ]:
        if case not in done:
            done[case] = {"case": case, **look(*case)}
            print(json.dumps(done[case]), file=sys.stderr, flush=True)
            with options.tell.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[case]) + "\n")
    if not RESULT.exists():
        raise SystemExit("run blind_third.py first: its result is not there yet; what was found is kept")
    result = json.loads(RESULT.read_text("utf-8"))
    for run in result["runs"]:
        case = (run["cause"], run["shape"], run["seed"])
        if case in done:
            twin = done[TWIN, *case[1:]]
            run["truth"] = {
                "trained": done[case]["trained"], "worth": done[case]["worth"],
                "trained_without": twin["trained"], "worth_without": twin["worth"],
            }  # fmt: skip
    RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def look(cause: str, shape: str, seed: int) -> dict[str, float]:
    """Train a case, and ask its model for tokens of rows without the fault."""
    setup, found, losses = build(cause, shape, seed), list[float](), list[float]()
    setup.held_out = build(TWIN, shape, seed).held_out
    if cause == "answer in the prompt":
        setup.held_out = _clean_questions(shape, seed) or setup.held_out

    def worth(model: Any, batches: Any) -> float:
        found.append(_worth(model, batches))
        return found[-1]

    with (
        quick(),
        tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as home,
    ):
        values = change(recipe_values(setup, shape, seed, Path(home)), setup.values)
        recipe = recipe_from(change(values, {"watch.policy": "off", "evaluate.every_steps": STEPS}))
        training = Training(
            recipe,
            Options(
                Path(home) / "runs", new=True, loss=setup.loss, model=setup.model,
                metrics={"worth": Metric(worth, lower_is_better=True)},
            ),
        )  # fmt: skip
        with setup.broken():
            for step in training:
                losses.append(float(step.measured[0] / step.measured[1]))
                if step.number == STEPS:
                    break
    return {"trained": round(sum(losses[-LAST:]) / LAST, 3), "worth": round(found[-1], 3)}


def _clean_questions(shape: str, seed: int) -> list[dict[str, Any]]:
    """Held-out rows of instructions without their answers in them, for cases that have texts otherwise."""
    from watch import blind_third as cases
    from watch.blind_rows import as_rows
    from watch.blind_third_rows import pairs

    if (shape, seed) == ("tuned", 0):
        return []
    rows = as_rows(list(pairs(cases._PAIRS[shape, seed])[:2000]))
    return rows[: min(128, len(rows) // 6)]


def _worth(model: Any, batches: Any) -> float:
    """Mean loss of tokens after the ones before them alone."""
    found: list[float] = []
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for batch in batches:
            for tokens, labels in samples(batch):
                places = (labels != -100).nonzero().flatten()
                for place in places[torch.randperm(len(places), generator=draw)[:4]].tolist():
                    logits = scores(model, tokens[None, : place + 1])[0, -1].float()
                    found.append(-float(logits.log_softmax(-1)[labels[place]]))
                if len(found) >= PLACES:
                    return sum(found) / len(found)
    return sum(found) / len(found)


if __name__ == "__main__":
    main()
