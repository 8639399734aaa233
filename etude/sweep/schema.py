"""The schema of a sweep file: a base recipe, tiers of models with their grids, budget and resources."""

from math import prod
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from etude.recipe.section import Count, Name, Positive, Rate, Section, key

# Without a password, which would be in every copy of the file.
_DATABASE = r"\Apostgresql://([A-Za-z0-9._-]{1,63}@)?[A-Za-z0-9.-]{1,255}(:[0-9]{1,5})?/[A-Za-z0-9_-]{1,63}\z"
ModelName = Annotated[str, Field(pattern=r"\A[a-z0-9][a-z0-9._-]{0,31}\z")]
# Keys that decide by which rows and which figure a trial is measured: over them no two values compare.
MEASURES = ("data.validation", "data.validation_ratio", "evaluate.max_samples", "evaluate.metric")
_MOST_WHOLE = 2**53  # which a fraction holds exactly, as samplers and charts need


class Axis(Section):
    """Values of one key of the recipe, or of several keys that go together."""

    key_: str | list[str] = Field(
        ...,
        alias="key",
        description="a key of the recipe, or several whose values go together",
        examples=["optim.learning_rate"],
    )
    values: Annotated[list[Any], Field(min_length=1)] = key(
        ..., "the values to try; of several keys a list of lists", example=[2e-5, 5e-5]
    )
    why: str | list[str] = key("", "the reason for the values: one for all, or one for each")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if isinstance(self.why, list) and len(self.why) != len(self.values):
            raise ValueError(
                f"it has {len(self.values)} values and {len(self.why)} reasons; give one for each, or one"
            )
        for value in self.values if isinstance(self.key_, list) else ():
            if not isinstance(value, list) or len(value) != len(self.key_):
                raise ValueError(f"each of its values must be a list of {len(self.key_)}, one for each key")
        return self

    @property
    def keys(self) -> list[str]:
        """The keys of the recipe that it sets."""
        return self.key_ if isinstance(self.key_, list) else [self.key_]

    @property
    def points(self) -> list[tuple[Any, ...]]:
        """The values of its keys, one tuple for each point."""
        return [tuple(value) if isinstance(self.key_, list) else (value,) for value in self.values]

    def reason(self, index: int) -> str:
        """The reason for a value."""
        return self.why[index] if isinstance(self.why, list) else self.why


