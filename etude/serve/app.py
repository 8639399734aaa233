"""The endpoints: models, completions and chats, whole or as server-sent events."""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, Router

from etude.errors import InputError
from etude.evaluate.answers import encode_prompts
from etude.models.families.table import family_of
from etude.serve.asked import ChatAsked, CompletionAsked, Sampled, read_request
from etude.serve.engine import BusyError, Draw, Engine
from etude.serve.reply import AnswerError, Choice, Reply
from etude.text import shorten
from etude.ui.gate import Refusal, error_of


def make_app(engine: Engine, name: str, chat_ends: tuple[int, ...]) -> Router:
    """The application that answers for an engine, without the gate that stands before it.

    name: of the model. chat_ends: ids that end an answer of a chat.
    """
    endpoints = _Endpoints(engine, name, chat_ends)

    @contextlib.asynccontextmanager
    async def lifespan(app: Router) -> AsyncIterator[None]:
        yield
        await anyio.to_thread.run_sync(engine.close)

    routes = [
        Route("/v1/models", _told(endpoints.models), methods=["GET"]),
        Route("/v1/completions", _told(endpoints.complete), methods=["POST"]),
        Route("/v1/chat/completions", _told(endpoints.chat), methods=["POST"]),
    ]
    return Router(routes, redirect_slashes=False, default=_missing, lifespan=lifespan)


@dataclass(frozen=True)
class _Form:
    """The names of the parts of an answer, as completions or chats have them."""

    prefix: str
    full: str
    part: str
    is_chat: bool

    def choice(self, choice: Choice) -> dict[str, Any]:
        message = {"role": "assistant", "content": choice.text, "refusal": None}
        said = {"message": message} if self.is_chat else {"text": choice.text}
        return {"index": choice.index, **said, "logprobs": None, "finish_reason": choice.reason}

    def grown(self, choice: Choice, piece: str, *, is_first: bool) -> dict[str, Any]:
        role = {"role": "assistant"} if is_first else {}
        said = {"delta": {**role, "content": piece}} if self.is_chat else {"text": piece}
        return {"index": choice.index, **said, "logprobs": None, "finish_reason": choice.reason}


_COMPLETION = _Form("cmpl", "text_completion", "text_completion", is_chat=False)
_CHAT = _Form("chatcmpl", "chat.completion", "chat.completion.chunk", is_chat=True)


