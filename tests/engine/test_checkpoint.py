import errno
import json
import os
import shutil
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from etude import durable
from etude.engine import checkpoint as checkpoints
from etude.engine.tensor_files import DTYPES, read_tensors, safetensors
from etude.engine.world import World
from etude.errors import DamageError, InputError, StorageError
from tests.engine.states import Payload, make_state, snapshot


def save(folder: Path, step: int, seed: int = 0) -> Path:
    checkpoints.write_checkpoint(folder, snapshot(make_state(seed), step))
    return folder / f"step-{step:06d}"


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return read_tensors(path / "model.safetensors") | read_tensors(path / "optimizer.safetensors")


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    first = make_state()
    checkpoints.write_checkpoint(tmp_path, snapshot(first, 3))
    second = make_state(seed=9)
    progress = checkpoints.load_checkpoint(tmp_path / "step-000003", second)
    assert (second.step, progress.best) == (3, {"checkpoint": "step-000001", "value": 1.0})
    for left, right in (
        (first.model.state_dict(), second.model.state_dict()),
        (first.optimizer.state(), second.optimizer.state()),
    ):
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)


def test_our_safetensors_are_read_by_the_library_in_every_dtype(tmp_path: Path) -> None:
    given = {f"t{number}": torch.ones(3, number, dtype=dtype) for number, dtype in enumerate(DTYPES)}
    durable.write_file(tmp_path / "a.safetensors", safetensors(given))
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        for name, tensor in given.items():
            assert torch.equal(file.get_tensor(name), tensor) and file.get_tensor(name).dtype == tensor.dtype


def test_a_kill_at_any_call_of_a_save_leaves_the_new_or_the_previous_checkpoint(tmp_path: Path) -> None:
    before, after = save(tmp_path / "ref", 1), save(tmp_path / "ref", 2, seed=1)
    work = tmp_path / "work"
    with durable.faults(durable.FaultPlan()) as plan:
        save(work, 2, seed=1)
    assert len(plan.calls) > 25
    # Taken before forking: torch's threads do not survive a fork.
    first, second = snapshot(make_state(), 1), snapshot(make_state(1), 2)
    for at in range(len(plan.calls)):
        shutil.rmtree(work)
        checkpoints.write_checkpoint(work, first)
        if (child := os.fork()) == 0:
            with durable.faults(durable.FaultPlan(at)):
                checkpoints.write_checkpoint(work, second)
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == 9
        newest, _ = checkpoints.newest_valid(work, "run-1")
        assert newest is not None
        expected = tensors(before if newest.name == "step-000001" else after)
        assert all(torch.equal(value, expected[name]) for name, value in tensors(newest).items())
        checkpoints.remove_unfinished(work, beyond=int(newest.name[5:]))
        assert {path.name for path in work.iterdir()} <= {"step-000001", "step-000002"}


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_fault_at_any_call_of_a_save_is_named_and_the_next_save_works(tmp_path: Path, error: int) -> None:
    with durable.faults(durable.FaultPlan()) as plan:
        save(tmp_path, 2)
    for at in range(len(plan.calls)):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        save(tmp_path, 1)
        with (
            durable.faults(durable.FaultPlan(at, error, once=False)),
            pytest.raises(StorageError, match="run the same command again"),
        ):
            save(tmp_path, 2)
        newest, _ = checkpoints.newest_valid(tmp_path, "run-1")
        assert newest is not None and (newest.name == "step-000001" or len(plan.calls) - at <= 2)
        save(tmp_path, 2)
        assert checkpoints.newest_valid(tmp_path, "run-1")[0] == tmp_path / "step-000002"


