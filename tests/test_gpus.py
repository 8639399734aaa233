"""Published rates are dense ones, and a name that nobody has is answered with the nearest."""

import pytest

from etude.errors import InputError
from etude.gpus import GPUS, find_gpu, usual_share
from tests import bases, recipes


def test_a_name_may_be_written_in_other_ways() -> None:
    assert find_gpu("H100") is find_gpu("nvidia h100") is GPUS["h100"]
    with pytest.raises(InputError, match=r"did you mean rtx4090\? there are h200"):
        find_gpu("rtx4091")


def test_rates_are_dense_and_formats_are_those_of_the_device() -> None:
    for gpu in GPUS.values():
        assert gpu.full < gpu.half < 1000e12 and gpu.memory_bytes >= 16e9 and gpu.source
    assert GPUS["t4"].choose_precision("auto") == "fp32" and GPUS["l4"].choose_precision("auto") == "bf16"
    with pytest.raises(InputError, match="has no bf16"):
        GPUS["t4"].choose_precision("bf16")


def test_shares_are_those_that_were_measured(tmp_path) -> None:  # type: ignore[no-untyped-def]
    rows = bases.write_labelled(tmp_path / "rows.jsonl", 20)
    plain, compiled = (
        recipes.classification(rows, None, {"train.compile": value}) for value in (False, True)
    )
    assert usual_share(plain, "bf16") == 0.236 and usual_share(compiled, "bf16") == 0.37
