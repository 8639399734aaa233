"""Windows of longer texts overlap; rows of one form, and windows that lie end to end, do not."""

import random
from pathlib import Path

import pytest

from etude.audit.overlaps import find_overlaps
from etude.plan import make_plan
from etude.records.events import Finding
from tests.audit.given import rows_of


def words(draw: random.Random, count: int) -> str:
    return " ".join("".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(count))


def found(folder: Path, texts: list[str], sample: str) -> list[Finding]:
    recipe = rows_of(
        folder, [{"text": text} for text in texts], {"data.sample": sample, "data.validation": "none"}
    )
    (task,) = make_plan(recipe).tasks
    return list(find_overlaps(task))


def windows(stride: int) -> list[str]:
    draw = random.Random(1)
    texts = [words(draw, 150) for _ in range(12)]
    return [text[at : at + 240] for text in texts for at in range(0, 640, stride)]


@pytest.mark.parametrize("sample", ["document", "row"])
@pytest.mark.parametrize("stride", [24, 80, 160])
def test_windows_with_a_stride_below_their_length_overlap(tmp_path: Path, sample: str, stride: int) -> None:
    (finding,) = found(tmp_path, windows(stride), sample)
    assert (finding.kind, finding.severity) == ("duplicates", "warning")
    assert f"{240 - stride} characters" in finding.evidence


@pytest.mark.parametrize("sample", ["document", "row"])
def test_windows_end_to_end_and_rows_of_one_form_are_none(tmp_path: Path, sample: str) -> None:
    draw = random.Random(2)
    form = [
        "\n".join(f"request {draw.randrange(10**6)} from example.org, agent curl/8.5.0" for _ in range(3))
        for _ in range(200)
    ]
    ended = [
        f"{words(draw, 20)}\n\nAll rights reserved, see the file LICENSE for its terms." for _ in range(99)
    ]
    for texts in (windows(240), form, ended, ["aaaaaaaa" * 9 + "b" * n for n in range(1, 60)]):
        assert found(tmp_path, texts, sample) == []