@dataclass(frozen=True)
class _Endpoints:
    engine: Engine
    name: str
    chat_ends: tuple[int, ...]

    async def models(self, request: Request) -> Response:
        model = {"id": self.name, "object": "model", "created": 0, "owned_by": "etude"}
        return JSONResponse({"object": "list", "data": [{**model, "max_model_len": self.engine.context}]})

    async def complete(self, request: Request) -> Response:
        asked = read_request(CompletionAsked, await request.body())
        prompts = await anyio.to_thread.run_sync(self._encode, asked)
        return await self._answer(request, asked, prompts, self.engine.speaker.end_ids, _COMPLETION)

    async def chat(self, request: Request) -> Response:
        asked = read_request(ChatAsked, await request.body())
        prompts = [await anyio.to_thread.run_sync(self._render, asked)]
        return await self._answer(request, asked, prompts, self.chat_ends, _CHAT)

    def _encode(self, asked: CompletionAsked) -> list[list[int]]:
        speaker = self.engine.speaker
        is_source = family_of(speaker.model).has_source
        prompts: list[list[int]] = []
        for prompt in asked.prompts:
            if isinstance(prompt, str):
                prompts += encode_prompts([prompt], speaker.tokenizer, None, is_source=is_source)
            else:
                prompts.append(prompt)
        if any(token >= speaker.tokenizer.vocab_size for prompt in prompts for token in prompt):
            raise InputError(
                f"prompt has an id that is no token; give ids below {speaker.tokenizer.vocab_size}"
            )
        return [prompt or list(speaker.end_ids[:1]) for prompt in prompts]

    def _render(self, asked: ChatAsked) -> list[int]:
        speaker = self.engine.speaker
        if family_of(speaker.model).has_source:
            raise InputError(f"{self.name} is an encoder-decoder, which knows no chats; use /v1/completions")
        turns = [message.turn for message in asked.messages]
        text = speaker.chat.render(turns, add_generation_prompt=True)
        return [int(token) for token in speaker.tokenizer.encode_rendered(text)]

    def _draw(self, asked: Sampled, prompt: list[int], ends: tuple[int, ...], choice: int) -> Draw:
        context = self.engine.context
        room = context - len(prompt)
        if room < 1:
            raise InputError(
                f"a prompt has {len(prompt):,} tokens, and the context of {context:,} holds prompt and "
                f"answer; expected at most {context - 1:,}; shorten the prompt"
            )
        if (wanted := asked.max_tokens or getattr(asked, "max_completion_tokens", None) or 0) > room:
            raise InputError(
                f"max_tokens is {wanted:,}, and behind a prompt of {len(prompt):,} tokens the context of "
                f"{context:,} has room for {room:,}; ask for fewer"
            )
        seed = secrets.randbits(62) if asked.seed is None else asked.seed + choice
        temperature = 1.0 if asked.temperature is None else asked.temperature
        return Draw(min(asked.length or room, room), ends, temperature, asked.top_k, asked.top_p, seed)

    async def _answer(
        self, request: Request, asked: Sampled, prompts: list[list[int]], ends: tuple[int, ...], form: _Form
    ) -> Response:
        if asked.model not in (None, self.name):
            raise Refusal(
                404, f"there is no model {shorten(repr(asked.model), 60)}; this server has {self.name}"
            )
        count = asked.n or 1
        draws = [(prompt, self._draw(asked, prompt, ends, at)) for prompt in prompts for at in range(count)]
        reply = Reply(self.engine, draws, asked.stops)
        base = {
            "id": f"{form.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": self.name,
        }
        if asked.stream:
            options = asked.stream_options
            usage_of = count if options and options.include_usage else 0
            return _Stream(reply, _events(reply, base, form, usage_of))
        try:
            if not await _is_whole(reply, request):
                return Response(status_code=499)  # nobody reads it
            choices = [form.choice(choice) for choice in reply.choices]
            usage = reply.usage(count)
            return JSONResponse({**base, "object": form.full, "choices": choices, "usage": usage})
        finally:
            reply.close()


class _Stream(StreamingResponse):
    """Events of a reply, which ends with the connection."""

    def __init__(self, reply: Reply, events: AsyncIterator[bytes]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._reply = reply

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._reply.close()


async def _events(reply: Reply, base: dict[str, Any], form: _Form, usage_of: int) -> AsyncIterator[bytes]:
    """Server-sent events of a reply. usage_of: choices of a prompt, to count the tokens of; 0 counts none."""
    more = {"object": form.part, **({"usage": None} if usage_of else {})}
    begun: set[int] = set()
    try:
        async for choice, piece in reply.grow():
            grown = form.grown(choice, piece, is_first=choice.index not in begun)
            begun.add(choice.index)
            yield _event({**base, **more, "choices": [grown]})
    except AnswerError as error:
        yield _event({"error": error_of(error.status, error.text)})
    else:
        if usage_of:
            yield _event({**base, **more, "choices": [], "usage": reply.usage(usage_of)})
    yield b"data: [DONE]\n\n"


def _event(values: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(values).encode() + b"\n\n"


async def _is_whole(reply: Reply, request: Request) -> bool:
    """Wait until all choices have ended; False if the client goes before. Raises: AnswerError."""

    async def read() -> None:
        async for _ in reply.grow():
            pass

    async def leave() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    reading, leaving = asyncio.ensure_future(read()), asyncio.ensure_future(leave())
    try:
        await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            reading.result()
        return reading.done()
    finally:
        reading.cancel()
        leaving.cancel()


def _told(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint with its errors in the form of OpenAI's."""

    async def told(request: Request) -> Response:
        try:
            return await answer(request)
        except (Refusal, AnswerError) as refusal:
            return _problem(refusal.status, refusal.text)
        except BusyError as error:
            return _problem(429, str(error), {"retry-after": "1"})
        except InputError as error:
            return _problem(400, shorten(" ".join(str(error).split()), 400))

    return told


def _problem(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": error_of(status, text)}, status, headers)


async def _missing(scope: Any, receive: Any, send: Any) -> None:
    text = "there is no such endpoint; see /v1/models, /v1/completions and /v1/chat/completions"
    await _problem(404, text)(scope, receive, send)
