"""The limit on memory holds inside its block and is gone behind it."""

import gc
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from etude.memory import without_collection

PROGRAM = """
from etude.memory import limited_memory
with limited_memory(200 << 20):
    within = bytearray(50 << 20)
    try:
        bytearray(500 << 20)
    except MemoryError:
        print("refused")
print(len(bytearray(500 << 20)) >> 20)
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="without /proc there is no limit")
def test_more_than_the_limit_is_refused_in_the_block_and_given_behind_it() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refused", "500"]
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_the_collector_rests_within_and_goes_on_if_it_did_before() -> None:
    with without_collection():
        assert not gc.isenabled()
        with without_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
