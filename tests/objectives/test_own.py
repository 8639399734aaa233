"""A loss that the user brings, as a kind of training."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from etude.objectives.choose import choose_kind
from etude.objectives.own import OwnLoss
from etude.own import Own
from etude.recipe.schema import Recipe
from tests.bigram import Bigram, bigram_loss
from tests.objectives.sessions import begun, one_batch


def test_an_own_loss_takes_the_place_of_every_kind_and_is_called_as_it_is(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    model = Bigram()
    with begun(make_recipe(), tmp_path, model=model, loss=bigram_loss) as session:
        kind = choose_kind(session.recipe, session.plan.corpus, Own(loss=bigram_loss))
        assert isinstance(kind, OwnLoss) and kind == session.plan.tasks[0].kind
        batch = one_batch(session)
        loss, targets = kind.loss_sum(model, batch)
        expected, number = bigram_loss(model, batch)
        assert torch.equal(loss, expected) and targets.dtype == torch.float32 and targets.item() == number
        assert kind.figures(session.recipe, session.plan.corpus) == {"perplexity"}
        assert isinstance(model.table, nn.Embedding)
