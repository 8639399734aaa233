"""Rows that join and leave between two tokens, against whole passes of the model."""

import pytest
import torch

from etude.models.decoder_config import DecoderConfig
from etude.serve.prefixes import Prefixes
from etude.serve.rows import Rows
from tests.models.decoders import CONFIGS, assert_equal_logits, random_decoder, random_tokens


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_logits_of_rows_that_join_and_leave_are_those_of_whole_passes(config: DecoderConfig) -> None:
    model, tokens = random_decoder(config), random_tokens(config, 4, 24)
    tokens[1:3, :18] = tokens[0, :18]  # what they share is read once
    rows, places = Rows(model, Prefixes(1 << 20)), [20, 19, 21, 5]
    with torch.inference_mode():
        expected = model.logits(tokens)
        inside: list[int] = []

        def advance() -> None:
            logits = rows.advance(torch.stack([tokens[row, places[row]] for row in inside]))
            for row, found in zip(inside, logits):
                assert_equal_logits(found, expected[row, places[row]])
                places[row] += 1

        for row in (0, 1, 2, 3):
            logits = rows.join(tokens[row, : places[row]].tolist())
            assert_equal_logits(logits[0], expected[row, places[row] - 1])
            inside.append(row)
            if row != 2:
                advance()
        rows.leave(0)
        inside = [3, 1, 2]
        advance()
        for _ in inside:
            rows.leave(0)
    assert rows.count == 0
