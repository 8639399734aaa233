"""Faults of a loss: its targets, its scale, its value before training, and the weights that it reaches."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from etude.audit.passes import Pass, Tried
from etude.audit.targets import Misplaced, Targets
from etude.data.samples.sample import NO_TARGET
from etude.engine.batch import DeviceBatch
from etude.engine.optim import Optimizer
from etude.engine.shards import is_in_pieces
from etude.records.events import Finding
from etude.text import plural

_MOST = 0.9  # share of the targets from which all are meant
_FEW = 0.02
_MIS_SCALED = 0.05
_FAR = 1.0  # nats from the loss of a model that knows nothing
_NEEDED = 100  # targets, for a mean that says something
_NAMED = 4


def find_wrong_targets(targets: Targets) -> Iterator[Finding]:
    """Targets that are not those of the batch: not shifted, shifted twice, of prompts, of padding."""
    copied, right, second = (targets.share(ids) for ids in (targets.read, targets.next, targets.second))
    decided_by = "targets read from the gradient of the loss by its logits"
    evidence = f"the loss wants the token that the model reads at {copied:.0%} of the scored places, the one "
    evidence += f"after it at {right:.0%}, the one after that at {second:.0%}"
    given = "batch.labels holds the token after each of batch.tokens"
    if (found := targets.misplaced(targets.read, targets.second)).is_fault:
        yield _error(
            "labels_not_shifted",
            f"the loss asks for the token that the model reads{_partly(found)}", evidence,
            f"{given}: compare the answer at each place with batch.labels there, and do not use batch.tokens",
            ["labels that are not shifted, so that copying is all there is to learn"], decided_by,
        )  # fmt: skip
    elif (found := targets.misplaced(targets.second, targets.read)).is_fault:
        yield _error(
            "labels_shifted_twice", f"the loss asks for the token after the next{_partly(found)}", evidence,
            f"{given} already: leave out the shift in the loss, or give the model no labels of its own",
            ["labels that the loss, or the model, shifts once more"], decided_by,
        )  # fmt: skip
    elif not targets.are_of_reading and (elsewhere := targets.elsewhere()):
        yield _error(
            "labels_misplaced", "the targets are not the tokens that follow",
            f"{evidence}; at {elsewhere.share:.0%} it wants those {elsewhere}",
            f"{given}: put labels into the order of their rows, and fill both up on the same side",
            ["labels that were moved, or sorted, without their rows"], decided_by,
        )  # fmt: skip
        return  # what lies at other places is scored in padding and prompts, too
    if (share := targets.share_unasked(real=False)) > _FEW:
        yield _error(
            "padding_scored", "the loss scores padding",
            f"{share:.0%} of the scored places are padding, which batch.tokens does not have",
            "fill labels up with -100, which cross_entropy ignores, and not with the padding token",
            ["labels of padding that are not ignored"], decided_by,
        )  # fmt: skip
    if (share := targets.share_unasked(real=True)) > _FEW:
        yield _error(
            "prompt_scored", "the loss scores what is not to be learnt",
            f"{share:.0%} of the scored places have no target in batch.labels",
            "score batch.labels, where -100 marks what is not to be scored; to learn prompts too, set "
            "data.answers_only = false",
            ["prompts, or other places marked with -100, that the loss scores"], decided_by,
        )  # fmt: skip


def _partly(found: Misplaced) -> str:
    return "" if found.share > _MOST else f" at {found.share:.0%} of the places that tell"


def find_wrong_sum(by_hand: float, loss: float, counted: float, targets: float) -> Iterator[Finding]:
    """A loss of etude that differs from the same sum by plain operations: a kernel that computes wrongly."""
    if abs(loss - by_hand) > _MIS_SCALED * abs(by_hand) or counted != targets:
        yield _error(
            "loss_mis_scaled", "the loss is not that of its targets",
            f"sum {loss:.5g} of {counted:,.0f} targets; by hand {by_hand:.5g} of {targets:,.0f}",
            "train in fp32 or on another device, and report this",
            ["a kernel of the loss that computes wrongly here"],
            "the loss of the same logits recomputed by hand",
        )  # fmt: skip


@dataclass(frozen=True)
class FirstLoss:
    """The loss of a few samples before training, and what it should be.

    classes    tokens or labels to choose from
    is_fresh   whether the weights were drawn by chance; None if that is not known
    is_tokens  whether the classes are tokens
    entropy    of the targets by how often each occurs, in nats
    outputs    tokens that the model can answer with, of which the tokenizer may have fewer
    uncopied   the loss where no place may answer with the token that it reads; NaN if not known
    """

    loss: float
    targets: int
    classes: int
    is_fresh: bool | None
    is_tokens: bool
    entropy: float = 0.0
    outputs: int = 0
    uncopied: float = math.nan

    def find(self) -> Iterator[Finding]:
        """A loss before training that this model and these data cannot have."""
        if not math.isfinite(self.loss) or (self.is_tokens and self.targets < _NEEDED):
            return
        chance, noun = math.log(self.classes), "tokens" if self.is_tokens else "labels"
        said = f"{self.loss:.3f} before training, over {plural(self.targets, 'target')}; a model that knows "
        said += f"nothing has ln({self.classes:,} {noun}) = {chance:.3f}"
        # Weights with a spread add half the variance of the logits.
        highest = math.log(max(self.classes, self.outputs)) + 1.5 * _FAR
        # New weights whose output is tied to the embedding, as T5's, answer with the token that they read.
        if self.loss > highest and self.uncopied <= highest and self.is_fresh is not False:
            return
        if self.loss > highest:
            causes = ["first weights that are too large"]
            if not self.is_fresh:
                causes = ["weights that were not loaded", "another tokenizer or template", *causes]
            advice = "scale the first weights down, or check which were loaded" if self.is_fresh else _CHECK
            yield self._finding("the first loss is worse than chance", said, advice, causes)
        elif self.is_fresh and self.loss < chance - _FAR:
            causes = ["targets that the model can read", "padding among the targets"]
            advice = "check labels and masks: nothing can be known before the first step"
            yield self._finding("the first loss is too good for new weights", said, advice, causes)
        elif self.is_fresh is False and self.is_tokens and self.loss > max(chance / 2, self.entropy):
            said += f", and the frequencies of the tokens alone give {self.entropy:.3f}"
            causes = ["another tokenizer than that of the weights", "another chat template", "text of a kind "
                      "that the model was never trained on"]  # fmt: skip
            found = self._finding("the first loss is too high for a trained model", said, _CHECK, causes)
            # Text of a kind that a model never saw has such losses too, but knows more than nothing.
            yield found if self.loss > chance else replace(found, severity="info")

    def _finding(self, what: str, evidence: str, advice: str, causes: list[str]) -> Finding:
        decided = "the loss before training against that of chance"
        return replace(
            _warning("first_loss_off", what, evidence, advice, causes, decided), confidence=0.6,
            not_tested=["the quality of the weights on text of their own"],
        )  # fmt: skip


def uncopied_loss(done: Pass, batch: DeviceBatch) -> float:
    """Mean cross-entropy of the targets if no place may answer with the token that it reads.

    NaN if the answers of the pass are not the logits of its loss.
    """
    if done.places is None:
        return math.nan
    labels, read = batch.labels.flatten(), batch.tokens.flatten()
    if batch.target_lengths is not None:
        parts = torch.split(labels, list(batch.target_lengths))
        read = torch.cat([F.pad(part[:-1], (1, 0), value=NO_TARGET) for part in parts])
    at, answers = done.places.clamp(min=0), done.answers.float()
    wanted = torch.where(done.places < 0, NO_TARGET, labels[at])
    if max(int(wanted.max()), int(read.max())) >= answers.shape[-1]:
        return math.nan
    by_hand = F.cross_entropy(answers, wanted, ignore_index=NO_TARGET, reduction="sum")
    if abs(float(by_hand - done.loss)) > _MIS_SCALED * abs(float(by_hand)):
        return math.nan
    some = (wanted != NO_TARGET) & (read[at] != NO_TARGET) & (wanted != read[at])
    others = answers[some].scatter(1, read[at][some][:, None], -math.inf)
    return float(F.cross_entropy(others, wanted[some]))


_CHECK = "check that model.from, tokenizer.from and data.template belong together"


def find_unreached(
    passes: Sequence[tuple[Tried, DeviceBatch]], optimizer: Optimizer, frozen: bool
) -> Iterator[Finding]:
    """Tensors that should train and do not: no loss reaches them, or no optimizer has them."""
    all_names = {name: each for name, each in passes[0][0].model.named_parameters() if each.requires_grad}
    # Blocks in pieces are gathered anew for the gradients, which autograd tells of what was gathered.
    names = {name: each for name, each in all_names.items() if not is_in_pieces(each)}
    reached: set[str] = set()
    for tried, batch in passes:
        loss = tried.run(batch).loss
        if loss.requires_grad and names:
            slopes = torch.autograd.grad(loss, list(names.values()), allow_unused=True)
            reached |= {name for name, slope in zip(names, slopes) if slope is not None}
    if lost := [name for name in names if name not in reached]:
        targets = ", or name other adapter.targets" if frozen else ""
        yield _warning(
            "gradient_not_reaching", "no gradient reaches some of the weights",
            f"{_listed(lost)} of {plural(len(names), 'trained tensor')}",
            f"use them in the forward pass, do not detach what they make, or freeze them{targets}",
            ["weights that the loss does not use", "an activation that is detached on its way"],
            "gradients of a pass before the first step",
        )  # fmt: skip
    if lost := [name for name, each in all_names.items() if not optimizer.has(name, each)]:
        yield _error(
            "trainable_not_stepped", "the optimizer does not have some of the weights",
            f"{_listed(lost)} of {plural(len(all_names), 'trained tensor')}",
            "set requires_grad before training starts, and do not replace parameters in a forward pass",
            ["parameters that were made or unfrozen after the optimizer"], "parameters of the optimizer",
        )  # fmt: skip


def sum_by_hand(logits: Tensor, batch: DeviceBatch) -> tuple[float, float]:
    """Cross-entropy of the targets of a batch in fp64 by logits (N, V), and their number, both weighed."""
    labels = batch.labels.flatten()
    scored = labels != NO_TARGET
    rows = logits.flatten(0, -2)[scored].double()
    losses = rows.logsumexp(dim=1) - rows.gather(1, labels[scored][:, None])[:, 0]
    weights = torch.ones_like(losses) if batch.weights is None else batch.weights.double()
    return float((losses * weights).sum()), float(weights.sum())


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _warning(kind: str, what: str, evidence: str, advice: str, causes: list[str], decided_by: str) -> Finding:
    return Finding(
        0, what, evidence, advice, window=[0, 0], causes=causes, kind=kind, confidence=1.0,
        decided_by=decided_by,
    )  # fmt: skip


def _error(*given: str | list[str]) -> Finding:
    return replace(_warning(*given), severity="error")  # type: ignore[arg-type]
