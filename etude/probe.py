"""A few steps of a recipe, tried in a process of their own: their costs, and whether they fit into memory."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from etude import durable
from etude.assemble import assemble, sharing_of
from etude.audit import Audit, audit
from etude.data.loader import (
    Loader,
    StepBatches,
    iterate_once,
    load_samples,
    longest_batch,
    longest_mixed,
)
from etude.data.samples.sample import Samples
from etude.engine.batch import DeviceBatch, to_device
from etude.engine.device import choose_device
from etude.engine.loop import Objective, TrainState, train
from etude.engine.out_of_memory import is_out_of_memory, release, room_for
from etude.engine.world import World, measure_matrix_rate, synchronize
from etude.evaluate.answers import answer, continue_prompts
from etude.evaluate.exam import Exam
from etude.evaluate.solve import write_programs
from etude.memory import limited_memory
from etude.objectives.choose import join_kinds
from etude.objectives.executing import sampled_by
from etude.objectives.task import Task
from etude.objectives.writing import is_answered
from etude.own import Own
from etude.plan import Plan, make_plan
from etude.plan.fit import likely_micro_batch
from etude.plan.forecast import (
    ARITHMETIC_INTERVAL,
    USUAL_SHARE,
    Costs,
    assume_costs,
    checkpoint_bytes,
    costs_at,
    reading_seconds,
    spread_of,
)
from etude.plan.length import probe_micro_batch_size
from etude.plan.work import evaluation_work
from etude.processes import python_command, python_environment
from etude.recipe.load import recipe_from
from etude.recipe.schema import Recipe
from etude.records import events
from etude.start import Options
from etude.text import plural
from etude.watch.resources import ResourceSampler

LIMIT_SECONDS = 20.0
_MOST_STEPS, _ENOUGH_SECONDS = 10, 2.0
_FEW_TOKENS = 16
_FILES, _WRITTEN_BYTES = 6, 64 << 20  # of a checkpoint; those written to tell how long it takes
_NO_ROOM = "does not fit"


@dataclass(frozen=True)
class Probe:
    """The costs of a recipe as far as they could be tried, with a word on how; without costs: why not.

    audit  the tests before the first step, if the process came to them
    """

    plan: Plan
    costs: Costs | None
    note: str
    audit: Audit | None = None

    @property
    def basis(self) -> str:
        """The way that the costs are known, or the reason that they are not, in words."""
        if self.costs is None or not self.costs.tried:
            return self.note
        return "; ".join(filter(None, [f"by {plural(self.costs.tried, 'step')} tried here", self.note]))


def probe(plan: Plan, limit_seconds: float = LIMIT_SECONDS) -> Probe:
    """Try a few steps of a plan in another process, which leaves nothing, for so many seconds at most."""
    known: dict[str, Any] = {}
    with subprocess.Popen(
        python_command("etude.probe"), env=python_environment(), text=True, encoding="utf-8",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as child:  # fmt: skip
        timer = threading.Timer(limit_seconds, child.kill)
        try:
            assert child.stdin is not None and child.stdout is not None
            with child.stdin:
                child.stdin.write(json.dumps(plan.recipe.to_dict()))
            for line in child.stdout:
                known |= json.loads(line)
                if not timer.is_alive() and len(known) == 1:
                    timer.start()
        finally:
            is_over = timer.finished.is_set()
            timer.cancel()
            child.kill()
            code = child.wait()
    tests = known.pop("audit", None)
    judged = _judge(plan, known, code, is_over, limit_seconds)
    if tests is None:
        return judged
    findings = [events.Finding(**each) for each in tests.pop("findings")]
    return replace(judged, audit=Audit(findings, **tests))


def find_micro_batch(plan: Plan, state: TrainState, objective: Objective, world: World) -> int:
    """The micro-batch size that fits on every rank, found by trying. Raises: EtudeError if none does."""
    attend = plan.recipe.data.attend_across_documents

    def try_step(size: int) -> None:
        failed = torch.zeros(())
        try:
            moments = torch.empty(2, plan.trainable, device=world.device)  # the optimizer's come with a step
            for task in plan.tasks:
                batch = replace(longest_batch(task.corpus.train, size, attend), task=task.name)
                with state.precision.autocast():
                    loss, _ = objective.loss_sum(state.model, to_device(batch, world.device))
                loss.backward()  # type: ignore[no-untyped-call]
            del moments
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            release(error)
            failed += 1
        state.optimizer.zero_grad()
        world.total([failed])
        if failed:
            raise torch.OutOfMemoryError(f"{size} samples do not fit on some rank")

    per_rank = plan.global_batch_size // world.size
    held = sum(each.nbytes for each in state.parameters.values())
    first = likely_micro_batch(plan, per_rank, room_for(world.device, held))
    if state.shards:  # a rank that has no memory in a pass would leave the others waiting
        return int(world.agree(first))
    return probe_micro_batch_size(per_rank, try_step, world.agree(first))


def try_own_code(plan: Plan, own: Own, state: TrainState, objective: Objective, world: World) -> None:
    """Run what the user brings once on two samples of each task, and on the longest mixed micro-batch.

    Raises: InputError that names the function and the line that fails.
    """

    def some(split: Samples | None, task: Task) -> Iterator[DeviceBatch]:
        attend = plan.recipe.data.attend_across_documents
        for batch in iterate_once(split, 2, attend, max_samples=2) if split else ():
            yield to_device(replace(batch, task=task.name), world.device)

    train = [batch for task in plan.tasks for batch in some(task.corpus.train, task)]
    held_out = [batch for task in plan.tasks for batch in some(task.corpus.validation, task)]
    own.try_loss(state.model, objective.loss_sum, state.precision, train)
    for name in own.metrics:
        own.measure(name, state.model, state.precision, held_out)
    _try_mixed(plan, own, state, objective, world)


def _try_mixed(plan: Plan, own: Own, state: TrainState, objective: Objective, world: World) -> None:
    """Run the user's loss on the longest micro-batch of samples that lie end to end as they differ in length.

    A module that takes them for one text may have no place for so many tokens.
    """
    size, split = plan.micro_batch_size, plan.tasks[0].corpus.train
    if (own.loss is None and own.model is None) or size is None or len(plan.tasks) > 1:
        return
    found = longest_mixed(
        split, global_batch_size=plan.global_batch_size, micro_batch_size=size, seed=plan.recipe.seed,
        ranks=world.size, steps=plan.steps,
    )  # fmt: skip
    if found is None:
        return
    batch = load_samples(split, found[1], plan.recipe.data.attend_across_documents)
    hint = (
        f"; in step {found[0] + 1:,} samples of other lengths lie end to end in one row of "
        f"{batch.tokens.shape[1]:,} tokens: part it by batch.lengths"
    )
    try:
        batches = [to_device(replace(batch, task=plan.tasks[0].name), world.device)]
        own.try_loss(state.model, objective.loss_sum, state.precision, batches, hint)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        release(error)  # the steps know what to do


def _judge(plan: Plan, known: dict[str, Any], code: int, is_over: bool, limit: float) -> Probe:
    """The probe that a process has printed, as far as it came."""
    has_no_room = "no_room" in known or (code < 0 and not is_over)
    if has_no_room:
        where = f"the memory of this {'GPU' if plan.device.type == 'cuda' else 'machine'}"
        advice = "use a smaller micro_batch_size, activation_checkpointing, a shorter seq_len or an [adapter]"
        return Probe(plan, None, f"{_NO_ROOM} into {where}; {advice}")
    if "step_seconds" in known:
        costs = assume_costs(plan, known["step_seconds"], int(known["memory_bytes"]))
        costs = replace(
            costs,
            tried=int(known.get("tried", 0)),
            start_seconds=known.get("start_seconds", costs.start_seconds),
            ready_seconds=known.get("ready_seconds", costs.ready_seconds),
            write_seconds=known.get("write_seconds"),
            interval=spread_of(known.get("times", ())),
            sample_seconds=known.get("sample_seconds", costs.sample_seconds),
            token_seconds=known.get("token_seconds", costs.token_seconds),
        )
        return Probe(plan, costs, f"tried for {limit:.0f} s only" if is_over else "")
    if "rate" in known and is_over:
        note = f"by arithmetic, as no step was done within {limit:.0f} s"
        costs = costs_at(plan, USUAL_SHARE * known["rate"], ARITHMETIC_INTERVAL)
        return Probe(plan, costs, note)
    return Probe(plan, None, "none: the steps that were tried failed; etude train says why")


def _measure(recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Costs as they become known; the first is the rate of matrix products, and takes no time of a step."""
    plan = make_plan(recipe)
    world = World(plan.device)
    yield {"rate": measure_matrix_rate(world.device, torch.float32)}
    yield {"write_seconds": _measure_writing(checkpoint_bytes(plan))}
    state, new_weights = assemble(plan, Options(), world)
    is_fresh = None if new_weights else plan.pretrained is None
    ready = time.time() - psutil.Process().create_time()
    started = time.perf_counter()
    tests = audit(plan, state, is_fresh=is_fresh)
    yield {"audit": asdict(tests), "start_seconds": time.perf_counter() - started, "ready_seconds": ready}
    objective = join_kinds(plan.tasks)
    size = plan.micro_batch_size or find_micro_batch(plan, state, objective, world)
    section = recipe.train.model_copy(update={"micro_batch_size": size})
    state.course = replace(state.course, recipe=recipe.model_copy(update={"train": section}))
    sampler = ResourceSampler(world.device.index if world.device.type == "cuda" else None)
    times: list[float] = []
    most = 0
    for tried, (batches, share) in enumerate(_pieces(plan, state, size), start=1):
        started = time.perf_counter()
        if next(train(state, [batches], objective, world)).is_void:
            raise MemoryError
        synchronize(world.device)
        seconds = (time.perf_counter() - started) / share
        times = [*times, seconds] if share == 1 else [seconds]  # a whole step tells more than parts of it
        most = max(most, sampler.memory())
        yield {
            "step_seconds": statistics.median(times), "memory_bytes": most, "tried": tried, "times": times,
        }  # fmt: skip
        if share == 1 and len(times) > 1 and sum(times) > _ENOUGH_SECONDS:
            break
    for known in _measure_evaluation(plan, state, size):
        yield {**known, "memory_bytes": max(most, sampler.memory())}
    sampler.close()


