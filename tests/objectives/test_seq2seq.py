"""The loss of targets, given their sources."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from etude.objectives.seq2seq import Seq2Seq
from tests.bases import write_pairs, write_t5
from tests.objectives.sessions import begun, one_batch
from tests.recipes import seq2seq


def test_the_loss_is_that_of_transformers_and_the_plain_one_has_no_smoothing(tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM

    base, rows = write_t5(tmp_path / "base"), write_pairs(tmp_path / "rows.jsonl")
    kind = Seq2Seq(label_smoothing=0.1)
    with begun(seq2seq(rows, base), tmp_path / "runs") as session, torch.no_grad():
        split, batch = session.plan.corpus.validation, one_batch(session)
        theirs = AutoModelForSeq2SeqLM.from_pretrained(base).eval()
        for ours, smoothing in ((kind, 0.1), (kind.plain(), 0.0)):
            loss, targets = ours.loss_sum(session.state.model.eval(), batch)
            expected = 0.0
            for sample in (split.sample(index) for index in range(len(split))):
                labels = torch.tensor(sample.labels)[None]
                logits = theirs(input_ids=torch.tensor(sample.tokens)[None], labels=labels).logits
                expected += F.cross_entropy(
                    logits[0], labels[0], reduction="sum", label_smoothing=smoothing
                ).item()
            assert loss.item() == pytest.approx(expected, rel=1e-4)
            assert targets.item() == split.spans.scored == ours.targets_per_sample(split) * len(split)
