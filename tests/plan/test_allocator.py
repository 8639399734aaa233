"""The allocator of a GPU, against its rules worked through by hand."""

from etude.plan.allocator import Replay

MIB = 1 << 20


def test_a_cpu_counts_what_is_asked_for() -> None:
    replay = Replay("cpu")
    assert [replay.begin(1, 100), replay.begin(2, 7), replay.end(1), replay.begin(3, 1)] == [100, 107, 7, 8]
    assert replay.reserved == 107


def test_small_tensors_share_segments_of_two_mebibytes() -> None:
    replay = Replay("cuda")
    assert replay.begin(1, 1) == 512 and replay.begin(2, 513) == 1536 and replay.reserved == 2 * MIB
    assert replay.begin(3, MIB) == 1536 + MIB and replay.reserved == 2 * MIB
    assert replay.begin(4, MIB) == 1536 + 2 * MIB and replay.reserved == 4 * MIB


def test_middle_ones_share_twenty_and_large_ones_are_alone() -> None:
    replay = Replay("cuda")
    assert replay.begin(1, 3 * MIB) == 3 * MIB and replay.reserved == 20 * MIB
    assert replay.begin(2, 9 * MIB) == 12 * MIB and replay.reserved == 20 * MIB
    replay.begin(3, 10 * MIB + 1)
    assert replay.reserved == 32 * MIB


def test_a_rest_of_less_than_a_mebibyte_is_not_split_off() -> None:
    replay = Replay("cuda")
    assert replay.begin(1, 11 * MIB + 512) == 12 * MIB
    assert replay.end(1) == 0 and replay.begin(2, 4 * MIB) == 4 * MIB and replay.reserved == 12 * MIB


def test_what_is_free_side_by_side_is_joined() -> None:
    replay = Replay("cuda")
    for number in range(1, 6):
        replay.begin(number, 4 * MIB)
    for number in (2, 4, 3):
        replay.end(number)
    assert replay.begin(6, 9 * MIB) == 17 * MIB and replay.reserved == 20 * MIB
