"""The schema of a recipe: every section and key, with its default, its unit and the reason for both.

Model, tokenizer and adapter stand in `model.py`, the data in `data.py`, the life of a run in `life.py`.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from etude.recipe.data import Data
from etude.recipe.kinds import TRAINING_KINDS, TrainingKind
from etude.recipe.life import Life
from etude.recipe.model import Adapter, Model, Tokenizer
from etude.recipe.notify import Notify
from etude.recipe.section import (
    Count,
    Limit,
    Name,
    Positive,
    Rate,
    Ratio,
    Section,
    TaskName,
    key,
)

# Kinds of code that etude.data.lexer tells apart.
Kind = Literal[
    "special", "space", "operator", "bracket", "comment", "string", "number", "keyword", "identifier"
]


class Train(Section):
    """The length of training, its batches and its device."""

    objective: Literal["causal", "masked", "classification", "seq2seq"] = key(
        "causal", "predict the next token, hidden tokens, the labels of a text, or a text from another"
    )
    epochs: Positive | None = key(None, "passes over the training samples; or steps", example=3)
    steps: Positive | None = key(None, "optimizer updates; or epochs", example=1000)
    seq_len: Annotated[int, Field(ge=2, le=2**24)] = key(
        512, "tokens a sample has at most; of seq2seq, its source"
    )
    target_len: Annotated[int, Field(ge=2, le=2**24)] | None = key(
        None, "tokens a target of seq2seq has at most (default: seq_len)", example=256
    )
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = key(
        0.15, "share of the tokens that masked hides and asks for"
    )
    global_batch_size: Positive | None = key(None, "samples of one step over all devices", example=32)
    accumulation: Positive | None = key(
        None, "micro-batches of a step on each device; or global_batch_size", example=1
    )
    micro_batch_size: Positive | Literal["auto"] = key(
        "auto", "samples in memory at once on a device", example=8
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = key("auto", "cuda where there is one, else mps, else cpu")
    devices: Annotated[int, Field(ge=1, le=4096)] = key(
        1, "ranks of the run, each with its share of every step"
    )
    parallel: Literal["auto", "replicate", "shard"] = key(
        "auto",
        "replicate: each rank holds all weights, gradients and optimizer state; shard: some rows of each "
        "tensor; auto: shard what would take over half of the memory",
        needs="train.devices > 1",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = key(
        "auto", "bf16 where the device has it natively, else fp32"
    )
    max_grad_norm: Limit = key(1.0, 'gradients longer than this are scaled down to it; "none" leaves them')
    compile: bool = key(False, "fuse the model with torch.compile; costs a minute at the start")
    activation_checkpointing: bool = key(False, "compute activations twice to keep fewer of them")
    share_prefixes: Literal["auto", "off", "on"] = key(
        "auto",
        "compute the tokens with which several samples of a micro-batch begin once; auto: where nothing "
        "changes; on: under adapter.dropout too, which then drops the same in all of them",
    )
    on_oom: Literal["keep_batch", "smaller_batch", "stop"] = key(
        "keep_batch",
        "if memory runs out: smaller micro-batches, then activation_checkpointing; smaller_batch makes the "
        "batch of a step smaller with them",
    )
    deterministic: bool = key(False, "refuse kernels whose result may differ from run to run")


class Loss(Section):
    """The weights of the loss."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = key(
        0.0, "share of the truth spread over all labels, or ids"
    )
    class_weights: Literal["none", "balanced"] = key("none", "balanced: rows / (labels x rows of the label)")
    focal_gamma: Annotated[float, Field(ge=0)] = key(
        0.0, "weighs a row by (1 - p)^gamma (arXiv:1708.02002)", example=2.0
    )
    token_weights: dict[Kind, Annotated[float, Field(ge=0)]] = key(
        {}, "weights of targets by what they are as code, 1 for others; not for classification", example=1.0
    )


class Task(Section):
    """One of several tasks that a model learns at once, each from its own sources."""

    objective: Literal["masked", "classification", "seq2seq"] = key(
        ..., "as train.objective", example="classification"
    )
    ratio: Rate = key(1.0, "its share of the samples, beside the ratios of the others", example=1.0)
    loss: Loss = Loss()


class Optim(Section):
    """The optimizer and its one learning rate."""

    kind: Literal["adamw", "adam", "muon"] = key("adamw", "muon: matrices by Muon, the rest by AdamW")
    learning_rate: Rate = key(6e-4, "peak; the schedule scales it", example=2e-4)
    weight_decay: Annotated[float, Field(ge=0)] | None = key(
        None,
        "on matrices, not on norms and biases (default 0.1; for adam, where it is an L2 penalty, 0)",
        example=0.1,
    )
    beta1: Annotated[float, Field(ge=0, lt=1)] = key(0.9, "decay of the first moment")
    beta2: Annotated[float, Field(ge=0, lt=1)] = key(0.95, "decay of the second moment")
    eps: Rate = key(1e-8, "added to the root of the second moment")
    momentum: Annotated[float, Field(ge=0, lt=1)] = key(
        0.95, "Nesterov momentum of Muon", needs='optim.kind = "muon"'
    )
    matrix_rate_ratio: Rate = key(
        1.0,
        "learning rate of Muon's matrices, as a share of that of the rest",
        example=0.3,
        needs='optim.kind = "muon"',
    )


