"""One recipe, start to finish: `Training` iterates over the loop, and every decision of a run is a statement there."""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from etude.assemble import assemble, model_files
from etude.control.signals import StopSignals
from etude.data.corpus import label_notes
from etude.data.loader import Loader, StepBatches, iterate_once, longest_batch
from etude.data.mixture import Mixture
from etude.data.split import Split
from etude.engine import checkpoint as checkpoints
from etude.engine.keeper import Keeper
from etude.engine.loop import Settings, Step, to_device, train
from etude.engine.objectives import (
    Causal,
    Classification,
    Custom,
    DeviceBatch,
    MultiTask,
    Objective,
    Seq2Seq,
    choose_objective,
    targets_per_sample,
    without_weights,
)
from etude.engine.recorder import Recorder
from etude.engine.world import World, join_world, measure_matrix_rate
from etude.errors import InputError, LostRankError
from etude.evaluate import classify, translate
from etude.evaluate.answers import answer, continue_prompts
from etude.evaluate.exam import Exam
from etude.evaluate.judge import Judge
from etude.evaluate.tasks import Score, evaluate
from etude.plan import Task, make_plan, probe_micro_batch_size
from etude.recipe.schema import Recipe
from etude.records import events
from etude.records.folder import checkpoint_name
from etude.records.store import Run, RunWriter
from etude.records.trackers import require_trackers
from etude.report.write import write_report
from etude.scores.answers import FIGURES, score
from etude.scores.intervals import answer_bootstrap
from etude.start import Options, find_started, open_folder, untrained_finding, write_start

_DEFAULT_MINUTES = 10.0


