"""A quantised model and its original, measured as their run measures, on the same validation samples."""

import os
import time
from itertools import groupby
from pathlib import Path

import torch
from torch import nn

from etude.data.batch import NumpyBatch
from etude.data.corpus import Corpus
from etude.data.loader import iterate_once
from etude.data.samples.sample import Samples
from etude.engine.batch import to_device
from etude.engine.precision import choose_precision
from etude.engine.world import World
from etude.errors import InputError
from etude.evaluate.exam import Exam
from etude.evaluate.tasks import evaluate, without_dropout
from etude.objectives.choose import choose_kind
from etude.objectives.kind import Kind, Measured
from etude.own import Own
from etude.plan import make_plan
from etude.recipe.metric import ChosenMetric
from etude.recipe.schema import Recipe
from etude.records.store import Run
from etude.report.quantized import Beside, Interval
from etude.scores.intervals import Difference, ratio_difference

_TIMED, _TURNS = 16, 5  # samples whose time is taken, and how often in turn


class Examiner:
    """The data of a run, with which models of it are calibrated and measured in fp32, one sample a batch."""

    def __init__(self, run: Run, device: torch.device) -> None:
        """Raises: InputError if the data is gone or another, or the run has no validation samples."""
        self.recipe = _to_measure(run)
        plan = make_plan(self.recipe, today=run.day)
        if plan.fingerprint != run.environment["data_fingerprint"]:
            raise InputError(
                f"the data of run {run.name} is not what it was trained on; bring it back to measure by it"
            )
        self.corpus: Corpus = plan.corpus
        if self.corpus.validation is None:
            wrong = f"run {run.name} has no validation samples to measure by"
            raise InputError(f"{wrong}; train it with data.validation_ratio, or with [[data.validation]]")
        self.kind: Kind = choose_kind(self.recipe, self.corpus, Own())
        self.world, self.precision = World(device), choose_precision("fp32", device, targets_per_step=1)

    def measure(self, model: nn.Module) -> Measured:
        """The figures of a model on the validation samples."""
        return self.kind.measure(
            Exam(
                model=model, corpus=self.corpus, recipe=self.recipe, precision=self.precision,
                world=self.world, micro_batch_size=1, folder=Path(os.devnull), step=0,
                metric=ChosenMetric.parse(self.recipe.evaluate.metric),
                writes_text=self.recipe.kind.writes_text,
            )
        )  # fmt: skip

    def training_batches(self, count: int) -> list[NumpyBatch]:
        """Evenly spaced training samples, one a batch, without the weights that training gives them."""
        return self._batches(self.corpus.train, count)

    def training_loss(self, model: nn.Module, batches: list[NumpyBatch]) -> float:
        """The mean loss on some samples."""
        return evaluate(model, batches, self.kind.plain(), self.precision, self.world).loss

    def validation_loss(self, model: nn.Module) -> float:
        """The mean loss on the validation samples."""
        assert self.corpus.validation is not None
        return self.training_loss(model, self.validation_batches(len(self.corpus.validation)))

    def validation_batches(self, count: int) -> list[NumpyBatch]:
        """Evenly spaced validation samples, one a batch."""
        assert self.corpus.validation is not None
        return self._batches(self.corpus.validation, count)

    def validation_texts(self, count: int) -> list[str]:
        """Texts of evenly spaced validation samples, without the special tokens between them."""
        special, texts = set(self.corpus.tokenizer.special_ids), list[str]()
        for batch in self.validation_batches(count):
            for is_special, ids in groupby(batch.tokens.flatten().tolist(), key=special.__contains__):
                texts += [] if is_special else [self.corpus.tokenizer.decode(ids)]
        return texts

    @torch.no_grad()
    def tokens_per_second(self, *models: nn.Module) -> tuple[float, ...]:
        """Tokens of validation samples that pass through each model in a second, at its fastest."""
        batches = self.validation_batches(_TIMED)
        tokens = sum(batch.tokens.size for batch in batches)
        seconds = [float("inf")] * len(models)
        for _ in range(_TURNS):
            for index, model in enumerate(models):
                begin = time.perf_counter()
                self._pass(model, batches)
                seconds[index] = min(seconds[index], time.perf_counter() - begin)
        return tuple(tokens / each for each in seconds)

    @torch.no_grad()
    def run(self, model: nn.Module, batches: list[NumpyBatch]) -> None:
        """Pass samples through a model."""
        self._pass(model, batches)

    def _pass(self, model: nn.Module, batches: list[NumpyBatch]) -> None:
        plain = self.kind.plain()
        with without_dropout(model):
            for batch in batches:
                float(plain.loss_sum(model, to_device(batch, self.world.device))[0])

    def _batches(self, split: Samples, count: int) -> list[NumpyBatch]:
        attend = self.recipe.data.attend_across_documents
        return list(iterate_once(split, 1, attend, max_samples=count))


def compare(original: Measured, quantized: Measured) -> dict[str, Beside]:
    """Every figure of both, with the interval of the difference over the same samples."""
    before, after = original.with_intervals(), quantized.with_intervals()
    return {
        name: Beside(before[name], after[name], _difference(original, quantized, name))
        for name in before
        if name in after
    }


def _to_measure(run: Run) -> Recipe:
    """The recipe of a run, for any device. Raises: InputError if etude cannot measure its models alone."""
    run.require_own_recipe()
    if (run.environment.get("own_code") or {}).keys() & {"model", "loss"}:
        raise InputError(
            f"run {run.name} has a model or loss of your own code, which etude does not load alone"
        )
    recipe = run.recipe
    if recipe.tasks:
        raise InputError(f"run {run.name} has several tasks; give one of a single task")
    train = recipe.train.model_copy(update={"device": "auto", "precision": "auto", "parallel": "auto"})
    evaluate = recipe.evaluate.model_copy(update={"prompts": []})
    return recipe.model_copy(update={"train": train, "evaluate": evaluate})


def _difference(original: Measured, quantized: Measured, name: str) -> Interval | None:
    ratios = [each.score.ratios().get(name) for each in (quantized, original)]
    found: Difference | None = None
    if ratios[0] is not None and ratios[1] is not None:
        found = ratio_difference(ratios[0], ratios[1])
    elif quantized.measure_of is not None:
        found = quantized.measure_of([], name).difference(quantized.predicted, original.predicted)
    return None if found is None else [found.value, found.low, found.high]
