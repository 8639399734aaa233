"""The manifest of a copy says where its bytes are, and nothing else is believed."""

import hashlib
import json
from dataclasses import replace
from typing import Any, get_args

import pytest

from etude.control.copy import Manifest, Part, manifest_name, manifest_number, read_manifest
from etude.errors import DamageError
from etude.records.ending import State

PART = "000001-0123abcd-records"
GOOD = Manifest(
    "tiny-1a2b3c",
    8,
    "stopped",
    {PART: Part(30, "0" * 64)},
    {"run.json": [(PART, 0, 10)], "log.txt": [(PART, 10, 20)]},
)


def sealed(**changes: Any) -> bytes:
    values = {**json.loads(json.loads(GOOD.to_bytes())["copy"]), **changes}
    body = json.dumps(values)
    return json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "copy": body}).encode()


def test_a_manifest_reads_as_it_was_written() -> None:
    assert read_manifest(GOOD.to_bytes(), "m") == GOOD
    for state in get_args(State):  # whatever a process may end as
        assert read_manifest(sealed(state=state), "m") == replace(GOOD, state=state)
    assert manifest_number(manifest_name(12, "0123abcd")) == (12, "0123abcd")
    assert manifest_number(PART) is None


@pytest.mark.parametrize(
    "path",
    [
        "../run.json", "/etc/passwd", "checkpoints/../../x", "checkpoints/step-000001/../x", "lease.json", ".lock",
        "checkpoints/step-000001/a/b", "predictions/../x", "prepared/" + "a" * 32 + "/../../x", "prepared/x/y",
        "checkpoints/step-000001/.hidden", "journal.jsonl\n", "predictions//x", "report/report.md", "a\0b",
    ],
)  # fmt: skip
def test_a_file_that_would_lie_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(DamageError, match="none of a run"):
        read_manifest(sealed(files={path: [[PART, 0, 10]]}), "m")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"\xff\xfe", GOOD.to_bytes()[:-9], GOOD.to_bytes().replace(b"tiny", b"tony"),
        sealed(format=99), sealed(run="../x"), sealed(run=""), sealed(state="running"), sealed(step=-1),
        sealed(parts={"../x": {"size": 1, "sha256": "0" * 64}}), sealed(parts={PART: {"size": 1, "sha256": "0"}}),
        sealed(files={"run.json": [[PART, 25, 10]]}), sealed(files={"run.json": [[PART, -1, 10]]}),
        sealed(files={"run.json": [["000001-0123abcd-other", 0, 1]]}), sealed(files={"run.json": [[PART, 0]]}),
        sealed(files={"run.json": [[PART, 0, True]]}), sealed(files={"run.json": [[PART, 0, 30], [PART, 0, 1]]}),
        sealed(files={"predictions/a": [[PART, 0, 1]], "predictions/a/b": [[PART, 1, 1]]}), sealed(files=[]), b"[" * 100_000, b"x" * (17 << 20),
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(DamageError):
        read_manifest(content, "m")
