"""The winner is named where figures compare and the noise allows it, and else the reason is."""

import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from etude.records.events import DataUsed, Evaluation
from etude.records.store import Run
from etude.report.compare import compare_runs
from etude.report.ranking import BY_BYTES, Ranking
from tests.report.runs import attempt, new_run, window

HELD = {"validation": "a" * 64}


def run(
    runs: Path,
    loss: float,
    *,
    held: dict[str, str] | None = None,
    tokenizer: str = "t",
    bits: float | None = None,
    targets: int = 500,
    changes: dict[str, Any] | None = None,
) -> Run:
    """A finished run with one evaluation; the fingerprint of its data is like no other."""
    writer = new_run(runs, {"optim.learning_rate": loss / 1000, **(changes or {})})
    data = DataUsed(f"{loss}{tokenizer}", {"validation": {"samples": 9}}, held or HELD, tokenizer)
    writer.append(
        attempt(), data, *window(1, 40), Evaluation(40, loss, 9.0, bits, targets, 1.0, True, {"f1": loss / 4})
    )
    writer.close("finished")
    return writer.run


def ranked(*runs: Run) -> Ranking:
    return compare_runs(runs).ranking


def test_a_single_run_each_is_ahead_but_the_noise_is_not_known(tmp_path: Path) -> None:
    a, b, c = (run(tmp_path, loss) for loss in (2.0, 3.0, 1.0))
    found = ranked(a, b, c)
    assert (found.order, found.winner, found.is_sure) == ([1, 0, 2], [c.name], None)
    assert found.sentences[0].startswith(f"{c.name} is ahead: validation loss 1.00 beside 2.00 of {a.name}")
    assert "the noise is not known: runs with other seeds" in found.sentences[0]
    repeat, evaluate = found.commands
    assert repeat == "etude train RECIPE --repeat 3"
    names = " ".join(each.name for each in (a, b, c))
    assert evaluate == f"etude evaluate {names} --on FILE --runs {tmp_path}"
    apart = [run(tmp_path / name, 2.0) for name in ("here", "there")]
    *_, evaluate = ranked(*apart).commands
    assert evaluate == f"etude evaluate {apart[0].path} {apart[1].path} --on FILE"


def test_runs_with_one_held_out_set_compare_although_their_training_rows_differ(tmp_path: Path) -> None:
    assert ranked(run(tmp_path, 2.0), run(tmp_path, 3.0)).compares_validation
    other = ranked(run(tmp_path, 2.0), run(tmp_path, 3.0, held={"validation": "b" * 64}))
    assert not other.compares_validation and other.winner == [] and other.figure is None
    assert "The runs hold out different rows (9 in small-" in other.sentences[0]


def test_the_file_that_all_hold_out_is_named(tmp_path: Path) -> None:
    held_out = {"data.validation": [{"path": str(tmp_path / "held out.jsonl")}]}
    both = ranked(run(tmp_path, 2.0, changes=held_out), run(tmp_path, 3.0, changes=held_out))
    assert f"--on {shlex.quote(os.path.relpath(tmp_path / 'held out.jsonl'))} " in both.commands[1]
    one = ranked(run(tmp_path, 2.0, changes=held_out), run(tmp_path, 3.0))
    assert "--on FILE" in one.commands[1]


def test_a_higher_f1_is_better(tmp_path: Path) -> None:
    a, b = (run(tmp_path, loss, changes={"evaluate.metric": "f1"}) for loss in (2.0, 3.0))
    assert ranked(b, a).winner == [b.name]


def test_other_tokenizers_compare_by_bits_per_byte(tmp_path: Path) -> None:
    a = run(tmp_path, 2.0, bits=1.2, targets=300)
    b = run(tmp_path, 3.0, bits=0.9, tokenizer="u", targets=150)
    found = ranked(a, b)  # 721 and 722 bytes
    assert found.figure == "validation bits per byte" and found.winner == [b.name]
    assert found.sentences[1] == BY_BYTES and not any(
        "Their tokenizers" in each for each in ranked(a, a).sentences
    )
    changes = {each.name for each in compare_runs([a, b]).results if each.compares}
    assert "best_bits_per_byte" in changes and not changes & {"metric_best", "training_loss_last"}
    cut = run(tmp_path, 3.0, bits=0.9, tokenizer="u", targets=100)
    assert "score other parts of their rows" in ranked(a, cut).sentences[0]
    unknown = run(tmp_path, 3.0, tokenizer="u")
    assert "losses per token do not compare" in ranked(a, unknown).sentences[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"evaluate.metric": "f1"}, r"different metrics \(validation loss and f1\)"),
        ({"evaluate.metric": "mine"}, "different metrics"),
        ({"train.objective": "masked", "model.kind": "encoder"}, "differ in their kind of training"),
    ],
)
def test_other_metrics_and_kinds_have_no_winner(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    found = ranked(run(tmp_path, 2.0), run(tmp_path, 3.0, changes=changes))
    assert found.winner == [] and found.order == [0, 1]
    assert re.search(reason, found.sentences[0])


def test_other_parts_of_the_same_rows_do_not_compare(tmp_path: Path) -> None:
    found = ranked(run(tmp_path, 2.0), run(tmp_path, 3.0, targets=300))
    assert "other parts of their held-out rows (500 targets in small-" in found.sentences[0]
    assert ", 300 targets in small-" in found.sentences[0]


def test_a_run_without_a_finite_metric_is_named(tmp_path: Path) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *window(1, 40))
    writer.close("finished")
    found = ranked(run(tmp_path, 2.0), writer.run)
    assert f"{writer.run.name} has no validation loss" in found.sentences[0] and found.winner == []


def test_a_winner_that_is_worse_than_before_training_is_named_as_such(tmp_path: Path) -> None:
    runs = []
    for first, best in ((0.5, 2.0), (4.0, 3.0)):
        writer = new_run(tmp_path, {"optim.learning_rate": best / 1000})
        before = Evaluation(0, first, 9.0, None, 500, 1.0, False)
        data = DataUsed(f"{best}", {}, HELD, "t")
        writer.append(attempt(), data, before, *window(1, 40))
        writer.append(Evaluation(40, best, 9.0, None, 500, 1.0, True))
        writer.close("finished")
        runs.append(writer.run)
    found = ranked(*runs)
    assert found.winner == [runs[0].name]
    assert found.sentences[1] == f"{runs[0].name} did not get better than before training."


def test_the_same_run_twice_and_seeds_alone_have_no_winner(tmp_path: Path) -> None:
    one = run(tmp_path, 2.0)
    assert ranked(one, one).sentences == ["All are the same run."]
    seeds = [run(tmp_path, 2.0, changes={"seed": seed, "optim.learning_rate": 1e-3}) for seed in (1, 2)]
    found = ranked(*seeds)
    assert found.winner == [] and "differ in their seed only, and all have" in found.sentences[0]
