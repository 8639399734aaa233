"""A row of the table of families: everything that the rest of etude asks of a family of models."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from etude.models.config_checks import CLASS_STEMS
from etude.models.cost import Cost
from etude.models.weights import Put
from etude.prefixes import Sharing
from etude.recipe.kinds import TRAINING_KINDS
from etude.recipe.model import Model, RopeScaling

C = TypeVar("C")


class Config(Protocol):
    """The frozen configuration of a model of any family."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def longest(self) -> int:
        """Tokens that the model reads at most; 2**30 without a limit."""


@dataclass(frozen=True)
class Pretrained:
    """A model in a folder.

    reason       why it runs through transformers, if config.json belongs to another family of etude
    hf_config    values of config.json; those of a classifier once it has labels
    digest       SHA-256 over config.json and the weights: names the model in records
    parameters   exact, by part, shared ones once; empty until the labels are counted
    labels       outputs as a classifier; 0 if it is none
    generation   values of generation_config.json, for a model that writes text
    stop_ids     tokens at which such a model stops
    label_names  names of the labels in its files, in the order of the outputs
    kept_labels  outputs loaded from the head in its files, the first ones; the others are drawn anew
    """

    path: Path
    config: Config
    reason: str | None
    hf_config: dict[str, Any]
    digest: str
    parameters: dict[str, int]
    labels: int = 0
    generation: dict[str, Any] = field(default_factory=dict)
    stop_ids: tuple[int, ...] = ()
    label_names: tuple[str, ...] = ()
    kept_labels: int = 0


@dataclass(frozen=True, kw_only=True)
class Files:
    """The files of a model, looked at for a kind of training.

    values     of config.json
    shapes     of the tensors, by name; none where an estimate does without weights
    objective  train.objective
    """

    path: Path
    values: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    objective: str

    @property
    def has_labels(self) -> bool:
        """True if the model is to score labels."""
        return TRAINING_KINDS[self.objective].has_labels


@dataclass(frozen=True, kw_only=True)
class NewModel:
    """Sizes of a model from scratch that its data decide.

    vocab_size, pad_id  of the tokenizer
    labels, multi       outputs of a classifier, and whether several may hold at once
    tasks               name and labels of each task, 0 for a masked one; empty without [tasks]
    """

    vocab_size: int
    seq_len: int
    pad_id: int | None = None
    labels: int = 0
    multi: bool = False
    tasks: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts of a trained model, for its config.json, that its configuration does not hold."""

    label_names: tuple[str, ...] = ()
    multi: bool = False
    bos_id: int | None
    eos_id: int


class Reader(NamedTuple):
    """A model that has read prompts and goes on token by token.

    logits   (B, V) after the prompts
    advance  logits (B, V) after one more token (B,) of each row; the next call may write over them
    select   goes on with these rows (b,) only; None if all rows go on
    """

    logits: Tensor
    advance: Callable[[Tensor], Tensor]
    select: Callable[[Tensor], None] | None = None


# A model, and the names of its weights that no file had, drawn by the seed.
Loaded = tuple[nn.Module, list[str]]
# Is given a model on the meta device, and makes the place that its weights are then put into.
Into = Callable[[nn.Module], Put]


def _own_classifier(files: Files, config: Any) -> dict[str, Any]:
    """config.json of a family of etude as that of a classifier, with the class that transformers loads."""
    stem = CLASS_STEMS[files.values["model_type"]]
    return {**files.values, "architectures": [f"{stem}ForSequenceClassification"]}


@dataclass(frozen=True, kw_only=True)
class Family(Generic[C]):
    """A family of models.

    A model has the parameters of transformers, by name and shape. One that writes text gives hidden states
    (B, T, C) of `model(tokens, positions=, lengths=)`, (B, T) each, where sequences of `lengths` that lie end
    to end in one row do not see each other; `head_weight()`, (V, C), and `head_bias()`, (V,), if its head has
    one, make them logits, as `logits` does with the arguments of the model. Frozen weights are loaded in a
    dtype, but those named `...norm.weight` in fp32. Blocks are computed again for the gradients where
    `checkpoint_activations` is set. `Decoder` is the example.

    name          model.kind of a recipe that trains it from scratch
    config        class of its configurations
    modules       classes of its models
    objectives    kinds of training that its files serve; the first one is the default
    model_types   model_type of its files in config.json
    takes         names of published models, for messages
    has_source    true for an encoder-decoder: it reads a source and writes a target
    sizes         keys of [model] that a run resolves
    stacks        true if rows stay in their order through all layers, so that several models share a pass
    joins         true if sequences join and leave its cache between two tokens

    read          configuration of files. Raises: Unsupported for a model that transformers may have;
                  InputError for a wrong value
    check         refuses tensors that do not fit the configuration. Raises: InputError
    name_of       name in a model of a tensor of its files
    load          model with the weights of files, but those to be frozen in a dtype, with a dropout, a
                  seed for weights that no file has, and where they go. Raises: InputError
    from_recipe   configuration from scratch; None if it cannot be trained from scratch
    extend        configuration and values of a config.json with a longer context; None if it cannot have one.
                  Raises: InputError
    with_outputs  configuration with the labels or tasks of a run; None if it takes no [tasks]
    make          model without first weights, for a number of labels
    measure       exact parameters by part, and cost of training: (config, labels, seq_len, parameters of
                  the adapter)
    describe      values of config.json for other tools
    classifier    values of config.json as those of a classifier
    context       tokens that a model reads at most
    blocks        blocks of a model, in order: units to shard, recompute or quantise
    label_logits  logits (n, labels) of the samples in a batch: tokens, lengths, positions, types, code, task
    states        hidden states (N, C) of the tokens in a batch, end to end; of an encoder-decoder, its
                  encoder's
    sharing       prefixes that a model computes once: (model, in training, with dropout alike there)
    reader        reads prompts (token ids each) with room for so many tokens; None if it writes no text
    """

    name: str
    config: type[C]
    modules: tuple[type[nn.Module], ...]
    objectives: tuple[str, ...]
    model_types: tuple[str, ...]
    takes: str
    has_source: bool = False
    sizes: frozenset[str] = frozenset()
    stacks: bool = False
    joins: bool = False

    read: Callable[[Files], C]
    check: Callable[[Files, C], None] = lambda files, config: None
    name_of: Callable[[C, str], str] = lambda config, name: name
    load: Callable[[Pretrained, torch.dtype, float, int, Into], Loaded]
    from_recipe: Callable[[Model, NewModel], C] | None = None
    extend: Callable[[Mapping[str, Any], RopeScaling], tuple[C, dict[str, Any]]] | None = None
    with_outputs: Callable[[C, NewModel], C] | None = None
    make: Callable[[C, int], nn.Module]
    measure: Callable[[C, int, int, int], tuple[dict[str, int], Cost]]
    describe: Callable[[C, Pretrained | None, Facts], dict[str, Any]]
    classifier: Callable[[Files, C], dict[str, Any]] = _own_classifier
    context: Callable[[Any], int] = lambda model: int(model.config.longest)
    blocks: Callable[[Any], Sequence[nn.Module]]
    label_logits: Callable[[Any, Any], Tensor]
    states: Callable[[Any, Any], Tensor]
    sharing: Callable[[Any, bool, bool], Sharing] = lambda model, is_training, drops_alike: Sharing(
        None, "only decoders that etude computes itself share them"
    )
    reader: Callable[[Any, list[list[int]], int], Reader] | None = None

    def empty(self, config: C, labels: int = 0) -> nn.Module:
        """Modules and names without memory, of a classifier if there are labels."""
        with torch.device("meta"):
            return self.make(config, labels)
