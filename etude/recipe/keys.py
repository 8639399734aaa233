"""Keys of a recipe by their dotted names, and the ones meant by names that other tools use."""

import difflib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from etude.recipe.schema import Recipe

_MOST_NEAR = 3
_OTHER_LIST = re.compile(r"data\.(validation|test)\.")  # whose keys are those of data.train
# Names of other tools (transformers, PEFT, TRL, nanoGPT, LLaMA-Factory) for keys and sections of a recipe.
_MEANT = {
    "adam_beta1": "optim.beta1",
    "adam_beta2": "optim.beta2",
    "base_model": "model.from",
    "batch_size": "train.global_batch_size",
    "bf16": "train.precision",
    "block_size": "train.seq_len",
    "context_length": "train.seq_len",
    "cutoff_len": "train.seq_len",
    "dataset": "data.train.0.path",
    "dtype": "train.precision",
    "early_stopping_patience": "evaluate.patience",
    "eval_interval": "evaluate.every_steps",
    "eval_steps": "evaluate.every_steps",
    "fp16": "train.precision",
    "grad_clip": "train.max_grad_norm",
    "gradient_accumulation_steps": "train.accumulation",
    "gradient_checkpointing": "train.activation_checkpointing",
    "hidden_size": "model.n_embd",
    "load_in_4bit": "model.quantize",
    "logging_steps": "records.log_every_steps",
    "lora": "adapter",
    "lora_alpha": "adapter.alpha",
    "lora_dropout": "adapter.dropout",
    "lora_r": "adapter.rank",
    "lora_rank": "adapter.rank",
    "lora_target": "adapter.targets",
    "lr": "optim.learning_rate",
    "lr_scheduler": "schedule.kind",
    "lr_scheduler_type": "schedule.kind",
    "max_iters": "train.steps",
    "max_length": "train.seq_len",
    "max_seq_length": "train.seq_len",
    "max_steps": "train.steps",
    "metric_for_best_model": "evaluate.metric",
    "min_lr": "schedule.min_lr_ratio",
    "model.id": "model.from",
    "model.name": "model.from",
    "model.path": "model.from",
    "model_name_or_path": "model.from",
    "num_attention_heads": "model.n_head",
    "num_epochs": "train.epochs",
    "num_hidden_layers": "model.n_layer",
    "num_layers": "model.n_layer",
    "num_train_epochs": "train.epochs",
    "optimizer": "optim.kind",
    "peft": "adapter",
    "per_device_train_batch_size": "train.micro_batch_size",
    "r": "adapter.rank",
    "random_seed": "seed",
    "report_to": "records.trackers",
    "rope_base": "model.rope_theta",
    "save_steps": "checkpoint.every_steps",
    "save_total_limit": "checkpoint.keep",
    "scheduler": "schedule.kind",
    "target_modules": "adapter.targets",
    "torch_compile": "train.compile",
    "use_dora": "adapter.dora",
    "use_rslora": "adapter.rank_stabilized",
    "val_size": "data.validation_ratio",
    "vocab": "model.vocab_size",
    "warmup": "schedule.warmup_steps",
    "warmup_iters": "schedule.warmup_steps",
    "wd": "optim.weight_decay",
}


@cache
def recipe_keys() -> dict[str, FieldInfo]:
    """Every key that holds a value, by its dotted name: the first of a list as `data.train.0.path`.

    Sections with names of their own, as `tasks.NAME`, are left out.
    """
    return dict(_keys(Recipe, ""))


def near_keys(section: str, name: str, known: Sequence[str], *, is_section: bool = False) -> list[str]:
    """Dotted keys that an unknown key was meant to be: by meaning, but for a slip, or in another section.

    known       keys and sections of the section that it stands in
    is_section  the unknown key is a section itself
    """
    name = name[:100]
    plain = name.lower().replace("-", "_")
    meant = _MEANT.get(f"{section}.{plain}") or _MEANT.get(plain)
    if meant and is_section != (meant in recipe_keys()):
        return [meant]
    prefix = f"{section}." if section else ""
    if near := difflib.get_close_matches(name, known, n=1, cutoff=0.75):
        return [prefix + near[0]]
    if same := [
        key for key in recipe_keys() if key.rpartition(".")[2] == name and not _OTHER_LIST.match(key)
    ]:
        return same[:_MOST_NEAR]
    return [prefix + near for near in difflib.get_close_matches(name, known, n=1, cutoff=0.5)]


def value_choices(field: FieldInfo) -> list[str]:
    """Words that a key may hold, as true and false, in the order of the schema; none where it is free."""
    return list(dict.fromkeys(_choices(field.annotation)))


def model_within(annotation: Any) -> type[BaseModel] | None:
    """The section that a key of this type holds, alone, in a list or by name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := model_within(part))), None)


def _keys(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        dotted = prefix + (field.alias or name)
        section = model_within(field.annotation)
        if section is None:
            yield dotted, field
        elif not _holds(field.annotation, dict):
            yield from _keys(section, f"{dotted}.0." if _holds(field.annotation, list) else f"{dotted}.")


def _holds(annotation: Any, kind: type) -> bool:
    """True if a type is a list or dictionary, or a union with one."""
    return get_origin(annotation) is kind or any(_holds(part, kind) for part in get_args(annotation))


def _choices(annotation: Any) -> Iterator[str]:
    if annotation is bool:
        yield from ("true", "false")
    elif get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
    elif get_origin(annotation) is not dict:
        for part in get_args(annotation):
            yield from _choices(part)