class Schedule(Section):
    """The learning rate from step to step."""

    kind: Literal["constant", "linear", "cosine", "wsd"] = key("cosine", "shape after the warm-up")
    warmup_steps: Count = key(0, "steps from near zero to the peak", example=100)
    min_lr_ratio: Ratio = key(
        0.1, "where the decay ends, as a share of the peak", needs='schedule.kind != "constant"'
    )
    decay_ratio: Annotated[float, Field(gt=0, le=1)] = key(
        0.2, "wsd: share of the steps that decay", needs='schedule.kind = "wsd"'
    )


class Execute(Section):
    """Problems that the model solves by programs at each evaluation, run against their tests."""

    path: str = key(..., "rows as of HumanEval or MBPP, or with prompt, tests", example="problems.jsonl")
    problems: Annotated[int, Field(gt=0, le=10_000)] = key(50, "of the file at most, evenly spaced")
    k: Annotated[list[Annotated[int, Field(gt=0, le=1000)]], Field(min_length=1, max_length=8)] = key(
        [1], "of pass@k: the chance that one of k samples passes"
    )
    samples: Annotated[int, Field(gt=0, le=1000)] = key(1, "programs for each problem", example=20)
    temperature: Annotated[float, Field(ge=0, le=100)] | None = key(
        None, "of samples (default 0.8; 0, the likeliest tokens, for a single one)", example=0.8
    )
    top_p: Annotated[float, Field(gt=0, le=1)] = key(0.95, "draw among the likeliest of this mass")
    max_tokens: Annotated[int, Field(gt=0, le=100_000)] = key(512, "tokens of each program")
    cpu_seconds: Annotated[int, Field(gt=0, le=3600)] = key(10, "that a program may compute")

    @property
    def warmth(self) -> float:
        """The temperature that samples are drawn at."""
        return self.temperature if self.temperature is not None else 0.8 if self.samples > 1 else 0.0


_WRITES = 'train.objective in ["causal", "seq2seq"]'
_DRAWS = ("evaluate.prompts", "evaluate.temperature > 0")


class Evaluate(Section):
    """The times, samples and metric of evaluation."""

    every_steps: Positive | None = key(None, "steps between evaluations; or every_epochs", example=100)
    every_epochs: Positive | None = key(None, "epochs between evaluations (default 1)", example=1)
    metric: str = key(
        "loss",
        "what best means; higher is better, but of loss, perplexity, bits_per_byte, repetition and "
        "trailing_text",
    )
    patience: Positive | None = key(None, "evaluations without improvement before the run stops", example=3)
    min_improvement: Annotated[float, Field(ge=0)] = key(
        0.0, "smaller gains have to add up for patience", needs="evaluate.patience"
    )
    max_samples: Positive | None = key(
        None, "validation samples used (default: all)", example=1000, needs='data.validation != "none"'
    )
    prompts: list[str] = key([], "continued at each evaluation and kept in the journal", needs=_WRITES)
    answers: Count = key(
        0,
        "validation instructions, or sources, answered at each evaluation, greedily, and scored",
        example=16,
        needs=_WRITES,
    )
    answer_tokens: Positive = key(256, "tokens of each answer at most", needs=_WRITES)
    execute: Execute | None = key(None, "measure pass@k of the programs that the model writes")
    sample_tokens: Positive = key(64, "tokens of each continuation", needs="evaluate.prompts")
    temperature: Annotated[float, Field(ge=0)] = key(
        0.8, "0 takes the likeliest token", needs="evaluate.prompts"
    )
    top_k: Positive | None = key(None, "draw among this many tokens", example=50, needs=_DRAWS)
    top_p: Annotated[float, Field(gt=0, le=1)] | None = key(
        None, "draw among the likeliest of this mass", example=0.95, needs=_DRAWS
    )


class Checkpoint(Section):
    """The times of checkpoints, and the number that is kept."""

    every_steps: Positive | None = key(None, "steps between checkpoints; or every_minutes", example=100)
    every_minutes: Rate | None = key(None, "minutes between checkpoints (default 10)", example=10.0)
    keep: Annotated[int, Field(ge=2)] | Literal["all"] = key(
        3, "newest ones kept, beside the best", example=3
    )
    keep_at: list[Positive] = key([], "steps saved and kept for good", example=[10_000])


