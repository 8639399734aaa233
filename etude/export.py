"""Write a run as a folder that other tools load: an adapter, an adapter merged into its base, or a model."""

import functools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from etude import durable
from etude.data.render import ChatTemplate, find_template
from etude.data.tokenize import Tokenizer
from etude.data.tokenizer_files import FILES, load_tokenizer
from etude.engine import checkpoint as checkpoints
from etude.engine.tensor_files import read_tensors, safetensors
from etude.errors import InputError
from etude.models import weights
from etude.models.adapter_files import SavedAdapter, adapted_modules, read_adapter_config, whole_names
from etude.models.families.family import Pretrained
from etude.models.families.table import family_named
from etude.models.generation_config import GENERATION_FILE, generation_config, read_stop_ids
from etude.models.hf_config import is_classifier, label_names, size
from etude.models.hub import find_model
from etude.models.lora import ADAPTER_FILE, CLASSIFIER, CLASSIFIER_FILE, CONFIG_FILE, add_adapter, merge
from etude.models.parts import find_non_finite, require_finite
from etude.models.pretrained import inspect_model, load_pretrained
from etude.recipe import model as recipe_model
from etude.records.folder import require_outside_runs
from etude.records.store import Run, open_run
from etude.report.card import hub_id_of, model_card
from etude.start import find_weights, split_choice

# Files of a checkpoint that only its run needs.
_OF_THE_RUN = ("manifest.json", "state.json", "optimizer")
_PIECE_BYTES = 8 << 20


def export(given: str, kind: str, out: Path, *, runs: Path = Path("runs")) -> Path:
    """Write a checkpoint (RUN, RUN@best, RUN@last, RUN@step-200) as a folder of its own, whole or not at all.

    kind: `peft`, the adapter as it was saved; `merged`, base weights with the adapter in them, each in its
    dtype there; `hf`, the model of a run that trained all weights. A model card with the figures of the
    journal comes along.

    Raises: InputError if there is no such checkpoint, it is of another kind, or `out` has files.
    """
    run = open_run(split_choice(given)[0], runs)
    run.require_own_recipe()
    checkpoint = find_weights(given, runs).parent
    checkpoints.verify_checkpoint(checkpoint, run.info["id"])
    own_file = checkpoints.weights_file(checkpoint)
    checkpoints.require_finite(own_file, read_tensors(own_file))
    _check_kind(kind, run, is_adapter=(checkpoint / ADAPTER_FILE).is_file())
    out = out.absolute()
    require_new(out)
    carried = {path.name: path for path in checkpoint.iterdir() if not path.name.startswith(_OF_THE_RUN)}
    made: dict[str, bytes] = {"README.md": model_card(run, checkpoint.name, kind).encode()}
    tensors: dict[str, torch.Tensor] = {}
    if kind == "peft":
        made[CONFIG_FILE] = _named_by_the_hub(durable.read_json_object(checkpoint / CONFIG_FILE))
    if kind == "merged":
        carried = {name: path for name, path in carried.items() if not name.startswith("adapter_")}
        base = _base_of(checkpoint, read_adapter_config(checkpoint))
        tensors, dtype = _merged_weights(checkpoint, base)
        if (broken := find_non_finite(tensors.items())) is not None:
            wrong = f"is too large for {tensors[broken].dtype}, the base's dtype"
            raise InputError(f"{given}: merged, {broken} {wrong}; use --to peft")
        config = weights.read_config(base.path)
        if base.labels:
            config = durable.read_json_object(checkpoint / CLASSIFIER_FILE)
        config.pop("torch_dtype", None)  # the older name of the same
        config["dtype"] = str(dtype).removeprefix("torch.")
        made["config.json"] = json.dumps(config, indent=2).encode()
    if kind == "hf":
        made["config.json"] = (checkpoint / "config.json").read_bytes()
    is_old = GENERATION_FILE not in carried  # a checkpoint without the file was written by an older etude
    if is_old and kind != "peft" and run.recipe.kind.writes_text:
        ends = find_end_ids(checkpoint, open_chat(checkpoint), is_chat=True)
        made[GENERATION_FILE] = generation_config({}, json.loads(made["config.json"]), ends)
    with durable.new_folder(out) as hidden:
        for name, path in carried.items():
            durable.write_file(durable.inside(hidden, name), _pieces(path))
        for name, content in made.items():
            durable.write_file(durable.inside(hidden, name), content)
        if tensors:
            durable.write_file(hidden / checkpoints.MODEL_FILE, safetensors(tensors))
    return out


