"""A step that runs out of memory anywhere is done again in smaller parts, and nothing of the first try stays."""

import gc
import itertools
import json
import os
import random
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.data.loader import iterate_once
from etude.data.prepared import prepare
from etude.engine.out_of_memory import capacity, is_out_of_memory, release, rows_in_parts
from etude.engine.precision import choose_precision
from etude.engine.world import World
from etude.errors import FaultError
from etude.evaluate.tasks import evaluate
from etude.models.catalogue import decoder_config
from etude.models.decoder import Decoder
from etude.objectives.causal import Causal
from etude.recipe.course import Change
from etude.recipe.load import with_changes
from etude.recipe.schema import Recipe
from etude.records.events import Control, Step
from etude.records.store import list_runs
from tests.faults import ERRORS, Aimed, Allocator, train_through
from tests.programs import run_program

Make = Callable[..., Recipe]
ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
SHORT: dict[str, Any] = {"train.steps": 4, "model.dropout": 0.1, "train.micro_batch_size": 8}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", range(metafunc.config.getoption("--shortages")))


def test_a_shortage_of_memory_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as real:
        torch.empty(2**62, dtype=torch.uint8)
    assert all(is_out_of_memory(error) for error in [real.value, *(make() for make in ERRORS)])
    others = [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), ValueError("out of memory"),
        RuntimeError("a row of my data says: CUDA out of memory"), FaultError("CUDA out of memory"),
        torch.distributed.DistBackendError("NCCL error: Cuda failure 'out of memory'"),
    ]  # fmt: skip
    assert not any(map(is_out_of_memory, others))
    assert capacity(CPU) > 2**28


def test_tensors_that_an_error_held_are_free_once_it_is_released() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def inner(deep: int) -> None:
        kept = torch.zeros(3)
        held.append(weakref.ref(kept))
        if deep:
            inner(deep - 1)
        try:
            raise MemoryError
        except MemoryError as error:
            saved = error  # a frame that holds the error that holds it
            raise RuntimeError("std::bad_alloc") from saved

    gc.disable()
    try:
        inner(2)
    except RuntimeError as error:
        assert all(each() is not None for each in held)
        release(error)
        assert all(each() is None for each in held)
    finally:
        gc.enable()


