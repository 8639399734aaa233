"""A task of a run, and the names of its figures."""

from pathlib import Path

from tests.bases import write_labelled
from tests.objectives.sessions import begun
from tests.recipes import classification, tasks


def test_figures_carry_the_name_of_their_task_where_there_are_several(tmp_path: Path) -> None:
    with begun(tasks(tmp_path), tmp_path / "runs") as session:
        kinds, words, text = session.plan.tasks
        assert kinds.named("f1") == "kinds:f1"
        assert {"kinds:f1", "kinds:loss"} < kinds.metrics() and "words:f1" in words.metrics()
        assert text.metrics() == {"text:loss"}  # the perplexity of a weighed loss would be none
    rows = write_labelled(tmp_path / "rows.jsonl")
    with begun(classification(rows), tmp_path / "runs") as session:
        (only,) = session.plan.tasks
        assert only.named("f1") == "f1" and {"f1", "loss"} < only.metrics()
