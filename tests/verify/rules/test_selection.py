"""Early stopping, and the best checkpoint of a trainer's state."""

import json
from pathlib import Path

import pytest

from etude.verify.checking import check_path
from tests.verify.checked import contradicted


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("We evaluate every 500 steps. With a patience of 3 evaluations, training stops after 1,500 steps without an improvement.", []),
        ("We evaluate every 500 steps. With a patience of 3 evaluations, training stops after 1,000 steps without an improvement.", ["steps 1,000"]),
        ("- eval_steps: 200\n- Patience: 5\n- Training ends after 1,200 steps without a better loss.\n", ["steps 1,200"]),
        ("- eval_steps: 200\n- Patience: 5\n- Training ends after 1,000 steps without a better loss.\n", []),
    ],
)  # fmt: skip
def test_a_patience_is_so_many_intervals(text: str, wrong: list[str]) -> None:
    assert contradicted(text) == wrong


@pytest.mark.parametrize(
    ("best", "step", "more", "wrong"),
    [
        (0.39, 300, {}, []),
        (0.41, 400, {}, [(2, "best_metric 0.41")]),
        (0.39, 400, {}, [(3, "best_model_checkpoint: out/checkpoint-400")]),
        (0.41, 400, {"save_steps": 200}, []),
    ],
)
def test_the_best_of_a_state_is_that_of_its_history(
    tmp_path: Path, best: float, step: int, more: dict[str, int], wrong: list[tuple[int, str]]
) -> None:
    history = [{"step": 100 * n, "eval_loss": loss} for n, loss in enumerate((0.62, 0.48, 0.39, 0.41), 1)]
    state = {"best_metric": best, "best_model_checkpoint": f"out/checkpoint-{step}", **more}
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({**state, "log_history": history}, indent=1))
    assert [(each.line, each.quoted) for each in check_path(path).contradictions] == wrong
