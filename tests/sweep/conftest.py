"""One starter for the sweeps of all tests here, where each would load every module again."""

from collections.abc import Iterator

import pytest

from tests.sweeps import kept_starters


@pytest.fixture(scope="module", autouse=True)
def _kept_starters() -> Iterator[None]:
    with kept_starters():
        yield
