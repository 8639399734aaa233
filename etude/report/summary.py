"""A run in figures, as show, runs, compare and the report have it, each from its records."""

import contextlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from etude.errors import InputError
from etude.records.events import Finding
from etude.records.folder import as_argument, list_checkpoints
from etude.records.index import read_index, write_index
from etude.records.lease import is_locked
from etude.records.shape import fit
from etude.records.store import Run
from etude.report.braille import sparkline
from etude.report.figures import (
    CURVE_POINTS,
    FIGURES,
    UNITS,
    Figure,
    Source,
    journal_figures,
    make_figure,
    told_figures,
)
from etude.report.history import History, read_history
from etude.report.verdict import describe_end
from etude.report.wording import (
    NOTHING,
    at_step,
    duration,
    in_seconds,
    metric_title,
    number,
    numbers,
    parameters_text,
    percent,
    short,
    size,
    steps_text,
)
from etude.text import expected, plural, shorten

_MOST_INTERVENTIONS = 8
_ORIGIN_WIDTH = 40
_WORTH_AN_INDEX = 8 << 20  # bytes of a journal that takes over a tenth of a second to read
_NOT_OF_JOURNAL = {
    "name", "recipe", "created", "end", "status", "reason", "checkpoints", "best_checkpoint", "best_metric",
    "best_value", "disk_bytes",
}  # fmt: skip
_REASONS = {
    "paused": "it waits to be resumed",
    "killed": "the process ended without a message; the same command continues the run",
    "failed": "an error ended the run, and the journal does not say which",
    "stopped": "it was stopped at once; the same command continues the run",
    "unknown": "the journal lacks its end, as if it was cut off; restore it from a copy",
}


@dataclass(frozen=True)
class Summary:
    """The figures of a run so far, in the order of FIGURES; `summary[name]` is the value of one."""

    figures: list[Figure]

    def __getitem__(self, name: str) -> Any:
        return self.figure(name).value

    def figure(self, name: str) -> Figure:
        """A figure by its name."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Figure]:
        return {figure.name: figure for figure in self.figures}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; non-finite numbers as "nan", "inf" and "-inf", as in the journal."""
        return {figure.name: figure.to_json() for figure in self.figures}


def summarize(run: Run, history: History | None = None) -> Summary:
    """Summarise a run in any state by the index of its journal if that holds, else by its history.

    Raises: InputError if the folder is damaged.
    """
    if (figures := _read_index(run)) is not None:
        return _join(run, figures)
    history = history or read_history(run)
    if run.until is None and history.ledger.size >= _WORTH_AN_INDEX and not is_locked(run.path):
        index_history(history)
    return summarize_history(history)


def is_indexed(run: Run) -> bool:
    """True if the figures of the journal stand beside it."""
    return _read_index(run) is not None


def read_summary(values: Mapping[str, Any]) -> Summary:
    """The summary that `to_dict` gave the plain values of. Raises: ValueError if it did not."""
    return Summary([
        make_figure(name, fit(values.get(name), UNITS[unit]), ()) for name, (unit, _) in FIGURES.items()
    ])  # fmt: skip


def summarize_all(runs: Sequence[Run]) -> tuple[list[Summary], dict[str, str]]:
    """Summaries of the runs whose folders are whole, and the problems of the others by name."""
    summaries, damaged = [], {}
    for run in runs:
        try:
            summaries.append(summarize(run))
        except InputError as error:
            damaged[run.name] = str(error)
    return summaries, damaged


def summarize_history(history: History) -> Summary:
    """Summarise a run whose journal has been read."""
    return _join(history.run, journal_figures(history), history.then)


def renew(summary: Summary, history: History, values: Mapping[str, Any]) -> Summary:
    """A summary with newer figures: those that a history without steps gives, and given values of others."""
    newer = {figure.name: figure for figure in told_figures(history)}
    newer |= {
        figure.name: replace(figure, value=values[figure.name])
        for figure in summary.figures if figure.name in values
    }  # fmt: skip
    kept = [figure for figure in summary.figures if figure.name not in {*newer, *_NOT_OF_JOURNAL}]
    return _join(history.run, [*kept, *newer.values()])


