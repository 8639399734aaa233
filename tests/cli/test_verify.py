import json
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Outcome

Etude = Callable[..., Outcome]


def test_a_true_document_exits_0_and_what_cannot_be_read_2(etude: Etude, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("128 x 4 = 512")
    assert etude("verify", tmp_path / "a.md").code == 0
    value = json.loads(etude("verify", tmp_path / "a.md", "--json").out)
    assert value["verdicts"] == {"contradicts": 0, "cannot be settled": 0, "confirmed": 1}
    assert value["findings"][0]["quoted"] == "512"
    for path in (tmp_path, tmp_path / "gone.md"):
        assert etude("verify", path).code == 2
