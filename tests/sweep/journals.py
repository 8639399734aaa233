"""Runs of the trials of a sweep for tests, with journals as runs write them and times that are given."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from etude.recipe.load import recipe_hash
from etude.records.events import (
    Attempt,
    CheckpointSaved,
    Control,
    DataUsed,
    Evaluation,
    Event,
    Forecast,
    Resource,
    Scores,
    Step,
)
from etude.records.journal import write_journal
from etude.records.ledger import Entry
from etude.records.lineage import records_until
from etude.records.store import Run, create_run
from etude.scores.labels import score_labels
from etude.sweep.grid import Sweep, Trial, load_sweep
from etude.sweep.tree import Planned, build_tree
from tests.recipes import classification
from tests.report.runs import attempt

NAMES = ["sound", "defective"]
PLAN = Path(__file__).parents[2] / "recipes" / "code-understanding-72.toml"
_BEGAN = 1_700_000_000.0


@dataclass(frozen=True)
class Course:
    """How a trial of a test goes.

    skill         share of the rows that it gets right at its best
    seconds       of a step
    ends          step that it ends at; None for the last one
    action        of its end: finish, stop or fail
    """

    steps: int
    skill: float = 0.7
    seconds: float = 1.0
    ends: int | None = None
    action: str = "finish"
    per_epoch: int = 20
    every: int = 10
    parameters: int = 1_000_000
    devices: int = 1
    seed: int = 0


class Writer:
    """Writes the journal of one run record by record, on a clock of its own."""

    def __init__(self, entries: Sequence[Entry] = (), start: float = _BEGAN) -> None:
        self.entries, self.now, self.number = list(entries), start, 0

    def begin(self, course: Course, from_step: int) -> None:
        """A start or restart."""
        self.number = 1 + sum(isinstance(each.event, Attempt) for each in self.entries)
        self.add(
            attempt(
                self.number, from_step, steps=course.steps, steps_per_epoch=course.per_epoch,
                devices=course.devices, parameters={"total": course.parameters},
            )
        )  # fmt: skip

    def add(self, *events: Event, seconds: float = 0.0) -> None:
        """Records that come after some seconds."""
        self.now += seconds
        self.entries += [Entry(event, self.now, self.number) for event in events]

    def train(self, course: Course, first: int, last: int, forks: Sequence[int] = ()) -> None:
        """Steps with their evaluations, and a checkpoint where others fork."""
        for step in range(first + 1, last + 1):
            self.add(
                Step(step, 0, 2.0 / step, 1.0, 1e-4, 100, 16, course.seconds, 0.0, tokens=1000),
                seconds=course.seconds,
            )
            if step % course.every == 0 or step == (course.ends or course.steps):
                self.add(Resource(step, 1000 / course.seconds, 0.3, 0.0, 99.0, 10**9 + course.parameters))
                self.add(self._evaluation(course, step), seconds=2.0)
            if step in forks:
                self.add(CheckpointSaved(step, f"step-{step:06d}", 100, 0.1, 0.1), seconds=0.5)

    def _evaluation(self, course: Course, step: int) -> Evaluation:
        """The best comes after an epoch and a half; figures before grow to it, later ones are lower."""
        peak = 3 * course.per_epoch // 2
        share = 1 - 0.3 * max(peak - step, 0) / peak - 0.02 * max(step - peak, 0) / peak
        known = [e.event.metrics["f1"] for e in self.entries if isinstance(e.event, Evaluation)]
        f1 = share * f1_of(course)
        return Evaluation(step, 0.6, 1.8, None, 200, 2.0, not known or f1 > max(known), {"f1": f1})


def write_trial(
    runs: Path,
    trial: Trial,
    course: Course,
    forks: Sequence[int] = (),
    parent: tuple[Run, int] | None = None,
    rows: int = 200,
    held_out: str = "v",
) -> Run:
    """The run of a trial: alone, or forked from another at a step; `forks`: where others leave it."""
    inherited: dict[str, Any] = {}
    writer = Writer()
    begun = 0
    if parent is not None:
        run, begun = parent
        kept = records_until(run.ledger(), begun)
        writer = Writer(kept, kept[-1].time + 1000.0)
        inherited = {
            "origin": {"run": run.info["id"], "step": begun},
            "recipe_hash": recipe_hash(trial.recipe),
        }
    writer.begin(course, begun)
    if parent is None:
        summary = {"train": {"samples": 320}, "validation": {"samples": rows}, "test": {"samples": rows}}
        writer.add(DataUsed("f" * 64, summary, {"validation": held_out, "test": "t"}), seconds=1.0)
        writer.add(Forecast(1, 1.1 * course.steps * course.seconds, 0.0, 10**9, 10**6))
    last = course.ends or course.steps
    for fork in sorted(step for step in forks if begun < step < last):
        writer.train(course, begun, fork, forks)
        writer.begin(course, fork)
        begun = fork
    writer.train(course, begun, last)
    if course.action == "finish":
        writer.add(_scores(course, rows, last), seconds=3.0)
    writer.add(Control(last, course.action, "by the test"))
    held = create_run(runs, trial.recipe, inherited=inherited)
    if course.action == "finish":
        _keep_predictions(held.run, course, rows)
    state = {"finish": "finished", "stop": "stopped", "fail": "failed"}[course.action]
    held.close(state)  # type: ignore[arg-type]
    write_journal(held.run.path / "journal.jsonl", writer.entries)
    return held.run


def write_tree(
    runs: Path, stages: Sequence[Any], courses: Mapping[str, Course], left_out: Sequence[str] = ()
) -> dict[str, Run | None]:
    """The runs of the stages of a tree, each by its course; some are left out."""
    found: dict[str, Run | None] = {}
    for stage in stages:
        if stage.name in left_out:
            found[stage.name] = None
            continue
        forks = [each.fork for each in stages if each.parent == stage.name]
        parent = found.get(stage.parent) if stage.parent else None
        found[stage.name] = write_trial(
            runs, stage.planned.trial, courses[stage.name], forks, (parent, stage.fork) if parent else None
        )
    return found


def predicted(course: Course, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth, and labels that a trial predicts: rows that are hard are hard for all."""
    draw = np.random.default_rng(7)
    truth, hard = draw.integers(0, 2, rows), draw.random(rows)
    own = np.random.default_rng(course.seed + 1).random(rows)
    right = 0.8 * hard + 0.2 * own < course.skill
    return truth, np.where(right, truth, 1 - truth)