def index_history(history: History) -> None:
    """Keep the figures of a journal beside it, so that listing runs need not read it again."""
    content = {figure.name: [figure.to_json(), figure.source] for figure in journal_figures(history)}
    write_index(history.run.path / "journal.jsonl", history.ledger.size, content, maker())


@cache
def maker(more: Path | None = None) -> int:
    """A checksum of the code that makes figures of records: a rule that changed makes them anew.

    more: a folder of other code that takes part
    """
    code = [
        path for folder in (Path(__file__).parent, more) if folder for path in sorted(folder.glob("*.py"))
    ]
    return zlib.crc32(b"".join(path.read_bytes() for path in code))


def _read_index(run: Run) -> list[Figure] | None:
    if run.until is not None:
        return None
    content = read_index(run.path / "journal.jsonl", dict[str, list[Any]], maker()) or {}
    if not FIGURES.keys() - _NOT_OF_JOURNAL <= content.keys():
        return None
    try:
        return [
            make_figure(name, fit(value, UNITS[FIGURES[name][0]]), [Source(*each) for each in source])
            for name, (value, source) in content.items()
        ]
    except (ValueError, KeyError, TypeError):
        return None


def _join(run: Run, of_journal: list[Figure], then: Mapping[str, Any] = MappingProxyType({})) -> Summary:
    """The figures of the journal, and those of the other files of a run: `then`, or else as they are now."""
    best, info, lease = run.best or {}, run.info, (Source("lease.json"),)
    of_best = (Source("best.json"),)
    figures = {figure.name: figure for figure in of_journal}
    values = {
        "name": (run.name, ()),
        "recipe": (info["name"], (Source("run.json"),)),
        "created": (in_seconds(info["created"]), (Source("run.json"),)),
        "checkpoints": (kept_checkpoints(run), (Source("checkpoints"),)),
        "disk_bytes": (size_on_disk(run), (Source("."),)),
        **{f"best_{key}": (best.get(key), of_best) for key in ("checkpoint", "metric", "value")},
    }
    if "status" not in figures:
        state = "unknown" if run.state == "finished" else run.state  # its journal does not say so
        origin = info.get("origin")
        has_begun = not origin or figures["step"].value != origin["step"]
        reason = _REASONS.get(state) if has_begun else "a fork that has yet to begin"
        values |= {"status": (state, lease), "reason": (reason, lease)}
    figures |= {name: make_figure(name, then.get(name, value), at) for name, (value, at) in values.items()}
    argument = str(then.get("argument") or as_argument(run.path))
    end = describe_end({name: figure.value for name, figure in figures.items()}, argument)
    figures["end"] = make_figure("end", end, figures["status"].source)
    return Summary([figures[name] for name in FIGURES])


def describe(summary: Summary) -> list[tuple[str, str]]:
    """The summary for people: rows of a name and a text, without those that have nothing to say."""
    return [(name, text) for name, text in _rows(summary) if text]


def run_table(summaries: Sequence[Summary]) -> list[list[str]]:
    """One row a run, after a header; where a run comes from another, a column says so."""
    header = ["run", "status", "step", "training loss", "best", "at step", "tokens/s", "time", "created"]
    rows = [
        [
            summary['name'], status_word(summary), f"{summary['step']:,}/{number(summary['steps'])}",
            short(summary['last_loss']), _best_of_metric(summary), number(summary['metric_best_step']),
            number(summary['tokens_per_second'], 0),
            duration(summary['wall_seconds']), summary['created'][:16].replace("T", " "),
        ]
        for summary in summaries
    ]  # fmt: skip
    origins = [summary["origin"] for summary in summaries]
    if any(origins):
        header = [*header, "comes from"]
        rows = [[*row, shorten(origin or NOTHING, _ORIGIN_WIDTH)] for row, origin in zip(rows, origins)]
    return [header, *rows]


