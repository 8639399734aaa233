"""The page of a run: figures, charts, findings, decisions, criteria, scores, and what it can be asked."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from etude.control.mailbox import is_going_on
from etude.errors import EtudeError, InputError
from etude.recipe.course import KEYS
from etude.recipe.keys import recipe_keys
from etude.recipe.load import flatten
from etude.records.changes import last_values
from etude.records.events import (
    SEVERITIES,
    Attempt,
    CheckpointSaved,
    Control,
    Event,
    Finding,
    Forecast,
    Scores,
    Step,
    plain,
)
from etude.records.folder import as_argument
from etude.records.ledger import Entry
from etude.records.store import Run
from etude.report.criteria import criteria_at_end, state_of_criteria
from etude.report.findings import where
from etude.report.history import History, figures_of, metric_value
from etude.report.interventions import Intervention, interventions, what_was_done
from etude.report.progress import Pace
from etude.report.summary import Summary, describe, next_commands
from etude.report.wording import metric_heading, number, short
from etude.text import plural
from etude.ui.live import follow
from etude.ui.readings import Readings, key_of, last_steps
from etude.ui.trim import trim

if TYPE_CHECKING:
    from etude.ui.library import Library

T = TypeVar("T")
_PATIENCE_SECONDS = 0.25  # for figures, without which there are charts
_SHARED_SECONDS = 1.0
_RUNNING = ("pause", "stop", "checkpoint", "evaluate", "generate", "set", "note")
_PAUSED = ("resume", "stop")
_MOST_CHARTS = 60
_MOST_FINDINGS, _MOST_LABELS = 1000, 60  # of findings that a page can list, and of a matrix that it can show
_TOLD_ENDS = ("finish", "fail")
_SKIPS = "leaves out the batches of so many steps, once"
_UNITS = {
    "optim.learning_rate": "", "train.max_grad_norm": "", "data.skip_steps": "steps", "train.steps": "steps",
    "evaluate.patience": "evaluations", "schedule.min_lr_ratio": "of the peak",
}  # fmt: skip


class RunPages:
    """The pages of runs. Windows that ask at once, as all do to whom the same event came, share an answer."""

    def __init__(self, library: "Library", readings: Readings) -> None:
        self._library, self._readings = library, readings
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._last: tuple[float, Any, dict[str, Any]] = (0.0, None, {})

    def get(self, identity: str) -> dict[str, Any]:
        """The page of a run, as it was made within the last second if its files are the same."""
        run = self._library.run(identity)
        with self._turns[identity]:
            key = identity, key_of(run.path), self._readings.count
            at, known, found = self._last
            if time.monotonic() - at > _SHARED_SECONDS or known != key:
                found = run_page(self._library, self._readings, identity)
                self._last = time.monotonic(), key, found
            return found


def run_page(library: "Library", readings: Readings, identity: str) -> dict[str, Any]:
    """The page of a run. What cannot be read is left out, and `unread` says why."""
    run = library.run(identity)
    problems: list[str] = []
    parts: dict[str, Any] = {"id": identity, "name": run.name, "summary": None, "rows": []}
    summary = _try(problems, lambda: readings.summary(run, _PATIENCE_SECONDS))
    parts |= _try(problems, lambda: _state(run)) or {}
    history = _try(problems, lambda: readings.told(run))
    if summary is not None:
        if history is not None and parts.get("state") == "running":
            summary = follow(summary, run, history)
        parts |= {"summary": summary.to_dict(), "rows": describe(summary)}
    parts["pending"] = summary is None and not problems
    if history is not None:
        for part in (_course, _judged, _charts, _offers):
            parts |= _try(problems, partial(part, history, summary)) or {}
    parts["children"] = _children(library, run)
    parts["unread"] = "; ".join(dict.fromkeys(problems)) or None
    left_out = parts.pop("left_out", [])
    found = trim(plain(parts))
    return found | ({"cut": [*left_out, *found.get("cut", [])]} if left_out else {})


def _try(problems: list[str], read: Callable[[], T]) -> T | None:
    """The answer of a reader; None where the folder is damaged, which is said."""
    try:
        return read()
    except EtudeError as error:
        problems.append(str(error))
        return None


def _state(run: Run) -> dict[str, Any]:
    info, lease = run.info, run.lease
    beat = lease.get("heartbeat")
    return {
        "state": run.state, "heartbeat": beat,
        "heartbeat_age": None if beat is None else max(time.time() - beat, 0),
        "parent": (info.get("origin") or {}).get("run") or info.get("parent") or info.get("replays"),
        "origin": info.get("origin"),
    }  # fmt: skip


def _course(history: History, summary: Summary | None) -> dict[str, Any]:
    """Attempts, findings, decisions and checkpoints, and the time that is left."""
    entries, attempts = history.ledger.entries, {each.number: each for each in history.attempts}
    times = {each.event.number: each.time for each in entries if isinstance(each.event, Attempt)}
    shown = (
        "number",
        "from_step",
        "steps",
        "device",
        "devices",
        "precision",
        "micro_batch_size",
        "checkpoint",
    )
    last = history.attempts[-1] if history.attempts else None
    saved = [each.event for each in entries if isinstance(each.event, CheckpointSaved)]
    best, metric = history.best, str(history.metric)
    return {
        "attempts": [
            {**{name: getattr(each, name) for name in shown}, "time": times.get(number)}
            for number, each in attempts.items()
        ],
        "epochs": history.run.recipe.train.epochs, "steps_per_epoch": last and last.steps_per_epoch,
        "steps": last and last.steps, "log_every_steps": history.run.recipe.records.log_every_steps,
        **_findings(entries),
        "interventions": [asdict(each) for each in _interventions(history)],
        "checkpoints": [asdict(each) for each in saved],
        "samples": len(history.generations),
        "best": best and {"step": best.step, "value": metric_value(best, metric), "metric": metric},
        "forecast": _forecast(history),
    }  # fmt: skip


def _interventions(history: History) -> list[Intervention]:
    """Interventions in a run, without its end where the verdict has the reason."""
    found, controls = interventions(history), history.events(Control)
    is_told = found and controls[-1:] and controls[-1].action in _TOLD_ENDS and not is_going_on(history.run)
    return found[:-1] if is_told and found[-1].what == what_was_done(controls[-1]) else found


def _findings(entries: Sequence[Entry]) -> dict[str, Any]:
    """The findings in the order of the journal; of too many the gravest, and of those the first."""
    found = [each for each in entries if isinstance(each.event, Finding)]
    order = sorted(found, key=lambda each: SEVERITIES.index(each.event.severity))  # type: ignore[union-attr]
    kept = {id(each) for each in order[:_MOST_FINDINGS]}
    return {
        "findings": [
            {**asdict(each.event), "time": each.time, "where": where(each.event)}
            for each in found if id(each) in kept and isinstance(each.event, Finding)
        ],
        "left_out": [f"{len(kept):,} of {len(found):,} findings"] if len(kept) < len(found) else [],
    }  # fmt: skip


def _forecast(history: History) -> dict[str, Any] | None:
    """The seconds that are left of a run that goes on, and what it was expected to take."""
    made = history.events(Forecast)
    parts: dict[str, Any] = asdict(made[-1]) if made else {}
    if not is_going_on(history.run):
        return parts or None
    steps = [each for each in last_steps(history.run) if isinstance(each, Step)]
    first, pace = (steps[0].step if steps else 0), Pace(history.run.recipe)
    for event in _before(history, first):
        pace.write(event)
    for step in steps:
        pace.write(step)
    return {
        **parts,
        "step": steps[-1].step if steps else 0,
        "seconds_left": pace.remaining(),
        "words": pace.words(),
    }


def _before(history: History, first: int) -> Iterator[Event]:
    """The records that the time left follows from; checkpoints only beside the steps that are counted."""
    for entry in history.ledger.entries:
        if not isinstance(entry.event, CheckpointSaved) or entry.event.step >= first:
            yield entry.event


def _judged(history: History, summary: Summary | None) -> dict[str, Any]:
    """Criteria, scores beside baselines, and the confusion matrix of the last scores that have one."""
    judgement = criteria_at_end(history)
    states = state_of_criteria(judgement) if judgement else {}
    confused = [each for each in history.scores if each.confusion]
    return {
        "criteria": [
            {"name": name, "value": judgement and judgement.values[name], "met": state}
            for name, state in states.items()
        ],
        "scores": [asdict(replace(each, confusion=[])) for each in history.scores],
        "confusion": _confusion(confused[-1]) if confused else None,
        "labels": _by_label(history),
    }


def _confusion(scores: Scores) -> dict[str, Any]:
    """The confusion matrix with the rows of each label; of many labels those with the most rows."""
    rows = list(map(sum, scores.confusion))
    kept = sorted(sorted(range(len(rows)), key=lambda place: -rows[place])[:_MOST_LABELS])
    return {
        "labels": [scores.labels[place] for place in kept], "of": len(rows),
        "rows": [rows[place] for place in kept],
        "counts": [[scores.confusion[row][column] for column in kept] for row in kept],
    }  # fmt: skip


def _by_label(history: History) -> dict[str, Any] | None:
    """Precision, recall and F1 of each label in the best evaluation, or the last before there is one."""
    found = history.best or (history.evaluations[-1] if history.evaluations else None)
    figures = figures_of(found)
    names = [name.removeprefix("f1/") for name in figures if name.startswith("f1/")]
    if found is None or not names:
        return None
    shown = names[:_MOST_LABELS]
    scores = {
        each: [figures.get(f"{each}/{name}") for name in shown] for each in ("precision", "recall", "f1")
    }
    return {"step": found.step, "names": shown, "scores": scores, "of": len(names)}


def _charts(history: History, summary: Summary | None) -> dict[str, Any]:
    """The charts that the records of a run can fill, each with a caption in words."""
    recipe, evaluations = history.run.recipe, history.evaluations
    names = dict.fromkeys(
        name for each in evaluations for name in figures_of(each) if "/" not in name and name not in _SAME
    )
    has = {name: summary is None or summary[figure] is not None for name, figure in _MEASURED.items()}
    losses = ["train/loss", *(["validation/loss"] if evaluations else [])]
    charts = [_chart("loss", "Loss", "nats per target", losses, _loss_caption(history, summary))]
    if evaluations and recipe.is_loss_plain:
        charts.append(_chart("gap", "Gap", "nats per target", ["gap"], "Validation less training loss."))
    for name in list(names)[:_MOST_CHARTS]:
        charts.append(_chart(f"metric-{name}", metric_heading(name), "", [f"validation/{name}"],
                             _metric_caption(history, name)))  # fmt: skip
    charts.append(_chart("learning_rate", "Learning rate", "", ["learning_rate"], _schedule_caption(history)))
    charts.append(
        _chart("grad_norm", "Gradient norm", "", ["grad_norm"], _clip_caption(history), scale="log")
    )
    if history.attempts and history.attempts[-1].precision == "fp16":
        charts.append(
            _chart("loss_scale", "Loss scale", "", ["loss_scale"], "Scale of the loss in fp16.", scale="log")
        )
    for key, title, unit, series, caption in _MACHINE:
        if any(has.get(name, True) for name in series):
            charts.append(_chart(key, title, unit, [name for name in series if has.get(name, True)], caption))
    return {"charts": charts, "clip": _at_end(history, "train.max_grad_norm"), "metric": str(history.metric)}


_SAME = ("f1_macro",)
_MEASURED = {
    "gpu_percent": "gpu_percent", "gpu_memory_bytes": "peak_gpu_memory_bytes", "mfu": "mfu",
    "cpu_percent": "cpu_percent", "rss_bytes": "peak_rss_bytes", "wait_ratio": "wait_ratio",
}  # fmt: skip
_MACHINE = (
    (
        "speed",
        "Speed",
        "tokens per second",
        ("tokens_per_second",),
        "Tokens of samples per second of training.",
    ),
    (
        "use",
        "Use of the machine",
        "percent",
        ("cpu_percent", "gpu_percent"),
        "CPU in percent of one core.",
    ),
    (
        "memory",
        "Memory",
        "bytes",
        ("rss_bytes", "gpu_memory_bytes"),
        "",
    ),
    ("wait", "Waiting for data", "share", ("wait_ratio",), "Share of the time in steps that waits for data."),
    ("mfu", "MFU", "share", ("mfu",), "Share of the rate that matrix products reach here."),
)


def _chart(
    key: str, title: str, unit: str, series: list[str], caption: str, scale: str = "linear"
) -> dict[str, Any]:
    return {"key": key, "title": title, "unit": unit, "series": series, "scale": scale, "caption": caption}


def _loss_caption(history: History, summary: Summary | None) -> str:
    """As `validation loss 1.42 at step 800, best 1.31 at step 600`."""
    said = []
    if summary is not None and summary["last_loss"] is not None:
        said.append(f"training loss {short(summary['last_loss'])} at step {number(summary['step'])}")
    if history.evaluations:
        last = history.evaluations[-1]
        said.append(f"validation loss {short(last.loss)} at step {last.step:,}")
        made = [each for each in history.evaluations if each.step and each.loss == each.loss]
        lowest = min(made, key=lambda each: each.loss, default=None)
        if lowest is not None and lowest.step != last.step:
            said.append(f"lowest {short(lowest.loss)} at step {lowest.step:,}")
    return _sentence(said)


def _metric_caption(history: History, name: str) -> str:
    found = [
        (each.step, value)
        for each in history.evaluations
        if (value := figures_of(each).get(name)) is not None
    ]
    said = [f"{short(found[-1][1])} at step {found[-1][0]:,}"] if found else []
    if history.best and name == str(history.metric):
        said.append(f"best {short(metric_value(history.best, name))} at step {history.best.step:,}")
    return _sentence(said)


def _schedule_caption(history: History) -> str:
    recipe = history.run.recipe
    warm = recipe.schedule.warmup_steps
    return _sentence([f"schedule {recipe.schedule.kind}, peak {recipe.optim.learning_rate:g}",
                      f"warm-up of {plural(warm, 'step')}" if warm else ""])  # fmt: skip


def _clip_caption(history: History) -> str:
    clip = _at_end(history, "train.max_grad_norm")
    return "Before clipping" + (
        "; nothing is clipped." if clip is None else f"; scaled down to {clip:g} above it."
    )


def _sentence(parts: list[str]) -> str:
    text = ", ".join(filter(None, parts))
    return text[:1].upper() + text[1:] + "." if text else ""


def _at_end(history: History, key: str) -> Any:
    """The value of a key of the recipe as the last change left it."""
    changed = last_values(entry.event for entry in history.ledger.entries)
    value = changed[key] if key in changed else flatten(history.run.recipe.to_dict()).get(key)
    return None if value == "none" else value


def _offers(history: History, summary: Summary | None) -> dict[str, Any]:
    """Requests that the run takes now, and commands that go on from it."""
    run, actions = history.run, tuple[str, ...]()
    if is_going_on(run):
        actions = _PAUSED if run.state == "paused" else _RUNNING
    fields, command = recipe_keys(), as_argument(run.path)
    keys = [
        {
            "key": key, "value": _at_end(history, key), "unit": _UNITS.get(key, ""),
            "why": fields[key].description if key in fields else _SKIPS,
        }
        for key in KEYS
    ]  # fmt: skip
    commands = [f"etude show {command} --follow"]
    if not is_going_on(run):
        commands = next_commands(history) if run.state == "finished" else [f"etude resume {command}"]
    return {"offers": {"actions": actions, "keys": keys if "set" in actions else []}, "commands": commands}


def _children(library: "Library", run: Run) -> list[str]:
    """Ids of the runs that come from a run."""
    found = []
    for identity, other in library.runs().items():
        try:
            info = other.info
        except InputError:
            continue
        parents = {(info.get("origin") or {}).get("run"), info.get("parent"), info.get("replays")}
        if parents & {run.name, run.info.get("id"), str(run.path)}:
            found.append(identity)
    return found
