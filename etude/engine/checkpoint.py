"""Checkpoints: folders of safetensors and JSON whose manifest, written last, makes them exist.

A checkpoint is made in two parts: training waits for the snapshot, and not for the writing.
"""

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import torch

from etude import durable
from etude.engine.loop import TrainState
from etude.engine.shards import Shards
from etude.engine.tensor_files import Piece, begin_file, read_tensors, safetensors, write_rows
from etude.engine.world import World
from etude.errors import DamageError, FaultError, InputError, RecipeError, StorageError
from etude.models.lora import ADAPTER_FILE, adapter_tensors
from etude.models.parts import find_non_finite
from etude.recipe.course import Change
from etude.records import shape
from etude.records.folder import BEST, checkpoint_folders, checkpoint_name, list_checkpoints, step_of
from etude.records.head import Head
from etude.records.manifest import FORMAT, check_files, damaged, read_manifest

MODEL_FILE, OPTIMIZER_FILE = "model.safetensors", "optimizer.safetensors"
_CHANGE = shape.Object(
    {"step": int, "key": str, "value": (float, str, None), "reason": str},
    {"request": str | None, "who": str | None, "channel": str | None},
)
_STATE = shape.Object(
    {
        "run": str, "step": int, "data_fingerprint": str,
        "precision": shape.Object({
            "scale": Annotated[float, shape.at_least(1e-38)],
            "good_steps": Annotated[float, shape.at_least(0)],
        }),
    },
    {
        "best": (BEST, None), "evaluations_without_improvement": int, "evaluated": bool, "base": str | None,
        "format": int, "changes": [_CHANGE], "counted": float | None,
    },
)  # fmt: skip
_PATIENCE_SECONDS, _LOOK_SECONDS = 3600.0, 0.02  # of rank 0 for the rows of others
_GO_BACK = "remove that checkpoint, and the run goes on from the one before it"


@dataclass(frozen=True)
class Progress:
    """The state of a run beside its tensors.

    base     SHA-256 of the frozen weights that an adapter belongs to
    changes  of the course of the run
    """

    run: str
    step: int
    data_fingerprint: str
    precision: dict[str, float]
    best: dict[str, Any] | None = None
    evaluations_without_improvement: int = 0
    counted: float | None = None
    evaluated: bool = True
    base: str | None = None
    changes: tuple[Change, ...] = ()
    format: int = FORMAT


@dataclass(frozen=True)
class Snapshot:
    """A moment of a run, copied to CPU memory.

    masks         buffers among the weights, which may be infinite
    places        of tensors of which this rank holds some rows; the others are those of rank 0
    rank, ranks   that write it together
    journal       its head at this moment, on the rank that writes it
    """

    weights_file: str
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    progress: Progress
    files: dict[str, bytes] = field(default_factory=dict)
    masks: frozenset[str] = frozenset()
    places: dict[str, Piece] = field(default_factory=dict)
    rank: int = 0
    ranks: int = 1
    journal: Head | None = None

    @property
    def name(self) -> str:
        return checkpoint_name(self.progress.step)

    @property
    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """Weights and optimizer state by the name of their file."""
        return {self.weights_file: self.weights, OPTIMIZER_FILE: self.optimizer}


def take_snapshot(
    state: TrainState, progress: Progress, files: dict[str, bytes], journal: Head | None = None
) -> Snapshot:
    """Copy weights and optimizer state; `files` (config.json, tokenizer.json ...) are written beside them."""
    if shards := state.shards:
        shards.reshard()
    file, weights = trained_tensors(state.model)
    moments = state.optimizer.state()
    held = {name: shards.held(value) for name, value in weights.items()} if shards else weights
    copy, optimizer = (
        {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}
        for tensors in (held, moments)
    )
    snapshot = Snapshot(file, copy, optimizer, progress, files, _masks(state.model), journal=journal)
    if not shards:
        return snapshot
    places = {name: shards.place_of(value) for name, value in weights.items()}
    places |= {name: shards.place_of_state(name) for name in moments}
    kept = {name: place for name, place in places.items() if place}
    return replace(snapshot, places=kept, rank=shards.world.rank, ranks=shards.world.size)


def trained_tensors(model: torch.nn.Module) -> tuple[str, dict[str, torch.Tensor]]:
    """The file and the tensors that hold a model: its adapter if it has one, else all, shared ones once."""
    if adapter := adapter_tensors(model):
        return ADAPTER_FILE, adapter
    first: dict[int, tuple[str, torch.Tensor]] = {}
    for name, tensor in _tensors_of(model):
        first.setdefault(id(tensor), (name, tensor))
    return MODEL_FILE, dict(first.values())


