"""Files of weights: their digest, their parts, their dtypes."""

import shutil
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.models.pretrained import inspect_model
from tests.bases import SMALL, write_model


def test_a_digest_names_the_weights_and_is_remembered(tmp_path: Path) -> None:
    write_model(tmp_path / "one", "qwen2", SMALL)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = inspect_model(tmp_path / "one").digest, inspect_model(tmp_path / "two").digest
    assert one == two == inspect_model(tmp_path / "one").digest
    file = tmp_path / "two" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert inspect_model(tmp_path / "two").digest != one


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    write_model(tmp_path, "qwen2", SMALL, max_shard_size="20KB")
    _lose_a_part(tmp_path)
    with pytest.raises(
        InputError, match=r"lacks model-00001-of-\d+.safetensors \(\d+ of \d+ parts are there\)"
    ):
        inspect_model(tmp_path, "causal")


def _lose_a_part(folder: Path) -> None:
    next(iter(sorted(folder.glob("model-0000*")))).unlink()
