"""The card of an exported model: README.md with front matter, every figure from the journal of its run."""

import contextlib
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from etude import durable
from etude.errors import InputError
from etude.recipe.schema import Recipe
from etude.records.events import Attempt, Evaluation, Scores
from etude.records.folder import step_of
from etude.records.store import Run
from etude.records.window import mean_loss
from etude.report.conditions import given_settings
from etude.report.history import History, read_history
from etude.report.markdown import code, prose, quoted, render, table
from etude.report.program import ONLY_ETUDE, ask_model, load_adapter, load_model
from etude.report.results import figure_text, figures_at, final_scores
from etude.report.sources import head_of
from etude.report.summary import Summary, status_word, summarize_history
from etude.report.told import Told, take_marks
from etude.report.wording import (
    count_title,
    duration,
    in_seconds,
    metric_title,
    number,
    setting,
    short,
    steps_text,
)
from etude.text import plural

_WHAT = {
    "peft": "A LoRA adapter for {base}, in the format of PEFT.",
    "merged": "{base} with a LoRA adapter merged into its weights.",
    "hf": "All weights of a {model}{origin}.",
}
_MOST_OF_A_CARD = 1 << 20  # bytes
_SETTINGS = ("model.from", "adapter.", "tasks.", "train.", "optim.", "schedule.", "data.", "seed")
_NOT_SETTINGS = ("data.train.", "data.validation.", "data.test.", "data.leakage.benchmarks")


class Made(Protocol):
    """A form that a model was written in and measured or checked: its part of the card, and its use.

    heading       of the section
    said          a sentence on the form
    whose         the model that the run measured, in words: this model, or the one that it was made of
    asks          true if it is asked as a model of transformers is
    """

    @property
    def heading(self) -> str: ...

    @property
    def said(self) -> str: ...

    @property
    def whose(self) -> str: ...

    @property
    def asks(self) -> bool: ...

    def section(self) -> str:
        """The section, in Markdown."""
        ...

    def program(self, auto: str) -> list[str]:
        """Lines of Python that load it. auto: the class of transformers."""
        ...


def model_card(run: Run, checkpoint: str, kind: str, made: Made | None = None) -> str:
    """The card of `checkpoint` (`step-000200`), exported as peft, merged or hf; equal records, equal cards.

    made: the form that it was written in, where it is not as the run saved it.

    Raises: InputError if the run folder is damaged.
    """
    return make_card(read_history(run), checkpoint, kind, made)[0]


def make_card(
    history: History, checkpoint: str, kind: str, made: Made | None = None
) -> tuple[str, list[Told]]:
    """The card that follows from a history, and the places of the figures in it."""
    sections = _sections(history, checkpoint, kind, made.whose if made else "this model")
    sections |= {"heading": made and made.heading, "form": made and made.section()}
    if made is not None:
        sections["what"] += f" {made.said}"
        sections["code"] = "\n".join(made.program(_kind_of(history.run.recipe)[0]))
        sections["ask"] = sections["ask"] if made.asks else ""
    return take_marks(render("card.md.jinja", sections))


def _sections(history: History, checkpoint: str, kind: str, whose: str) -> dict[str, Any]:
    recipe, step = history.run.recipe, step_of(checkpoint)
    assert step is not None
    base, records = recipe.model.from_, recipe.records
    auto, task, model = _kind_of(recipe)
    hub_id, licence = base and hub_id_of(base), _licence(history)
    front_matter: dict[str, Any] = {
        "library_name": "peft" if kind == "peft" else "transformers",
        "pipeline_tag": task,
        **({"base_model": hub_id} if hub_id else {}),
        **({"license": licence} if licence else {}),
        "tags": list(dict.fromkeys([*records.tags, *(["lora"] if kind != "hf" else [])])),
    }
    # The path of a folder on one machine is nobody else's business: its name is enough.
    shown = (hub_id or Path(base).name) if base else "a decoder trained from scratch"
    origin = f", fine-tuned from {code(shown)}" if base else ", trained from scratch"
    evaluations = [evaluation for evaluation in history.evaluations if evaluation.step <= step]
    is_scored = step in [scores.step for scores in history.events(Scores)]
    load = load_adapter(recipe, auto, hub_id) if kind == "peft" else load_model(auto)
    if recipe.model.wants_code:
        load = ONLY_ETUDE
    summary = summarize_history(history)
    return {
        "front_matter": {key: quoted(value) for key, value in front_matter.items()},
        "title": prose(records.title or recipe.name),
        "what": _WHAT[kind].format(base=code(shown), origin=origin, model=model),
        "code": "\n".join(load),
        "ask": "\n".join(ask_model(history, step)),
        "licence": licence and f"The licence is that of the base model: {prose(licence)}.",
        "verdict": prose(" ".join([_place(summary, history, step, whose), *summary["verdict"]])),
        "problems": [prose(problem) for problem in summary["problems"]],
        "training": table(("", ""), _training_rows(history, step, summary["loss_window"])),
        "data": table(("", ""), _data_rows(history)) if history.data else None,
        "evaluation": _evaluation_table(history, summary, evaluations, step, whose),
        "ratings": summary["ratings"].count and f"Ratings by people: {prose(str(summary['ratings']))}.",
        "final": "\n\n".join(final_scores(history)) if is_scored else None,
        "settings": table(("key", "value"), _setting_rows(history)),
        "record": table(("", ""), _record_rows(history, checkpoint)),
    }


