"""Requests in the form of OpenAI's endpoints; a key that would have no effect is refused."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from etude.errors import InputError
from etude.text import shorten

MOST_CHOICES, MOST_PROMPTS, MOST_MESSAGES = 16, 64, 1024
# Settings that programs send although nothing is asked by them, and the values with which that is so.
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0, None), "presence_penalty": (0, None), "logit_bias": ({}, None),
    "logprobs": (False, None), "echo": (False, None), "best_of": (1, None), "suffix": (None,),
    "tools": ([], None), "tool_choice": ("none", "auto", None), "response_format": ({"type": "text"}, None),
    "top_logprobs": (None,), "parallel_tool_calls": (True, False, None), "store": (False, None),
}  # fmt: skip
_Form = TypeVar("_Form", bound="Sampled")
_Id = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class StreamOptions(_Strict):
    """Options of a stream."""

    include_usage: bool = False


class Sampled(BaseModel):
    """Settings that both forms of a request share."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**62)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None

    @property
    def stops(self) -> list[str]:
        """Stop sequences."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def length(self) -> int | None:
        """Tokens of the answer at most; None for as many as the context has room for."""
        return self.max_tokens


class CompletionAsked(Sampled):
    """Prompts to go on with, as texts or as token ids."""

    prompt: str | list[str] | list[_Id] | list[list[_Id]]

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """Each of the prompts."""
        given: Any = self.prompt
        return [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else given

    @property
    def length(self) -> int | None:
        """Tokens of the answer at most, 16 as those of OpenAI."""
        return self.max_tokens or 16


class TextPart(_Strict):
    """A part of a message."""

    type: Literal["text"]
    text: str


class AskedMessage(_Strict):
    """A turn of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], Field(max_length=64)]
    name: str | None = None

    @property
    def turn(self) -> dict[str, str]:
        """The turn as a chat template takes it."""
        parts = self.content
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        return {"role": self.role, "content": text, **({"name": self.name} if self.name else {})}


class ChatAsked(Sampled):
    """Turns of a chat that an answer is asked to."""

    messages: Annotated[list[AskedMessage], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None

    @property
    def length(self) -> int | None:
        """Tokens of the answer at most, by either name."""
        return self.max_completion_tokens or self.max_tokens


def read_request(form: type[_Form], body: bytes) -> _Form:
    """A request of a form. Raises: InputError that names the first key that is wrong."""
    try:
        asked = form.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"][:4]))
        raise InputError(f"{place or 'the body'}: {shorten(first['msg'], 200)}") from None
    for key, value in (asked.model_extra or {}).items():
        if key not in _WITHOUT_EFFECT:
            raise InputError(f"{shorten(repr(key), 60)} is no key that this server knows; leave it out")
        if value not in _WITHOUT_EFFECT[key]:
            raise InputError(f"{key} has no effect here; leave it out")
    if any(not stop for stop in asked.stops):
        raise InputError("stop has an empty text; leave it out")
    if isinstance(asked, CompletionAsked) and not 0 < len(asked.prompts) <= MOST_PROMPTS:
        raise InputError(f"prompt has {len(asked.prompts):,} prompts; give 1 to {MOST_PROMPTS}")
    return asked
