"""The traffic of a step over many ranks: what they exchange, and how long the links take for it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from etude.engine.parallel import BUCKET_BYTES
from etude.engine.precision import DTYPES
from etude.engine.shards import is_gathered_in_half, parts_of
from etude.links import Cluster, Kind, sent_bytes
from etude.models.families.table import family_of
from etude.plan import Plan
from etude.plan.pieces import block_bytes
from etude.text import plural, rough_size

_SHAPES = 4  # of the matrices of a block, those of a shape in one exchange


@dataclass(frozen=True)
class Exchange:
    """Exchanges of one kind in a step.

    what    their purpose, in words
    nbytes  of all that is exchanged, whole, over all of them
    count   exchanges, one after another
    """

    what: str
    kind: Kind
    nbytes: float
    count: int


@dataclass(frozen=True)
class Traffic:
    """The exchanges of a step of so many ranks, and the cluster that carries them."""

    exchanges: tuple[Exchange, ...]
    ranks: int
    cluster: Cluster

    @property
    def sent_bytes(self) -> float:
        """Bytes that each rank sends in a step; it receives as many."""
        return sum(sent_bytes(each.kind, each.nbytes, self.ranks) for each in self.exchanges)

    @property
    def link_seconds(self) -> float:
        """Seconds of the links at their stated rates."""
        return sum(self.cluster.seconds(each.kind, each.nbytes, self.ranks) for each in self.exchanges)

    @property
    def hop_seconds(self) -> float:
        """Seconds of the hops that follow each other."""
        return sum(each.count * self.cluster.hop_seconds(each.kind, self.ranks) for each in self.exchanges)

    @property
    def seconds(self) -> float:
        """Seconds of all exchanges, one after another."""
        return self.link_seconds + self.hop_seconds

    def row(self) -> str:
        """The traffic in words."""
        cluster = self.cluster
        each = ", ".join(
            f"{exchange.what} {rough_size(sent_bytes(exchange.kind, exchange.nbytes, self.ranks))}"
            for exchange in self.exchanges
        )
        links = f"{cluster.inside.title} {cluster.inside.rate / 1e9:,.0f} GB/s ({cluster.inside.source})"
        if cluster.machines(self.ranks) > 1:
            links += f", {cluster.outside.title} {8e-9 * cluster.outside.rate:,.0f} Gb/s a GPU"
            most = f"{cluster.ring_rate(self.ranks) / 1e9:,.0f} GB/s in a ring"
            links += f" ({cluster.outside.source}), {cluster.per_machine} GPUs a machine: {most}"
        times = f"{1e3 * self.link_seconds:,.3g} ms over the links, {1e3 * self.hop_seconds:,.3g} ms in hops"
        count = plural(sum(exchange.count for exchange in self.exchanges), "exchange")
        return f"each rank sends {rough_size(self.sent_bytes)} a step ({each}): {times} of {count}; {links}"

    def values(self, compute_seconds: float, tokens: float) -> dict[str, Any]:
        """The figures by name, for JSON. compute_seconds, tokens: of a step."""
        none, full = self.bounds(compute_seconds)
        return {
            "sent_bytes": round(self.sent_bytes),
            "exchanges": {each.what.replace(" ", "_"): round(each.nbytes) for each in self.exchanges},
            "link_seconds": self.link_seconds,
            "hop_seconds": self.hop_seconds,
            "compute_seconds": compute_seconds,
            "step_seconds": {"no_overlap": none, "full_overlap": full},
            "tokens_per_second": {"no_overlap": tokens / none, "full_overlap": tokens / full},
        }

    def bounds(self, compute_seconds: float) -> tuple[float, float]:
        """Seconds of a step in which nothing overlaps, and of one in which all does."""
        return compute_seconds + self.seconds, max(compute_seconds, self.seconds)

    def overlap_row(self, compute_seconds: float, tokens: float) -> str:
        """The bounds of a step in words. compute_seconds, tokens: of a step."""
        none, full = self.bounds(compute_seconds)
        return (
            f"a step computes for {compute_seconds:,.3g} s; with no exchange hidden behind that it takes "
            f"{none:,.3g} s ({tokens / none:,.0f} tokens a second), with all of them hidden {full:,.3g} s "
            f"({tokens / full:,.0f}): bounds, nothing between them was measured"
        )


def traffic_of(plan: Plan, cluster: Cluster) -> Traffic | None:
    """The traffic of a step of a plan; None with one rank, and for a module of the user's."""
    ranks = plan.recipe.train.devices
    if ranks == 1 or plan.model is None:
        return None
    return Traffic(tuple(_exchanges_of(plan)), ranks, cluster)


def _exchanges_of(plan: Plan) -> Iterator[Exchange]:
    trained = 4.0 * plan.trainable
    if plan.parallel.kind == "replicate":
        yield Exchange("add up gradients", "all-reduce", trained, max(round(trained / BUCKET_BYTES), 1))
        return
    root, blocks, count = part_bytes(plan)
    per_rank = -(-plan.global_batch_size // plan.recipe.train.devices)
    passes = -(-per_rank // (plan.micro_batch_size or per_rank))
    yield Exchange("gather weights", "all-gather", passes * (root + 2 * blocks), passes * (1 + 2 * count))
    yield Exchange("deal out gradients", "reduce-scatter", passes * trained, passes * (1 + count))
    if plan.recipe.optim.kind == "muon":
        matrices = sum(plan.parameters.get(part, 0) for part in ("attention", "feed_forward"))
        yield Exchange("deal out matrices", "all-to-all", 2 * 4.0 * matrices, 2 * _SHAPES)


def part_bytes(plan: Plan) -> tuple[float, float, int]:
    """Bytes that ranks gather of the model but its blocks, of all blocks, and the exchanges for blocks."""
    assert plan.model is not None, "a module of the user's has no configuration"
    model, dtype = family_of(plan.model).empty(plan.model, plan.labels), DTYPES[plan.precision]
    *blocks, _ = parts_of(model)
    inside = {parameter for block in blocks for parameter in block.parameters()}
    others = sum(parameter.numel() for parameter in model.parameters()) - sum(map(torch.numel, inside))
    adapter = plan.parameters.get("adapter", 0)  # in the blocks
    in_blocks = sum(block_bytes(block, dtype) for block in blocks) + dtype.itemsize * adapter
    exchanges = sum(
        len({is_gathered_in_half(name, each, dtype) for name, each in block.named_parameters()})
        for block in blocks
    )
    return (dtype.itemsize if adapter else 4) * others, in_blocks, exchanges
