"""A run in figures: what show, runs, compare and the report say, each figure from a field of the journal."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from etude.errors import InputError
from etude.records.folder import list_checkpoints
from etude.records.index import read_index, write_index
from etude.records.shape import fit
from etude.records.store import Run, is_locked
from etude.report.charts import sparkline
from etude.report.figures import CURVE_POINTS, FIGURES, UNITS, Figure, Source, journal_figures, make_figure
from etude.report.history import History, read_history
from etude.report.wording import (
    NOTHING,
    duration,
    in_seconds,
    number,
    numbers,
    parameters_text,
    percent,
    size,
)
from etude.text import plural

_WORTH_AN_INDEX = 8 << 20  # bytes of a journal that takes over a tenth of a second to read
_NOT_OF_JOURNAL = {
    "name", "recipe", "created", "status", "reason", "checkpoints", "best_checkpoint", "best_metric",
    "best_value",
}  # fmt: skip
_REASONS = {
    "running": "it is going on",
    "paused": "it waits to be told to go on",
    "killed": "its process ended without a word; the same command continues it",
    "failed": "an error ended it; log.txt has the last lines",
    "stopped": "it was stopped at once; the same command continues it",
}


@dataclass(frozen=True)
class Summary:
    """The figures of a run so far, in the order of FIGURES; `summary[name]` is the value of one."""

    figures: list[Figure]

    def __getitem__(self, name: str) -> Any:
        return self._by_name[name].value

    @cached_property
    def _by_name(self) -> dict[str, Figure]:
        return {figure.name: figure for figure in self.figures}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; non-finite numbers as "nan", "inf" and "-inf", as in the journal."""
        return {figure.name: figure.to_json() for figure in self.figures}


def summarize(run: Run) -> Summary:
    """Summarise a run from its folder, whatever state it is in, by the index of its journal if that holds.

    Raises: InputError if the folder is damaged.
    """
    if (figures := _read_index(run)) is not None:
        return _join(run, figures)
    history = read_history(run)
    if history.ledger.size >= _WORTH_AN_INDEX and not is_locked(run.path):
        index_history(history)
    return summarize_history(history)


def summarize_all(runs: Sequence[Run]) -> tuple[list[Summary], dict[str, str]]:
    """Summaries of the runs whose folders are whole, and by name what is wrong with the others."""
    summaries, damaged = [], {}
    for run in runs:
        try:
            summaries.append(summarize(run))
        except InputError as error:
            damaged[run.name] = str(error)
    return summaries, damaged


def summarize_history(history: History) -> Summary:
    """Summarise a run whose journal has been read."""
    return _join(history.run, journal_figures(history))


def index_history(history: History) -> None:
    """Keep the figures of a journal beside it, so that listing runs need not read it again."""
    content = {figure.name: [figure.to_json(), figure.source] for figure in journal_figures(history)}
    write_index(history.run.path / "journal.jsonl", history.ledger.size, content)


def _read_index(run: Run) -> list[Figure] | None:
    content = read_index(run.path / "journal.jsonl", dict[str, list[Any]]) or {}
    if not FIGURES.keys() - _NOT_OF_JOURNAL <= content.keys():
        return None
    try:
        return [
            make_figure(name, fit(value, UNITS[FIGURES[name][0]]), [Source(*each) for each in source])
            for name, (value, source) in content.items()
        ]
    except (ValueError, KeyError, TypeError):
        return None


def _join(run: Run, of_journal: list[Figure]) -> Summary:
    """The figures of the journal, and those of the other files of a run."""
    best, info, lease = run.best or {}, run.info, (Source("lease.json"),)
    figures = {figure.name: figure for figure in of_journal}
    values = {
        "name": (run.name, ()),
        "recipe": (info["name"], (Source("run.json"),)),
        "created": (in_seconds(info["created"]), (Source("run.json"),)),
        "checkpoints": (kept_checkpoints(run), (Source("checkpoints"),)),
        **{
            f"best_{key}": (best.get(key), (Source("best.json"),))
            for key in ("checkpoint", "metric", "value")
        },
    }
    if "status" not in figures:
        state = run.state
        values |= {"status": (state, lease), "reason": (_REASONS.get(state, "the lease says so"), lease)}
    figures |= {name: make_figure(name, *value) for name, value in values.items()}
    return Summary([figures[name] for name in FIGURES])


