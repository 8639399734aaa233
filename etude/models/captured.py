"""One token of decoding as a CUDA graph: the host starts one graph, not hundreds of kernels.

At batch 1 an H100 computes a token of a 1.5B model in 3 ms, and the host takes 16 ms to start its kernels.
A graph repeats kernels with the same shapes and addresses. So the tokens and their places lie in tensors that
are written anew, and attention looks at a fixed number of the cache's places behind a mask.
"""

import functools
import traceback
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from etude.models.cache import Cache
from etude.models.decoder import Decoder

# A capture takes as long as three tokens without one, and is made where more than these follow.
FEWEST_TOKENS = 16
# One block of threads reads all keys of a head behind a mask: from some length on that takes longer.
FEWEST_KEYS, MOST_KEYS = 256, 8192

Step = Callable[[], Tensor]


class GraphReader:
    """A decoder on a GPU that reads one token of each row, as `Decoder.advance`, by replaying a graph.

    A graph looks at as many places of the cache as a power of two, so that longer rows need few of them. It
    reads the weights where they lie, and ends with the reader. Where none can be made, or it would not pay,
    the decoder goes on without.

    failure  of a capture, with its traceback, as text: the error itself would keep the memory of the graph
    """

    def __init__(self, model: Decoder, cache: Cache) -> None:
        self._model, self._cache = model, cache
        self._tokens = torch.zeros(len(cache.lengths), dtype=torch.int64, device=cache.device)
        self._places = torch.tensor(cache.lengths, device=cache.device)
        self._reach = 0
        self._replay: Step | None = None
        self.failure = ""

    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits (B, V) after the next token (B,) of each row, to be read before the next call."""
        needed = max(self._cache.lengths) + 1
        if needed > self._reach:
            self._prepare(needed, tokens)
        if self._replay is None:
            return self._model.advance(tokens.to(self._tokens.device), self._cache)
        self._tokens.copy_(tokens)
        logits = self._replay()
        self._places += 1
        self._cache.lengths = [length + 1 for length in self._cache.lengths]
        return logits

    def _prepare(self, needed: int, tokens: Tensor) -> None:
        """Capture a graph for rows of this length and more, if that is worth it."""
        capacity = self._cache.capacity
        self._replay, self._reach = None, min(max(FEWEST_KEYS, 1 << (needed - 1).bit_length()), capacity)
        if self.failure or capacity - needed < FEWEST_TOKENS or self._reach > MOST_KEYS:
            self._reach = capacity
            return
        self._tokens.copy_(tokens)
        try:
            self._replay = capture(self._step, self._tokens.device)
        except RuntimeError as error:  # also out of memory
            self.failure, self._reach = "".join(traceback.format_exception(error)), capacity
            warnings.warn(f"text is written without a CUDA graph, so slower: {error}", stacklevel=2)

    def _step(self) -> Tensor:
        """Logits of `_tokens` at `_places`; done again, it gives and leaves the same."""
        places, reach = self._places[:, None], self._reach
        hidden = self._model.forward(self._tokens[:, None], positions=places, cache=self._cache, reach=reach)
        return self._model.head(hidden[:, 0])


def capture(step: Step, device: torch.device) -> Step:
    """A function that repeats the work of a step on a GPU, in the same tensors.

    Raises: RuntimeError if the step cannot be captured, or memory is short; the stream goes on as before.
    """
    current, stream = torch.cuda.current_stream(device), _side_stream(device)
    kind = device.type
    # Copies that autocast keeps would live in the graph's memory or be gone before it: it makes them anew.
    precision = torch.autocast(
        kind, torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind), cache_enabled=False
    )
    graph = torch.cuda.CUDAGraph()
    try:
        with precision:
            stream.wait_stream(current)
            with torch.cuda.stream(stream):  # what is made at the first call is not to be part of the graph
                step()
            current.wait_stream(stream)
            # Other threads load batches meanwhile, and may allocate.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                logits = step()
    finally:
        torch.cuda.set_stream(current)  # a capture that failed leaves its own stream behind

    def replay() -> Tensor:
        graph.replay()
        return logits

    return replay


def is_worth_it(model: Decoder, max_tokens: int) -> bool:
    """True on a GPU for many tokens of a plain model."""
    return model.head_weight().device.type == "cuda" and max_tokens > FEWEST_TOKENS and is_plain(model)


def is_plain(model: nn.Module) -> bool:
    """True if all modules are etude's or torch's, without hooks, and the weights numbers on one device.

    Others may copy or wait, which no graph holds.
    """
    parts = list(model.parameters())
    return all(
        type(module).__module__.split(".")[0] in ("etude", "torch")
        and not (module._forward_hooks or module._forward_pre_hooks)
        for module in model.modules()
    ) and all(
        type(part) is nn.Parameter and part.is_floating_point() and part.device == parts[0].device
        for part in parts
    )


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures: each stream keeps working memory of matrix products for good."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
