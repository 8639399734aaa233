"""The plan as a document says each value of each grid with its reason, and the work that is shared."""

from collections.abc import Callable
from pathlib import Path

from etude.sweep.document import grid_text, seconds_of, shared_line, write_plan
from etude.sweep.grid import load_sweep
from etude.sweep.measure import measure
from etude.sweep.search import foresee
from etude.sweep.tree import build_tree
from tests.conftest import Outcome
from tests.sweeps import sweep_values, write_sweep

PLAN = Path(__file__).parents[2] / "recipes" / "code-understanding-72.toml"


def test_the_document_of_72_trials_has_counts_reasons_and_shared_work(
    etude: Callable[..., Outcome], tmp_path: Path
) -> None:
    sweep, out = load_sweep(PLAN), tmp_path / "plan.md"
    shown = etude("sweep", "plan", PLAN, "--out", out)
    assert shown.code == 0 and "37.5 % less" in shown.out and str(out) in shown.err
    text = out.read_text("utf-8")
    assert "8 + 8 + 12 + 12 + 16 + 16 = 72 trials of 6 models" in text
    assert (
        "180.0 epochs of models in place of 288.0 (37.5 % less); 36 trials of 72 begin by themselves" in text
    )
    for tier in sweep.file.tiers:
        assert all(
            isinstance(axis.why, list) and all(reason in text for reason in axis.why) for axis in tier.grid
        )
        assert all(model.why in text for model in tier.models)
    assert all(reason in text for reason in sweep.file.why.values())
    assert (
        sum(line.startswith("| ") and "micro" in line and "-lr" in line for line in text.splitlines()) == 72
    )
    assert "400 device hours" in text and "1. f1 on the test rows" in text and "large, then medium" in text
    assert grid_text(sweep.file.tiers[2], sweep.file.tiers[2].models[0]).startswith(
        "16 trials: 2 learning_rate x "
    )


def test_words_of_others_stay_within_their_cell(tmp_path: Path, corpus: Path) -> None:
    values = sweep_values(corpus, {"train.steps": [4, 8]}, {"schedule.kind": "constant"})
    values["tiers"][0]["grid"][0]["why"] = "a | b\n# heading <script>"
    sweep = load_sweep(write_sweep(tmp_path / "sweep.toml", {**values, "purpose": "[x](javascript:1)"}))
    measured = measure(sweep)
    tree = build_tree(measured.planned)
    text = write_plan(sweep, measured, tree)
    assert "\n# heading" not in text and "<script>" not in text and "[x](javascript" not in text
    seconds = seconds_of(measured, tree)
    assert seconds is not None and " of device time for 8 steps" in text
    assert seconds == sum(stage.own_steps * measured.seconds[stage.name] for stage in tree.stages)
    assert tree.steps == 8 and "in place of" in shared_line(tree)


def test_a_search_is_told_with_its_ranges_and_as_many_trials(tmp_path: Path, corpus: Path) -> None:
    values = sweep_values(corpus, {"train.steps": [4, 8]})
    values["tiers"][0]["search"] = [
        {"key": "optim.learning_rate", "low": 1e-4, "high": 1e-2, "log": True, "why": "two decades"},
        {"key": "model.dropout", "values": [0.0, 0.1]},
    ]
    sweep = foresee(load_sweep(write_sweep(tmp_path / "sweep.toml", {**values, "search": {"trials": 3}})))
    measured = measure(sweep)
    text = write_plan(sweep, measured, build_tree(measured.planned))
    assert "| `optim.learning_rate` | 0.0001 to 0.01, each factor as likely | two decades |" in text
    assert "| `model.dropout` | 0.0, 0.1 |" in text and "| 2 x 3 = 6 |" in text
    assert "these are drawn at random" in text and "net-steps8-search2" in text
    tier = sweep.file.tiers[0]
    told = grid_text(tier, tier.models[0], sweep.file.search)
    assert told == "6 trials: 2 steps x 3 of a search of learning_rate and dropout"


def test_the_plan_tells_apart_models_that_differ_in_settings_alone(tmp_path: Path, corpus: Path) -> None:
    values = sweep_values(corpus, {"optim.learning_rate": [1e-3, 2e-3]})
    (model,) = values["tiers"][0]["models"]
    wide = {**model, "name": "wide", "settings": {"model.n_embd": 64}}
    values["tiers"][0]["models"] = [model, wide]
    sweep = load_sweep(write_sweep(tmp_path / "sweep.toml", values))
    measured = measure(sweep)
    text = write_plan(sweep, measured, build_tree(measured.planned))
    _, _, own = text.partition("| setting of wide |")
    assert "| `model.n_embd` | `64` |" in own.partition("\n\n")[0]
    assert "nothing is shared." in text and "is trained once" not in text