def _place(summary: Summary, history: History, step: int, whose: str) -> str:
    """A sentence on the step of the model among those of its run, of which the verdict is."""
    best, last, planned = history.best, summary["step"], summary["steps"]
    if best is not None and best.step != step:
        kind = f"not the best checkpoint of its run, which is that of step {best.step:,}"
    else:
        kind = "the best checkpoint of its run" if best is not None else "a checkpoint of its run"
    is_part = planned is not None and last < planned
    came = f"; the run came to step {last:,} of {planned:,} ({status_word(summary)})" if is_part else ""
    what = "Its best member" if "member" in whose else "This model"
    return f"{what} is of step {step:,}, {kind}{came}. The verdict on the whole run:"


def hub_id_of(base: str) -> str | None:
    """The hub id of a base model given by it, or by its folder in the hub's cache; None for other folders."""
    if cached := re.search(r"models--([\w.-]+?)--([\w.-]+)/snapshots/", base):
        return f"{cached[1]}/{cached[2]}"
    is_id = re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", base) and not Path(base).exists()
    return base if is_id else None


def _licence(history: History) -> str | None:
    """The licence that the card of the base model names, where it lies beside it."""
    if history.base is None:
        return None
    with contextlib.suppress(InputError, OSError, ValueError):
        text = durable.read_text(Path(history.base["path"]) / "README.md", most_bytes=_MOST_OF_A_CARD)
        found = re.match(r"---\n(?:.*\n)*?license: *[\"']?([\w.+-]{1,60})[\"']? *\n(?:.*\n)*?---", text)
        return found[1] if found else None
    return None


def _kind_of(recipe: Recipe) -> tuple[str, str, str]:
    """The class that loads the model, the hub's name of its task, and the noun for it."""
    kinds = {part.kind for part in recipe.by_task().values()}
    first, *others = kinds
    if not others and not (recipe.tasks and first.has_labels):
        return first.auto_class, first.pipeline_tag, first.title
    masked = next((kind for kind in kinds if kind.hides_tokens), None)
    auto, task = (masked.auto_class, masked.pipeline_tag) if masked else ("AutoModel", "feature-extraction")
    return auto, task, "encoder that learnt several tasks"


def _training_rows(history: History, step: int, window: int) -> Iterator[tuple[str, str]]:
    steps = [record for record in history.steps if record.step <= step]
    attempt = history.attempts[-1] if history.attempts else None
    if attempt:
        yield "Parameters", _parameters(attempt)
    known = (attempt.steps, step / attempt.steps_per_epoch) if attempt else (None, None)
    yield "Steps", steps_text(step, *known)
    if steps:
        mean = f"mean of the last {plural(len(steps[-window:]), 'step').removeprefix('1 ')}"
        yield "Training loss", f"{short(mean_loss(steps[-window:]), 4)} nats a target, {mean}"
        yield "Targets", number(sum(record.targets for record in steps))
        yield "Time in steps", duration(sum(record.seconds for record in steps))
    if attempt:
        machine = attempt.environment.get("machine", {})
        gpus = ", ".join(gpu["name"] for gpu in machine.get("gpus", []))
        what = code(gpus or machine.get("cpu", "unknown"))
        yield "Device", f"{attempt.devices} x {prose(attempt.device)} ({what}), {prose(attempt.precision)}"


def _parameters(attempt: Attempt) -> str:
    total = attempt.parameters["total"]
    if attempt.trainable is None or attempt.trainable == total:
        return number(total)
    share = f"{100 * attempt.trainable / total:.4f} %"
    return f"{number(total)}, of which {number(attempt.trainable)} were trained ({share})"


def _data_rows(history: History) -> Iterator[tuple[str, str]]:
    assert history.data is not None
    for name in ("train", "validation"):
        for key, value in (history.data.summary.get(name) or {}).items():
            if isinstance(value, int):
                yield f"{prose(name)}, {prose(count_title(key))}", number(value)
    yield "Fingerprint", code(history.data.fingerprint[:16])


def _evaluation_table(
    history: History, summary: Summary, evaluations: list[Evaluation], step: int, whose: str
) -> str | None:
    """The first evaluation and that of the exported step, or the last before it, with all their figures."""
    if not evaluations:
        return None
    here = evaluations[-1:]
    shown = list({evaluation.step: evaluation for evaluation in [evaluations[0], *here]}.values())
    columns = [
        (f"step {each.step:,}" if each.step else "before training")
        + (f" ({whose})" if each.step == step else "")
        for each in shown
    ]
    figures = figures_at(history, summary, shown)
    rows = [
        [prose(metric_title(name)), *(figure_text(name, value) for value in values)]
        for name, values in figures.items()
        if "/" not in name
    ]
    figures_shown = table(("on validation samples", *columns), rows)
    is_measured = any(each.step == step for each in shown)
    return figures_shown if is_measured else f"This model itself was not evaluated.\n\n{figures_shown}"


def _setting_rows(history: History) -> Iterator[tuple[str, str]]:
    hidden = (
        *_NOT_SETTINGS,
        *(["train.objective"] if history.run.recipe.tasks else []),
    )  # each task has its own
    for key, value in given_settings(history).items():
        if key.startswith(_SETTINGS) and not key.startswith(hidden):
            name = hub_id_of(value) or Path(value).name if key == "model.from" else setting(value)
            yield code(key), code(name)


def _record_rows(history: History, checkpoint: str) -> Iterator[tuple[str, str]]:
    run = history.run
    yield "Run", code(run.name)
    yield "Checkpoint", code(checkpoint)
    if best := run.best:
        value = f"{prose(metric_title(str(best.get('metric'))))} {short(best['value'])}"
        yield "Best of the run", f"{code(best['checkpoint'])}, {value}"
    yield "Started", code(in_seconds(run.info["created"]))
    yield "Recipe, SHA-256", code(run.info["recipe_hash"])
    yield "Journal, SHA-256 at export", code(head_of(history).sha256)
    yield "Written by", f"etude {metadata.version('etude-workbench')}"
