"""`etude export` with fewer bits: a run's model quantised, read back, measured, and kept if it is good.

Nothing is left where the loss grows by more than is allowed, a disk is full, or the process is ended.
"""

import math
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from etude import durable
from etude.engine import checkpoint as checkpoints
from etude.engine.device import choose_device
from etude.errors import FaultError, InputError
from etude.export import export, load_model, require_new
from etude.models.hub import find_model
from etude.models.lora import ADAPTER_FILE
from etude.quantize.scoring import Examiner, compare
from etude.records.store import Run, open_run
from etude.report.card import model_card
from etude.report.quantized import Form, Quantized
from etude.start import find_weights, split_choice

_CARD = "README.md"


class Settings(Protocol):
    """Choices for a form of a model with fewer bits, which it can be written in and read back from.

    file       the file of the weights
    advice     changes that make it cost less
    most_loss  share of the original's validation loss that it may cost
    """

    @property
    def file(self) -> str: ...

    @property
    def advice(self) -> str: ...

    @property
    def most_loss(self) -> float: ...

    def check(self, whole: Path, model: nn.Module) -> None:
        """Raises: InputError if the model in a folder has no such form."""

    def write(self, hidden: Path, whole: Path, model: nn.Module, examiner: Examiner) -> Form:
        """Write the form of a model into a folder; `whole` has the files of the original."""
        ...

    def read(self, hidden: Path, whole: Path, objective: str | None) -> nn.Module:
        """The model in the written files, in fp32."""
        ...


def export_quantized(given: str, settings: Settings, out: Path, *, runs: Path = Path("runs")) -> Quantized:
    """Write the model of a run with fewer bits as a folder that other tools load.

    The weights are quantised, written, read back and measured beside the original on the same validation
    samples; the card says what it costs.

    Raises: InputError as for `export`, and if the run's data is gone or the model has no such form;
    FaultError if it costs more than it may.
    """
    if not (math.isfinite(settings.most_loss) and settings.most_loss >= 0):
        raise InputError(f"--max-loss is {settings.most_loss}; give a share of the loss such as 0.02")
    run = open_run(split_choice(given)[0], runs)
    out = out.absolute()
    require_new(out)
    checkpoint = find_weights(given, runs).parent
    kind = "merged" if (checkpoint / ADAPTER_FILE).is_file() else "hf"
    device = choose_device("auto")
    with durable.new_folder(out) as hidden:
        whole = export(given, kind, hidden / "whole", runs=runs)
        objective = run.recipe.untold_objective
        model = load_model(whole, dtype=torch.float32, objective=objective)
        settings.check(whole, model)
        examiner = Examiner(run, device)
        original = examiner.measure(model.to(device))
        form = settings.write(hidden, whole, model, examiner)
        del model  # two models more are to come
        quantized = settings.read(hidden, whole, objective).to(device)
        figures = compare(original, examiner.measure(quantized))
        first = load_model(whole, dtype=torch.float32, objective=objective).to(device)
        speeds = examiner.tokens_per_second(first, quantized)
        sizes = [path.stat().st_size for path in (whole / checkpoints.MODEL_FILE, hidden / settings.file)]
        result = Quantized(
            form=form, figures=figures,
            samples=len(original.score.parts if original.score.parts is not None else ()),
            most_loss=settings.most_loss, base_loss=_loss_of_base(run, examiner, device),
            file_bytes=(sizes[0], sizes[1]), tokens_per_second=(speeds[0], speeds[1]),
        )  # fmt: skip
        _require_good(given, result, settings.advice)
        card = model_card(run, checkpoint.name, kind, result)
        durable.write_file(hidden / _CARD, card.encode())
        durable.remove_folder(whole)
    return result


def _loss_of_base(run: Run, examiner: Examiner, device: torch.device) -> float | None:
    """The loss of the model that a writer was tuned from; None if there is none, or its tokens are others."""
    recipe = run.recipe
    if recipe.model.from_ is None or not recipe.kind.writes_text:
        return None
    base = load_model(find_model(recipe.model.from_, recipe.model.revision), dtype=torch.float32)
    return examiner.validation_loss(base.to(device))


def _require_good(given: str, result: Quantized, advice: str) -> None:
    """Raises: FaultError if a model costs more loss than it may, or its loss is not a number."""
    if not result.loss <= result.most_loss:
        raise FaultError(
            f"{given} in {result.form.name} costs {result.loss:.2%} of its validation loss, and --max-loss "
            f"allows {result.most_loss:.2%}; nothing is written: {advice}"
        )
