"""A tokenizer is tried in a process apart before it is loaded here, once; what it cannot read is named."""

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from etude import durable
from etude.data.tokenize import Tokenizer
from etude.data.tokenizer_files import load_tokenizer
from etude.errors import InputError
from etude.recipe import schema
from tests.conftest import SHARED
from tests.hostile.bad_tokenizers import content


def write(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({**content(), **changes}))
    return path


def load(path: Path) -> Tokenizer:
    return load_tokenizer(schema.Tokenizer.model_validate({"from": str(path), "eos_token": "</s>"}))


def test_a_tokenizer_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    file = write(tmp_path / "tokenizer.json")
    load(file)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("tried again"))
    assert load(file).encode("ab").tolist() == [1, 2]
    assert len(list((durable.cache_folder("tokenizers")).iterdir())) == 1


def test_a_broken_tokenizer_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        with pytest.raises(InputError, match="has an id 4,194,304, over"):
            load(
                write(tmp_path / "a", model={"type": "BPE", "vocab": {"</s>": 0, "a": 1 << 22}, "merges": []})
            )


def test_a_disk_that_is_full_costs_a_trial_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    file = write(tmp_path / "tokenizer.json")
    with durable.faults(durable.FaultPlan(at=0, error=errno.ENOSPC, once=False)):
        assert load(file).encode("ab").tolist() == [1, 2]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the tokenizers of the project are not beside it")
@pytest.mark.parametrize("name", ["gpt2", "qwen2", "codet5"])
def test_published_tokenizers_pass(name: str) -> None:
    load_tokenizer(schema.Tokenizer.model_validate({"from": str(SHARED / "data" / "tokenizers" / name)}))


def test_files_that_are_no_tokenizer_json_are_converted_in_a_process_apart(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"</s>": 0, "a": 1, "b": 2, "ab": 3}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "GPT2Tokenizer", "eos_token": "</s>"}'
    )
    code = (
        "import sys; from pathlib import Path; from etude.data.tokenizer_files import load_tokenizer\n"
        "from etude.recipe.model import Tokenizer\n"
        f"loaded = load_tokenizer(Tokenizer.model_validate({{'from': {str(tmp_path)!r}}}))\n"
        "print(loaded.encode('aba').tolist(), 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[3, 1] False\n"
    (tmp_path / "merges.txt").write_text("#version: 0.2\na z\n")
    with pytest.raises(InputError, match=r"cannot be loaded by transformers \(.*\); give a tokenizer.json"):
        load_tokenizer(schema.Tokenizer.model_validate({"from": str(tmp_path)}))
