"""Records for tests."""

from etude.records.events import Attempt, Step


def step(number: int, loss: float = 2.0) -> Step:
    return Step(number, 0, loss, 1.0, 1e-3, 100, 8, 0.5, 0.01)


def attempt(number: int, from_step: int, steps: int = 10) -> Attempt:
    return Attempt(
        number,
        from_step,
        steps,
        5,
        "cpu",
        1,
        "fp32",
        8,
        {"total": 1000},
        6000.0,
        1e9,
        {"machine": {}, "versions": {}},
    )
