"""kill -9 at any moment, run the same command again: the weights, the optimizer and the ledgers are the same
bits.
"""

import collections
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

from etude.engine.checkpoint import weights_file
from etude.recipe.course import Change
from etude.records.events import Attempt, Step
from etude.records.store import list_runs
from tests.bases import write_encoder, write_instructions, write_labelled, write_pairs, write_qwen2
from tests.processes import Life, final_bits
from tests.victim import PHASES

INTERVAL, KILLS_A_RUN = 4, 2
CHANGES = (
    Change(3, "optim.learning_rate", 1e-3), Change(5, "data.skip_steps", 2), Change(5, "schedule.kind", "constant"),
    Change(8, "train.micro_batch_size", 2), Change(9, "train.max_grad_norm", 0.05),
)  # fmt: skip
AIMED = ("save", "evaluation", "retention", "report", "end")


class Victims:
    """The process that forks runs."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("victim.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
        )  # fmt: skip

    def start(self, recipe: Path, runs: Path, aim: str | None = None) -> int:
        changes = CHANGES if recipe.stem == "changes" else ()
        number = 0 if aim is None else PHASES.index(aim) + 1
        (self.folder / "state").write_bytes(bytes(len(PHASES)) + bytes([number]))
        request = {
            "recipe": str(recipe), "runs": str(runs), "state": str(self.folder / "state"),
            "samples": str(runs) + ".samples", "cache": str(self.cache),
            "changes": [asdict(change) for change in changes],
        }  # fmt: skip
        self._pipe(self.process.stdin).write(json.dumps(request) + "\n")
        self._pipe(self.process.stdin).flush()
        return int(self._pipe(self.process.stdout).readline())

    def status(self) -> int:
        """Wait for the last one; its exit status as waitpid gives it."""
        return int(self._pipe(self.process.stdout).readline())

    def phases(self) -> set[str]:
        return {phase for phase, inside in zip(PHASES, (self.folder / "state").read_bytes()) if inside}

    def kill(self, pid: int, phase: str | None, delay: float, patience: float = 30.0) -> set[str]:
        """Kill a run `delay` seconds after it has entered a phase, or after now; returns what it was inside
        of.
        """
        deadline = time.monotonic() + patience
        while phase is not None and phase not in self.phases():
            if not Path(f"/proc/{pid}").exists() or time.monotonic() > deadline:
                break
            time.sleep(0.002)  # it stays inside for longer
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        ended = self.status()
        return self.phases() if ended == 9 else {"too late"}

    def close(self) -> None:
        self._pipe(self.process.stdin).close()
        self.process.wait(timeout=10)

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


@pytest.fixture
def victims(tmp_path: Path, cache: Path) -> Iterator[Victims]:
    victims = Victims(tmp_path, cache)
    yield victims
    victims.close()


def newest_valid(runs: Path) -> str | None:
    """The newest checkpoint whose every file has the hash of its manifest, found without etude."""
    found = []
    for manifest in runs.glob("*/checkpoints/*/manifest.json"):
        try:
            files = json.loads(manifest.read_bytes())["files"]
            if all(
                hashlib.sha256((manifest.parent / name).read_bytes()).hexdigest() == file["sha256"]
                for name, file in files.items()
            ):
                found.append(manifest.parent.name)
        except (OSError, ValueError):
            continue
    return max(found, default=None)


def outcome(runs: Path) -> dict[str, Any]:
    """What must not depend on kills: final bits, and the ledgers of learning rates, losses and samples."""
    (run,) = list_runs(runs)
    final = run.checkpoints / max(path.name for path in run.checkpoints.iterdir())
    samples = {}
    for line in Path(str(runs) + ".samples").read_text().splitlines():
        step, ids = json.loads(line)
        assert samples.setdefault(step, ids) == ids, "a step was run again on other samples"
    steps = [entry.event for entry in run.ledger().entries if isinstance(entry.event, Step)]
    return {
        "weights": hashlib.sha256(weights_file(final).read_bytes()).hexdigest(),
        "optimizer": hashlib.sha256((final / "optimizer.safetensors").read_bytes()).hexdigest(),
        "steps": [(step.step, step.learning_rate, step.loss, step.grad_norm, step.epoch) for step in steps],
        "samples": samples,
        "best": run.best,
        "state": run.state,
    }


def executed(runs: Path) -> tuple[int, int]:
    """Steps that count and steps that were run again, by the journal."""
    (run,) = list_runs(runs)
    ledger = run.ledger()
    return tuple(
        sum(isinstance(entry.event, Step) for entry in part) for part in (ledger.entries, ledger.rework)
    )  # type: ignore[return-value]


def test_killed_anywhere_a_run_ends_with_the_same_bits(
    victims: Victims, tmp_path: Path, write_recipe: Callable[..., Path], request: pytest.FixtureRequest
) -> None:
    kills: int = request.config.getoption("--kills")
    draw = random.Random(kills)
    common = {
        "model.dropout": 0.1, "train.steps": None, "train.epochs": 2, "checkpoint.every_steps": INTERVAL,
        "checkpoint.keep": 2, "records.log_every_steps": 1, "evaluate.every_steps": 3,
        "evaluate.prompts": ["def "], "evaluate.sample_tokens": 8,
    }  # fmt: skip
    base, rows = write_qwen2(tmp_path / "base"), write_instructions(tmp_path / "rows.jsonl", 60)
    encoder = write_encoder(tmp_path / "encoder", masked=True)
    labelled, pairs = (
        write_labelled(tmp_path / "labelled.jsonl", 60),
        write_pairs(tmp_path / "pairs.jsonl", 60),
    )
    kinds: dict[str, dict[str, Any]] = {
        "adamw": {},
        "muon": {"optim.kind": "muon"},
        "changes": {},
        "lora": {
            "model": {"from": str(base), "dropout": 0.1}, "adapter": {"rank": 4, "dropout": 0.1},
            "tokenizer": {}, "data.train": [{"path": str(rows)}], "train.seq_len": 64, "evaluate.answers": 2,
            "evaluate.answer_tokens": 8,
        },
        "classification": {
            "model": {"kind": "encoder", "n_layer": 2, "n_embd": 32, "n_head": 2, "dropout": 0.1},
            "train.objective": "classification", "train.seq_len": 32, "evaluate.prompts": [],
            "data.train": [{"path": str(labelled), "label": "label"}],
        },
        "seq2seq": {
            "model": {"kind": "encoder-decoder", "n_layer": 1, "n_embd": 32, "n_head": 2, "dropout": 0.1},
            "train.objective": "seq2seq", "train.seq_len": 32, "evaluate.answers": 2,
            "evaluate.answer_tokens": 4,
            "data.train": [{"path": str(pairs), "field": "source", "target": "target"}],
            "evaluate.prompts": [],
        },
        "tasks": {
            "model": {"from": str(encoder), "dropout": 0.1}, "tokenizer": {}, "train.seq_len": 32,
            "evaluate.prompts": [], "data.sample": "document",
            "tasks": {"kinds": {"objective": "classification"}, "text": {"objective": "masked", "ratio": 2.0}},
            "data.train": [
                {"path": str(labelled), "label": "label", "task": "kinds"},
                {"path": str(labelled), "task": "text"},
            ],
        },
    }  # fmt: skip
    recipes = {kind: write_recipe({**common, **changes}, f"{kind}.toml") for kind, changes in kinds.items()}
    references: dict[str, Any] = {}  # of the kinds that are drawn
    hits: collections.Counter[str] = collections.Counter()
    quota = 5 if kills >= 50 else 1
    done = lives = 0
    while done < kills or any(hits[phase] < quota for phase in AIMED):
        lives += 1
        assert lives < 4 * kills + 40, f"the phases were not hit: {dict(hits)}"
        kind = draw.choice(sorted(recipes))
        if kind not in references:
            victims.start(recipes[kind], tmp_path / f"whole-{kind}")
            assert victims.status() == 0
            references[kind] = outcome(tmp_path / f"whole-{kind}")
            assert references[kind]["state"] == "finished"
            assert {epoch for *_, epoch in references[kind]["steps"]} >= {0, 1}
        runs = tmp_path / f"life-{lives}"
        started_from = []
        for _ in range(KILLS_A_RUN):
            wanted = (
                next((phase for phase in AIMED if hits[phase] < quota), None) if draw.random() < 0.8 else None
            )
            pid = victims.start(recipes[kind], runs, wanted)
            inside = victims.kill(pid, wanted, draw.random() * (0.01 if wanted else 1.2))
            if inside == {"too late"}:
                break
            done += 1
            hits.update(inside or {"between"})
            started_from.append(newest_valid(runs) if runs.exists() else None)
        else:
            victims.start(recipes[kind], runs)
            assert victims.status() == 0
        assert outcome(runs) == references[kind]
        (run,) = list_runs(runs)
        attempts = [entry.event for entry in run.ledger().entries if isinstance(entry.event, Attempt)]
        for attempt, before in zip(
            attempts[1:], started_from[-len(attempts) + 1 :] if len(attempts) > 1 else []
        ):
            assert attempt.checkpoint == before, "a resume did not start from the newest valid checkpoint"
        counted, again = executed(runs)
        assert counted == len(references[kind]["steps"]) and again <= len(started_from) * INTERVAL
    print(f"\n{done} kills over {lives} runs, all bit-identical; killed inside {dict(hits)}")


def test_two_ranks_killed_anywhere_end_with_the_same_bits(
    tmp_path: Path, cache: Path, write_recipe: Callable[..., Path], request: pytest.FixtureRequest
) -> None:
    kills: int = request.config.getoption("--kills") // 5
    if kills < 10:
        pytest.skip("make test-kill kills ranks too; tests/launch/test_ranks.py kills each once")
    recipe = write_recipe({
        "model.dropout": 0.1, "train.steps": 400, "train.devices": 2, "checkpoint.every_steps": 20,
        "evaluate.every_steps": 80,
    })  # fmt: skip
    whole = Life(recipe, tmp_path / "whole", cache)
    assert whole.process.wait() == 0
    draw, done = random.Random(kills), 0
    while done < kills:
        runs = tmp_path / f"ranks-{done}"
        for _ in range(KILLS_A_RUN):
            life = Life(recipe, runs, cache)
            life.wait_for_progress()
            time.sleep(draw.random() * 0.5)
            for victim in draw.choice([life.ranks[:1], life.ranks[1:], life.ranks, [life.process]]):
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim.kill()
            life.end()
            done += 1
        last = Life(recipe, runs, cache)
        assert last.process.wait() == 0, last.said()
        assert final_bits(runs) == final_bits(tmp_path / "whole")
    print(f"\n{done} kills of ranks and launchers, all bit-identical")
