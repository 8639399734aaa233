"""Findings of the watch in the report: at length with a chart, and the others in a table."""

from collections.abc import Callable
from pathlib import Path

from etude.recipe.schema import Recipe
from etude.records.events import Finding
from etude.records.store import Run, hold_run
from etude.report.findings import charted, describe_findings
from etude.report.history import read_history
from etude.report.write import write_report
from etude.run import run_recipe
from etude.start import Options

SPIKE = Finding(
    8, "the loss *spiked*", "9.1 where 2.0 was usual", "leave out the batches", severity="error", window=[7, 8],
    causes=["a bad batch", "the learning rate"], changes={"data.skip_steps": 2, "optim.learning_rate": 1e-4},
    not_tested=["the rows of the batch"], kind="spike", confidence=0.8, decided_by="the gradient norm", source="a paper",
)  # fmt: skip


def trained(make_recipe: Callable[..., Recipe], runs: Path, *findings: Finding) -> Run:
    run = run_recipe(make_recipe(), Options(runs=runs)).run
    writer = hold_run(run)
    writer.append(*findings)
    writer.close("finished")
    return run


def test_a_finding_has_its_window_causes_changes_and_limits(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    later = Finding(12, "the loss *spiked*", "7.0", "", window=[12, 12], kind="spike")
    run = trained(make_recipe, tmp_path, Finding(2, "odd file", "x", "look"), SPIKE, later)
    history = read_history(run)
    charts = charted(history)
    assert charts == {"finding-1.svg": SPIKE}
    text = "\n\n".join(describe_findings(history, charts, ["loss.svg", "finding-1.svg"]))
    assert (
        "### The loss \\*spiked\\*\n\nError, steps 7 to 8, 2 times in all: 9.1 where 2.0 was usual." in text
    )
    assert (
        "Likely cause (80 % sure; shown by the gradient norm): a bad batch. Less likely: the learning rate."
        in text
    )
    assert (
        "To do: leave out the batches. In the recipe: `data.skip_steps = 2`, `optim.learning_rate = 0.0001`. "
        "Source: a paper." in text
    )
    assert "Not tested: the rows of the batch." in text
    assert "odd file" in text.rpartition("| step |")[2] and "7.0" in text.rpartition("| step |")[2]
    write_report(run, html=True)
    assert (run.path / "report" / "finding-1.svg").read_bytes().startswith(b"<?xml")
    assert "(finding-1.svg)" in (run.path / "report" / "report.md").read_text()


def test_the_worst_come_first_and_six_are_shown(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    kinds = [
        Finding(step, f"what {step}", "", "", window=[step, step], kind=f"kind_{step}")
        for step in range(1, 10)
    ]
    run = trained(make_recipe, tmp_path, *kinds, SPIKE)
    assert [each.step for each in charted(read_history(run)).values()] == [8, 1, 2, 3, 4, 5]


def test_what_was_found_before_the_first_step_has_no_chart(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """No curve shows it, and a picture that is not there would be a broken link."""
    early = Finding(
        0, "padding is scored", "92 %", "take it out", window=[0, 0], causes=["padded rows"],
        kind="padding_scored", confidence=1.0, decided_by="the prepared samples",
    )  # fmt: skip
    run = trained(make_recipe, tmp_path, early)
    write_report(run)
    text = (run.path / "report" / "report.md").read_text()
    assert "Warning, before the first step: 92 %." in text and "finding-1.svg" not in text
    assert "Cause (shown by the prepared samples): padded rows." in text
    assert not list((run.path / "report").glob("finding-*"))
