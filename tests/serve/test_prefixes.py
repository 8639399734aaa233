"""Prompts that are kept for those that begin alike."""

import torch

from etude.models.cache import Cache
from etude.serve.prefixes import Prefixes
from tests.models.decoders import CONFIGS

CONFIG = next(iter(CONFIGS.values()))


def cache_of(length: int) -> Cache:
    return Cache(CONFIG, 1, length, dtype=torch.float32, device=torch.device("cpu"))


def size_of(length: int) -> int:
    cache = cache_of(length)
    return sum(tensor.nbytes for tensor in (*cache.keys, *cache.values))


def test_the_longest_common_start_is_found_but_never_the_whole_prompt() -> None:
    prefixes, long = Prefixes(1 << 20), cache_of(30)
    prefixes.keep([*range(20), 7], cache_of(21))
    prefixes.keep(range(30), long)
    assert prefixes.find([*range(25), 3, 3]) == (25, long)
    assert prefixes.find(list(range(30))) == (29, long)
    assert prefixes.find(list(range(10))) is None


def test_a_prompt_that_goes_on_with_another_takes_its_place() -> None:
    prefixes = Prefixes(1 << 20)
    prefixes.keep(range(20), cache_of(20))
    prefixes.keep(range(30), cache_of(30))
    assert len(prefixes) == 1 and prefixes.bytes == size_of(30)


def test_bytes_are_bounded_and_the_one_used_longest_ago_goes_first() -> None:
    size = size_of(20)
    prefixes = Prefixes(2 * size)
    for first in (100, 200):
        prefixes.keep(range(first, first + 20), cache_of(20))
    assert prefixes.find([*range(100, 120), 1])
    prefixes.keep(range(300, 320), cache_of(20))
    assert prefixes.bytes == 2 * size
    assert prefixes.find([*range(100, 120), 1]) and not prefixes.find([*range(200, 220), 1])
    prefixes.keep(range(400, 600), cache_of(200))  # larger than all together may be
    assert prefixes.bytes == 2 * size
