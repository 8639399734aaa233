"""Values of a config.json, key by key."""

import json
from pathlib import Path
from typing import Any

import pytest

from etude.errors import EtudeError
from etude.models.hf_config import label_names
from etude.models.pretrained import inspect_model
from tests import bases

GOOD = {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({}, ("LABEL_0", "LABEL_1")),
        ({"num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2")),
        (GOOD, ("a", "b")),
        ({"id2label": {"1": "b", "0": "a"}}, ("a", "b")),
        ({"label2id": {"b": 1, "a": 0}}, ("a", "b")),
        ({"label2id": {"b": "1", "a": "0"}, "id2label": None}, ("a", "b")),
        ({**GOOD, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}, ("a", "b")),
    ],
)
def test_names_of_labels_are_read_in_the_order_of_outputs(
    values: dict[str, Any], names: tuple[str, ...]
) -> None:
    assert label_names(values) == names


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({**GOOD, "label2id": {"a": 1, "b": 0}}, r"id2label and label2id disagree \('a' and 'b'\)"),
        ({**GOOD, "label2id": {"a": 0, "b": 1, "c": 2}}, r"id2label and label2id disagree \(2 and 3\)"),
        ({"id2label": {"0": 5, "1": "b"}}, r"id2label names label '0' 5; expected text"),
        ({"id2label": {"0": ["a"], "1": "b"}}, r"id2label names label '0' \['a'\]; expected text"),
        ({"id2label": {"0": " ", "1": "b"}}, r"id2label names label '0' ' '; expected text"),
        ({"id2label": ["a", "b"]}, r"id2label is \['a', 'b'\]; expected an object"),
        ({"id2label": "ab"}, r"id2label is 'ab'; expected an object"),
        ({"id2label": {"0": "a", "2": "b"}}, r"label number '2'; 2 labels have the numbers 0 to 1"),
        ({"id2label": {"-1": "a", "0": "b"}}, r"label number '-1'; 2 labels have"),
        ({"id2label": {"0": "a", "00": "b"}}, r"label number '00'; 2 labels have"),
        ({"id2label": {"a": "0", "b": "1"}}, r"label number 'a'; 2 labels have"),
        ({"id2label": {"0": "a", "1": "a"}}, r"id2label has the same name twice"),
        ({"label2id": {"a": 0, "b": 0}}, r"label2id has the same number twice"),
        ({"label2id": {"a": True, "b": False}}, r"label2id has label number 'True'"),
        ({"label2id": {"a": 0.0, "b": 1.0}}, r"label2id has label number '0.0'"),
        ({**GOOD, "num_labels": 3}, r"num_labels is 3, but there are 2 names"),
        ({"num_labels": "2"}, r"num_labels is '2'; expected a whole number from 1 to"),
        ({"num_labels": 10**6}, r"num_labels is 1000000; expected"),
        ({"id2label": {str(index): f"l{index}" for index in range(10**5 + 1)}}, "id2label has 100,001 entries"),
    ],
)  # fmt: skip
def test_names_that_cannot_be_are_refused_in_one_line(
    values: dict[str, Any], said: str, tmp_path: Path
) -> None:
    base = bases.write_encoder(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config = {**config, "architectures": ["RobertaForSequenceClassification"], **values}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(EtudeError, match=said) as caught:
        inspect_model(base, "classification")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300 + len(str(tmp_path))
