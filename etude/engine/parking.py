"""The state of a paused run off its GPU, so that others can have the memory, and back on it."""

import gc

import torch

from etude.engine.loop import TrainState
from etude.text import rough_size


def park(state: TrainState, device: torch.device) -> str:
    """Move weights and optimizer state off a GPU; returns in words what that gave."""
    if device.type != "cuda" or state.shards:
        return "the process keeps its memory"
    before = torch.cuda.memory_reserved(device)
    _move(state, torch.device("cpu"))
    gc.collect()
    torch.cuda.empty_cache()
    left = torch.cuda.memory_reserved(device)
    return f"{rough_size(before - left)} of the GPU are free, and the process keeps {rough_size(left)} of it"


def unpark(state: TrainState, device: torch.device) -> None:
    """Move weights and optimizer state to where they were; what is there stays."""
    if device.type == "cuda" and not state.shards:
        _move(state, device)


def _move(state: TrainState, device: torch.device) -> None:
    """Copy each tensor bit for bit; parameters stay the same objects, by which the optimizer knows them."""
    state.optimizer.zero_grad()
    state.model.to(device)
    for _, tensors in state.optimizer.states():
        for name, tensor in tensors.items():
            tensors[name] = tensor.to(device)
