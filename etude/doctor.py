"""A quick trial of a machine before it trains: versions, devices, disk, memory, limits."""

import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from etude import durable
from etude.checks import Absent, Check, Doubt, require, run_all
from etude.errors import EtudeError
from etude.records.environment import describe_machine
from etude.records.lease import is_locked, lock_run
from etude.text import plural, rough_size, shorten

PACKAGE = "etude-workbench"
# Why a version is the lowest that etude takes, where the reason is a hole; pyproject.toml has the bounds.
_HOLES = {
    "torch": "CVE-2025-32434, CVE-2026-24747: older ones run code from weights",
    "transformers": "CVE-2026-4372: older ones run code from a model's configuration",
    "jinja2": "CVE-2025-27516: older ones let a chat template out of its sandbox",
}
_LEAST_DISK, _LEAST_MEMORY, _LEAST_FILES = 5 << 30, 2 << 30, 1024
_VOLATILE = {"tmpfs", "ramfs"}


def examine(runs: Path) -> Iterator[Check]:
    """Try versions, devices, folders and limits of this machine, and say what to do; nothing is kept."""
    yield from run_all([("versions", _versions), ("text", _text), ("processor", _processor)])
    yield from run_all((f"GPU {index}", partial(_gpu, index)) for index in range(max(1, _count_gpus())))
    yield from run_all(
        [
            ("memory", _memory),
            ("open files", _open_files),
            (f"folder of runs, {runs}", lambda: _keeps(runs)),
            ("folder of the cache", lambda: _keeps(durable.cache_root())),
            ("folder of temporary files", lambda: _keeps(Path(tempfile.gettempdir()), may_vanish=True)),
            ("room for foreign code", _room),
        ]
    )


def try_folder(folder: Path) -> str:
    """A file is written whole, synced and found again, and a lock keeps a second process out."""
    with tempfile.TemporaryDirectory(prefix=".etude-doctor-", dir=folder) as name:
        data, path = os.urandom(8 << 20), Path(name) / "written"
        begun = time.monotonic()
        durable.write_file(path, data)
        seconds = time.monotonic() - begun
        require(
            path.read_bytes() == data,
            f"a file that was written is not what is read; do not train on {folder}",
        )
        held = Path(name) / "locked"
        held.mkdir()
        descriptor = lock_run(held)
        try:
            require(is_locked(held), "a lock keeps nobody out; put runs on another file system")
        finally:
            os.close(descriptor)
    return f"8 MB written and synced in {1000 * seconds:.0f} ms; locks hold"


def _versions() -> str:
    """Every package that etude or one of its packages requires is there, in a version that it takes."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    wanted, seen, problems = [PACKAGE], {PACKAGE}, []
    while wanted:
        name = wanted.pop()
        try:
            texts = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # the first one alone: the others were found
            raise Doubt("etude runs from its source without being installed: pip install -e .") from None
        for text in texts:
            each = Requirement(text)
            if each.marker and not each.marker.evaluate({"extra": ""}):
                continue
            key = canonicalize_name(each.name)
            problem = _problem(name, key, each)
            if problem:
                problems.append(problem)
            elif key not in seen:
                seen.add(key)
                wanted.append(key)
    require(not problems, "; ".join(problems))
    named = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers"))
    return f"Python {sys.version.split()[0]}, {named}; all {len(seen)} packages are as they ask of each other"


def _problem(asking: str, name: str, wanted: Any) -> str | None:
    """The fault of a package that another one requires, None without."""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{asking} needs {name}, which is not installed: pip install '{name}{wanted.specifier}'"
    if wanted.specifier.contains(version, prereleases=True):
        return None
    why = f" ({_HOLES[name]})" if asking == PACKAGE and name in _HOLES else ""
    needs = f"{asking} needs {wanted.specifier}{why}"
    return f"{name} is {version}, and {needs}: pip install '{name}{wanted.specifier}'"


def _text() -> str:
    """Names of files and what is printed are UTF-8."""
    names, printed = sys.getfilesystemencoding(), sys.stdout.encoding or "utf-8"
    for what, encoding in (("names of files are", names), ("the terminal takes", printed)):
        if encoding.lower().replace("-", "") != "utf8":
            raise Doubt(
                f"{what} {encoding}; set LC_ALL=C.UTF-8 (or PYTHONUTF8=1) for text that is not English"
            )
    return "names of files and the terminal are UTF-8"


def _processor() -> str:
    """A product of matrices and attention are right, with the threads that this process may use."""
    import torch

    from etude.engine.precision import has_native_bf16
    from etude.engine.world import measure_matrix_rate

    device = torch.device("cpu")
    _compute(device)
    rate = measure_matrix_rate(device, torch.float32) / 1e9
    machine = describe_machine()
    bf16 = "bf16 in hardware" if has_native_bf16(device) else "bf16 is emulated, slower than fp32"
    threads, quota = torch.get_num_threads(), _quota()
    words = f"{shorten(machine['cpu'], 60)}, {plural(threads, 'thread')}, {rate:.0f} GFLOP/s in fp32; {bf16}"
    cores = min(machine["cores"] or threads, quota or threads)
    if threads > max(1, round(cores)):
        raise Doubt(
            f"{words}; {threads} threads share {cores:g} cores: set OMP_NUM_THREADS={max(1, round(cores))}"
        )
    return words


def _compute(device: Any) -> None:
    """Products, attention and their gradients on a device against the CPU in float64. Raises: EtudeError."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    source = torch.randn(2, 4, 128, 64, generator=torch.Generator().manual_seed(17), dtype=torch.float64)

    def gradient(values: Any) -> tuple[Any, Any]:
        values = values.detach().clone().requires_grad_()
        out = scaled_dot_product_attention(values, values, values @ values.mT @ values / 64, is_causal=True)
        out.square().sum().backward()  # type: ignore[no-untyped-call]
        return out.detach(), values.grad

    expected = gradient(source)
    for dtype, bound in ((torch.float32, 1e-4), (torch.bfloat16, 0.1)):
        for ours, theirs in zip(gradient(source.to(device, dtype)), expected):
            difference = float((ours.double().cpu() - theirs).norm() / theirs.norm())
            require(
                difference < bound,
                f"attention in {dtype} is wrong by {difference:.1e} of its size; train with another torch",
            )


