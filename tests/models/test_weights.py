"""Files of weights: their digest, their parts, their dtypes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from etude.errors import InputError
from etude.models.pretrained import inspect_model
from etude.models.weights import is_same, read_weight, read_weights, set_weight, stored_dtypes, tensor_shapes
from tests.bases import SMALL, write_model


def test_a_digest_names_the_weights_and_is_remembered(tmp_path: Path) -> None:
    write_model(tmp_path / "one", "qwen2", SMALL)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = inspect_model(tmp_path / "one").digest, inspect_model(tmp_path / "two").digest
    assert one == two == inspect_model(tmp_path / "one").digest
    file = tmp_path / "two" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert inspect_model(tmp_path / "two").digest != one


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    write_model(tmp_path, "qwen2", SMALL, max_shard_size="20KB")
    _lose_a_part(tmp_path)
    with pytest.raises(
        InputError, match=r"lacks model-00001-of-\d+.safetensors \(\d+ of \d+ parts are there\)"
    ):
        inspect_model(tmp_path, "causal")


def _lose_a_part(folder: Path) -> None:
    next(iter(sorted(folder.glob("model-0000*")))).unlink()


def write(folder: Path, files: dict[str, dict[str, torch.Tensor]]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, tensors in files.items():
        save_file(tensors, folder / name, metadata={"format": "pt"})
    names = {tensor: name for name, tensors in files.items() for tensor in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    return folder


PARTS = {
    "a.safetensors": {"one.weight": torch.ones(2, 3), "two.weight": torch.ones(4).bfloat16()},
    "b.safetensors": {"three.weight": torch.full((5,), 2.0).bfloat16(), "ids": torch.arange(3)},
}


def test_shapes_dtypes_and_numbers_are_those_that_were_written(tmp_path: Path) -> None:
    folder, written = write(tmp_path, PARTS), {n: t for part in PARTS.values() for n, t in part.items()}
    assert tensor_shapes(folder) == {name: tuple(tensor.shape) for name, tensor in written.items()}
    read = dict(read_weights(folder))
    assert read.keys() == written.keys() and all(torch.equal(read[name], written[name]) for name in read)
    assert torch.equal(read_weight(folder, ["nothing", "three.weight"]), written["three.weight"])  # type: ignore[arg-type]
    assert read_weight(folder, ["nothing"]) is None
    dtypes, main = stored_dtypes(folder)
    assert dtypes == {name: tensor.dtype for name, tensor in written.items() if name != "ids"}
    assert main == torch.bfloat16  # 9 numbers of 15


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.safetensors": {"one.weight": torch.arange(3)}}, "one.weight holds I64 numbers; expected F32"),
        (PARTS | {"c.safetensors": PARTS["a.safetensors"]}, "has one.weight in two of its files"),
    ],
)
def test_weights_that_are_whole_or_there_twice_are_refused(
    files: dict[str, dict[str, torch.Tensor]], said: str, tmp_path: Path
) -> None:
    folder = write(tmp_path, files)
    index = {"weight_map": {name: name for name in files}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=said):
        tensor_shapes(folder)


@pytest.mark.parametrize("name", ["../a.safetensors", "/etc/a.safetensors", "a.bin", "sub/a.safetensors"])
def test_an_index_names_safetensors_of_its_own_folder_only(name: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"one": name}}))
    with pytest.raises(InputError, match="which is no safetensors file of the folder"):
        tensor_shapes(tmp_path)


@pytest.mark.parametrize("content", [b"PK\3\4zip", b"\x80\x02pickle", b"\xff" * 40, b""])
def test_a_file_that_is_no_safetensors_is_refused_and_a_pickle_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    said = "it is a pickle" if content[:1] in b"P\x80" and content else "or is damaged"
    with pytest.raises(InputError, match=f"is not a safetensors file.*{said}"):
        tensor_shapes(tmp_path)


def test_equal_numbers_of_other_dtypes_are_the_same_and_norms_are_kept_in_fp32() -> None:
    exact = torch.tensor([1.0, 2.0])
    assert is_same(exact, exact.half()) and not is_same(exact, exact[None]) and not is_same(exact, None)
    model = torch.nn.ModuleDict({"norm": torch.nn.LayerNorm(2), "up": torch.nn.Linear(2, 2)})
    for name in ("norm.weight", "up.weight"):
        set_weight(model, name, torch.zeros(2, 2), torch.bfloat16)
    assert [model.get_parameter(name).dtype for name in ("norm.weight", "up.weight")] == [
        torch.float32,
        torch.bfloat16,
    ]