def next_commands(history: History) -> list[str]:
    """Commands that go on from a finished run; one more where the watch knows a better recipe."""
    run = history.run
    name = as_argument(run.path)
    kinds = [part.kind for part in run.recipe.by_task().values()]
    writes, chats = any(kind.writes_text for kind in kinds), any(kind.chats for kind in kinds)
    ask = [f"etude generate {name} --prompt '{'def ' if chats else 'a source'}'"]
    if chats and run.recipe.evaluate.answers:
        ask = [f"etude chat {name}"]
    form = "peft" if run.recipe.adapter else "hf"
    findings = history.events(Finding)
    is_improvable = any(each.kind and each.changes and each.severity != "info" for each in findings)
    improve = [f"etude improve {name}"] if is_improvable else []
    export = f"etude export {name} --to {form} exported"
    return [*improve, f"etude show {name}", *(ask if writes else []), export]


def status_word(summary: Summary) -> str:
    """The status, but of a run that finished before its last planned step `ended early`."""
    is_short = summary["steps"] is not None and summary["step"] < summary["steps"]
    return "ended early" if summary["status"] == "finished" and is_short else str(summary["status"])


def best_text(summary: Summary) -> str:
    """The best checkpoint, with its value of the metric."""
    if summary["best_checkpoint"] is None:
        return "none"
    worse = f", worse than before training ({number(summary['metric_first'])})"
    what = metric_title(str(summary["best_metric"]))
    text = f"{summary['best_checkpoint']}, {what} {number(summary['best_value'])}"
    return text + (worse if summary["is_best_worse"] else "")


def size_on_disk(run: Run) -> int:
    """Bytes of a run without what is made from its record; files that are removed meanwhile do not count."""
    total = 0
    for path in run.path.rglob("*"):
        if path.relative_to(run.path).parts[0] not in ("report", "journal.index"):
            with contextlib.suppress(OSError):
                total += path.lstat().st_size if not path.is_dir() else 0
    return total


def warn_of_best(run: Run) -> str | None:
    """A warning for those who take the best checkpoint of a run that only got worse."""
    summary = summarize(run)
    return f"{run.name}: the best checkpoint is {best_text(summary)}" if summary["is_best_worse"] else None


def kept_checkpoints(run: Run) -> list[str]:
    """Names of the checkpoints on disk, oldest first; one without a manifest does not exist."""
    return [path.name for path in list_checkpoints(run.checkpoints)]


def forecast_and_measured(summary: Summary) -> str:
    """The time, memory and disk that were expected, and those that a finished run took."""
    said = expected(*(summary[f"forecast_{name}"] for name in ("seconds", "memory_bytes", "disk_bytes")))
    if summary["status"] != "finished":
        return said
    memory = summary["peak_gpu_memory_bytes"] or summary["peak_rss_bytes"]
    time, disk = duration(summary["wall_seconds"]), size(summary["disk_bytes"])
    return f"{said}; measured {time}, {size(memory)}, {disk}"


