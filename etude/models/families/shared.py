"""Parts that families share: tensors of files checked and loaded, cost of a classifier, its config.json."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from etude.errors import InputError
from etude.models.cost import Cost, cost_of
from etude.models.families.family import Facts, Files, Into, Loaded, Pretrained
from etude.models.hf_config import label_values
from etude.models.parts import count_products, head_modules, keep_labels, label_tensors
from etude.models.weights import REMADE, is_same, lay_out, read_weight, read_weights

_EMBEDDINGS = ("model.embed_tokens.weight", "shared.weight")
_OTHER_HEADS = re.compile(r"^(lm_head|score|classification_head)\.")


def require_tensors(files: Files, names: Iterable[str]) -> None:
    """Raises: InputError if files lack one of these; before the blocks of a false config.json are made."""
    for name in names:
        if name not in files.shapes:
            raise InputError(f"{files.path} lacks {name}, unlike its config.json; copy the model again")


def check_shapes(files: Files, model: nn.Module, *, tied: bool) -> None:
    """Raises: InputError if files lack a tensor of a model, or have others, or other shapes."""
    path, shapes = files.path, files.shapes
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for name, shape in wanted.items():
        if name not in shapes:
            raise InputError(f"{path} lacks {name}, unlike its config.json; copy the model again")
        if shapes[name] != shape:
            raise other_shape(path, name, shapes[name], shape)
    for name in shapes:
        if name not in wanted and not REMADE.search(name) and not (tied and name == "lm_head.weight"):
            raise InputError(f"{path} has {name}, unlike its config.json; copy the model again")


def other_shape(path: Path, name: str, stored: Iterable[int], wanted: Iterable[int]) -> InputError:
    """The error for a tensor of files that has another shape than its configuration asks for."""
    return InputError(f"{path}: {name} is {list(stored)}, but config.json says {list(wanted)}")


def is_head_tied(path: Path) -> bool:
    """True if the head in files has the numbers of the embedding."""
    head, embedding = (read_weight(path, names) for names in (("lm_head.weight",), _EMBEDDINGS))
    return is_same(head, embedding)


def other_head(path: Path) -> InputError:
    """The error for a head that is not the embedding: transformers 4 takes the embedding, 5 the head."""
    return InputError(
        f"{path}: config.json says that lm_head.weight is the embedding (tie_word_embeddings), but it is "
        "another matrix; mend the file, or copy the model again"
    )


def load(pretrained: Pretrained, model: nn.Module, dtype: torch.dtype, seed: int, into: Into) -> Loaded:
    """A model from the meta device with weights in `dtype`, norms in fp32; and the names of weights drawn.

    into: is given the model, and then one weight after another.
    The head of a classifier is drawn by the seed where files have none, or one of other labels.
    Raises: InputError if a file is damaged, or has another body than its config.json says.
    """
    lay_out(model, dtype)
    if pretrained.labels:
        return _load_classifier(pretrained, model, seed, into)
    wanted = {name for name, _ in model.named_parameters()}
    put = into(model)
    for name, tensor in read_weights(pretrained.path):
        if name in wanted:  # else a tied head, or a buffer; the check has refused anything else
            put(name, tensor)
    return model, []


def kept_outputs(pretrained: Pretrained, name: str, given: Tensor, drawn: Tensor) -> Tensor:
    """A parameter with a row for each label: those kept of a file, the others drawn. Raises: InputError."""
    theirs, kept = len(pretrained.label_names), pretrained.kept_labels
    return keep_labels(f"{pretrained.path}: {name}", given, drawn, theirs=theirs, kept=kept)


def classifier_cost(model: nn.Module, parameters: Mapping[str, int], adapter: int, attended: float) -> Cost:
    """Cost of a body of which each token is read, with a head that is trained; attended: as `cost_of`."""
    body = cost_of(count_products(model), 0.0, attended=attended, adapter=adapter)
    return replace(body, per_target=6.0 * parameters["head"])


def describe_pretrained(pretrained: Pretrained, facts: Facts) -> dict[str, Any]:
    """config.json as the model came, with the number format and labels of this training."""
    values = {**pretrained.hf_config, "dtype": "float32"}
    values.pop("torch_dtype", None)  # the older name of the same
    if names := facts.label_names:
        values |= label_values(names, multi=facts.multi)
    return values


def _load_classifier(pretrained: Pretrained, model: nn.Module, seed: int, into: Into) -> Loaded:
    wanted = {name: parameter.shape for name, parameter in model.named_parameters()}
    heads = tuple(f"{name}." for name in head_modules(model))
    body = next(name for name, _ in model.named_children())
    missing, of_labels = set(wanted), dict.fromkeys(label_tensors(model), torch.empty(0))
    put = into(model)
    for given, tensor in read_weights(pretrained.path):
        # Files of the bare body, and of T5, leave out its name.
        name = given if given in wanted else f"{body}.{given}"
        if name in of_labels:
            of_labels[name] = tensor
        elif name in wanted and wanted[name] == tensor.shape:
            put(name, tensor)
            missing.discard(name)
        elif name in wanted and not name.startswith(heads):
            raise other_shape(pretrained.path, given, tensor.shape, wanted[name])
        elif name not in wanted and not (
            _OTHER_HEADS.match(given) or REMADE.search(given.removeprefix(f"{body}."))
        ):
            raise InputError(f"{pretrained.path} has {given}, unlike its config.json; copy the model again")
    if lost := sorted(name for name in missing if not name.startswith(heads)):
        raise InputError(f"{pretrained.path} lacks {lost[0]}, unlike its config.json; copy the model again")
    generator = torch.Generator().manual_seed(seed)
    for name in sorted(missing):
        drawn = torch.zeros(wanted[name])
        if not name.endswith("bias"):
            drawn.normal_(std=0.02, generator=generator)
        if len(tensor := of_labels.get(name, drawn[:0])):
            drawn = kept_outputs(pretrained, name, tensor, drawn)
        put(name, drawn)
    if pretrained.kept_labels == pretrained.labels:
        missing -= {name for name, tensor in of_labels.items() if len(tensor)}
    return model, sorted(missing)
