"""From pytorch_model.bin to safetensors, and never through code."""

import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from etude.convert import convert
from etude.errors import InputError
from etude.models.pretrained import inspect_model, load_pretrained
from tests.bases import SMALL, write_model, write_t5


@pytest.fixture
def published(tmp_path: Path) -> tuple[Path, Any]:
    """A model in the way of old: a .bin beside its config.json."""
    folder = tmp_path / "published"
    model = write_model(folder, "qwen2", SMALL | {"tie_word_embeddings": True})
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder, model


def test_the_folder_loads_with_the_same_tensors(published: tuple[Path, Any], tmp_path: Path) -> None:
    folder, theirs = published
    files = convert(folder, tmp_path / "out")
    assert {path.name for path in files} == {"config.json", "generation_config.json", "model.safetensors"}
    model = load_pretrained(inspect_model(tmp_path / "out"), dtype=torch.float32, dropout=0.0)[0]
    wanted = theirs.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())


def test_parts_stay_parts(published: tuple[Path, Any], tmp_path: Path) -> None:
    folder, theirs = published
    (folder / "pytorch_model.bin").unlink()
    tensors = theirs.state_dict()
    names = sorted(set(tensors) - {"lm_head.weight"})
    halves = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, part in halves.items():
        torch.save({name: tensors[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in halves.items() for name in part}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    convert(folder, tmp_path / "out")
    model = load_pretrained(inspect_model(tmp_path / "out"), dtype=torch.float32, dropout=0.0)[0]
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(InputError, match="lacks pytorch_model-00002"):
        convert(folder, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_head_that_is_the_embedding_stays_so(tmp_path: Path) -> None:
    from transformers import T5ForConditionalGeneration

    folder = write_t5(tmp_path / "t5")
    model = T5ForConditionalGeneration.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    assert "lm_head.weight" in model.state_dict()
    convert(folder, tmp_path / "out")
    assert "lm_head.weight" not in load_file(tmp_path / "out" / "model.safetensors")
    assert inspect_model(tmp_path / "out").config.tied  # type: ignore[union-attr]


class Canary:
    """Unpickled by Python itself, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("plain", [True, False], ids=["a bare pickle", "inside a file of torch"])
def test_no_code_of_the_file_runs(plain: bool, published: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = published
    payload, file = {"weight": Canary(tmp_path / "ran")}, folder / "pytorch_model.bin"
    if plain:
        file.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, file)
    with pytest.raises(InputError, match="holds more than tensors") as caught:
        convert(folder, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["published"]
    with file.open("rb") as opened:
        assert plain is False or pickle.load(opened)  # noqa: S301 - the canary is ours: it sings where it may
    assert not plain or (tmp_path / "ran").exists()


def test_what_cannot_be_converted_is_refused_in_one_line(published: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = published
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        convert(folder, tmp_path / "full")
    torch.save([1, 2], folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="more than named tensors"):
        convert(folder, tmp_path / "out")
    (folder / "pytorch_model.bin").write_bytes(b"not a model")
    with pytest.raises(InputError, match="damaged"):
        convert(folder, tmp_path / "out")
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match="nothing to convert"):
        convert(folder, tmp_path / "out")
    shutil.rmtree(folder)
    with pytest.raises(InputError, match=r"no config\.json"):
        convert(folder, tmp_path / "out")


def test_links_pipes_and_packed_files_are_refused_in_one_line(
    published: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, _ = published
    file, whole = folder / "pytorch_model.bin", (folder / "pytorch_model.bin").read_bytes()
    (tmp_path / "secret").write_text("mine")
    (folder / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match=r"is a link to .*secret, outside of the folder"):
        convert(folder, tmp_path / "out")
    (folder / "README.md").unlink()
    file.rename(tmp_path / "elsewhere.bin")
    file.symlink_to(tmp_path / "elsewhere.bin")
    with pytest.raises(InputError, match=r"is a link to .*elsewhere\.bin, outside of the folder"):
        convert(folder, tmp_path / "out")
    file.unlink()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed,
        zipfile.ZipFile(io.BytesIO(whole)) as plain,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
        packed.writestr("archive/data/bomb", b"\0" * (1 << 24))
    with pytest.raises(InputError, match="is packed, which torch never writes"):
        convert(folder, tmp_path / "out")
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(InputError, match="is a pipe"):
        convert(folder, tmp_path / "out")
    file.unlink()
    for damaged in (whole[:-1], whole[: len(whole) // 2], b""):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            convert(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"a": torch.zeros(3, dtype=torch.int16)}, "'a' holds int16 numbers; expected float64"),
        ({"a": torch.zeros(3).to(torch.float8_e4m3fn)}, "'a' holds float8_e4m3fn numbers"),
        ({"a": torch.zeros(3, device="meta")}, "'a' has no data"),
        (dict.fromkeys(map(str, range(300)), torch.zeros(1 << 20)), "many are views of the same numbers"),
    ],
    ids=["int16", "float8", "meta", "views"],
)
def test_tensors_that_safetensors_or_a_disk_cannot_hold_are_refused(
    tensors: dict[str, torch.Tensor], says: str, published: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, _ = published
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=says):
        convert(folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


@pytest.mark.parametrize(("plain", "count"), [(True, 1 << 50), (False, 4 << 30)])
def test_a_file_that_asks_for_memory_gets_little(
    plain: bool, count: int, published: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, _ = published
    body = (
        b"\x80\x02cbuiltins\nbytearray\n" + pickle.LONG1 + b"\x08" + count.to_bytes(8, "little") + b"\x85R."
    )
    file = folder / "pytorch_model.bin"
    if plain:
        number = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)
        file.write_bytes(number + pickle.dumps(1001, protocol=2) + pickle.dumps({}, protocol=2) + body)
    else:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, content in (("data.pkl", body), ("version", b"3\n"), ("byteorder", b"little")):
                archive.writestr(f"archive/{name}", content)
    program = (
        "import resource, sys; from pathlib import Path; from etude.convert import convert\n"
        "try: convert(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )  # in a process of its own, as the peak is that of the largest child of all tests
    command = [sys.executable, "-c", program, str(folder), str(tmp_path / "out")]
    said, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said.startswith("InputError")
    assert re.search(r"far more memory than its size|is damaged", said)
    assert int(peak) < 2 << 20
    assert not (tmp_path / "out").exists()
