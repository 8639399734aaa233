"""The result of an ONNX export in words: rows, the section of a card, lines of Python, and JSON."""

import json

from etude.report.onnx import Onnx

RESULT = Onnx(file="model.onnx", bytes=2_000_000, samples=12, difference=3.2e-6)


def test_the_check_is_told_in_rows_and_in_the_card() -> None:
    rows = dict(RESULT.rows())
    assert rows["file"] == "2.0 MB"
    assert rows["check"].startswith("logits of onnxruntime within 3e-06 of etude's on 12 validation samples")
    assert rows["check"] in RESULT.section() and json.loads(json.dumps(RESULT.to_dict()))["samples"] == 12


def test_the_lines_of_a_classifier_name_a_label_and_those_of_others_do_not() -> None:
    assert 'custom_metadata_map["labels"]' in "\n".join(RESULT.program("AutoModelForSequenceClassification"))
    lines = "\n".join(RESULT.program("AutoModelForMaskedLM"))
    assert "labels" not in lines and 'InferenceSession(f"{folder}/model.onnx")' in lines
    compile(lines, "card", "exec")
