"""The endpoints: models, completions and chats, whole or as server-sent events; those of texts join them."""

import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, Router

from etude.errors import InputError
from etude.evaluate.answers import encode_prompts
from etude.models.families.table import family_of
from etude.serve.answers import problem, require_model, unless_gone, with_errors
from etude.serve.asked import ChatAsked, CompletionAsked, Sampled, read_request
from etude.serve.engine import Draw, Engine
from etude.serve.opened import Opened
from etude.serve.reader import Reader
from etude.serve.reply import AnswerError, Choice, Reply
from etude.serve.texts import TextEndpoints
from etude.ui.gate import Refusal, error_of


def make_app(opened: Opened, engine: Engine | None, reader: Reader) -> Router:
    """The application that answers for a model, without the gate that stands before it.

    engine: of a model that writes text. Both end with the application.
    """
    texts = TextEndpoints(opened, reader)
    endpoints = _Endpoints(opened, engine)

    @contextlib.asynccontextmanager
    async def lifespan(app: Router) -> AsyncIterator[None]:
        yield
        await anyio.to_thread.run_sync(reader.close)
        if engine is not None:
            await anyio.to_thread.run_sync(engine.close)

    posts = {
        "/v1/completions": endpoints.complete, "/v1/chat/completions": endpoints.chat,
        "/v1/embeddings": texts.embeddings, "/v1/classify": texts.labels, "/classify": texts.labels,
    }  # fmt: skip
    routes = [Route(path, with_errors(answer), methods=["POST"]) for path, answer in posts.items()]
    routes.append(Route("/v1/models", with_errors(endpoints.models), methods=["GET"]))
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
    opened: Opened
    writing: Engine | None

    @property
    def engine(self) -> Engine:
        """Raises: Refusal if the model writes no text."""
        if self.writing is None:
            other = "/v1/classify" if self.opened.labels else "/v1/embeddings"
            raise Refusal(400, f"{self.opened.name} only reads texts; use {other}")
        return self.writing

    async def models(self, request: Request) -> Response:
        opened = self.opened
        model = {"id": opened.name, "object": "model", "created": 0, "owned_by": "etude"}
        more = {"labels": list(opened.labels)} if opened.labels else {"pooling": opened.pooling}
        return JSONResponse({"object": "list", "data": [{**model, "max_model_len": opened.context, **more}]})

    async def complete(self, request: Request) -> Response:
        asked = read_request(CompletionAsked, await request.body())
        prompts = await anyio.to_thread.run_sync(self._encode, asked)
        return await self._answer(request, asked, prompts, self.engine.speaker.end_ids, _COMPLETION)

    async def chat(self, request: Request) -> Response:
        asked = read_request(ChatAsked, await request.body())
        prompts = [await anyio.to_thread.run_sync(self._render, asked)]
        return await self._answer(request, asked, prompts, self.opened.chat_ends, _CHAT)

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
            raise InputError(
                f"{self.opened.name} is an encoder-decoder, which knows no chats; use /v1/completions"
            )
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
        require_model(asked, self.opened)
        count = asked.n or 1
        draws = [(prompt, self._draw(asked, prompt, ends, at)) for prompt in prompts for at in range(count)]
        reply = Reply(self.engine, draws, asked.stops, form is _COMPLETION)
        base = {
            "id": f"{form.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": self.opened.name,
        }
        if asked.stream:
            options = asked.stream_options
            usage_of = count if options and options.include_usage else 0
            return _Stream(reply, _events(reply, base, form, usage_of))
        try:
            await unless_gone(_read(reply), request)
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


async def _read(reply: Reply) -> None:
    """Wait until all choices have ended. Raises: AnswerError."""
    async for _ in reply.grow():
        pass


async def _missing(scope: Any, receive: Any, send: Any) -> None:
    text = (
        "there is no such endpoint; see /v1/models, /v1/completions, /v1/chat/completions, /v1/embeddings "
        "and /v1/classify"
    )
    await problem(404, text)(scope, receive, send)
