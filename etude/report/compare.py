"""Runs side by side: differences of their recipes, conditions and results."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from etude.recipe.load import flatten
from etude.records.events import Step, plain
from etude.records.store import Run
from etude.records.window import mean_loss
from etude.report.history import History, read_history
from etude.report.progression import Progression, make_progression
from etude.report.seeds import Group, NoiseBand, group_by_recipe, noise_band
from etude.report.summary import Summary, summarize
from etude.report.wording import NOTHING, duration, number, percent, size
from etude.text import one_line, plural


@dataclass(frozen=True)
class Result:
    """One figure of every run: the same statistic, computed the same way; `text` writes a value."""

    what: str
    values: list[float | None]
    text: Callable[[Any], str] = number

    @property
    def change(self) -> list[float | None]:
        """Later runs less the first; None where either is unknown."""
        first = self.values[0]
        return [None if value is None or first is None else value - first for value in self.values[1:]]

    @property
    def change_ratio(self) -> list[float | None]:
        """Changes as a share of the first."""
        first = self.values[0]
        return [None if change is None or not first else change / abs(first) for change in self.change]

    def change_text(self, change: float | None, ratio: float | None) -> str:
        """A change with its sign in the unit of the values, and its ratio; shares change by points."""
        if change is None or not math.isfinite(change):
            return NOTHING
        if abs(change) < 1e-9 * abs(self.values[0] or 1):
            return "same"
        if self.text is percent:
            return f"{100 * change:+.1f} points"
        share = f" ({100 * ratio:+.1f} %)" if ratio is not None else ""
        return f"{'+' if change > 0 else '-'}{self.text(abs(change))}{share}"


@dataclass(frozen=True)
class Comparison:
    """Two runs or more; the first is what the others are measured against.

    recipe        dotted keys that differ, with the value of each run; None where it is not set
    environment   the same for versions, machine and device
    same_data     True if all trained on the same prepared data; None where a run has not told
    targets       number of targets at which losses are compared; 0 before the first step
    groups        finished runs that differ in their seed only, and the rest, each alone; empty if all are
    noise         bands of the groups for each result that varies
    """

    names: list[str]
    status: list[str]
    recipe: dict[str, list[Any]]
    environment: dict[str, list[Any]]
    same_data: bool | None
    targets: int
    results: list[Result]
    progression: Progression
    groups: list[Group]
    noise: dict[str, list[NoiseBand]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "runs": self.names,
            "status": self.status,
            "recipe": self.recipe,
            "environment": self.environment,
            "same_data": self.same_data,
            "targets": self.targets,
            "results": {
                result.what: {n: plain(getattr(result, n)) for n in ("values", "change", "change_ratio")}
                for result in self.results
            },
            "progression": self.progression.to_dict(),
            "groups": [group.to_dict() for group in self.groups],
            "noise": {what: [band.to_dict() for band in bands] for what, bands in self.noise.items()},
        }

    def rows(self) -> list[list[str]]:
        """A table for the terminal: header, recipe, conditions, data, results."""
        return [["", *self.names, *self._change_header()], *self._differences(), *self._result_rows()]

    def noise_rows(self) -> list[list[str]]:
        """A table for the terminal of the noise of seeds; empty where no run differs in its seed only."""
        if not self.groups:
            return []
        texts = {result.what: result.text for result in self.results}
        first, *others = (group.title for group in self.groups)
        header = ["noise of the seeds: mean ± standard deviation [range]", first, *others]
        rows = [[*header, *(f"{title} less {first} [95 %]" for title in others)]]
        for what, bands in self.noise.items():
            text = texts.get(what, number)
            spreads = [band.spread_text(text) for band in bands]
            rows.append([what, *spreads, *(band.difference_text(text) for band in bands[1:])])
        return rows

    def _change_header(self) -> list[str]:
        others = len(self.names) - 1
        return ["change"] if others == 1 else [f"change of {index + 2}" for index in range(others)]

    def _differences(self) -> list[list[str]]:
        blank = [""] * (len(self.names) - 1)
        named = {"status": self.status} | self.recipe | self.environment
        rows = [
            [what, *[NOTHING if v is None else one_line(v, 60) for v in values], *blank]
            for what, values in named.items()
        ]
        data = {True: "the same", False: "differs: compare bits per byte, not loss", None: "not known"}
        return [*rows, ["data", *[data[self.same_data]] * len(self.names), *blank]]

    def _result_rows(self) -> list[list[str]]:
        return [
            [r.what, *map(r.text, r.values), *map(r.change_text, r.change, r.change_ratio)]
            for r in self.results
        ]


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """Set runs side by side. Raises: InputError if a folder is damaged."""
    assert runs
    histories = [read_history(run) for run in runs]
    summaries = [summarize(run, history) for run, history in zip(runs, histories)]
    fingerprints = [history.data and history.data.fingerprint for history in histories]
    same_data = None if None in fingerprints else len(set(fingerprints)) == 1
    targets = min(summary["tokens"] for summary in summaries)
    results = [*_losses(histories, targets), *_scores(histories), *_figures(summaries)]
    groups = group_by_recipe(histories)
    return Comparison(
        names=[run.name for run in runs],
        status=[f"{summary['status']}: {summary['reason']}" for summary in summaries],
        recipe=_differing([_without_name(run) for run in runs]),
        environment=_differing([_conditions(history) for history in histories]),
        same_data=same_data,
        targets=targets,
        results=results,
        progression=make_progression(histories, summaries, same_data),
        groups=groups,
        noise={
            result.what: noise_band(groups, result.values)
            for result in [*results, *_best_figures(summaries)]
            if groups and any(value != result.values[0] for value in result.values)
        },
    )


def _losses(histories: list[History], targets: int) -> list[Result]:
    """Training losses over equal numbers of targets; two statistics over the same targets are one row."""
    if not targets:
        return []
    window = max(sum(step.targets for step in w.steps) for history in histories for w in history.windows)
    window = min(window, targets)
    ends = [sum(step.targets for step in history.steps) for history in histories]
    of = plural(window, "target")
    spans = {((0, window),) * len(ends): f"the first {of}"}
    if window < targets:
        spans[((targets - window, targets),) * len(ends)] = f"the {of} up to number {targets:,}"
    spans[tuple((end - window, end) for end in ends)] = f"the last {of}"
    return [
        Result(f"training loss over {what}", [_mean_between(h.steps, *s) for h, s in zip(histories, each)])
        for each, what in spans.items()
    ]


def _mean_between(steps: list[Step], start: int, end: int) -> float:
    """Mean loss of the steps that have a target after number `start` and up to number `end`."""
    within, seen = [], 0
    for step in steps:
        if seen < end and seen + step.targets > start:
            within.append(step)
        seen += step.targets
    return mean_loss(within)


def _scores(histories: list[History]) -> list[Result]:
    """Scores of the trained systems on rows that they were not trained on."""
    figures = [
        {
            f"{name} on {scores.split} rows": value
            for scores in history.scores
            for name, (value, *_) in scores.systems["after"].items()
        }
        for history in histories
    ]
    return _results(figures)


def _best_figures(summaries: list[Summary]) -> list[Result]:
    """Figures of the best evaluation, whose values the progression shows."""
    bests = [summary["figures_best"] for summary in summaries]
    return _results(
        [
            {f"{name} at the best evaluation": value for name, value in best.items() if "/" not in name}
            for best in bests
        ]
    )


def _results(figures: list[dict[str, float]]) -> list[Result]:
    """A result for each name that the figures of any run have."""
    names = dict.fromkeys(name for mine in figures for name in mine)
    return [Result(name, [mine.get(name) for mine in figures]) for name in names]


def _figures(summaries: list[Summary]) -> list[Result]:
    """Fields of the summaries that at least one run has."""
    rate: Callable[[float | None], str] = lambda value: number(value, 0)  # noqa: E731
    fields: list[tuple[str, str, Callable[[Any], str]]] = [
        ("best validation loss", "best_validation_loss", number),
        ("best validation step", "best_validation_step", number),
        ("best perplexity", "best_perplexity", number),
        ("best bits per byte", "best_bits_per_byte", number),
        ("last validation loss", "last_validation_loss", number),
        ("gap (last validation less training)", "gap", number),
        ("parameters", "parameters", number),
        ("steps", "step", number),
        ("targets", "tokens", number),
        ("tokens/s", "tokens_per_second", rate),
        ("MFU (of the measured matrix rate)", "mfu", percent),
        ("waiting for data", "wait_ratio", percent),
        ("memory at the peak", "peak_rss_bytes", size),
        ("GPU memory at the peak", "peak_gpu_memory_bytes", size),
        ("time in steps, rework included", "training_seconds", duration),
        ("time in all", "wall_seconds", duration),
        ("attempts", "attempts", number),
        ("skipped steps", "skipped_steps", number),
        ("findings", "findings", number),
    ]
    results = [Result(what, [summary[name] for summary in summaries], text) for what, name, text in fields]
    return [result for result in results if any(value is not None for value in result.values)]


def _differing(of_runs: list[dict[str, Any]]) -> dict[str, list[Any]]:
    keys = dict.fromkeys(key for values in of_runs for key in values)
    rows = {key: [values.get(key) for values in of_runs] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


def _without_name(run: Run) -> dict[str, Any]:
    return {key: value for key, value in flatten(run.recipe.to_dict()).items() if key != "name"}


def _conditions(history: History) -> dict[str, Any]:
    """Conditions of the last attempt that may change results or speed."""
    if not history.attempts:
        return {}
    attempt = history.attempts[-1]
    environment = attempt.environment
    kept = {
        "versions": environment.get("versions", {}),
        "machine": {k: environment.get("machine", {}).get(k) for k in ("platform", "cpu", "cores", "gpus")},
        "git": environment.get("git") or {},
        "threads": environment.get("threads"),
    }
    return flatten(kept) | {"device": f"{attempt.devices} x {attempt.device}", "precision": attempt.precision}
