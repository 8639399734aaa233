"""A paused run gives its GPU back and has the same state when it resumes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from etude.engine.parking import park, unpark
from etude.recipe.schema import Recipe
from tests.objectives.sessions import begun

Make = Callable[..., Recipe]


def test_a_cpu_keeps_what_it_has(tmp_path: Path, make_recipe: Make) -> None:
    with begun(make_recipe(), tmp_path) as session:
        weights = {name: tensor.data_ptr() for name, tensor in session.state.model.state_dict().items()}
        assert park(session.state, torch.device("cpu")) == "the process keeps its memory"
        unpark(session.state, torch.device("cpu"))
        assert weights == {
            name: tensor.data_ptr() for name, tensor in session.state.model.state_dict().items()
        }


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_free_while_a_run_is_parked_and_no_bit_is_lost(tmp_path: Path, make_recipe: Make) -> None:
    wide = {"model.n_embd": 512, "model.n_head": 4, "model.n_ffn": 2048, "train.device": "cuda"}
    with begun(make_recipe({**wide, "train.steps": 6}), tmp_path) as session:
        steps = session.steps()
        next(steps)
        state, device = session.state, session.world.device
        parameters = list(state.optimizer.parameters)
        before = [each.detach().cpu() for each in (*parameters, *state.optimizer.state().values())]
        used = torch.cuda.memory_allocated(device)
        said = park(state, device)
        left = torch.cuda.memory_allocated(device)
        assert "of the GPU are free" in said and left < used / 2
        assert all(each.device.type == "cpu" for each in (*parameters, *state.optimizer.state().values()))
        unpark(state, device)
        after = [each.detach().cpu() for each in (*parameters, *state.optimizer.state().values())]
        assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
        assert [each is other for each, other in zip(parameters, state.model.parameters())]
        next(steps)
