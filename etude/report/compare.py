"""Runs side by side: what differs in their recipes and conditions, beside what differs in their results."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from etude.recipe.load import flatten
from etude.records.events import Scores, Step, plain
from etude.records.store import Run
from etude.records.window import mean_loss
from etude.report.history import History, read_history
from etude.report.markdown import code, fence, prose, table
from etude.report.progression import Progression, make_progression
from etude.report.seeds import Group, NoiseBand, group_by_recipe, noise_band
from etude.report.summary import Summary, summarize_history
from etude.report.wording import NOTHING, duration, number, percent, size
from etude.text import one_line


@dataclass(frozen=True)
class Result:
    """One figure of every run: the same statistic, computed the same way.

    text     how a value is written
    change   later runs less the first, None where either is unknown; `change_ratio` is that over the first
    """

    what: str
    values: list[float | None]
    text: Callable[[Any], str] = number

    @property
    def change(self) -> list[float | None]:
        first = self.values[0]
        return [None if value is None or first is None else value - first for value in self.values[1:]]

    @property
    def change_ratio(self) -> list[float | None]:
        first = self.values[0]
        return [None if change is None or not first else change / abs(first) for change in self.change]

    def change_text(self, change: float | None, ratio: float | None) -> str:
        """A change with its sign, in the unit of the values, and as a share of the first; shares change by
        points.
        """
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

    names         of the runs, in the order given
    status        and reason of each
    recipe        dotted keys that are not the same everywhere, with the value of each run; None where it is
                  not set
    environment   the same for versions, machine and device
    same_data     whether all trained on the same prepared data; None where a run has not told
    progression   how each led to the next
    targets       how many targets each run had seen where losses are compared at equal numbers; 0 before the
                  first step
    groups        finished runs that differ in their seed only, and the rest, each alone; empty if all are
    noise         of each result that varies, what the seeds come to in each group, measured against the first
                  one
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
                result.what: {
                    "values": plain(result.values),
                    "change": plain(result.change),
                    "change_ratio": plain(result.change_ratio),
                }
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
        """A table for the terminal of what other seeds bring about; empty where no run differs in its seed
        only.
        """
        if not self.groups:
            return []
        texts = {result.what: result.text for result in self.results}
        header = [
            "noise of the seeds: mean ± standard deviation [range]",
            *(group.title for group in self.groups),
        ]
        header += [f"{group.title} less {self.groups[0].title} [95 %]" for group in self.groups[1:]]
        return [header] + [
            [
                what,
                *(band.spread_text(texts.get(what, number)) for band in bands),
                *(band.difference_text(texts.get(what, number)) for band in bands[1:]),
            ]
            for what, bands in self.noise.items()
        ]

    def to_markdown(self) -> str:
        """The same as tables, and the progression."""
        differences = [
            [code(row[0]), *map(prose, row[1 : 1 + len(self.names)])] for row in self._differences()
        ]
        results = [[prose(cell) for cell in row] for row in self._result_rows()]
        names = [code(name) for name in self.names]
        changes = table(["result", *names, *self._change_header()], results)
        noise = [[prose(cell) for cell in row] for row in self.noise_rows()]
        if noise:
            changes += f"\n\n{table(noise[0], noise[1:])}"
        header, *rows = [[prose(cell) for cell in row] for row in self.progression.rows()]
        progression = f"{table(header, rows)}\n\n{fence(chr(10).join(self.progression.lines()))}"
        return f"{table(['differs', *names], differences)}\n\n{changes}\n\n{progression}\n"

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
        same = {True: "the same", False: "differs: compare bits per byte, not loss", None: "not known"}[
            self.same_data
        ]
        return [*rows, ["data", *[same] * len(self.names), *blank]]

    def _result_rows(self) -> list[list[str]]:
        return [
            [
                result.what,
                *map(result.text, result.values),
                *map(result.change_text, result.change, result.change_ratio),
            ]
            for result in self.results
        ]


def compare(a: Run, b: Run) -> Comparison:
    """Set two runs side by side."""
    return compare_runs([a, b])


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """Set runs side by side. Raises: InputError if a folder is damaged."""
    assert runs
    histories = [read_history(run) for run in runs]
    summaries = [summarize_history(history) for history in histories]
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
    """Training losses over equal numbers of targets, whatever the batch and log window of each run."""
    if not targets:
        return []
    window = max(sum(step.targets for step in w.steps) for history in histories for w in history.windows)
    window = min(window, targets)
    ends = [sum(step.targets for step in history.steps) for history in histories]

    def result(what: str, spans: list[tuple[int, int]]) -> Result:
        values = [_mean_between(history.steps, *span) for history, span in zip(histories, spans)]
        return Result(what, list(values))

    return [
        result(f"training loss over the first {window:,} targets", [(0, window)] * len(histories)),
        result(
            f"training loss over the {window:,} targets up to number {targets:,}",
            [(targets - window, targets)] * len(histories),
        ),
        result(f"training loss over the last {window:,} targets", [(end - window, end) for end in ends]),
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
    """What the runs came to on rows that they were not trained on."""
    each = [
        {
            f"{name} on {scores.split} rows": value
            for scores in {scores.split: scores for scores in history.events(Scores)}.values()
            for name, (value, *_) in scores.systems["after"].items()
        }
        for history in histories
    ]
    names = dict.fromkeys(name for figures in each for name in figures)
    return [Result(name, [figures.get(name) for figures in each]) for name in names]


def _best_figures(summaries: list[Summary]) -> list[Result]:
    """Figures of the best evaluation; beside each other they stand in the progression."""
    names = dict.fromkeys(
        name for summary in summaries for name in summary["figures_best"] if "/" not in name
    )
    return [
        Result(f"{name} at the best evaluation", [summary["figures_best"].get(name) for summary in summaries])
        for name in names
    ]


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
    found = [(what, [summary[field] for summary in summaries], text) for what, field, text in fields]
    return [Result(what, values, text) for what, values, text in found if any(v is not None for v in values)]


def _differing(each: list[dict[str, Any]]) -> dict[str, list[Any]]:
    keys = dict.fromkeys(key for values in each for key in values)
    rows = {key: [values.get(key) for values in each] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


def _without_name(run: Run) -> dict[str, Any]:
    return {key: value for key, value in flatten(run.recipe.to_dict()).items() if key != "name"}


def _conditions(history: History) -> dict[str, Any]:
    """What the last attempt ran on, as far as it may change results or speed."""
    if not history.attempts:
        return {}
    attempt = history.attempts[-1]
    environment = attempt.environment
    machine = {key: environment.get("machine", {}).get(key) for key in ("platform", "cpu", "cores", "gpus")}
    git = environment.get("git") or {}
    kept = {
        "versions": environment.get("versions", {}),
        "machine": machine,
        "git": git,
        "threads": environment.get("threads"),
    }
    return flatten(kept) | {"device": f"{attempt.devices} x {attempt.device}", "precision": attempt.precision}
