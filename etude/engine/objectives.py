"""What is learnt: from a model and a batch to a sum of losses and the number of targets in it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import nn
from torch.nn import functional as F

from etude.data.split import Split
from etude.models.encoder import Encoder
from etude.models.foreign import scored_logits
from etude.models.heads import label_logits
from etude.models.t5 import T5
from etude.recipe.schema import Loss, Recipe

# Rows of logits that exist at once; 1,024 are as quick on two cores, 256 a tenth slower.
CHUNK_ROWS = 512
# On a GPU each chunk costs a pass over the gradient of the head: there a chunk has so many logits (1 GiB in fp32).
_GPU_CHUNK_LOGITS = 2**28
# Rows of a head in half precision are filled up to a multiple of this: with 50,257 an H200 takes kernels of an older
# generation and computes at 117 TFLOP/s what it does at 730 elsewhere in the model.
_HEAD_MULTIPLE = 64
_WEIGHED = 1000  # samples of which the mean weight of targets is taken


@dataclass(frozen=True)
class DeviceBatch:
    """A micro-batch on the device.

    tokens     (B, T) int64
    labels     (B, T) int64, -100 where nothing is scored
    positions  (B, T) int64 or None: 0, 1, 2 ... along the row
    lengths    of the sequences that lie end to end in the one row, or None: every row is one
    scored     (n,) int64, which of the B x T labels are targets; None if all are
    classes    (samples, k) fp32, 1 where a label holds, or None
    types      (B, T) int64, 1 in the second text of a pair, or None
    target_lengths  of the targets that lie end to end in labels (1, T), while tokens are the sources; None if no pairs
    code       (B, T, 4) int64, what each token is as code, or None
    task       which of several tasks the samples are of
    weights    (n,) fp32, how much each of the targets counts; None if all count 1
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor | None = None
    lengths: tuple[int, ...] | None = None
    scored: torch.Tensor | None = None
    classes: torch.Tensor | None = None
    types: torch.Tensor | None = None
    target_lengths: tuple[int, ...] | None = None
    code: torch.Tensor | None = None
    task: str = ""
    weights: torch.Tensor | None = None