@pytest.mark.parametrize(
    "file", ["model.safetensors", "optimizer.safetensors", "state.json", "config.json", "manifest.json"]
)
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_any_damage_is_named_and_the_checkpoint_before_is_used(tmp_path: Path, file: str, harm: str) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2) / file
    data = bytearray(path.read_bytes())
    if harm == "flip":
        data[len(data) // 2] ^= 1
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes(data[:-3] if harm == "cut" else data)
    newest, problems = checkpoints.newest_valid(tmp_path, "run-1")
    assert newest == tmp_path / "step-000001"
    if (file, harm) != ("manifest.json", "remove"):
        assert len(problems) == 1 and "step-000002" in problems[0]


def test_a_checkpoint_of_another_run_is_not_used(tmp_path: Path) -> None:
    save(tmp_path, 1)
    newest, (problem,) = checkpoints.newest_valid(tmp_path, "run-2")
    assert newest is None and "belongs to run run-1" in problem


def reseal(path: Path) -> None:
    """Let the manifest of a checkpoint say what its files are now."""
    manifest = json.loads((path / "manifest.json").read_text())
    for name in list(manifest["files"]):
        if (path / name).exists():
            manifest["files"][name] = {
                "size": (path / name).stat().st_size,
                "sha256": durable.sha256_file(path / name),
            }
        else:
            del manifest["files"][name]
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_checkpoint_whose_manifest_leaves_out_a_part_is_damaged(tmp_path: Path, file: str) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    (path / file).unlink()
    reseal(path)
    newest, (problem,) = checkpoints.newest_valid(tmp_path, "run-1")
    assert newest == tmp_path / "step-000001" and f"does not name {file}" in problem


def test_a_checkpoint_under_the_name_of_another_step_is_damaged(tmp_path: Path) -> None:
    save(tmp_path, 1).rename(tmp_path / "step-000009")
    with pytest.raises(DamageError, match="its manifest is that of step 1"):
        checkpoints.verify_checkpoint(tmp_path / "step-000009")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"step": 10**9}, "is that of step 1000000000"), ({"run": "other"}, "is that of step 1 of run other"),
        ({"precision": {"scale": "nan", "good_steps": 0}}, "scale"),
        ({"precision": {"scale": 0, "good_steps": 0}}, "scale"),
        ({"precision": {"scale": 1, "good_steps": -1}}, "good_steps"),
        ({"best": {"checkpoint": "step-000001", "value": "nan"}}, "value"),
    ],
)  # fmt: skip
def test_a_state_that_no_run_writes_is_refused_also_under_a_hash_that_holds(
    tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    path = save(tmp_path, 1)
    state = json.loads((path / "state.json").read_text()) | changes
    (path / "state.json").write_text(json.dumps(state))
    reseal(path)
    with pytest.raises(DamageError, match=says):
        checkpoints.load_checkpoint(path, make_state())


def test_a_state_of_another_optimizer_is_refused_also_under_a_hash_that_holds(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    tensors = read_tensors(path / "optimizer.safetensors")
    for wrong in (
        {},
        {"0.weight/exp_avg": tensors["0.weight/exp_avg"]},
        {**tensors, "0.bias/step": torch.ones(3)},
    ):
        save_file(wrong, path / "optimizer.safetensors")
        reseal(path)
        checkpoints.verify_checkpoint(path)
        with pytest.raises(DamageError, match=r"optimizer\.safetensors is .*; remove that checkpoint"):
            checkpoints.load_checkpoint(path, make_state())


def test_retention_keeps_the_newest_the_best_and_the_milestones(tmp_path: Path) -> None:
    for step in range(1, 9):
        save(tmp_path, step)
    removed = checkpoints.retain(tmp_path, keep=2, keep_at=[3], best="step-000002")
    assert removed == [f"step-{step:06d}" for step in (1, 4, 5, 6)]
    assert [path.name for path in checkpoints.list_checkpoints(tmp_path)] == [
        f"step-{step:06d}" for step in (2, 3, 7, 8)
    ]
    assert checkpoints.retain(tmp_path, keep="all", keep_at=[], best=None) == []


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_checkpoint_is_refused_and_no_code_runs(tmp_path: Path, zipped: bool) -> None:
    canary = tmp_path / "canary"
    path = tmp_path / "model.safetensors"
    torch.save({"x": Payload(canary)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="it is a pickle, which could run code"):
        read_tensors(path)
    assert not canary.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", struct.pack("<Q", 1 << 40) + b"{}", struct.pack("<Q", 200 << 20), b"\x00" * 100,
     struct.pack("<Q", 60) + json.dumps({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}).encode()],
)  # fmt: skip
def test_a_file_that_is_nosafetensors_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not a safetensors file") as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_are_refused_by_name(tmp_path: Path) -> None:
    save_file({"0.weight": torch.zeros(8, 5), "0.bias": torch.zeros(8)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"0.weight is \[8, 5\], the model has \[8, 4\]"):
        checkpoints.load_weights(tmp_path / "a.safetensors", make_state().model)


def test_rank_0_alone_reads_the_checkpoint_that_all_go_on_from(tmp_path: Path) -> None:
    save(tmp_path / "seen", 1)
    (save(tmp_path / "seen", 2) / "model.safetensors").write_bytes(b"damaged")
    worlds = [
        World(torch.device("cpu"), rank, 2, torch.distributed.FileStore(str(tmp_path / "store"), 2))
        for rank in range(2)
    ]
    with ThreadPoolExecutor(2) as pool:  # rank 1 has nothing to read
        found = list(pool.map(
            checkpoints.newest_for_all, [tmp_path / "seen", tmp_path / "none"], ["run-1"] * 2, worlds
        ))  # fmt: skip
    assert found[0][0] == tmp_path / "seen/step-000001" and found[1][0] == tmp_path / "none/step-000001"
    assert found[0][1] == found[1][1] and len(found[0][1]) == 1
