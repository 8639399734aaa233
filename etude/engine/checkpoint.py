"""Checkpoints: folders of safetensors and JSON whose manifest, written last, makes them exist.

A checkpoint is made in two parts: a snapshot, for which training waits, and the writing, for which it need not.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from etude import durable
from etude.engine.loop import TrainState
from etude.errors import DamageError, InputError
from etude.models.lora import ADAPTER_FILE, adapter_tensors
from etude.models.weights import open_tensors

FORMAT = 1
MODEL_FILE = "model.safetensors"
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class Progress:
    """What a run knows beside its tensors; `base` is the SHA-256 of the frozen weights that an adapter belongs to."""

    run: str
    step: int
    data_fingerprint: str
    precision: dict[str, float]
    best: dict[str, Any] | None = None
    evaluations_without_improvement: int = 0
    evaluated: bool = True
    base: str | None = None
    format: int = FORMAT


@dataclass(frozen=True)
class Snapshot:
    """A moment of a run, copied to CPU memory."""

    weights_file: str
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    progress: Progress
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"step-{self.progress.step:06d}"


def take_snapshot(state: TrainState, progress: Progress, files: dict[str, bytes]) -> Snapshot:
    """Copy weights and optimizer state; `files` (config.json, tokenizer.json ...) are written beside them."""
    file, weights = trained_tensors(state.model)
    copy = {name: value.detach().to("cpu", copy=True) for name, value in weights.items()}
    optimizer = {name: value.detach().to("cpu", copy=True) for name, value in state.optimizer.state().items()}
    return Snapshot(file, copy, optimizer, progress, files)


def trained_tensors(model: torch.nn.Module) -> tuple[str, dict[str, torch.Tensor]]:
    """What a checkpoint holds of a model, and in which file: its adapter if it has one, else all; shared ones once."""
    if adapter := adapter_tensors(model):
        return ADAPTER_FILE, adapter
    first: dict[int, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        first.setdefault(id(tensor), name)
    kept = set(first.values())
    return MODEL_FILE, {name: tensor for name, tensor in model.state_dict().items() if name in kept}


def write_checkpoint(folder: Path, snapshot: Snapshot) -> int:
    """Write a snapshot as `folder/step-N`, manifest last, and read it back; returns its bytes. Raises: StorageError."""
    path = folder / snapshot.name
    durable.remove_folder(path, first="manifest.json")
    durable.make_folder(path)
    written = {
        snapshot.weights_file: durable.write_file(path / snapshot.weights_file, safetensors(snapshot.weights)),
        "optimizer.safetensors": durable.write_file(path / "optimizer.safetensors", safetensors(snapshot.optimizer)),
        "state.json": durable.write_json(path / "state.json", asdict(snapshot.progress)),
        **{name: durable.write_file(path / name, content) for name, content in snapshot.files.items()},
    }
    manifest = {
        "format": FORMAT, "run": snapshot.progress.run, "step": snapshot.progress.step,
        "files": {name: asdict(file) for name, file in written.items()},
    }  # fmt: skip
    durable.write_json(path / "manifest.json", manifest)
    verify_checkpoint(path)
    return sum(file.size for file in written.values())


def verify_checkpoint(path: Path, run: str | None = None) -> dict[str, Any]:
    """The manifest of a checkpoint whose every file is as it was written.

    Raises: DamageError that names the file and what is wrong with it.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        files: dict[str, dict[str, Any]] = manifest["files"]
    except FileNotFoundError:
        raise DamageError(f"checkpoint {path.name} has no manifest: its writing did not end") from None
    except (ValueError, KeyError, TypeError):
        raise DamageError(f"checkpoint {path.name} is damaged: manifest.json cannot be read") from None
    if manifest.get("format", 0) > FORMAT:
        raise InputError(f"checkpoint {path} has format {manifest['format']}; this etude reads {FORMAT}; update etude")
    if run is not None and manifest.get("run") != run:
        raise DamageError(f"checkpoint {path.name} belongs to run {manifest.get('run')}")
    for name, file in files.items():
        if Path(name).name != name or not (path / name).is_file() or (path / name).is_symlink():
            raise DamageError(f"checkpoint {path.name} is damaged: {name} is missing")
        try:
            is_whole = (path / name).stat().st_size == file["size"] and durable.sha256_file(path / name) == file[
                "sha256"
            ]
        except OSError as error:
            raise DamageError(f"checkpoint {path.name} is damaged: {name} cannot be read: {error.strerror}") from None
        if not is_whole:
            raise DamageError(f"checkpoint {path.name} is damaged: {name} is not what was written")
    return dict(manifest)


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders with a manifest, oldest first; not verified."""
    return sorted(path for path in folder.glob("step-*") if (path / "manifest.json").is_file())


def newest_valid(folder: Path, run: str) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies, and what was wrong with each newer one."""
    problems: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            verify_checkpoint(path, run)
            return path, problems
        except DamageError as error:
            problems.append(str(error))
    return None, problems


