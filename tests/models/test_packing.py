"""Places of samples that lie end to end, against samples that stand alone."""

import torch

from etude.models import packing

CPU, LENGTHS = torch.device("cpu"), (3, 1, 4)
TOKENS = torch.arange(8)
ALONE = torch.split(TOKENS, LENGTHS)


def test_first_and_last_tokens_are_those_of_the_samples_alone() -> None:
    assert TOKENS[packing.find_firsts(LENGTHS, CPU)].tolist() == [int(sample[0]) for sample in ALONE]
    assert TOKENS[packing.find_lasts(LENGTHS, CPU)].tolist() == [int(sample[-1]) for sample in ALONE]


def test_places_bring_samples_into_another_order_and_back() -> None:
    order = packing.by_length(LENGTHS)
    places = packing.find_places(LENGTHS, order, CPU)
    assert order == [1, 0, 2]
    assert TOKENS[places].tolist() == torch.cat([ALONE[sample] for sample in order]).tolist()
    assert TOKENS[places][places.argsort()].tolist() == TOKENS.tolist()


def test_each_sample_is_shifted_alone() -> None:
    shifted = packing.shift_right(TOKENS[None], LENGTHS, 9)
    assert shifted.tolist() == [[token for sample in ALONE for token in (9, *sample[:-1].tolist())]]


def test_ends_are_made_once_for_all_layers() -> None:
    ends = packing.Ends(LENGTHS)
    assert ends.on(CPU).dtype == torch.int32 and ends.on(CPU) is ends.on(CPU)
    assert ends.on(CPU).tolist() == [0, 3, 4, 8]


def test_equal_neighbours_are_counted() -> None:
    assert packing.count_equal([1, 1, 4, 1]) == [(1, 2), (4, 1), (1, 1)]
