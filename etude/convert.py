"""`etude import`: from pytorch_model.bin to safetensors, in a process apart that may do nothing else.

A .bin file is a pickle, which can name any code. torch's unpickler for tensors refuses to call it; should
that ever fail, the process that reads has no environment, and is ended before it opens a socket, starts a
process, removes a file or writes one elsewhere: by a look at what Python does, and beneath it by the kernel,
where that is Linux with Landlock and seccomp.
"""

import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from etude import durable
from etude.confine.room import Room, enter_strongest
from etude.errors import EtudeError, InputError
from etude.records.folder import require_outside_runs

_CARRIED = re.compile(
    r"(config|generation_config|tokenizer\w*|special_tokens_map|added_tokens|vocab)\.json|merges\.txt"
    r"|vocab\.txt|\w+\.model|chat_template\.jinja|LICENSE\S*|README\.md"
)
_LARGEST_CARRIED_BYTES = 256 << 20
# Time of the process apart: to start, and for each byte, at a tenth of the speed of a slow disk.
_SECONDS, _BYTES_A_SECOND = 120, 5 << 20
# Memory that reading takes beside three times the size of the files.
_READING_BYTES = 1 << 30
# torch names a head that is the embedding a second time; other tools would take it for a matrix of its own.
_HEAD = "lm_head.weight"
# Events that reading tensors never causes; a hook that Python calls before each ends the process instead.
_FORBIDDEN = (
    "socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.remove",
    "os.chmod", "os.kill", "pty.", "ctypes.", "shutil.", "webbrowser.", "urllib.", "ftplib.", "smtplib.",
)  # fmt: skip


