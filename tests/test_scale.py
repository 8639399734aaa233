"""One process plays any rank of 1,024: samples, rows, bytes and memory are those that the whole run needs."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd.profiler import profile
from torch.distributed.tensor.placement_types import Shard
from torch.utils._python_dispatch import TorchDispatchMode

from etude import durable
from etude.data.loader import Loader, StepBatches, rank_part, sample_ids
from etude.engine.loop import TrainState, train
from etude.engine.optim import Optimizer
from etude.engine.precision import choose_precision
from etude.engine.shards import Shards
from etude.engine.tensor_files import Piece, begin_file, safetensors, write_rows
from etude.engine.world import World
from etude.errors import InputError
from etude.gpus import GPUS
from etude.links import Cluster
from etude.models.build import draw_weights
from etude.models.families.table import family_of
from etude.models.layers import fill
from etude.objectives.causal import Causal
from etude.plan.assumed import plan_without
from etude.plan.memory import Subject, estimate_memory
from etude.plan.traffic import traffic_of
from etude.recipe.course import Course
from etude.recipe.load import recipe_from
from tests.fake_ranks import as_rank
from tests.plan.steps import build, decoder, encoder, encoder_decoder, peak_of, recipe_of, rows, subject
from tests.recipes import tiny

RANKS = 1024
CASE = subject(recipe_of(), decoder(n_layer=4, n_embd=128, n_ffn=512, vocab_size=600), Causal(), rows(2, 16))
PLAYED = (0, 1, 511, RANKS - 1)


def test_samples_of_1024_ranks_are_those_of_the_step(tmp_path: Path) -> None:
    changes = {"train.devices": RANKS, "train.global_batch_size": 2048, "model.vocab_size": 300}
    recipe = recipe_from(tiny(tmp_path / "not-here.jsonl", changes))
    plan, _ = plan_without(recipe, rows=5000)
    for step in (0, 2, 3):  # the third is shorter, and the fourth begins another epoch
        whole = sample_ids(step, n=5000, global_batch_size=2048, seed=recipe.seed)
        parts = [rank_part(whole, rank, RANKS) for rank in range(RANKS)]
        assert np.array_equal(np.concatenate(parts), whole) and len(set(whole.tolist())) == len(whole)
        assert {len(each) for each in parts} <= {len(whole) // RANKS, len(whole) // RANKS + 1}
        for rank in PLAYED:
            loader = Loader(
                plan.train, global_batch_size=2048, micro_batch_size=2, seed=recipe.seed,
                attend_across_documents=False, rank=rank, ranks=RANKS,
            )  # fmt: skip
            assert np.array_equal(loader.load(step).ids, parts[rank])


@pytest.mark.parametrize("length", [1, 64, 1023, 1024, 1025, 50_257])
def test_rows_of_1024_ranks_tile_a_tensor_as_torch_deals_them_out(length: int) -> None:
    pieces = [Piece.of((length, 3), rank, RANKS) for rank in range(RANKS)]
    assert [row for each in pieces for row in range(each.first, each.first + each.rows)] == list(
        range(length)
    )
    for rank, each in enumerate(pieces):
        size, first = Shard.local_shard_size_and_offset(length, RANKS, rank)
        assert each.rows == size and (each.first == first or not size)


def test_the_files_that_1024_ranks_write_are_those_of_one(tmp_path: Path) -> None:
    tensors = {"wide": torch.randn(1500, 3), "norm": torch.randn(64), "step": torch.tensor(7.0)}
    durable.write_file(tmp_path / "whole", safetensors(tensors))

    def held(rank: int) -> tuple[dict[str, torch.Tensor], dict[str, Piece]]:
        places = {
            name: Piece.of(tuple(each.shape), rank, RANKS) for name, each in tensors.items() if each.dim()
        }
        return tensors | {
            name: tensors[name][place.first : place.first + place.rows] for name, place in places.items()
        }, places

    begin_file(tmp_path / "parts", *held(0))
    for rank in range(RANKS):
        write_rows(tmp_path / "parts", *held(rank), is_main=rank == 0)
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.fixture(params=PLAYED)
def played(request: pytest.FixtureRequest) -> Iterator[tuple[TrainState, int]]:
    """The state of a rank after a step, and the numbers of all its weights."""
    with as_rank(request.param, RANKS) as world:
        state = begin(CASE, world)
        assert state.shards is not None
        total = sum(math.prod(each.shape) for each in state.shards.places.values())
        run_steps(CASE, state, world)
        yield state, total


def begin(case: Subject, world: World) -> TrainState:
    model = build(case)
    shards = Shards(model, world, case.batch)
    precision = choose_precision(case.precision, world.device, targets_per_step=1)
    optimizer = Optimizer(model, case.recipe.optim, shards)
    return TrainState(model, optimizer, precision, Course(case.recipe, 9), shards=shards)


def run_steps(case: Subject, state: TrainState, world: World, count: int = 3) -> None:
    step = StepBatches(0, 0, 1, np.zeros(1, dtype=np.int64), [case.batch] * (2 if case.accumulates else 1))
    for _ in train(state, [step] * count, case.objective, world):
        pass


def test_a_rank_of_1024_holds_a_1024th_of_weights_and_optimizer_state(played: tuple[TrainState, int]) -> None:
    state, total = played
    assert state.shards is not None
    rank, pieces = state.shards.world.rank, state.shards.pieces
    for name, place in state.shards.places.items():
        assert tuple(pieces[name].shape) == (place.rows, *place.shape[1:]) and place.rows <= 1
        assert place == Piece.of(place.shape, rank, RANKS)
    held = sum(each.numel() for each in pieces.values())
    assert held < total / 100  # tensors of fewer rows than ranks lie on the first of these
    moments = [
        value for _, values in state.optimizer.states() for name, value in values.items() if name != "step"
    ]
    assert sum(each.numel() for each in moments) == 2 * held


@pytest.mark.parametrize("accumulates", [False, True])
@pytest.mark.parametrize("ranks", [2, 64])
def test_the_memory_of_a_rank_is_that_of_the_trace(ranks: int, accumulates: bool) -> None:
    case = replace(CASE, accumulates=accumulates, pieces=ranks)
    with as_rank(0, ranks) as world:
        state = begin(case, world)
        assert state.shards is not None
        held = sum(each.nbytes for each in state.shards.pieces.values())
        with profile(profile_memory=True) as profiled:
            run_steps(case, state, world)
    measured = peak_of(profiled, held)
    assert measured <= estimate_memory(case).peak <= 1.45 * measured


KINDS = {"_allgather_base_": "all-gather", "_reduce_scatter_base_": "reduce-scatter"}


class Calls(TorchDispatchMode):
    """Notes the exchanges that a step makes: their number and the bytes of the whole, by kind."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts, self.nbytes = Counter[str](), Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2]
        if name in KINDS:
            self.counts[KINDS[name]] += 1
            self.nbytes[KINDS[name]] += max(each.nbytes for each in args if isinstance(each, torch.Tensor))
        return func(*args, **(kwargs or {}))


