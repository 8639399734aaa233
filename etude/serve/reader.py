"""One thread that reads texts: those that wait together, whoever asked."""

import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from etude.data.samples.sample import Sample
from etude.engine.precision import Precision
from etude.serve.engine import BusyError, Limits

_MOST_TOKENS = 1 << 14  # of a pass, unless a single text has more
_MOST_WAITING = 1 << 22  # tokens, unless one request has more

Row = npt.NDArray[np.float32]
Read = Callable[[Sequence[Sample]], Tensor]


class Reader:
    """Reads texts in the order in which they come, up to `limits.rows` in a pass.

    told: is called with the traceback of a fault of etude
    """

    def __init__(self, precision: Precision, limits: Limits, told: Callable[[str], None]) -> None:
        self.limits, self._precision, self._told = limits, precision, told
        self._waiting: deque[tuple[Read, Sample, Future[Row]]] = deque()
        self._tokens = 0  # of all that wait
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="reader", daemon=True)
        self._thread.start()

    def ask(self, read: Read, samples: Sequence[Sample]) -> list[Future[Row]]:
        """Ask for what `read` gives (n, ...) of texts, a row for each; one that is cancelled is not read.

        Raises: BusyError if too much waits.
        """
        tokens, futures = sum(len(sample.tokens) for sample in samples), [Future[Row]() for _ in samples]
        with self._changed:
            if self._tokens and self._tokens + tokens > _MOST_WAITING:
                raise BusyError(f"texts of {self._tokens:,} tokens are waiting already; try again later")
            self._waiting.extend((read, sample, future) for sample, future in zip(samples, futures))
            self._tokens += tokens
            self._changed.notify()
        return futures

    def close(self) -> None:
        """End the thread; what waits is cancelled."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()
        for *_, future in self._waiting:
            future.cancel()

    @torch.inference_mode()
    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing or self._waiting)
                if self._is_closing:
                    return
                read, samples, futures = self._take()
            if not samples:
                continue
            try:
                with self._precision.autocast():
                    rows = read(samples).numpy()
            except Exception as error:  # memory that is short, too
                self._told("".join(traceback.format_exception(error, limit=-4)).rstrip())
                for future in futures:
                    future.set_exception(error)
            else:
                for future, row in zip(futures, rows):
                    future.set_result(row)

    def _take(self) -> tuple[Read, list[Sample], list[Future[Row]]]:
        """The first texts that wait, and those behind them that are read alike, as many as a pass holds."""
        read, samples, futures, tokens = self._waiting[0][0], list[Sample](), list[Future[Row]](), 0
        while self._waiting and len(samples) < self.limits.rows:
            wanted, sample, future = self._waiting[0]
            if wanted != read or (samples and tokens + len(sample.tokens) > _MOST_TOKENS):
                break
            self._waiting.popleft()
            self._tokens -= len(sample.tokens)
            if future.set_running_or_notify_cancel():
                samples.append(sample)
                futures.append(future)
                tokens += len(sample.tokens)
        return read, samples, futures
