"""generation_config.json as transformers reads and writes it."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationConfig

from etude.errors import InputError
from etude.models.generation_config import (
    GENERATION_FILE,
    generation_config,
    read_generation_config,
    read_stop_ids,
)
from tests import bases
from tests.models.folders import change


@pytest.mark.parametrize("given", [7, [7, 9, 7], None])
@pytest.mark.parametrize("kept", [True, False])
def test_stop_ids_are_those_at_which_transformers_stops(given: Any, kept: bool, tmp_path: Path) -> None:
    base = change(bases.write_llama(tmp_path), {"eos_token_id": 5})
    (base / GENERATION_FILE).write_text(json.dumps({"eos_token_id": given}))
    if not kept:
        (base / GENERATION_FILE).unlink()
    theirs = AutoModelForCausalLM.from_pretrained(base).generation_config.eos_token_id
    if kept and given is None:
        theirs = 5  # transformers would never stop; the model's own end is taken
    assert read_stop_ids(base) == tuple(dict.fromkeys(theirs if isinstance(theirs, list) else [theirs]))


@pytest.mark.parametrize("given", ["7", [7, -1], {"a": 1}, [True], 1.5])
def test_ends_that_are_no_ids_are_refused_in_one_line(given: Any, tmp_path: Path) -> None:
    (tmp_path / GENERATION_FILE).write_text(json.dumps({"eos_token_id": given}))
    with pytest.raises(InputError, match=r"eos_token_id is .*; expected an id or a list of ids") as caught:
        read_stop_ids(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_files_stops_nowhere_and_says_nothing(tmp_path: Path) -> None:
    assert read_stop_ids(tmp_path) == () and read_generation_config(tmp_path) == {}


def test_the_file_keeps_what_the_base_says_and_transformers_reads_it(tmp_path: Path) -> None:
    base = GenerationConfig(do_sample=True, top_k=7, temperature=0.6, eos_token_id=3, pad_token_id=2)
    base.save_pretrained(tmp_path / "base")
    values = {"bos_token_id": 1, "pad_token_id": 9, "model_type": "llama"}
    content = generation_config(read_generation_config(tmp_path / "base"), values, [5, 6])
    (tmp_path / GENERATION_FILE).write_bytes(content)
    ours = GenerationConfig.from_pretrained(tmp_path)
    assert (ours.do_sample, ours.top_k, ours.temperature) == (True, 7, 0.6)
    assert (ours.eos_token_id, ours.pad_token_id, ours.bos_token_id) == ([5, 6], 2, 1)
    assert "transformers_version" not in json.loads(content)


def test_an_encoder_decoder_starts_where_that_of_transformers_does(tmp_path: Path) -> None:
    base = bases.write_t5(tmp_path)
    values = json.loads((base / "config.json").read_text())
    del values["decoder_start_token_id"]
    ours = json.loads(generation_config({}, values, [1]))
    theirs = AutoModelForSeq2SeqLM.from_pretrained(base).generation_config
    assert ours["decoder_start_token_id"] == theirs.decoder_start_token_id
