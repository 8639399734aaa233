"""Conditions of a run as Markdown: settings, techniques, machine, software, model and data."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from etude import durable
from etude.errors import InputError, MissingError
from etude.recipe.load import flatten, read_recipe_text
from etude.recipe.schema import Recipe
from etude.recipe.settings import shown_settings
from etude.recipe.toml import parse
from etude.records.events import Attempt
from etude.records.shape import Object, fit
from etude.records.store import Run
from etude.report.history import History
from etude.report.markdown import code, prose, table
from etude.report.summary import Summary, kept_checkpoints
from etude.report.told import told
from etude.report.wording import (
    NOTHING,
    count_title,
    number,
    parameters_text,
    percent,
    setting,
    short,
    size,
    steps_text,
    value_title,
)
from etude.text import plural

_ELSEWHERE = ("name", "records.title", "records.author", "records.tags", "records.type", "records.weight")
_USES = {"train": "training", "validation": "validation", "test": "test"}


def describe_settings(history: History, summary: Summary) -> Iterator[str]:
    """The model, data and length of a run, its techniques, and the settings that are no defaults."""
    recipe = history.run.recipe
    yield table(("", ""), _run_rows(history, summary))
    attempt = history.attempts[-1] if history.attempts else None
    yield "\n".join(f"- {technique}" for technique in _techniques(recipe, attempt))
    rows: dict[str, list[str]] = {}
    for key, value in given_settings(history).items():
        source, _, name = key.rpartition(".")
        is_source = source.rpartition(".")[2].isdecimal()
        text = f"{prose(name)} {code(setting(value))}" if is_source else code(setting(value))
        rows.setdefault(source if is_source else key, []).append(text)
    yield table(("set for this run", "value"), [(code(key), ", ".join(rows[key])) for key in rows])


def given_settings(history: History) -> dict[str, Any]:
    """Values that somebody set: those of the recipe file and the command, and others that are no defaults."""
    run, command = (
        history.run,
        history.attempts[-1].environment.get("command", []) if history.attempts else [],
    )
    values = run.recipe.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True)
    every = _settings(run.recipe)
    differ, named = set(flatten(values)), set[str]()
    with contextlib.suppress(InputError):
        named = set(flatten(parse(read_recipe_text(run.path / "recipe.toml"), "recipe.toml")))
    # The recipe of a program names all keys, also those that it leaves at their defaults.
    given = named & differ if every.keys() - differ <= named else named
    given |= {str(word).partition("=")[0].removeprefix("--") for word in command}
    given |= {key for key in differ if not _is_filled_in(run.recipe, key)}
    return {key: value for key, value in every.items() if key in given}


def describe_defaults(history: History) -> Iterator[str]:
    """A line for each section of the recipe with the keys that nobody set."""
    given, sections = given_settings(history), dict[str, list[str]]()
    for key, value in _settings(history.run.recipe).items():
        if key not in given:
            section, _, name = key.rpartition(".")
            sections.setdefault(section, []).append(f"{prose(name)} {code(setting(value))}")
    if sections:
        yield "\n".join(
            f"- {f'{code(section)}: ' if section else ''}{', '.join(keys)}"
            for section, keys in sections.items()
        )


def describe_machine(history: History) -> Iterator[str]:
    """Machine and software of the last attempt."""
    if history.attempts:
        attempt = history.attempts[-1]
        yield table(("", ""), _machine_rows(attempt))


def describe_model(history: History) -> Iterator[str]:
    """Parameters by part, and all sizes as the newest checkpoint has them for other tools."""
    if base := history.base:
        yield f"Base model {code(base['from'])}, SHA-256 {code(base['sha256'])}"
    if history.attempts:
        yield f"Parameters: {', '.join(_parameters(history.attempts[-1].parameters))}"
    if keys := _config_keys(history.run):
        listed = ", ".join(f"{prose(key)} {code(setting(value))}" for key, value in keys.items())
        yield f"{code('config.json')}: {listed}"


def describe_data(history: History) -> Iterator[str]:
    """The counts of the prepared data."""
    if data := history.data:
        yield from summary_tables(data.summary)
        yield f"Fingerprint of the data {code(data.fingerprint[:16])}"


@dataclass(frozen=True)
class CountTable:
    """A table of the counts of data: plain values by column, and the examples of all rows below it.

    name  of the list that it is, "" for the splits, or None for single values, whose columns have no heading
    """

    name: str | None
    columns: list[str]
    rows: list[list[Any]]
    examples: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Its title in words."""
        return value_title(self.name) if self.name else ""

    @property
    def headings(self) -> list[str]:
        """The headings of its columns in words."""
        if self.name is None:
            return [""] * len(self.columns)
        return [(value_title if self.name else count_title)(column) for column in self.columns]

    def texts(self) -> list[list[str]]:
        """The cells as people read them."""
        if self.name is None:
            return [[value_title(key), cell_text(key, value)] for key, value in self.rows]
        return [[cell_text(name, value) for name, value in zip(self.columns, row)] for row in self.rows]


