"""One of two ranks that run out of memory in turn: folder, cases. Writes what differed from a quiet run."""

import json
import random
import sys
from pathlib import Path

import torch

from etude.data.prepared import prepare
from etude.engine.world import join_world
from etude.recipe.load import recipe_from, with_changes
from tests.faults import ERRORS, Aimed, Allocator, train_through

folder, cases = Path(sys.argv[1]), int(sys.argv[2])
recipe = recipe_from(json.loads((folder / "recipe.json").read_text()))
corpus = prepare(recipe)
split, vocab_size = corpus.train, corpus.tokenizer.vocab_size
world = join_world(torch.device("cpu"))
done: list[object] = []
for case in range(cases):
    drawn = random.Random(f"{case}")
    micro, rank = drawn.choice([1, 2, 4]), drawn.randrange(2)
    tried = with_changes(recipe, {"train.micro_batch_size": micro, "seed": case})
    allocator = Allocator()
    objective = Aimed(allocator, drawn.randint(1, 600))
    allocator.error = drawn.choice(ERRORS)
    at = drawn.randrange(4 * 4 // micro)  # micro-batches of a rank in all steps
    if case % 5 == 0:  # in the optimizer's state of the first step, or the buffer of the exchange
        vars(objective).update(operation=drawn.choice([1, 30, 52]), at_begin=world.rank == rank)
    else:
        vars(objective)["at"] = at if world.rank == rank else -1
    with allocator:
        course, measured, bits = train_through(tried, split, vocab_size, world, objective)
        quiet = Aimed(Allocator(), 0)
        _, again, plain = train_through(tried, split, vocab_size, world, quiet, course.changes)
    done.append({
        "failed": allocator.failed, "changes": [[each.step, each.key, each.value] for each in course.changes],
        "equal": measured == again and bits == plain, "rank": rank,
    })  # fmt: skip
(folder / f"short{world.rank}.json").write_text(json.dumps(done))
world.leave()
