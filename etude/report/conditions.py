"""Conditions of a run as Markdown: machine, software, model, settings, data and techniques."""

from collections.abc import Iterator
from typing import Any

from etude import durable
from etude.errors import InputError, MissingError
from etude.recipe.load import flatten
from etude.recipe.schema import Recipe
from etude.records.events import Attempt
from etude.records.shape import Object, fit
from etude.records.store import Run
from etude.report.history import History
from etude.report.markdown import code, prose, table
from etude.report.summary import kept_checkpoints
from etude.report.wording import number, percent, size
from etude.text import plural

_NOT_HYPER_PARAMETERS = (
    "name", "model.", "records.", "data.train.", "data.validation.", "evaluate.prompts",
)  # fmt: skip


def describe_conditions(history: History) -> dict[str, Any]:
    """Sections of the report about conditions, by their names in its template."""
    recipe, data = history.run.recipe, history.data
    attempt = history.attempts[-1] if history.attempts else None
    settings = flatten(recipe.to_dict()).items()
    return {
        "infrastructure": attempt and table(("", ""), _machine_rows(attempt)),
        "versions": attempt and table(("software", "version"), _version_rows(attempt.environment)),
        "architecture": _settings(_model_keys(history.run)),
        "parameters": attempt and table(("part", "parameters"), _parameter_rows(attempt.parameters)),
        "hyper_parameters": _settings({k: v for k, v in settings if not k.startswith(_NOT_HYPER_PARAMETERS)}),
        "data": [*summary_tables(data.summary), f"Fingerprint {code(data.fingerprint[:16])}"] if data else [],
        "techniques": list(_techniques(recipe, attempt)),
    }


def summary_tables(summary: dict[str, Any]) -> Iterator[str]:
    """Counts of data, a table a split, a table for each list; long texts under their table."""
    tables = {key: value for key, value in summary.items() if isinstance(value, dict)}
    lists = {key: value for key, value in summary.items() if isinstance(value, list)}
    single = {key: value for key, value in summary.items() if key not in tables and key not in lists}
    if single:
        yield table(("", ""), [(_heading(key), _cell(key, value)) for key, value in single.items()])
    for name, entries in [("", [{"split": key} | value for key, value in tables.items()]), *lists.items()]:
        named = [entry for entry in entries if isinstance(entry, dict)]
        columns = list(dict.fromkeys(column for entry in named for column in entry if column != "examples"))
        if columns:
            title = f"{prose(name)}:\n\n" if name else ""
            rows = [[_cell(column, entry.get(column)) for column in columns] for entry in entries]
            shown = "".join(f"\n- {code(text)}" for entry in entries for text in entry.get("examples", ()))
            yield title + table(list(map(_heading, columns)), rows) + (f"\n{shown}" if shown else "")


def _machine_rows(attempt: Attempt) -> Iterator[tuple[str, str]]:
    environment = attempt.environment
    machine = environment.get("machine", {})
    yield "Platform", code(machine.get("platform", "unknown"))
    yield "CPU", f"{code(machine.get('cpu', 'unknown'))}, {plural(machine.get('cores') or 0, 'core')}"
    yield "RAM", size(machine.get("memory_bytes"))
    free = size(machine.get("disk_free_bytes"))
    yield "Disk", f"{size(machine.get('disk_bytes'))}, {free} free at the start"
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


def _model_keys(run: Run) -> dict[str, Any]:
    """The model of the recipe, then all sizes as the newest checkpoint has them for other tools."""
    keys = flatten({"model": run.recipe.to_dict()["model"]})
    try:
        for checkpoint in kept_checkpoints(run)[-1:]:
            path = run.checkpoints / checkpoint / "config.json"
            config = fit(durable.read_json_object(path, follow=False), Object())
            keys |= {f"config.json {key}": value for key, value in config.items() if value is not None}
    except MissingError:  # an adapter has none
        pass
    except (InputError, ValueError) as error:
        keys["config.json"] = str(error)
    return keys


def _parameter_rows(parameters: dict[str, int]) -> Iterator[tuple[str, str]]:
    for part, count in parameters.items():
        shared = "0 (shares the embedding)" if part == "head" and count == 0 else number(count)
        yield _heading(part), shared


def _settings(values: dict[str, Any]) -> str:
    """A table of keys and values, as TOML has them; empty lists are left out."""
    texts = {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in values.items()
        if value != []
    }
    return table(("key", "value"), [(code(key), code(text)) for key, text in texts.items()])


def _cell(column: str, value: Any) -> str:
    if column == "share":
        return percent(value)
    return code(value) if isinstance(value, str | list | dict) else number(value)


def _heading(name: str) -> str:
    return prose(name.replace("_", " "))


def _techniques(recipe: Recipe, attempt: Attempt | None) -> Iterator[str]:
    """Techniques that the recipe switches on, in words."""
    train, optim, schedule = recipe.train, recipe.optim, recipe.schedule
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
    micro_batches = train.accumulation or 0
    if not micro_batches and train.global_batch_size and isinstance(train.micro_batch_size, int):
        micro_batches = train.global_batch_size // (train.micro_batch_size * train.devices)
    if micro_batches > 1:
        yield f"gradient accumulation over {micro_batches} micro-batches"
    if train.devices > 1:
        yield f"data parallel over {train.devices} ranks"
    precision = attempt.precision if attempt else train.precision
    if precision in ("bf16", "fp16"):
        yield f"mixed precision {precision}" + (" with loss scaling" if precision == "fp16" else "")
    yield from (what for what, is_on in _switches(recipe).items() if is_on)


def _switches(recipe: Recipe) -> dict[str, Any]:
    """Words for settings that are off, or none, unless a recipe asks for them; each with its value."""
    model, train, patience = recipe.model, recipe.train, recipe.evaluate.patience or 0
    heads, shared, vocabulary = model.n_head, model.n_kv_head, recipe.tokenizer.train_vocab_size
    return {
        "activation checkpointing": train.activation_checkpointing,
        "torch.compile": train.compile,
        "deterministic kernels": train.deterministic,
        "attention kept within documents": not recipe.data.attend_across_documents,
        "RMSNorm on queries and keys": model.qk_norm,
        "biases on queries, keys and values": model.qkv_bias,
        "embedding and head tied": model.tied,
        "output projections start at zero": model.zero_init,
        f"sliding window of {plural(model.sliding_window or 0, 'token')}": model.sliding_window,
        f"{plural(heads or 0, 'query head')} share {plural(shared or 0, 'key and value head')}": (
            heads and shared and shared < heads
        ),
        f"dropout {model.dropout:g}": model.dropout,
        f"early stopping after {plural(patience, 'evaluation')} without improvement": patience,
        f"byte-level BPE of {number(vocabulary)} trained on the training documents": vocabulary,
    }
