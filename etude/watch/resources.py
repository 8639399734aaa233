"""Use of the machine by a run, sampled in a thread of its own."""

import contextlib
import threading
from dataclasses import dataclass
from typing import Any

_SAMPLE_SECONDS = 1.0


@dataclass(frozen=True)
class Usage:
    """Means since the last reading; memory is the latest. CPU in percent of one core, of this process.

    mapped_bytes  of rss_bytes, pages of files and memory that is shared; None where the system does not say
    """

    cpu_percent: float
    rss_bytes: int
    gpu_percent: float | None
    gpu_memory_bytes: int | None
    mapped_bytes: int | None


class ResourceSampler:
    """Samples CPU, memory and the GPU once a second until closed."""

    def __init__(self, gpu_index: int | None = None) -> None:
        import psutil

        self._process = psutil.Process()
        self._gpu = _open_gpu(gpu_index)
        self._gpu_percents: list[float] = []
        self._stop = threading.Event()
        self._process.cpu_percent()
        self._thread = threading.Thread(target=self._sample, name="resources", daemon=True)
        if self._gpu is not None:
            self._thread.start()

    def read(self) -> Usage:
        """Usage since the last call."""
        percents, self._gpu_percents = self._gpu_percents, []
        memory = self._process.memory_info()
        return Usage(
            cpu_percent=self._process.cpu_percent(),
            rss_bytes=memory.rss,
            gpu_percent=sum(percents) / len(percents) if percents else None,
            gpu_memory_bytes=self._gpu_memory(),
            mapped_bytes=getattr(memory, "shared", None),
        )

    def memory(self) -> int:
        """Bytes in use on the GPU, or by the process where there is none."""
        return self._gpu_memory() or int(self._process.memory_info().rss)

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _gpu_memory(self) -> int | None:
        if self._gpu is not None:
            import pynvml

            with contextlib.suppress(pynvml.NVMLError):
                return int(pynvml.nvmlDeviceGetMemoryInfo(self._gpu).used)
        return None

    def _sample(self) -> None:
        import pynvml

        while not self._stop.wait(_SAMPLE_SECONDS):
            with contextlib.suppress(pynvml.NVMLError):
                self._gpu_percents.append(float(pynvml.nvmlDeviceGetUtilizationRates(self._gpu).gpu))


def _open_gpu(index: int | None) -> Any | None:
    if index is None:
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByIndex(index)
    except pynvml.NVMLError:
        return None