class Range(Section):
    """Values of one key of the recipe that a search chooses from: between two ends, or of a list."""

    key_: str = Field(..., alias="key", description="a key of the recipe", examples=["optim.learning_rate"])
    low: int | float | None = key(None, "the lowest value; whole ends make whole numbers", example=1e-5)
    high: int | float | None = key(None, "the highest value", example=1e-3)
    log: bool = key(False, "whether each factor between the ends is as likely, in place of each distance")
    values: Annotated[list[Any], Field(min_length=1)] | None = key(
        None, "the values to choose from, in place of low and high", example=["adamw", "lion"]
    )
    why: str = key("", "the reason for the ends or values")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.key_ in MEASURES:
            raise ValueError(
                f"{self.key_} decides how trials are measured, so that their values do not compare; make it "
                "a grid, each point of which has a search of its own"
            )
        if self.values is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("it has values, and low, high or log too; give one or the other")
            return self
        if self.low is None or self.high is None:
            raise ValueError("it has no values; give low and high, or a list of values")
        if any(isinstance(end, int) and abs(end) > _MOST_WHOLE for end in (self.low, self.high)):
            raise ValueError(f"low or high is a whole number beyond {_MOST_WHOLE:,}; give a smaller one")
        if self.low >= self.high:
            raise ValueError(f"low is {self.low:g} and high is {self.high:g}; low must be below high")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low:g} with log = true; a factor needs low above 0")
        return self

    @property
    def is_whole(self) -> bool:
        """True if it is of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> list[Any]:
        """The values that must all be possible: its two ends, or the whole list."""
        return self.values or [self.low, self.high]


class SweepModel(Section):
    """A model of a tier, with settings and grids of its own."""

    name: ModelName = key(..., "of its trials; lower case", example="codebert-base")
    from_: str | None = Field(
        None, alias="from", description="as model.from", examples=["microsoft/codebert-base"]
    )
    why: str = key("", "the reason why it is among the models")
    settings: dict[str, Any] = key({}, "keys of the recipe for this model alone")
    grid: list[Axis] = key([], "grids of this model, beside those of its tier or in place of them")
    search: list[Range] = key([], "ranges of this model, beside those of its tier or in place of them")


class Tier(Section):
    """Models that are tried on the same grids."""

    name: ModelName = key(..., "of the tier", example="small")
    priority: Annotated[int, Field(ge=-(2**40), le=2**40)] = key(
        0, "trials of the highest go first", example=1
    )
    why: str = key("", "the reason for the tier")
    models: Annotated[list[SweepModel], Field(min_length=1)] = key(..., "one or more models")
    settings: dict[str, Any] = key({}, "keys of the recipe for this tier")
    grid: list[Axis] = key([], "grids that every model of the tier is tried on")
    search: list[Range] = key([], "ranges that every model of the tier is searched over")


class Budget(Section):
    """Limits of a whole sweep."""

    trials: Positive | None = key(None, "trials at most", example=72)
    device_hours: Rate | None = key(
        None, "hours of devices; no trial starts whose forecast is beyond what is left", example=100.0
    )
    price: Rate | None = key(None, "of all device hours at most, by price_per_hour", example=250.0)
    price_per_hour: Rate | None = key(None, "of one device", example=2.5)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.price is not None and self.price_per_hour is None:
            raise ValueError("price is given without price_per_hour; give both")
        return self

    @property
    def seconds(self) -> float | None:
        """Seconds of devices that trials may take together; None for no limit."""
        limits = [] if self.device_hours is None else [self.device_hours]
        if self.price is not None and self.price_per_hour is not None:
            limits.append(self.price / self.price_per_hour)
        return 3600 * min(limits) if limits else None


class Resources(Section):
    """The machines that trials run on, and the share of each that they may hold together."""

    at_once: Positive | None = key(
        None,
        "trials at once on a device at most (default: as many as fit; on a CPU one for two cores)",
        example=2,
    )
    memory_gb: Annotated[float, Field(gt=0, le=1e7)] | None = key(
        None, "memory of a device, or of the machine, that trials hold together", example=40.0
    )
    executor: Literal["local", "ray"] = key("local", "what starts trials: this machine, or a Ray cluster")
    address: Annotated[str, Field(pattern=r"\A(auto|[A-Za-z0-9._:\[\]-]{1,255}:[0-9]{1,5})\z")] | None = key(
        None,
        "of the Ray cluster that runs (default: RAY_ADDRESS, or the one on this machine)",
        example="10.0.0.1:6379",
    )
    stack: bool = key(
        False,
        "LoRA trials on the same batches in one process, with one pass of the frozen base for all; each is "
        "equal to the trial alone within roundings",
    )
    strategy: str = key("", "the strategy in words, for the plan")

    @property
    def memory_bytes(self) -> int | None:
        """Bytes of a device that trials hold together; None where nobody said."""
        return None if self.memory_gb is None else max(round(self.memory_gb * 1e9), 1)

    @model_validator(mode="after")
    def _stacks_here(self) -> Self:
        if self.stack and self.executor != "local":
            raise ValueError("stack is for executor local; leave one of them out")
        return self


class Search(Section):
    """The way in which values of ranges are chosen, for each point of the grids of a model."""

    sampler: Literal["tpe", "random"] = key(
        "tpe", "tpe learns from the trials before; random draws each alone"
    )
    trials: Positive = key(..., "trials of each model, at each point of its grids", example=30)
    seed: Count = key(17, "of the sampler: one trial at a time gives the same trials again")
    storage: Annotated[str, Field(pattern=_DATABASE)] | None = key(
        None,
        "a PostgreSQL database for a copy of the studies beside that in SQLite; PGPASSWORD has its password",
        example="postgresql://etude@db.example.org/studies",
    )


class Halving(Section):
    """Rungs at which the trials of a model pause, and the share of them that goes on from each."""

    epochs: Annotated[list[Positive], Field(min_length=1)] | None = key(
        None, "the rungs of trials whose length is in epochs, the lowest first", example=[1, 3]
    )
    steps: Annotated[list[Positive], Field(min_length=1)] | None = key(
        None, "the rungs of trials whose length is in steps, the lowest first", example=[100, 300]
    )
    reduction_factor: Annotated[int, Field(ge=2, le=2**40)] = key(
        3, "of so many trials at a rung one goes on"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give epochs or steps, the rungs in the unit of the trials' length")
        if self.rungs != sorted(set(self.rungs)):
            raise ValueError(f"{self.unit} is {self.rungs}; give each rung once, the lowest first")
        return self

    @property
    def unit(self) -> Literal["epochs", "steps"]:
        """The unit of its rungs."""
        return "steps" if self.epochs is None else "epochs"

    @property
    def rungs(self) -> list[int]:
        """The rungs in their unit."""
        return self.epochs or self.steps or []


class Repeats(Section):
    """The training of the best trial again, once all have ended, to tell how much of its lead is luck."""

    seeds: Annotated[int, Field(ge=0, le=100)] = key(3, "new seeds; 0 for none")


class SweepFile(Section):
    """A sweep as a file holds it."""

    name: Name = key(..., "of the sweep", example="my-sweep")
    purpose: str = key("", "the question that it is to answer")
    recipe: str | dict[str, Any] = key(
        ..., "the base of all trials: the path of a recipe, or a [recipe] section", example="recipe.toml"
    )
    tiers: Annotated[list[Tier], Field(min_length=1)] = key(..., "one or more [[tiers]]")
    budget: Budget = Budget()
    resources: Resources = Resources()
    search: Search | None = key(None, "how ranges are searched")
    halving: Halving | None = key(None, "rungs from which only the best trials go on")
    repeats: Repeats = Repeats()
    success: list[str] = key([], "what decides between trials, the first first", example=["f1"])
    rows: Positive | None = key(
        None, "training rows, for plans where the data cannot be read", example=20_000
    )
    why: dict[str, str] = key({}, "reasons for settings of the base recipe, by key")


def count_trials(file: SweepFile) -> int:
    """The number of trials, by arithmetic."""
    return sum(prod(sizes_of(tier, model, file.search)) for tier in file.tiers for model in tier.models)


def sizes_of(tier: Tier, model: SweepModel, search: Search | None) -> list[int]:
    """The number of values of each grid of a model, and that of the trials of its search."""
    sizes = [len(axis.values) for axis in axes_of(tier, model)]
    return [*sizes, search.trials] if search and ranges_of(tier, model) else sizes


def axes_of(tier: Tier, model: SweepModel) -> list[Axis]:
    """The grids of a model: those of its tier, but where it has one of the same keys, and its own."""
    own = {key for axis in model.grid for key in axis.keys}
    return [*(axis for axis in tier.grid if not own.intersection(axis.keys)), *model.grid]


def ranges_of(tier: Tier, model: SweepModel) -> list[Range]:
    """The ranges of a model: those of its tier, but where it has one of the same key, and its own."""
    own = {each.key_ for each in model.search}
    return [*(each for each in tier.search if each.key_ not in own), *model.search]
