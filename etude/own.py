"""The model, loss and metrics that a user brings: checked, tried before training, named in the records."""

import contextlib
import hashlib
import inspect
import site
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from etude.engine.batch import DeviceBatch
from etude.engine.out_of_memory import is_out_of_memory
from etude.engine.precision import Precision
from etude.errors import DamageError, EtudeError, InputError, StorageError
from etude.evaluate.tasks import without_dropout
from etude.models.foreign import scored_logits
from etude.recipe.metric import ChosenMetric
from etude.recipe.schema import Loss, Recipe
from etude.text import kind_of

_PLAIN_MODEL = (
    "; without Options(loss=...) it must be a model of transformers, with a config and "
    "model(input_ids=...).logits: give a loss that calls it as you do"
)
LossFunction = Callable[[nn.Module, DeviceBatch], tuple[torch.Tensor, Any]]
MetricFunction = Callable[[nn.Module, Iterable[DeviceBatch]], float]
_WEIGHED_BY_BATCH = ("token_weights",)  # a loss of one's own gets these as batch.weights
_LONGEST = 110


@dataclass(frozen=True)
class Metric:
    """A figure of the model on the validation batches, and which way is the better one.

    function(model, batches): a number; the batches are those that a loss gets, on the device. Higher is
    better unless `lower_is_better` says otherwise.
    """

    function: MetricFunction
    lower_is_better: bool | None = None


@dataclass(frozen=True)
class Own:
    """The user's own code, which a run gets beside the recipe."""

    model: nn.Module | None = None
    loss: LossFunction | None = None
    metrics: Mapping[str, Metric] = field(default_factory=dict)

    def choose_metric(self, metric: str) -> ChosenMetric:
        """The metric of a recipe, with the direction that the user gave it if it is one's own."""
        if metric in self.metrics:
            return ChosenMetric("", metric, bool(self.metrics[metric].lower_is_better))
        return ChosenMetric.parse(metric)

    def problems(self, recipe: Recipe, measured: set[str]) -> Iterator[str]:
        """Parts of it, or of the recipe, without an effect. measured: the figures of the run itself."""
        if self.loss is not None and recipe.tasks:
            yield "a loss of your own is for one task, but the recipe has [tasks]; leave one of them out"
        if self.loss is not None:
            for name in Loss.model_fields:
                if name not in _WEIGHED_BY_BATCH and getattr(recipe.loss, name) != getattr(Loss(), name):
                    yield f"loss.{name} has no effect beside a loss of your own; leave one of them out"
        if self.model is not None and (recipe.evaluate.prompts or recipe.evaluate.answers):
            yield "evaluate.prompts and answers need a model that writes, not one of your own; leave them out"
        if self.metrics and recipe.data.validation == "none":
            yield 'metrics of your own need data for validation, which is "none"; leave one of them out'
        for name, metric in self.metrics.items():
            if not callable(metric.function):
                yield f"metric {name} of your own is {kind_of(metric.function)}; give a function, or a Metric"
            if name in measured:
                yield f"metric {name} of your own has the name of a figure of the run; give it another"
        chosen = recipe.evaluate.metric
        own = self.metrics.get(chosen)
        if own is not None and own.lower_is_better is None and chosen.endswith(("loss", "error")):
            example = f"Metric({_name(own.function)}, lower_is_better=True)"
            yield f"evaluate.metric is {chosen}, of your own: say which way is better, as {example}"

    def describe(self) -> dict[str, str]:
        """Name and source hash of each, so that a record tells which code it was."""
        functions = {f"metric {name}": metric.function for name, metric in self.metrics.items()}
        things: dict[str, object] = {"model": self.model, "loss": self.loss, **functions}
        return {name: _describe(thing) for name, thing in things.items() if thing is not None}

    def try_loss(
        self,
        model: nn.Module,
        loss_sum: Callable[[nn.Module, DeviceBatch], tuple[torch.Tensor, torch.Tensor]],
        precision: Precision,
        batches: Iterable[DeviceBatch],
        hint: str = "",
    ) -> None:
        """Run a loss or model of the user once on each batch. hint: what to say of these batches if it fails.

        Raises: InputError that names the function and the line that fails.
        """
        if self.loss is None and self.model is None:
            return
        what, plain = ("loss", "") if self.loss is not None else ("model", _PLAIN_MODEL)
        # Without dropout, so that statistics of batches stay as they are.
        named = _named(what, self.loss or self.model, hint or plain)
        with named, without_dropout(model), precision.autocast():
            for batch in batches:
                _check_loss(model, *loss_sum(model, batch))

    def measure(
        self, name: str, model: nn.Module, precision: Precision, batches: Iterable[DeviceBatch]
    ) -> float:
        """A metric of the model as it is used: without dropout and gradients.

        Raises: InputError that names the function and the line that fails.
        """
        function = self.metrics[name].function
        with _named(f"metric {name}", function):
            with without_dropout(model), torch.no_grad(), precision.autocast():
                value = function(model, batches)
            if isinstance(value, str) or value is None:
                raise TypeError(f"metric {name} returned {value!r}, not a number")
            return float(value)

    def explain(self, error: Exception) -> Exception:
        """An error of a run; where it came through the user's loss or module, one that names the line."""
        what, thing = ("loss", self.loss) if self.loss is not None else ("model", self.model)
        if thing is None or isinstance(error, EtudeError) or not _own_frames(error):
            return error
        try:
            with _named(what, thing):
                raise error
        except Exception as named:
            return named


