"""The forecast of a run before its first step, whose error corrects the next ones."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from etude.plan import Plan
from etude.plan.disk import find_shortages
from etude.plan.forecast import ARITHMETIC_INTERVAL, USUAL_SHARE, costs_at, forecast
from etude.plan.memory import Memory, is_traceable, memory_of
from etude.records import events


def tell_at_start(
    plan: Plan, micro_batch_size: int, rate: float, held_bytes: int, runs: Path,
    traced: tuple[int, int] | None = None,
) -> Iterator[events.Forecast | events.Finding]:  # fmt: skip
    """The forecast, and findings on disks that do not hold it. Arguments as of `forecast_at_start`."""
    made = forecast_at_start(plan, micro_batch_size, rate, held_bytes, traced)
    yield made
    yield from find_shortages(plan, made, runs)


def forecast_at_start(
    plan: Plan, micro_batch_size: int, rate: float, held_bytes: int, traced: tuple[int, int] | None = None
) -> events.Forecast:
    """Time by arithmetic, memory by a trace of a step, and disk. A trace takes some tenths of a second.

    rate: operations a second of matrix products on one device, measured. held_bytes: in use by the process
    with the weights, before its first step. traced: samples of a micro-batch, and `Memory.added` of a step in
    such; it is made use of on a CPU, where the size is this one.
    """
    plan = replace(plan, micro_batch_size=micro_batch_size)
    costs = costs_at(plan, USUAL_SHARE * rate, ARITHMETIC_INTERVAL)
    if traced is not None and traced[0] == micro_batch_size and plan.device.type == "cpu":
        return forecast(plan, replace(costs, memory_bytes=held_bytes + traced[1]))
    try:
        memory = memory_of(plan, micro_batch_size) if is_traceable(plan) else None
    except Exception:  # a step that cannot be traced is trained all the same
        memory = None
    if memory is None:  # gradients and the two moments
        known = held_bytes + 12 * plan.trainable
    else:
        known = process_bytes(plan, memory, held_bytes - memory.parts["weights"])
    return forecast(plan, replace(costs, memory_bytes=known))


def process_bytes(plan: Plan, memory: Memory, others: int) -> int:
    """Bytes of a process on a CPU, `others` with the tensors of a step; of a GPU what the step takes."""
    return memory.device_bytes if plan.device.type == "cuda" else memory.peak + others