class Objective(Protocol):
    """The only thing that differs between kinds of training."""

    def loss_sum(self, model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of the losses of all targets in nats, (), and their number, () fp32; or their weighted sums."""
        ...


class Causal:
    """Predict the next token; labels are shifted already. Logits are computed for targets only."""

    def loss_sum(self, model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        labels = batch.labels.flatten()
        if batch.scored is not None:
            labels = labels[batch.scored]
        if hasattr(model, "head_weight"):
            hidden: torch.Tensor = model(batch.tokens, positions=batch.positions, lengths=batch.lengths)
            hidden = hidden.flatten(0, 1)  # (B, T, C) -> (N, C)
            if batch.scored is not None:
                hidden = hidden[batch.scored]
            loss = linear_cross_entropy(hidden, model.head_weight(), labels, weights=batch.weights)  # type: ignore[operator]
        else:
            logits = scored_logits(model, batch.tokens, batch.positions, batch.lengths, batch.scored)
            if batch.weights is None:
                loss = F.cross_entropy(logits.float(), labels, reduction="sum")
            else:
                loss = F.cross_entropy(logits.float(), labels, reduction="none").mul(batch.weights).sum()
        return loss, _count(labels, batch.weights)


class Masked:
    """Say which tokens are hidden, from those on both sides; logits are computed for these only."""

    def loss_sum(self, model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        encoder, labels = cast(Encoder, model), batch.labels.flatten()
        hidden = model(batch.tokens, lengths=batch.lengths).flatten(0, 1)  # (B, T, C) -> (N, C)
        if batch.scored is not None:
            labels, hidden = labels[batch.scored], hidden[batch.scored]
        rows = encoder.masked_rows(hidden)
        loss = linear_cross_entropy(
            rows, encoder.head_weight(), labels, bias=encoder.head_bias(), weights=batch.weights
        )
        return loss, _count(labels, batch.weights)


@dataclass(frozen=True)
class Seq2Seq:
    """Write a target, token by token, given its source. Source: arXiv:1409.3215; label smoothing: arXiv:1512.00567."""

    label_smoothing: float = 0.0

    def loss_sum(self, model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, labels = self.read(model, batch), batch.labels.flatten()
        head: torch.Tensor = model.head_weight()  # type: ignore[operator]
        smoothing, weights = self.label_smoothing, batch.weights
        loss = linear_cross_entropy(hidden, head, labels, label_smoothing=smoothing, weights=weights)
        return loss, _count(labels, weights)

    def read(self, model: nn.Module, batch: DeviceBatch) -> torch.Tensor:
        """Hidden states (T, C) that say each label: the decoder has read those before it in the same target."""
        assert batch.lengths is not None and batch.target_lengths is not None
        given = batch.labels.roll(1)
        firsts = torch.tensor((0, *batch.target_lengths[:-1])).cumsum(0).to(given.device)
        given[0, firsts] = cast(T5, model).config.start_id
        hidden: torch.Tensor = model(
            batch.tokens, given, source_lengths=batch.lengths, target_lengths=batch.target_lengths
        )
        return hidden[0]


@dataclass(frozen=True)
class Classification:
    """Say which label a text has, or which of several (multi).

    weights: (k,) of the labels; of several, of where they hold. Targets are the weights of the rows' labels; of
    several, rows x labels. label_smoothing spreads a share of the truth over all labels; focal_gamma weighs a row by
    (1 - p)^gamma, p being the probability of what holds. Source: arXiv:1708.02002.
    """

    multi: bool
    weights: torch.Tensor | None = None
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0

    def loss_sum(self, model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        assert batch.classes is not None
        return self.loss_of(self.logits(model, batch), batch.classes)

    def logits(self, model: nn.Module, batch: DeviceBatch) -> torch.Tensor:
        """(samples, k) fp32."""
        logits = label_logits(
            model, batch.tokens, batch.lengths, batch.positions, batch.types, code=batch.code, task=batch.task
        )
        return logits.float()

    def loss_of(self, logits: torch.Tensor, classes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of losses and targets of logits (n, k) and classes (n, k)."""
        weights = torch.ones_like(logits[0]) if self.weights is None else self.weights.to(logits)
        smooth, k = self.label_smoothing, logits.shape[1]
        if self.multi:
            truth = classes * (1 - smooth) + smooth / 2
            said, unsaid = F.logsigmoid(logits), F.logsigmoid(-logits)
            losses = -(truth * weights * said + (1 - truth) * unsaid)
            if self.focal_gamma:
                losses = losses * (classes * unsaid.exp() + (1 - classes) * said.exp()) ** self.focal_gamma
            return losses.sum(), torch.tensor(float(classes.numel()), device=logits.device)
        truth = classes * (1 - smooth) + smooth / k
        log_p = logits.log_softmax(dim=1)
        losses = -(truth * weights * log_p).sum(dim=1)
        if self.focal_gamma:
            losses = losses * (1 - (classes * log_p).sum(dim=1).exp()) ** self.focal_gamma
        return losses.sum(), (classes * weights).sum()

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """(n, k), of one label sums of 1."""
        return logits.sigmoid() if self.multi else logits.softmax(dim=1)


def choose_objective(recipe: Recipe, split: Split, *, multi: bool | None) -> Objective:
    """The objective that a recipe asks for; multi: whether texts have several labels, None if they have none."""
    if multi is not None:
        return choose_classification(recipe.loss, split, multi=multi)
    if recipe.train.objective == "seq2seq":
        return Seq2Seq(recipe.loss.label_smoothing)
    return Masked() if recipe.train.objective == "masked" else Causal()


def choose_classification(recipe: Loss, split: Split, *, multi: bool) -> Classification:
    """The classification that a recipe asks for; balanced weights come from the rows of the training split.

    Of one label the weight is rows / (labels x rows with it), labels without rows not counted; of several, rows without
    it / rows with it. A label without rows weighs 1.
    """
    weights = None
    if recipe.class_weights == "balanced":
        assert split.classes is not None
        held = torch.from_numpy(split.classes.sum(axis=0).astype("float32"))
        balanced = (len(split) - held if multi else len(split) / held.count_nonzero()) / held.clamp(min=1)
        weights = torch.where(held > 0, balanced, 1.0)
    return Classification(multi, weights, recipe.label_smoothing, recipe.focal_gamma)


def without_weights(objective: Objective) -> Objective:
    """The same as its figures are told: without smoothing, weights of labels and what else bends it for training."""
    match objective:
        case Seq2Seq():
            return Seq2Seq()
        case Classification():
            return Classification(objective.multi)
    return objective


def targets_per_sample(objective: Objective, split: Split) -> float:
    """Mean of what `loss_sum` counts as the targets of a sample; with weights of tokens, of some evenly spaced ones."""
    if isinstance(objective, Classification):
        assert split.classes is not None
        if objective.multi:
            return float(split.classes.shape[1])
        weights = torch.ones(split.classes.shape[1]) if objective.weights is None else objective.weights
        return float((torch.from_numpy(split.classes).float() @ weights).mean())
    if split.kind_weights is not None:
        some = min(len(split), _WEIGHED)
        samples = [split.sample(index * len(split) // some) for index in range(some)]
        sums = [float(sample.weights[sample.labels >= 0].sum()) for sample in samples if sample.weights is not None]
        return sum(sums) / len(sums)
    return split.scored / len(split)


@dataclass(frozen=True)
class MultiTask:
    """Several objectives, each for the micro-batches of its task.

    weights: of a target of each task; one over the mean targets of its samples, so that a sample counts as much as
    another, whatever its task, and the ratios of the tasks are those of their samples.
    """

    parts: Mapping[str, Objective]
    weights: Mapping[str, float]

    def loss_sum(self, model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        loss, targets = self.parts[batch.task].loss_sum(model, batch)
        return loss * self.weights[batch.task], targets * self.weights[batch.task]


@dataclass(frozen=True)
class Custom:
    """An objective from a function `loss(model, batch) -> (sum of losses, number of targets)`."""

    loss: Callable[[nn.Module, DeviceBatch], tuple[torch.Tensor, Any]]

    def loss_sum(self, model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        loss, targets = self.loss(model, batch)
        return loss, torch.as_tensor(targets, dtype=torch.float32, device=loss.device)


def _count(labels: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """How many targets there are, () fp32, or the sum of their weights."""
    return torch.tensor(float(len(labels)), device=labels.device) if weights is None else weights.sum()


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum of weights x -log softmax(hidden weight^T + bias)[labels] in nats, (), fp32.

    hidden (N, C), weight (V, C), labels (N,) int64, bias (V,), weights (N,) fp32, or all are 1. label_smoothing:
    the share of the truth that is spread over all V. Works on a chunk of rows at a time, CHUNK_ROWS on a CPU, and
    finds the gradients in the same pass, so that of N x V logits only those of a chunk exist at once.
    """
    loss: torch.Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, weight, labels, bias, label_smoothing, weights
    )
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        bias: torch.Tensor | None,
        smoothing: float,
        weights: torch.Tensor | None,
    ) -> torch.Tensor:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        with_hidden, with_weight, _, with_bias, _, _ = ctx.needs_input_grad
        with torch.autocast(device, enabled=False):
            rows, head, V = hidden.to(dtype), weight.to(dtype), len(weight)
            if dtype.itemsize == 2 and V % _HEAD_MULTIPLE:
                head = F.pad(head, (0, 0, 0, -V % _HEAD_MULTIPLE))
            grad_hidden = torch.empty_like(rows) if with_hidden else None
            grad_weight = torch.zeros_like(weight, dtype=torch.float32) if with_weight else None
            grad_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and with_bias else None
            loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
            most = max(CHUNK_ROWS, _GPU_CHUNK_LOGITS // V) if device == "cuda" else CHUNK_ROWS
            chunks = max(-(-len(rows) // most), 1)
            logits = torch.empty((-(-len(rows) // chunks), len(head)), dtype=dtype, device=hidden.device)
            shares = [None] * chunks if weights is None else weights[:, None].tensor_split(chunks)
            start = 0
            for part, target, share in zip(rows.tensor_split(chunks), labels[:, None].tensor_split(chunks), shares):
                # In place, since at this size passes over memory cost as much as arithmetic: softmax, loss and slope of
                # 512 x 50,304 logits take 26 ms instead of 58 with log_softmax (2 cores, torch 2.13).
                slope = torch.mm(part, head.T, out=logits[: len(part)])  # (rows, V and what fills it up, which stays 0)
                scores = slope[:, :V].float()
                if bias is not None:
                    scores += bias
                top, right = scores.amax(dim=1, keepdim=True), scores.gather(1, target)
                if smoothing:
                    right = (1 - smoothing) * right + smoothing * scores.mean(dim=1, keepdim=True)
                total = scores.sub_(top).exp_().sum(dim=1, keepdim=True)
                losses = total.log() + top - right
                loss += (losses if share is None else losses * share).sum()
                if not (with_hidden or with_weight or with_bias):
                    continue
                # d loss / d logits = softmax - truth, which is one-hot but for what is smoothed
                truth = scores.new_full(target.shape, smoothing - 1.0)
                if share is not None:
                    total, truth = total / share, truth * share
                scores.div_(total).scatter_add_(1, target, truth)
                if smoothing:
                    scores -= smoothing / scores.shape[1] * (1.0 if share is None else share)
                if grad_bias is not None:
                    grad_bias += scores.sum(dim=0)
                if dtype != torch.float32:  # else they share their memory
                    slope[:, :V] = scores
                if grad_hidden is not None:
                    torch.mm(slope, head, out=grad_hidden[start : start + len(part)])
                if grad_weight is not None and dtype == torch.float32:
                    grad_weight.addmm_(slope.T, part)
                elif grad_weight is not None:
                    grad_weight += (slope.T @ part)[:V]
                start += len(part)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.dtypes = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        return loss

    @staticmethod
    def backward(
        ctx: Any, grad: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None, torch.Tensor | None, None, None]:
        hidden, weight, bias = (
            None if saved is None else (saved * grad).to(dtype) for saved, dtype in zip(ctx.saved_tensors, ctx.dtypes)
        )
        return hidden, weight, None, bias, None, None
