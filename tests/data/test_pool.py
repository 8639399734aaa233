"""Results come in the order of the batches, whoever works on them; a worker that dies is named."""

import os
import sys
from collections.abc import Iterator

import pytest

from etude.data.pool import map_batches
from etude.errors import FaultError, InputError

needs_cores = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a pool needs two cores")
PATHS = [f"{number}/{number % 7}" for number in range(40)]


def test_results_are_those_of_map_in_order() -> None:
    assert list(map_batches(os.path.basename, PATHS)) == list(map(os.path.basename, PATHS))
    assert list(map_batches(os.path.basename, [])) == []


def test_few_batches_are_under_way_at_once() -> None:
    taken = 0

    def batches() -> Iterator[str]:
        nonlocal taken
        for path in PATHS:
            taken += 1
            yield path

    made = map_batches(os.path.basename, batches())
    next(made)
    assert taken <= (os.cpu_count() or 1) + 3
    made.close()  # type: ignore[attr-defined]


def test_a_single_batch_is_worked_on_right_here() -> None:
    assert list(map_batches(id, [sys])) == [id(sys)]


@needs_cores
def test_the_error_of_a_function_is_raised_and_a_dead_worker_is_named() -> None:
    with pytest.raises(FileNotFoundError):
        list(map_batches(os.stat, ["/", "/", "/not there", "/"]))
    with pytest.raises(FaultError, match="a process that reads the data was killed"):
        list(map_batches(os._exit, [1] * 4))


@needs_cores
def test_the_program_and_its_environment_are_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    for safe in (None, "", "1"):
        if safe is None:
            monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
        else:
            monkeypatch.setenv("PYTHONSAFEPATH", safe)
        assert list(map_batches(os.getenv, ["PYTHONSAFEPATH"] * 3)) == ["1"] * 3
        assert os.environ.get("PYTHONSAFEPATH") == safe and sys.modules["__main__"] is main


def test_ray_is_asked_for_by_name() -> None:
    try:
        import ray  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match=r'data.executor = "ray" needs Ray'):
            list(map_batches(os.path.basename, PATHS, executor="ray"))
