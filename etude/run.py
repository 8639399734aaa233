"""One recipe, start to finish: `Training` iterates over the loop, and every decision of a run is a statement there."""

import contextlib
import hashlib
import inspect
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from etude import durable
from etude.control.signals import StopSignals
from etude.data.batch import Batch
from etude.data.loader import Loader, StepBatches, iterate_once
from etude.data.tokenize import token_bytes
from etude.engine import checkpoint as checkpoints
from etude.engine.loop import Settings, Step, TrainState, to_device, train
from etude.engine.objectives import Causal, Custom, DeviceBatch, Objective
from etude.engine.optim import Optimizer, default_weight_decay
from etude.engine.precision import choose_precision
from etude.engine.world import join_world, measure_matrix_rate
from etude.errors import EtudeError, FaultError, InputError
from etude.evaluate.generate import generate
from etude.evaluate.tasks import Metric, Score, evaluate
from etude.models.decoder import Decoder
from etude.plan import Plan, make_plan, probe_micro_batch_size
from etude.recipe.load import to_toml
from etude.recipe.rules import LOWER_IS_BETTER
from etude.recipe.schema import Recipe
from etude.records import events
from etude.records.environment import describe_environment, find_changes
from etude.records.store import Run, RunWriter, Tracker, create_run, find_unfinished, hold_run, open_run
from etude.records.trackers import TextLog, TrainerState, open_trackers, require_trackers
from etude.report.write import write_report
from etude.watch.resources import ResourceSampler

# Steps in a row that may be skipped: fp16 needs a few to find its scale, a broken run skips for ever.
_MAX_SKIPPED = 50

Loss = Callable[[nn.Module, DeviceBatch], tuple[torch.Tensor, Any]]


@dataclass(frozen=True)
class Options:
    """How to run a recipe, beside what the recipe says.

    runs         where run folders go
    new          start a run even if one of the same recipe is unfinished
    resume       the run to continue
    weights      RUN@best, RUN@last, RUN@step-000100 or a folder: where the first weights come from
    model, loss, metrics  one's own module, `loss(model, batch) -> (sum, targets)`, `metric(model, batches) -> float`
    recipe_text  the recipe file as given, kept in the run
    views        told the plan before anything is written, and then every record
    """

    runs: Path = Path("runs")
    new: bool = False
    resume: Run | None = None
    weights: str | None = None
    model: nn.Module | None = None
    loss: Loss | None = None
    metrics: dict[str, Metric] = field(default_factory=dict)
    recipe_text: str | None = None
    views: tuple[Tracker, ...] = ()
    on_plan: Callable[[Plan, Run], None] | None = None


def run_recipe(recipe: Recipe, options: Options = Options()) -> "Training":
    """Run a recipe to its end, or until it is asked to stop."""
    training = Training(recipe, options)
    for _ in training:
        pass
    return training


