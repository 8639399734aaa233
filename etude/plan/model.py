"""The model of a plan: its base, configuration, adapter and size. No data are read for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from etude.errors import InputError
from etude.models.build import Size, choose_config, measure
from etude.models.cost import Cost
from etude.models.families.family import Config, NewModel, Pretrained
from etude.models.hub import find_config, find_model
from etude.models.pretrained import count_lora, extend_context, inspect_model
from etude.own import Own
from etude.recipe.schema import Recipe


@dataclass(frozen=True, kw_only=True)
class DataSizes:
    """The sizes that a model takes from its data, counted or assumed.

    vocab_size         ids of the tokenizer
    pad_id             the tokenizer's id for padding; not asked for where the base has its own
    classes            classes of each task by its name, "" for the only task; 0 or left out: no classes
    multi              whether a text may have several of the classes
    tokens_per_sample  mean tokens of a training sample
    """

    vocab_size: int
    pad_id: int | None = None
    classes: Mapping[str, int] = field(default_factory=dict)
    multi: bool = False
    tokens_per_sample: float


def find_base(recipe: Recipe, own: Own, *, needs_weights: bool = True) -> Pretrained | None:
    """The model that model.from names, inspected; None if the recipe names none, or the user brings a module.

    needs_weights: false takes its config.json alone, and that of the catalogue for a model that is not here.

    Raises: InputError if it is not there or cannot be used.
    """
    if recipe.model.from_ is None or own.model is not None:
        return None
    find = find_model if needs_weights else find_config
    path = find(recipe.model.from_, recipe.model.revision)
    objective = next(iter(recipe.by_task().values())).train.objective
    base = inspect_model(path, objective, needs_weights=needs_weights)
    return extend_context(base, recipe.model.rope_scaling) if recipe.model.rope_scaling else base


def count_adapter(recipe: Recipe, base: Pretrained | None) -> int:
    """The parameters of the adapter, 0 without one. Raises: InputError if it fits no layer of the base."""
    if recipe.adapter is None or base is None:
        return 0
    section = recipe.adapter
    return count_lora(base, section.rank, section.targets, dora=section.dora)


def choose_model(recipe: Recipe, base: Pretrained | None, sizes: DataSizes, own: Own) -> Config | None:
    """The configuration of the model; None for a module of the user's.

    Raises: InputError if the sizes do not fit each other, or this machine.
    """
    if own.model is not None:
        return None
    only = sizes.classes.get("", 0)
    has_heads = any(part.kind.model == "encoder" for part in recipe.by_task().values())
    new = NewModel(
        vocab_size=sizes.vocab_size,
        seq_len=recipe.train.seq_len,
        pad_id=sizes.pad_id,
        labels=only,
        multi=sizes.multi and bool(only),
        tasks=tuple(sizes.classes.items()) if recipe.tasks and has_heads else (),
    )
    return choose_config(recipe, base, new)


def measure_model(
    recipe: Recipe, model: Config | None, base: Pretrained | None, sizes: DataSizes, own: Own, adapter: int
) -> Size:
    """Exact parameters of the model by part, and the cost of training it."""
    if own.model is not None or model is None:
        assert own.model is not None
        total = sum(parameter.numel() for parameter in own.model.parameters())
        return Size({"own": total, "total": total}, total, Cost(6.0 * total, 0.0))
    length = min(recipe.train.seq_len, round(sizes.tokens_per_sample) or 1)
    return measure(model, base, seq_len=length, adapter=adapter)


def context_of(model: Config | None, base: Pretrained | None) -> int | None:
    """Tokens that a model of text holds at most; None if it has no such limit."""
    config = model if base is None else base.config
    return None if config is None or config.longest == 2**30 else config.longest


def require_vocabulary(recipe: Recipe, base: Pretrained | None, sizes: DataSizes) -> None:
    """Check that the base embeds every id of the tokenizer. Raises: InputError."""
    rows = sizes.vocab_size if base is None else int(base.hf_config.get("vocab_size", 2**40))
    if sizes.vocab_size > rows:
        raise InputError(
            f"the tokenizer has {sizes.vocab_size:,} ids but {recipe.model.from_} embeds {rows:,}; "
            "use the tokenizer of the model: leave out tokenizer.from"
        )
