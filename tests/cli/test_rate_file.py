"""Ratings as a file: blind, in the order of a rater, taken once, and whole or not at all."""

import json
from pathlib import Path

import pytest

from etude.cli.rate import rate
from etude.cli.rate_file import export_questions, import_answers
from etude.errors import InputError
from tests.cli.rated import ratings, refuse, talkative_run


def _fill(path: Path, answers: list[str]) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(
        "".join(json.dumps({**row, "answer": each}) + "\n" for row, each in zip(rows, answers, strict=True))
    )


def test_a_filled_file_gives_the_ratings_of_a_script_and_names_no_run(tmp_path: Path) -> None:
    for folder in ("file", "script"):
        (tmp_path / folder).mkdir()
    answers = ["a", "b", "=", "s", "a"]
    pairs = {
        name: [talkative_run(tmp_path / name, each, prompts=5) for each in "ab"]
        for name in ("file", "script")
    }
    path = tmp_path / "anna.jsonl"
    assert export_questions(pairs["file"], path, rater="anna", seed=3) == 5
    assert not any(run.name in path.read_text() for run in pairs["file"])
    _fill(path, answers)
    assert import_answers(pairs["file"], path) == (4, 1) and import_answers(pairs["file"], path) == (0, 5)
    rate(pairs["script"], rater="anna", scores=answers, seed=3, ask=refuse)

    def kept(name: str) -> list[list[tuple[str, float]]]:
        return [[(each.prompt, each.score) for each in ratings(run)] for run in pairs[name]]

    assert kept("file") == kept("script")
    path_of_rest = tmp_path / "rest.jsonl"
    assert export_questions(pairs["file"], path_of_rest, rater="anna", seed=3) == 1


def test_a_row_that_does_not_fit_is_named_and_nothing_is_kept(tmp_path: Path) -> None:
    run, path = talkative_run(tmp_path, "a", prompts=3), tmp_path / "rows.jsonl"
    for wrong, words in (("9", "answer is '9'"), ({}, "no question"), ("other", "none of these runs")):
        export_questions([run], path, rater="anna", seed=17)
        _fill(path, ["4", "5", wrong if wrong == "9" else "1"])
        if wrong != "9":
            row = {} if wrong == {} else {**json.loads(path.read_text().splitlines()[0]), "id": "other"}
            path.write_text(path.read_text() + json.dumps({"x": 1} | row) + "\n")
        with pytest.raises(InputError, match=words):
            import_answers([run], path)
    assert ratings(run) == []
