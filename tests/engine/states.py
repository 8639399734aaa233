"""States of training to save, and a pickle that must never be read."""

import os
from pathlib import Path

import torch
from torch import nn

from etude.engine import checkpoint as checkpoints
from etude.engine.checkpoint import Progress
from etude.engine.loop import TrainState
from etude.engine.optim import Optimizer
from etude.engine.precision import choose_precision
from etude.recipe.course import Course
from etude.recipe.load import recipe_from
from etude.recipe.schema import Optim
from tests.recipes import tiny

CPU = torch.device("cpu")


def make_state(seed: int = 0) -> TrainState:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    precision = choose_precision("fp32", CPU, targets_per_step=1)
    state = TrainState(
        model, Optimizer(model, Optim()), precision, Course(recipe_from(tiny(Path("none"))), 12)
    )
    model(torch.randn(3, 4)).sum().backward()
    state.optimizer.step(1e-2, grad_divisor=torch.tensor(1.0), skipped=torch.tensor(False))
    return state


def snapshot(state: TrainState, step: int) -> checkpoints.Snapshot:
    progress = Progress(
        "run-1", step, "data", state.precision.state(), best={"checkpoint": "step-000001", "value": 1.0}
    )
    return checkpoints.take_snapshot(state, progress, {"config.json": b"{}"})


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.canary}",)