def describe(summary: Summary) -> list[tuple[str, str]]:
    """The summary for people: (what, how much)."""
    of = f" of {summary['steps']:,}" if summary["steps"] else ""
    passes = f", {summary['epochs']:.2f} epochs" if summary["epochs"] is not None else ""
    window = f"mean of {plural(summary['loss_window'], 'step')}"
    rows = [
        ("run", summary["name"]),
        ("status", f"{summary['status']}: {summary['reason']}"),
        ("created", summary["created"]),
        (
            "device",
            f"{summary['devices']} x {summary['device']}, {summary['precision']}"
            if summary["device"]
            else NOTHING,
        ),
        ("parameters", parameters_text(summary["parameters"], summary["trainable"])),
        ("base model", base_text(summary["base"])),
        ("steps", f"{summary['step']:,}{of}{passes}"),
        ("tokens", number(summary["tokens"])),
        ("training loss", f"{_from_to(summary['first_loss'], summary['last_loss'])} ({window})"),
        ("", sparkline(summary["loss_curve"], CURVE_POINTS)),
        ("validation loss", _from_to(summary["first_validation_loss"], summary["last_validation_loss"])),
        (
            "best validation",
            f"{number(summary['best_validation_loss'])} at step {number(summary['best_validation_step'])}",
        ),
        ("perplexity", number(summary["best_perplexity"])),
        ("bits per byte", number(summary["best_bits_per_byte"])),
        *((name.replace("_", " "), _change(summary, name)) for name in summary["figures_last"]),
        ("ratings", str(summary["ratings"])),
        ("gap", f"{number(summary['gap'])} (last validation loss less training loss)"),
        (
            "speed",
            f"{number(summary['tokens_per_second'], 0)} tokens/s, "
            f"MFU {percent(summary['mfu'])} of the matrix rate",
        ),
        ("waiting for data", percent(summary["wait_ratio"])),
        (
            "memory",
            f"{size(summary['peak_rss_bytes'])}, GPU {size(summary['peak_gpu_memory_bytes'])} at the peak",
        ),
        (
            "time",
            f"{duration(summary['wall_seconds'])}, of it {duration(summary['training_seconds'])} in steps",
        ),
        ("attempts", f"{summary['attempts']}, {plural(summary['rework_steps'], 'step')} done again"),
        ("skipped steps", number(summary["skipped_steps"])),
        ("findings", number(summary["findings"])),
        ("checkpoints", ", ".join(summary["checkpoints"]) or "none"),
        ("best checkpoint", best_text(summary)),
    ]
    if summary["damaged_lines"]:
        rows.append(("damaged lines", f"{numbers(summary['damaged_lines'])} of the journal"))
    without = {"validation loss", "best validation", "perplexity", "bits per byte", "gap"}
    unknown = without if summary["last_validation_loss"] is None else {"bits per byte"} - {_has_bits(summary)}
    return [(what, text) for what, text in rows if text and what not in unknown]


def run_table(summaries: Sequence[Summary]) -> list[list[str]]:
    """One row a run, after a header."""
    header = ["run", "status", "step", "loss", "validation", "best", "tokens/s", "time", "created"]
    return [header] + [
        [
            summary['name'], summary['status'], f"{summary['step']:,}/{number(summary['steps'])}",
            number(summary['last_loss']), number(summary['last_validation_loss']),
            number(summary['best_validation_loss']), number(summary['tokens_per_second'], 0),
            duration(summary['wall_seconds']), summary['created'][:16].replace("T", " "),
        ]
        for summary in summaries
    ]  # fmt: skip


def best_text(summary: Summary) -> str:
    """Which checkpoint is the best, by what."""
    if summary["best_checkpoint"] is None:
        return "none"
    return f"{summary['best_checkpoint']}, {summary['best_metric']} {number(summary['best_value'])}"


def base_text(base: dict[str, str] | None) -> str:
    """The pretrained model by name and digest; empty for none."""
    return f"{base['from']}, SHA-256 {base['sha256'][:16]}" if base else ""


def kept_checkpoints(run: Run) -> list[str]:
    """Names of the checkpoints on disk, oldest first; one without a manifest does not exist."""
    return [path.name for path in list_checkpoints(run.checkpoints)]


def _from_to(first: float | None, last: float | None) -> str:
    return NOTHING if first is None else f"{number(first)} → {number(last)}"


def _change(summary: Summary, name: str) -> str:
    """A figure beside the loss, from the first evaluation to the last, and at the best."""
    first, last = summary["figures_first"].get(name), summary["figures_last"].get(name)
    best = summary["figures_best"].get(name, last)
    return _from_to(first, last) + (f" (best checkpoint {number(best)})" if best != last else "")


def _has_bits(summary: Summary) -> str:
    return "" if summary["best_bits_per_byte"] is None else "bits per byte"
