"""The loss of labels: weights, smoothing and focus against torch and by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from etude.objectives.classification import Classification

WEIGHTS = torch.tensor([0.5, 1.0, 4.0])


@given(seed=st.integers(0, 99), smoothing=st.sampled_from([0.0, 0.1]))
def test_one_label_a_row_has_the_mean_loss_of_torch(seed: int, smoothing: float) -> None:
    torch.manual_seed(seed)
    logits, labels = torch.randn(7, 3), torch.randint(3, (7,))
    kind = Classification(False, None, smoothing)
    loss, targets = kind.loss_of(logits, F.one_hot(labels, 3).float())
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    assert (loss / targets).item() == pytest.approx(expected.item(), rel=1e-5)
    weighted, weight = Classification(False, WEIGHTS).loss_of(logits, F.one_hot(labels, 3).float())
    expected = F.cross_entropy(logits, labels, weight=WEIGHTS)
    assert (weighted / weight).item() == pytest.approx(expected.item(), rel=1e-5)


@given(st.integers(0, 99))
def test_several_labels_a_row_have_the_mean_loss_of_torch(seed: int) -> None:
    torch.manual_seed(seed)
    logits, labels = torch.randn(7, 3), torch.randint(2, (7, 3)).float()
    loss, targets = Classification(True, WEIGHTS).loss_of(logits, labels)
    expected = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=WEIGHTS)
    assert (loss / targets).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("multi", [False, True])
def test_focus_weighs_a_row_by_the_share_that_its_truth_lacks(multi: bool) -> None:
    logits, labels = torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 0.0]])
    p = torch.tensor(
        [logits.sigmoid()[0, 0], 1 - logits.sigmoid()[0, 1]] if multi else [logits.softmax(1)[0, 0]]
    )
    loss, _ = Classification(multi, None, 0.0, 2.0).loss_of(logits, labels)
    assert loss.item() == pytest.approx(float((-(p.log()) * (1 - p) ** 2).sum()), rel=1e-5)


@pytest.mark.parametrize("multi", [False, True])
def test_the_plain_kind_measures_without_what_bends_the_loss_for_training(multi: bool) -> None:
    assert Classification(multi, WEIGHTS, 0.1, 2.0).plain() == Classification(multi)
    shares = Classification(multi).probabilities(torch.randn(5, 3))
    assert shares.min() >= 0 and shares.max() <= 1
    if not multi:
        assert torch.allclose(shares.sum(dim=1), torch.ones(5))
