"""Choices for weights of 4 and 8 bits, and what they say of a model that has no such form."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from etude.errors import InputError
from etude.models.decoder import Decoder
from etude.models.decoder_config import DecoderConfig
from etude.quantize.packed import Settings


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"bits": 3}, "no weights of 3 bits; use 4 or 8"),
        ({"bits": 4, "group": -1}, "--group is -1"),
        ({"bits": 4, "method": "awq"}, "--method awq is not known; use gptq or round"),
        ({"bits": 4, "calibration": 0}, "--calibration is 0"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        Settings(**settings)


def test_a_model_of_which_no_group_divides_the_inputs_is_refused() -> None:
    config = DecoderConfig(
        vocab_size=16, n_layer=1, n_head=2, n_kv_head=1, n_embd=20, n_ffn=40, head_dim=10, context=8
    )
    with pytest.raises(
        InputError, match="layers have 20, 40 inputs, which no group of 128, 64 or 32 divides"
    ):
        Settings(bits=4).check(Path(), Decoder(config))
    with pytest.raises(InputError, match="--group 48 does not divide the 20 inputs"):
        Settings(bits=8, group=48).check(Path(), Decoder(config))
    Settings(bits=8).check(Path(), Decoder(config))


def test_a_model_of_another_library_is_refused() -> None:
    with pytest.raises(InputError, match="etude quantises the models it computes itself"):
        Settings(bits=8).check(Path(), nn.Linear(2, 2))
