"""Low-rank adapters: y = W x + b + scale B A x, where W and b are frozen and only A and B are trained.

The layer keeps the names of what it replaces, so an adapted model has the parameters of its base and, beside
each adapted weight, those that PEFT gives them: `lora_A.weight`, `lora_B.weight`, `lora_magnitude_vector`.

Shapes: (out, in) of the frozen weight; (rank, in) of A; (out, rank) of B
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from etude.models.layers import fill
from etude.recipe.model import Adapter

ADAPTER_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
CLASSIFIER = "SEQ_CLS"  # PEFT's name for the task
# The config.json of a classifier. Under that name, transformers would take the folder for a model.
CLASSIFIER_FILE = "adapter_classifier.json"
PREFIX = "base_model.model."


class LoRALinear(nn.Module):
    """A frozen linear layer with a trained low-rank update.

    base: nn.Linear, one of 4 bits by bitsandbytes, or the Conv1D of GPT-2, whose weight is transposed. The
    weight is shared, not copied.

    Source: LoRA, arXiv:2106.09685; DoRA, arXiv:2402.09353; scale alpha / sqrt(rank), arXiv:2312.03732.
    """

    def __init__(self, base: nn.Module, recipe: Adapter) -> None:
        super().__init__()
        self.weight: nn.Parameter = base.weight  # type: ignore[assignment]
        self.bias: nn.Parameter | None = base.bias  # type: ignore[assignment]
        self.is_transposed = not isinstance(base, nn.Linear)
        self.make_base: Callable[[], nn.Module] = lambda: base
        self.scale = recipe.alpha / (math.sqrt(recipe.rank) if recipe.rank_stabilized else recipe.rank)
        self.dropout = recipe.dropout
        self.is_quantized = self.weight.dtype == torch.uint8
        inputs = base.in_features if isinstance(base, nn.Linear) else self._oriented().shape[1]
        outputs = base.out_features if isinstance(base, nn.Linear) else self._oriented().shape[0]
        self.lora_A = nn.Linear(inputs, recipe.rank, bias=False, device=self.weight.device)
        self.lora_B = nn.Linear(recipe.rank, outputs, bias=False, device=self.weight.device)
        self.lora_magnitude_vector: nn.Parameter | None = None
        if recipe.dora:
            self.lora_magnitude_vector = nn.Parameter(magnitude_of(self._oriented()))

    def draw_weights(self, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """A is drawn as PEFT draws it, uniform within 1 / sqrt(in); B is zero, so the update is."""
        bound, shape = 1 / math.sqrt(self.lora_A.in_features), self.lora_A.weight.shape
        yield "lora_A.weight", torch.empty(shape).uniform_(-bound, bound, generator=generator)
        yield "lora_B.weight", torch.zeros(self.lora_B.weight.shape)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return self._of_rows(x.flatten(0, -2)).view(*x.shape[:-1], len(self.lora_B.weight))

    def frozen(self, x: Tensor) -> Tensor:
        """The product with the frozen weight, (N, in) to (N, out), which may be added to in place."""
        if self.is_quantized:
            made: Tensor = self.make_base()(x)
            return made.clone()  # what its backward made may not be changed in place
        return functional.linear(x, self._oriented(), self.bias)

    def _of_rows(self, x: Tensor) -> Tensor:
        """(N, in) to (N, out)."""
        base = self.frozen(x)
        dropped = functional.dropout(x, self.dropout, self.training)
        A, B = self.lora_A.weight, self.lora_B.weight
        # Autocast casts by itself; to fp32 and back would be two copies.
        is_cast = torch.is_autocast_enabled(x.device.type)
        low = functional.linear(dropped if is_cast else dropped.to(A.dtype), A)
        if self.lora_magnitude_vector is None:
            # In place: nothing needs the frozen product any more. A view of it would copy its gradient.
            return base.addmm_(low.type_as(base), B.T.type_as(base), alpha=self.scale)
        merged = self._oriented() + self.scale * B @ A
        stretch = self.lora_magnitude_vector / merged.detach().float().norm(dim=1)
        plain = functional.linear(dropped, self._oriented())
        update = (stretch - 1) * plain + stretch * self.scale * functional.linear(low, B)
        stretched: Tensor = base + update.type_as(base)
        return stretched

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        """The weight with the update in it, laid out as in the base and in its dtype; summed in fp32."""
        update = self.scale * (self.lora_B.weight.float() @ self.lora_A.weight.float())
        merged = self._oriented().float() + update
        if self.lora_magnitude_vector is not None:
            merged *= (self.lora_magnitude_vector / merged.norm(dim=1))[:, None]
        return (merged.T if self.is_transposed else merged).to(self.weight.dtype).contiguous()

    def _oriented(self) -> Tensor:
        """The frozen weight as (out, in)."""
        return self.weight.T if self.is_transposed else self.weight


def add_adapter(
    model: nn.Module, recipes: Mapping[str, Adapter], seed: int, *, whole: Sequence[str] = ()
) -> None:
    """Freeze a model and put an adapter on each of the named linear modules; its weights follow the seed.

    whole: modules that are trained as they are, in fp32: the new head of a classifier.
    """
    model.requires_grad_(False)
    for name in whole:
        model.get_submodule(name).float().requires_grad_(True)
    layers = {name: LoRALinear(model.get_submodule(name), recipe) for name, recipe in recipes.items()}
    for name, layer in layers.items():
        model.set_submodule(name, layer)
    fill(model, draw_adapter(layers, seed))


def draw_adapter(layers: Mapping[str, LoRALinear], seed: int) -> Iterator[tuple[str, Tensor]]:
    """The first weights of adapted modules, which may lie on the meta device or in pieces, one by one."""
    generator = torch.Generator().manual_seed(seed)
    for name, layer in layers.items():
        yield from ((f"{name}.{part}", drawn) for part, drawn in layer.draw_weights(generator))


def magnitude_of(weight: Tensor) -> Tensor:
    """The first magnitudes (out,) of a frozen weight (out, in) under DoRA: the norms of its rows."""
    norms: Tensor = weight.detach().float().norm(dim=1)
    return norms


def merge(model: nn.Module) -> None:
    """Fold every adapter into the weight it stands beside; what is left is a model of the base's kind."""
    for name, layer in find_layers(model).items():
        base = layer.make_base()
        base.weight = nn.Parameter(layer.merged_weight(), requires_grad=False)
        model.set_submodule(name, base)


