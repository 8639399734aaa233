"""The linear layers of a model quantised in order, each by the inputs that it has in a quantised model."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from etude.interruption import interruption_point
from etude.models.compressed import Scheme, decode, to_file
from etude.models.families.table import family_of
from etude.quantize.rounding import quantize_weight

# Parts of a model that are calibrated one after another, each by a pass of all rows. Sums of squares of the
# inputs are held for the layers of one part.
_PARTS = 8


@dataclass(frozen=True)
class Layer:
    """A quantised weight, and the weight that it was; `decoded` is what readers compute with."""

    original: Tensor
    decoded: Tensor
    codes: Tensor
    scales: Tensor

    def to_file(self, name: str, scheme: Scheme) -> dict[str, Tensor]:
        """The tensors of a file in place of the weight of the layer `name`."""
        return to_file(name, self.codes, self.scales, scheme)


def layers_of_blocks(model: nn.Module) -> list[list[str]]:
    """The linear layers of each block by name; embedding, head and classifier stand in none."""
    names = {module: name for name, module in model.named_modules()}
    return [
        [names[part] for part in block.modules() if isinstance(part, nn.Linear)]
        for block in family_of(model).blocks(model)
    ]


def quantize_layers(
    model: nn.Module, scheme: Scheme, dtypes: dict[str, torch.dtype], forward: Callable[[], None] | None
) -> dict[str, Layer]:
    """Quantise the linear layers of all blocks; the model then computes with the weights that are read back.

    dtypes: of the weight of each layer in files, which is that of its scales. forward: passes the calibration
    rows through the model, for GPTQ; None rounds each number by itself.
    """
    blocks = layers_of_blocks(model)
    done: dict[str, Layer] = {}
    for some in _parts(blocks):
        names = [name for block in some for name in block]
        hessians: dict[str, Tensor] = {}
        if forward is not None:
            with summing_squares(model, names) as hessians:
                forward()
        for name in names:
            interruption_point()
            weight = model.get_parameter(f"{name}.weight").detach()
            codes, scales = quantize_weight(weight.cpu(), scheme, dtypes[name], hessians.pop(name, None))
            layer = Layer(weight, decode(codes, scales).to(weight), codes, scales)
            put_weight(model, name, layer.decoded)
            done[name] = layer
    return done


@contextlib.contextmanager
def summing_squares(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Sums of x x' over all inputs x that pass through linear layers in the block, (in, in) each, by name."""
    sums: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            x = given[0].detach().flatten(0, -2).float()
            if name not in sums:
                sums[name] = torch.zeros(x.shape[1], x.shape[1], device=x.device)
            sums[name].addmm_(x.T, x)

        return add

    handles = [model.get_submodule(name).register_forward_pre_hook(watch(name)) for name in names]
    try:
        yield sums
        for name in sums:
            sums[name] = sums[name].cpu()
    finally:
        for handle in handles:
            handle.remove()


def put_weight(model: nn.Module, name: str, weight: Tensor) -> None:
    """Let the linear layer `name` compute with another weight."""
    model.get_submodule(name).weight = nn.Parameter(weight, requires_grad=False)


def _parts(blocks: list[list[str]]) -> Iterator[list[list[str]]]:
    size = -(-len(blocks) // _PARTS) or 1
    yield from (blocks[begin : begin + size] for begin in range(0, len(blocks), size))
