"""A micro-batch on the device."""

import torch

from etude.data.batch import Batch, NumpyBatch
from etude.models.packing import send

DeviceBatch = Batch[torch.Tensor]


def to_device(batch: NumpyBatch, device: torch.device) -> DeviceBatch:
    """The batch as tensors on the device; the copy to a GPU does not wait."""

    return batch.map(lambda array: send(torch.from_numpy(array), device))