def find_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """The adapted modules of a model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The trained tensors of an adapted model under the names of PEFT's files; none of another model."""
    layers = find_layers(model)
    if not layers:
        return {}
    adapters: dict[str, Tensor] = {
        f"{PREFIX}{name}.{part}": tensor
        for name, layer in layers.items()
        for part, tensor in layer.named_parameters()
        if part.startswith("lora_")
    }
    trained = [(name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad]
    return adapters | {f"{PREFIX}{name}": tensor for name, tensor in trained if ".lora_" not in name}


def adapter_config(
    model: nn.Module, recipe: Adapter, *, base: str, revision: str | None, task: str | None = "CAUSAL_LM",
    whole: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """The adapter_config.json with which PEFT loads the tensors of an adapted model.

    task: its name there, or None. whole: as for `add_adapter`.
    """
    layers = find_layers(model)
    last = {name.rpartition(".")[2] for name in layers}
    # PEFT takes every module that ends so; where not all of them are adapted, they are named in full.
    is_all = all(name in layers for name, _ in model.named_modules() if name.rpartition(".")[2] in last)
    return {
        "peft_type": "LORA", "task_type": task, "base_model_name_or_path": base, "revision": revision,
        "r": recipe.rank, "lora_alpha": recipe.alpha, "lora_dropout": recipe.dropout,
        "target_modules": sorted(last) if is_all else list(layers),
        "use_rslora": recipe.rank_stabilized, "use_dora": recipe.dora, "bias": "none",
        "fan_in_fan_out": any(layer.is_transposed for layer in layers.values()),
        "init_lora_weights": True, "inference_mode": True, "modules_to_save": list(whole) or None,
    }  # fmt: skip
