"""The data of a run in a browser: all rows looked through, and the beginning of a file too large to send whole."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tests.report.runs import attempt, new_run
from tests.report.runs import window as steps
from tests.ui.browser.conftest import Window
from tests.ui.serving import serving

Look = Callable[..., AbstractContextManager[Window]]
ROWS = [f"def function_{number}(value):\n    return value * {number} + {number**2}\n" for number in range(40)]
RECIPE = """name = "mine"
[tokenizer]
train_vocab_size = 300
[[data.train]]
path = "{path}"
[model]
n_layer = 1
n_head = 1
n_embd = 16
n_ffn = 32
[train]
steps = 2
seq_len = 32
global_batch_size = 4
device = "cpu"
precision = "fp32"
"""


def test_all_rows_are_looked_through_when_one_asks(tmp_path: Path, look: Look) -> None:
    corpus = _write(tmp_path / "corpus.jsonl", [*ROWS, *[ROWS[3]] * 5])
    source = {"data.train": [{"path": str(corpus)}], "train.seq_len": 32, "train.device": "cpu"}
    writer = new_run(tmp_path / "runs", source)
    writer.append(attempt(), *steps(1, 5))
    writer.close("stopped")
    with serving(tmp_path / "runs") as server, look(server) as window:
        window.go(f"#/run/{writer.run.info['id']}/data")
        window.wait("text=Rows as they are learnt")
        assert "def function_0" in window.text(".timeline")
        assert "Duplicates" not in window.text("main")
        window.page.get_by_role("button", name="Look through all rows").click()
        window.wait("text=All rows were looked through.")
        found = window.text("section:has(h2:text-is('Duplicates')) table")
        assert "exact\t5\t11.1 %" in found and "near (Jaccard from 0.8)\t0\t0.0 %" in found
        window.page.locator("section:has(h2:text-is('Duplicates')) summary").click()
        window.wait("pre:has-text('corpus.jsonl:41 repeats corpus.jsonl:4')")
        assert "corpus.jsonl:4\t5" in window.text("section:has(h2:text-is('Largest clusters')) table")


def test_the_beginning_of_a_large_file_is_sent_and_its_rows_are_shown(tmp_path: Path, look: Look) -> None:
    corpus = _write(tmp_path / "corpus.jsonl", ROWS)
    (tmp_path / "runs").mkdir()
    # Quotes and line ends take more room in a question than in a file, and a letter of two bytes is cut in two.
    large = [f'# ä "first" {number}\n' + 'x = "ä"\n' * 100 for number in range(3000)]
    file = _write(tmp_path / "large.jsonl", large)
    single = tmp_path / "single.txt"
    single.write_text("one = 'ä'; " * 200_000)
    assert file.stat().st_size > 3_000_000
    with serving(tmp_path / "runs") as server, look(server) as window:
        sent: list[int] = []
        window.page.on(
            "request", lambda asked: asked.url.endswith("/api/rows") and sent.append(len(asked.post_data_buffer))
        )  # fmt: skip
        window.go("#/new")
        window.page.get_by_label("the recipe as TOML").fill(RECIPE.format(path=corpus))
        window.wait("text=no problem found")
        upload = window.page.get_by_label("or of a text file to send")
        for path, first in ((file, '# ä "first" 0'), (single, "one = 'ä'; one")):
            upload.set_input_files([str(path)])
            window.wait(f"text=Rows of the beginning of {path.name}")
            assert first in window.text("aside .timeline")
        assert len(sent) == 2 and all(900_000 < size <= 1_000_000 for size in sent)


def _write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), "utf-8")
    return path