def test_the_exchanges_of_a_step_are_those_of_the_estimate(tmp_path: Path) -> None:
    sizes = {"model.vocab_size": 600, "model.n_embd": 64, "train.micro_batch_size": 1, "train.devices": 4}
    recipe = recipe_from(tiny(tmp_path / "not-here", {**sizes, "train.parallel": "shard"}))
    plan, _ = plan_without(recipe, rows=100)
    made = traffic_of(plan, Cluster(GPUS["h100"].link))
    assert made is not None
    case = replace(CASE, recipe=recipe, model=plan.model, accumulates=True)  # as two passes of a step
    with as_rank(1, 4) as world:
        state = begin(case, world)
        with Calls() as calls:
            run_steps(case, state, world, 1)
    for each in made.exchanges:
        assert (calls.counts[each.kind], calls.nbytes[each.kind]) == (each.count, each.nbytes)


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize(
    "config", [decoder(), encoder(), encoder_decoder()], ids=lambda each: type(each).__name__
)
def test_a_new_model_in_pieces_has_the_rows_of_a_whole_one(config: Any, rank: int) -> None:
    family = family_of(config)
    whole = family.make(config, 0)
    fill(whole, draw_weights(whole, 3))
    model = family.empty(config)
    with as_rank(rank, 3) as world:
        shards = Shards(model, world, CASE.batch)
        shards.fill(draw_weights(model, 3))
        for name, parameter in whole.named_parameters():
            place = shards.places[name]
            assert torch.equal(shards.pieces[name], parameter[place.first : place.first + place.rows])


def test_a_model_that_has_no_rows_is_refused() -> None:
    model = torch.nn.Module()
    model.scale = torch.nn.Parameter(torch.tensor(1.0))
    with (
        as_rank(0, 2) as world,
        pytest.raises(InputError, match=r"this model cannot be sharded .*scalar") as said,
    ):
        Shards(model, world, CASE.batch)
    assert "\n" not in str(said.value)