class Training:
    """A run that is going on: iterate to train. Breaking out saves and leaves it resumable.

    run           the run, once the first step is done
    stopped_by    why it ended before its last step, or None
    is_resumable  whether the same command would continue it
    """

    run: Run
    stopped_by: str | None = None
    is_resumable: bool = False

    def __init__(self, recipe: Recipe, options: Options = Options()) -> None:
        self._recipe, self._options = recipe, options
        self._objective: Objective = Custom(options.loss) if options.loss else Causal()
        self._best: dict[str, Any] | None = None
        self._best_on_disk: dict[str, Any] | None = None
        self._without_improvement = 0
        self._window: list[Step] = []  # not yet fetched from the device
        self._since_log: list[events.Step] = []
        self._since_save: list[float] = []  # loss sum and targets of the steps since the last checkpoint
        self._skipped_in_a_row = 0
        self._saved_step = 0
        self._saved_time = time.monotonic()

    def __iter__(self) -> Iterator[Step]:
        """Train, and after each step record, evaluate, save and stop as the recipe and the signals say.

        Raises: InputError before anything is written; StorageError or FaultError while running.
        """
        require_trackers(self._recipe)
        torch.use_deterministic_algorithms(self._recipe.train.deterministic)
        self._plan = make_plan(self._recipe, own_model=self._options.model, own_metrics=self._options.metrics)
        self._world = join_world(self._plan.device)
        with contextlib.ExitStack() as stack:
            stack.push(lambda kind, *_: self._world.leave(together=kind is None))
            self._state = self._build()
            self._writer = self._open()
            state = "failed"
            if (writer := self._writer) is not None:
                stack.callback(lambda: writer.close(state))
            signals = stack.enter_context(StopSignals())
            self._saver = checkpoints.Saver(self.run.checkpoints)
            stack.callback(self._saver.close)
            self._sampler = ResourceSampler(self._world.device.index if self._world.device.type == "cuda" else None)
            stack.callback(self._sampler.close)
            try:
                if self._begin():
                    self._evaluate()
                # An attempt may begin where the last one had already decided to stop.
                self.stopped_by = self._why_stop(signals)
                batches = self._batches(stack) if self.stopped_by is None else iter(())
                for step in train(self._state, batches, self._objective, self._settings(), self._world):
                    self._window.append(step)
                    if self._is_log_step():
                        self._log()
                    if self._is_evaluation_due():
                        self._evaluate()
                    if self._is_checkpoint_due():
                        self._save()
                    self._collect(wait=False)
                    yield step
                    if reason := self._why_stop(signals):
                        self.stopped_by = reason
                        break
                self.is_resumable = self.stopped_by is not None and signals.requested is not None
                self._end()
                state = "stopped" if self.is_resumable else "finished"
            except GeneratorExit:
                self.stopped_by, self.is_resumable = "the caller stopped iterating", True
                self._end()
                state = "stopped"
                raise
            except KeyboardInterrupt:
                state = "stopped"
                raise

    # --- the start ---------------------------------------------------------------------------------------------------

    def _build(self) -> TrainState:
        recipe, device = self._recipe, self._world.device
        if self._options.model is not None:
            model = self._options.model
        else:
            assert self._plan.model is not None
            model = Decoder(self._plan.model)
            model.init_weights(recipe.seed)
            model.checkpoint_activations = recipe.train.activation_checkpointing
        model.to(device)
        if self._options.weights is not None:
            checkpoints.load_weights(find_weights(self._options.weights, self._options.runs), model)
        if recipe.train.compile:
            model.compile()
        targets = self._plan.global_batch_size * recipe.train.seq_len
        precision = choose_precision(recipe.train.precision, device, targets_per_step=targets)
        return TrainState(model, Optimizer(model, recipe.optim), precision)

    def _open(self) -> RunWriter | None:
        """Create or continue the run folder on rank 0, and tell its path, or what is wrong, to the others."""
        writer, answer = None, ""
        if self._world.is_main:
            try:
                writer = self._hold()
                answer = str(writer.run.path)
            except EtudeError as error:
                if self._world.size == 1:
                    raise
                answer = f"!{error}"
        answer = self._world.share(answer)
        if answer.startswith("!"):
            raise InputError(answer[1:])
        self.run = Run(Path(answer)) if answer else writer.run  # type: ignore[union-attr]
        if self._options.on_plan and self._world.is_main:
            self._options.on_plan(self._plan, self.run)
        return writer

    def _hold(self) -> RunWriter:
        options = self._options
        run = options.resume or (None if options.new else find_unfinished(options.runs, self._recipe))
        if run is None:
            parent = options.weights.partition("@")[0] if options.weights else None
            return create_run(options.runs, self._recipe, recipe_text=options.recipe_text, parent=parent)
        path = run.path / "environment.json"
        if path.exists() and run.environment["data_fingerprint"] != self._plan.corpus.fingerprint:
            raise InputError(
                f"the data of run {run.name} has changed since it started; bring it back, or start "
                "another run with --new"
            )
        return hold_run(run)

    def _begin(self) -> bool:
        """Restore the newest checkpoint and write down how this attempt runs; returns whether an evaluation is owed."""
        folder, state = self.run.checkpoints, self._state
        path, damage = checkpoints.newest_valid(folder, self.run.info["id"])
        owed = False
        if path is not None:
            progress = checkpoints.load_checkpoint(path, state)
            self._best, self._without_improvement = progress.best, progress.evaluations_without_improvement
            self._saved_step, owed = progress.step, not progress.evaluated
        self._micro_batch_size = self._plan.micro_batch_size or self._probe()
        if self._writer is None:
            return owed
        checkpoints.remove_unfinished(folder, beyond=state.step)
        self._write_best()
        environment = describe_environment() | {
            "data_fingerprint": self._plan.corpus.fingerprint,
            "threads": torch.get_num_threads(),
            "micro_batch_size": self._micro_batch_size,
            "device": self._world.device.type,
            "devices": self._world.size,
            "precision": state.precision.name,
            "own_code": _describe_code(self._options),
        }
        is_first = not (self.run.path / "environment.json").exists()
        changes = [] if is_first else find_changes(self.run.environment, environment)
        if is_first:
            durable.write_json(self.run.path / "environment.json", environment)
            durable.write_file(self.run.path / "resolved.toml", to_toml(self._resolved()).encode())
        self._matrix_rate = self._world.size * measure_matrix_rate(self._world.device, state.precision.dtype)
        ledger = self.run.ledger()
        number = 1 + max((entry.attempt for entry in [*ledger.entries, *ledger.rework]), default=0)
        self._writer.trackers = [TextLog(self._writer), TrainerState(self.run), *self._options.views]
        self._writer.append(
            events.Attempt(
                number=number, from_step=state.step, steps=self._plan.steps, device=self._world.device.type,
                steps_per_epoch=self._plan.steps_per_epoch, devices=self._world.size, precision=state.precision.name,
                micro_batch_size=self._micro_batch_size, parameters=self._plan.parameters,
                flops_per_token=self._plan.flops_per_token, checkpoint=path.name if path else None,
                matrix_flops_per_second=self._matrix_rate,
                environment=environment, changed=changes,
            )
        )  # fmt: skip
        self._writer.trackers += open_trackers(self._recipe, self.run)
        if is_first:
            self._writer.append(events.DataUsed(self._plan.corpus.fingerprint, self._plan.corpus.summary))
        for problem in damage:
            self._find("damaged checkpoint", problem, f"the run continues from {path.name if path else 'the start'}")
        for change in changes:
            self._find("changed since the first attempt", change, "bits may differ from an unbroken run")
        self._writer.sync()
        return owed

    def _resolved(self) -> Recipe:
        """The recipe with what was found out: sizes of the model, micro-batch, weight decay."""
        known: dict[str, Any] = {
            "train.micro_batch_size": self._micro_batch_size,
            "optim.weight_decay": default_weight_decay(self._recipe.optim),
        }
        if self._plan.model is not None:
            sizes = {name: value for name, value in asdict(self._plan.model).items() if name != "context"}
            known |= {f"model.{name}": value for name, value in sizes.items() if value is not None}
        return self._recipe.with_changes(known)

    def _batches(self, stack: contextlib.ExitStack) -> Iterator[StepBatches]:
        loader = Loader(
            self._plan.corpus.train,
            global_batch_size=self._plan.global_batch_size,
            micro_batch_size=self._micro_batch_size,
            seed=self._recipe.seed,
            attend_across_documents=self._recipe.data.attend_across_documents,
            rank=self._world.rank,
            ranks=self._world.size,
        )
        return stack.enter_context(contextlib.closing(loader.iterate(self._state.step, self._plan.steps)))

    def _settings(self) -> Settings:
        return Settings.of(self._recipe, self._plan.steps)

    def _probe(self) -> int:
        """The micro-batch size that fits, found by running one; the same on every attempt, since the run keeps it."""
        if (self.run.path / "environment.json").exists():
            return int(self.run.environment["micro_batch_size"])
        split, model = self._plan.corpus.train, self._state.model

        def try_step(size: int) -> None:
            batch = next(iter(iterate_once(split, size, self._recipe.data.attend_across_documents)))
            with self._state.precision.autocast():
                loss, _ = self._objective.loss_sum(model, to_device(batch, self._world.device))
            loss.backward()  # type: ignore[no-untyped-call]
            self._state.optimizer.zero_grad()

        return probe_micro_batch_size(self._plan.global_batch_size // self._world.size, try_step)

    # --- after a step ------------------------------------------------------------------------------------------------

    def _log(self) -> None:
        """Write down the steps since the last log step, and at what cost they were made."""
        self._drain()
        steps, self._since_log = self._since_log, []
        if self._writer is None:
            return
        seconds = sum(step.seconds for step in steps)
        speed = sum(step.targets for step in steps) / seconds
        usage = self._sampler.read()
        self._writer.append(
            events.Resource(
                self._state.step, round(speed, 1), round(self._plan.flops_per_token * speed / self._matrix_rate, 4),
                round(sum(step.wait_seconds for step in steps) / seconds, 4), usage.cpu_percent, usage.rss_bytes,
                usage.gpu_percent, usage.gpu_memory_bytes,
            )
        )  # fmt: skip
        self._writer.beat()

    def _drain(self) -> None:
        """Fetch the figures of the steps since the last time from the device, in one transfer, and write them down."""
        if not self._window:
            return
        window, self._window = self._window, []
        measured = torch.stack([step.measured for step in window]).cpu().double().tolist()
        records = []
        for step, (loss_sum, targets, norm, skipped) in zip(window, measured):
            loss = loss_sum / targets if targets else float("nan")
            self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
            if not skipped:
                self._since_save += [loss_sum, targets]
            records.append(
                events.Step(
                    step.number, step.epoch, loss, norm, step.learning_rate, int(targets), step.samples,
                    round(step.seconds, 6), round(step.wait_seconds, 6), bool(skipped),
                )
            )  # fmt: skip
        self._since_log += records
        if self._writer is None:
            return
        self._writer.append(*records)
        for record in records:
            if record.skipped:
                self._find(
                    "non-finite step", f"loss {record.loss}, gradient norm {record.grad_norm}",
                    "the weights were left as they were; a lower learning rate or bf16 may help", step=record.step,
                )  # fmt: skip
        if self._skipped_in_a_row >= _MAX_SKIPPED:
            raise FaultError(
                f"the last {self._skipped_in_a_row} steps had no finite loss or gradient and changed nothing; lower "
                "optim.learning_rate, or use fp32 or bf16, and start again with --new"
            )

    def _evaluate(self) -> None:
        """Score the model on the validation samples and sample from it; a failure costs no step."""
        self._drain()
        started = time.perf_counter()
        try:
            score = self._score()
            metrics = {
                name: metric(self._state.model, self._validation()) for name, metric in self._options.metrics.items()
            }
            texts = self._generate()
        except Exception:
            self._save(evaluated=False)
            self._collect(wait=True)
            raise
        value = self._value_of(score, metrics)
        is_best = self._is_better(value, 0.0)
        improved = self._is_better(value, self._recipe.evaluate.min_improvement)
        self._without_improvement = 0 if improved else self._without_improvement + 1
        if is_best:
            self._set_best(self._recipe.evaluate.metric, value)
        if self._writer is None:
            return
        seconds = time.perf_counter() - started
        self._writer.append(
            events.Evaluation(
                self._state.step, score.loss, score.perplexity, score.bits_per_byte, score.targets,
                round(seconds, 3), is_best, metrics,
            ),
            *texts,
        )  # fmt: skip

    def _score(self) -> Score:
        table = token_bytes(self._plan.corpus.tokenizer) if isinstance(self._objective, Causal) else None
        model, precision = self._state.model, self._state.precision
        return evaluate(model, self._validation(), self._objective, precision, self._world, table)

    def _validation(self) -> Iterator[Batch]:
        assert self._plan.corpus.validation is not None
        return iterate_once(
            self._plan.corpus.validation,
            self._micro_batch_size,
            self._recipe.data.attend_across_documents,
            rank=self._world.rank,
            ranks=self._world.size,
            max_samples=self._recipe.evaluate.max_samples,
        )

    def _generate(self) -> list[events.Generation]:
        recipe, tokenizer = self._recipe.evaluate, self._plan.corpus.tokenizer
        if not recipe.prompts or not isinstance(self._state.model, Decoder) or not self._world.is_main:
            return []
        settings: dict[str, Any] = {
            "max_tokens": recipe.sample_tokens, "temperature": recipe.temperature,
            "top_k": recipe.top_k, "top_p": recipe.top_p, "seed": self._recipe.seed,
        }  # fmt: skip
        prompts = [tokenizer.encode(prompt).tolist() or [tokenizer.eos_id] for prompt in recipe.prompts]
        continued = generate(self._state.model, prompts, eos_id=tokenizer.eos_id, **settings)
        return [
            events.Generation(self._state.step, prompt, tokenizer.decode(ids), settings)
            for prompt, ids in zip(recipe.prompts, continued)
        ]

    def _value_of(self, score: Score, metrics: dict[str, float]) -> float:
        name = self._recipe.evaluate.metric
        known = {"loss": score.loss, "perplexity": score.perplexity, "bits_per_byte": score.bits_per_byte, **metrics}
        value = known.get(name)
        assert value is not None
        return value

    def _is_better(self, value: float, margin: float) -> bool:
        if self._best is None:
            return not math.isnan(value)
        gain = float(self._best["value"]) - value
        return (gain if self._recipe.evaluate.metric in LOWER_IS_BETTER else -gain) > margin

    def _set_best(self, metric: str, value: float) -> None:
        step = self._state.step
        self._best = {"checkpoint": f"step-{step:06d}", "metric": metric, "value": value, "step": step}

    # --- saving ------------------------------------------------------------------------------------------------------

    def _save(self, *, evaluated: bool = True) -> None:
        """Take a snapshot, for which training waits, and have it written, for which it does not."""
        if self._state.step == self._saved_step or self._state.step == 0:
            return
        self._drain()
        self._saved_step, self._saved_time = self._state.step, time.monotonic()
        if self._plan.corpus.validation is None and self._since_save:
            loss = sum(self._since_save[::2]) / sum(self._since_save[1::2])
            if self._is_better(loss, 0.0):
                self._set_best("training loss", loss)
        self._since_save = []
        if self._writer is None:
            return
        self._collect(wait=True)
        started = time.perf_counter()
        self._writer.sync()
        progress = checkpoints.Progress(
            run=self.run.info["id"], step=self._state.step, data_fingerprint=self._plan.corpus.fingerprint,
            precision=self._state.precision.state(), best=self._best, evaluated=evaluated,
            evaluations_without_improvement=self._without_improvement,
        )  # fmt: skip
        snapshot = checkpoints.take_snapshot(self._state, progress, self._files())
        self._saver.save(snapshot, time.perf_counter() - started)

    def _files(self) -> dict[str, bytes]:
        """What makes a checkpoint folder a model that other tools load."""
        tokenizer = self._plan.corpus.tokenizer
        files: dict[str, bytes] = dict(tokenizer.files())
        if self._plan.model is not None:
            files["config.json"] = json.dumps(self._plan.model.to_hf(eos_token_id=tokenizer.eos_id), indent=2).encode()
        return files

    def _collect(self, *, wait: bool) -> None:
        """Note a checkpoint that has been written, point best.json at it if it is the best, and remove old ones."""
        saved = self._saver.collect(wait=wait)
        if saved is None or self._writer is None:
            return
        self._write_best(saved.name)
        self._writer.append(
            events.CheckpointSaved(
                saved.step, saved.name, saved.size, round(saved.blocking_seconds, 4), round(saved.write_seconds, 4)
            )
        )
        keep = {best["checkpoint"] for best in (self._best, self._best_on_disk) if best}
        checkpoints.retain(
            self.run.checkpoints, keep=self._recipe.checkpoint.keep, keep_at=self._recipe.checkpoint.keep_at, best=keep
        )

    def _write_best(self, written: str | None = None) -> None:
        """Bring best.json in line with the best checkpoint that is on disk."""
        if self._best and (written in (None, self._best["checkpoint"])) and self._best != self._best_on_disk:
            durable.write_json(self.run.path / "best.json", self._best)
            self._best_on_disk = self._best

    # --- what is due, and the end ------------------------------------------------------------------------------------

    def _is_log_step(self) -> bool:
        return self._state.step % self._recipe.records.log_every_steps == 0 or self._state.step == self._plan.steps

    def _is_evaluation_due(self) -> bool:
        recipe, step = self._recipe.evaluate, self._state.step
        every = recipe.every_steps or (recipe.every_epochs or 1) * self._plan.steps_per_epoch
        return self._plan.corpus.validation is not None and (step % every == 0 or step == self._plan.steps)

    def _is_checkpoint_due(self) -> bool:
        recipe, step = self._recipe.checkpoint, self._state.step
        is_best = self._best is not None and self._best["step"] == step
        if is_best or step == self._plan.steps or step in recipe.keep_at:
            return True
        if recipe.every_steps is not None:
            return step % recipe.every_steps == 0
        is_late = time.monotonic() - self._saved_time > 60 * (recipe.every_minutes or 10.0)
        return self._is_common_step() and self._world.any(is_late)

    def _is_common_step(self) -> bool:
        """Whether the ranks talk about more than gradients after this step; one rank always may."""
        return self._world.size == 1 or self._is_log_step()

    def _why_stop(self, signals: StopSignals) -> str | None:
        """Why to stop here, the same on every rank, or None."""
        patience = self._recipe.evaluate.patience
        if patience is not None and self._without_improvement >= patience:
            return f"no improvement in {patience} evaluations"
        if self._state.step == self._plan.steps or not self._is_common_step():
            return None
        if self._world.any(signals.requested is not None):
            signals.requested = signals.requested or "a signal to another rank"
            return f"{signals.requested} was received"
        return None

    def _end(self) -> None:
        """Save what is not yet saved, say how the run ended and write its report."""
        self._drain()
        self._save()
        self._collect(wait=True)
        if self._writer is None:
            return
        action = "stop" if self.stopped_by else "finish"
        self._writer.append(events.Control(self._state.step, action, self.stopped_by or "the last step is done"))
        self._writer.sync()
        try:
            write_report(self.run)
        except Exception as error:  # a report can be written again, a run cannot
            self._find("report failed", f"{type(error).__name__}: {error}", f"try etude report {self.run.name}")

    def _find(self, what: str, evidence: str, advice: str, step: int | None = None) -> None:
        if self._writer:
            self._writer.append(events.Finding(self._state.step if step is None else step, what, evidence, advice))


def find_weights(given: str, runs: Path) -> Path:
    """The model.safetensors that RUN@best, RUN@last, RUN@step-000100, RUN (its best) or a folder names.

    Raises: InputError if there is none.
    """
    folder = Path(given)
    if (folder / "model.safetensors").is_file():
        return folder / "model.safetensors"
    name, _, which = given.partition("@")
    run = open_run(name, runs)
    which = which or "best"
    if which == "best" and run.best:
        which = run.best["checkpoint"]
    elif which in ("best", "last"):
        saved = checkpoints.list_checkpoints(run.checkpoints)
        which = saved[-1].name if saved else "last"
    path = run.checkpoints / which / "model.safetensors"
    if not path.is_file():
        have = ", ".join(saved.name for saved in checkpoints.list_checkpoints(run.checkpoints)) or "none yet"
        raise InputError(f"run {run.name} has no checkpoint {which}; it has {have}")
    return path


def _describe_code(options: Options) -> dict[str, str]:
    """Name and source hash of what the user brought, so that a record tells which code it was."""

    def describe(thing: object) -> str:
        owner = thing if inspect.isroutine(thing) else type(thing)
        try:
            digest = hashlib.sha256(inspect.getsource(owner).encode()).hexdigest()[:16]
        except (OSError, TypeError):
            digest = "source unknown"
        return f"{owner.__module__}.{owner.__qualname__} {digest}"

    own = {"model": options.model, "loss": options.loss, **{f"metric {k}": v for k, v in options.metrics.items()}}
    return {name: describe(thing) for name, thing in own.items() if thing is not None}
