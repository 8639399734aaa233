"""Bytes and hops of an exchange are those that a ring of ranks takes, and a link has its stated rate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.gpus import GPUS
from etude.links import INFINIBAND, Cluster, sent_bytes

H100 = Cluster(GPUS["h100"].link)


@given(ranks=st.integers(2, 40))
def test_a_ring_sends_what_it_sends_when_it_is_played(ranks: int) -> None:
    """Each rank begins with one part of a whole of `ranks` bytes, and hands on the part that came last."""
    held, last, sent = [{rank} for rank in range(ranks)], list(range(ranks)), 0
    while any(len(each) < ranks for each in held):
        last = [last[rank - 1] for rank in range(ranks)]
        for rank, part in enumerate(last):
            held[rank].add(part)
        sent += 1
    assert sent_bytes("all-gather", ranks, ranks) == pytest.approx(sent)
    assert sent_bytes("reduce-scatter", ranks, ranks) == pytest.approx(sent)  # the same ring, backwards
    assert sent_bytes("all-reduce", ranks, ranks) == pytest.approx(2 * sent)
    assert sent_bytes("all-to-all", ranks * ranks, ranks) == pytest.approx(ranks - 1)  # a byte to each other


def test_a_ring_passes_between_machines_by_the_links_of_all_their_gpus() -> None:
    assert H100.ring_rate(8) == 450e9  # NVLink 4: 900 GB/s in both directions
    assert H100.ring_rate(1024) == 8 * 50e9  # eight links of 400 Gb/s
    assert H100.ring_rate(9) == 50e9  # one GPU on the second machine
    assert Cluster(GPUS["l4"].link, INFINIBAND, 4).ring_rate(8) == 32e9  # PCIe is the slower


def test_the_time_of_an_exchange_is_its_bytes_over_the_rate() -> None:
    assert H100.seconds("all-reduce", 8e9, 8) == pytest.approx(2 * 7e9 / 450e9)
    assert H100.seconds("all-gather", 1024e9, 1024) == pytest.approx(1023e9 / 400e9)
    # Of 1,024 parts that a rank has for others, 1,016 leave its machine by its own link.
    assert H100.seconds("all-to-all", 1024e9, 1024) == pytest.approx(1e9 * 1016 / 1024 / 50e9)


def test_hops_are_those_of_a_ring_or_for_sums_of_a_tree() -> None:
    assert H100.hop_seconds("all-gather", 8) == pytest.approx(8.4e-6 + 7 * 3.4e-6)
    assert H100.hop_seconds("reduce-scatter", 1024) == pytest.approx(8.4e-6 + 896 * 3.4e-6 + 127 * 14e-6)
    assert H100.hop_seconds("all-reduce", 1024) == pytest.approx(8.4e-6 + 2 * (7 * 4e-6 + 7 * 14e-6))
    assert H100.hop_seconds("all-reduce", 2) == pytest.approx(8.4e-6 + 2 * 3.4e-6)


def test_every_gpu_has_a_link_with_a_source() -> None:
    for gpu in GPUS.values():
        assert 16e9 <= gpu.link.rate <= 450e9 and gpu.link.source
