"""Optimizers: AdamW and Adam by torch, Muon by us; one learning rate, and a step that a flag on the device can void."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from etude.recipe.schema import Optim

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Optimizer:
    """All parameters of a model under the optimizer of a recipe."""

    def __init__(self, model: nn.Module, recipe: Optim) -> None:
        self.names: dict[torch.Tensor, str] = {
            parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad
        }
        self.parameters = list(self.names)
        groups = group_parameters(model, recipe)
        decay = default_weight_decay(recipe)
        kind = torch.optim.Adam if recipe.kind == "adam" else torch.optim.AdamW
        self._parts: list[torch.optim.Optimizer] = [
            kind(
                [{"params": groups.decayed, "weight_decay": decay}, {"params": groups.plain, "weight_decay": 0.0}],
                lr=recipe.learning_rate, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps, fused=True,
            )
        ]  # fmt: skip
        if groups.matrices:
            self._parts.append(
                Muon(groups.matrices, lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=decay)
            )

    def step(self, learning_rate: float, *, grad_divisor: torch.Tensor, skipped: torch.Tensor) -> None:
        """Update all parameters by gradients / `grad_divisor`, or none of them if `skipped`; both () on the device."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = learning_rate
            # The attributes through which torch's GradScaler speaks to fused optimizers.
            part.grad_scale, part.found_inf = grad_divisor, skipped.float()  # type: ignore[attr-defined]
            part.step()

    def zero_grad(self) -> None:
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def state(self) -> dict[str, torch.Tensor]:
        """Every state tensor as `<parameter>/<state>`."""
        return {
            f"{self.names[parameter]}/{key}": value
            for part in self._parts
            for parameter, values in part.state.items()
            for key, value in values.items()
        }

    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take over state tensors. Raises: KeyError if one belongs to no parameter."""
        parameters = {name: parameter for parameter, name in self.names.items()}
        owners = {
            parameter: part for part in self._parts for group in part.param_groups for parameter in group["params"]
        }
        for key, value in tensors.items():
            name, _, state = key.rpartition("/")
            parameter = parameters[name]
            owners[parameter].state[parameter][state] = value.to(parameter.device)


def default_weight_decay(recipe: Optim) -> float:
    """The weight decay of a recipe; left out it is 0.1, but 0 for Adam, where it is an L2 penalty on the gradient."""
    if recipe.weight_decay is not None:
        return recipe.weight_decay
    return 0.0 if recipe.kind == "adam" else 0.1


@dataclass(frozen=True)
class Groups:
    """Which parameters are updated how: by Muon; by Adam with weight decay; by Adam without."""

    matrices: list[nn.Parameter]
    decayed: list[nn.Parameter]
    plain: list[nn.Parameter]


def group_parameters(model: nn.Module, recipe: Optim) -> Groups:
    """Muon takes the weights of linear layers but the head; decay goes to what has two or more dimensions."""
    linear = {
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.endswith(("lm_head", "head"))
    }
    groups = Groups([], [], [])
    for parameter in model.parameters():
        if parameter.requires_grad:
            if recipe.kind == "muon" and parameter in linear:
                groups.matrices.append(parameter)
            else:
                (groups.decayed if parameter.dim() >= 2 else groups.plain).append(parameter)
    return groups


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix updates are made orthogonal, all matrices of a shape in one batch.

    m <- beta m + (1 - beta) g;  u = orthogonal((1 - beta) g + beta m)
    w <- w (1 - lr decay) - lr 0.2 sqrt(max(r, c)) u
    The factor gives u the root mean square of an AdamW update, so both share one learning rate.

    Source: Jordan et al. 2024 (Muon); Liu et al. 2025, "Muon is scalable for LLM training" (the factor).
    """

    def __init__(self, params: Iterable[nn.Parameter], *, lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.grad_scale: torch.Tensor | None = None
        self.found_inf: torch.Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: defaultdict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes[parameter.shape].append(parameter)
            for parameters in shapes.values():
                self._update(parameters, group)

    def _update(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        beta, rate = group["momentum"], group["lr"]
        for parameter in parameters:
            if "momentum" not in self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        kept = torch.stack([self.state[parameter]["momentum"] for parameter in parameters])  # (n, r, c)
        grads = torch.stack([parameter.grad for parameter in parameters])  # type: ignore[misc]
        if self.grad_scale is not None:
            grads /= self.grad_scale
        momentum = kept.lerp(grads, 1 - beta)
        update = orthogonalize(grads.lerp(momentum, beta))
        factor = 0.2 * max(update.shape[-2:]) ** 0.5
        shrink = torch.tensor(1 - rate * group["weight_decay"], device=kept.device)
        if self.found_inf is not None:
            skipped = self.found_inf.bool()
            momentum, update = torch.where(skipped, kept, momentum), update.masked_fill(skipped, 0)
            shrink = torch.where(skipped, torch.ones_like(shrink), shrink)
        torch._foreach_copy_([self.state[parameter]["momentum"] for parameter in parameters], list(momentum.unbind()))
        weights: list[torch.Tensor] = [*parameters]
        torch._foreach_mul_(weights, shrink)
        torch._foreach_add_(weights, list(update.to(momentum.dtype).unbind()), alpha=-rate * factor)


def orthogonalize(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Bring all singular values of each matrix (n, r, c) near 1, by Newton-Schulz iterations.

    In bf16 where that is quicker than fp32 (GPUs), else in fp32.
    """
    a, b, c = _NEWTON_SCHULZ
    x: torch.Tensor = matrices.bfloat16() if matrices.device.type == "cuda" else matrices
    if tall := x.shape[-2] > x.shape[-1]:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
