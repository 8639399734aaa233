"""Made curves: healthy runs with all that looks like a fault and is none, for tests and benchmarks."""

import math
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from etude.watch.point import Facts, Point


@dataclass(frozen=True)
class Shape:
    """A healthy run: the loss falls by a power of the steps from `start` towards `floor`.

    stride   steps between two points
    noise    standard deviation of the loss of a point, as a share of its level; norms have five times as much
    bump     rise during warm-up, as a share of the start
    tail     fall in the last fifth, when the rate decays (WSD), as a share of the level
    step     fall where the second epoch begins, as a share of the level; there is none with one epoch
    restart  rise where the rate begins anew in the middle, as a share of the fall so far
    has_tails  noise of Student's t with 4 degrees of freedom in place of the normal distribution
    error    standard error of an evaluation as a share of its loss; unknown if negative, as noise stays
    """

    points: int = 400
    stride: int = 1
    start: float = 10.8
    floor: float = 2.5
    power: float = 0.5
    noise: float = 0.02
    bump: float = 0.0
    tail: float = 0.0
    epochs: int = 1
    step: float = 0.0
    restart: float = 0.0
    evaluations: int = 10
    error: float = -0.01
    has_tails: bool = False
    classes: int | None = None

    @property
    def facts(self) -> Facts:
        steps = self.points * self.stride
        return Facts(
            steps=steps,
            steps_per_epoch=max(steps // self.epochs, 1),
            max_grad_norm=1.0,
            classes=self.classes,
            objective="causal",
            memory_limit_bytes=2**34,
        )


def draw(random: Random) -> Shape:
    """A healthy shape by chance: from scratch or pretrained, quiet or noisy, fine or coarse."""
    start = random.choice([10.8, 6.9, random.uniform(1.2, 4.0)])
    epochs = random.choice([1, 1, 2, 3])
    return Shape(
        points=random.choice([20, 60, 200, 600, 1500]),
        stride=random.choice([1, 1, 10, 50, 500]),
        start=start,
        floor=start * random.uniform(0.3, 0.9),
        power=random.uniform(0.2, 0.8),
        noise=random.choice([0.003, 0.01, 0.03, 0.08]),
        bump=random.choice([0, 0, 0.1]),
        tail=random.choice([0, 0, 0.15]),
        epochs=epochs,
        step=0.0 if epochs == 1 else random.choice([0, 0.1, 0.3]),
        restart=random.choice([0, 0, 0.2]),
        evaluations=random.choice([0, 3, 10, 20]),
        error=random.choice([-0.005, -0.02, 0.01, 0.05, 0.1]),
        has_tails=random.random() < 0.3,
        classes=50_000 if start == 10.8 else None,
    )


def level(shape: Shape, number: int) -> float:
    """The loss of a point without noise."""
    share = number / shape.points
    value = shape.floor + (shape.start - shape.floor) * (1 + number / 5) ** -shape.power
    value += shape.bump * shape.start * math.exp(-(((share - 0.04) / 0.02) ** 2))
    if shape.restart and share > 0.5:
        value += shape.restart * (shape.start - value) * math.exp(-(share - 0.5) * 20)
    value *= (1 - shape.step) ** (math.ceil(share * shape.epochs - 1e-9) - 1 if number else 0)
    end: float = 1 - shape.tail * max(share - 0.8, 0) / 0.2
    return float(value) * end


def healthy(shape: Shape, random: Random) -> list[Point]:
    """The points of a healthy run, evaluations after the training points of their step."""
    points = []
    every = shape.points // shape.evaluations if shape.evaluations else 0
    offset = random.gauss(0, 1)  # validation rows are the same at each evaluation
    seconds = 0.1 * shape.stride
    for number in range(1, shape.points + 1):
        step, share = number * shape.stride, number / shape.points
        noise = shape.noise * (_student(random) if shape.has_tails else random.gauss(0, 1))
        rate = 1e-3 * min(share / 0.05, 1.0) * min((1 - share) / 0.2 + 0.05, 1.0)
        common: dict[str, Any] = {"step": step, "epoch": share * shape.epochs}
        points.append(
            Point(
                **common,
                loss=level(shape, number) * math.exp(noise),
                grad_norm=math.exp(random.gauss(0, 5 * shape.noise) + 2 * noise - 0.2),
                learning_rate=rate,
                update_ratio=rate * math.exp(random.gauss(0, 0.2)),
                loss_scale=65536.0 if number > 5 else 65536.0 * 2 ** (6 - number),
                seconds=seconds * math.exp(random.gauss(0, 0.05)),
                wait_seconds=seconds * random.random() * 0.02,
                tokens_per_second=1e4 * math.exp(random.gauss(0, 0.03)),
                memory_bytes=2**33 + (2**29 if share > 0.3 else 0) + random.randrange(2**22),
            )
        )
        if every and number % every == 0:
            points.append(_evaluation(shape, number, common, offset, random))
    return points


def without_extras(points: list[Point]) -> list[Point]:
    """The points as a plain log has them: loss and validation loss only, without epochs."""
    return [Point(step=each.step, loss=each.loss, eval_loss=each.eval_loss) for each in points]


def story(every: int = 1, steps_per_epoch: int = 1688) -> list[Point]:
    """A loss that falls from 3.64 to 0.005 in the first 225 steps."""
    rate = math.log(3.64 / 0.005) / 225
    return [
        Point(step=step, epoch=step / steps_per_epoch, loss=max(3.64 * math.exp(-rate * step), 0.005))
        for step in range(every, 226, every)
    ]


def change(points: list[Point], first: int, **figures: Any) -> list[Point]:
    """The points with figures that from a place on are computed from the old ones."""
    return [
        replace(
            each,
            **{
                name: make(at - first, each)
                for name, make in figures.items()
                if getattr(each, name) is not None
            },
        )
        if at >= first
        else each
        for at, each in enumerate(points)
    ]


def _evaluation(shape: Shape, number: int, common: dict[str, Any], offset: float, random: Random) -> Point:
    error = abs(shape.error)
    unseen = 1.03 * level(replace(shape, step=0.0), number)  # what is remembered is of training rows
    scatter = error if shape.error < 0 else 0.1 * error
    loss = unseen * (1 + random.gauss(0, scatter) + (error * offset if shape.error > 0 else 0.0))
    return Point(**common, eval_loss=loss, eval_error=error * loss if shape.error > 0 else None)


def _student(random: Random) -> float:
    """A draw of Student's t with 4 degrees of freedom, scaled to a variance of 1, and within 6 deviations."""
    return max(min(random.gauss(0, 1) / math.sqrt(random.gammavariate(2, 0.5)) / math.sqrt(2), 6.0), -6.0)
