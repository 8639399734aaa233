"""The table of families, and the one look-up of a model's, a configuration's or a file's family.

A new family is a module like `decoder.py` and a row here.
"""

from typing import Any

from torch import nn

from etude.models.families.decoder import DECODER
from etude.models.families.encoder import ENCODER
from etude.models.families.family import Config, Family, Files
from etude.models.families.foreign import FOREIGN
from etude.models.families.t5 import ENCODER_DECODER
from etude.recipe.kinds import TRAINING_KINDS

FAMILIES: tuple[Family[Any], ...] = (DECODER, ENCODER, ENCODER_DECODER)


def family_of(thing: nn.Module | Config) -> Family[Any]:
    """The family of a model, or of a configuration; a model of no own family is one of transformers."""
    for family in FAMILIES:
        if isinstance(thing, (family.config, *family.modules)):
            return family
    return FOREIGN


def family_named(name: str) -> Family[Any]:
    """The family that model.kind of a recipe names."""
    return next(family for family in FAMILIES if family.name == name)


def claim(files: Files) -> Family[Any]:
    """The own family that takes files of this model_type for their objective.

    Where none does, it is the first one of the objective, which then says what it takes.
    """
    serving = [family for family in FAMILIES if files.objective in family.objectives]
    named = [family for family in serving if files.values.get("model_type") in family.model_types]
    return (named or serving)[0]


def default_objective(values: dict[str, Any]) -> str:
    """The kind of training that a config.json is for; causal, unless it is known to write text otherwise."""
    named = [family.objectives[0] for family in FAMILIES if values.get("model_type") in family.model_types]
    return next((name for name in named if TRAINING_KINDS[name].writes_text), "causal")
