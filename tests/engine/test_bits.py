"""Every bit of a tensor counts in its number."""

import pytest
import torch

from etude.engine.bits import fingerprints


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.uint8])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_one_bit_changes_a_fingerprint(dtype: torch.dtype, size: int) -> None:
    tensor = torch.arange(size).to(dtype)
    before = fingerprints({"a": tensor})
    tensor.view(torch.uint8)[0] ^= 1
    assert fingerprints({"a": tensor}) != before
    assert fingerprints({"a": torch.ones(6, 4).T}) == fingerprints({"a": torch.ones(4, 6)})
