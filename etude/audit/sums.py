"""Losses that are no sums over targets: by another factor, factors of rows, or a mean."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from etude.audit.passes import Pass, Tried
from etude.audit.samples import cut
from etude.audit.targets import NONE, Targets
from etude.data.samples.sample import NO_TARGET, Sample
from etude.engine.batch import DeviceBatch
from etude.records.events import Finding

_MIS_SCALED = 0.05
_FAR = 3.0  # times, where targets have weights of their own
_SAME, _OTHER = 0.05, 0.1  # relative differences
_MOST_NUMBERS = 2**25
_SHORT = 0.3  # of a sample, beside a whole one


def find_wrong_scale(targets: Targets) -> Iterator[Finding]:
    """A loss that is not the cross-entropy of its targets, summed, with their number."""
    factors, scored = targets.factors, int(targets.scored.sum())
    if factors is None or not scored or targets.sure > _MIS_SCALED / 2 * scored:
        return  # a place without a gradient shows no factor, and may be scored or not
    weighed = float((factors.double() * targets.losses).sum())
    if abs(targets.loss - weighed) > _MIS_SCALED * abs(weighed):
        return  # the value has another scale than the gradient: it is smoothed, or more than one loss
    ratio = float(factors.double().sum()) / max(targets.counted, 1e-9)
    is_one, are_means = not math.isnan(targets.scale), _are_means_of_rows(targets, factors)
    # Factors that differ may be weights of targets.
    is_off = abs(ratio - 1) > _MIS_SCALED if is_one or are_means else not 1 / _FAR < ratio < _FAR
    if not is_off:
        return
    by_hand = targets.by_hand / scored
    if is_one:
        scaled = f"it is scaled by {targets.scale:.3g}"
        cause = "a sum divided by something else than the number of its targets"
    else:
        scaled = f"targets are scaled by {float(factors.min()):.2g} to {float(factors.max()):.2g}"
        scaled += ", those of a row by 1 / their number" if are_means else ""
        cause = "sums divided by the numbers of their rows or parts, and then by that of all targets"
    yield Finding(
        0, "the loss is not that of its targets",
        f"{targets.loss / max(targets.counted, 1e-9):.4g} a target as the loop divides it, {by_hand:.4g} by "
        f"hand: {ratio:.3g} times; {scaled} and says {targets.counted:,.0f} targets where it scores "
        f"{scored:,}",
        "return the sum of the losses of all targets, and how many targets there are",
        window=[0, 0], causes=[cause], kind="loss_mis_scaled", confidence=1.0,
        decided_by="the loss of the same logits recomputed by hand",
    )  # fmt: skip


def _are_means_of_rows(targets: Targets, factors: Tensor) -> bool:
    """True if each target counts the less the more its row has, in rows of different lengths."""
    rows = targets.row[targets.scored]
    if (rows == NONE).any():
        return False
    _, place, counts = torch.unique(rows, return_inverse=True, return_counts=True)
    if not counts.max() > (1 + 2 * _OTHER) * counts.min():
        return False
    times = factors * counts[place]
    return bool(((times - times.median()).abs() < _SAME * times.median()).all())


def find_no_sum(
    tried: Tried, samples: Sequence[Sample], lay: Callable[[Sequence[Sample]], DeviceBatch]
) -> Iterator[Finding]:
    """A loss of two samples together that is not the sum of their losses, so that micro-batches change it.

    Of values and of gradients: means of two samples may be equal by chance, the pull of each target is not.
    """
    pair = [each for each in samples if len(each.tokens) > 1][:2]
    if len(pair) < 2:
        return
    pair[1] = _shorten(pair[1], lay)
    alone, both = [tried.run(lay([each])) for each in pair], tried.run(lay(pair))
    loss, targets = (
        sum(map(float, each)) for each in ([p.loss.detach() for p in alone], [p.targets for p in alone])
    )
    together = float(both.loss.detach()), float(both.targets)
    said = (
        f"two samples have the losses {loss:.4g} and {targets:,.0f} targets alone, {together[0]:.4g} and "
        f"{together[1]:,.0f} together"
    )
    if not (abs(together[0] - loss) > abs(loss) / 4 or abs(together[1] - targets) > abs(targets) / 4):
        pulls = _pulls(both, lay(pair))
        one, other = [_pulls(each, lay([sample])) for each, sample in zip(alone, pair)]
        if pulls is None or one is None or other is None:
            return
        moved = [now / before for now, before in zip(pulls, (*one, *other)) if before]
        if not any(abs(each - 1) > _OTHER for each in moved):
            return
        said = f"two samples of different lengths pull {moved[0]:.2f} and {moved[-1]:.2f} times as much "
        said += "together as alone"
    yield Finding(
        0, "the loss of samples together is not the sum of their losses", said,
        "return the sum of the losses of all targets and their number, not a mean: else micro_batch_size "
        "and devices change what is learnt",
        window=[0, 0], kind="loss_is_mean", confidence=1.0,
        decided_by="two samples alone and together",
        causes=["a mean in place of a sum", "samples that the loss compares with each other"],
    )  # fmt: skip


def _shorten(sample: Sample, lay: Callable[[Sequence[Sample]], DeviceBatch]) -> Sample:
    """A sample with a part of its tokens, and of its targets if they are among those."""
    targets = int((sample.labels != NO_TARGET).sum())
    short = cut(sample, max(int(_SHORT * len(sample.tokens)), 2))
    laid = lay([short])
    if laid.classes is not None or laid.target_lengths is not None:
        return short
    is_beyond = (short.labels != NO_TARGET).cumsum() > max(int(_SHORT * targets), 1)
    return replace(short, labels=np.where(is_beyond, NO_TARGET, short.labels))


def _pulls(done: Pass, batch: DeviceBatch) -> list[float] | None:
    """The size of the gradient of a loss by the answers for each sample; None if it cannot be told."""
    answers = [call.answer for call in done.calls]
    if not answers or not done.loss.requires_grad or not all(each.requires_grad for each in answers):
        return None
    if sum(each.numel() for each in answers) > _MOST_NUMBERS:
        return None
    found = torch.autograd.grad(done.loss, answers, allow_unused=True)
    slopes = [torch.zeros_like(each) if slope is None else slope for each, slope in zip(answers, found)]
    sizes = torch.cat([each.flatten(0, -2).float().abs().sum(dim=-1) for each in slopes])
    lengths = batch.target_lengths or batch.lengths or (batch.labels.shape[1],) * len(batch.labels)
    owners = torch.repeat_interleave(torch.tensor(lengths, device=sizes.device))
    if done.places is None:
        return sizes.tolist() if len(sizes) == len(lengths) else None
    mine = owners[done.places.clamp(min=0)]
    return [float(sizes[(mine == each) & (done.places >= 0)].sum()) for each in range(len(lengths))]
