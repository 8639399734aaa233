"""The controller of a sweep: it decides what is started where, and knows what was made from the runs alone.

Killed at any time it is started again by the same command: stages that still run are waited for, finished
ones are left as they are, all others go on from their newest checkpoint. A small object beside it starts,
signals and watches the processes.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from etude.control.signals import PassedOn
from etude.errors import InputError
from etude.launch.ranks import RESUMABLE
from etude.sweep.cells import find_runs_of, read_cells
from etude.sweep.costs import spent_seconds
from etude.sweep.dispatch import (
    Added,
    Branched,
    Dispatcher,
    Ended,
    Event,
    GiveUp,
    Job,
    Joined,
    Lost,
    Start,
)
from etude.sweep.executor import Processes
from etude.sweep.folder import SweepFolder, TrialState
from etude.sweep.given import GivenFiles
from etude.sweep.grid import Sweep, Trial
from etude.sweep.halving import Rungs
from etude.sweep.local import Exit
from etude.sweep.measure import Measured, measure
from etude.sweep.outcome import Outcome, describe_exit
from etude.sweep.repeats import repeats_of
from etude.sweep.reporter import Reporter
from etude.sweep.search import Searches
from etude.sweep.stacks import find_leads
from etude.sweep.stage import is_stage_held
from etude.sweep.standing import best_of
from etude.sweep.tree import Stage, Tree
from etude.text import plural

_POLL_SECONDS = 0.1
_SCAN_SECONDS = 1.0


class Controller:
    """The stages of a sweep, from the first start to the last end."""

    def __init__(
        self,
        sweep: Sweep,
        folder: SweepFolder,
        path: Path,
        measured: Measured,
        tree: Tree,
        processes: Processes,
        *,
        searches: Searches,
        tell: Callable[[str], None],
    ) -> None:
        self._sweep, self._folder, self._tree, self._tell = sweep, folder, tree, tell
        self._stages = {stage.name: stage for stage in tree.stages}
        self._leads: dict[str, str] = {}  # the trial that names the process, of each other one in a stack
        self._measured, self._decisions, self._searches = measured, searches.decisions, searches
        self._rungs = Rungs(searches.decisions, tell)
        self._processes = processes
        self._devices = {device.name: device for device in processes.devices}
        self._adopted: dict[str, Exit] = {}  # stages that run without one of our processes, and their end
        self._begun_at: dict[str, int] = {}  # steps that were there when a process started
        self._branched: set[str] = set()
        self._given_up: dict[str, str] = dict(measured.problems)
        self._is_stopping = False
        self._given = GivenFiles(path, sweep, tell)
        self._report = Reporter(path, folder.path)

    def run(self) -> Outcome:
        """Run until all trials are finished or given up, or a signal comes."""
        states = self._folder.read(self._sweep.trials)
        if self._sweep.file.resources.stack:
            self._leads = find_leads(self._tree, self._measured, self._processes.devices, states)
        dispatcher = self._dispatcher(states)
        for name, reason in self._measured.problems.items():
            self._tell(f"left out  {name}: {reason}")
        saved = self._tree.steps_alone - self._tree.steps
        work = f"{self._tree.steps:,} steps" + f" in place of {self._tree.steps_alone:,}" * bool(saved)
        done = f"{len(dispatcher.finished):,} finished"
        self._tell(f"{plural(self._count, 'trial')}, {done}; {work}; {self._folder.path}")
        for device in self._devices.values():
            self._act(dispatcher, Joined(device))
        is_told, last_scan = False, time.monotonic()
        while not self._is_over(dispatcher) and not (self._is_stopping and not dispatcher.running):
            for event in self._watch():
                self._act(dispatcher, event)
            if self._is_stopping and not is_told:
                is_told = True
                self._tell(f"stopping  {plural(len(dispatcher.running), 'trial')}, to save first")
            now = time.monotonic()
            if now - last_scan > _SCAN_SECONDS:
                last_scan = now
                for event in self._branches(dispatcher.running):
                    self._act(dispatcher, event)
            self._given.look()
        self._given.look(at_once=True)
        is_stopped = self._is_stopping and not dispatcher.is_over
        self._decisions.leave_out(dispatcher.beyond)
        self._given_up |= dispatcher.beyond
        for name, count in self._searches.left.items() if dispatcher.beyond else ():
            self._given_up[name] = f"not started: budget ({plural(count, 'trial')} not chosen)"
        is_reported = not dispatcher.finished or is_stopped or self._report.finish(self._tell)
        censored = 0 if is_stopped else len(dispatcher.paused)
        finished = len(dispatcher.finished)
        return Outcome(finished, self._count, self._given_up, is_stopped, censored, is_reported)

    def signals(self) -> PassedOn:
        """While entered, a signal is passed on to the processes, which save and stop."""
        return PassedOn(self.stop)

    def stop(self, number: int) -> None:
        """Start nothing more, and pass a signal on to all processes."""
        self._is_stopping = True
        self._processes.signal(number)
        for state in self._folder.read([self._stages[name].planned.trial for name in self._adopted]).values():
            with contextlib.suppress(InputError, KeyError, OSError):
                lease = state.run.lease
                if not state.is_settled and lease["host"] == socket.gethostname():
                    os.kill(int(lease["pid"]), number)

    def _dispatcher(self, states: dict[str, TrialState]) -> Dispatcher:
        planned = [stage.planned for stage in self._tree.stages]
        self._rungs.begin(planned, states)
        self._rungs.take_going()  # they are no longer paused
        jobs = [self._job(stage) for stage in self._tree.stages]
        finished = {name for name, state in states.items() if state.is_finished and name in self._stages}
        self._branched = {name for name, state in states.items() if state.is_settled and name in self._stages}
        self._adopted = {
            name: Exit(name, RESUMABLE)
            for name in self._stages
            if name not in finished and self._is_held(name)
        }
        for name in [name for name, lead in self._leads.items() if lead in self._adopted]:
            self._adopted.pop(name, None)  # they end with the process that the first one names
        paused = {each.trial.name for each in planned if self._rungs.waits(each)} - self._adopted.keys()
        running = dict.fromkeys(self._adopted, self._processes.devices[0].name)
        for name in self._adopted:
            self._tell(f"goes on   {name}, which was started before")
        spent = {name: self._spent(state) for name, state in states.items() if name in self._stages}
        dispatcher = Dispatcher(
            jobs, finished=finished, branched=self._branched, paused=paused - finished, running=running,
            budget=self._sweep.file.budget.seconds, spent=spent,
        )  # fmt: skip
        for action in dispatcher.refuse(self._processes.devices):
            self._give_up(action)
        return dispatcher

    def _job(self, stage: Stage) -> Job:
        group = [stage.name, *self._others(stage.name)]
        cost = sum(self._steps_to_make(each) * self._measured.seconds.get(each, 0.0) for each in group)
        need = sum(self._measured.memory.get(each, 0) for each in group)
        parent = self._leads.get(stage.name, stage.parent)
        return Job(stage.name, parent, stage.planned.trial.priority, cost, need)

    def _steps_to_make(self, name: str) -> int:
        """Steps of a trial until it ends or pauses, in all."""
        stage = self._stages[name]
        return (self._rungs.next_stop(stage.planned) or stage.planned.steps) - stage.fork

    def _spent(self, state: TrialState | None) -> float:
        """Device seconds that a trial has taken, as far as a budget asks for them."""
        return spent_seconds(state.run) if state and self._sweep.file.budget.seconds is not None else 0.0

    def _is_over(self, dispatcher: Dispatcher) -> bool:
        """True if every trial has ended; the best of them is trained again first, chosen once."""
        if not dispatcher.is_over or dispatcher.beyond or self._is_stopping:
            return dispatcher.is_over
        self._rungs.spare({self._stages[name].planned.trial.model for name in dispatcher.finished})
        self._go_on(dispatcher)
        is_due = self._sweep.file.repeats.seeds and self._decisions.best is None
        if dispatcher.is_over and is_due and len(self._sweep.trials) > 1:
            trials = self._sweep.trials
            best = best_of(read_cells(trials, find_runs_of(trials, self._folder.runs)))
            if best is not None:
                again = repeats_of(self._sweep, best.name)
                self._decisions.choose(best.name, [trial.name for trial in again])
                self._tell(
                    f"best      {best.name}; it is trained again with {plural(len(again), 'new seed')}"
                )
                self._add(dispatcher, again)
        return dispatcher.is_over

    @property
    def _count(self) -> int:
        """The number of trials, with those that are still to be chosen."""
        return len(self._sweep.trials) + sum(self._searches.left.values())

    def _search(self, dispatcher: Dispatcher) -> None:
        """Take in what the searches choose now."""
        at_rungs = self._rungs.at_rungs()
        while trials := self._searches.choose(dispatcher.places, self._given_up, at_rungs):
            self._add(dispatcher, trials)

    def _add(self, dispatcher: Dispatcher, trials: Sequence[Trial]) -> None:
        """Take trials in that were decided after the start."""
        self._folder.add(trials)
        measured = measure(replace(self._sweep, trials=tuple(trials)))
        self._sweep = replace(self._sweep, trials=(*self._sweep.trials, *trials))
        self._measured = self._measured.with_more(measured)
        for name, reason in measured.problems.items():
            self._given_up[name] = reason
            self._tell(f"left out  {name}: {reason}")
        stages = [Stage(each) for each in measured.planned if each.trial.name not in measured.problems]
        self._tree = Tree((*self._tree.stages, *stages))
        self._stages |= {stage.name: stage for stage in stages}
        self._act(dispatcher, Added([self._job(stage) for stage in stages]))

    def _go_on(self, dispatcher: Dispatcher) -> set[str]:
        """Take in the trials that go on from rungs now; returns their names."""
        if going := self._rungs.take_going():
            self._act(dispatcher, Added([self._job(self._stages[name]) for name in going]))
        return set(going)

    def _act(self, dispatcher: Dispatcher, event: Event) -> None:
        """Do what follows from an event; while stopping, nothing is started."""
        if self._is_stopping:
            if isinstance(event, Ended):
                dispatcher.running.pop(event.name, None)
                if event.how == "finished":
                    dispatcher.finished.add(event.name)
            return
        if isinstance(event, Ended):
            if event.name in self._go_on(dispatcher):
                event = replace(event, how="stopped", is_ahead=True)
            self._search(dispatcher)  # before its place is free, so that what is chosen may be first there
        for action in dispatcher.decide(event):
            if isinstance(action, Start):
                self._start(action)
            else:
                self._give_up(action)
        if isinstance(event, Ended | Joined):
            self._search(dispatcher)
        if isinstance(event, Ended) and event.how in ("finished", "paused"):
            if event.how == "finished":
                done = len(dispatcher.finished)
                self._tell(f"finished  {event.name}  {event.reason}({done:,} of {self._count:,})")
            self._report.renew()

    def _start(self, action: Start) -> None:
        name, device = action.name, action.device
        state = self._folder.read([self._stages[name].planned.trial]).get(name)
        self._begun_at[name] = state.steps if state else 0
        words = ["sweep", "stage", str(self._folder.recipe(name)), "--runs", str(self._folder.runs)]
        for child in self._tree.children(name):
            words += ["--branch", f"{child.fork}={self._folder.recipe(child.name)}"]
        for other in self._others(name):
            if not self._is_held(other):
                words += ["--with", str(self._folder.recipe(other))]
        planned = self._stages[name].planned
        stop = self._rungs.next_stop(planned)
        words += ["--until", str(stop)] if stop else []
        if self._sweep.file.resources.executor == "local" and name in self._measured.traced:
            words += ["--traced", *map(str, self._measured.traced[name])]
        self._processes.start(name, self._devices[device], words, self._folder.log(name))
        begun = f"from step {self._begun_at[name]:,} " if state else ""
        if words.count("--with"):
            begun = f"and {words.count('--with'):,} on the same base {begun}"
        end = f"to {stop:,} of" if stop else "of"
        self._tell(f"starts    {name} {begun}{end} {planned.steps:,} steps on {device}")

    def _watch(self) -> list[Event]:
        """Events of stages and devices since the last time; a stage that is still held has not ended."""
        found: list[Event] = []
        for event in self._processes.poll(_POLL_SECONDS):
            match event:
                case Exit(name):
                    self._adopted[name] = event
                case Joined(device):
                    self._devices[device.name] = device
                    self._tell(f"joined    {device.name}")
                    found.append(event)
                case Lost(device):
                    self._tell(f"lost      {device}")
                    found.append(event)
        for name in [name for name in self._adopted if not self._is_held(name)]:
            found += self._end_others(name)
            ended = self._end(self._adopted.pop(name))
            state = self._folder.read([self._stages[name].planned.trial]).get(name)
            found.append(replace(ended, seconds=self._spent(state)))
        return found

    def _others(self, lead: str) -> list[str]:
        """The trials that are trained in the process of another one."""
        return [name for name, first in self._leads.items() if first == lead]

    def _end_others(self, lead: str) -> list[Event]:
        """The trials that ended in the process of another one; those that did not begin when that is done."""
        found: list[Event] = []
        states = self._folder.read([self._stages[name].planned.trial for name in self._others(lead)])
        for name, state in states.items():
            if state.is_finished or state.run.state == "failed":
                how = "finished" if state.is_finished else "failed"
                said = state.figure if state.is_finished else self._folder.last_error(lead, name)
                found.append(Ended(name, how, said, seconds=self._spent(state)))
        return found

    def _end(self, exit: Exit) -> Ended:
        """The end of a process, by its exit code and what its run holds."""
        name, code = exit.name, exit.code
        state = self._folder.read([self._stages[name].planned.trial]).get(name)
        if state and state.is_finished:
            return Ended(name, "finished", state.figure)
        if state and self._rungs.arrive(self._stages[name].planned, state):
            return Ended(name, "paused")
        is_ahead = state is not None and state.steps > self._begun_at.get(name, 0)
        if code in (1, 2):
            return Ended(name, "failed", self._folder.last_error(name))
        begins = f"it goes on from step {state.steps if state else 0:,}"
        if code is None:
            self._tell(f"lost      {name}: {exit.reason}; {begins}")
            return Ended(name, "lost", exit.reason, is_ahead)
        if self._is_stopping:
            self._tell(f"stopped   {name}; {begins}")
        if code == RESUMABLE or self._is_stopping:
            return Ended(name, "stopped" if is_ahead or self._is_stopping else "killed", "stopped", is_ahead)
        what = exit.reason or describe_exit(code)
        self._tell(f"broken    {name}: {what}; {begins}")
        return Ended(name, "killed", what, is_ahead)

    def _branches(self, running: Iterable[str]) -> list[Event]:
        """Trials whose first steps another stage has made since the last time."""
        waiting = [
            child.planned.trial
            for name in running
            for child in self._tree.children(name)
            if child.name not in self._branched
        ]
        if not waiting:
            return []
        found = [name for name, state in self._folder.read(waiting).items() if state.is_settled]
        self._branched.update(found)
        return [Branched(name) for name in found]

    def _give_up(self, action: GiveUp) -> None:
        self._given_up[action.name] = action.reason
        log = self._folder.log(action.name)
        self._tell(f"failed    {action.name}: {action.reason}{f'; see {log}' * log.exists()}")

    def _is_held(self, name: str) -> bool:
        return is_stage_held(self._folder.recipe(name))