def _quota() -> float | None:
    """Cores that the container of this process may use, None without a limit."""
    try:
        most, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return int(most) / int(period)
    except (OSError, ValueError):
        return None


def _count_gpus() -> int:
    """GPUs that torch sees; none where torch cannot even be loaded, which other checks say."""
    try:
        import torch

        return torch.cuda.device_count()
    except (ImportError, OSError):
        return 0


def _gpu(index: int) -> str:
    """A GPU computes what the CPU does, and nobody else fills its memory."""
    import torch

    from etude.engine.device import runs_on
    from etude.engine.precision import has_native_bf16
    from etude.engine.world import measure_matrix_rate

    if not torch.cuda.is_available():
        raise _without_gpu(torch.__version__, torch.version.cuda, _driver())
    device, name = torch.device("cuda", index), shorten(torch.cuda.get_device_name(index), 60)
    built = torch.cuda.get_arch_list()
    require(
        runs_on(torch.cuda.get_device_capability(index), built),
        f"{name}: this torch has programs for {', '.join(built)} alone; install another",
    )
    _compute(device)
    dtype = torch.bfloat16 if has_native_bf16(device) else torch.float16
    rate = measure_matrix_rate(device, dtype) / 1e12
    free, total = torch.cuda.mem_get_info(device)
    speed = f"{rate:.0f} TFLOP/s in {str(dtype).removeprefix('torch.')}"
    words = f"{name}, {speed}, {rough_size(free)} of {rough_size(total)} free"
    if torch.cuda.device_count() > 1 and not torch.distributed.is_nccl_available():
        raise Doubt(f"{words}; this torch has no NCCL, so several GPUs cannot train together")
    if free < 0.9 * total:
        raise Doubt(f"{words}; nvidia-smi names the processes that have the rest")
    return words


def _without_gpu(torch: str, cuda: str | None, driver: str | None) -> Exception:
    """Why there is no GPU for torch: none is here, torch is built without CUDA, or the driver is too old."""
    if driver is None:
        return Absent("no NVIDIA driver is loaded here; training takes the CPU")
    if cuda is None:
        return EtudeError(
            f"the NVIDIA driver {driver} is loaded, but torch {torch} is built without CUDA; install torch "
            "from the index that pytorch.org/get-started names for your CUDA version"
        )
    return EtudeError(
        f"torch {torch} is built for CUDA {cuda}, and finds no GPU under the NVIDIA driver {driver}; "
        "nvidia-smi says which CUDA this driver takes at most: take a newer driver or an older build of torch"
    )


def _driver() -> str | None:
    """The version of the NVIDIA driver that is loaded, None without one."""
    try:
        from pynvml import nvmlInit, nvmlSystemGetDriverVersion

        nvmlInit()
        return str(nvmlSystemGetDriverVersion())
    except Exception:  # pynvml raises what it likes where no driver is
        return "of an unknown version" if Path("/proc/driver/nvidia/version").exists() else None


def _memory() -> str:
    import psutil

    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    words = (
        f"{rough_size(memory.available)} of {rough_size(memory.total)} free, swap {rough_size(swap.total)}"
    )
    if memory.available < _LEAST_MEMORY:
        raise Doubt(
            f"{words}; end other programs before you train: `etude estimate` says what a recipe takes"
        )
    return words


def _open_files() -> str:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < _LEAST_FILES:
        raise Doubt(f"this shell allows {soft:,}; run `ulimit -n {min(hard, 65536) if hard > 0 else 65536}`")
    return f"{soft:,} at once"


def _keeps(folder: Path, may_vanish: bool = False) -> str:
    """A folder, or the nearest one that holds it, can be written to, has space, and outlives this machine."""
    place = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())
    try:
        words = try_folder(place)
    except OSError as error:
        raise EtudeError(f"{place} cannot be written to ({error.strerror}); choose another folder") from None
    free, kind = shutil.disk_usage(place).free, _file_system(place)
    words = f"{words}; {rough_size(free)} free, {kind or 'file system unknown'}"
    nodes = os.statvfs(place)
    if free < _LEAST_DISK or (nodes.f_files and nodes.f_favail < 10_000):
        raise Doubt(f"{words}; `etude estimate` says what a recipe takes: free some, or go elsewhere")
    if kind in _VOLATILE and not may_vanish:
        raise Doubt(f"{words}, which is memory: it is empty after a restart, so keep runs elsewhere")
    return words


def _file_system(place: Path) -> str | None:
    """The kind of the file system that holds a folder, as Linux names it."""
    import psutil

    path = str(place.resolve())
    holding = [
        each for each in psutil.disk_partitions(all=True)
        if path == each.mountpoint or path.startswith(each.mountpoint.rstrip("/") + "/")
    ]  # fmt: skip
    return max(holding, key=lambda each: len(each.mountpoint)).fstype if holding else None


def _room() -> str:
    from etude.confine.room import strongest

    tier = strongest()
    if not tier.confines:
        raise Doubt(
            f"this kernel offers {tier} alone, so pass@k and models' own tokenizer code are refused here; "
            "Linux 5.13 or newer with Landlock and seccomp has more"
        )
    return str(tier)
