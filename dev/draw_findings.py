"""Draw the pictures of docs/watch.md: made curves, read by the real watch, in the chart that a report has.

    python dev/draw_findings.py            # writes docs/images/watch-KIND.svg

Each curve has one fault and the noise of a real run, the same numbers each time.
"""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parents[1]))
from etude.records.events import Evaluation, Event, Finding, Resource, Step
from etude.records.ledger import Entry, Ledger
from etude.records.store import Run
from etude.report.charts import chart_svgs
from etude.report.history import History
from etude.watch.journal import point_of
from etude.watch.point import Facts
from etude.watch.watcher import Watcher

FOLDER = Path(__file__).parents[1] / "docs" / "images"
_RATE = 1e-3


def _usual(step: int) -> float:
    return 2.2 + 4.3 * math.pow(1 + step / 5, -0.6)


@dataclass
class Curve:
    """Figures of a made run by step; what is not given is that of a healthy run.

    loss      of training, without noise
    held_out  loss of the evaluations, every so many steps
    """

    loss: Callable[[int], float] = _usual
    steps: int = 300
    per_epoch: int = 1000
    noise: float = 0.02
    held_out: Callable[[int], float] | None = None
    every: int = 25
    metric: Callable[[int], float] | None = None
    error: float | None = 0.01
    rate: Callable[[int], float] = lambda step: _RATE * min(step / 20, 1.0)
    norm: Callable[[int], float] = lambda step: 0.8
    seconds: Callable[[int], float] = lambda step: 2.0
    wait: float = 0.01
    memory: Callable[[int], float] = lambda step: 8e9
    speed: Callable[[int], float] = lambda step: 9_000.0
    facts: dict[str, Any] = field(default_factory=dict)

    def events(self) -> Iterator[Event]:
        """Records as a run writes them."""
        random = Random(3)
        for step in range(self.steps + 1):
            if step:
                yield self._step(step, random)
            if step and step % 5 == 0:
                speed = self.speed(step) * math.exp(random.gauss(0, 0.02))
                memory = round(self.memory(step) + random.random() * 2e6)
                yield Resource(step, speed, 0.4, self.wait, 99.0, memory)
            if self.held_out and step % self.every == 0:
                loss = self.held_out(step) * (1 + random.gauss(0, 0.005))
                metrics = {"f1": self.metric(step)} if self.metric else {}
                error = None if self.error is None else self.error * loss
                yield Evaluation(step, loss, math.exp(min(loss, 50)), None, 5000, 1.0, False, metrics, error)

    def _step(self, step: int, random: Random) -> Step:
        loss = self.loss(step) * math.exp(random.gauss(0, self.noise))
        norm = self.norm(step) * math.exp(random.gauss(0, 0.1))
        seconds = self.seconds(step) * math.exp(random.gauss(0, 0.03))
        wait = min(self.wait * seconds * math.exp(random.gauss(0, 0.2)), seconds)
        is_lost = not math.isfinite(norm)
        return Step(
            step, (step - 1) // self.per_epoch, loss, norm, self.rate(step), 1000, 8, seconds, wait, is_lost
        )

    def watched(self) -> list[Finding]:
        """Findings of the watch."""
        facts: dict[str, Any] = {
            "steps": self.steps, "steps_per_epoch": self.per_epoch, "peak_learning_rate": _RATE,
            "max_grad_norm": 1.0, "objective": "causal",
        }  # fmt: skip
        watcher = Watcher.of(Facts(**{**facts, **self.facts}))
        for event in self.events():
            if point := point_of(event, self.per_epoch):
                watcher.add(point)
        return watcher.findings


def _broken_at(step: int) -> float:
    return _usual(step) if step < 200 else math.nan


def _rises(step: int) -> float:
    return _usual(step) + (0.0 if step < 160 else 2.8 * (1 - math.exp(-(step - 160) / 15)))


def _falls_to_nothing(step: int) -> float:
    """The curve of a run that fell from 3.64 to 0.005 in 225 steps."""
    return max(3.64 * math.exp(-math.log(3.64 / 0.005) * step / 225), 0.005)


