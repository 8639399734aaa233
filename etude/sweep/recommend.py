"""A model for each need: the best trial of each model, by metric, speed, memory and size."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from etude.sweep.cells import Cell
from etude.sweep.standing import Standing

_FP32_BYTES = 4


@dataclass(frozen=True)
class Candidate:
    """The best trial of a model with what decides between models.

    row_seconds    of an evaluation for a validation row, in batches; None where it was not measured
    memory_bytes   largest in training, of the GPU or else of the process
    parameters     all of the model
    train_seconds  device seconds of the trial, had it shared nothing
    """

    cell: Cell
    row_seconds: float | None
    memory_bytes: int | None
    parameters: int | None
    train_seconds: float | None

    @property
    def weights_bytes(self) -> int | None:
        """Bytes of the weights in fp32."""
        return None if self.parameters is None else _FP32_BYTES * self.parameters


@dataclass(frozen=True)
class Recommendation:
    """A need, the candidate that meets it best, and the reason in words."""

    need: str
    candidate: Candidate
    why: str


def make_candidate(cell: Cell, alone: Mapping[str, float]) -> Candidate:
    """The candidate of a trial; `alone` has the device seconds of each."""
    return Candidate(
        cell,
        row_seconds=seconds_of_row(cell),
        memory_bytes=cell["peak_gpu_memory_bytes"] or cell["peak_rss_bytes"],
        parameters=cell["parameters"],
        train_seconds=alone.get(cell.name),
    )


def seconds_of_row(cell: Cell) -> float | None:
    """Median seconds of an evaluation over its validation rows: a throughput, and no latency of one row."""
    if cell.history is None or cell.history.data is None:
        return None
    rows: int = sum(
        part.get("samples", 0)
        for use, part in cell.history.data.summary.items()
        if use.endswith("validation") and isinstance(part, dict)
    )
    most = cell.history.run.recipe.evaluate.max_samples
    seconds = sorted(each.seconds for each in cell.history.evaluations)
    middle = seconds[len(seconds) // 2] if seconds else 0.0
    return middle / (min(rows, most) if most else rows) if rows and middle else None


def pareto_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates that none other beats in the metric, time of a row and parameters at once.

    A figure that is not known beats nothing.
    """
    return [each for each in candidates if not any(_beats(other, each) for other in candidates)]


def cost_front(points: Sequence[tuple[float, float]], sign: int) -> list[int]:
    """Places of points (cost, value) that have no better value at the same or a lower cost, by cost."""
    order = sorted(range(len(points)), key=lambda place: (points[place][0], -sign * points[place][1]))
    front: list[int] = []
    for place in order:
        if not front or sign * (points[place][1] - points[front[-1]][1]) > 0:
            front.append(place)
    return front


def recommend(candidates: Sequence[Candidate], standing: Standing) -> list[Recommendation]:
    """One candidate for each need; `standing` is that of the candidates' trials."""
    best = next((each for each in candidates if each.cell is standing.best), None)
    if best is None:
        return []
    like = [each for each in candidates if each.cell in standing.like]
    found = [Recommendation("the best metric", best, _why_best(standing) + _weakness(best))]
    small = _least([best, *like], lambda each: each.parameters)
    if small is not None and small is not best:
        why = f"not distinguishable from {best.cell.trial.model} and smaller"
        found.append(Recommendation("as good, at the least size", small, why + _weakness(small)))
    needs: list[tuple[str, str, Callable[[Candidate], float | None]]] = [
        ("the fastest evaluation", "least time for a row", lambda each: each.row_seconds),
        ("the smallest model", "fewest parameters", lambda each: each.parameters),
        ("the least memory in training", "lowest peak", lambda each: each.memory_bytes),
        ("the least training", "fewest device seconds for its best trial", lambda each: each.train_seconds),
    ]
    for need, why, key in needs:
        known = [each for each in candidates if key(each) is not None]
        least = _least(known, key)
        if least is not None and (len(known) > 1 or len(candidates) == 1):  # one alone is least of nothing
            some = f" of the {len(known)} that were measured" if len(known) < len(candidates) else ""
            why += some + _price(least, best, standing) + _weakness(least)
            found.append(Recommendation(need, least, why))
    return found


def _why_best(standing: Standing) -> str:
    if not standing.others:
        return "no other model has a trial that ended"
    if not standing.is_known:
        return "highest so far; the noise is not known for all"
    if standing.like:
        return f"not distinguishable from {', '.join(cell.trial.model for cell in standing.like)}"
    return "better than every other model beyond the noise of the rows"


def _weakness(candidate: Candidate) -> str:
    """The end of a reason for a candidate that is not better than a baseline beyond the noise."""
    beside = candidate.cell.baseline
    known = beside is not None and beside.is_beaten is False
    return f"; not better than a baseline ({beside.name}) beyond the noise" if beside and known else ""


def _price(candidate: Candidate, best: Candidate, standing: Standing) -> str:
    """The loss of a candidate in the metric, in words."""
    if candidate is best:
        return "; also the best"
    if candidate.cell in standing.like:
        return "; not distinguishable from the best"
    assert candidate.cell.value is not None and best.cell.value is not None
    lost = best.cell.metric.gain(best.cell.value, candidate.cell.value)
    return f"; {lost:.4f} worse in the metric than {best.cell.trial.model}"


def _least(candidates: Sequence[Candidate], key: Callable[[Candidate], float | None]) -> Candidate | None:
    known = [(value, each) for each in candidates if (value := key(each)) is not None]
    sign = candidates[0].cell.metric.sign if candidates else 1
    return min(known, key=lambda pair: (pair[0], -sign * (pair[1].cell.value or 0)))[1] if known else None


def _beats(one: Candidate, other: Candidate) -> bool:
    """True if one candidate is nowhere worse than another and somewhere better."""
    assert one.cell.value is not None and other.cell.value is not None
    gains = [one.cell.metric.gain(one.cell.value, other.cell.value)]
    for a, b in ((one.row_seconds, other.row_seconds), (one.parameters, other.parameters)):
        if a is None and b is not None:
            return False
        gains.append(0.0 if a is None or b is None else b - a)
    return all(gain >= 0 for gain in gains) and any(gain > 0 for gain in gains)
