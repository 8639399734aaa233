"""A model is put together with the weights that were asked for, and described so that others load it."""

import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor

from etude.assemble import assemble, model_files
from etude.audit.loaded import find_not_loaded
from etude.engine.checkpoint import trained_tensors
from etude.engine.world import World
from etude.errors import InputError
from etude.joining import join_ranks
from etude.plan import make_plan
from etude.recipe.schema import Recipe
from etude.records.store import Run
from etude.run import run_recipe
from etude.start import Options
from tests import recipes
from tests.bases import (
    write_encoder,
    write_gptj,
    write_instructions,
    write_labelled,
    write_pairs,
    write_qwen2,
    write_t5,
)
from tests.objectives.sessions import begun
from tests.ranks import Forks

Make = Callable[..., Recipe]
SHORT = {"train.steps": 4, "evaluate.every_steps": 4}


@pytest.fixture
def run(tmp_path: Path, make_recipe: Make) -> Run:
    return run_recipe(make_recipe(SHORT), Options(runs=tmp_path / "runs")).run


def test_a_run_begins_with_the_weights_of_another(run: Run, tmp_path: Path, make_recipe: Make) -> None:
    folder = run.checkpoints / "step-000004"
    options = {"weights": str(folder)}
    with begun(make_recipe({**SHORT, "seed": 5}), tmp_path / "other", **options) as session:
        weights = session.state.model.state_dict()
        saved = load_file(folder / "model.safetensors")
        assert saved and all(weights[name].equal(tensor) for name, tensor in saved.items())
        assert session.state.step == 0 and not session.examiner.is_fresh
    with begun(make_recipe({**SHORT, "seed": 5}), tmp_path / "fresh") as session:
        assert any(not session.state.model.state_dict()[name].equal(each) for name, each in saved.items())


def test_a_whole_model_is_no_adapter(run: Run, tmp_path: Path, make_recipe: Make) -> None:
    changes = {
        "model": {"from": str(write_qwen2(tmp_path / "base"))},
        "adapter": {"rank": 2},
        "tokenizer": {},
    }
    options = Options(runs=tmp_path / "tuned", weights=str(run.checkpoints / "step-000004"))
    with pytest.raises(
        InputError, match=r"holds a whole model, but it trains \[adapter\]; give weights of the"
    ):
        run_recipe(make_recipe({**SHORT, **changes}), options)
    assert not (tmp_path / "tuned").exists()


def test_the_files_beside_the_weights_make_a_model_that_transformers_loads(run: Run) -> None:
    folder = run.checkpoints / "step-000004"
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    saved = load_file(folder / "model.safetensors")
    state = loaded.state_dict()
    assert all(state[name].equal(tensor) for name, tensor in saved.items())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("def f(x):", return_tensors="pt").input_ids
    assert loaded(ids).logits.isfinite().all() and int(ids.max()) < loaded.config.vocab_size


def test_a_module_of_ones_own_has_the_files_of_its_tokenizer_only(tmp_path: Path, make_recipe: Make) -> None:
    model = torch.nn.Embedding(300, 300)

    def loss(model: torch.nn.Module, batch: object) -> tuple[torch.Tensor, int]:
        return model.weight.sum(), 1  # type: ignore[union-attr,operator]

    with begun(make_recipe(SHORT), tmp_path, model=model, loss=loss) as session:
        files = model_files(session.plan, session.state.model)
    assert "config.json" not in files and json.loads(files["tokenizer.json"])["model"]["type"] == "BPE"


def test_a_loaded_model_in_pieces_has_the_bits_of_a_whole_one_and_no_rank_has_more_than_its_rows(
    tmp_path: Path,
) -> None:
    qwen2 = write_qwen2(tmp_path / "qwen2")
    rows, labelled = write_instructions(tmp_path / "rows.jsonl", 40), write_labelled(tmp_path / "l.jsonl", 60)
    pairs, same = write_pairs(tmp_path / "pairs.jsonl"), {"train.devices": 2, "train.micro_batch_size": 2}
    dora = {**same, "adapter": {"rank": 4, "dora": True, "targets": "all-linear"}, "train.precision": "bf16"}
    cases = [
        recipes.finetuning(rows, qwen2, same),
        recipes.finetuning(rows, qwen2, dora),
        recipes.classification(labelled, write_encoder(tmp_path / "roberta"), dora),
        recipes.classification(labelled, qwen2, same),
        recipes.seq2seq(pairs, write_t5(tmp_path / "t5"), same),
        recipes.finetuning(rows, write_gptj(tmp_path / "gptj"), same),  # which is read whole
    ]

    def live(rank: int) -> None:
        torch.set_num_threads(1)
        plans = [make_plan(case) for case in cases]
        wholes = [assemble(plan, Options(), World(torch.device("cpu"))) for plan in plans]
        with contextlib.ExitStack() as stack:
            world = join_ranks(plans[0], stack)
            for plan, (whole, new) in zip(plans, wholes, strict=True):
                section = plan.recipe.train.model_copy(update={"parallel": "shard"})
                recipe = plan.recipe.model_copy(update={"train": section})
                state, drawn = assemble(replace(plan, recipe=recipe), Options(), world)
                assert state.shards is not None and drawn == new
                wanted = dict(whole.model.named_parameters())
                assert state.shards.pieces.keys() == wanted.keys()
                for name, piece in state.shards.pieces.items():
                    place = state.shards.places[name]
                    rows = wanted[name][place.first : place.first + place.rows]
                    assert piece.dtype == rows.dtype and piece.equal(rows), name
                    assert piece.requires_grad == rows.requires_grad
                with state.gathered():
                    held = trained_tensors(state.model)[1]
                    assert all(each.shape == wanted.get(name, each).shape for name, each in held.items())
                    assert not list(find_not_loaded(state.model, plan.pretrained, None, new))
                    pieces = {name for name, each in held.items() if isinstance(each, DTensor)}
                    assert not {name for name in pieces if "embed" in name or "shared" in name}
                    if plan.recipe.adapter is None and pieces:
                        name = min(name for name in pieces if wanted[name].ndim == 2)
                        state.shards.pieces[name].data.add_(1.0)
                        (found,) = find_not_loaded(state.model, plan.pretrained, None, new)
                        assert name in found.evidence
                assert all(isinstance(each, DTensor) for each in state.model.parameters())

    (tmp_path / "meeting").mkdir()
    assert Forks(2, live, tmp_path / "out", folder=tmp_path / "meeting").wait() == {0: "", 1: ""}


def test_a_broken_weight_of_a_model_in_pieces_is_named_by_all_ranks(tmp_path: Path) -> None:
    folder = write_qwen2(tmp_path / "qwen2")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"][0, 0] = float("nan")  # a row of rank 0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    rows = write_instructions(tmp_path / "rows.jsonl", 40)
    changes = {"train.devices": 2, "train.micro_batch_size": 2, "train.parallel": "shard"}
    recipe = recipes.finetuning(rows, folder, changes)

    def live(rank: int) -> None:
        torch.set_num_threads(1)
        run_recipe(recipe, Options(runs=tmp_path / "runs"))

    (tmp_path / "meeting").mkdir()
    said = Forks(2, live, tmp_path / "out", folder=tmp_path / "meeting").wait()
    broken = "InputError: model.from: .*: model.embed_tokens.weight holds NaN or infinity in float32"
    assert all(re.match(broken, each) for each in said.values()), said
    assert not list((tmp_path / "runs").glob("tuned*"))