def run_recipe(recipe: Recipe, options: Options = Options()) -> "Training":  # noqa: B008 - frozen
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
    is_stop_asked  whether a signal asked to stop, also if that came when the last step was done
    """

    run: Run
    stopped_by: str | None = None
    is_resumable: bool = False
    is_stop_asked: bool = False

    def __init__(self, recipe: Recipe, options: Options = Options()) -> None:  # noqa: B008 - frozen
        self._recipe, self._options = recipe, options
        self._objective: Objective = Custom(options.loss) if options.loss else Causal()
        self._objectives: dict[str, Objective] = {"": self._objective}
        self._judge = Judge(recipe.evaluate, lower_is_better=options.own.is_lower_better(recipe.evaluate.metric))
        self._saved_step = 0
        self._is_margin_said = False
        self._is_room_said = False
        self._saved_time = time.monotonic()

    def __iter__(self) -> Iterator[Step]:
        """Train, and after each step record, evaluate, save and stop as the recipe and the signals say.

        Raises: InputError before anything is written; StorageError or FaultError while running.
        """
        require_trackers(self._recipe)
        if self._recipe.train.deterministic:  # cuBLAS reads it once, before its first product
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if self._recipe.train.deterministic != torch.are_deterministic_algorithms_enabled():
            torch.use_deterministic_algorithms(self._recipe.train.deterministic)  # which loads torch's compiler
        begun = find_started(self._recipe, self._options)
        self._plan = make_plan(self._recipe, own=self._options.own, today=begun.day if begun else None)
        self._world = join_world(self._plan.device)
        if self._world.size != self._recipe.train.devices:
            raise InputError(
                f"train.devices is {self._recipe.train.devices}, but {self._world.size} ranks were started; "
                "start them by etude train --devices, or set train.devices to their number"
            )
        tasks = self._plan.tasks
        if self._options.loss is None:
            self._objectives = {task.name: _objective_of(task) for task in tasks}
            self._objective = self._objectives.get("") or MultiTask(
                self._objectives,
                {task.name: 1 / targets_per_sample(self._objectives[task.name], task.corpus.train) for task in tasks},
            )
        with contextlib.ExitStack() as stack:
            stack.push(lambda kind, *_: self._world.leave(together=kind is None))
            self._state, self._new_weights = assemble(self._plan, self._options, self._world)
            self._try_own_code()
            signals = stack.enter_context(StopSignals())  # so that a run folder is made whole
            self.run, writer = open_folder(self._plan, self._options, self._world)
            outcome = "failed"
            if writer is not None:
                stack.callback(lambda: writer.close(outcome))
            try:
                is_evaluation_owed = self._begin(stack, writer)
                if self._state.step == 0:
                    self._keep_before()
                is_compared = self._plan.pretrained is not None or not isinstance(self._objective, Causal | Custom)
                if is_compared and self._state.step == 0 and self._plan.is_validated:
                    self._evaluate(before=True)
                elif is_evaluation_owed:
                    self._evaluate()
                    if self._world.is_main:
                        self._keeper.point_at(self._judge.best)
                self._world.wait()  # rank 0 wrote down how the attempt begins
                # An attempt may begin where the last one had already decided to stop.
                self.stopped_by = self._why_stop(signals)
                batches = iter(()) if self.stopped_by else self._batches(stack)
                settings = Settings.of(self._recipe, self._plan.steps)
                for step in train(self._state, batches, self._objective, settings, self._world):
                    self._recorder.add(step)
                    if self._is_log_step():
                        self._recorder.log()
                    if self._is_evaluation_due():
                        self._evaluate()
                    if self._is_checkpoint_due():
                        self._save()
                        self._world.wait()  # rank 0 alone saves, and the next step is not to wait long
                    self._keeper.collect(wait=False)
                    yield step
                    if reason := self._why_stop(signals):
                        self.stopped_by = reason
                        break
                was_asked = self._world.any(signals.requested is not None)
                self.is_resumable = self.stopped_by is not None and was_asked
                self._end()
                self.is_stop_asked = signals.requested is not None
                outcome = "stopped" if self.is_resumable else "finished"
            except GeneratorExit:
                self.stopped_by, self.is_resumable = "the caller stopped iterating", True
                self._end()
                outcome = "stopped"
                raise
            except KeyboardInterrupt:
                outcome = "stopped"
                raise

    # The start

    def _try_own_code(self) -> None:
        """Run what the user brings once on two samples of each task, before anything is written."""

        def some(split: Split | None, task: Task) -> Iterator[DeviceBatch]:
            attend = self._recipe.data.attend_across_documents
            for batch in iterate_once(split, 2, attend, max_samples=2) if split else ():
                yield to_device(replace(batch, task=task.name), self._world.device)

        tasks, state = self._plan.tasks, self._state
        train = [batch for task in tasks for batch in some(task.corpus.train, task)]
        held_out = [batch for task in tasks for batch in some(task.corpus.validation, task)]
        self._options.own.try_out(state.model, self._objective.loss_sum, state.precision, train, held_out)

    def _begin(self, stack: contextlib.ExitStack, writer: RunWriter | None) -> bool:
        """Restore the newest valid checkpoint and write down the attempt; returns whether an evaluation is owed."""
        state, folder = self._state, self.run.checkpoints
        path, damage = checkpoints.newest_valid(folder, self.run.info["id"])
        is_evaluation_owed = False
        if path is not None:
            progress = checkpoints.load_checkpoint(path, state)
            self._judge.best = progress.best
            self._judge.evaluations_without_improvement = progress.evaluations_without_improvement
            self._saved_step, is_evaluation_owed = state.step, not progress.evaluated
        self._micro_batch_size = self._plan.micro_batch_size or self._world.least(self._probe())
        matrix_rate = self._world.size * measure_matrix_rate(self._world.device, state.precision.dtype)
        self._recorder = Recorder(writer, device=self._world.device, cost=self._plan.cost, matrix_rate=matrix_rate)
        stack.callback(self._recorder.close)
        self._keeper = Keeper(self.run, self._recipe.checkpoint, self._recorder.write)
        stack.callback(self._keeper.close)
        if writer is None:
            return is_evaluation_owed
        foreign = checkpoints.remove_unfinished(folder, beyond=state.step)
        self._keeper.point_at(self._judge.best)
        write_start(
            writer,
            self._plan,
            self._options,
            from_step=state.step,
            micro_batch_size=self._micro_batch_size,
            matrix_rate=matrix_rate,
        )
        if self._new_weights and path is None:
            names = f"{len(self._new_weights)} tensors are new: {', '.join(self._new_weights[:4])}"
            self._recorder.write(events.Finding(0, "new weights", names, "they are learnt from the start"))
        if path is None and (finding := untrained_finding(self._plan, state.model)):
            self._recorder.write(finding)
        for task in self._plan.tasks if path is None else ():
            for note in label_notes(task.corpus):
                advice = "if that is not meant, mend the label fields, or id2label in config.json of the model"
                self._recorder.write(events.Finding(0, task.named("labels"), note, advice))
        if foreign:
            evidence = f"{', '.join(foreign[:3])}{' ...' if len(foreign) > 3 else ''} in {folder.name}"
            advice = f"left as it is: a checkpoint is named as {checkpoint_name(200)} is"
            self._recorder.write(events.Finding(state.step, "not a checkpoint", evidence, advice))
        for problem in damage:
            advice = f"the run continues from {path.name if path else 'the start'}"
            self._recorder.write(events.Finding(state.step, "damaged checkpoint", problem, advice))
        self._recorder.sync()
        if self._options.on_plan:
            self._options.on_plan(self._plan, self.run)
        return is_evaluation_owed

    def _probe(self) -> int:
        """The micro-batch size that fits, found by trying; the same on every attempt, since the run keeps it."""
        if (self.run.path / "environment.json").exists():
            return int(self.run.environment["micro_batch_size"])

        device, attend = self._world.device, self._recipe.data.attend_across_documents

        def try_step(size: int) -> None:
            moments = torch.empty(2, self._plan.trainable, device=device)  # those of the optimizer come with a step
            for task in self._plan.tasks:
                batch = replace(longest_batch(task.corpus.train, size, attend), task=task.name)
                with self._state.precision.autocast():
                    loss, _ = self._objective.loss_sum(self._state.model, to_device(batch, device))
                loss.backward()  # type: ignore[no-untyped-call]
            self._state.optimizer.zero_grad()
            del moments

        return probe_micro_batch_size(self._plan.global_batch_size // self._world.size, try_step)

    def _batches(self, stack: contextlib.ExitStack) -> Iterator[StepBatches]:
        loader = Loader(
            self._plan.train,
            global_batch_size=self._plan.global_batch_size,
            micro_batch_size=self._micro_batch_size,
            seed=self._recipe.seed,
            attend_across_documents=self._recipe.data.attend_across_documents,
            rank=self._world.rank,
            ranks=self._world.size,
        )
        return stack.enter_context(contextlib.closing(loader.iterate(self._state.step, self._plan.steps)))

    # After a step

    def _evaluate(self, *, before: bool = False) -> None:
        """Score the model on the validation samples and sample from it; a failure costs no step.

        `before` training, a pretrained model is scored to be compared with, and is never the best.
        """
        self._recorder.drain()
        started, state = time.perf_counter(), self._state
        try:
            scores: dict[str, Score] = {}
            own: dict[str, float] = {}
            texts: list[events.Generation] = []
            for task in self._plan.tasks:
                scores[task.name], figures = self._score(task)
                said, answered = self._generate(task)
                texts += said
                own |= {task.named(name): value for name, value in (figures | answered).items()}
                if task.name:
                    own |= {task.named("loss"): scores[task.name].loss}
            for name in self._options.metrics:  # of all rows, on every rank
                own[name] = self._options.own.measure(name, state.model, state.precision, self._validation())
        except Exception:
            self._save(evaluated=False)
            self._keeper.collect(wait=True)
            raise
        score = self._joined(scores)
        known = {"loss": score.loss, "perplexity": score.perplexity, "bits_per_byte": score.bits_per_byte, **own}
        # A model without a finite loss is broken, whatever its answers look like: F1 of NaN is a plain 0.
        value = known.get(self._recipe.evaluate.metric) if math.isfinite(score.loss) else None
        record = events.Evaluation(
            step=state.step,
            loss=score.loss,
            perplexity=score.perplexity,
            bits_per_byte=score.bits_per_byte,
            targets=score.targets,
            seconds=max(round(time.perf_counter() - started, 3), 0.0),
            best=not before and self._judge.judge(math.nan if value is None else value, state.step),
            metrics=own,
        )
        self._recorder.write(record, *texts)

    def _score(self, task: Task) -> tuple[Score, dict[str, float]]:
        """The loss of the validation samples of a task, without weights or smoothing; of a classifier its figures."""
        exam, labels = self._exam(task), task.corpus.labels
        objective = without_weights(self._objectives[task.name])
        split, most = task.corpus.validation, self._recipe.evaluate.max_samples
        assert split is not None
        if labels is None or not task.is_classified:
            table = task.corpus.token_bytes if task.has_bytes else None
            batches, precision = exam.batches(split, most), self._state.precision
            return evaluate(exam.model, batches, objective, precision, self._world, table), {}
        assert isinstance(objective, Classification)
        predictions = classify.predict_split(exam, objective, split, most)
        self._warn_of_noise(task, lambda metric: classify.standard_error(predictions, labels, metric))
        return predictions.score, classify.figures(predictions, labels)

    def _joined(self, scores: dict[str, Score]) -> Score:
        """The score of the only task; of several their loss as training weighs it, which is none of a single token."""
        if not isinstance(self._plan.train, Mixture):
            return scores[""]
        shares = zip(self._plan.train.parts, self._plan.train.counts)
        loss = sum(count * scores[name].loss for name, count in shares) / len(self._plan.train)
        return Score(loss, sum(score.targets for score in scores.values()), None)

    def _exam(self, task: Task) -> Exam:
        state, folder = self._state, self.run.path / "predictions" / task.name
        return Exam(
            state.model,
            task.corpus,
            task.recipe,
            state.precision,
            self._world,
            self._micro_batch_size,
            folder,
            task.name,
            is_fresh=self._plan.pretrained is None and self._options.weights is None,
        )

    def _keep_before(self) -> None:
        """Keep what a model says of what it can be scored on before training, for the comparison at the end."""
        for task in self._plan.tasks:
            match self._objectives[task.name]:
                case Classification() as objective:
                    classify.keep_before(self._exam(task), objective)
                case Seq2Seq() as objective:
                    translate.keep_before(self._exam(task), objective)

    def _compare(self) -> None:
        """Score the best weights beside those before training and what costs nothing, and keep every prediction."""
        scored = [
            task for task in self._plan.tasks if isinstance(self._objectives[task.name], Classification | Seq2Seq)
        ]
        exams = [exam for exam in map(self._exam, scored) if exam.held_out()]
        best, step = self._judge.best_step, self._state.step
        if exams and best is not None and best != step:
            step, path = best, self.run.checkpoints / checkpoint_name(best)
            checkpoints.load_weights(checkpoints.weights_file(path), self._state.model)
        for exam in exams:
            match self._objectives[exam.task]:
                case Classification() as objective:
                    scores = classify.compare(exam, objective, step)
                case Seq2Seq() as objective:
                    scores = translate.compare(exam, objective, step)
            if scores is not None:
                self._recorder.write(scores)

    def _warn_of_little_room(self, answered: Sequence[events.Generation]) -> None:
        """An answer that the context ends is scored as one that did not stop, which is not the model's fault."""
        most = self._recipe.evaluate.answer_tokens
        rooms = [said.settings["max_tokens"] for said in answered]
        short = sum(each < most for each in rooms)
        if short and not self._is_room_said:
            self._is_room_said = True
            evidence = (
                f"behind {short:,} of {len(rooms):,} questions the model's context leaves room for fewer than "
                f"evaluate.answer_tokens ({most:,}), for {min(rooms):,} at the least; these answers end there"
            )
            advice = "lower evaluate.answer_tokens, or ask shorter questions"
            self._recorder.write(events.Finding(self._state.step, "little room for answers", evidence, advice))

    def _warn_of_noise(self, task: Task, standard_error: Callable[[str], float]) -> None:
        """An improvement that is asked for should be larger than what the choice of rows alone brings about."""
        least = self._recipe.evaluate.min_improvement
        of, _, metric = self._recipe.evaluate.metric.rpartition(":")
        if self._is_margin_said or not least or of != task.name:
            return
        self._is_margin_said, error = True, standard_error(metric)
        if least < 2 * error:
            evidence = f"evaluate.min_improvement is {least:g}, but the standard error of {metric} is {error:.4f}"
            advice = (
                f"gains below {2 * error:.4f} may be chance: raise min_improvement, patience, or the validation set"
            )
            self._recorder.write(events.Finding(self._state.step, "improvement within the noise", evidence, advice))

    def _validation(self) -> Iterator[DeviceBatch]:
        """The validation samples of all tasks as a loss gets them, the same on every rank."""
        for task in self._plan.tasks:
            exam, split = replace(self._exam(task), world=World(self._world.device)), task.corpus.validation
            assert split is not None
            for batch in exam.batches(split, self._recipe.evaluate.max_samples):
                yield to_device(batch, self._world.device)

    def _generate(self, task: Task) -> tuple[list[events.Generation], dict[str, float]]:
        """Continuations of the prompts and answers to validation instructions of a task, and the figures of these.

        Rank 0 makes them; the others learn the figure that says which moment is the best.
        """
        texts: list[events.Generation] = []
        figures: dict[str, float] = {}
        if self._options.model is None and self._world.is_main:
            state = self._state
            with state.precision.autocast():
                texts = continue_prompts(state.model, task.corpus, task.recipe, state.step)
            if task.is_answered:
                with state.precision.autocast():
                    answered, said = answer(state.model, task.corpus, task.recipe, state.step)
                texts, figures = texts + answered, score(said)
                self._warn_of_little_room(answered)
                if self._recipe.evaluate.metric.rpartition(":")[2] in FIGURES:
                    self._warn_of_noise(task, lambda metric: answer_bootstrap(said, [metric])[metric].standard_error)
        if self._world.size > 1:
            metric = self._recipe.evaluate.metric.rpartition(":")[2]
            figures |= json.loads(self._world.share(json.dumps({k: v for k, v in figures.items() if k == metric})))
        return texts, figures

    def _save(self, *, evaluated: bool = True) -> None:
        """Save this step, unless that is done; without validation the best is judged here, by training loss."""
        state = self._state
        if self._is_saved:
            return
        self._recorder.drain()
        if not self._plan.is_validated:
            self._judge.judge(self._recorder.loss_since_save(), state.step, metric="training loss")
        self._saved_step, self._saved_time = state.step, time.monotonic()
        progress = checkpoints.Progress(
            run=self.run.info["id"],
            step=state.step,
            data_fingerprint=self._plan.fingerprint,
            precision=state.precision.state(),
            best=self._judge.best,
            evaluations_without_improvement=self._judge.evaluations_without_improvement,
            evaluated=evaluated,
            base=self._plan.pretrained.digest if self._plan.pretrained and self._recipe.adapter else None,
        )
        self._recorder.sync()
        if self._world.is_main:
            self._keeper.save(lambda: checkpoints.take_snapshot(state, progress, model_files(self._plan, state.model)))

    # What is due

    def _is_log_step(self) -> bool:
        return self._state.step % self._recipe.records.log_every_steps == 0 or self._state.step == self._plan.steps

    def _is_evaluation_due(self) -> bool:
        recipe, step = self._recipe.evaluate, self._state.step
        every = recipe.every_steps or (recipe.every_epochs or 1) * self._plan.steps_per_epoch
        return self._plan.is_validated and (step % every == 0 or step == self._plan.steps)

    def _is_checkpoint_due(self) -> bool:
        recipe, step = self._recipe.checkpoint, self._state.step
        if step == self._judge.best_step or step == self._plan.steps or step in recipe.keep_at:
            return True
        if recipe.every_steps is not None:
            return step % recipe.every_steps == 0
        is_late = time.monotonic() - self._saved_time > 60 * (recipe.every_minutes or _DEFAULT_MINUTES)
        return self._is_common_step() and self._world.any(is_late)

    def _is_common_step(self) -> bool:
        """Whether the ranks talk about more than gradients after this step; one rank always may."""
        return self._world.size == 1 or self._is_log_step() or self._is_evaluation_due() or self._is_saved

    @property
    def _is_saved(self) -> bool:
        return self._saved_step == self._state.step

    def _why_stop(self, signals: StopSignals) -> str | None:
        """Why to stop here, the same on every rank, or None."""
        if reason := self._judge.why_stop():
            return reason
        if self._state.step == self._plan.steps or not self._is_common_step():
            return None
        if self._world.any(signals.requested is not None):
            signals.requested = signals.requested or "a signal to another rank"
            return f"{signals.requested} was received"
        return None

    def _end(self) -> None:
        """Save what is not yet saved, say how the run ended, and write its report."""
        self._recorder.drain()
        self._save()
        self._keeper.collect(wait=True)
        if not self.is_resumable:
            self._world.wait()  # the checkpoint that rank 0 wrote is there for all
            advice = "the run is finished, without scores beside those before training and the baselines"
            self._at_end("comparison", self._compare, advice)
        action, reason = ("stop", self.stopped_by) if self.stopped_by else ("finish", "the last step is done")
        self._recorder.write(events.Control(self._state.step, action, reason))
        self._recorder.sync()
        if not self._world.is_main:
            return
        self._at_end("report", lambda: write_report(self.run), f"try etude report {self.run.name}")

    def _at_end(self, what: str, do: Callable[[], object], advice: str) -> None:
        """Do what only tells of a run whose weights are saved: its failure is named, and the run is finished."""
        try:
            do()
        except LostRankError:  # what the ranks do together is done again when the run is continued
            raise
        except Exception as error:
            evidence = f"{type(error).__name__}: {error}"
            self._recorder.write(events.Finding(self._state.step, f"{what} failed", evidence, advice))


def _objective_of(task: Task) -> Objective:
    labels = task.corpus.labels
    return choose_objective(task.recipe, task.corpus.train, multi=None if labels is None else labels.multi)
