"""A sweep of 100,000 trials on 1,000 workers that fail at random, in virtual time: decisions and memory.

    python benchmarks/sweep_scale.py [--trials N] [--workers N]

Workers die and come back, stages are killed, some fail for good, and the controller is killed and made again
from what the stages left: what it decides is all that is real.
"""

import argparse
import gc
import heapq
import random
import resource
import time
from dataclasses import dataclass, field

from etude.sweep.dispatch import (
    Action,
    Branched,
    Device,
    Dispatcher,
    Ended,
    Event,
    GiveUp,
    Job,
    Joined,
    Lost,
    Start,
)


@dataclass
class World:
    """Workers and stages in virtual time. `saved`: seconds of work of a trial that a kill does not cost."""

    jobs: dict[str, Job]
    draw: random.Random
    kill_ratio: float = 0.1
    fail_ratio: float = 0.01
    now: float = 0.0
    queue: list[tuple[float, int, str, str, int]] = field(default_factory=list)
    saved: dict[str, float] = field(default_factory=dict)
    epoch: dict[str, int] = field(default_factory=dict)
    made: float = 0.0
    ended: dict[str, str] = field(default_factory=dict)
    branched: set[str] = field(default_factory=set)
    starts: int = 0

    def start(self, action: Start, children: dict[str, list[str]]) -> None:
        """Begin a stage: it will finish, be killed or fail, and let its children go on half way."""
        job, self.starts = self.jobs[action.name], self.starts + 1
        assert action.name not in self.ended, f"{action.name} is done again"
        left = job.seconds - self.saved.get(job.name, 0.0)
        self.epoch[job.name] = self.epoch.get(job.name, 0) + 1
        chance = self.draw.random()
        how = "killed" if chance < self.kill_ratio else "finished"
        if chance > 1 - self.fail_ratio:
            how = "failed"
        took = left * (self.draw.random() if how == "killed" else 1.0)
        if how != "failed" and took >= left / 2:
            for child in children.get(job.name, ()):
                if child not in self.branched:
                    self.branched.add(child)
                    self.push(left / 2, "branched", child, 0)
        self.push(took, how, job.name, self.epoch[job.name])

    def push(self, seconds: float, what: str, name: str, epoch: int) -> None:
        heapq.heappush(self.queue, (self.now + seconds, self.starts, what, name, epoch))


def simulate(
    trials: int, workers: int, seed: int, *, restarts: int = 0
) -> tuple[World, Dispatcher, list[float]]:
    """Run a sweep to its end; returns its world, its dispatcher and the seconds of each decision."""
    draw = random.Random(seed)
    jobs = make_jobs(trials, draw)
    children: dict[str, list[str]] = {}
    for job in jobs:
        children.setdefault(job.parent or "", []).append(job.name)
    world, dispatcher, took = World({job.name: job for job in jobs}, draw), Dispatcher(jobs), list[float]()
    devices = [Device(f"worker-{number}", 2, 16_000_000_000) for number in range(workers)]
    restart_at = {(number + 1) * trials // (restarts + 1) for number in range(restarts)}

    def decide(event: Event) -> None:
        started = time.thread_time()
        actions: list[Action] = dispatcher.decide(event)
        took.append(time.thread_time() - started)
        for action in actions:
            if isinstance(action, Start):
                world.start(action, children)
            elif isinstance(action, GiveUp):
                world.ended[action.name] = "given up"

    gc.freeze()  # what was made until here is kept, so that no collection of garbage is timed
    for device in devices:
        decide(Joined(device))
    for device in devices[: workers // 10]:
        world.push(draw.expovariate(1 / 2000), "lost", device.name, 0)
    by_name = {device.name: device for device in devices}
    away: set[str] = set()
    while not dispatcher.is_over:
        world.now, _, what, name, epoch = heapq.heappop(world.queue)
        if what == "lost":
            there = [running for running, where in dispatcher.running.items() if where == name]
            away.add(name)
            decide(Lost(name))
            for running in there:
                world.epoch[running] += 1
                decide(Ended(running, "lost", "by lot", is_ahead=draw.random() < 0.8))
            world.push(draw.expovariate(1 / 100), "joined", name, 0)
        elif what == "joined":
            away.discard(name)
            decide(Joined(by_name[name]))
            world.push(draw.expovariate(1 / 2000), "lost", name, 0)
        elif what == "branched":
            decide(Branched(name))
        elif world.epoch[name] == epoch:
            if what == "finished":
                world.ended[name] = what
                world.made += world.jobs[name].seconds
            decide(Ended(name, what, "by lot", is_ahead=draw.random() < 0.8))
            if len(world.ended) in restart_at:
                restart_at.discard(len(world.ended))
                finished = {job for job, how in world.ended.items() if how == "finished"}
                dispatcher = Dispatcher(
                    jobs, finished=finished, branched=world.branched, running=dispatcher.running
                )
                world.ended = dict.fromkeys(finished, "finished")  # what failed is tried again
                for device in devices:
                    if device.name not in away:
                        decide(Joined(device))
    return world, dispatcher, took


def make_jobs(trials: int, draw: random.Random) -> list[Job]:
    """Pairs of trials: every second one goes on from the one before it."""
    jobs: list[Job] = []
    for number in range(trials):
        parent = jobs[-1].name if number % 2 else None
        size = draw.choice([0, 2, 4, 8]) * 1_000_000_000
        jobs.append(Job(f"trial-{number}", parent, draw.randint(0, 2), draw.uniform(10, 1000), size))
    return jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--restarts", type=int, default=3)
    options = parser.parse_args()
    from measure import write_result  # which the test of `simulate` does without

    world, dispatcher, took = simulate(options.trials, options.workers, 17, restarts=options.restarts)
    took.sort()
    figures = {
        "trials": options.trials, "workers": options.workers, "restarts": options.restarts,
        "finished": len(dispatcher.finished), "given_up": len(dispatcher.given_up), "starts": world.starts,
        "decisions": len(took), "virtual_hours": round(world.now / 3600, 2),
        "cpu_ms_mean": round(1e3 * sum(took) / len(took), 4),
        "cpu_ms_999_of_1000": round(1e3 * took[int(0.999 * len(took))], 4),
        "cpu_ms_most": round(1e3 * took[-1], 3),
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }  # fmt: skip
    claim = "a decision of the controller of a sweep takes under 1 ms, and all trials end"
    write_result("sweep_scale", claim, figures, [["figure", "value"], *map(list, figures.items())])


if __name__ == "__main__":
    main()