def _tensors_of(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and lasting buffers, as in `state_dict`, whose hooks would give up gathered weights."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        passing = module._non_persistent_buffers_set
        buffers = ((name, each) for name, each in module._buffers.items() if name not in passing)
        for name, tensor in (*module._parameters.items(), *buffers):
            if tensor is not None:
                yield f"{prefix}.{name}".removeprefix("."), tensor


def write_checkpoint(folder: Path, snapshot: Snapshot, is_left: Callable[[], bool] = lambda: False) -> int:
    """Write a snapshot as `folder/step-N`, manifest last, and read it back; returns its bytes.

    Of a snapshot in pieces, all ranks write their rows into files that `begin_checkpoint` made, and rank 0
    the rest; is_left: asked while it waits for the others.

    Raises: StorageError; FaultError if a tensor is not finite, InputError if a file would lie elsewhere,
    before anything is written.
    """
    _require_finite(snapshot)
    path, is_main = folder / snapshot.name, snapshot.rank == 0
    files = {durable.inside(path, name): content for name, content in snapshot.files.items()}
    if snapshot.ranks == 1:
        durable.remove_folder(path, first="manifest.json")
        durable.make_folder(path)
        written = {
            name: durable.write_file(path / name, safetensors(each))
            for name, each in snapshot.tensors.items()
        }
    else:
        for name, tensors in snapshot.tensors.items():
            write_rows(path / name, tensors, snapshot.places, is_main=is_main)
        if not is_main:
            durable.write_json(path / _done_file(snapshot.rank), {"run": snapshot.progress.run})
            return 0
        _wait_for_others(path, snapshot.ranks, is_left)
        written = {name: _measure(path / name) for name in snapshot.tensors}
    written |= {
        "state.json": durable.write_json(path / "state.json", asdict(snapshot.progress)),
        **{file.name: durable.write_file(file, content) for file, content in files.items()},
    }
    manifest = {
        "format": FORMAT, "run": snapshot.progress.run, "step": snapshot.progress.step,
        "files": {name: asdict(file) for name, file in written.items()},
        **({"journal": snapshot.journal._asdict()} if snapshot.journal else {}),
    }  # fmt: skip
    durable.write_json(path / "manifest.json", manifest)
    verify_checkpoint(path)
    return sum(file.size for file in written.values())


def begin_checkpoint(folder: Path, snapshot: Snapshot) -> None:
    """Make the files that all ranks then write their rows into, on rank 0. Raises: StorageError."""
    path = folder / snapshot.name
    durable.remove_folder(path, first="manifest.json")
    durable.make_folder(path)
    for name, tensors in snapshot.tensors.items():
        begin_file(path / name, tensors, snapshot.places)


def _wait_for_others(path: Path, ranks: int, is_left: Callable[[], bool]) -> None:
    """Wait until the other ranks have written their rows. Raises: StorageError if one does not."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    for rank in range(1, ranks):
        done = path / _done_file(rank)
        while not durable.is_plain(done, follow=False):
            if is_left() or time.monotonic() > deadline:
                raise StorageError(f"rank {rank} did not write its part of checkpoint {path.name}")
            time.sleep(_LOOK_SECONDS)
        durable.remove_file(done)


def _measure(file: Path) -> durable.Written:
    return durable.Written(file.stat().st_size, durable.sha256_file(file))


def _done_file(rank: int) -> str:
    return f"rank-{rank}.json"


def _require_finite(snapshot: Snapshot) -> None:
    tensors = {**snapshot.weights, **snapshot.optimizer}
    if (broken := find_non_finite(tensors.items(), snapshot.masks)) is not None:
        raise FaultError(
            f"{broken} is not finite after step {snapshot.progress.step}, so it is not saved, and what was "
            "saved before stays; lower optim.learning_rate, and start again with --new or --from RUN@last"
        )


def verify_checkpoint(path: Path, run: str | None = None) -> dict[str, Any]:
    """The manifest of a whole checkpoint. Raises: DamageError that names the file that is not as written."""
    return check_files(path, read_manifest(path), run, (weights_file(path).name, OPTIMIZER_FILE))


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


def newest_for_all(folder: Path, run: str, world: World) -> tuple[Path | None, list[str]]:
    """The same on every rank: rank 0 alone reads the files whole, which may lie on a disk that all share."""
    path, problems = newest_valid(folder, run) if world.is_main else (None, [])
    name, problems = world.agree([path.name if path else None, problems])
    return folder / name if name else None, problems


def load_checkpoint(path: Path, state: TrainState) -> Progress:
    """Bring weights, optimizer, precision, course and step to what a verified checkpoint holds.

    Raises: InputError if its weights are not of this model; DamageError if its optimizer's state is not.
    """
    progress = read_progress(path)
    if (progress.step, progress.run) != (step_of(path.name), read_manifest(path)["run"]):
        raise DamageError(
            f"{path}/state.json is that of step {progress.step} of run {progress.run[:80]}; {_GO_BACK}"
        )
    load_weights(weights_file(path), state.model, state.shards)
    place_of = state.shards.place_of_state if state.shards else lambda _: None
    tensors = read_tensors(path / OPTIMIZER_FILE, place_of)
    if progress.step and not tensors:
        raise DamageError(f"{path / OPTIMIZER_FILE} is empty; {_GO_BACK}")
    try:
        state.optimizer.load_state(tensors)
    except ValueError as error:
        raise DamageError(f"{path / OPTIMIZER_FILE} is not of this optimizer: {error}; {_GO_BACK}") from None
    state.precision.load_state(progress.precision)
    try:
        state.course = replace(state.course, changes=progress.changes)
    except RecipeError as error:
        raise DamageError(f"{path}/state.json: {error.problems[0]}; {_GO_BACK}") from None
    state.step = progress.step
    return progress


def read_progress(path: Path) -> Progress:
    """The state beside the tensors of a verified checkpoint. Raises: DamageError if no run writes it so."""
    try:
        values = shape.fit(durable.read_json_object(path / "state.json", follow=False), _STATE)
    except (ValueError, InputError) as error:
        raise damaged(path, f"state.json: {error}") from None
    names = [each.name for each in fields(Change)]
    values["changes"] = tuple(Change(*map(each.get, names)) for each in values.get("changes", ()))
    return Progress(**{each.name: values[each.name] for each in fields(Progress) if each.name in values})


def load_weights(path: Path, model: torch.nn.Module, shards: Shards | None = None) -> None:
    """Copy the tensors of a safetensors file into a model; with `shards` the rows that this rank holds.

    Raises: InputError if names, shapes or kinds differ, or a number is not finite.
    """
    if shards:
        shards.reshard()
    own = trained_tensors(model)[1]
    places = {name: shards.place_of(each) for name, each in own.items()} if shards else {}
    tensors = read_tensors(path, places.get)
    if shards:
        own = {name: shards.held(each) for name, each in own.items()}
    require_finite(path, tensors, _masks(model))
    advice = "give the weights of the same model"
    for name in [*own, *tensors]:
        if name not in own or name not in tensors:
            where = "model" if name in own else "file"
            raise InputError(f"{path}: {name[:80]} is only in the {where}; {advice}")
        theirs, ours = list(tensors[name].shape), list(own[name].shape)
        if theirs != ours:
            raise InputError(f"{path}: {name} is {theirs}, the model has {ours}; {advice}")
        if tensors[name].is_floating_point() != own[name].is_floating_point():
            raise InputError(
                f"{path}: {name} holds {tensors[name].dtype} numbers, the model has {own[name].dtype}"
            )
    for name, tensor in tensors.items():
        own[name].detach().copy_(tensor)


def require_finite(path: Path, tensors: dict[str, torch.Tensor], masks: Collection[str] = ()) -> None:
    """Raises: InputError if a tensor of a file is not finite, by its name; `masks` may be infinite."""
    if (broken := find_non_finite(tensors.items(), masks)) is not None:
        raise InputError(
            f"{path}: {broken} holds NaN or infinity, so nothing can be made of it; use other weights"
        )


def weights_file(path: Path) -> Path:
    """The file with the weights in a checkpoint, or any folder like it: an adapter's, or a whole model's."""
    return path / (ADAPTER_FILE if durable.is_plain(path / ADAPTER_FILE) else MODEL_FILE)


def retain(folder: Path, *, keep: int | str, keep_at: list[int], best: str | None) -> list[str]:
    """Remove checkpoints that are neither among the newest `keep`, nor the best, nor at a step to be kept.

    The newest has been read back by then. Returns the names of those removed.
    """
    paths = list_checkpoints(folder)
    if keep == "all":
        return []
    kept = {path.name for path in paths[-max(int(keep), 2) :]} | {best} | set(map(checkpoint_name, keep_at))
    removed = [path for path in paths if path.name not in kept]
    for path in removed:
        durable.remove_folder(path, first="manifest.json")
    return [path.name for path in removed]


def remove_unfinished(folder: Path, *, beyond: int) -> list[str]:
    """Remove checkpoints without a manifest, as a kill leaves them, and those beyond a step.

    Returns the names of what might be taken for a checkpoint and is none, as `step-000015.bak`.
    """
    whole = list_checkpoints(folder)
    for step, path in checkpoint_folders(folder):
        if path not in whole or step > beyond:
            durable.remove_folder(path, first="manifest.json")
    return sorted(path.name for path in folder.glob("step*") if step_of(path.name) is None)


def _masks(model: torch.nn.Module) -> frozenset[str]:
    return frozenset(name for name, _ in model.named_buffers())
