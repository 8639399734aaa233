"""Runs scored on one file: the figures are those that the runs measured themselves, and rows are paired."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etude.errors import InputError
from etude.recipe.load import recipe_from
from etude.records.store import Run
from etude.report.history import read_history
from etude.rescore import rescore
from etude.run import run_recipe
from etude.start import Options
from tests import misleading as made
from tests.bases import write_corpus, write_encoder, write_instructions, write_pairs, write_qwen2
from tests.recipes import classification, finetuning, masked, seq2seq, tiny

Get = Callable[..., Any]


def split(folder: Path, rows: Path, held_out: int) -> tuple[Path, Path]:
    """The last rows of a file in a file of their own."""
    lines = rows.read_text().splitlines(keepends=True)
    train, other = folder / "first.jsonl", folder / "last.jsonl"
    train.write_text("".join(lines[:-held_out]))
    other.write_text("".join(lines[-held_out:]))
    return train, other


def tune(folder: Path, name: str, base: Path, rows: tuple[Path, Path], changes: dict[str, Any]) -> Run:
    held_out = {"data.validation": [{"path": str(rows[1])}], "data.leakage.action": "report"}
    recipe = finetuning(rows[0], base, {"name": name, **held_out, **changes})
    return run_recipe(recipe, Options(runs=folder / "runs")).run


def test_a_run_scores_on_its_validation_rows_what_its_journal_has_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    write_instructions(tmp_path / "all.jsonl", 40)
    rows, base = split(tmp_path, tmp_path / "all.jsonl", 12), write_qwen2(tmp_path / "base")
    whole = tune(tmp_path, "whole", base, rows, {"evaluate.answers": 12, "evaluate.answer_tokens": 8})
    adapter = tune(tmp_path, "lora", base, rows, {"adapter": {"rank": 4}, "evaluate.answer_tokens": 8})
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    found = rescore(["whole@last", "lora@last", str(base)], rows[1], runs=tmp_path / "runs", answers=12)
    for system, run in zip(found.systems, (whole, adapter)):
        last = read_history(run).evaluations[-1]
        assert system.figures["loss"][0] == pytest.approx(last.loss, rel=1e-5)
        assert system.figures["bits_per_byte"][0] == pytest.approx(last.bits_per_byte, rel=1e-5)
        assert len(system.parts) == system.rows == 12 and system.step == 20
    metrics = read_history(whole).evaluations[-1].metrics
    assert found.systems[0].figures["edit_similarity"][0] == pytest.approx(metrics["edit_similarity"])
    untrained = found.systems[2]
    assert untrained.figures["loss"][0] == pytest.approx(read_history(whole).evaluations[0].loss, rel=1e-5)
    assert found.is_sure and found.winner == [f"{whole.name}@last"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len([path for path in (tmp_path / "runs").rglob("*") if path.is_file()]) == len(before)
    text = "\n".join(found.lines(80))
    assert f"{whole.name}@last is the best: its loss is" in text and "beyond the noise of the rows" in text
    assert max(map(len, text.splitlines())) <= 80
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_difference_of_losses_is_paired_by_rows(tmp_path: Path) -> None:
    write_instructions(tmp_path / "all.jsonl", 40)
    rows, base = split(tmp_path, tmp_path / "all.jsonl", 12), write_qwen2(tmp_path / "base")
    for name, rate in (("a", 5e-3), ("b", 4e-3)):
        tune(tmp_path, name, base, rows, {"optim.learning_rate": rate})
    found = rescore(["a", "b"], rows[1], runs=tmp_path / "runs")
    a, b = (system.parts for system in found.systems)
    draw = np.random.default_rng(4)
    differences = [
        b[at, 0].sum() / b[at, 1].sum() - a[at, 0].sum() / a[at, 1].sum()
        for at in (draw.integers(12, size=12) for _ in range(2000))
    ]
    value, low, high = found.differences[1]["loss"]
    assert value == pytest.approx(b[:, 0].sum() / b[:, 1].sum() - a[:, 0].sum() / a[:, 1].sum())
    wanted, width = np.quantile(differences, [0.025, 0.975]), float(np.ptp(differences))
    assert (low, high) == pytest.approx(tuple(wanted), abs=0.15 * width)


def test_classifiers_score_as_their_own_final_scores(misleading: Get) -> None:
    runs = misleading(made.equal_within_noise)
    test = Path(runs[0].recipe.data.test[0].path)
    found = rescore([run.name for run in runs], test, runs=runs[0].path.parent)
    for system, run in zip(found.systems, runs):
        for name, wanted in read_history(run).scores[-1].systems["after"].items():
            assert system.figures[name] == pytest.approx(wanted), name
    assert found.figure == "f1" and found.is_sure is False and len(found.winner) == 2


def test_a_classifier_that_says_one_label_is_named(misleading: Get) -> None:
    run = misleading(made.constant_classifier)
    found = rescore([run.name], Path(run.recipe.data.test[0].path), runs=run.path.parent)
    (said,) = {int(each) for each in found.systems[0].measured.predicted}
    label, rows = found.systems[0].labels[said], found.systems[0].rows
    assert f"{run.name} predicts the label {label} for all {rows} rows." in found.sentences


def test_several_labels_are_scored_by_thresholds_that_other_rows_chose(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    known = [{"text": f"row {n}", "label": [f"by {d}" for d in (2, 3) if n % d == 0]} for n in range(40)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in known))
    held_out = {"data.validation": [{"path": str(rows), "label": "label"}], "data.leakage.action": "report"}
    recipe = classification(rows, None, {**held_out, "train.steps": 2})
    run = run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    found = rescore([run.recipe.name], rows, runs=tmp_path / "runs")
    (system,) = found.systems
    assert system.name == run.name and found.sentences[0].startswith(f"The f1 of {run.name} is 0.")
    assert any("threshold on that is chosen on other rows of this file" in each for each in found.sentences)
    (last,) = [each for each in read_history(run).evaluations if each.step == system.step]
    assert system.figures["f1"][0] == pytest.approx(last.metrics["f1"])


def test_rows_that_have_one_label_each_are_scored_as_the_model_was_trained(tmp_path: Path) -> None:
    """Scored as a choice of one label, a model that says all labels of all rows looks as good as one that knows."""
    known = [{"text": f"row {n}", "label": [f"by {d}" for d in (2, 3) if n % d == 0]} for n in range(40)]
    one = [row for row in known if len(row["label"]) == 1]
    for name, rows in (("all", known), ("one", one), ("some", [*one, known[0]])):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = classification(
        tmp_path / "all", None, {"data.train": [{"path": str(tmp_path / "all"), "label": "label"}]}
    )
    run = run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    ones, some = (
        rescore([run.name], tmp_path / n, runs=tmp_path / "runs").systems[0] for n in ("one", "some")
    )
    assert ones.parts == pytest.approx(some.parts[:-1], rel=1e-4)
    assert ones.parts[:, 1] == pytest.approx(2.0)  # each label is a target


def test_rows_of_several_labels_are_refused_by_a_model_that_gives_one(
    misleading: Get, tmp_path: Path
) -> None:
    run = misleading(made.equal_within_noise)[0]
    rows = [json.loads(line) for line in Path(run.recipe.data.test[0].path).read_text().splitlines()]
    source = run.recipe.data.test[0]
    names = sorted({row[source.label] for row in rows})
    rows[0][source.label] = names
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"a row has no label or several, and .* gives one"):
        rescore([str(run.path)], tmp_path / "rows.jsonl")


def test_runs_that_hold_out_other_rows_compare_on_a_file_and_seen_rows_are_counted(misleading: Get) -> None:
    runs = misleading(made.other_held_out_rows)
    rows = Path(runs[2].recipe.data.train[0].path)
    found = rescore([run.name for run in runs], rows, runs=runs[0].path.parent)
    assert [system.rows for system in found.systems] == [40, 40, 40] and all(found.differences[1:])
    assert found.systems[2].trained == 36
    assert any("was trained on 36 of these 40 rows" in sentence for sentence in found.sentences)


def test_other_tokenizers_compare_by_bits_per_byte(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl")
    for name, size in (("small", 300), ("large", 340)):
        changes = {"name": name, "tokenizer.train_vocab_size": size, "data.sample": "document"}
        run_recipe(recipe_from(tiny(corpus, changes)), Options(runs=tmp_path / "runs"))
    found = rescore(["small", "large"], corpus, runs=tmp_path / "runs")
    assert found.figure == "bits_per_byte" and found.differences[1].keys() == {"bits_per_byte"}
    assert any("Their tokenizers differ" in sentence for sentence in found.sentences)
    a, b = (system.parts[:, 2].sum() for system in found.systems)
    assert a > 0 and b > 0


@pytest.mark.parametrize("kind", ["masked", "seq2seq"])
def test_other_kinds_are_scored_too(tmp_path: Path, kind: str) -> None:
    if kind == "masked":
        rows = write_corpus(tmp_path / "rows.jsonl")
        recipe = masked(rows, write_encoder(tmp_path / "base", masked=True), {"train.steps": 2})
    else:
        rows = write_pairs(tmp_path / "rows.jsonl", 30)
        recipe = seq2seq(rows, None, {"train.steps": 2, "evaluate.answers": 2})
    run = run_recipe(recipe, Options(runs=tmp_path / "runs")).run
    (system,) = rescore([run.name], rows, runs=tmp_path / "runs").systems
    assert system.figures["loss"][1] < system.figures["loss"][0] < system.figures["loss"][2]
    assert ("bleu" in system.figures) == (kind == "seq2seq")


def test_what_does_not_fit_is_named(misleading: Get, tmp_path: Path) -> None:
    classifier, causal = misleading(made.equal_within_noise)[0], misleading(made.other_held_out_rows)[0]
    new = tmp_path / "new.jsonl"
    new.write_text("".join(json.dumps({"text": "total", "label": label}) + "\n" for label in ("sum", "odd")))
    with pytest.raises(InputError, match=r"the rows have the labels odd, which .* does not know"):
        rescore([str(classifier.path)], new)
    with pytest.raises(InputError, match=r"nothing.jsonl does not exist; give a file of rows"):
        rescore([str(classifier.path)], tmp_path / "nothing.jsonl")
    with pytest.raises(InputError, match="is trained for causal and the first for classification"):
        rescore([str(classifier.path), str(causal.path)], new)
    trained_on = "; give rows such as .* was trained on: .* rows of JSONL, field text"
    with pytest.raises(InputError, match=f"new.jsonl:1 has no field 'text' of text{trained_on}"):
        new.write_text('{"other": 1}\n')
        rescore([str(classifier.path)], new)
    with pytest.raises(InputError, match="is a folder, which knows no recipe; name a run first"):
        rescore([str(write_qwen2(tmp_path / "base"))], new)
