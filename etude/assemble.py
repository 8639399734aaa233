"""The model of a plan: put together at the start, and described at every save so that other tools load it."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from etude import durable
from etude.data.labels import listed
from etude.data.loader import load_samples
from etude.engine.checkpoint import load_weights, read_progress
from etude.engine.loop import TrainState
from etude.engine.optim import Optimizer
from etude.engine.precision import choose_precision
from etude.engine.shards import Shards
from etude.engine.world import World
from etude.errors import InputError
from etude.models.adapter_files import check_same, read_adapter_config
from etude.models.build import adapt, build, draw_weights
from etude.models.encoder_config import CODE_ENCODER
from etude.models.families.family import Facts
from etude.models.families.table import family_of
from etude.models.generation_config import GENERATION_FILE, generation_config
from etude.models.hf_config import default_names, label_names
from etude.models.hub import find_model
from etude.models.lora import (
    ADAPTER_FILE,
    CLASSIFIER_FILE,
    adapter_config,
    draw_adapter,
    find_layers,
    magnitude_of,
)
from etude.models.parts import find_non_finite, head_modules, not_finite, quantize, require_finite
from etude.models.weights import Put, digest, in_place
from etude.own import Own
from etude.plan import Plan
from etude.prefixes import Sharing
from etude.recipe.course import Course
from etude.recipe.schema import Recipe
from etude.start import Options


def assemble(plan: Plan, options: Options, world: World) -> tuple[TrainState, list[str]]:
    """The model and its optimizer before the first step, and the names of weights that no file had.

    Raises: InputError if a file of the model is damaged, a weight is not finite, `options.weights` does not
    fit it, or one of `options.changes` cannot be made.
    """
    recipe, device = plan.recipe, world.device
    precision = choose_precision(
        recipe.train.precision, device, targets_per_step=plan.global_batch_size * recipe.train.seq_len
    )
    model, new_weights, shards = _build(plan, options, world, precision.dtype)
    if recipe.model.quantize is not None and options.model is None:
        quantize(model, precision.dtype, device)
    if shards is None:
        adapt(recipe, model)
    if file := options.first_weights:
        _check_adapter(plan, file)
        _check_labels(plan, file.parent)
        load_weights(file, model, shards)
    if shards is None:
        shards = _place(plan, model, world, precision.dtype)
    if recipe.train.compile:
        model.compile()
    course = Course(recipe, plan.steps, options.changes)
    optimizer = Optimizer(model, recipe.optim, shards)
    return TrainState(model, optimizer, precision, course, shards=shards), new_weights


def _build(
    plan: Plan, options: Options, world: World, dtype: torch.dtype
) -> tuple[nn.Module, list[str], Shards | None]:
    """The model, the names of weights that no file had, and the rows of this rank of an own one in pieces.

    Of such a model no rank holds more than its rows and one whole tensor, and it has its adapter already.
    Raises: InputError if it cannot be sharded, a file is damaged, or a weight is not finite.
    """
    recipe = plan.recipe
    named = "the model" if recipe.model.from_ is None else f"model.from: {recipe.model.from_}"
    is_dealt_out = world.agree(plan.parallel.kind) == "shard"
    if is_dealt_out and (options.model is not None or options.loss is not None):
        raise InputError(
            'train.parallel = "shard" takes models and losses of etude; with your own use "replicate"'
        )
    if options.model is not None:
        require_finite(options.model, named)
        return options.model, [], None
    assert plan.model is not None
    if is_dealt_out and plan.pretrained is None:
        model = family_of(plan.model).empty(plan.model, plan.labels)
        shards = _deal_out(plan, model, world, dtype)
        shards.fill(draw_weights(model, recipe.seed))
        adapt(recipe, model)
        return model, [], shards
    dealt: list[Shards] = []

    def deal_out(empty: nn.Module) -> Put:
        adapt(recipe, empty)
        dealt.append(_deal_out(plan, empty, world, dtype))
        dealt[0].fill(draw_adapter(find_layers(empty), recipe.seed))
        return partial(_put, dealt[0])

    into = deal_out if is_dealt_out else in_place
    model, new_weights = build(recipe, plan.model, plan.pretrained, dtype, into)
    if not dealt:
        require_finite(model, named)
        return model, new_weights, None
    pieces = dealt[0].pieces
    for broken in filter(None, world.gather(find_non_finite(pieces.items()))):
        raise not_finite(named, broken, pieces[broken].dtype)
    return model, new_weights, dealt[0]


def _put(shards: Shards, name: str, whole: Tensor) -> None:
    """Put a weight of a file into pieces, and the magnitudes of its rows, where they are trained by DoRA."""
    shards.put(name, whole)
    magnitude = f"{name.rpartition('.')[0]}.lora_magnitude_vector"
    if name.endswith(".weight") and magnitude in shards.places:
        shards.put(magnitude, magnitude_of(whole.to(shards.pieces[name].dtype)))


def _place(plan: Plan, model: nn.Module, world: World, dtype: torch.dtype) -> Shards | None:
    """Bring a whole model to the device, or its rows of this rank. Raises: InputError if it cannot be."""
    if world.agree(plan.parallel.kind) == "shard":
        return _deal_out(plan, model, world, dtype)
    model.to(world.device)
    return None


def _deal_out(plan: Plan, model: nn.Module, world: World, dtype: torch.dtype) -> Shards:
    spare = load_samples(plan.train, np.zeros(1, np.int64), plan.recipe.data.attend_across_documents)
    return Shards(model, world, spare, dtype)


def sharing_of(model: nn.Module, recipe: Recipe, own: Own) -> Sharing:
    """The prefixes that training computes once."""
    if own.loss is not None:
        return Sharing(None, "a loss of your own calls the model itself")
    found = family_of(model).sharing(model, True, recipe.train.share_prefixes == "on")
    is_off = recipe.train.share_prefixes == "off"
    return Sharing(found.up_to and 0, "train.share_prefixes is off") if is_off else found


def _check_labels(plan: Plan, folder: Path) -> None:
    """Raises: InputError if the weights in a folder are of a classifier with other labels or order."""
    names = [name for name in ("config.json", CLASSIFIER_FILE) if (folder / name).is_file()]
    config = durable.read_json_object(folder / names[0]) if names else {}
    is_classifier = "ForSequenceClassification" in str(config.get("architectures")) or (
        config.get("model_type") == CODE_ENCODER and "id2label" in config
    )
    for task in plan.tasks:
        ours = task.corpus.labels.names if task.corpus.labels else ()
        by_task = config.get("etude_tasks")
        theirs: tuple[str, ...] = ()
        if task.name and isinstance(by_task, dict):
            theirs = tuple(map(str, by_task.get(task.name) or ()))
        elif ours and is_classifier:
            theirs = label_names(config)
        if ours and theirs not in ((), ours, default_names(len(ours))):
            raise InputError(
                f"{folder.name} scores the labels {listed(theirs)}, and this run {listed(ours)}; name that "
                "folder as model.from, and its labels keep their outputs"
            )


def _check_adapter(plan: Plan, file: Path) -> None:
    """Raises: InputError if weights are of an adapter and the recipe has none or another, or the reverse."""
    is_adapter, folder = file.name == ADAPTER_FILE, file.parent
    if is_adapter != (plan.recipe.adapter is not None):
        whole = "a whole model, but it trains [adapter]"
        what = "an adapter, but the recipe has no [adapter]" if is_adapter else whole
        raise InputError(
            f"--from: {folder} holds {what}; give weights of the same kind, or change the recipe"
        )
    if plan.recipe.adapter is None:
        return
    saved = read_adapter_config(folder)
    check_same(folder, saved, plan.recipe.adapter)
    assert plan.pretrained is not None
    base = read_progress(folder).base if (folder / "state.json").is_file() else None
    if base is None and saved.base is not None and saved.base != plan.recipe.model.from_:
        try:
            base = digest(find_model(saved.base, saved.revision))
        except InputError:
            raise InputError(
                f"--from: the adapter in {folder} names the base {saved.base[:80]!r}, which is not on this "
                f"machine, and model.from is {plan.recipe.model.from_}; if they are the same, mend "
                "base_model_name_or_path"
            ) from None
    if base not in (None, plan.pretrained.digest):
        raise InputError(
            f"--from: the adapter in {folder} was trained on other weights than those in "
            f"{plan.pretrained.path}; set model.from to the base that it was trained on"
        )


def model_files(plan: Plan, model: nn.Module) -> dict[str, bytes]:
    """The files beside the weights by which transformers or PEFT load a checkpoint folder as a model."""
    recipe, tokenizer, labels = plan.recipe, plan.corpus.tokenizer, plan.corpus.labels
    kinds = [part.kind for part in recipe.by_task().values()]
    is_joined = any(kind.joins_texts for kind in kinds)
    files: dict[str, bytes] = tokenizer.files(joined=is_joined)
    base, writes_text = plan.pretrained, any(kind.writes_text for kind in kinds)
    if recipe.adapter is not None:
        if base is not None and writes_text:
            files[GENERATION_FILE] = generation_config(base.generation, base.hf_config, plan.corpus.end_ids)
        values = adapter_config(
            model, recipe.adapter, base=str(recipe.model.from_), revision=recipe.model.revision,
            task=recipe.kind.peft_task, whole=head_modules(model),
        )  # fmt: skip
        files["adapter_config.json"] = json.dumps(values, indent=2).encode()
        if not labels:
            return files
    if plan.model is None:  # a module of the user's own
        return files
    facts = Facts(
        label_names=labels.names if labels else (),
        multi=labels is not None and labels.multi,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
    )
    config = family_of(plan.model).describe(plan.model, base, facts)
    if recipe.tasks:
        names = {task.name: task.corpus.labels.names if task.corpus.labels else () for task in plan.tasks}
        config |= {"etude_tasks": names}
    if is_joined:
        files |= tokenizer.files(joined=True, pad_id=config.get("pad_token_id"))
    name = "config.json" if recipe.adapter is None else CLASSIFIER_FILE
    files[name] = json.dumps(config, indent=2).encode()
    if writes_text:
        defaults = base.generation if base else {}
        files[GENERATION_FILE] = generation_config(defaults, config, plan.corpus.end_ids)
    return files