def logits(model: nn.Module, batch: DeviceBatch) -> torch.Tensor:
    """The scores (B, T, V) of the next token at each position of the batch that a loss or metric gets.

    A decoder of etude called by itself gives hidden states, since most logits are never needed.
    """
    if hasattr(model, "head_weight"):
        scores: torch.Tensor = model.logits(batch.tokens, positions=batch.positions, lengths=batch.lengths)  # type: ignore[operator]
        return scores
    flat = scored_logits(model, batch.tokens, batch.positions, batch.lengths, None)
    return flat.view(*batch.tokens.shape, -1)


def _check_loss(model: nn.Module, loss: torch.Tensor, targets: torch.Tensor) -> None:
    if loss.dim() or targets.dim():
        shapes = f"{list(loss.shape)} and {list(targets.shape)}"
        raise TypeError(f"it returned {shapes}; expected a sum and a number")
    if not loss.requires_grad and any(parameter.requires_grad for parameter in model.parameters()):
        raise TypeError("it returned a sum without gradient; do not detach it or compute it under no_grad")


@contextlib.contextmanager
def _named(what: str, thing: object, hint: str = "") -> Iterator[None]:
    """Name the function of the user, and the line, in what goes wrong within the block."""
    try:
        yield
    except Exception as error:
        if isinstance(error, StorageError | DamageError) or is_out_of_memory(error):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        reason = reason if len(reason) <= _LONGEST else f"{reason[:_LONGEST]}..."
        name = "" if what.endswith(f" {_name(thing)}") else f" {_name(thing)}"
        where = f"your {what}{name} failed at {_place(error, thing)}"
        raise InputError(f"{where}: {reason}{hint}") from error


def _name(thing: object) -> str:
    return str(getattr(thing, "__qualname__", type(thing).__qualname__)).rpartition(".")[2]


def _place(error: Exception, thing: object) -> str:
    """The user's file and line that an error came through last, or where the function begins."""
    if mine := _own_frames(error):
        return f"{Path(mine[-1].filename).name}:{mine[-1].lineno}"
    try:
        owner = _owner(thing)
        return f"{Path(inspect.getfile(owner)).name}:{inspect.getsourcelines(owner)[1]}"
    except (OSError, TypeError):
        return "an unknown line"


def _own_frames(error: Exception) -> list[traceback.FrameSummary]:
    """The lines of the user's files that an error came through."""
    libraries = [str(Path(__file__).parent), *site.getsitepackages(), sysconfig.get_paths()["stdlib"]]
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if not frame.filename.startswith((*libraries, "<frozen"))]


def _owner(thing: object) -> Any:
    """The function, or the class of an object, whose source is the user's."""
    return thing if inspect.isroutine(thing) else type(thing)


def _describe(thing: object) -> str:
    owner = _owner(thing)
    try:
        digest = hashlib.sha256(inspect.getsource(owner).encode()).hexdigest()[:16]
    except (OSError, TypeError):
        digest = "source unknown"
    return f"{owner.__module__}.{owner.__qualname__} {digest}"