def test_a_step_without_memory_at_a_random_operation_is_as_if_its_parts_had_been_smaller(
    make_recipe: Make, case: int
) -> None:
    drawn = random.Random(case)
    micro = drawn.choice([1, 2, 4, 8])
    recipe = make_recipe({**SHORT, "train.micro_batch_size": micro, "seed": case})
    corpus, allocator = prepare(recipe), Allocator()
    split, vocab_size = corpus.train, corpus.tokenizer.vocab_size
    aimed = Aimed(allocator, drawn.randint(1, 600))
    allocator.error = drawn.choice(ERRORS)
    vars(aimed)["at"] = drawn.randrange(4 * 8 // micro)
    with allocator:
        course, measured, bits = train_through(recipe, split, vocab_size, World(CPU), aimed)
        quiet = Aimed(Allocator(), 0)
        _, again, plain = train_through(recipe, split, vocab_size, World(CPU), quiet, course.changes)
        (change,) = course.changes
        if change.step == 0:  # then the run is the one that began so
            smaller = with_changes(recipe, {change.key: change.value})
            _, *begun = train_through(smaller, split, vocab_size, World(CPU), quiet)
            assert [measured, bits] == begun
    assert allocator.failed == 1
    assert (measured, bits) == (again, plain)


def test_one_of_two_ranks_without_memory_makes_both_do_the_step_again(
    make_recipe: Make, tmp_path: Path, cache: Path, pytestconfig: pytest.Config
) -> None:
    count = pytestconfig.getoption("--shortages")
    (tmp_path / "recipe.json").write_text(json.dumps(make_recipe(SHORT).to_dict()))
    seconds = 240 + 60 * count
    done = run_program("engine/short", [tmp_path, count], cache, ranks=2, seconds=seconds)
    assert done.code == 0, done.err[-2000:]
    first, second = (json.loads((tmp_path / f"short{rank}.json").read_text()) for rank in range(2))
    assert len(first) == count
    for one, other in zip(first, second):
        assert one["equal"] and other["equal"] and one["changes"] == other["changes"]
        assert len(one["changes"]) == 1 and one["failed"] + other["failed"] == 1


def test_a_step_is_void_or_ends_the_run_before_anything_half_updated_is_kept(make_recipe: Make) -> None:
    recipe = make_recipe({**SHORT, "train.steps": 1})
    corpus, counted = prepare(recipe), Allocator()
    split, vocab_size = corpus.train, corpus.tokenizer.vocab_size

    def attempt(allocator: Allocator, operation: int) -> Any:
        aimed = Aimed(allocator, operation)
        vars(aimed)["at"] = 0
        with allocator:
            return train_through(recipe, split, vocab_size, World(CPU), aimed)

    with counted:
        smaller = (Change(0, "train.micro_batch_size", 4),)
        _, *half = train_through(recipe, split, vocab_size, World(CPU), Aimed(counted, 0), smaller)
    ends = []
    for operation in range(1, counted.done, 97):
        allocator = Allocator()
        try:
            course, *done = attempt(allocator, operation)
            ends.append("void" if course.changes else "done")
            assert done == half or not course.changes
        except FaultError as error:
            assert "while step 1 changed the weights" in str(error)
            ends.append("ended")
    kinds = [kind for kind, _ in itertools.groupby(ends)]
    assert kinds == ["void", "ended", "done"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space")
def test_a_run_whose_process_may_map_too_little_goes_on_in_smaller_micro_batches(
    make_recipe: Make, tmp_path: Path
) -> None:
    recipe = make_recipe({
        "model.n_embd": 384, "model.n_layer": 6, "train.steps": 2, "train.seq_len": 128,
        "train.global_batch_size": 16, "train.micro_batch_size": 16, "evaluate.every_steps": 2,
    })  # fmt: skip
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    sizes, steps = [], []
    for name, limit in (("wide", 2**32), ("tight", 450_000_000)):
        subprocess.run(
            [sys.executable, str(Path(__file__).with_name("tight.py")), tmp_path / "recipe.json",
             tmp_path / name, str(limit)],
            check=True, capture_output=True, timeout=240, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        (run,) = list_runs(tmp_path / name)
        found = [entry.event for entry in run.ledger().entries]
        sizes.append([each.changes for each in found if isinstance(each, Control) and each.changes])
        assert run.state == "finished"
        steps.append([(each.targets, each.loss) for each in found if isinstance(each, Step)])
    assert sizes[0] == [] and {"train.micro_batch_size": 8} in sizes[1]
    assert [targets for targets, _ in steps[1]] == [targets for targets, _ in steps[0]]
    assert [loss for _, loss in steps[1]] == pytest.approx([loss for _, loss in steps[0]], rel=1e-4)


def test_an_evaluation_without_memory_scores_its_batches_in_parts(make_recipe: Make) -> None:
    recipe = make_recipe({"data.sample": "document", "train.seq_len": 64})
    corpus, allocator = prepare(recipe), Allocator()
    model = Decoder(decoder_config(recipe.model, vocab_size=corpus.tokenizer.vocab_size, seq_len=64))
    model.init_weights(1)
    precision = choose_precision("fp32", CPU, targets_per_step=1)
    whole = evaluate(model, iterate_once(corpus.train, 2, True), Causal(), precision, World(CPU))
    for operation in (1, 20, 60):
        aimed = Aimed(allocator, operation)
        vars(aimed)["at"] = 1
        with allocator:
            parts = evaluate(model, iterate_once(corpus.train, 2, True), aimed, precision, World(CPU))
        assert (parts.loss, parts.error) == pytest.approx((whole.loss, whole.error), rel=1e-5)
        assert parts.targets == whole.targets
    assert allocator.failed == 3


def test_what_was_too_large_once_is_halved_before_it_is_tried() -> None:
    tried: list[int] = []

    def work(rows: list[Any]) -> list[Any]:
        tried.append(len(rows))
        if len(rows) > 3:
            raise MemoryError
        return rows

    parts = rows_in_parts()
    for _ in range(2):
        assert [row for part in parts.do(list(range(11)), work) for row in part] == list(range(11))
    assert tried == [11, 5, 2, 3, 3, 3, 2, 3, 3, 3] and max(map(len, parts.do([1], work))) == 1
    with pytest.raises(MemoryError):
        rows_in_parts().do([1], lambda rows: work(rows * 9))