def count_tables(summary: dict[str, Any]) -> Iterator[CountTable]:
    """Counts of data: single values, a table of the splits, a table for each list.

    Columns and rows that say nothing, as 0, none or no row, are left out.
    """
    splits = {key: value for key, value in summary.items() if isinstance(value, dict) and _is_split(value)}
    lists = {key: value for key, value in summary.items() if isinstance(value, list)}
    single = {key: value for key, value in summary.items() if key not in splits and key not in lists}
    if counts := [[key, value] for key, value in single.items() if _says(value)]:
        yield CountTable(None, ["", ""], counts)
    for name, entries in [("", [{"split": key} | value for key, value in splits.items()]), *lists.items()]:
        named = [entry for entry in entries if isinstance(entry, dict)]
        every = dict.fromkeys(column for entry in named for column in entry if column != "examples")
        columns = [column for column in every if any(_says(entry.get(column)) for entry in named)]
        numbers = [column for column in every if any(_is_number(entry.get(column)) for entry in named)]
        if columns and numbers and not set(numbers) & set(columns):
            columns.append(numbers[0])  # names alone would read as if something were found
        if columns:
            rows = [[entry.get(column) for column in columns] for entry in entries]
            yield CountTable(
                name, columns, rows, [text for entry in entries for text in entry.get("examples", ())]
            )


def summary_tables(summary: dict[str, Any]) -> Iterator[str]:
    """Counts of data as Markdown; long texts under their table."""
    for each in count_tables(summary):
        if each.name is None:
            yield table(("", ""), [(prose(value_title(key)), _cell(key, value)) for key, value in each.rows])
            continue
        rows = [[_cell(column, value) for column, value in zip(each.columns, row)] for row in each.rows]
        shown = "".join(f"\n- {code(text)}" for text in each.examples)
        title = f"{prose(each.title)}:\n\n" if each.name else ""
        yield title + table(list(map(prose, each.headings)), rows) + (f"\n{shown}" if shown else "")


def cell_text(column: str, value: Any) -> str:
    """A value of a table of counts as people read it."""
    if column == "share":
        return percent(value)
    if isinstance(value, dict):
        value = {_words(key): each for key, each in value.items() if _says(each)}
    if isinstance(value, str | list | dict):
        return setting(value) if value else NOTHING
    return short(value) if isinstance(value, float) else number(value)


def _run_rows(history: History, summary: Summary) -> Iterator[tuple[str, str]]:
    yield "Run", code(summary["name"])
    titles = dict.fromkeys(part.kind.title for part in history.run.recipe.by_task().values())
    base = f", from {code(summary['base']['from'])}" if summary["base"] else ", from scratch"
    yield "Model", f"{', '.join(titles)}{base}"
    if summary["parameters"]:
        parameters = summary.figure("parameters"), summary.figure("trainable")
        yield "Parameters", told(parameters_text(*(each.value for each in parameters)), *parameters)
    counts = history.data.summary if history.data else {}
    found = [
        plural(each["samples"], f"{word} sample")
        for use, word in _USES.items()
        if isinstance(each := counts.get(use), dict) and isinstance(each.get("samples"), int)
    ]
    if found:
        yield "Data", ", ".join(found)
    steps = [summary.figure(name) for name in ("step", "steps", "epochs")]
    targets = summary.figure("tokens")
    done = told(steps_text(*(each.value for each in steps)), *steps)
    yield "Steps", f"{done}, {told(plural(targets.value, 'target'), targets)}"
    if history.attempts:
        attempt = history.attempts[-1]
        yield "Device", f"{attempt.devices} x {prose(attempt.device)}, {prose(attempt.precision)}"