def convert(source: Path, out: Path) -> list[Path]:
    """Write the model in `source` to the new folder `out` as safetensors, whole or not at all.

    Returns its files. Raises: InputError if there is nothing to convert, it holds more than tensors, or `out`
    is there already.
    """
    source, out = source.absolute(), out.absolute()
    require_outside_runs(out)
    if not (source / "config.json").is_file():
        raise InputError(f"{source} has no config.json; give the folder of a model")
    if not sorted(source.glob("pytorch_model*.bin")):
        raise InputError(f"{source} has no pytorch_model.bin; there is nothing to convert")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already; give a new folder, or an empty one")
    parts = _parts(source)
    for part in parts:
        _check_part(source, part)
    limit = _SECONDS + sum(part.stat().st_size for part in parts) / _BYTES_A_SECOND
    with durable.new_folder(out) as hidden:
        for path in sorted(source.iterdir()):
            if _CARRIED.fullmatch(path.name) and path.is_file():
                _check_inside(source, path)
                durable.write_file(
                    hidden / path.name, durable.read_bytes(path, most_bytes=_LARGEST_CARRIED_BYTES)
                )
        environment = {"PATH": os.defpath, "HOME": str(hidden), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-I", "-m", "etude.convert", str(source), str(hidden)]
        try:
            ended = subprocess.run(
                command, env=environment, cwd=hidden, stdin=subprocess.DEVNULL, capture_output=True,
                check=False, encoding="utf-8", errors="replace", timeout=limit,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            wrong = (
                f"took more than {limit:.0f} s to read, which tensors on a slow disk do not, and was stopped"
            )
            advice = "copy it to a local disk and try again, or get the model as safetensors"
            raise InputError(f"{source} {wrong}; {advice}: the file may be hostile") from None
        if ended.returncode < 0:
            name = signal.Signals(-ended.returncode).name
            raise InputError(f"{source}: reading it was ended by {name}; copy it again")
        if ended.returncode == 2:
            raise InputError(ended.stderr.strip().splitlines()[-1])
        if ended.returncode:
            reason = (ended.stderr.strip().splitlines() or ["no message"])[-1]
            raise EtudeError(f"{source} could not be converted: {reason}")
    return sorted(out.iterdir())


def _check_inside(source: Path, path: Path) -> None:
    """Raises: InputError if a name in the folder is a link to elsewhere, but for the hub's own cache."""
    target, folder = path.resolve(), source.resolve()
    is_cached = folder.parent.name == "snapshots" and target.is_relative_to(folder.parent.parent / "blobs")
    if not target.is_relative_to(folder) and not is_cached:
        raise InputError(f"{path} is a link to {target}, outside of the folder; put a copy in its place")


def _convert_apart(source: Path, out: Path) -> None:
    """In the process apart: read each part, refuse all but tensors, write it."""
    import psutil

    import etude.engine.tensor_files  # noqa: F401 - and torch, before memory is limited

    parts = _parts(source)
    size, held = sum(part.stat().st_size for part in parts), psutil.Process().memory_info().vms
    # A part is mapped or read whole, and so are copies of tensors that are no plain run of memory.
    enter_strongest(
        Room(
            cpu_seconds=None,
            memory_bytes=held + 3 * size + _READING_BYTES,
            file_bytes=2 * size + (64 << 20),
            readable=(str(source), *(str(part.resolve()) for part in parts)),
            writable=(str(out),),
        )
    )
    sys.addaudithook(_refuse)
    _convert_parts(parts, out)


def _convert_parts(parts: list[Path], out: Path) -> None:
    import torch

    from etude.engine.tensor_files import safetensors

    weight_map: dict[str, str] = {}
    total = 0
    for number, part in enumerate(parts, 1):
        try:
            loaded: Any = torch.load(part, map_location="cpu", weights_only=True, mmap=_is_zip(part))
        except Exception as error:  # torch raises whatever its reader raises
            reason = " ".join(str(error).split())[:110]
            if isinstance(error, MemoryError) or "enough memory" in reason:
                reason = "it asks for far more memory than its size"
            wrong = f"{part} holds more than tensors, or is damaged"
            raise InputError(f"{wrong}; nothing of it was run ({reason})") from None
        tensors = _tensors(part, loaded, set(weight_map))
        name = (
            f"model-{number:05d}-of-{len(parts):05d}.safetensors" if len(parts) > 1 else "model.safetensors"
        )
        total += durable.write_file(out / name, safetensors(tensors)).size
        weight_map |= dict.fromkeys(tensors, name)
    if len(parts) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        durable.write_json(out / "model.safetensors.index.json", index)


def _parts(source: Path) -> list[Path]:
    index = source / "pytorch_model.bin.index.json"
    if not index.is_file():
        return [source / "pytorch_model.bin"]
    try:
        names = sorted(set(durable.read_json_object(index)["weight_map"].values()))
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{index} cannot be read; copy the model again") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not (source / name).is_file():
            raise InputError(f"{source} lacks {name}; copy the model again")
    return [source / name for name in names]


def _check_part(source: Path, part: Path) -> None:
    """Raises: InputError unless a part is a plain file of the folder that holds all its bytes unpacked."""
    durable.check_plain(part)
    _check_inside(source, part)
    if not _is_zip(part):
        return
    try:
        with zipfile.ZipFile(part) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OverflowError) as error:
        raise InputError(f"{part} is damaged ({' '.join(str(error).split())[:80]}); copy it again") from None
    is_packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if is_packed or sum(entry.file_size for entry in entries) > part.stat().st_size:
        wrong = "is packed, which torch never writes, and may grow without end"
        raise InputError(f"{part} {wrong}; save it with torch")


def _is_zip(part: Path) -> bool:
    with part.open("rb") as file:
        return file.read(2) == b"PK"


def _tensors(part: Path, loaded: Any, known: set[str]) -> dict[str, Any]:
    """The tensors by name, each with memory of its own, as safetensors has them."""
    import torch

    from etude.engine.tensor_files import DTYPES

    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise InputError(f"{part} holds more than named tensors; nothing of it was run")
    size = part.stat().st_size
    for name, tensor in loaded.items():
        if not isinstance(name, str) or name in known:
            raise InputError(f"{part} names {name!r} twice, or not by a text; copy the model again")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            raise InputError(f"{part}: {name} is sparse, quantised or complex; give the model it was made of")
        if tensor.is_meta or tensor.dtype not in DTYPES:
            numbers = str(tensor.dtype).removeprefix("torch.")
            wrong = "has no data" if tensor.is_meta else f"holds {numbers} numbers"
            expected = "float64, float32, float16, bfloat16, int64, int32, uint8 or bool"
            advice = "give the model that it was made of"
            raise InputError(f"{part}: {name[:60]!r} {wrong}; expected {expected}; {advice}")
        if tensor.nbytes > size:
            wrong = f"claims {tensor.nbytes:,} bytes, more than the file has"
            raise InputError(f"{part}: {name} {wrong}; it is damaged")
    if (total := sum(tensor.nbytes for tensor in loaded.values())) > 2 * size:
        wrong = f"holds {total:,} bytes of tensors in a file of {size:,}: many are views of the same numbers"
        raise InputError(f"{part} {wrong}; save a copy of each with torch")
    places = [_place(tensor) for name, tensor in loaded.items() if name != _HEAD]
    is_tied = _HEAD in loaded and _place(loaded[_HEAD]) in places
    return {name: tensor.detach() for name, tensor in loaded.items() if name != _HEAD or not is_tied}


def _place(tensor: Any) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def _refuse(event: str, details: tuple[Any, ...]) -> None:
    is_ours = bool(details) and str(details[0]).startswith(f"{Path.cwd()}{os.sep}")
    if event == "os.remove" and is_ours:  # what a full disk left half-written
        return
    if event.startswith(_FORBIDDEN) or (event == "open" and _writes(*details) and not is_ours):
        raise InputError(f"the file tried {event}, which reading tensors never does; it was stopped")


def _writes(path: object, mode: object, flags: int) -> bool:
    """True if an `open` is for writing; without a mode it comes from os.open."""
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) and str(path) != os.devnull


if __name__ == "__main__":
    try:
        _convert_apart(Path(sys.argv[1]), Path(sys.argv[2]))
    except EtudeError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except (MemoryError, RuntimeError) as error:  # torch has no class of its own for want of memory
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        wrong = "its tensors take far more memory than the size of the files"
        print(f"{wrong}; nothing was written", file=sys.stderr)
        sys.exit(2)
