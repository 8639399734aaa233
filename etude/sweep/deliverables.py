"""The four deliverables of a sweep: configurations, benchmarks, resources and advice, from journals alone.

They hold at any moment: a trial that has not ended is shown as that, and nothing is guessed for it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from etude.records.events import Forecast, plain
from etude.records.store import Run
from etude.report.figures import Source
from etude.report.sources import head_of
from etude.report.summary import maker
from etude.sweep.cells import Cell, read_cells
from etude.sweep.costs import Costs, split_costs
from etude.sweep.decisions import Decisions
from etude.sweep.grid import Sweep, Trial
from etude.sweep.halving import Censored, find_censored
from etude.sweep.recommend import Candidate, Recommendation, make_candidate, pareto_front, recommend
from etude.sweep.repeats import Shrinkage, measure_shrinkage, plan_repeats
from etude.sweep.standing import Standing, same_rows, stand, worth_text

# The run of each of some trials, None for those that have none; the repeats of the best are asked for too.
Find = Callable[[Sequence[Trial]], Mapping[str, Run | None]]


@dataclass(frozen=True)
class Deliverables:
    """The results of a sweep so far.

    standings   of the trials of each model
    overall     of the best trial of each model; without a best where they are not measured on the same rows
    same_rows   as `standing.same_rows`, of all trials
    candidates  the best trial of each model that has one
    front       of these, as `pareto_front`
    shrinkage   of the trial that is trained again, else of the best of all; None before there is one
    censored    trials that were left at rungs, by name, with their ranks there
    doubts      sentences on decisions that are not those of this sweep
    """

    sweep: Sweep
    cells: Sequence[Cell]
    standings: Mapping[str, Standing]
    overall: Standing
    same_rows: bool | None
    costs: Costs
    candidates: Sequence[Candidate]
    front: Sequence[Candidate]
    advice: Sequence[Recommendation]
    shrinkage: Shrinkage | None
    censored: Mapping[str, Censored]
    doubts: Sequence[str] = ()

    @property
    def metric(self) -> str:
        """The metric of the first trial, which is that of all where they compare."""
        return str(self.cells[0].metric)

    @property
    def damaged(self) -> dict[str, str]:
        """Sentences on damaged records of runs, by the name of each trial."""
        every = [*self.cells, *(self.shrinkage.again if self.shrinkage else ())]
        return {cell.name: cell.damage for cell in every if cell.damage}

    @property
    def worth(self) -> str:
        """Sentences on the best of all beside the best baseline; "" without a best."""
        return worth_text(self.overall.best, self.cells) if self.overall.best else ""

    def of_model(self, model: str) -> list[Cell]:
        """The cells of a model."""
        return [cell for cell in self.cells if cell.trial.model == model]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, each with the run and the records that it comes from."""
        best, every = self.overall.best, [*self.cells, *(self.shrinkage.again if self.shrinkage else ())]
        found: dict[str, Any] = plain({
            "sweep": self.sweep.file.name,
            "code": maker(Path(__file__).parent),
            "journals": {cell.run: head_of(cell.history)._asdict() for cell in every if cell.history},
            "metric": self.metric,
            "lower_is_better": self.cells[0].metric.lower_is_better,
            "same_validation_rows": self.same_rows,
            "best": best and best.name, "worth": self.worth,
            "models": {model: _standing(standing) for model, standing in self.standings.items()},
            "trials": [_cell(cell, self.costs, self.censored.get(cell.name)) for cell in self.cells],
            "costs": _costs(self.costs),
            "candidates": [_candidate(each, self.front) for each in self.candidates],
            "recommendations": [
                {"need": each.need, "trial": each.candidate.cell.name, "why": each.why,
                 "run": each.candidate.cell.run}
                for each in self.advice
            ],
            "doubts": list(self.doubts), "winners_curse": self.shrinkage and _shrinkage(self.shrinkage),
        })  # fmt: skip
        return found


def make_deliverables(sweep: Sweep, find: Find, decided: Decisions | None = None) -> Deliverables:
    """Make the deliverables of a sweep from the runs that its trials have now.

    decided: by the sweep, as the trial that is trained again; no later result moves that choice.
    """
    again, beyond = (decided.best, decided.beyond) if decided else (None, set[str]())
    cells = [
        replace(cell, is_beyond=cell.name in beyond) for cell in read_cells(sweep.trials, find(sweep.trials))
    ]
    models = dict.fromkeys(cell.trial.model for cell in cells)
    standings = {model: stand([cell for cell in cells if cell.trial.model == model]) for model in models}
    firsts = [standing.best for standing in standings.values() if standing.best is not None]
    is_same = same_rows(cells)
    overall = stand(firsts if is_same is not False else [])
    shrinkage, seeds = None, sweep.file.repeats.seeds
    chosen = next((cell for cell in cells if cell.name == again and cell.value is not None), overall.best)
    if chosen is not None and seeds and len(cells) > 1:
        repeats = plan_repeats(chosen.trial, seeds, sweep.trials)
        shrinkage = measure_shrinkage(chosen, repeats, find(repeats))
    every = [*cells, *(shrinkage.again if shrinkage else ())]
    costs = split_costs({cell.name: cell.history for cell in every if cell.history is not None})
    candidates = [make_candidate(cell, costs.alone) for cell in firsts]
    return Deliverables(
        sweep=sweep, cells=cells, standings=standings, overall=overall, same_rows=is_same, costs=costs,
        candidates=candidates, front=pareto_front(candidates) if is_same is not False else [],
        advice=recommend(candidates, overall), shrinkage=shrinkage,
        doubts=decided.doubts([trial.name for trial in sweep.trials]) if decided else (),
        censored={
            name: found for model in models
            for name, found in find_censored([cell for cell in cells if cell.trial.model == model]).items()
        },
    )  # fmt: skip