def _settings(recipe: Recipe) -> dict[str, Any]:
    """The values of the recipe by key, but those of the front matter and lists without an entry."""
    values = shown_settings(recipe).items()
    return {key: value for key, value in values if key not in _ELSEWHERE and value != []}


def _is_filled_in(recipe: Recipe, key: str) -> bool:
    """True if etude chooses the value of a key that a recipe leaves open."""
    section, _, name = key.rpartition(".")
    fields = getattr(type(getattr(recipe, section, None)), "model_fields", {})
    return name in fields and fields[name].default in (None, "auto")


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
    versions = environment.get("versions", {}).items()
    yield "Software", ", ".join(f"{prose(name)} {code(version)}" for name, version in versions) or NOTHING
    if git := environment.get("git"):
        changes = {
            True: " with changes that are not committed",
            None: "; whether files differ from it is not known",
        }
        yield "git commit", code(git["commit"]) + changes.get(git["dirty"], "")
    if "command" in environment:
        yield "Command", code(" ".join(map(str, environment["command"])))
    for name, what in (environment.get("own_code") or {}).items():
        yield f"Own {prose(name)}", code(what)


def _config_keys(run: Run) -> dict[str, Any]:
    """The config.json of the newest checkpoint; an adapter has none."""
    try:
        for checkpoint in kept_checkpoints(run)[-1:]:
            path = run.checkpoints / checkpoint / "config.json"
            config = fit(durable.read_json_object(path, follow=False), Object())
            return {key: value for key, value in config.items() if value is not None}
    except MissingError:
        pass
    except (InputError, ValueError) as error:
        return {"problem": str(error)}
    return {}


def _parameters(parameters: dict[str, int]) -> Iterator[str]:
    for part, count in parameters.items():
        shared = part == "head" and count == 0
        yield f"{prose(value_title(part))} {'0 (shares the embedding)' if shared else number(count)}"


def _is_split(counts: dict[str, Any]) -> bool:
    return not {"documents", "samples", "tokens"}.isdisjoint(counts)


def _says(value: Any) -> bool:
    return value not in (None, 0, "", [], {}) or value is False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(column: str, value: Any) -> str:
    text = cell_text(column, value)
    is_words = isinstance(value, str | list | dict) and column != "share" and text != NOTHING
    return code(text) if is_words else text


def _words(name: str) -> str:
    return name.replace("_", " ")


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
        way = "sharded" if attempt and attempt.environment.get("parallel") == "shard" else "data parallel"
        yield f"{way} over {train.devices} ranks"
    precision = attempt.precision if attempt else train.precision
    if precision in ("bf16", "fp16"):
        yield f"mixed precision {precision}" + (" with loss scaling" if precision == "fp16" else "")
    yield from (what for what, is_on in _switches(recipe).items() if is_on)


def _switches(recipe: Recipe) -> dict[str, Any]:
    """Words for settings that are off, or none, unless a recipe asks for them; each with its value."""
    model, train, patience = recipe.model, recipe.train, recipe.evaluate.patience or 0
    heads, shared, vocabulary = model.n_head, model.n_kv_head, recipe.tokenizer.train_vocab_size
    windows = ", ".join(number(window) if window else "all" for window in model.layer_window or [])
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
        f"sliding windows of {windows} tokens, repeated over the layers": any(model.layer_window or []),
        f"{plural(heads or 0, 'query head')} share {plural(shared or 0, 'key and value head')}": (
            heads and shared and shared < heads
        ),
        f"dropout {model.dropout:g}": model.dropout,
        f"early stopping after {plural(patience, 'evaluation')} without improvement": patience,
        f"byte-level BPE of {number(vocabulary)} tokens, trained on the training documents": vocabulary,
    }
