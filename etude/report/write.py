"""The report of a run: Markdown with front matter and charts, every figure from the run folder."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from etude import durable
from etude.records.ending import Ending
from etude.records.events import Attempt, CheckpointSaved, Control, Evaluation, Finding, Note
from etude.records.folder import require_own
from etude.records.store import Run
from etude.records.window import Window, mean_loss
from etude.report.charts import chart_svgs
from etude.report.conditions import describe_conditions
from etude.report.figures import spread
from etude.report.history import History, read_history
from etude.report.markdown import code, fence, prose, quoted, render, table
from etude.report.results import (
    before_after,
    figures_over_time,
    final_scores,
    prompts_left_out,
    text_timeline,
)
from etude.report.summary import Summary, best_text, index_history, summarize_history
from etude.report.wording import (
    at_step,
    duration,
    number,
    numbers,
    parameters_text,
    percent,
    size,
    steps_text,
)
from etude.text import plural

_TIMELINE_ROWS = 16
_FINDINGS = 50
_CHART_NAMES = {
    "metric.svg": "The chosen metric",
    "loss.svg": "Training and validation loss",
    "learning_rate.svg": "Learning rate",
    "grad_norm.svg": "Gradient norm",
    "speed.svg": "Tokens per second",
}


def write_report(run: Run) -> Path:
    """Write report/report.md and its charts, also of a run that goes on, was killed, or has no step yet.

    The same records give the same bytes.

    Raises: InputError if the folder is damaged, or a part of it leads elsewhere; StorageError.
    """
    require_own(run.path)
    run.require_own_recipe()
    history = read_history(run)
    charts = chart_svgs(history)
    text = render("report.md.jinja", _sections(history, list(charts)))
    folder = run.path / "report"
    durable.make_folder(folder)
    durable.remove_leftovers(folder)
    for name, svg in charts.items():
        durable.write_file(folder / name, svg)
    durable.write_file(folder / "report.md", text.encode("utf-8", "backslashreplace"))
    index_history(history)
    return folder / "report.md"


def _sections(history: History, charts: list[str]) -> dict[str, Any]:
    """Sections of the report as finished Markdown, by their names in its template."""
    recipe, summary = history.run.recipe, summarize_history(history)
    records, left_out = recipe.records, prompts_left_out(history)
    front_matter = {
        "title": records.title or recipe.name, "date": summary["created"], "type": records.type,
        "tags": records.tags, "weight": records.weight,
        **({"author": records.author} if records.author else {}),
    }  # fmt: skip
    return describe_conditions(history) | {
        "front_matter": {key: quoted(value) for key, value in front_matter.items()},
        "title": prose(records.title or recipe.name),
        "verdict": prose(" ".join([summary["end"], *summary["verdict"]])),
        "spoils": [prose(problem) for problem in summary["problems"]],
        "summary": table(("", ""), _summary_rows(summary)),
        "phases": _phases(history),
        "log_window": plural(records.log_every_steps, "step").removeprefix("1 "),
        "timeline": _timeline(history),
        "charts": [(name, _CHART_NAMES[name]) for name in charts],
        "before_after": before_after(history),
        "over_time": figures_over_time(history),
        "final_scores": final_scores(history),
        "use": table(("", ""), _use_rows(summary)),
        "samples": list(text_timeline(history)),
        "left_out": left_out and plural(left_out, "more prompt"),
        "checkpoints": _checkpoints(history, summary),
        "problems": list(_problems(history)),
        "interventions": _interventions(history),
        "lessons": list(_notes(history, "lessons")),
        "next_steps": list(_notes(history, "next")),
    }


def _summary_rows(summary: Summary) -> Iterator[tuple[str, str]]:
    yield "Run", code(summary["name"])
    yield "Status", f"{prose(summary['status'])}: {prose(summary['reason'])}"
    yield "Steps", steps_text(summary["step"], summary["steps"], summary["epochs"])
    yield "Tokens", plural(summary["tokens"], "target")
    yield "Parameters", parameters_text(summary["parameters"], summary["trainable"])
    if summary["base"]:
        yield "Base model", f"{code(summary['base']['from'])}, SHA-256 {code(summary['base']['sha256'])}"
    if summary["last_loss"] is not None:
        window = f"mean of the last log window, {plural(summary['loss_window'], 'step')}"
        yield "Training loss", f"{number(summary['last_loss'])} ({window})"
    if summary["last_validation_loss"] is not None:
        best = at_step(summary["best_validation_loss"], summary["best_validation_step"])
        yield "Validation loss", f"{number(summary['last_validation_loss'])} (last), {best} (best)"
    yield "Time", f"{duration(summary['wall_seconds'])} in {plural(summary['attempts'], 'attempt')}"
    if summary["damaged_lines"]:
        yield "Damaged lines", f"{numbers(summary['damaged_lines'])} of the journal"


def _phases(history: History) -> str | None:
    """Parts of the schedule as far as they were run, with loss at start and end and time."""
    if not history.attempts or not history.steps:
        return None
    schedule, steps = history.run.recipe.schedule, history.attempts[-1].steps
    decay = schedule.warmup_steps
    if schedule.kind == "wsd":
        decay = max(decay, steps - max(round(schedule.decay_ratio * steps), 1))
    elif schedule.kind == "constant":
        decay = steps
    shape = "linear" if schedule.kind == "wsd" else schedule.kind
    bounds = [
        ("warm-up", 0, schedule.warmup_steps),
        ("stable", schedule.warmup_steps, decay),
        (f"decay ({shape})", decay, steps),
    ]
    rows, every = [], history.run.recipe.records.log_every_steps
    for name, start, end in bounds:
        part = [step for step in history.steps if start < step.step <= end]
        if part:
            few = max(min(every, len(part) // 2), 1)
            cut = "" if part[-1].step == end else f" (to {end:,} planned)"
            rows.append((
                name, f"{part[0].step:,} to {part[-1].step:,}{cut}", number(mean_loss(part[:few])),
                number(mean_loss(part[-few:])), duration(sum(step.seconds for step in part)),
            ))  # fmt: skip
    return table(("phase", "steps", "loss at start", "loss at end", "time"), rows)


def _timeline(history: History) -> str | None:
    """Evenly spaced log windows and evaluations, the best among them."""
    shown: dict[int, tuple[Window | None, Evaluation | None]] = {}
    for window in spread(history.windows, _TIMELINE_ROWS):
        shown[window.step] = (window, None)
    windows = {window.step: window for window in history.windows}
    best = [e for e in history.evaluations if e.best][-1:]
    for evaluation in [*spread(history.evaluations, _TIMELINE_ROWS), *best]:
        shown[evaluation.step] = (windows.get(evaluation.step), evaluation)
    if not shown:
        return None
    rows = [_timeline_row(step, window, evaluation) for step, (window, evaluation) in sorted(shown.items())]
    header = ("step", "training loss", "validation loss", "perplexity", "learning rate", "elapsed")
    return table(header, rows)


def _timeline_row(step: int, window: Window | None, evaluation: Evaluation | None) -> list[str]:
    mark = " (best so far)" if evaluation and evaluation.best else ""
    return [
        number(step),
        number(window and window.loss),
        number(evaluation and evaluation.loss) + mark,
        number(evaluation and evaluation.perplexity, 2),
        f"{window.steps[-1].learning_rate:.3g}" if window else number(None),
        duration(window.elapsed if window else None),
    ]


def _use_rows(summary: Summary) -> Iterator[tuple[str, str]]:
    yield "Training loss, mean of the first log window", number(summary["first_loss"])
    yield "Training loss, mean of the last log window", number(summary["last_loss"])
    yield "Training loss, lowest mean of a log window", number(summary["least_loss"])
    yield "Gap, last validation loss less training loss", number(summary["gap"])
    yield "Speed, targets over step seconds", f"{number(summary['tokens_per_second'], 0)} tokens/s"
    yield "MFU, share of the measured matrix rate", percent(summary["mfu"])
    for what, name in (("CPU, of one core", "cpu_percent"), ("GPU", "gpu_percent")):
        yield what, percent(None if summary[name] is None else summary[name] / 100)
    yield "Memory at the peak", size(summary["peak_rss_bytes"])
    yield "GPU memory at the peak", size(summary["peak_gpu_memory_bytes"])
    yield "Waiting for data, share of step seconds", percent(summary["wait_ratio"])
    yield "Time in steps, rework included", duration(summary["training_seconds"])
    yield "Time in evaluations", duration(summary["evaluation_seconds"])
    yield "Time in all", duration(summary["wall_seconds"])
    if summary["ratings"].count:
        yield "Ratings by people", prose(str(summary["ratings"]))


def _checkpoints(history: History, summary: Summary) -> str | None:
    if not summary["checkpoints"]:
        return None
    saved = {event.name: event for event in history.events(CheckpointSaved)}
    value = f"{prose(summary['best_metric'])} {number(summary['best_value'])}"
    rows = []
    for name in summary["checkpoints"]:
        event = saved.get(name)
        bytes_, seconds = (event.size, event.write_seconds) if event else (None, None)
        mark = f"best, {value}" if name == summary["best_checkpoint"] else ""
        rows.append((code(name), size(bytes_), duration(seconds), mark))
    return table(("kept", "size", "time to write", ""), rows) + f"\n\nBest: {prose(best_text(summary))}."


def _problems(history: History) -> Iterator[str]:
    skipped = [step.step for step in history.steps if step.skipped]
    if skipped:
        steps = plural(len(skipped), "step")
        yield f"{steps} skipped because loss or gradient was not finite: {numbers(skipped, 10)}."
    findings = history.events(Finding)
    if findings:
        rows = [(number(f.step), prose(f.what), prose(f.evidence), prose(f.advice)) for f in findings]
        text = table(("step", "finding", "evidence", "advice"), rows[:_FINDINGS])
        more = len(rows) - _FINDINGS
        yield f"{text}\n\nand {more:,} more in the journal" if more > 0 else text
    if damaged := history.ledger.damaged:
        yield f"Lines of the journal that fail their checksum and are left out: {numbers(damaged, 10)}."
    yield from _notes(history, "problem")


def _interventions(history: History) -> str | None:
    """Restarts, stops and changes, in the order they came."""
    rows = []
    for entry in history.ledger.entries:
        event, when = entry.event, _when(entry.time)
        if isinstance(event, Control) and not ((ending := Ending.of(event)) and ending.state == "finished"):
            rows.append((when, number(event.step), prose(event.action), prose(event.reason)))
        elif isinstance(event, Attempt) and event.number > 1:
            source = f"from {code(event.checkpoint)}" if event.checkpoint else "from the start"
            changed = f"; {'; '.join(prose(change) for change in event.changed)}" if event.changed else ""
            rows.append((when, number(event.from_step), f"attempt {event.number}", source + changed))
    if not rows:
        return None
    rework = history.rework
    lost = f"{plural(len(rework), 'step')} done again, {duration(sum(step.seconds for step in rework))}"
    return table(("time (UTC)", "step", "what", "why"), rows) + (f"\n\nRework: {lost}." if rework else "")


def _notes(history: History, section: str) -> Iterator[str]:
    for entry in history.ledger.entries:
        if isinstance(entry.event, Note) and entry.event.section == section:
            by = f" by {prose(entry.event.author)}" if entry.event.author else ""
            yield f"Noted {_when(entry.time)} UTC{by}:\n\n{fence(entry.event.text)}"


def _when(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S")
