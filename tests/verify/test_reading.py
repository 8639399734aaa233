import json
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.verify.checking import check_path
from etude.verify.reading import plain, read_document, read_lines


def blocks(text: str) -> list[tuple[str, str, int]]:
    return [(each.kind, each.text, each.lines[0]) for each in read_lines("a.md", text.splitlines()).blocks]


def test_markdown_is_headings_paragraphs_items_tables_and_code_with_their_lines() -> None:
    text = "# Title\n\nOne *line*\nand more.\n\n- item **a**\n\n| A | B |\n|---|---|\n| 1 | 2 |\n\n```python\nx = 1\n```\n"
    assert blocks(text) == [
        ("heading", "Title", 1), ("prose", "One line and more.", 3), ("item", "item a", 6), ("table", "", 8), ("code", "x = 1", 13),
    ]  # fmt: skip


def test_a_place_in_a_paragraph_is_a_line_of_the_file() -> None:
    (block,) = read_lines("a.md", ["first line", "second with 3"]).blocks
    assert block.line_at(block.text.index("3")) == 2


def test_front_matter_logs_and_configurations_are_keys_with_values(tmp_path: Path) -> None:
    assert blocks("---\nepochs: 3\n---\ntext")[0] == ("item", "epochs: 3", 2)
    (tmp_path / "a.toml").write_text("[train]\nsteps = 10  # few\n")
    block, comment = read_document(tmp_path / "a.toml").blocks
    assert (block.text, block.section, block.lines) == ("steps: 10", ("train",), (2,))
    assert (comment.kind, comment.text, comment.lines) == ("prose", "few", (2,))
    (tmp_path / "a.yaml").write_text("model:\n  heads: 8\ntrain:\n  steps: 10\nseed: 1\n")
    found = [(each.text, each.section) for each in read_document(tmp_path / "a.yaml").blocks]
    assert found == [("heads: 8", ("model",)), ("steps: 10", ("train",)), ("seed: 1", ())]
    (tmp_path / "a.log").write_text("step=1 loss=2.0\nstep=2 loss=1.5\n")
    (block,) = read_document(tmp_path / "a.log").blocks
    assert block.rows == (("step", "loss"), ("1", "2.0"), ("2", "1.5"))


def test_a_notebook_is_its_cells_and_their_output(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Run\n", "5 + 3 = 9"]},
        {"cell_type": "code", "source": "%pip install x\nx = y\n", "outputs": [{"text": ["step=1 loss=2.0\n"]}, {"data": {"text/plain": "3"}}, 7]},
        {"cell_type": "code", "source": "x + 1"},
        5,
    ]  # fmt: skip
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    found = check_path(tmp_path / "a.ipynb").contradictions
    assert [(each.quoted, each.line) for each in found] == [("9", 2), ("y", 5)]


def test_a_trainer_state_beside_a_document_is_a_table_of_it(tmp_path: Path) -> None:
    (tmp_path / "card.md").write_text("# Card\n\nThe best validation loss was 1.10.\n")
    history = [{"step": n, "eval_loss": loss} for n, loss in ((1, 1.4), (2, 1.2), (3, 1.3))]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    (found,) = check_path(tmp_path / "card.md").findings
    assert (found.quoted, found.fits) == ("1.10", "1.2")


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "empty"), (b"\xff\xfe\x00", "no text"), (b"\xc3(", "no text"), (b"a\x00b 3", "zero bytes"), (b" \n", "empty"), (b"1" * (10 * 2**20 + 1), "larger")],
)  # fmt: skip
def test_what_is_no_text_is_refused_in_one_line(content: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes(content)
    with pytest.raises(InputError, match=why):
        check_path(tmp_path / "a.md")


@pytest.mark.parametrize("text", ["{", "[]", '{"cells": 3}', "[" * 100_000])
def test_a_notebook_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text(text)
    with pytest.raises(InputError):
        check_path(tmp_path / "a.ipynb")


ODD = {
    "digits": "9" * 10 * 2**20,
    "wide table": "|" + "a|" * 10_000 + "\n|" + "-|" * 10_000 + "\n|" + "1.5|" * 10_000,
    "controls": "steps: 10 \x1b[31m\x07\u202e\u200f 20 epochs",
    "html": "<script>alert(1)</script> <table><tr><td>3</td></tr></table> <" + "a" * 5000,
    "not finite": "loss: NaN\nloss: inf\nlr: 1e999\nbatch: 10^10000\nperplexity: 1e30, loss: 1e30",
    "zeros": "tokens: 0, batch 0, steps 0, epochs 0, samples 0, 0 / 0 = 0 %, from 0 to 0 (0 %), rank 0",
    "pipes": "|" * 100_000 + "\n" + "|-" * 50_000,
    "fences": "```\n" * 20_000,
    "quotes": ">" * 50_000 + " 3",
    "operators": "3 x " * 4_000 + "= 5",
    "brackets": "[{(" * 6_000 + "3, 4" + ")}]" * 6_000,
    "words": "batch size of " * 1_400 + "3",
    "many figures": "1 2 3 4 5 6 7 8 9\n\n" * 3_000,
    "deep code": "```python\n"
    + "f(" * 5_000
    + ")" * 5_000
    + "\n```\n```python\nx = "
    + "-" * 9_000
    + "1\n```",
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_or_hostile_is_read_and_ends(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(ODD[name])
    checked = check_path(tmp_path / "a.md")
    assert all(each.line >= 1 for each in checked.findings)
    if name in ("digits", "wide table"):
        assert checked.document.unread


def test_marks_links_and_tags_are_no_text() -> None:
    assert (
        plain("**Batch** [size](http://x.y/3): `32` <br> 4 \\times 8 &lt; 3 * 4")
        == "Batch size: 32   4 × 8 < 3 * 4"
    )