def _pieces(plan: Plan, state: TrainState, size: int) -> Iterator[tuple[StepBatches, float]]:
    """The longest micro-batch, the first of a step, then whole steps, each with its share of a step."""
    recipe = plan.recipe
    attend = recipe.data.attend_across_documents
    loader = Loader(
        plan.train, global_batch_size=plan.global_batch_size, micro_batch_size=size, seed=recipe.seed,
        attend_across_documents=attend, ranks=recipe.train.devices,
        share_up_to=sharing_of(state.model, recipe, Own()).up_to,
    )  # fmt: skip
    first = loader.load(0)
    share = 1 / len(first.micro_batches)
    task = plan.tasks[0]
    longest = replace(longest_batch(task.corpus.train, size, attend), task=task.name)
    yield replace(first, micro_batches=[longest]), share
    yield replace(first, micro_batches=first.micro_batches[:1]), share
    for step in range(_MOST_STEPS):
        yield loader.load(step), 1.0


def _measure_evaluation(plan: Plan, state: TrainState, size: int) -> Iterator[dict[str, float]]:
    """The costs of a held-out sample, and of a token of the texts that are written together."""
    if not plan.is_validated:
        return
    task = max(plan.tasks, key=lambda task: task.recipe.kind.writes_text)
    few = {"max_samples": 2 * size, "answer_tokens": _FEW_TOKENS, "sample_tokens": _FEW_TOKENS}
    evaluation = task.recipe.evaluate.model_copy(update=few)
    recipe, split = task.recipe.model_copy(update={"evaluate": evaluation}), task.corpus.validation
    assert split is not None
    exam = Exam(
        model=state.model, corpus=task.corpus, recipe=recipe, precision=state.precision,
        world=World(plan.device), micro_batch_size=size, folder=Path(os.devnull), metric=plan.metric,
        step=0, task=task.name,
    )  # fmt: skip
    sample = _time(lambda: task.kind.score(exam)) / min(len(split), 2 * size)
    yield {"sample_seconds": sample}
    writes = task.recipe.kind.writes_text
    with state.precision.autocast():
        if writes and is_answered(recipe, task.corpus):
            seconds = _time(lambda: answer(state.model, task.corpus, recipe, 0))
        elif writes and recipe.evaluate.prompts:
            seconds = _time(lambda: continue_prompts(state.model, task.corpus, recipe, 0))
        elif task.exercises:
            seconds = _time(lambda: _write_program(state, task))
        else:
            return
    costs = replace(assume_costs(plan, 0.0, 0), sample_seconds=sample)
    reading = reading_seconds(replace(evaluation_work(plan), samples=0), costs)
    yield {"token_seconds": max(seconds - reading, seconds / 2) / _FEW_TOKENS}


