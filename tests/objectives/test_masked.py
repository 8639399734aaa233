"""The loss of hidden tokens."""

from pathlib import Path

import pytest
import torch

from etude.objectives.masked import Masked
from tests.bases import write_encoder, write_labelled
from tests.objectives.sessions import begun, one_batch
from tests.recipes import masked


@pytest.mark.parametrize("base", [True, False])
def test_only_hidden_tokens_are_targets_and_the_loss_is_that_of_transformers(
    base: bool, tmp_path: Path
) -> None:
    from transformers import AutoModelForMaskedLM

    folder = write_encoder(tmp_path / "base", masked=True) if base else None
    rows = write_labelled(tmp_path / "rows.jsonl")
    with begun(masked(rows, folder), tmp_path / "runs") as session, torch.no_grad():
        batch, split = one_batch(session), session.plan.corpus.validation
        loss, targets = Masked().loss_sum(session.state.model.eval(), batch)
        hidden = int((batch.labels != -100).sum())
        assert targets.item() == hidden < batch.labels.numel() / 2
        assert Masked().figures(session.recipe, session.plan.corpus) == {"perplexity"}
        if folder is None:  # drawn weights say nothing about a token yet
            vocabulary = session.plan.corpus.tokenizer.vocab_size
            assert loss.item() / hidden == pytest.approx(
                torch.tensor(float(vocabulary)).log().item(), rel=0.05
            )
            return
        theirs, expected = AutoModelForMaskedLM.from_pretrained(folder).eval(), 0.0
        for sample in (split.sample(index) for index in range(len(split))):
            labels = torch.tensor(sample.labels)[None]
            mean = theirs(input_ids=torch.tensor(sample.tokens)[None], labels=labels).loss
            expected += mean.item() * int((labels != -100).sum())
        assert loss.item() == pytest.approx(expected, rel=1e-4)
