import pytest
import torch

from etude.engine.precision import choose_precision, has_native_bf16
from etude.errors import InputError

CPU = torch.device("cpu")


def test_fp16_scales_by_a_power_of_two_for_the_sum_of_losses() -> None:
    assert choose_precision("fp16", CPU, targets_per_step=4096).scale.item() == 2.0**16 / 4096
    assert choose_precision("fp32", CPU, targets_per_step=4096).scale.item() == 1.0


def test_the_scale_halves_when_skipped_and_doubles_after_two_thousand_good_steps() -> None:
    precision = choose_precision("fp16", CPU, targets_per_step=1)
    precision.update(torch.tensor(True))
    assert precision.scale.item() == 2.0**15
    for _ in range(2000):
        precision.update(torch.tensor(False))
    assert precision.scale.item() == 2.0**16
    again = choose_precision("fp16", CPU, targets_per_step=1)
    again.load_state(precision.state())
    assert again.state() == precision.state()


def test_bf16_is_refused_where_it_is_emulated() -> None:
    if has_native_bf16(CPU):
        assert choose_precision("auto", CPU, targets_per_step=1).name == "bf16"
    else:
        assert choose_precision("auto", CPU, targets_per_step=1).name == "fp32"
        with pytest.raises(InputError, match="only emulates"):
            choose_precision("bf16", CPU, targets_per_step=1)
