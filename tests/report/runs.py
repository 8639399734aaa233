"""Run folders for tests, written as a run writes them."""

import json
import math
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from etude.recipe.load import recipe_from, with_changes
from etude.records.events import (
    Attempt,
    Control,
    DataUsed,
    Evaluation,
    Event,
    Resource,
    Scores,
    Step,
)
from etude.records.store import Run, RunWriter, create_run
from etude.report.told import take_marks

ENVIRONMENT = {
    "machine": {"platform": "Linux", "cpu": "A | B", "cores": 2, "memory_bytes": 8 * 10**9, "gpus": []},
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "git": {"commit": "abc123", "dirty": True},
    "command": ["etude", "train", "r.toml"],
}
SCORES = Scores(
    3, 2, "test", "f1", {"after": {"f1": [1.0, 0.9, 1.0]}, "before": {"f1": [0.5, 0.4, 0.6]}},
    {"before": [0.5, 0.4, 0.6]}, {"a": {"rows": 2.0, "after": 1.0, "before": 0.5}}, ["x", "y"],
    [[1, 0], [0, 1]],
)  # fmt: skip


def new_run(runs: Path, changes: dict[str, Any] | None = None) -> RunWriter:
    """A held run of 40 planned steps, warm-up 4, without a record."""
    recipe = recipe_from(
        {
            "name": "small",
            "tokenizer": {"train_vocab_size": 300},
            "data": {"train": [{"source": "python-stdlib"}]},
            "train": {"steps": 40, "global_batch_size": 8, "micro_batch_size": 4},
            "schedule": {"kind": "wsd", "warmup_steps": 4},
            "records": {"log_every_steps": 5},
        }
    )
    return create_run(runs, with_changes(recipe, changes or {}))


def attempt(number: int = 1, from_step: int = 0, **changes: Any) -> Attempt:
    values: dict[str, Any] = {
        "steps": 40, "steps_per_epoch": 20, "device": "cpu", "devices": 1, "precision": "fp32",
        "micro_batch_size": 4, "parameters": {"embedding": 600, "head": 0, "total": 1000},
        "flops_per_token": 6e3, "matrix_flops_per_second": 1e9, "environment": ENVIRONMENT,
    }  # fmt: skip
    return Attempt(number=number, from_step=from_step, **(values | changes))


def loss_at(step: int) -> float:
    return 2.0 + 4.0 / step


def window(
    first: int, last: int, *, bad: tuple[int, ...] = (), targets: int = 100, seconds: float = 0.5
) -> list[Event]:
    """Steps and the Resource record that ends them; `bad` ones are skipped with a loss of NaN."""
    steps = [
        Step(
            n, 0, math.nan if n in bad else loss_at(n), math.inf if n in bad else 1.5, 1e-3,
            targets + n, 8, seconds, 0.1 * seconds, n in bad,
        )
        for n in range(first, last + 1)
    ]  # fmt: skip
    return [*steps, Resource(last, 200.0 + last, 0.25, 0.1, 150.0, 10**9 + last)]


def evaluation(step: int, loss: float, *, best: bool = True) -> Evaluation:
    return Evaluation(step, loss, math.exp(loss), loss / 3, 5000, 1.0, best)


def finished_run(runs: Path, changes: dict[str, Any] | None = None, *, targets: int = 100) -> Run:
    """All 40 steps, evaluated every 20, the best in the middle."""
    writer = new_run(runs, changes)
    writer.append(
        attempt(), DataUsed("f" * 64, {"sources": [{"name": "a", "bytes": 12345}], "train": {"tokens": 7}})
    )
    for last in range(5, 41, 5):
        writer.append(*window(last - 4, last, targets=targets))
        if last % 20 == 0:
            writer.append(evaluation(last, 2.5 + 0.1 * (last == 40), best=last == 20))
    writer.append(Control(40, "finish", "the last step is done"))
    writer.close("finished")
    return writer.run


def plain(parts: Iterable[str]) -> list[str]:
    """Parts of a report without the marks of their figures."""
    return [take_marks(part)[0] for part in parts]


def line(record: dict[str, Any]) -> bytes:
    """A line of a journal with its checksum."""
    body = json.dumps(record)[:-1].encode()
    return body + b', "crc": "%08x"}\n' % zlib.crc32(body)
