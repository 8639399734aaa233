"""The report of a run: Markdown with front matter and charts, every figure from the run folder."""

from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from etude import durable
from etude.errors import InputError, MissingError
from etude.recipe.load import flatten
from etude.recipe.schema import Recipe
from etude.records.events import (
    Attempt,
    CheckpointSaved,
    Control,
    DataUsed,
    Evaluation,
    Finding,
    Note,
)
from etude.records.folder import require_own
from etude.records.shape import Object, fit
from etude.records.store import Run
from etude.records.window import Window, mean_loss
from etude.report.charts import chart_svgs
from etude.report.figures import spread
from etude.report.history import History, read_history
from etude.report.markdown import code, fence, prose, quoted, table
from etude.report.results import (
    before_after,
    figures_over_time,
    final_scores,
    prompts_left_out,
    text_timeline,
)
from etude.report.summary import Summary, best_text, index_history, summarize_history
from etude.report.wording import duration, number, numbers, parameters_text, percent, size
from etude.text import plural

_TIMELINE_ROWS = 16
_FINDINGS = 50
_CHART_NAMES = {
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
    import jinja2

    require_own(run.path)
    run.require_own_recipe()
    history = read_history(run)
    charts = chart_svgs(history)
    template = resources.files("etude.report").joinpath("report.md.jinja").read_text(encoding="utf-8")
    # Markdown has no autoescape: every foreign text passes through etude.report.markdown on its way into
    # `_sections`.
    environment = jinja2.Environment(
        autoescape=False, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    text = environment.from_string(template).render(_sections(history, list(charts)))
    folder = run.path / "report"
    durable.make_folder(folder)
    durable.remove_leftovers(folder)
    for name, svg in charts.items():
        durable.write_file(folder / name, svg)
    durable.write_file(folder / "report.md", text.encode("utf-8", "backslashreplace"))
    index_history(history)
    return folder / "report.md"


def _sections(history: History, charts: list[str]) -> dict[str, Any]:
    """What the template needs, as finished Markdown."""
    recipe, summary = history.run.recipe, summarize_history(history)
    records = recipe.records
    attempt = history.attempts[-1] if history.attempts else None
    front_matter = {
        "title": records.title or recipe.name, "date": summary['created'], "type": records.type,
        "tags": records.tags, "weight": records.weight,
        **({"author": records.author} if records.author else {}),
    }  # fmt: skip
    return {
        "front_matter": {key: quoted(value) for key, value in front_matter.items()},
        "title": prose(records.title or recipe.name),
        "summary": table(("", ""), _summary_rows(summary)),
        "infrastructure": attempt and table(("", ""), _machine_rows(attempt)),
        "versions": attempt and table(("software", "version"), _version_rows(attempt.environment)),
        "architecture": table(("key", "value"), _settings(_model_keys(history, summary))),
        "parameters": attempt and table(("part", "parameters"), _parameter_rows(attempt.parameters)),
        "hyper_parameters": table(("key", "value"), _settings(_hyper_parameters(recipe))),
        "data": _data_tables(history.data) if history.data else [],
        "phases": _phases(history),
        "log_every_steps": records.log_every_steps,
        "timeline": _timeline(history),
        "charts": [(name, _CHART_NAMES[name]) for name in charts],
        "techniques": list(_techniques(recipe, attempt)),
        "before_after": before_after(history),
        "over_time": figures_over_time(history),
        "final_scores": final_scores(history),
        "use": table(("", ""), _use_rows(summary)),
        "samples": list(text_timeline(history)),
        "left_out": prompts_left_out(history),
        "checkpoints": _checkpoints(history, summary),
        "problems": list(_problems(history)),
        "interventions": _interventions(history),
        "lessons": list(_notes(history, "lessons")),
        "next_steps": list(_notes(history, "next")),
    }


def _summary_rows(summary: Summary) -> Iterator[tuple[str, str]]:
    yield "Run", code(summary["name"])
    yield "Status", f"{prose(summary['status'])}: {prose(summary['reason'])}"
    of = f" of {summary['steps']:,}" if summary["steps"] else ""
    yield (
        "Steps",
        f"{summary['step']:,}{of}" + (f", {summary['epochs']:.2f} epochs" if summary["epochs"] else ""),
    )
    yield "Tokens", f"{summary['tokens']:,} targets"
    yield "Parameters", parameters_text(summary["parameters"], summary["trainable"])
    if summary["base"]:
        yield "Base model", f"{code(summary['base']['from'])}, SHA-256 {code(summary['base']['sha256'])}"
    if summary["last_loss"] is not None:
        window = f"mean of the last log window, {plural(summary['loss_window'], 'step')}"
        yield "Training loss", f"{number(summary['last_loss'])} ({window})"
    if summary["last_validation_loss"] is not None:
        best = f"{number(summary['best_validation_loss'])} at step {number(summary['best_validation_step'])}"
        yield "Validation loss", f"{number(summary['last_validation_loss'])} (last), {best} (best)"
    yield "Time", f"{duration(summary['wall_seconds'])} in {plural(summary['attempts'], 'attempt')}"
    if summary["damaged_lines"]:
        yield "Damaged lines", f"{numbers(summary['damaged_lines'])} of the journal"


def _machine_rows(attempt: Attempt) -> Iterator[tuple[str, str]]:
    environment = attempt.environment
    machine = environment.get("machine", {})
    yield "Platform", code(machine.get("platform", "unknown"))
    yield "CPU", f"{code(machine.get('cpu', 'unknown'))}, {plural(machine.get('cores') or 0, 'core')}"
    yield "RAM", size(machine.get("memory_bytes"))
    yield (
        "Disk",
        f"{size(machine.get('disk_bytes'))}, {size(machine.get('disk_free_bytes'))} free at the start",
    )
    gpus = [f"{code(gpu['name'])} {size(gpu['memory_bytes'])}" for gpu in machine.get("gpus", [])]
    yield "GPU", ", ".join(gpus) or "none"
    yield "Used", f"{attempt.devices} x {prose(attempt.device)}, {prose(attempt.precision)}"
    yield "Matrix rate", f"{attempt.matrix_flops_per_second / 1e9:,.1f} GFLOP/s measured"
    if "command" in environment:
        yield "Command", code(" ".join(map(str, environment["command"])))
    for name, what in (environment.get("own_code") or {}).items():
        yield f"Own {prose(name)}", code(what)


def _version_rows(environment: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, version in environment.get("versions", {}).items():
        yield prose(name), code(version)
    if git := environment.get("git"):
        changes = {
            True: " with changes that are not committed",
            None: "; whether files differ from it is not known",
        }
        yield "git commit", code(git["commit"]) + changes.get(git["dirty"], "")


def _model_keys(history: History, summary: Summary) -> dict[str, Any]:
    """The model of the recipe, then all sizes as the newest checkpoint has them for other tools."""
    keys = flatten({"model": history.run.recipe.to_dict()["model"]})
    path = history.run.checkpoints / (summary["checkpoints"] or [""])[-1] / "config.json"
    try:
        config = fit(durable.read_json_object(path, follow=False), Object()) if summary["checkpoints"] else {}
    except MissingError:  # an adapter has none
        return keys
    except (InputError, ValueError) as error:
        return {**keys, "config.json": str(error)}
    return keys | {f"config.json {key}": value for key, value in config.items() if value is not None}


def _parameter_rows(parameters: dict[str, int]) -> Iterator[tuple[str, str]]:
    for part, count in parameters.items():
        shared = "0 (shares the embedding)" if part == "head" and count == 0 else number(count)
        yield prose(part.replace("_", " ")), shared


def _hyper_parameters(recipe: Recipe) -> dict[str, Any]:
    """All that is neither the model, nor the sources of the data, nor about the record."""
    values = flatten(recipe.to_dict())
    apart = ("name", "model.", "records.", "data.train.", "data.validation.", "evaluate.prompts")
    return {key: value for key, value in values.items() if not key.startswith(apart)}


def _settings(values: dict[str, Any]) -> list[tuple[str, str]]:
    def said(value: Any) -> str:
        return (
            str(value).lower()
            if isinstance(value, bool)
            else repr(value)
            if isinstance(value, float)
            else str(value)
        )

    return [(code(key), code(said(value))) for key, value in values.items() if value != []]


def _data_tables(data: DataUsed) -> list[str]:
    return [*summary_tables(data.summary), f"Fingerprint {code(data.fingerprint[:16])}"]


def summary_tables(summary: dict[str, Any]) -> Iterator[str]:
    """Counts of data, a table a split, a table for each list; long texts under their table."""
    tables = {key: value for key, value in summary.items() if isinstance(value, dict)}
    lists = {key: value for key, value in summary.items() if isinstance(value, list)}
    single = {key: value for key, value in summary.items() if key not in tables and key not in lists}
    if single:
        yield table(
            ("", ""), [(prose(key.replace("_", " ")), _count(value)) for key, value in single.items()]
        )
    for name, entries in [("", [{"split": key} | value for key, value in tables.items()]), *lists.items()]:
        columns = list(
            dict.fromkeys(column for entry in entries for column in entry if isinstance(entry, dict))
        )
        columns = [column for column in columns if column != "examples"]
        if columns:
            title = f"{prose(name)}:\n\n" if name else ""
            header = [prose(column.replace("_", " ")) for column in columns]
            rows = [[_cell(column, entry.get(column)) for column in columns] for entry in entries]
            shown = [f"- {code(text)}" for entry in entries for text in entry.get("examples", ())]
            yield "\n\n".join([title + table(header, rows), *(["\n".join(shown)] if shown else [])])


def _cell(column: str, value: Any) -> str:
    return percent(value) if column == "share" else _count(value)


def _count(value: Any) -> str:
    return code(value) if isinstance(value, str | list | dict) else number(value)


def _phases(history: History) -> str | None:
    """The schedule's parts as far as they were run, each with its loss at start and end and its time."""
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


def _techniques(recipe: Recipe, attempt: Attempt | None) -> Iterator[str]:
    """What the recipe switches on, in words."""
    model, train, optim, schedule = recipe.model, recipe.train, recipe.optim, recipe.schedule
    if adapter := recipe.adapter:
        kind = "DoRA" if adapter.dora else "LoRA"
        on = ", ".join(map(code, [adapter.targets] if isinstance(adapter.targets, str) else adapter.targets))
        yield f"{kind} of rank {adapter.rank}, alpha {adapter.alpha:g}, on {on}; all other weights are frozen"
    yield f"optimizer {optim.kind}, learning rate {optim.learning_rate:g}"
    warmup = f", after a warm-up of {plural(schedule.warmup_steps, 'step')}" if schedule.warmup_steps else ""
    yield f"learning-rate schedule {schedule.kind}{warmup}"
    if optim.weight_decay is None and optim.kind != "adam":
        yield f"weight decay, the default of {optim.kind}"
    if optim.weight_decay:
        yield f"weight decay {optim.weight_decay:g}"
    if train.max_grad_norm is not None:
        yield f"gradients clipped to norm {train.max_grad_norm:g}"
    if train.accumulation and train.accumulation > 1:
        yield f"gradient accumulation over {train.accumulation} micro-batches"
    elif train.global_batch_size and isinstance(train.micro_batch_size, int):
        count = train.global_batch_size // (train.micro_batch_size * train.devices)
        if count > 1:
            yield f"gradient accumulation over {count} micro-batches"
    if train.devices > 1:
        yield f"data parallel over {train.devices} ranks"
    patience = recipe.evaluate.patience
    precision = attempt.precision if attempt else train.precision
    if precision in ("bf16", "fp16"):
        yield f"mixed precision {precision}" + (" with loss scaling" if precision == "fp16" else "")
    switches = {
        "activation checkpointing": train.activation_checkpointing,
        "torch.compile": train.compile,
        "deterministic kernels": train.deterministic,
        "attention kept within documents": not recipe.data.attend_across_documents,
        "RMSNorm on queries and keys": model.qk_norm,
        "biases on queries, keys and values": model.qkv_bias,
        "embedding and head tied": model.tied,
        "output projections start at zero": model.zero_init,
        f"sliding window of {number(model.sliding_window)} tokens": model.sliding_window,
        f"{number(model.n_head)} query heads share {number(model.n_kv_head)} key and value heads": (
            model.n_head and model.n_kv_head and model.n_kv_head < model.n_head
        ),
        f"dropout {model.dropout:g}": model.dropout,
        f"early stopping after {number(patience)} evaluations without improvement": patience,
        f"byte-level BPE of {number(recipe.tokenizer.train_vocab_size)} trained on the training documents": (
            recipe.tokenizer.train_vocab_size
        ),
    }
    yield from (what for what, is_on in switches.items() if is_on)


def _use_rows(summary: Summary) -> Iterator[tuple[str, str]]:
    yield "Training loss, mean of the first log window", number(summary["first_loss"])
    yield "Training loss, mean of the last log window", number(summary["last_loss"])
    yield "Training loss, lowest mean of a log window", number(summary["least_loss"])
    yield "Gap, last validation loss less training loss", number(summary["gap"])
    yield "Speed, targets over step seconds", f"{number(summary['tokens_per_second'], 0)} tokens/s"
    yield "MFU, share of the measured matrix rate", percent(summary["mfu"])
    yield (
        "CPU, of one core",
        percent(None if summary["cpu_percent"] is None else summary["cpu_percent"] / 100),
    )
    yield "GPU", percent(None if summary["gpu_percent"] is None else summary["gpu_percent"] / 100)
    yield "Memory at the peak", size(summary["peak_rss_bytes"])
    yield "GPU memory at the peak", size(summary["peak_gpu_memory_bytes"])
    yield "Waiting for data, share of step seconds", percent(summary["wait_ratio"])
    yield "Time in steps, rework included", duration(summary["training_seconds"])
    yield "Time in evaluations", duration(summary["evaluation_seconds"])
    yield "Time in all", duration(summary["wall_seconds"])
    if summary["ratings"].count:
        yield "Ratings by people", prose(str(summary["ratings"]))


def _checkpoints(history: History, summary: Summary) -> str | None:
    saved = {event.name: event for event in history.events(CheckpointSaved)}
    if not summary["checkpoints"]:
        return None
    rows = []
    for name in summary["checkpoints"]:
        event = saved.get(name)
        mark = (
            f"best, {prose(summary['best_metric'])} {number(summary['best_value'])}"
            if name == summary["best_checkpoint"]
            else ""
        )
        rows.append(
            (
                code(name),
                size(event.size if event else None),
                duration(event.write_seconds if event else None),
                mark,
            )
        )
    return table(("kept", "size", "time to write", ""), rows) + f"\n\nBest: {prose(best_text(summary))}."


def _problems(history: History) -> Iterator[str]:
    skipped = [step.step for step in history.steps if step.skipped]
    if skipped:
        yield (
            f"{plural(len(skipped), 'step')} skipped because loss or gradient was not finite: "
            f"{numbers(skipped, 10)}."
        )
    findings = history.events(Finding)
    if findings:
        rows = [
            (number(finding.step), prose(finding.what), prose(finding.evidence), prose(finding.advice))
            for finding in findings[:_FINDINGS]
        ]
        more = len(findings) - len(rows)
        yield table(("step", "finding", "evidence", "advice"), rows) + (
            f"\n\nand {more:,} more in the journal" if more else ""
        )
    if history.ledger.damaged:
        yield (
            "Lines of the journal that fail their checksum and are left out: "
            f"{numbers(history.ledger.damaged, 10)}."
        )
    yield from _notes(history, "problem")


def _interventions(history: History) -> str | None:
    """Restarts, stops and changed conditions, in the order they came."""
    rows = []
    for entry in history.ledger.entries:
        event, when = entry.event, _when(entry.time)
        if isinstance(event, Control) and event.action != "finish":
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