def _write_program(state: TrainState, task: Task) -> None:
    execute, corpus = task.recipe.evaluate.execute, task.corpus
    assert execute is not None
    sampled = sampled_by(execute, seed=0, instruction=bool(len(corpus.examples)))
    few = replace(sampled, ks=(1,), samples=1, temperature=0.0, max_tokens=_FEW_TOKENS)
    exercises = task.exercises[:1]
    write_programs(state.model, corpus.tokenizer, corpus.chat, exercises, few, end_ids=corpus.end_ids)


def _measure_writing(size: int) -> float:
    """Seconds to write the files of a checkpoint where etude keeps what it prepares; they are removed."""
    root, some = durable.cache_folder("probes"), min(size, _WRITTEN_BYTES)
    durable.make_folder(root)
    with tempfile.TemporaryDirectory(dir=root) as name:
        folder = Path(name)
        small = _time(lambda: durable.write_file(folder / "small", b"{}"))
        large = _time(lambda: durable.write_file(folder / "large", bytes(some)))
    return _FILES * small + max(large - small, 0.0) * size / max(some, 1)


def _time(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _main() -> None:
    """Write the costs of the recipe on stdin to stdout, a line of JSON each."""
    recipe = recipe_from(json.load(sys.stdin))
    # A process that takes more would be killed, or others with it; a GPU maps more than it uses.
    is_on_cpu = choose_device(recipe.train.device).type == "cpu"
    room = limited_memory(psutil.virtual_memory().available) if is_on_cpu else contextlib.nullcontext()
    try:
        with room:
            for known in _measure(recipe):
                _tell(known)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        _tell({"no_room": 1.0})


def _tell(known: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(known) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _main()
