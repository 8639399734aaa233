"""A model of a run or of a folder that is ready to be used, as to write text."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from etude.data.render import ChatTemplate
    from etude.data.tokenize import Tokenizer
    from etude.engine.precision import Precision
    from etude.records.store import Run


@dataclass(frozen=True)
class Loaded:
    """A model on the best device, and its folder; run: the one that it is a checkpoint of, if any."""

    model: "nn.Module"
    folder: Path
    run: "Run | None"
    precision: "Precision"


@dataclass(frozen=True)
class Speaker:
    """A model that is ready to go on with text."""

    model: "nn.Module"
    tokenizer: "Tokenizer"
    chat: "ChatTemplate"
    end_ids: tuple[int, ...]
    context: int
    precision: "Precision"

    def settings(self, sampling: dict[str, Any]) -> dict[str, Any]:
        """Settings of `generate_steps` for this model."""
        return {**sampling, "end_ids": self.end_ids, "vocab_size": self.tokenizer.vocab_size}


def open_speaker(
    given: str, runs: Path, *, is_chat: bool = False, told: Callable[[str], None] = lambda text: None
) -> Speaker:
    """The model of a run (its best checkpoint, or @last, @step-200) or of a folder, on the best device.

    is_chat: stop also where the chat template ends an answer. told: is called with what a person should know.

    Raises: InputError if there is none, or its files cannot be used.
    """
    from etude.models.parts import head_modules

    loaded = load_for_use(given, runs, is_named=is_chat, told=told)
    if head_modules(loaded.model):
        raise InputError(f"{given} is a classifier, which writes no text; give a model that does")
    return make_speaker(loaded, is_chat=is_chat, told=told)


def load_for_use(
    given: str,
    runs: Path,
    *,
    is_named: bool = False,
    takes_encoders: bool = False,
    told: Callable[[str], None] = lambda text: None,
) -> Loaded:
    """The model that RUN, RUN@last or a folder names.

    is_named: tell the name of a folder too. takes_encoders: also masked models, with or without their head.
    Raises: as `open_speaker`.
    """
    import torch

    from etude.engine.device import choose_device
    from etude.engine.precision import choose_precision, has_native_bf16
    from etude.export import find_folder, is_bare_encoder, load_model, stored_dtype
    from etude.records.store import Run

    folder, device = find_folder(given, runs), choose_device("auto")
    run = Run(folder.parent.parent)
    is_of_run = (run.path / "run.json").is_file()
    if is_of_run or is_named:
        told(f"loading {f'{run.name}@{folder.name}' if is_of_run else given}")
    halves = {torch.bfloat16: "bf16", torch.float16: "fp16"} if has_native_bf16(device) else {}
    precision = choose_precision(halves.get(stored_dtype(folder), "fp32"), device, targets_per_step=1)
    objective = "masked" if takes_encoders and is_bare_encoder(folder) else None
    model = load_model(folder, dtype=precision.dtype, objective=objective, needs_head=objective is None)
    return Loaded(model.to(device), folder, run if is_of_run else None, precision)


def make_speaker(
    loaded: Loaded, *, is_chat: bool = False, told: Callable[[str], None] = lambda text: None
) -> Speaker:
    """A loaded model with its tokenizer, chat template and ends. Raises: as `open_speaker`."""
    from etude.evaluate.generate import context_of
    from etude.export import find_end_ids, open_chat

    # A checkpoint of a run hears the system message that it was trained with.
    chat = open_chat(loaded.folder, system=loaded.run.recipe.data.system if loaded.run else None)
    ends = find_end_ids(loaded.folder, chat, is_chat=is_chat)
    if is_chat and chat.find_end() is None:
        names = chat.tokenizer.decode(ends, skip_special=False)
        told(f"the chat template writes no special token behind an answer, so it ends only at {names}")
    return Speaker(loaded.model, chat.tokenizer, chat, ends, context_of(loaded.model), loaded.precision)
