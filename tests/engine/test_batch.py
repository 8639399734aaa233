"""Batches come to a device as they are."""

import numpy as np
import torch

from etude.data.batch import Batch
from etude.engine.batch import to_device


def test_a_batch_on_a_device_has_the_same_numbers_types_and_layout() -> None:
    arrays = {
        "tokens": np.arange(6, dtype=np.int64).reshape(2, 3),
        "labels": np.array([[1, -100, 2], [3, 4, -100]]),
        "scored": np.array([0, 2, 3, 4]),
        "weights": np.array([0.5, 1.0, 2.0, 1.0], np.float32),
    }
    batch = to_device(Batch(lengths=(2, 1), task="a", **arrays), torch.device("cpu"))
    for name, array in arrays.items():
        tensor = getattr(batch, name)
        assert isinstance(tensor, torch.Tensor) and np.array_equal(tensor.numpy(), array)
        assert tensor.numpy().dtype == array.dtype
    assert (batch.lengths, batch.task, batch.positions, batch.classes) == ((2, 1), "a", None, None)
