"""AdamW, Adam and Muon under one learning rate; a flag on the device can void a step."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from etude.engine.shards import Shards
from etude.models.parts import linear_layers
from etude.recipe.schema import Optim

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_LARGEST = torch.finfo(torch.float32).max
_SIGNED = ("exp_avg", "momentum")  # states that may be below zero
State = dict[torch.Tensor, dict[str, torch.Tensor]]  # of each parameter, by name


class Optimizer:
    """All parameters of a model under the optimizer of a recipe.

    parts    of its parameters, each under a formula of its own
    applied  learning rate and divisor of the gradients in the last step
    """

    applied: tuple[float, torch.Tensor] | None = None

    def __init__(self, model: nn.Module, recipe: Optim, shards: Shards | None = None) -> None:
        self._are_pieces = shards is not None
        held = shards.pieces if shards else dict(model.named_parameters())
        self.names: dict[torch.Tensor, str] = {
            parameter: name for name, parameter in held.items() if parameter.requires_grad
        }
        self.parameters = list(self.names)
        groups, decay = group_parameters(model, recipe), default_weight_decay(recipe)
        if shards:
            groups = Groups(*([shards.of[each] for each in part] for part in vars(groups).values()))
        betas, is_decoupled = (recipe.beta1, recipe.beta2), recipe.kind != "adam"
        self.parts: list[Adam | Muon] = [
            Adam(parameters, betas=betas, eps=recipe.eps, weight_decay=share, is_decoupled=is_decoupled)
            for parameters, share in ((groups.decayed, decay), (groups.plain, 0.0))
        ]
        if groups.matrices:
            ratio = recipe.matrix_rate_ratio
            self.parts.append(
                Muon(
                    groups.matrices,
                    momentum=recipe.momentum,
                    weight_decay=decay,
                    rate_ratio=ratio,
                    shards=shards,
                )
            )

    def has(self, name: str, parameter: torch.Tensor) -> bool:
        """True if it updates a parameter of the model, or the rows of it that this rank holds."""
        return name in self.names.values() if self._are_pieces else parameter in self.names

    def step(self, learning_rate: float, *, grad_divisor: torch.Tensor, skipped: torch.Tensor) -> None:
        """Update all parameters by gradients / `grad_divisor`, (), or none of them if `skipped`, bool ()."""
        self.applied = learning_rate, grad_divisor
        for part in self.parts:
            part.step(learning_rate, grad_divisor, skipped)

    def begin(self) -> list[torch.Tensor]:
        """Make the state that a step needs, of parameters with a gradient; returns those that had none."""
        begun: list[torch.Tensor] = []
        try:
            for part in self.parts:
                for parameter in part.parameters:
                    if parameter.grad is not None and parameter not in part.state:
                        part.state[parameter] = part.begin(parameter)
                        begun.append(parameter)
        except Exception:
            self.forget(begun)
            raise
        return begun

    def forget(self, parameters: Iterable[torch.Tensor]) -> None:
        """Drop the state of parameters, which have not been updated."""
        for parameter in parameters:
            for part in self.parts:
                part.state.pop(parameter, None)

    @property
    def state_bytes(self) -> int:
        """Bytes of its state once every parameter has some."""
        return sum(part.moments * each.nbytes for part in self.parts for each in part.parameters)

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def state(self) -> dict[str, torch.Tensor]:
        """Every state tensor as `<parameter>/<state>`."""
        return {
            f"{self.names[parameter]}/{key}": value
            for part in self.parts
            for parameter, values in part.state.items()
            for key, value in values.items()
        }

    def states(self) -> Iterator[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        """The state tensors of each parameter that has some, by name."""
        for part in self.parts:
            yield from part.state.items()

    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take over state tensors; a parameter that no loss has reached yet has none.

        Raises: ValueError with the reason if they are not of this optimizer.
        """
        owners: dict[torch.Tensor, Adam | Muon] = {
            parameter: part for part in self.parts for parameter in part.parameters
        }
        left = dict(tensors)
        for parameter, name in self.names.items():
            state = owners[parameter].begin(parameter)
            given = {key: left.pop(f"{name}/{key}") for key in state if f"{name}/{key}" in left}
            for key, begun in state.items() if given else ():
                _require_alike(f"{name}/{key}", given.get(key), begun, signed=key in _SIGNED)
                begun.copy_(given[key])
            owners[parameter].state.pop(parameter, None)
            if given:
                owners[parameter].state[parameter] = state
        if left:
            raise ValueError(f"it has {min(left)[:80]}, which this model does not have")


