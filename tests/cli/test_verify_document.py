from collections.abc import Callable
from pathlib import Path

from tests.conftest import Outcome

Etude = Callable[..., Outcome]


def test_a_document_that_contradicts_itself_exits_1_and_says_where(etude: Etude, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Run\n\nBatch 512 = 128 x 2.\n\nWe have 7 desks.\n")
    outcome = etude("verify", tmp_path / "a.md", "--html", tmp_path / "a.html")
    assert outcome.code == 1
    assert "line 3  contradicts: 512 (arithmetic)" in outcome.out
    assert "> Batch 512 = 128 x 2." in outcome.out and "would fit: 256" in outcome.out
    assert "1 contradict, 0 cannot be settled, 0 confirmed" in outcome.out
    assert "4 figures, 1 of them not examined; no rule looked at 1 sentence with figures" in outcome.out
    assert "not examined: We have 7 desks." in outcome.out
    assert "128 x 2 = 256" in (tmp_path / "a.html").read_text()


def test_a_document_is_not_written_over_by_its_page(etude: Etude, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("Batch 512 = 128 x 2.\n")
    outcome = etude("verify", tmp_path / "a.md", "--html", tmp_path / "a.md")
    assert outcome.code == 2 and "would be lost" in outcome.err
    assert (tmp_path / "a.md").read_text() == "Batch 512 = 128 x 2.\n"
