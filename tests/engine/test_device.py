"""A GPU that is there is used only if this torch has programs for it; a P100 under a torch of today has none."""

from pathlib import Path

import pytest
import torch

from etude.engine.device import choose_device, describe_place, runs_on
from etude.errors import InputError

TODAY = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((6, 0), TODAY, False),  # P100
        ((7, 5), TODAY, True),  # T4
        ((8, 9), TODAY, True),  # L4, by the code of 8.6
        ((9, 0), ["sm_80"], False),  # no code of another major version
        ((9, 0), ["sm_90a"], True),  # which runs on 9.0 alone
        ((12, 1), TODAY, True),
        ((13, 0), TODAY, True),  # translated by the driver
        ((6, 0), ["compute_50"], True),
        ((9, 4), ["gfx942"], True),
    ],
)
def test_programs_run_on_their_major_version_and_later_ones_by_translation(
    capability: tuple[int, int], architectures: list[str], runs: bool
) -> None:
    assert runs_on(capability, architectures) is runs


def test_a_gpu_without_programs_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "is_available": True, "get_device_capability": (6, 0), "get_arch_list": TODAY,
        "get_device_name": "Tesla P100-PCIE-16GB",
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    with pytest.raises(
        InputError, match=r"Tesla P100-PCIE-16GB is there, but torch .* has no programs for it"
    ):
        choose_device("auto")
    assert choose_device("cpu") == torch.device("cpu")


def test_the_machine_is_described_with_its_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    assert "of memory" in describe_place(torch.device("cpu"), Path())
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    assert describe_place(torch.device("cpu"), Path()).startswith("Kaggle, ")
