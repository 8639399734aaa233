"""The report of a run: Markdown with front matter and charts, every figure from the run folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude import durable
from etude.records.events import CheckpointSaved, Finding, Note
from etude.records.folder import require_own
from etude.records.store import Run
from etude.report import sources
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
from etude.report.programs import describe_programs
from etude.report.results import before_after, final_scores
from etude.report.summary import Summary, forecast_and_measured, index_history, summarize_history
from etude.report.told import Told, take_marks, told, told_of
from etude.report.wording import duration, metric_title, moment, number, numbers, percent, short, size
from etude.text import plural

_CHART_NAMES = {
    "metric.svg": "Chosen metric on validation samples",
    "loss.svg": "Training and validation loss",
    "learning_rate.svg": "Learning rate",
    "grad_norm.svg": "Gradient norm",
    "speed.svg": "Tokens per second",
}


def write_report(run: Run, *, html: bool = False, folder: Path | None = None) -> Path:
    """Write report.md, report.json and charts into report/, also of a run that goes on or has no step yet.

    html: write report/report.html too, the same text with its charts inside, and return its path. folder: to
    write into, in place of that of the run, which then is only read.

    The same records give the same bytes.

    Raises: InputError if the folder is damaged, or a part of it leads elsewhere; StorageError.
    """
    if folder is None:
        require_own(run.path)
    run.require_own_recipe()
    history = read_history(run)
    report = make_report(history)
    is_own, folder = folder is None, folder or run.path / "report"
    durable.make_folder(folder)
    durable.remove_leftovers(folder)
    for name, svg in report.charts.items():
        durable.write_file(folder / name, svg)
    durable.write_file(folder / "report.md", report.text.encode("utf-8", "backslashreplace"))
    durable.write_json(folder / sources.NAME, report.values)
    if html:
        title = history.run.recipe.records.title or history.run.recipe.name
        page = to_html(report.text, title, report.charts, report.places, report.values)
        durable.write_file(folder / "report.html", page.encode("utf-8", "backslashreplace"))
    if is_own:
        index_history(history)
    return folder / ("report.html" if html else "report.md")


@dataclass(frozen=True)
class Report:
    """A report before it is written.

    places  of the figures in its text
    values  of report.json
    charts  SVG by the names of their files
    """

    text: str
    places: list[Told]
    values: dict[str, Any]
    charts: dict[str, bytes]


def make_report(history: History) -> Report:
    """The report that follows from a history; the same records give the same bytes."""
    findings, summary = charted(history), summarize_history(history)
    charts = chart_svgs(history, findings)
    text, places = take_marks(render("report.md.jinja", _contents(history, summary, list(charts), findings)))
    return Report(text, places, sources.report_values(history, summary, text, places), charts)


def _contents(
    history: History, summary: Summary, charts: list[str], findings: dict[str, Finding]
) -> dict[str, Any]:
    """Front matter, title and sections of the report as finished Markdown, by their names in its template."""
    recipe = history.run.recipe
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
    yield "## Programs", describe_programs(history)
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
    end, verdict = summary.figure("end"), summary.figure("verdict")
    said = [told(prose(end.value), end), *(told(prose(each), verdict) for each in verdict.value)]
    yield " ".join(said)
    if problems := summary["problems"]:
        yield "\n".join(f"- {told(prose(problem), summary.figure('problems'))}" for problem in problems)


def _resources(summary: Summary) -> Iterator[str]:
    """Time, speed and memory; what was not measured is left out."""
    if rows := [
        (title, told(text, *map(summary.figure, names)))
        for title, text, *names in _resource_rows(summary)
        if text
    ]:
        yield table(("", ""), rows)


def _resource_rows(summary: Summary) -> Iterator[tuple[str, ...]]:
    """Title and text of each row, and the names of the figures that it tells."""
    first, last, least = (summary[f"{which}_loss"] for which in ("first", "last", "least"))
    title = f"Training loss, mean of the first and of the last {plural(summary['loss_window'], 'step')}"
    yield title, "" if first is None else f"{short(first)}, {short(last)}", "first_loss", "last_loss"
    yield "Training loss, lowest mean of a log window", "" if least is None else short(least), "least_loss"
    gap = summary["gap"]
    yield "Gap: last validation minus training loss", "" if gap is None else short(gap), "gap"
    speed = summary["tokens_per_second"]
    yield "Speed", f"{number(speed, 0)} tokens/s" if speed else "", "tokens_per_second"
    shares = {
        "computed_ratio": "Tokens computed, of those of the samples",
        "mfu": "MFU, share of the measured matrix rate",
        "cpu_percent": "CPU, of one core",
        "gpu_percent": "GPU",
    }
    for name, title in shares.items():
        share = summary[name] and summary[name] / (100 if name.endswith("percent") else 1)
        yield title, percent(share) if share else "", name
    sizes = {"peak_rss_bytes": "Memory at the peak", "peak_gpu_memory_bytes": "GPU memory at the peak"}
    for name, title in sizes.items():
        yield title, size(summary[name]) if summary[name] else "", name
    waited = summary["wait_ratio"]
    yield (
        "Waiting for data, share of the time in steps",
        percent(waited) if waited else "",
        "wait_ratio",
    )
    yield "Time in steps, rework included", duration(summary["training_seconds"]), "training_seconds"
    yield "Time in evaluations", duration(summary["evaluation_seconds"]), "evaluation_seconds"
    attempts = plural(summary["attempts"], "attempt")
    yield "Time in all", f"{duration(summary['wall_seconds'])} in {attempts}", "wall_seconds", "attempts"
    expected = [f"forecast_{name}" for name in ("seconds", "memory_bytes", "disk_bytes")]
    is_forecast = summary["forecast_seconds"] is not None
    yield "Forecast", prose(forecast_and_measured(summary)) if is_forecast else "", *expected, "disk_bytes"
    ratings = summary["ratings"]
    yield "Ratings by people", prose(str(ratings)) if ratings.count else "", "ratings"


def _checkpoints(history: History, summary: Summary) -> Iterator[str]:
    saved = {event.name: event for event in history.events(CheckpointSaved)}
    value = f"{prose(metric_title(str(summary['best_metric'])))} {short(summary['best_value'])}"
    rows = []
    for name in summary["checkpoints"]:
        event = saved.get(name)
        bytes_, seconds = (event.size, event.write_seconds) if event else (None, None)
        mark = f"best, {value}" if name == summary["best_checkpoint"] else ""
        told_size = told_of(size(bytes_), "size", bytes_, [event], unit="bytes", statistic="of its files")
        rows.append((code(name), told_size, duration(seconds), mark))
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
        yield f"Noted {moment(entry.time)} UTC{by}:\n\n{fence(entry.event.text)}"
    if or_how and not found:
        command = f'etude note {history.argument} "..." --section {section}'
        yield f"(nothing noted; {code(command)} adds to it)"