CURVES: dict[str, Curve] = {
    "non_finite": Curve(loss=_broken_at),
    "no_gradient": Curve(
        loss=lambda step: _usual(step) if step < 200 else 0.0,
        norm=lambda step: 0.8 if step < 200 else 0.0,
    ),
    "skipped_steps": Curve(loss=_broken_at, norm=lambda step: 0.8 if step < 200 else math.inf),
    "divergence": Curve(loss=_rises, norm=lambda step: 0.8 if step < 155 else 4.0),
    "spike": Curve(
        loss=lambda step: _usual(step) * (1 + 0.9 * math.exp(-max(step - 200, 0) / 4) * (step >= 200)),
        norm=lambda step: 12.0 if 199 <= step <= 201 else 0.8,
    ),
    "spikes": Curve(loss=lambda step: _usual(step) * (1.9 if step > 60 and step % 47 == 0 else 1.0)),
    "first_pass_collapse": Curve(loss=_falls_to_nothing, steps=225, per_epoch=1688, noise=0.08),
    "overfitting": Curve(
        loss=lambda step: 0.25 + 2.2 * math.exp(-step / 70), per_epoch=60,
        held_out=lambda step: 1.1 + 1.6 * math.exp(-step / 45) + max(step - 110, 0) * 0.006, every=30,
    ),
    "validation_rise": Curve(
        loss=lambda step: 3.0 + 2.4 * math.exp(-((step - 12) / 14) ** 2) + 0.8 * math.exp(-step / 120),
        held_out=lambda step: 3.45 if not step else 3.7 + 1.1 * math.exp(-step / 90),
        facts={"is_pretrained": True},
    ),
    "epoch_step": Curve(
        loss=lambda step: _usual(step) * (0.75 if step > 150 else 1.0), per_epoch=150,
        held_out=lambda step: 1.04 * _usual(step),
    ),
    "contamination": Curve(held_out=lambda step: 0.4 * _usual(step)),
    "noisy_evaluation": Curve(
        held_out=lambda step: 1.03 * _usual(step) * (1 + 0.1 * (-1) ** (step // 15)), every=15, error=0.1,
        facts={"eval_rows": 24},
    ),
    "metric_split": Curve(
        loss=lambda step: 0.9 + 1.4 * math.exp(-step / 60),
        held_out=lambda step: 1.1 + 1.1 * math.exp(-step / 40) + max(step - 120, 0) * 0.003,
        metric=lambda step: 0.4 + 0.4 * step / 300, facts={"metric": "f1", "lower_is_better": False},
    ),
    "plateau": Curve(loss=lambda step: math.log(8000), noise=0.003, facts={"classes": 8000}),
    "only_frequencies": Curve(
        loss=lambda step: 5.3 + 1.1 * math.exp(-step / 10), facts={"frequencies_loss": 5.2}
    ),
    "evaluation_spike": Curve(
        held_out=lambda step: (1.6 if step == 200 else 1.03) * _usual(step)
    ),
    "dead_learning_rate": Curve(rate=lambda step: _RATE * max(1 - step / 180, 0.0)),
    "clip_saturation": Curve(norm=lambda step: 40.0),
    "slowdown": Curve(speed=lambda step: 9_000.0 if step < 200 else 5_500.0, steps=400),
    "data_starvation": Curve(wait=0.4),
    "stall": Curve(seconds=lambda step: 95.0 if step == 220 else 2.0),
    "memory_creep": Curve(
        memory=lambda step: 8e9 + 3.2e6 * step, steps=700, facts={"memory_limit_bytes": 2**34}
    ),
}  # fmt: skip


def draw(kind: str) -> bytes:
    """The chart of the worst finding of a kind on its curve. Raises: LookupError if the watch has none."""
    curve = CURVES[kind]
    found = [each for each in curve.watched() if each.kind == kind]
    if not found:
        raise LookupError(f"the watch does not find {kind} on its curve")
    worst = min(found, key=lambda each: (each.severity != "error", each.step))
    recipe = SimpleNamespace(
        evaluate=SimpleNamespace(metric="loss"), train=SimpleNamespace(max_grad_norm=1.0)
    )
    entries = [Entry(event, 0.0, 1) for event in curve.events()]
    history = History(cast(Run, SimpleNamespace(recipe=recipe)), Ledger(entries, [], []))
    return chart_svgs(history, {"finding": worst})["finding"]


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for kind in CURVES:
        (FOLDER / f"watch-{kind}.svg").write_bytes(draw(kind))


if __name__ == "__main__":
    main()
