"""An encoder of a run as ONNX, for classifiers and masked models: traced, and checked by onnxruntime.

transformers' class of the exported folder is traced, with any number of texts of any length. onnxruntime's
logits on validation samples, padded to each other, are held against those that etude computes without
padding; nothing is left where they differ.
"""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from etude import durable
from etude.data.batch import NumpyBatch
from etude.engine import checkpoint as checkpoints
from etude.engine.batch import to_device
from etude.errors import FaultError, InputError
from etude.export import export, load_model, require_new
from etude.models.families.encoder import ENCODER
from etude.models.families.table import family_of
from etude.models.lora import ADAPTER_FILE
from etude.quantize.scoring import Examiner
from etude.records.store import Run, open_run
from etude.report.card import model_card
from etude.report.onnx import Onnx
from etude.start import find_weights, split_choice

FILE = "model.onnx"
MOST_DIFFERENCE = 1e-4  # of a logit, in units of the largest one where that is above 1
_SAMPLES, _TOGETHER = 256, 8  # validation samples that are compared, and how many of them in a batch
_CARD = "README.md"
_LARGEST_BYTES = 1 << 31  # of the file, which is one message of protobuf
_OTHERS = "use --to hf or int8"


def export_onnx(given: str, out: Path, *, runs: Path = Path("runs")) -> Onnx:
    """Write the encoder of a run as a folder with an ONNX file, tokenizer, configuration and card.

    Raises: InputError as for `export`, for a model that is no encoder, if a package is not installed or the
    run's data is gone; FaultError if onnxruntime computes other logits.
    """
    run = open_run(split_choice(given)[0], runs)
    _require_encoder(run)
    _require_packages()
    out = out.absolute()
    require_new(out)
    checkpoint = find_weights(given, runs).parent
    kind = "merged" if (checkpoint / ADAPTER_FILE).is_file() else "hf"
    with durable.new_folder(out) as hidden:
        whole = export(given, kind, hidden / "whole", runs=runs)
        model = load_model(whole, dtype=torch.float32, objective=run.recipe.untold_objective)
        if family_of(model) is not ENCODER:
            raise InputError(f"--to onnx is for BERT and RoBERTa, not for {type(model).__name__}; {_OTHERS}")
        config = durable.read_json_object(whole / "config.json")
        content = _trace(whole, config, run.recipe.kind.auto_class)
        if len(content) >= _LARGEST_BYTES:
            raise InputError(f"the file has {len(content):,} bytes, and ONNX holds 2 GB in one; {_OTHERS}")
        batches = Examiner(run, torch.device("cpu")).validation_batches(_SAMPLES)
        difference = _compare(model, content, batches, int(config.get("pad_token_id") or 0))
        if not difference <= MOST_DIFFERENCE:
            raise FaultError(
                f"{given} as ONNX gives logits that differ by {difference:.2g} from those of etude, and "
                f"{MOST_DIFFERENCE:g} is allowed; nothing is written: {_OTHERS}"
            )
        for path in whole.iterdir():
            if path.name not in (checkpoints.MODEL_FILE, _CARD):
                durable.write_file(durable.inside(hidden, path.name), [path.read_bytes()])
        durable.write_file(hidden / FILE, [content])
        result = Onnx(file=FILE, bytes=len(content), samples=len(batches), difference=difference)
        card = model_card(run, checkpoint.name, kind, result)
        durable.write_file(hidden / _CARD, card.encode())
        durable.remove_folder(whole)
    return result


def _require_encoder(run: Run) -> None:
    """Raises: InputError for a run whose model ONNX is not written of."""
    recipe = run.recipe
    if recipe.tasks:
        raise InputError(f"run {run.name} has several tasks; --to onnx is for runs of a single one")
    if recipe.kind.writes_text:
        forms = "gguf, int8 or hf" if recipe.kind.chats else "int8 or hf"
        raise InputError(
            f"--to onnx is for encoders, and run {run.name} has a {recipe.kind.title}; use --to {forms}"
        )
    if recipe.model.wants_code:
        raise InputError(
            f"run {run.name} has a model with a bias by kinds of code, which no other tool computes"
        )


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(
            f'--to onnx needs the package {error.name}; pip install "etude-workbench[onnx]"'
        ) from None


def _trace(whole: Path, config: dict[str, Any], auto_class: str) -> bytes:
    """The ONNX file of the model in a folder, with the names of its labels in the metadata."""
    import onnx
    import transformers

    transformers.utils.logging.disable_progress_bar()
    model = getattr(transformers, auto_class).from_pretrained(whole, dtype=torch.float32).eval()
    names = _inputs(config)
    # Sizes that differ from each other and from 1, so that none is taken for fixed.
    example = {name: torch.ones(2, 7, dtype=torch.int64) for name in names}
    sizes = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens")}
    with _quiet():
        program = torch.onnx.export(
            model, kwargs=example, input_names=names, output_names=["logits"],
            dynamic_shapes=dict.fromkeys(names, sizes), dynamo=True, verbose=False,
        )  # fmt: skip
    assert program is not None
    made = program.model_proto
    labels = [name for _, name in sorted((int(at), name) for at, name in config.get("id2label", {}).items())]
    if auto_class == "AutoModelForSequenceClassification":
        kind = str(config.get("problem_type") or "single_label_classification")
        onnx.helper.set_model_props(made, {"labels": json.dumps(labels), "problem_type": kind})
    return bytes(made.SerializeToString())


def _inputs(config: dict[str, Any]) -> list[str]:
    types = ["token_type_ids"] if int(config.get("type_vocab_size") or 0) > 1 else []
    return ["input_ids", "attention_mask", *types]


def _compare(model: nn.Module, content: bytes, batches: Sequence[NumpyBatch], pad_id: int) -> float:
    """The largest difference between logits of onnxruntime and of etude; NaN if one is not a number."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    most = 0.0
    for begin in range(0, len(batches), _TOGETHER):
        together = batches[begin : begin + _TOGETHER]
        (found,) = session.run(None, pad_together(together, names, pad_id))
        for row, batch in zip(found, together):
            ours = _logits(model, batch).numpy()
            theirs = row[: len(ours)] if ours.ndim == 2 else row
            unit = max(1.0, float(np.abs(ours).max()))
            most = float(np.maximum(most, np.abs(theirs - ours).max() / unit))
    return most


def pad_together(batches: Sequence[NumpyBatch], names: Sequence[str], pad_id: int) -> dict[str, Any]:
    """Samples as padded rows (samples, longest) int64 for the inputs `names` of an ONNX file."""
    rows = [batch.tokens.flatten() for batch in batches]
    shape = (len(rows), max(map(len, rows)))
    padded = {"input_ids": np.full(shape, pad_id), "attention_mask": np.zeros(shape, np.int64)}
    padded["token_type_ids"] = np.zeros(shape, np.int64)
    for at, (row, batch) in enumerate(zip(rows, batches)):
        padded["input_ids"][at, : len(row)] = row
        padded["attention_mask"][at, : len(row)] = 1
        if batch.types is not None:
            padded["token_type_ids"][at, : len(row)] = batch.types.flatten()
    return {name: padded[name].astype(np.int64) for name in names}


@torch.no_grad()
def _logits(model: Any, batch: NumpyBatch) -> Tensor:
    """Logits of a sample by etude: (labels,), or (T, V) of a masked model."""
    sent = to_device(batch, torch.device("cpu"))
    if batch.classes is not None:
        return ENCODER.label_logits(model, sent)[0]
    rows = model.masked_rows(model(sent.tokens, token_types=sent.types))
    return functional.linear(rows, model.head_weight(), model.head_bias())[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of the exporter about itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
