"""Runs that can be killed: imports everything once, then forks a process for each run it is asked for on
stdin.

Each line on stdin is JSON: recipe (path), runs, state (a file the test watches), samples (ledger of sample
ids), changes (of the course). Answers the pid, and when the process has ended its status. What the process is inside of, it marks in
the state file: a byte for each of PHASES, 1 while inside; a last byte holds the number, from 1, of the phase
that is aimed at. There it stays a moment, at the beginning or at the end, so that a kill can reach what takes
a millisecond.
"""

import contextlib
import functools
import json
import mmap
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PHASES = ("save", "evaluation", "retention", "report", "step", "end")
_STAY_SECONDS = 0.05


def mark(state: mmap.mmap, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def marked(*values: Any, **named: Any) -> Any:
        number = PHASES.index(phase)
        stay = random.choice(("begin", "end")) if state[len(PHASES)] == number + 1 else ""
        state[number] = 1
        try:
            if stay == "begin":
                time.sleep(_STAY_SECONDS)
            done = function(*values, **named)
            if stay == "end":
                time.sleep(_STAY_SECONDS)
            return done
        finally:
            state[number] = 0

    return marked


def live(request: dict[str, Any]) -> None:
    import etude.run
    import etude.session
    from etude.engine import checkpoint, loop
    from etude.objectives.examiner import Examiner
    from etude.recipe.course import Change
    from etude.recipe.load import load_recipe
    from etude.records import store
    from etude.start import Options

    with Path(request["state"]).open("r+b") as file:
        state = mmap.mmap(file.fileno(), len(PHASES) + 1)
    checkpoint.write_checkpoint = mark(state, "save", checkpoint.write_checkpoint)
    checkpoint.retain = mark(state, "retention", checkpoint.retain)
    Examiner.evaluate = mark(state, "evaluation", Examiner.evaluate)  # type: ignore[method-assign]
    Examiner.compare = mark(state, "evaluation", Examiner.compare)  # type: ignore[method-assign]
    etude.run.write_report = mark(state, "report", etude.run.write_report)
    store.RunWriter.close = mark(state, "end", store.RunWriter.close)  # type: ignore[method-assign]
    loop._update = mark(state, "step", loop._update)
    original = etude.session.train

    def train(training: Any, batches: Iterator[Any], *rest: Any) -> Iterator[Any]:
        def noted() -> Iterator[Any]:
            with Path(request["samples"]).open("a") as ledger:
                for batch in batches:
                    ledger.write(json.dumps([batch.step + 1, batch.ids.tolist()]) + "\n")
                    ledger.flush()
                    yield batch

        return original(training, noted(), *rest)

    etude.session.train = train
    changes = tuple(Change(**change) for change in request["changes"])
    etude.run.run_recipe(load_recipe(request["recipe"]), Options(runs=Path(request["runs"]), changes=changes))


def main() -> None:
    import undrawn  # noqa: F401 - a module beside this program

    import etude.run

    with contextlib.suppress(ImportError):
        import etude.report.write  # noqa: F401
    for line in sys.stdin:
        if (pid := os.fork()) == 0:
            code = 1
            try:
                sys.stdin.close()
                os.environ["ETUDE_CACHE"] = json.loads(line)["cache"]
                live(json.loads(line))
                code = 0
            except BaseException as error:
                print(repr(error), file=sys.stderr)
            finally:
                os._exit(code)
        print(pid, flush=True)
        print(os.waitpid(pid, 0)[1], flush=True)


if __name__ == "__main__":
    main()
