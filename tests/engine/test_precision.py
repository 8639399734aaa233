import math

import pytest
import torch

from etude.engine.precision import choose_precision, has_native_bf16
from etude.errors import InputError

CPU = torch.device("cpu")


def test_fp16_scales_by_a_power_of_two_for_the_sum_of_losses() -> None:
    assert choose_precision("fp16", CPU, targets_per_step=4096).scale.item() == 2.0**16 / 4096
    assert choose_precision("fp32", CPU, targets_per_step=4096).scale.item() == 1.0


def test_the_scale_halves_when_skipped_and_doubles_after_two_thousand_good_steps() -> None:
    precision, loss = choose_precision("fp16", CPU, targets_per_step=1), torch.tensor(3.0)
    precision.update(torch.tensor(True), loss)
    assert precision.scale.item() == 2.0**15
    for _ in range(2000):
        precision.update(torch.tensor(False), loss)
    assert precision.scale.item() == 2.0**16
    again = choose_precision("fp16", CPU, targets_per_step=1)
    again.load_state(precision.state())
    assert again.state() == precision.state()


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_losses_that_are_not_finite_leave_the_scale_as_it_was(loss: float) -> None:
    precision = choose_precision("fp16", CPU, targets_per_step=1)
    for _ in range(100):
        precision.update(torch.tensor(True), torch.tensor(loss))
    assert precision.state() == {"scale": 2.0**16, "good_steps": 0.0}


def test_a_scale_that_has_fallen_far_grows_again() -> None:
    precision, loss = choose_precision("fp16", CPU, targets_per_step=1), torch.tensor(3.0)
    for _ in range(400):  # 2^16 / 2^400 is 0 in fp32
        precision.update(torch.tensor(True), loss)
    lowest = precision.scale.item()
    for _ in range(2000):
        precision.update(torch.tensor(False), loss)
    assert 0 < lowest < 1e-6 and precision.scale.item() == 2 * lowest


def test_bf16_is_refused_where_it_is_emulated() -> None:
    if has_native_bf16(CPU):
        assert choose_precision("auto", CPU, targets_per_step=1).name == "bf16"
    else:
        assert choose_precision("auto", CPU, targets_per_step=1).name == "fp32"
        with pytest.raises(InputError, match="only emulates"):
            choose_precision("bf16", CPU, targets_per_step=1)
