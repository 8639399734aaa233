"""Memory of a rank while a model of files is put together and evaluated: whole, and in pieces over 2 and
4 ranks.

A Qwen2 shape with random weights in fp32. Counted is the anonymous memory of each rank (RssAnon), looked
at every millisecond; pages of the file, which the system takes back at any time, are not in it.
"""

import contextlib
import ctypes
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from measure import FOLDER, WORK, write_result

sys.path.insert(0, str(FOLDER.parent))

import torch

from etude.assemble import assemble
from etude.data.batch import Batch
from etude.engine.loop import TrainState
from etude.engine.world import World
from etude.evaluate.generate import generate
from etude.evaluate.tasks import evaluate
from etude.joining import join_ranks
from etude.plan import Plan, make_plan
from etude.recipe.load import change, recipe_from
from etude.start import Options
from tests.bases import SMALL, write_instructions, write_model, write_qwen2
from tests.ranks import Forks
from tests.recipes import finetuning

CLAIM = (
    "the most anonymous memory that a rank takes while it puts a model of files together, and then while it evaluates it "
    "(losses of 8 rows of 64 tokens, 8 tokens of text), beside the bytes of its weights"
)
_MMAP_THRESHOLD = -3  # of malloc.h
SHAPE = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 12,
    "vocab_size": 32768,
    "max_position_embeddings": 128,
}


def main() -> None:
    ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 1 << 16)  # what is freed goes back at once
    folder = WORK / "ranks-memory"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["ETUDE_CACHE"] = str(folder / "cache")
    base = write_qwen2(folder / "small")  # whose tokenizer the larger one has
    large = folder / "large"
    write_model(large, "qwen2", SMALL | SHAPE | {"tie_word_embeddings": True})
    for path in base.glob("tok*"):
        shutil.copy(path, large)
    rows = write_instructions(folder / "rows.jsonl", 40)
    result: dict[str, Any] = {}
    for ranks, parallel in ((1, "auto"), (2, "replicate"), (2, "shard"), (4, "replicate"), (4, "shard")):
        changes = {"train.devices": ranks, "train.parallel": parallel, "train.micro_batch_size": 1}
        recipe = change(finetuning(rows, large).to_dict(), changes)
        out = folder / f"{parallel}-{ranks}"
        out.mkdir()
        live, meeting = partial(_measure, recipe, out), out if ranks > 1 else None
        said = Forks(ranks, live, out, folder=meeting).wait()
        assert not any(said.values()), said
        found = [json.loads((out / f"found-{rank}.json").read_text()) for rank in range(ranks)]
        result[f"{parallel}, {ranks}"] = {
            "held_bytes": max(each["held"] for each in found),
            "peak_bytes": max(each["peak"] for each in found),
            "evaluation_bytes": max(each["evaluation"] for each in found),
            "loss": found[0]["loss"],
            "largest_tensor_bytes": found[0]["largest"],
        }
    names = ["held_bytes", "peak_bytes", "evaluation_bytes", "largest_tensor_bytes"]
    table = [
        ["ranks", *names],
        *([line, *(f"{found[name] / 1e6:.0f} MB" for name in names)] for line, found in result.items()),
    ]
    write_result("ranks_memory", CLAIM, result, table)


def _measure(recipe: dict[str, Any], out: Path, rank: int) -> None:
    torch.set_num_threads(1)
    ctypes.CDLL(None).malloc_trim(0)  # what the fork has of its parent, and nobody uses
    plan = make_plan(recipe_from(recipe))
    with contextlib.ExitStack() as stack:
        world = join_ranks(plan, stack)
        before = _anonymous()
        with _looking() as peak:
            state, _ = assemble(plan, Options(), world)
        sizes = [each.nbytes for each in state.parameters.values()]
        whole = [each.numel() * 4 for each in state.model.parameters()]
        found: dict[str, float] = {"peak": peak[0] - before, "held": sum(sizes), "largest": max(whole)}
        world.wait()
        with _looking() as peak:
            loss = _evaluate(plan, state, world)
        found |= {"evaluation": peak[0] - before, "loss": loss}
        (out / f"found-{rank}.json").write_text(json.dumps(found))


def _evaluate(plan: Plan, state: TrainState, world: World) -> float:
    """The loss of some rows, each rank its part of them, and a text of rank 0."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(100, (8, 64), generator=generator).numpy()
    batches = [Batch(tokens=row[None], labels=row[None]) for row in rows[world.rank :: world.size]]
    with state.gathered():
        score = evaluate(state.model, batches, plan.tasks[0].kind, state.precision, world)
        if world.is_main:
            generate(state.model, [[1, 2, 3]], end_ids=[0], max_tokens=8)
    return score.loss


@contextlib.contextmanager
def _looking() -> Iterator[list[int]]:
    """The most anonymous memory while entered, once it is left."""
    peak, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.001):
            peak[0] = max(peak[0], _anonymous())

    thread = threading.Thread(target=look)
    thread.start()
    yield peak
    time.sleep(0.01)
    ended.set()
    thread.join()


def _anonymous() -> int:
    """Bytes of this process that no file has."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")
    )
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