def load_checkpoint(path: Path, state: TrainState) -> Progress:
    """Bring weights, optimizer, precision and step to what a verified checkpoint holds.

    Raises: InputError if its tensors are not those of this model; DamageError if those of its optimizer are not.
    """
    progress = read_progress(path)
    load_weights(weights_file(path), state.model)
    try:
        state.optimizer.load_state(read_tensors(path / "optimizer.safetensors"))
    except KeyError as error:
        raise DamageError(f"{path}: the optimizer state names {error}, which this model does not have") from None
    state.precision.load_state(progress.precision)
    state.step = progress.step
    return progress


def read_progress(path: Path) -> Progress:
    """What a verified checkpoint knows beside its tensors."""
    return Progress(**json.loads((path / "state.json").read_bytes()))


def load_weights(path: Path, model: torch.nn.Module) -> None:
    """Copy the tensors of a safetensors file into a model. Raises: InputError if names, shapes or kinds differ."""
    own, tensors = trained_tensors(model)[1], read_tensors(path)
    for name in [*own, *tensors]:
        if name not in own or name not in tensors:
            raise InputError(
                f"{path}: {name[:80]} is only in the {'model' if name in own else 'file'}; give the weights of the "
                "same model"
            )
        theirs, ours = list(tensors[name].shape), list(own[name].shape)
        if theirs != ours:
            raise InputError(f"{path}: {name} is {theirs}, the model has {ours}; give the weights of the same model")
        if tensors[name].is_floating_point() != own[name].is_floating_point():
            raise InputError(f"{path}: {name} holds {tensors[name].dtype} numbers, the model has {own[name].dtype}")
    for name, tensor in tensors.items():
        own[name].detach().copy_(tensor)


def weights_file(path: Path) -> Path:
    """The file with the weights in a checkpoint, or any folder like it: an adapter's, or a whole model's."""
    return path / ADAPTER_FILE if (path / ADAPTER_FILE).is_file() else path / MODEL_FILE


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file. Raises: InputError for anything else; a pickle is never opened."""
    with open_tensors(path) as tensors:
        return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118 - not a dictionary


def retain(folder: Path, *, keep: int | str, keep_at: list[int], best: str | None) -> list[str]:
    """Remove checkpoints that are neither among the newest `keep`, nor the best, nor at a step to be kept.

    The newest has been read back by then. Returns the names of those removed.
    """
    paths = list_checkpoints(folder)
    if keep == "all":
        return []
    kept = {path.name for path in paths[-max(int(keep), 2) :]} | {best} | {f"step-{step:06d}" for step in keep_at}
    removed = [path for path in paths if path.name not in kept]
    for path in removed:
        durable.remove_folder(path, first="manifest.json")
    return [path.name for path in removed]


def remove_unfinished(folder: Path, *, beyond: int) -> None:
    """Remove what a kill left without a manifest, and what is newer than the step a run continues from."""
    for path in folder.glob("step-*"):
        if not (path / "manifest.json").is_file() or int(path.name.removeprefix("step-")) > beyond:
            durable.remove_folder(path, first="manifest.json")


def safetensors(tensors: dict[str, torch.Tensor]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file, piece by piece, without a second copy of the tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    for name, tensor in ordered:
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for _, tensor in ordered:
        if tensor.numel():
            yield memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
