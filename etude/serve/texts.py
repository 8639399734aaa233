"""The endpoints that read texts: embeddings, and labels of a classifier."""

import asyncio
import base64
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio.to_thread
import numpy as np
import numpy.typing as npt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from etude.data.samples.sample import Sample
from etude.serve.answers import require_model, unless_gone
from etude.serve.asked import EmbeddingsAsked, LabelsAsked, TextsAsked, read_request
from etude.serve.opened import Opened
from etude.serve.reader import Read, Reader
from etude.text import shorten
from etude.ui.gate import Refusal

_FROM = 0.5  # probability from which on one of several labels is said


@dataclass(frozen=True)
class TextEndpoints:
    """Answers of a model to texts that it only reads."""

    opened: Opened
    reader: Reader

    async def embeddings(self, request: Request) -> Response:
        """Vectors of length 1."""
        asked, opened = read_request(EmbeddingsAsked, await request.body()), self.opened
        require_model(asked, opened)
        if opened.labels:
            raise Refusal(400, f"{opened.name} is a classifier, which gives no vectors; use /v1/classify")

        def encode() -> list[Sample]:
            given: Any = asked.texts
            if isinstance(given[0], str):
                return opened.encode([(text, None) for text in given], self._cut(asked))
            return opened.from_ids(given)

        samples = await anyio.to_thread.run_sync(encode)
        rows = await self._read(opened.vectors, samples, request)
        is_packed = asked.encoding_format == "base64"
        data = [
            {"object": "embedding", "index": at, "embedding": _packed(row) if is_packed else row.tolist()}
            for at, row in enumerate(rows)
        ]
        return self._answer("embd", data, samples)

    async def labels(self, request: Request) -> Response:
        """Probabilities of labels, in the form of vLLM's /classify."""
        asked, opened = read_request(LabelsAsked, await request.body()), self.opened
        require_model(asked, opened)
        if not opened.labels:
            raise Refusal(400, f"{opened.name} is no classifier, and knows no labels; use /v1/embeddings")
        cut = self._cut(asked)
        samples = await anyio.to_thread.run_sync(lambda: opened.encode(asked.texts, cut))
        rows = await self._read(opened.probabilities, samples, request)
        data = [{"index": at, **self._said(row)} for at, row in enumerate(rows)]
        return self._answer("classify", data, samples, labels=list(opened.labels))

    def _cut(self, asked: TextsAsked) -> int | None:
        wanted = asked.truncate_prompt_tokens
        return self.opened.context if wanted == -1 else wanted

    async def _read(
        self, read: Read, samples: Sequence[Sample], request: Request
    ) -> list[npt.NDArray[np.float32]]:
        async def ask() -> list[npt.NDArray[np.float32]]:
            # Within the work that may be cancelled, so that nothing is asked which nobody waits for.
            futures = map(asyncio.wrap_future, self.reader.ask(read, samples))
            return await asyncio.wait_for(asyncio.gather(*futures), self.reader.limits.seconds)

        try:
            return await unless_gone(ask(), request)
        except TimeoutError:
            text = f"the answer took over {self.reader.limits.seconds:g} s; ask for fewer texts"
            raise Refusal(504, text) from None
        except RuntimeError as error:  # of torch, as of memory
            raise Refusal(500, f"the model failed: {shorten(str(error), 200)}") from None

    def _said(self, row: npt.NDArray[np.float32]) -> dict[str, Any]:
        names = self.opened.labels
        label: str | list[str] = names[int(row.argmax())]
        if self.opened.is_multi:
            label = [name for name, share in zip(names, row) if share >= _FROM]
        return {"label": label, "probs": row.tolist(), "num_classes": len(names)}

    def _answer(self, prefix: str, data: list[Any], samples: Sequence[Sample], **more: Any) -> Response:
        tokens = sum(len(sample.tokens) for sample in samples)
        return JSONResponse(
            {
                "id": f"{prefix}-{secrets.token_hex(12)}", "object": "list", "created": int(time.time()),
                "model": self.opened.name, "data": data, **more,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
        )  # fmt: skip


def _packed(row: npt.NDArray[np.float32]) -> str:
    """The bytes of a vector, fp32 in little-endian order, as base64."""
    return base64.b64encode(row.astype("<f4").tobytes()).decode()
