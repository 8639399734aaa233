"""The report of a run: Markdown with front matter and charts, every figure from the run folder."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from etude import durable
from etude.records.events import CheckpointSaved, Finding, Note
from etude.records.folder import as_argument, require_own
from etude.records.store import Run
from etude.report.answers import answers_over_time
from etude.report.charts import chart_svgs
from etude.report.conditions import (
    describe_data,
    describe_defaults,
    describe_machine,
    describe_model,
    describe_settings,
)
from etude.report.course import phases, timeline
from etude.report.criteria import describe_criteria
from etude.report.findings import charted, describe_findings
from etude.report.history import History, read_history
from etude.report.html import to_html
from etude.report.interventions import describe_interventions
from etude.report.markdown import code, fence, prose, quoted, render, table
from etude.report.results import before_after, final_scores
from etude.report.summary import Summary, forecast_and_measured, index_history, summarize_history
from etude.report.wording import duration, metric_title, number, numbers, percent, short, size
from etude.text import plural

_CHART_NAMES = {
    "metric.svg": "Chosen metric on validation samples",
    "loss.svg": "Training and validation loss",
    "learning_rate.svg": "Learning rate",
    "grad_norm.svg": "Gradient norm",
    "speed.svg": "Tokens per second",
}


def write_report(run: Run, *, html: bool = False, folder: Path | None = None) -> Path:
    """Write report/report.md and its charts, also of a run that goes on, was killed, or has no step yet.

    html: write report/report.html too, the same text with its charts inside, and return its path. folder: to
    write into, in place of that of the run, which then is only read.

    The same records give the same bytes.

    Raises: InputError if the folder is damaged, or a part of it leads elsewhere; StorageError.
    """
    if folder is None:
        require_own(run.path)
    run.require_own_recipe()
    history = read_history(run)
    findings = charted(history)
    charts = chart_svgs(history, findings)
    text = render("report.md.jinja", _contents(history, list(charts), findings))
    is_own, folder = folder is None, folder or run.path / "report"
    durable.make_folder(folder)
    durable.remove_leftovers(folder)
    for name, svg in charts.items():
        durable.write_file(folder / name, svg)
    durable.write_file(folder / "report.md", text.encode("utf-8", "backslashreplace"))
    if html:
        page = to_html(text, history.run.recipe.records.title or history.run.recipe.name, charts)
        durable.write_file(folder / "report.html", page.encode("utf-8", "backslashreplace"))
    if is_own:
        index_history(history)
    return folder / ("report.html" if html else "report.md")


def _contents(history: History, charts: list[str], findings: dict[str, Finding]) -> dict[str, Any]:
    """Front matter, title and sections of the report as finished Markdown, by their names in its template."""
    recipe, summary = history.run.recipe, summarize_history(history)
    records = recipe.records
    front_matter = {
        "title": records.title or recipe.name, "date": summary["created"], "type": records.type,
        "tags": records.tags, "weight": records.weight,
        **({"author": records.author} if records.author else {}),
    }  # fmt: skip
    return {
        "front_matter": {key: quoted(value) for key, value in front_matter.items()},
        "title": prose(records.title or recipe.name),
        "sections": [
            (heading, list(parts)) for heading, parts in _sections(history, summary, charts, findings)
        ],
    }


def _sections(
    history: History, summary: Summary, charts: list[str], findings: dict[str, Finding]
) -> Iterator[tuple[str, Iterator[str]]]:
    """Headings with the parts below them; one without a part is left out."""
    yield "## Verdict", _verdict(summary)
    yield "## Success criteria", describe_criteria(history)
    yield "## Before and after", before_after(history, summary)
    yield "## Settings", describe_settings(history, summary)
    yield "## Results", final_scores(history)
    yield "## Phases", phases(history)
    yield "## Timeline", timeline(history, summary)
    yield "## Charts", (f"![{_CHART_NAMES[name]}]({name})" for name in charts if name in _CHART_NAMES)
    yield "## Answers", answers_over_time(history)
    yield "## Problems", _problems(history, findings, charts)
    yield "## Checkpoints", _checkpoints(history, summary)
    yield "## Interventions", describe_interventions(history)
    yield "## Lessons", _notes(history, "lessons", or_how=True)
    yield "## Next steps", _notes(history, "next", or_how=True)
    yield "## Appendix: time and resources", _resources(summary)
    yield "## Appendix: machine and software", describe_machine(history)
    yield "## Appendix: model", describe_model(history)
    yield "## Appendix: data", describe_data(history)
    yield "## Appendix: defaults and values filled in", describe_defaults(history)


def _verdict(summary: Summary) -> Iterator[str]:
    yield prose(" ".join([summary["end"], *summary["verdict"]]))
    if summary["problems"]:
        yield "\n".join(f"- {prose(problem)}" for problem in summary["problems"])


def _resources(summary: Summary) -> Iterator[str]:
    """Time, speed and memory; what was not measured is left out."""
    losses = [summary["first_loss"], summary["last_loss"], summary["least_loss"]]
    window = plural(summary["loss_window"], "step")
    shown = {
        f"Training loss, mean of the first and of the last {window}": (
            losses[0] is not None and f"{short(losses[0])}, {short(losses[1])}"
        ),
        "Training loss, lowest mean of a log window": losses[2] is not None and short(losses[2]),
        "Gap: last validation minus training loss": summary["gap"] is not None and short(summary["gap"]),
        "Speed": summary["tokens_per_second"] and f"{number(summary['tokens_per_second'], 0)} tokens/s",
        "Tokens computed, of those of the samples": (
            summary["computed_ratio"] and percent(summary["computed_ratio"])
        ),
        "MFU, share of the measured matrix rate": summary["mfu"] and percent(summary["mfu"]),
        "CPU, of one core": summary["cpu_percent"] and percent(summary["cpu_percent"] / 100),
        "GPU": summary["gpu_percent"] and percent(summary["gpu_percent"] / 100),
        "Memory at the peak": summary["peak_rss_bytes"] and size(summary["peak_rss_bytes"]),
        "GPU memory at the peak": (
            summary["peak_gpu_memory_bytes"] and size(summary["peak_gpu_memory_bytes"])
        ),
        "Waiting for data, share of the time in steps": summary["wait_ratio"]
        and percent(summary["wait_ratio"]),
        "Time in steps, rework included": duration(summary["training_seconds"]),
        "Time in evaluations": duration(summary["evaluation_seconds"]),
        "Time in all": f"{duration(summary['wall_seconds'])} in {plural(summary['attempts'], 'attempt')}",
        "Forecast": summary["forecast_seconds"] is not None and prose(forecast_and_measured(summary)),
        "Ratings by people": summary["ratings"].count and prose(str(summary["ratings"])),
    }
    if rows := [(name, text) for name, text in shown.items() if text]:
        yield table(("", ""), rows)


def _checkpoints(history: History, summary: Summary) -> Iterator[str]:
    saved = {event.name: event for event in history.events(CheckpointSaved)}
    value = f"{prose(metric_title(str(summary['best_metric'])))} {short(summary['best_value'])}"
    rows = []
    for name in summary["checkpoints"]:
        event = saved.get(name)
        bytes_, seconds = (event.size, event.write_seconds) if event else (None, None)
        mark = f"best, {value}" if name == summary["best_checkpoint"] else ""
        rows.append((code(name), size(bytes_), duration(seconds), mark))
    if rows:
        yield table(("kept", "size", "time to write", ""), rows)


def _problems(history: History, told: dict[str, Finding], charts: list[str]) -> Iterator[str]:
    """Evidence and advice behind the problems of the verdict, and what people noted."""
    skipped = [step.step for step in history.steps if step.skipped]
    if skipped:
        count = plural(len(skipped), "step")
        yield f"{count} skipped because the loss or gradient was not finite: {numbers(skipped, 10)}."
    if damaged := history.ledger.damaged:
        yield f"Lines of the journal that fail their checksum and are left out: {numbers(damaged, 10)}."
    yield from _notes(history, "problem")
    yield from describe_findings(history, told, charts)
    if cut := list(_rows_with_losses(history)):
        yield "### Rows that were cut or left out"
        yield "\n".join(f"- {line}" for line in cut)


def _rows_with_losses(history: History) -> Iterator[str]:
    """Rows of the data that lost their answer, or were left out, by name."""
    words = {"cut_away_rows": "lost their answer", "dropped_rows": "were left out as too long"}
    for use, counts in (history.data.summary if history.data else {}).items():
        for key in words if isinstance(counts, dict) else ():
            names = counts.get(key)
            if isinstance(names, list) and names:
                yield f"{prose(use)} rows that {words[key]}: {', '.join(map(code, names))}"


def _notes(history: History, section: str, *, or_how: bool = False) -> Iterator[str]:
    """Notes of a section; or_how: where there are none, the command that adds one."""
    found = [
        entry
        for entry in history.ledger.entries
        if isinstance(entry.event, Note) and entry.event.section == section
    ]
    for entry in found:
        assert isinstance(entry.event, Note)
        by = f" by {prose(entry.event.author)}" if entry.event.author else ""
        yield f"Noted {_when(entry.time)} UTC{by}:\n\n{fence(entry.event.text)}"
    if or_how and not found:
        command = f'etude note {as_argument(history.run.path)} "..." --section {section}'
        yield f"(nothing noted; {code(command)} adds to it)"


def _when(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S")