def f1_of(course: Course, rows: int = 200) -> float:
    """F1 of these predictions."""
    return score_labels(*predicted(course, rows), NAMES, multi=False)["f1"]


def _scores(course: Course, rows: int, step: int) -> Scores:
    truth, said = predicted(course, rows)
    counts = np.bincount(truth * 2 + said, minlength=4).reshape(2, 2).tolist()
    f1 = f1_of(course, rows)
    systems = {
        "after": {"f1": [f1, f1 - 0.06, f1 + 0.06]}, "before": {"f1": [0.9, 0.8, 1.0]},
        "always yes": {"f1": [0.6667, 0.6, 0.7]}, "words": {"f1": [0.5, 0.4, 0.6]},
    }  # fmt: skip
    return Scores(step, rows, "test", "f1", systems, {}, {}, NAMES, counts)


def _keep_predictions(run: Run, course: Course, rows: int) -> None:
    truth, said = predicted(course, rows)
    folder = run.path / "predictions"
    folder.mkdir(exist_ok=True)
    for use in ("validation", "test"):
        lines = [
            json.dumps({
                "id": f"{use}-{place}", "probabilities": [1.0 - a, float(a)], "labels": [int(b == 0), int(b)],
                "capability": None,
            })
            for place, (b, a) in enumerate(zip(truth.tolist(), said.tolist()))
        ]  # fmt: skip
        (folder / f"{use}.jsonl").write_text("\n".join(lines) + "\n")


def sweep_trials(models: Sequence[str] = ("net",), steps: Sequence[int] = (60, 100)) -> list[Trial]:
    """Trials of models over two learning rates and lengths, by classification with the metric f1."""
    found = []
    for model in models:
        for rate in (1e-3, 3e-3):
            for length in steps:
                values = {"optim.learning_rate": rate, "train.steps": length}
                recipe = classification(
                    Path("rows.jsonl"), None, {**values, "name": f"{model}-{rate}-{length}"}
                )
                found.append(Trial(recipe.name, "tier", model, 0, values, recipe))
    return found


def write_72(runs: Path) -> Sweep:
    """All trials of the plan but one that failed, one that stopped, one that ended early and one missing."""
    sweep = load_sweep(PLAN)
    planned = [Planned(each, 20 * (each.recipe.train.epochs or 0), 20) for each in sweep.trials]
    tree = build_tree(planned)
    skills = {"small": 0.6, "medium": 0.7, "large": 0.75}
    courses = {
        each.trial.name: Course(
            each.steps, skill=skills[each.trial.tier] + 0.001 * (n % 40), seed=n, per_epoch=20
        )
        for n, each in enumerate(planned)
    }
    trunks = [stage.name for stage in tree.trunks]
    for name, end, action in ((trunks[0], 80, "fail"), (trunks[1], 80, "stop"), (trunks[2], 90, "finish")):
        courses[name] = Course(100, ends=end, action=action)
    last = next(stage.name for stage in reversed(tree.stages) if stage.parent)
    write_tree(runs, tree.stages, courses, left_out=[last])
    return sweep
