"""Records of programs that were run, as a journal holds them."""

from dataclasses import replace

import pytest

from etude.records.events import from_json, to_json
from etude.records.execution import Execution

_MADE = Execution(
    3, "ab", [0, 2, 1], 2, [1, 2], {"temperature": 0.8, "seed": 17}, "Landlock 7", {"passed": 3, "failed": 3}
)


def test_a_record_is_read_as_it_was_written() -> None:
    assert from_json(to_json(_MADE, 5.0)) == _MADE


@pytest.mark.parametrize(
    "change", [{"passed": [3]}, {"passed": [-1]}, {"passed": []}, {"ks": [3]}, {"ks": []}]
)
def test_a_record_that_contradicts_itself_is_none(change: dict[str, list[int]]) -> None:
    assert not replace(_MADE, **change).is_consistent()
    with pytest.raises(ValueError, match=r"execution|whole number"):
        from_json(to_json(replace(_MADE, **change), 5.0))