def default_weight_decay(recipe: Optim) -> float:
    """The weight decay of a recipe: by default 0.1, but 0 for Adam, where it is a penalty on the gradient."""
    if recipe.weight_decay is not None:
        return recipe.weight_decay
    return 0.0 if recipe.kind == "adam" else 0.1


@dataclass(frozen=True)
class Groups:
    """Parameters by their update: Muon, Adam with weight decay, Adam without."""

    matrices: list[nn.Parameter]
    decayed: list[nn.Parameter]
    plain: list[nn.Parameter]


def group_parameters(model: nn.Module, recipe: Optim) -> Groups:
    """Muon takes the weights of linear layers but the head; decay goes to what has two or more dimensions."""
    named = (name for name in linear_layers(model) if not name.endswith("head"))
    linear = {model.get_submodule(name).weight for name in named}
    groups = Groups([], [], [])
    for parameter in model.parameters():
        if parameter.requires_grad:
            if recipe.kind == "muon" and parameter in linear:
                groups.matrices.append(parameter)
            else:
                (groups.decayed if parameter.dim() >= 2 else groups.plain).append(parameter)
    return groups


class Adam:
    """Adam, or AdamW, which keeps decay out of the moments, by torch's fused kernels.

    Bit for bit `torch.optim` with fused=True; that itself loads torch's compiler, a second of the start of a
    run. Source: arXiv:1412.6980, arXiv:1711.05101.
    """

    moments = 2  # tensors of state of the size of a parameter

    def __init__(
        self,
        parameters: list[nn.Parameter],
        *,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        is_decoupled: bool,
    ) -> None:
        self.parameters, self.state = parameters, State()
        self.is_decoupled = is_decoupled
        self._kernel: Any = torch._fused_adamw_ if is_decoupled else torch._fused_adam_
        self.settings = {"beta1": betas[0], "beta2": betas[1], "eps": eps, "weight_decay": weight_decay}

    @torch.no_grad()
    def step(self, learning_rate: float, grad_divisor: torch.Tensor, skipped: torch.Tensor) -> None:
        """As `Optimizer.step`."""
        for parameters in _alike(self.parameters):
            for parameter in parameters:
                if parameter not in self.state:
                    self.state[parameter] = self.begin(parameter)
            first, second, steps = (
                [self.state[parameter][name] for parameter in parameters]
                for name in ("exp_avg", "exp_avg_sq", "step")
            )
            weights, grads = list(parameters), [parameter.grad for parameter in parameters]
            is_void = skipped.float()
            torch._foreach_add_(steps, 1 - is_void)
            self._kernel(
                weights, grads, first, second, [], steps, amsgrad=False, maximize=False, lr=learning_rate,
                grad_scale=grad_divisor, found_inf=is_void, **self.settings,
            )  # fmt: skip

    @staticmethod
    def begin(parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        """The state of a parameter before its first step."""
        moments = {name: torch.zeros_like(parameter.detach()) for name in ("exp_avg", "exp_avg_sq")}
        return {"step": torch.zeros((), dtype=torch.float32, device=parameter.device), **moments}


class Muon:
    """Momentum whose matrix updates are made orthogonal, all matrices of a shape in one batch.

    m <- beta m + (1 - beta) g;  u = orthogonal((1 - beta) g + beta m)
    w <- w (1 - lr decay) - lr 0.2 sqrt(max(r, c)) u
    The factor gives u the root mean square of an AdamW update, so both may share one learning rate.

    rate_ratio: lr as a share of the learning rate of a step. shards: makes matrices whole where ranks hold
    pieces of them.

    Source: Jordan et al. 2024 (Muon); Liu et al. 2025, "Muon is scalable for LLM training" (the factor).
    """

    moments = 1

    def __init__(
        self,
        parameters: list[nn.Parameter],
        *,
        momentum: float,
        weight_decay: float,
        rate_ratio: float = 1.0,
        shards: Shards | None = None,
    ) -> None:
        self.parameters, self.state = parameters, State()
        self.momentum, self._weight_decay, self._rate_ratio = momentum, weight_decay, rate_ratio
        self._shards = shards

    @torch.no_grad()
    def step(self, learning_rate: float, grad_divisor: torch.Tensor, skipped: torch.Tensor) -> None:
        """As `Optimizer.step`."""
        for parameters in _alike(self.parameters, self._shape_of):
            self._update(parameters, self._rate_ratio * learning_rate, grad_divisor, skipped)

    def _update(
        self, parameters: list[nn.Parameter], rate: float, grad_divisor: torch.Tensor, skipped: torch.Tensor
    ) -> None:
        beta = self.momentum
        for parameter in parameters:
            if parameter not in self.state:
                self.state[parameter] = self.begin(parameter)
        kept = torch.stack([self.state[parameter]["momentum"] for parameter in parameters])  # (n, r, c)
        grads = torch.stack([parameter.grad for parameter in parameters])  # type: ignore[misc]
        grads /= grad_divisor
        momentum = kept.lerp(grads, 1 - beta)
        mixed, shape = grads.lerp(momentum, beta), self._shape_of(parameters[0])
        if self._shards:
            update = self._shards.by_matrix(mixed, shape[0], orthogonalize)
        else:
            update = orthogonalize(mixed)
        factor = 0.2 * max(shape) ** 0.5
        shrink = torch.tensor(max(1 - rate * self._weight_decay, -_LARGEST), device=kept.device)
        momentum, update = torch.where(skipped, kept, momentum), update.masked_fill(skipped, 0)
        shrink = torch.where(skipped, torch.ones_like(shrink), shrink)
        torch._foreach_copy_(
            [self.state[parameter]["momentum"] for parameter in parameters], list(momentum.unbind())
        )
        weights: list[torch.Tensor] = [*parameters]
        torch._foreach_mul_(weights, shrink)
        alpha = -min(rate * factor, _LARGEST)  # torch raises beyond it; the weights are lost with it, too
        torch._foreach_add_(weights, list(update.to(momentum.dtype).unbind()), alpha=alpha)

    def _shape_of(self, parameter: torch.Tensor) -> tuple[int, ...]:
        """The shape of a whole matrix."""
        return self._shards.shape_of(parameter) if self._shards else tuple(parameter.shape)

    @staticmethod
    def begin(parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        """The state of a parameter before its first step."""
        return {"momentum": torch.zeros_like(parameter.detach())}


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


def _alike(
    parameters: list[nn.Parameter], shape_of: Callable[[torch.Tensor], tuple[int, ...]] = lambda _: ()
) -> Iterable[list[nn.Parameter]]:
    """Parameters with a gradient that one call may update: of one device, dtype and, if asked, shape."""
    groups: defaultdict[tuple[Any, ...], list[nn.Parameter]] = defaultdict(list)
    for parameter in parameters:
        if parameter.grad is not None:
            groups[parameter.device, parameter.dtype, shape_of(parameter)].append(parameter)
    return groups.values()


def _require_alike(name: str, given: torch.Tensor | None, begun: torch.Tensor, *, signed: bool) -> None:
    """Raises: ValueError unless a tensor has shape and dtype of one just begun, and possible numbers."""
    if given is None:
        raise ValueError(f"it has no {name}")
    if given.shape != begun.shape or given.dtype != begun.dtype:
        theirs, ours = (f"{str(t.dtype).removeprefix('torch.')} {list(t.shape)}" for t in (given, begun))
        raise ValueError(f"{name} is {theirs}, not {ours}")
    if not given.sum(dtype=torch.float64).isfinite() or not (signed or (given >= 0).all()):
        raise ValueError(f"{name} holds numbers that no step makes")
