"""Requests in the form of OpenAI's endpoints; a key that would have no effect is refused."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from etude.errors import InputError
from etude.text import shorten

MOST_CHOICES, MOST_PROMPTS, MOST_MESSAGES, MOST_TEXTS = 16, 64, 1024, 2048
_FEWEST_TOKENS = 8  # of a text that is cut: more than the special tokens around it
# Settings that programs send although nothing is asked by them, and the values with which that is so.
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0, None), "presence_penalty": (0, None), "logit_bias": ({}, None),
    "logprobs": (False, None), "echo": (False, None), "best_of": (1, None), "suffix": (None,),
    "tools": ([], None), "tool_choice": ("none", "auto", None), "response_format": ({"type": "text"}, None),
    "top_logprobs": (None,), "parallel_tool_calls": (True, False, None), "store": (False, None),
    "dimensions": (None,),
}  # fmt: skip
_Form = TypeVar("_Form", bound="Asked")
_Id = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class StreamOptions(_Strict):
    """Options of a stream."""

    include_usage: bool = False


class Asked(BaseModel):
    """Keys of every request."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    model: str | None = None
    user: str | None = None


class Sampled(Asked):
    """Settings of every request for an answer."""

    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**62)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

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


class TextsAsked(Asked):
    """Texts to be read.

    truncate_prompt_tokens: a longer text is cut to so many tokens, or with -1 to as many as the model reads;
    without it such a text is refused.
    """

    truncate_prompt_tokens: Literal[-1] | Annotated[int, Field(ge=_FEWEST_TOKENS)] | None = None


class EmbeddingsAsked(TextsAsked):
    """Texts, or their token ids, of which vectors are asked."""

    input: str | list[str] | list[_Id] | list[list[_Id]]
    encoding_format: Literal["float", "base64"] | None = None

    @property
    def texts(self) -> list[str] | list[list[int]]:
        """Each of the texts."""
        given: Any = self.input
        return [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else given


class LabelsAsked(TextsAsked):
    """Texts, or pairs of them, of which labels are asked."""

    input: str | list[str | Annotated[list[str], Field(min_length=2, max_length=2)]]

    @property
    def texts(self) -> list[tuple[str, str | None]]:
        """Each of the texts, with its second if it is a pair."""
        given = [self.input] if isinstance(self.input, str) else self.input
        return [(each, None) if isinstance(each, str) else (each[0], each[1]) for each in given]


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
    if isinstance(asked, EmbeddingsAsked | LabelsAsked) and not 0 < len(asked.texts) <= MOST_TEXTS:
        raise InputError(f"input has {len(asked.texts):,} texts; give 1 to {MOST_TEXTS:,}")
    if isinstance(asked, Sampled) and any(not stop for stop in asked.stops):
        raise InputError("stop has an empty text; leave it out")
    if isinstance(asked, CompletionAsked) and not 0 < len(asked.prompts) <= MOST_PROMPTS:
        raise InputError(f"prompt has {len(asked.prompts):,} prompts; give 1 to {MOST_PROMPTS}")
    return asked
