"""The parts of a recipe's schema: strict sections, keys with their reasons, bounded numbers."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from etude.text import parse_duration

Positive = Annotated[int, Field(gt=0, le=2**40)]
Count = Annotated[int, Field(ge=0, le=2**40)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0)]
Unlimited = Annotated[
    None,
    BeforeValidator(
        lambda value: None if value == "none" else value, json_schema_input_type=Literal["none"] | None
    ),
]
Limit = Rate | Unlimited
Name = Annotated[str, StringConstraints(pattern=r"\A[a-z0-9][a-z0-9._-]{0,63}\z")]


def _duration(text: str) -> str:
    parse_duration(text)
    return text


# As it is written, as 11h30m; `parse_duration` gives its seconds.
Duration = Annotated[str, AfterValidator(_duration)]
TaskName = Annotated[str, StringConstraints(pattern=r"\A[a-z0-9][a-z0-9_-]{0,31}\z")]


def key(default: Any, why: str, *, example: Any = None, needs: str | tuple[str, ...] = ()) -> Any:
    """A recipe key: its default, what it means, and a value to suggest when the given one is refused.

    needs: values of other keys without which nothing reads this one, each as `optim.kind = "muon"`,
    `train.devices > 1`, `schedule.kind != "constant"`, `on has "finding"` (a key of the same section),
    `evaluate.prompts` or `no model.from`. See `settings.find_idle`.
    """
    suggestion = example if example is not None else default
    return Field(
        default,
        description=why,
        examples=None if suggestion in (None, ...) else [suggestion],
        json_schema_extra={"needs": [needs] if isinstance(needs, str) else list(needs)} if needs else None,
    )


class Section(BaseModel):
    """Strict: no unknown key, no conversion from another type, no NaN; frozen once read."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        populate_by_name=True,
        protected_namespaces=(),
    )


def is_address(place: str | None) -> bool:
    """True if a place is that of a bucket, as `s3://name/folder`, and no path."""
    return place is not None and "://" in place
