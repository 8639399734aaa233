"""The parts of a model that cost most loss when quantised: measured, and left whole where they must be."""

from collections.abc import Callable, Mapping

from torch import nn

from etude.errors import FaultError
from etude.interruption import interruption_point
from etude.quantize.calibrate import Layer, put_weight
from etude.report.quantized import share_of_loss

_MARGIN = 0.75  # of the loss that may be lost is spent on the calibration rows; others may cost a little more
_MOST_WHOLE = 0.25  # of the parts; with more of them whole the file is hardly smaller
_MOST_MEASURED = (
    96  # parts; of a deeper model blocks are measured, not their attention and feed-forward apart
)


def choose_whole(
    model: nn.Module, layers: Mapping[str, Layer], measure: Callable[[], float], most_loss: float
) -> tuple[list[str], dict[str, float]]:
    """The layers to leave whole, and the loss that each part costs alone, as a share of the original's.

    A part is the attention or the feed-forward of a block: the layers of one module, which some readers join.
    The costliest ones stay whole, until the sum of the rest costs no more than `most_loss` allows. The model
    computes with quantised weights before and after, but for those left whole.

    measure: the mean loss on calibration rows. most_loss: share of the original's loss.

    Raises: FaultError if more than a quarter of the parts would have to stay whole.
    """
    parts = _group(layers)
    quantized = measure()
    for name, layer in layers.items():
        put_weight(model, name, layer.original)
    original, costs = measure(), dict[str, float]()
    for part, names in parts.items():
        interruption_point()
        for name in names:
            put_weight(model, name, layers[name].decoded)
        costs[part] = share_of_loss(measure(), original)
        for name in names:
            put_weight(model, name, layers[name].original)
    whole: list[str] = []
    cost = together = share_of_loss(quantized, original)
    for part in sorted(costs, key=lambda each: -costs[each]):
        if cost <= _MARGIN * most_loss or costs[part] <= 0:
            break
        cost -= costs[part]
        whole.append(part)
    if len(whole) > max(_MOST_WHOLE * len(parts), 1):
        raise FaultError(
            f"{len(whole)} of {len(parts)} parts would have to stay whole to cost {most_loss:.2%} at most "
            f"(all quantised cost {together:.2%} on calibration rows); "
            "ask for more bits, a smaller --group or a larger --max-loss"
        )
    kept = [name for part in whole for name in parts[part]]
    for name in layers.keys() - set(kept):
        put_weight(model, name, layers[name].decoded)
    return kept, costs


def _group(layers: Mapping[str, Layer]) -> dict[str, list[str]]:
    """Layers by the module that they stand in, or by block where that would be too many to measure."""
    for cut in range(1, 4):
        parts: dict[str, list[str]] = {}
        for name in layers:
            parts.setdefault(".".join(name.split(".")[:-cut]), []).append(name)
        if len(parts) <= _MOST_MEASURED:
            break
    return parts
