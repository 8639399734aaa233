"""The card of an exported model: README.md with front matter, every figure from the journal of its run."""

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from etude import durable
from etude.recipe.load import flatten
from etude.recipe.schema import Recipe
from etude.records.events import Attempt, Evaluation, Scores
from etude.records.folder import step_of
from etude.records.store import Run
from etude.records.window import mean_loss
from etude.report.history import History, read_history
from etude.report.markdown import code, prose, quoted, render, table
from etude.report.results import final_scores
from etude.report.wording import duration, in_seconds, number, steps_text
from etude.text import plural

_WHAT = {
    "peft": "A LoRA adapter for {base}, in the format of PEFT.",
    "merged": "{base} with a LoRA adapter merged into its weights.",
    "hf": "All weights of a {model}{origin}.",
}
_LOAD_TOKENIZER = 'tokenizer = AutoTokenizer.from_pretrained("this folder")'
_SETTINGS = ("model.from", "adapter.", "tasks.", "train.", "optim.", "schedule.", "data.", "seed")
_NOT_SETTINGS = ("data.train.", "data.validation.", "data.test.", "data.leakage.benchmarks")


def model_card(run: Run, checkpoint: str, kind: str) -> str:
    """The card of `checkpoint` (`step-000200`), exported as peft, merged or hf; equal records, equal cards.

    Raises: InputError if the run folder is damaged.
    """
    return render("card.md.jinja", _sections(read_history(run), checkpoint, kind))


def _sections(history: History, checkpoint: str, kind: str) -> dict[str, Any]:
    recipe, step = history.run.recipe, step_of(checkpoint)
    assert step is not None
    base, records = recipe.model.from_, recipe.records
    auto, task, model = _kind_of(recipe)
    is_hub_id = base is not None and not Path(base).exists() and base.count("/") <= 1
    front_matter: dict[str, Any] = {
        "library_name": "peft" if kind == "peft" else "transformers",
        "pipeline_tag": task,
        **({"base_model": base} if is_hub_id else {}),
        "tags": list(dict.fromkeys([*records.tags, *(["lora"] if kind != "hf" else [])])),
    }
    # The path of a folder on one machine is nobody else's business: its name is enough.
    shown = (base if is_hub_id else Path(base).name) if base else "a decoder trained from scratch"
    origin = f", fine-tuned from {code(shown)}" if base else ", trained from scratch"
    evaluations = [evaluation for evaluation in history.evaluations if evaluation.step <= step]
    is_scored = step in [scores.step for scores in history.events(Scores)]
    load = _load_adapter(recipe, auto, quoted(shown)) if kind == "peft" else _load_model(auto)
    return {
        "front_matter": {key: quoted(value) for key, value in front_matter.items()},
        "title": prose(records.title or recipe.name),
        "what": _WHAT[kind].format(base=code(shown), origin=origin, model=model),
        "code": "\n".join(load),
        "training": table(("", ""), _training_rows(history, step)),
        "data": table(("", ""), _data_rows(history)) if history.data else None,
        "evaluation": _evaluation_table(evaluations, step),
        "scores": _scores_note(evaluations),
        "final": "\n\n".join(final_scores(history)) if is_scored else None,
        "settings": table(("key", "value"), _setting_rows(history)),
        "record": table(("", ""), _record_rows(history.run, checkpoint)),
    }


def _kind_of(recipe: Recipe) -> tuple[str, str, str]:
    """The class that loads the model, the hub's name of its task, and the noun for it."""
    kinds = {part.kind for part in recipe.by_task().values()}
    first, *others = kinds
    if not others and not (recipe.tasks and first.has_labels):
        return first.auto_class, first.pipeline_tag, first.title
    masked = next((kind for kind in kinds if kind.hides_tokens), None)
    auto, task = (masked.auto_class, masked.pipeline_tag) if masked else ("AutoModel", "feature-extraction")
    return auto, task, "encoder that learnt several tasks"


def _load_model(auto: str) -> list[str]:
    return [
        f"from transformers import {auto}, AutoTokenizer",
        "",
        f'model = {auto}.from_pretrained("this folder")',
        _LOAD_TOKENIZER,
    ]


