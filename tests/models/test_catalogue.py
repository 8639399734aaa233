"""From a recipe's [model] to a decoder."""

import subprocess
import sys

import pytest

from etude.errors import InputError
from etude.models.catalogue import decoder_config
from etude.models.cost import count_parameters
from etude.recipe.schema import Model


def test_defaults_are_those_of_the_schema() -> None:
    config = decoder_config(Model(), vocab_size=4096, seq_len=256)
    assert (config.n_layer, config.n_head, config.n_kv_head, config.n_embd) == (6, 6, 6, 384)
    assert (config.n_ffn, config.head_dim, config.vocab_size, config.context) == (1024, 64, 4096, 256)
    assert (config.tied, config.qk_norm, config.qkv_bias, config.sliding_window) == (True, False, False, None)


@pytest.mark.parametrize(("preset", "total"), [("300m", 303_171_584), ("500m", 500_528_640), ("1b", 999_538_688)])
def test_presets_have_their_size(preset: str, total: int) -> None:
    config = decoder_config(Model.model_validate({"preset": preset}), vocab_size=50_257, seq_len=512)
    assert (count_parameters(config)["total"], config.context) == (total, 2048)


def test_single_keys_override_a_preset() -> None:
    config = decoder_config(Model(preset="300m", n_layer=2, tied=False), vocab_size=1000, seq_len=4096)
    assert (config.n_layer, config.n_embd, config.tied, config.context) == (2, 1024, False, 4096)


@pytest.mark.parametrize(
    ("given", "tokens", "rows"), [({"preset": "300m"}, 4096, 50_257), ({"preset": "300m"}, 60_000, 60_000),
                                  ({}, 300, 300), ({"vocab_size": 512}, 300, 512)],
)  # fmt: skip
def test_embedding_has_a_row_for_every_token(given: dict[str, object], tokens: int, rows: int) -> None:
    assert decoder_config(Model.model_validate(given), vocab_size=tokens, seq_len=64).vocab_size == rows


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"vocab_size": 256}, "model.vocab_size is 256 but the tokenizer has 300"),
        ({"preset": "300m", "n_head": 12}, "model.n_embd is 1024"),
        ({"preset": "300m", "n_head": 8}, "model.n_kv_head is 16"),
        ({"preset": "300m", "head_dim": 33}, "model.head_dim is 33"),
        ({"preset": "1b", "qk_norm": True, "qkv_bias": True}, "model.qkv_bias"),
    ],
)
def test_keys_that_do_not_fit_are_refused(given: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        decoder_config(Model.model_validate(given), vocab_size=300, seq_len=64)


def test_catalogue_and_cost_do_not_import_torch() -> None:
    code = "import sys, etude.models.catalogue, etude.models.cost; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
