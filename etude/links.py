"""Stated rates of the links between GPUs, and the least time that an exchange of ranks takes over them.

A ring passes a tensor from rank to rank, and from machine to machine by as many links as a machine has GPUs.
Source of the latencies: NCCL 2.30.7, src/graph/tuning.cc, protocol Simple, in which it sends what is large.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["all-reduce", "all-gather", "reduce-scatter", "all-to-all"]
MOST_GBITS = 800.0  # InfiniBand XDR, the quickest that is sold
_BASE_SECONDS, _NETWORK_SECONDS = 8.4e-6, 14e-6  # of an exchange; of each hop between machines
_TREE_SECONDS = 4.0e-6  # of each hop within a machine, for the trees by which NCCL adds up, too


@dataclass(frozen=True)
class Link:
    """A link by its datasheet: bytes a second in each direction, and the latency of a hop over it."""

    title: str
    rate: float
    source: str
    hop_seconds: float = 3.4e-6


_PCI_SECONDS = 5.7e-6
PCIE3, PCIE4, PCIE5 = (
    Link(f"PCIe {number} x16", rate, f"PCI-SIG, PCI Express {number}", _PCI_SECONDS)
    for number, rate in ((3, 16e9), (4, 32e9), (5, 64e9))
)
# Of one GPU. NVIDIA DGX H100 datasheet: eight ConnectX-7 of 400 Gb/s for eight GPUs.
INFINIBAND = Link("InfiniBand NDR", 50e9, "NVIDIA DGX H100 datasheet")


@dataclass(frozen=True)
class Cluster:
    """Machines with GPUs that are linked among themselves, each with a link of its own to other machines.

    inside, outside  links of a GPU within its machine, and to others
    per_machine      GPUs of a machine
    """

    inside: Link
    outside: Link = field(default=INFINIBAND)
    per_machine: int = 8

    def machines(self, ranks: int) -> int:
        """Machines that so many ranks take."""
        return -(-ranks // self.per_machine)

    def ring_rate(self, ranks: int) -> float:
        """Bytes a second that each rank of a ring sends at most."""
        if ranks <= self.per_machine:
            return self.inside.rate
        fewest = ranks % self.per_machine or self.per_machine  # GPUs of the last machine
        return min(self.inside.rate, fewest * self.outside.rate)

    def seconds(self, kind: Kind, nbytes: float, ranks: int) -> float:
        """Seconds of the links for an exchange of a whole of so many bytes, without hops."""
        if kind != "all-to-all" or ranks <= self.per_machine:
            return sent_bytes(kind, nbytes, ranks) / self.ring_rate(ranks)
        return nbytes / ranks**2 * (ranks - self.per_machine) / self.outside.rate

    def hop_seconds(self, kind: Kind, ranks: int) -> float:
        """Seconds of the hops of an exchange that follow each other, however little it sends."""
        machines = self.machines(ranks)
        if kind == "all-to-all":
            return _BASE_SECONDS + (_NETWORK_SECONDS if machines > 1 else self.inside.hop_seconds)
        ring = (ranks - machines) * self.inside.hop_seconds + (machines - 1) * _NETWORK_SECONDS
        if kind != "all-reduce":
            return _BASE_SECONDS + ring
        within = (min(ranks, self.per_machine) - 1) * _TREE_SECONDS
        tree = within + math.ceil(math.log2(machines)) * _NETWORK_SECONDS
        return _BASE_SECONDS + 2 * min(ring, tree)


def sent_bytes(kind: Kind, nbytes: float, ranks: int) -> float:
    """Bytes that each rank sends in an exchange of a whole of so many bytes, and receives."""
    others = (ranks - 1) / ranks
    return nbytes * others * {"all-reduce": 2.0, "all-to-all": 1 / ranks}.get(kind, 1.0)