def _rows(summary: Summary) -> Iterator[tuple[str, str]]:
    is_validated = summary["last_validation_loss"] is not None
    yield "run", summary["name"]
    word = status_word(summary)
    says_all = word in ("finished", "running") or not summary["reason"]
    yield "status", word if says_all else f"{word}: {summary['reason']}"
    yield from _listed("verdict", [summary["end"], *summary["verdict"]])
    yield from _listed("problem", summary["problems"])
    if summary["criteria"]:
        yield "criteria", summary["criteria"]
    yield from _steering(summary)
    yield "best checkpoint", best_text(summary)
    yield "created", summary["created"]
    device = f"{summary['devices']} x {summary['device']}, {summary['precision']}"
    yield "device", device if summary["device"] else NOTHING
    yield "parameters", parameters_text(summary["parameters"], summary["trainable"])
    if base := summary["base"]:
        yield "base model", f"{base['from']}, SHA-256 {base['sha256'][:16]}"
    yield "steps", steps_text(summary["step"], summary["steps"], summary["epochs"])
    yield "targets", number(summary["tokens"])
    loss = _from_to(summary["first_loss"], summary["last_loss"])
    left_out = ", skipped ones left out" if summary["skipped_steps"] else ""
    yield "training loss", f"{loss} (mean of {plural(summary['loss_window'], 'step')}{left_out})"
    yield "", sparkline(summary["loss_curve"], CURVE_POINTS)
    if is_validated:
        is_first = summary["best_validation_loss"] == summary["first_validation_loss"]
        is_single = is_first and summary["first_validation_loss"] == summary["last_validation_loss"]
        loss = _from_to(summary["first_validation_loss"], summary["last_validation_loss"])
        lowest = at_step(summary["best_validation_loss"], summary["best_validation_step"])
        yield "validation loss", "" if is_single else loss
        yield "validation loss" if is_single else "lowest validation loss", lowest
        for name in ("perplexity", "bits per byte"):
            value = summary[f"best_{name.replace(' ', '_')}"]
            text = short(value) if name == "perplexity" else number(value)
            yield name, "" if value is None else f"{text} at the lowest validation loss"
    moments = [summary[f"figures_{moment}"] for moment in ("first", "best", "last")]
    is_macro = all(figures.get("f1") == figures.get("f1_macro") for figures in moments)
    hidden = {"f1_macro"} if is_macro else set()  # stands as f1
    for name in (name for name in summary["figures_last"] if "/" not in name and name not in hidden):
        yield name.replace("_", " "), _change(summary, name)
    yield "ratings", str(summary["ratings"])
    if summary["gap"] is not None:
        yield "gap", f"{number(round(summary['gap'], 4) + 0.0)} (last validation minus training loss)"
    yield "speed", _speed(summary)
    if summary["wait_ratio"] is not None:
        yield "waiting for data", f"{percent(summary['wait_ratio'])} of the time in steps"
    on_gpu = summary["peak_gpu_memory_bytes"]
    memory = size(summary["peak_rss_bytes"]) + (f", GPU {size(on_gpu)}" if on_gpu else "")
    yield "memory", f"{memory} at the peak"
    in_steps = f"{duration(summary['training_seconds'])} in steps"
    yield "time", f"{duration(summary['wall_seconds'])}, of it {in_steps}"
    if summary["forecast_seconds"] is not None:
        yield "forecast", forecast_and_measured(summary)
    yield "attempts", f"{summary['attempts']}, {plural(summary['rework_steps'], 'step')} done again"
    for name in ("skipped_steps", "findings"):
        yield name.replace("_", " "), number(summary[name] or "")
    yield "checkpoints", ", ".join(summary["checkpoints"]) or "none"
    if summary["damaged_lines"]:
        yield "damaged lines", f"{numbers(summary['damaged_lines'])} of the journal"


def _speed(summary: Summary) -> str:
    speed, share = f"{number(summary['tokens_per_second'], 0)} tokens/s", summary["computed_ratio"]
    shared = "" if share is None else f", {percent(share)} of them computed, as prefixes are shared"
    return f"{speed}{shared}, MFU {percent(summary['mfu'])} of the measured matrix rate"


def _steering(summary: Summary) -> Iterator[tuple[str, str]]:
    """The origin of a run, its last interventions, and the number of those before them."""
    yield "comes from", summary["origin"]
    lines = summary["interventions"]
    more = [f"and {len(lines) - _MOST_INTERVENTIONS:,} before, in the report"]
    more = more if len(lines) > _MOST_INTERVENTIONS else []
    yield from _listed("intervention", [*lines[-_MOST_INTERVENTIONS:], *more])


def _listed(name: str, sentences: Sequence[str]) -> Iterator[tuple[str, str]]:
    for index, sentence in enumerate(sentences):
        yield ("" if index else name), sentence


def _best_of_metric(summary: Summary) -> str:
    value = summary["metric_best"]
    before = f" ({short(summary['metric_first'])} before training)" if summary["is_best_worse"] else ""
    return NOTHING if value is None else f"{metric_title(summary['metric'])} {short(value)}{before}"


def _from_to(first: float | None, last: float | None) -> str:
    return NOTHING if first is None else f"{number(first)} → {number(last)}"


def _change(summary: Summary, name: str) -> str:
    """A metric from the first evaluation to the last, and at the best."""
    first, last = summary["figures_first"].get(name), summary["figures_last"].get(name)
    best = summary["figures_best"].get(name, last)
    return _from_to(first, last) + (f" (best checkpoint {number(best)})" if best != last else "")
