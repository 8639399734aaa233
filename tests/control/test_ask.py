import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from etude.control.ask import Asked
from etude.errors import FaultError
from etude.recipe.load import recipe_from
from etude.records.events import Control
from etude.records.store import RunWriter, create_run
from tests.recipes import tiny


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[RunWriter]:
    writer = create_run(tmp_path / "runs", recipe_from(tiny(tmp_path / "none.jsonl")))
    yield writer
    writer.close("stopped")


def test_the_answers_to_a_request_are_read_up_to_the_last(writer: RunWriter) -> None:
    writer.append(Control(1, "accept", "of another", "x"))
    asked = Asked(writer.run, "stop")
    writer.append(Control(1, "accept", "acts now", asked.id), Control(1, "stop", "of another", "x"))
    answers = asked.answers()
    assert next(answers).reason == "acts now"
    threading.Timer(0.2, lambda: writer.append(Control(2, "stop", "done", asked.id))).start()
    assert [(each.step, each.action) for each in answers] == [(2, "stop")]


def test_a_run_that_does_not_answer_is_named(writer: RunWriter) -> None:
    with pytest.raises(FaultError, match="has not answered in 0 s; its process may hang"):
        list(Asked(writer.run, "stop").answers(patience_seconds=0.0))


def test_a_run_that_ends_without_an_answer_is_named(tmp_path: Path) -> None:
    writer = create_run(tmp_path / "runs", recipe_from(tiny(tmp_path / "none.jsonl")))
    asked = Asked(writer.run, "stop")
    writer.close("failed")
    with pytest.raises(FaultError, match="is failed; it ended before it did this"):
        list(asked.answers())
