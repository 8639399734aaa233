"""Runs side by side in one table, worst to best, with the differences of their recipes and results."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etude.recipe.load import flatten
from etude.recipe.settings import is_default, shown_settings
from etude.records.events import plain
from etude.records.store import Run
from etude.report.columns import Row, lay_out, shorten_apart, wrap, wrap_command
from etude.report.history import History, read_history
from etude.report.panels import Panel, draw_panels
from etude.report.programs import compare_programs
from etude.report.ranking import Ranking, rank
from etude.report.seeds import Group, NoiseBand, group_by_recipe, noise_band
from etude.report.side_by_side import Result, set_side_by_side
from etude.report.sources import head_of
from etude.report.summary import Summary, maker, status_word, summarize
from etude.report.wording import NOTHING, setting
from etude.text import one_line, plural

_LONGEST_SETTING = 400


@dataclass(frozen=True)
class Comparison:
    """Two runs or more, in the order given.

    baseline      place of the run that the others are held against
    recipe        dotted keys that differ, with the value of each run; None where it is not set
    changes       of the recipe while each run was made: step before, key and value
    environment   the same for versions, machine and device
    same_data     True if all trained on the same prepared data; None where a run has not told
    targets       number of targets over which training losses are means; 0 before the first step
    groups        runs that differ in their seed only as one, if there are such and others
    columns       the groups, or each run alone, worst first or by time
    noise         bands of the groups for each result that varies
    ranking       the order, and the winner if there is one
    """

    histories: list[History]
    summaries: list[Summary]
    baseline: int
    recipe: dict[str, list[Any]]
    changes: list[list[tuple[int, str, Any]]]
    environment: dict[str, list[Any]]
    same_data: bool | None
    targets: int
    results: list[Result]
    groups: list[Group]
    columns: list[Group]
    noise: dict[str, list[NoiseBand]]
    ranking: Ranking

    @property
    def names(self) -> list[str]:
        """Names of the runs in the order given."""
        return [history.run.name for history in self.histories]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; lists have the order of `runs`, and cells of the table that of `columns`."""
        ranking = self.ranking
        return {
            "code": maker(),
            "runs": self.names,
            "journals": [head_of(each)._asdict() for each in self.histories],
            "baseline": self.names[self.baseline],
            "ordered": [group.name for group in self.columns],
            "columns": [group.to_dict() for group in self.columns],
            "ordered_by": ranking.figure or "time",
            "validation_compares": ranking.compares_validation,
            "winner": ranking.winner,
            "is_sure": ranking.is_sure,
            "sentences": self._sentences(),
            "commands": ranking.commands,
            "status": [summary["status"] for summary in self.summaries],
            "verdict": [summary["verdict"] for summary in self.summaries],
            "recipe": self.recipe,
            "changes": [
                [{"after_step": step, "key": key, "value": plain(value)} for step, key, value in each]
                for each in self.changes
            ],
            "environment": self.environment,
            "same_data": self.same_data,
            "targets": self.targets,
            "results": {
                result.name: {
                    "values": plain(result.values),
                    "against_baseline": plain(result.against(self.baseline)) if result.compares else None,
                }
                for result in self.results
            },
            "groups": [group.to_dict() for group in self.groups],
            "noise": {name: [band.to_dict() for band in bands] for name, bands in self.noise.items()},
            "table": [[row.name, *row.cells] for row in self.rows()],
        }

    def rows(self) -> list[Row]:
        """The table: a header, differences of recipes and conditions, and results."""
        rows = [
            Row("run", self._texts([history.run.info["name"] for history in self.histories]), is_text=True),
            Row("id", self._texts([_id_of(history.run) for history in self.histories]), is_text=True),
            Row("status", self._texts(list(map(status_word, self.summaries))), is_text=True),
        ]
        differences = self.recipe | self._changes_in_words() | self.environment
        for what, values in differences.items():
            texts = [NOTHING if value is None else one_line(value, _LONGEST_SETTING) for value in values]
            rows.append(Row(what, self._texts(texts), is_text=True))
        for result in self.results:
            rows.append(Row(result.title, [self._cell(result, group) for group in self.columns]))
            if result.compares and any(self._changes(result)):
                rows.append(Row("  against baseline", self._changes(result)))
        return rows

    def lines(self, width: int) -> list[str]:
        """All of it for the terminal: the winner, the table, what each run came to, and one chart."""
        shown = [self.names[group.places[-1]] for group in self.columns]
        names = shorten_apart(shown, max(width // 3, 12))
        way = "in order of" if self.ranking.is_sure is False else "worst to best by"
        order = f"{way} {self.ranking.figure}" if self.ranking.figure else "in order of time"
        several = len(self.columns) < len(self.histories)
        recipes = f" of {plural(len(self.columns), 'recipe')}" if several else ""
        runs = f"{plural(len(self.histories), 'run')}{recipes}"
        head = f"{runs}, {order}; the baseline is {self.names[self.baseline]}."
        outcomes = self._outcomes(names, width)
        chart = draw_panels([self._panel(name, group) for name, group in zip(names, self.columns)], width)
        sentences = [line for sentence in self._sentences() for line in wrap(sentence, width)]
        commands = [line for command in self.ranking.commands for line in wrap_command(command, width)]
        of = f"Training losses are means over the first and the last {plural(self.targets, 'target')}."
        parts = [
            [*sentences, *commands, *wrap(head, width)], lay_out(self.rows(), width),
            [*(wrap(of, width) if self.targets else []), *outcomes], chart,
        ]  # fmt: skip
        return [line for part in parts if part for line in (*part, "")][:-1]

    def _sentences(self) -> list[str]:
        return [*self.ranking.sentences, *compare_programs(self.histories)]

    def _changes_in_words(self) -> dict[str, list[str | None]]:
        """The row of changes while runs were made, if there were any."""
        texts = [
            ", ".join(f"{key} {setting(value)} after step {step:,}" for step, key, value in each) or None
            for each in self.changes
        ]
        return {"changed": texts} if any(texts) else {}

    def _outcomes(self, names: Sequence[str], width: int) -> list[str]:
        """The verdict on each run and its problems, those of all runs once."""
        summaries = [self.summaries[group.places[-1]] for group in self.columns]
        shared = [each for each in summaries[0]["problems"] if all(each in s["problems"] for s in summaries)]
        lines = []
        for name, summary in zip(names, summaries):
            own = [each for each in summary["problems"] if each not in shared]
            lines += [*wrap(f"{name}: {summary['verdict'][0]}", width), *_items(own, width)]
        return [*lines, *([f"All {len(summaries)}:"] if shared else []), *_items(shared, width)]

    def _texts(self, texts: Sequence[str]) -> list[str]:
        """A text for each column: that of all its runs, or all that differ."""
        return [", ".join(dict.fromkeys(texts[place] for place in group.places)) for group in self.columns]

    def _cell(self, result: Result, group: Group) -> str:
        (band,) = noise_band([group], result.values)
        if band.count < 2:
            return result.text(result.values[group.places[-1]])
        if band.low == band.high:
            return result.text(result.values[group.places[0]])
        return f"{result.text(band.mean)} ± {result.text(band.deviation)}"

    def _changes(self, result: Result) -> list[str]:
        """Each column less that of the baseline; nothing where all are the same."""
        means = [band.mean for band in noise_band(self.columns, result.values)]
        place = next(
            n for n, group in enumerate(self.columns) if self.baseline in [*group.places, *group.again]
        )
        first = means[place]
        if first is None or all(mean in (None, first) for mean in means):
            return []
        return [
            "baseline" if n == place else _change_text(first, mean, is_share=result.is_share)
            for n, mean in enumerate(means)
        ]

    def _panel(self, name: str, group: Group) -> Panel:
        history = self.histories[group.places[-1]]
        return Panel(
            name,
            [(step.step, step.loss) for step in history.steps],
            [(each.step, each.loss) for each in history.evaluations],
            history.best.step if history.best else None,
        )


def compare_runs(runs: Sequence[Run], baseline: int = 0) -> Comparison:
    """Set runs side by side. Raises: InputError if a folder is damaged."""
    assert runs
    histories = [read_history(run) for run in runs]
    summaries = [summarize(run, history) for run, history in zip(runs, histories)]
    fingerprints = [history.data and history.data.fingerprint for history in histories]
    same_data = None if None in fingerprints else len(set(fingerprints)) == 1
    groups = group_by_recipe(histories)
    alone = [Group(run.name, [place], [run.recipe.seed]) for place, run in enumerate(runs)]
    columns = groups if len(groups) > 1 else alone
    ranking = rank(histories, summaries, columns, is_one_recipe=len(groups) == 1)
    columns = [columns[place] for place in ranking.order]
    targets, results = set_side_by_side(histories, summaries, ranking, same_data=same_data is True)
    varying = [each for each in results if any(value != each.values[0] for value in each.values)]
    return Comparison(
        histories=histories,
        summaries=summaries,
        baseline=baseline,
        recipe=differing_settings(runs, is_seed_kept=columns is alone),
        changes=[history.changes for history in histories],
        environment=_differing([_conditions(history) for history in histories]),
        same_data=same_data,
        targets=targets,
        results=results,
        groups=groups,
        columns=columns,
        noise={each.name: noise_band(groups, each.values) for each in varying} if groups else {},
        ranking=ranking,
    )


def differing_settings(runs: Sequence[Run], *, is_seed_kept: bool) -> dict[str, list[Any]]:
    """Settings that differ; a default is no difference to a run without the section or the source it is of.

    Those of an adapter are, as it has them in place of none, but for what is off.
    """
    rows = _differing([_without_name(run, is_seed_kept=is_seed_kept) for run in runs])
    return {
        key: row
        for key, row in rows.items()
        if any(
            value is not None and (not is_default(key, value) or (value and key.startswith("adapter.")))
            for value in row
        )
    }


def _items(texts: Sequence[str], width: int) -> list[str]:
    return [f"  {line}" for text in texts for line in wrap(f"- {text}", width - 2)]


def _id_of(run: Run) -> str:
    return run.name.removeprefix(f"{run.info['name']}-")


def _change_text(first: float, value: float | None, *, is_share: bool) -> str:
    """A change with its sign: in percent, or as it is for a share."""
    if value is None or not (math.isfinite(value) and math.isfinite(first)):
        return NOTHING
    if value == first:
        return "same"
    if is_share or not first:
        return f"{value - first:+.4f}"
    ratio = 100 * (value - first) / abs(first)
    return f"{ratio:+,.{0 if abs(ratio) >= 100 else 1}f} %"


def _differing(of_runs: list[dict[str, Any]]) -> dict[str, list[Any]]:
    keys = dict.fromkeys(key for values in of_runs for key in values)
    rows = {key: [values.get(key) for values in of_runs] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


def _without_name(run: Run, *, is_seed_kept: bool) -> dict[str, Any]:
    left_out = {"name"} if is_seed_kept else {"name", "seed"}
    return {key: value for key, value in shown_settings(run.recipe).items() if key not in left_out}


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
