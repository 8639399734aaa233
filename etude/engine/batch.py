"""A micro-batch on the device."""

import numpy as np
import torch

from etude.data.batch import Batch, NumpyBatch

DeviceBatch = Batch[torch.Tensor]


def to_device(batch: NumpyBatch, device: torch.device) -> DeviceBatch:
    """The batch as tensors on the device; the copy to a GPU does not wait."""

    def move(array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return (
            tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
        )

    return batch.map(move)