def require_new(out: Path) -> None:
    """Raises: InputError if a folder to be written has files, or lies within a run."""
    require_outside_runs(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already; give a new folder, or an empty one")


def find_folder(given: str, runs: Path) -> Path:
    """The folder with the model that RUN, RUN@best, RUN@last, RUN@step-200 or a path names.

    Raises: InputError.
    """
    return Path(given) if durable.is_plain(Path(given) / "config.json") else find_weights(given, runs).parent


def load_model(
    folder: Path, *, dtype: torch.dtype, objective: str | None = None, needs_head: bool = True
) -> nn.Module:
    """The model in a folder, ready to be used: a whole one, or an adapter merged into its base.

    objective: what a whole model was trained for, where its config.json does not tell, as for masked.
    needs_head: false where only hidden states are wanted, so that the bare body of a masked model will do.

    Raises: InputError if the base is not on this machine, or is not the one the adapter was trained on.
    """
    if not (folder / ADAPTER_FILE).is_file():
        model, new = _load(inspect_model(folder, objective, for_use=True), dtype, needs_head)
        if new and needs_head:
            wrong = f"{folder} lacks {new[0]}, a weight of the head"
            raise InputError(f"{wrong}; give a model that has been trained")
        return model
    saved = read_adapter_config(folder)
    base = _base_of(folder, saved)
    _check_base(folder, base)
    model, new = _load(base, dtype)
    tensors = read_tensors(folder / ADAPTER_FILE)
    recipes = adapted_modules(folder, saved, tensors, model)
    whole = whole_names(folder, saved, tensors, model)
    if lost := [name for name in new if not name.startswith(tuple(f"{part}." for part in whole))]:
        raise InputError(
            f"{folder} has no {lost[0]}, and {base.path} has none for its {base.labels:,} labels; the head "
            "of a classifier belongs to its adapter: save it again with modules_to_save"
        )
    add_adapter(model, recipes, seed=0, whole=whole)
    checkpoints.load_weights(folder / ADAPTER_FILE, model)
    merge(model)
    return model.eval()


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that lies in the folder of a model, or that of the base of an adapter which brings none.

    Raises: InputError if there is none.
    """
    if durable.is_plain(folder / ADAPTER_FILE) and not any(os.path.lexists(folder / name) for name in FILES):
        saved = read_adapter_config(folder)
        folder = find_model(_named_base(folder, saved), saved.revision)
    return load_tokenizer(recipe_model.Tokenizer.model_validate({"from": str(folder)}))


def open_chat(folder: Path, *, system: str | None = None) -> ChatTemplate:
    """The chat template of the model in a folder, or a plain one. Raises: as `open_tokenizer`."""
    return find_template(folder, open_tokenizer(folder), system=system)


def find_end_ids(folder: Path, chat: ChatTemplate, *, is_chat: bool) -> tuple[int, ...]:
    """The ids that end a text of the model in a folder: the end of its tokenizer, and where the model stops.

    The latter are in the generation_config.json of the checkpoint, or of the base of an adapter from another
    tool. With `is_chat`, the end that the chat template writes behind an answer counts as well.

    Raises: InputError if a file cannot be read.
    """
    source = folder
    if (folder / ADAPTER_FILE).is_file() and not (folder / GENERATION_FILE).is_file():
        source = _base_of(folder, read_adapter_config(folder)).path
    template = chat.find_end() if is_chat else None
    ids = [chat.tokenizer.eos_id, *read_stop_ids(source), *([] if template is None else [template])]
    return tuple(dict.fromkeys(ids))


def classifier_config(folder: Path) -> dict[str, Any]:
    """Values that name the labels of the model in a folder: of an adapter's own file, or of config.json."""
    names = [name for name in (CLASSIFIER_FILE, "config.json") if (folder / name).is_file()]
    return durable.read_json_object(folder / names[0]) if names else {}


def is_bare_encoder(folder: Path) -> bool:
    """True if a folder holds an encoder of etude's families that scores no labels. Raises: InputError."""
    if (folder / ADAPTER_FILE).is_file():
        return False
    values = weights.read_config(folder)
    return values.get("model_type") in family_named("encoder").model_types and not is_classifier(values)


def stored_dtype(folder: Path) -> torch.dtype:
    """The dtype of most numbers in a model's safetensors; fp32 of an adapter. Raises: InputError."""
    return torch.float32 if (folder / ADAPTER_FILE).is_file() else weights.stored_dtypes(folder)[1]


def _merged_weights(checkpoint: Path, base: Pretrained) -> tuple[dict[str, torch.Tensor], torch.dtype]:
    """The weights of a base with an adapter in them, each in its dtype there, and the main dtype.

    The head of a classifier, which the base lacks, gets the main one.
    """
    stored, main = weights.stored_dtypes(base.path)
    wide = functools.reduce(torch.promote_types, stored.values(), main)  # holds the digits of each of them
    # Files of a bare body leave out its name, and old ones call the parts of a norm gamma and beta.
    old = {"gamma": "weight", "beta": "bias"}
    dtypes = {
        re.sub(r"(?<=\.)(gamma|beta)$", lambda part: old[part[0]], name): dtype
        for name, dtype in stored.items()
    }

    def dtype_of(name: str) -> torch.dtype:
        parts = name.split(".")
        endings = (".".join(parts[at:]) for at in range(len(parts) - 1))
        return next((dtypes[ending] for ending in endings if ending in dtypes), main)

    merged = checkpoints.trained_tensors(load_model(checkpoint, dtype=wide))[1]
    return {name: tensor.to(dtype_of(name)) for name, tensor in merged.items()}, main


def _named_by_the_hub(config: dict[str, Any]) -> bytes:
    """The file of an adapter; a base in the hub's cache of this machine is named as the hub has it."""
    base = str(config.get("base_model_name_or_path"))
    if (hub_id := hub_id_of(base)) and hub_id != base:
        config |= {"base_model_name_or_path": hub_id, "revision": Path(base).name}
    return json.dumps(config, indent=2).encode()


def _check_kind(kind: str, run: Run, *, is_adapter: bool) -> None:
    if kind not in ("peft", "merged", "hf"):
        raise InputError(f"--to {kind} is not known; use peft, merged or hf")
    if is_adapter and kind == "hf":
        advice = "use --to merged for a whole model, or --to peft"
        raise InputError(f"run {run.name} trained an adapter; {advice}")
    if not is_adapter and kind != "hf":
        raise InputError(f"run {run.name} trained all weights, so there is no adapter; use --to hf")


def _load(pretrained: Pretrained, dtype: torch.dtype, needs_head: bool = True) -> tuple[nn.Module, list[str]]:
    """The model, and the weights of a classifier's head that no file had.

    Raises: InputError if a file is damaged, or a weight is not finite.
    """
    model, new = load_pretrained(pretrained, dtype=dtype, dropout=0.0)
    if new and not pretrained.labels and needs_head:
        wrong = "the head of a masked model, which is not in an adapter"
        raise InputError(f"{pretrained.path} lacks {new[0]}, {wrong}")
    require_finite(model, str(pretrained.path))
    return model.eval(), new


def _base_of(folder: Path, saved: SavedAdapter) -> Pretrained:
    """The model that an adapter belongs to, found on this machine; of a classifier with as many labels."""
    path = find_model(_named_base(folder, saved), saved.revision)
    if saved.task != CLASSIFIER:
        is_encoder = weights.read_config(path).get("model_type") in family_named("encoder").model_types
        return inspect_model(path, "masked" if is_encoder and saved.task is None else None)
    base = inspect_model(path, "classification")
    if (folder / CLASSIFIER_FILE).is_file():
        values = durable.read_json_object(folder / CLASSIFIER_FILE)
        try:
            names = label_names(values)
            given = values.get("pad_token_id")
            padding = {} if given is None else {"pad_token_id": size(values, "pad_token_id", least=0)}
        except InputError as error:
            wrong = str(error).removeprefix("config.json: ")
            raise InputError(f"{folder / CLASSIFIER_FILE}: {wrong}") from None
        kept = len(names) if names == base.label_names else 0
        hf_config = {**base.hf_config, **padding}
        return replace(base, labels=len(names), label_names=names, kept_labels=kept, hf_config=hf_config)
    return base if base.labels else replace(base, labels=2)  # as transformers would have it


def _named_base(folder: Path, saved: SavedAdapter) -> str:
    if not saved.base:
        raise InputError(f"{folder / CONFIG_FILE} names no base model; add base_model_name_or_path")
    return saved.base


def _check_base(folder: Path, base: Pretrained) -> None:
    if not (folder / "state.json").is_file():
        return  # an adapter of another tool does not say which weights it was trained beside
    expected = checkpoints.read_progress(folder).base
    if expected is not None and expected != base.digest:
        raise InputError(
            f"the adapter in {folder} was trained on other weights than those in {base.path} "
            f"(SHA-256 {base.digest[:12]}, expected {expected[:12]}); bring back the base it was trained on"
        )


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from iter(lambda: file.read(_PIECE_BYTES), b"")