class Watch(Section):
    """The watch over a run: what follows from a finding that it is broken."""

    policy: Literal["off", "warn", "stop", "recover"] = key(
        "warn",
        "at an error; stop saves and ends the run, recover goes back to a checkpoint before it and changes "
        "the course",
    )
    recoveries: Positive = key(3, "how often a run recovers before it ends", needs='watch.policy = "recover"')
    ignore: list[str] = key([], "kinds of findings that are not looked for", example=["plateau"])


class Criterion(Section):
    """A figure that a run is to reach, judged at every evaluation."""

    figure: str = key(
        ...,
        "a metric of evaluations, test:METRIC of the final scores, gap, steepest_fall or progress",
        example="gap",
    )
    above: float | None = key(None, "it is to be higher than this", example=0.5)
    below: float | None = key(None, "it is to be lower than this", example=0.5)

    def __str__(self) -> str:
        """The criterion in words, as `gap below 0.5`."""
        side, limit = ("above", self.above) if self.above is not None else ("below", self.below)
        return f"{self.figure} {side} {limit:g}"


class Records(Section):
    """The log, its channels and the front matter of the report."""

    log_every_steps: Positive | None = key(None, "between log lines (default 10; short runs 1)", example=10)
    trackers: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = key(
        [], "sent there as well", example=["tensorboard"]
    )
    parent: str | None = key(None, "the run that this recipe is to improve on", example="my-run-a1b2c3")
    title: str | None = key(None, "title of the report (default: the name)")
    type: str = key("training", "front matter of the report")
    tags: list[str] = key([], "front matter of the report", example=["pretraining"])
    weight: int = key(10, "front matter of the report: its place in a list")
    author: str | None = key(None, "front matter of the report")


class Stated(Section):
    """Figures that the recipe states of its run; those that do not follow from it are named at the start."""

    parameters: Positive | None = key(None, "of the model, within 5 %", example=300_000_000)
    trainable: Positive | None = key(None, "parameters that are trained, within 5 %", example=2_179_072)
    steps: Positive | None = key(None, "optimizer updates", example=1000)
    tokens: Positive | None = key(None, "tokens read in all steps, within 5 %", example=6_000_000_000)


class Recipe(Section):
    """A run from raw data to a model, as data."""

    name: Name = key(
        ..., "of the run; lower case letters, digits, dot, dash and underscore", example="my-run"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = key(17, "of initial weights, order, dropout and samples")
    model: Model = Model()  # type: ignore[call-arg]
    tokenizer: Tokenizer = Tokenizer()  # type: ignore[call-arg]  # from_ is given by its alias
    adapter: Adapter | None = key(None, "train a LoRA adapter instead of all weights")
    data: Data = key(..., "what to train on")
    train: Train = Train()
    tasks: dict[TaskName, Task] = key({}, "several tasks in one run, instead of train.objective")
    loss: Loss = Loss()
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    evaluate: Evaluate = Evaluate()
    checkpoint: Checkpoint = Checkpoint()
    watch: Watch = Watch()
    criteria: list[Criterion] = key([], "what the run is to reach")
    stated: Stated | None = key(None, "figures that are held against those that follow from the recipe")
    records: Records = Records()
    run: Life = Life()
    notify: list[Notify] = key([], "channels that tell people of the run")

    @property
    def kind(self) -> TrainingKind:
        """The kind of training that train.objective names."""
        return TRAINING_KINDS[self.train.objective]

    @property
    def untold_objective(self) -> str | None:
        """The objective where config.json does not tell what a model was trained for, as of masked tokens."""
        return self.train.objective if self.kind.hides_tokens else None

    @property
    def is_loss_plain(self) -> bool:
        """True if training has the loss of evaluation, without weights or smoothing."""
        return all(part.loss == Loss() for part in self.by_task().values())

    def by_task(self) -> dict[str, "Recipe"]:
        """The recipe as each task alone would have it; without [tasks] the recipe itself, under no name."""
        return {name: self._of_task(name) for name in self.tasks} or {"": self}

    def to_dict(self) -> dict[str, Any]:
        """Plain values by the names of the file; keys left at None are left out."""
        values = self.model_dump(by_alias=True, exclude_none=True)
        values["train"].setdefault("max_grad_norm", "none")  # the only key whose default is not None
        return values

    def _of_task(self, name: str) -> "Recipe":
        uses = {
            use: [source for source in sources if source.task == name]
            for use in ("train", "validation", "test")
            if isinstance(sources := getattr(self.data, use), list)
        }
        task = self.tasks[name]
        data = self.data.model_copy(update=uses)
        train = self.train.model_copy(update={"objective": task.objective})
        return self.model_copy(update={"data": data, "train": train, "loss": task.loss, "tasks": {}})
