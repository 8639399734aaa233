"""The four deliverables of a sweep, and the runs of its trials, held against their journals."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from etude import durable
from etude.errors import InputError, MissingError
from etude.records.store import Run
from etude.report.deviations import Deviation, compare_texts, compare_values
from etude.report.moments import Moments
from etude.report.verifying import NO_REPORT, Verification, check_chart, verify_run
from etude.sweep.begun import read_begun
from etude.sweep.cells import find_runs_of
from etude.sweep.charts import sweep_charts
from etude.sweep.decisions import Decisions
from etude.sweep.deliverables import make_deliverables
from etude.sweep.folder import SweepFolder
from etude.sweep.grid import Trial
from etude.sweep.sections import write_sections

_MOST_BYTES = 64 << 20


def verify_sweep(path: Path) -> Verification:
    """Verify every run of a sweep folder, and hold its report against what follows from their journals.

    Raises: InputError if the folder cannot be read as that of a sweep.
    """
    place, made = SweepFolder(path), Verification(path.name)
    decided = Decisions.read(path)
    sweep = read_begun(place, decided, made.open.append)
    if not sweep.trials:
        raise InputError(f"{path} has no trials yet, so there is nothing to verify")
    runs = dict[str, Run]()

    def find(trials: Sequence[Trial]) -> Mapping[str, Run | None]:
        found = find_runs_of(trials, place.runs)
        runs.update({run.name: run for run in found.values() if run is not None})
        return {name: run and then.get(run.name, run) for name, run in found.items()}

    then = dict[str, Run]()
    make_deliverables(sweep, find, decided)  # which finds the runs
    for run in runs.values():
        _take_run(run, made)
    try:
        stated = durable.read_json_object(path / "report/report.json", most_bytes=_MOST_BYTES, follow=False)
        text = durable.read_text(path / "report/report.md", most_bytes=_MOST_BYTES, follow=False)
    except MissingError:
        made.open.append("there is no report of the sweep; etude sweep report SWEEP writes it")
        return made
    moments, heads = Moments("report/report.json", made), stated.get("journals")
    if not isinstance(heads, dict):
        made.open.append("the report of the sweep has no heads of journals, as it is of an older etude")
        return made
    then = {name: moments.run(run, heads[name]) for name, run in runs.items() if name in heads}
    if moments.went_on or runs.keys() - heads.keys():
        made.open.append("the sweep went on after its report; etude sweep report SWEEP writes it anew")
        return made
    again = make_deliverables(sweep, find, decided)
    charts = sweep_charts(again)
    follows = json.loads(json.dumps(again.to_dict()))
    made.count("trials", len(again.cells))
    moments.take_code(stated, follows)
    made.add(compare_values("report/report.json", stated, follows, "the records give another value"))
    made.add(compare_texts("report/report.md", text, write_sections(again, list(charts))))
    for name, svg in charts.items():
        made.count("charts")
        made.add(check_chart(path / "report", name, svg, made))
    return made


def _take_run(run: Run, made: Verification) -> None:
    """Join the verification of a run of a trial, its files by their place in the folder of the sweep."""
    try:
        other: Any = verify_run(run.path)
    except InputError as error:
        rule = str(error)
        made.deviations.append(Deviation(f"runs/{run.name}", "value", "a run that cannot be read", "", rule))
        return
    other.deviations = [replace(each, file=f"runs/{run.name}/{each.file}") for each in other.deviations]
    other.open = [f"{run.name}: {sentence}" for sentence in other.open if sentence != NO_REPORT]
    made.take(other)