def forecast_errors(cell: Cell, costs: Costs) -> dict[str, tuple[float, float]]:
    """Time and memory of a trial that ended as (forecast, measured); none of a run that is a fork.

    A fork begins with the forecast of the run that it goes on from, which has another end.
    """
    if not cell.is_final or cell.history is None or "origin" in cell.history.run.info:
        return {}
    said = next(iter(cell.history.events(Forecast)), None)
    if said is None or cell.attempt is None or cell.state != "finished":
        return {}
    found = {"seconds": (said.seconds, costs.alone[cell.name] / cell.attempt.devices)}
    memory = cell["peak_gpu_memory_bytes"] or cell["peak_rss_bytes"]
    return found | ({"memory_bytes": (float(said.memory_bytes), float(memory))} if memory else {})


def _standing(standing: Standing) -> dict[str, Any]:
    return {
        "best": standing.best and standing.best.name,
        "not_distinguishable": [cell.name for cell in standing.like],
        "behind": [
            {"trial": each.cell.name, "basis": each.basis,
             "difference": each.gain and [each.gain.value, each.gain.low, each.gain.high]}
            for each in standing.others
        ],
        "not_comparable": [cell.name for cell in standing.apart],
        "without_final_value": [cell.name for cell in standing.left],
        "censored": [cell.name for cell in standing.left if cell.state == "censored"],
    }  # fmt: skip


def _cell(cell: Cell, costs: Costs, censored: Censored | None) -> dict[str, Any]:
    error, error_from = cell.error
    entry: dict[str, Any] = {
        "trial": cell.name, "tier": cell.trial.tier, "model": cell.trial.model,
        "values": dict(cell.trial.values), "run": cell.run, "state": cell.state,
        "problem": cell.damage or None, "is_final": cell.is_final, "reason": cell["reason"],
        "step": cell["step"], "steps": cell["steps"], "epochs": cell["epochs"],
        "value": cell.value, "value_step": cell.best and cell.best.step, "standard_error": error,
        "constant": cell.constant, "baseline": cell.baseline and asdict(cell.baseline),
        "test": cell.test, "device_seconds": costs.charged.get(cell.name),
        "device_seconds_alone": costs.alone.get(cell.name),
    }  # fmt: skip
    if censored:
        entry["rung"] = {"value": cell.value, **asdict(censored)}
    if cell.converged:
        evaluation, seconds = cell.converged
        entry["converged"] = {"step": evaluation.step, "seconds": seconds}
    names = ("peak_rss_bytes", "peak_gpu_memory_bytes", "tokens_per_second", "parameters", "wall_seconds")
    entry |= {name: cell[name] for name in names}
    entry["forecast"] = {
        name: {"said": said, "measured": measured}
        for name, (said, measured) in forecast_errors(cell, costs).items()
    }
    entry["sources"] = {name: list(map(source_text, cell.source(name))) for name in ("metric_best", *names)}
    entry["sources"]["standard_error"] = [error_from] if error_from else []
    return entry


def source_text(source: Source) -> str:
    """Records in short: `evaluation 40`, `step 1 to 40`, or a file."""
    if source.first is None:
        return source.kind
    end = f" to {source.last}" if source.last not in (None, source.first) else ""
    return f"{source.kind} {source.first}{end}"


def _costs(costs: Costs) -> dict[str, Any]:
    return {
        "device_seconds": costs.measured,
        "device_seconds_alone": math.fsum(costs.alone.values()),
        "parts": [
            {"run": part.run, "first_step": part.first, "last_step": part.last,
             "device_seconds": part.seconds, "trials": list(part.trials)}
            for part in costs.parts
        ],
        "not_known": list(costs.unknown),
    }  # fmt: skip


def _candidate(candidate: Candidate, front: Sequence[Candidate]) -> dict[str, Any]:
    return {
        "trial": candidate.cell.name, "model": candidate.cell.trial.model, "run": candidate.cell.run,
        "value": candidate.cell.value, "evaluation_seconds_a_row": candidate.row_seconds,
        "peak_memory_bytes": candidate.memory_bytes, "parameters": candidate.parameters,
        "weights_bytes": candidate.weights_bytes, "device_seconds_alone": candidate.train_seconds,
        "on_front": candidate in front,
    }  # fmt: skip


def _shrinkage(found: Shrinkage) -> dict[str, Any]:
    noise = found.noise
    return {
        "trial": found.chosen.name, "value": found.chosen.value, "mean": found.mean,
        "standard_deviation": found.deviation, "lost": found.lost,
        "difference": noise and [noise.value, noise.low, noise.high], "test_mean": found.test_mean,
        "same_validation_rows": found.same_rows,
        "again": [
            {"trial": cell.name, "run": cell.run, "state": cell.state, "value": cell.value,
             "test": cell.test, "seed": cell.trial.recipe.seed}
            for cell in found.again
        ],
    }  # fmt: skip
