"""The targets of a loss are read from its gradient alone, and so is its scale."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from etude.audit.losses import find_wrong_targets
from etude.audit.passes import Tried
from etude.audit.sums import find_wrong_scale
from etude.audit.targets import Targets, read_targets
from etude.engine.batch import DeviceBatch
from etude.engine.precision import choose_precision
from etude.objectives.own import OwnLoss
from tests import parallel

CPU = torch.device("cpu")
V = 64


def targets_of(loss: parallel.Loss, precision: str = "fp32") -> Targets:
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, V, (1, 30), generator=draw)
    labels = torch.cat((tokens[:, 1:], tokens[:, :1]), dim=1)
    labels[0, :5] = -100
    batch = DeviceBatch(tokens=tokens, labels=labels, lengths=(18, 12))
    tried = Tried(
        parallel.Parallel(V), OwnLoss(loss), choose_precision(precision, CPU, targets_per_step=1), CPU
    )
    found = read_targets(tried, batch, V)
    assert found is not None
    return found


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_wanted_ids_are_those_of_the_loss(precision: str) -> None:
    found = targets_of(parallel.right, precision)
    assert found.wanted.tolist() == found.asked.tolist() and int(found.scored.sum()) == 25
    assert found.scale == pytest.approx(1, abs=0.01) and found.counted == 25
    assert found.share(found.next) == 1 and found.share(found.read) < 0.2
    assert targets_of(parallel.unshifted, precision).share(found.read) == 1


def test_padding_is_told_from_places_of_the_batch() -> None:
    found = targets_of(parallel.padding_scored)
    assert found.share_unasked(real=False) == pytest.approx(6 / 31)
    assert targets_of(parallel.padded).share_unasked(real=False) == 0


def smooth(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
    labels = batch.labels.flatten()
    scores = model(batch.tokens).flatten(0, 1)
    return nn.functional.cross_entropy(scores, labels, reduction="sum", label_smoothing=0.1), 25


def focal(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
    losses = nn.functional.cross_entropy(
        model(batch.tokens).flatten(0, 1), batch.labels.flatten(), reduction="none"
    )
    return (losses * (1 - (-losses).exp()) ** 2).sum(), 25


@pytest.mark.parametrize("loss", [smooth, focal])
def test_a_loss_that_is_no_plain_cross_entropy_has_targets_and_no_scale(loss: parallel.Loss) -> None:
    found = targets_of(loss)
    assert found.share(found.next) > 0.9
    assert not list(find_wrong_scale(found))


def squared(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
    return model(batch.tokens).square().sum(), 1


def test_another_loss_is_of_nothing_read() -> None:
    assert not targets_of(squared).are_of_reading
    assert targets_of(parallel.twice).are_of_reading


def mixed(share: float, other: str) -> parallel.Loss:
    """Targets of which a share, the same in each batch, is another token of the row."""

    def loss(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
        second = torch.cat((batch.labels[:, 1:], batch.labels[:, :1]), dim=1)
        place = torch.arange(batch.labels.shape[1]) * 37 % 100
        wrong = (batch.labels != -100) & (place < 100 * share)
        labels = torch.where(wrong, batch.tokens if other == "read" else second, batch.labels)
        return nn.functional.cross_entropy(model(batch.tokens)[0], labels[0], reduction="sum"), 25

    return loss


def long_targets(loss: parallel.Loss) -> Targets:
    draw = torch.Generator().manual_seed(2)
    tokens = torch.randint(1, V, (1, 200), generator=draw)
    batch = DeviceBatch(
        tokens=tokens, labels=torch.cat((tokens[:, 1:], tokens[:, :1]), dim=1), lengths=(200,)
    )
    tried = Tried(parallel.Parallel(V), OwnLoss(loss), choose_precision("fp32", CPU, targets_per_step=1), CPU)
    found = read_targets(tried, batch, V)
    assert found is not None
    return found


@pytest.mark.parametrize("share", [1, 0.5, 0.2, 0.1])
@pytest.mark.parametrize(
    ("other", "kind"), [("read", "labels_not_shifted"), ("second", "labels_shifted_twice")]
)
def test_a_share_of_wrong_targets_is_named(share: float, other: str, kind: str) -> None:
    (finding,) = find_wrong_targets(long_targets(mixed(share, other)))
    assert finding.kind == kind and finding.severity == "error"
    assert (f"at {share:.0%} of the places that tell" in finding.what) == (share < 0.9)


def test_honest_losses_of_other_targets_are_not_named() -> None:
    draw = torch.Generator().manual_seed(3)
    teacher = torch.randn(200, V, generator=draw) * 3

    def distilled(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
        return nn.functional.cross_entropy(model(batch.tokens)[0], teacher.softmax(1), reduction="sum"), 200

    def of_teacher(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
        return nn.functional.cross_entropy(model(batch.tokens)[0], teacher.argmax(1), reduction="sum"), 200

    def chosen(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
        labels = batch.labels[0].masked_fill(torch.arange(200) % 3 > 0, -100)
        return nn.functional.cross_entropy(model(batch.tokens)[0], labels, reduction="sum"), 67

    def weighed(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
        losses = nn.functional.cross_entropy(model(batch.tokens)[0], batch.labels[0], reduction="none")
        return (losses * torch.rand(200, generator=torch.Generator().manual_seed(1))).sum(), 200

    def several_at_once(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
        scores, labels = model(batch.tokens)[0], batch.labels[0]
        both = [
            nn.functional.cross_entropy(scores[: 200 - by], labels[by:], reduction="sum") for by in (0, 1)
        ]
        return both[0] + both[1], 399

    def with_z(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
        scores = model(batch.tokens)[0]
        z = scores.logsumexp(1).square().sum() * 1e-2
        return nn.functional.cross_entropy(scores, batch.labels[0], reduction="sum") + z, 200

    def smoothed(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
        scores = model(batch.tokens)[0]
        return nn.functional.cross_entropy(scores, batch.labels[0], reduction="sum", label_smoothing=0.1), 200

    for loss in (distilled, of_teacher, chosen, weighed, several_at_once, with_z, smoothed):
        assert list(find_wrong_targets(long_targets(loss))) == [], loss.__name__


def elsewhere(move: Callable[[Tensor], Tensor]) -> parallel.Loss:
    """Right targets of a row for each sequence, filled up to one length and then moved."""

    def loss(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, int]:
        tokens, labels = (
            nn.utils.rnn.pad_sequence(
                list(torch.split(each[0], list(batch.lengths or ()))), batch_first=True, padding_value=value
            )
            for each, value in ((batch.tokens, 0), (batch.labels, -100))
        )
        return nn.functional.cross_entropy(
            model(tokens).flatten(0, 1), move(labels).flatten(), reduction="sum"
        ), 25

    return loss


@pytest.mark.parametrize(
    "move, said",
    [
        (lambda labels: labels.flip(0), "of another row, in 2 rows of the model"),
        (
            lambda labels: nn.functional.pad(labels, (4, -4), value=-100),
            "of the same row, 3 before the token read",
        ),
    ],
)
def test_targets_of_other_places_are_no_padding(move: Callable[[Tensor], Tensor], said: str) -> None:
    (finding,) = find_wrong_targets(targets_of(elsewhere(move)))
    assert finding.kind == "labels_misplaced" and finding.evidence.endswith(said)


def test_targets_of_nothing_that_is_read_are_not_misplaced() -> None:
    found = targets_of(elsewhere(lambda labels: torch.where(labels == -100, labels, (labels * 7 + 3) % V)))
    assert found.elsewhere() is None
    assert targets_of(elsewhere(lambda labels: labels)).elsewhere() is None
    assert targets_of(parallel.padding_scored).elsewhere() is None