def _load_adapter(recipe: Recipe, auto: str, base: str) -> list[str]:
    """Lines that load an adapter; a classifier needs its labels, and a writer to know what ends an answer."""
    names, labels, end = f"{auto}, AutoTokenizer", [], []
    if recipe.kind.has_labels:
        names = f"AutoConfig, {names}"
        labels = ['config = AutoConfig.from_pretrained("this folder/adapter_classifier.json")']
    elif recipe.kind.writes_text:
        names += ", GenerationConfig"
        end = [
            'model.generation_config = GenerationConfig.from_pretrained("this folder")  # what ends an answer'
        ]
    return [
        "from peft import PeftModel",
        f"from transformers import {names}",
        "",
        *labels,
        f"model = {auto}.from_pretrained({base}{', config=config' if labels else ''})",
        'model = PeftModel.from_pretrained(model, "this folder")',
        *end,
        _LOAD_TOKENIZER,
    ]


def _training_rows(history: History, step: int) -> Iterator[tuple[str, str]]:
    steps = [record for record in history.steps if record.step <= step]
    attempt = history.attempts[-1] if history.attempts else None
    if attempt:
        yield "Parameters", _parameters(attempt)
    known = (attempt.steps, step / attempt.steps_per_epoch) if attempt else (None, None)
    yield "Steps", steps_text(step, *known)
    if steps:
        recent = steps[-history.run.recipe.records.log_every_steps :]
        window = f"mean of {plural(len(recent), 'step')}"
        yield "Training loss", f"{number(mean_loss(recent))} nats a target, {window}"
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
                yield f"{prose(name)}, {prose(key.replace('_', ' '))}", number(value)
    yield "Fingerprint", code(history.data.fingerprint[:16])


def _evaluation_table(evaluations: list[Evaluation], step: int) -> str | None:
    """The first evaluation, and the one of the exported step."""
    if not evaluations:
        return None
    here = [evaluation for evaluation in evaluations if evaluation.step == step]
    shown = list({evaluation.step: evaluation for evaluation in [evaluations[0], *here]}.values())
    extra = list(dict.fromkeys(name for evaluation in shown for name in evaluation.metrics))
    rows = [
        [
            number(e.step) + (" (this model)" if e.step == step else ""), number(e.loss),
            number(e.perplexity, 2), number(e.targets), *(number(e.metrics.get(metric)) for metric in extra),
        ]
        for e in shown
    ]  # fmt: skip
    return table(("validation after step", "loss", "perplexity", "targets", *map(prose, extra)), rows)


def _scores_note(evaluations: list[Evaluation]) -> str:
    has_scores = any(evaluation.metrics for evaluation in evaluations)
    known = "Loss and scores are" if has_scores else "Of these only the loss is known. It is"
    return f"{known} of the validation samples of this run; no person is quoted."


def _setting_rows(history: History) -> Iterator[tuple[str, str]]:
    recipe = history.run.recipe
    hidden = (*_NOT_SETTINGS, *(["train.objective"] if recipe.tasks else []))  # each task has its own
    for key, value in flatten(recipe.to_dict()).items():
        if key.startswith(_SETTINGS) and not key.startswith(hidden) and value not in (None, []):
            yield code(key), code(Path(value).name if key == "model.from" and Path(value).exists() else value)


def _record_rows(run: Run, checkpoint: str) -> Iterator[tuple[str, str]]:
    yield "Run", code(run.name)
    yield "Checkpoint", code(checkpoint)
    if best := run.best:
        value = f"{prose(best.get('metric'))} {number(best['value'])}"
        yield "Best of the run", f"{code(best['checkpoint'])}, {value}"
    yield "Started", code(in_seconds(run.info["created"]))
    yield "Recipe, SHA-256", code(run.info["recipe_hash"])
    yield "Journal, SHA-256 at export", code(durable.sha256_file(run.path / "journal.jsonl"))
    yield "Written by", f"etude {metadata.version('etude-workbench')}"
