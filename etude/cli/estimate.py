"""`etude estimate`: size, time, memory and price of a run before it begins, and how such forecasts fared."""

import itertools
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli.completion import complete_gpu, complete_run
from etude.cli.options import Json, Overrides, Runs, load, parse_name, parse_path
from etude.cli.printing import print_json, print_rows, print_table, print_text, say
from etude.errors import InputError
from etude.memory import without_collection
from etude.text import rough_price, shorten

if TYPE_CHECKING:
    from etude.estimate import Estimate
    from etude.gpus import Gpu
    from etude.links import Cluster
    from etude.report.grades import Correction

_UNITS = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_NAMES_WIDTH = 400  # of the runs that are left out for one reason
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]i?b)", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes of a size as `40GB` or `24 GiB`. Raises: InputError."""
    found = _SIZE.fullmatch(text.strip())
    size = float(found[1]) * _UNITS[found[2].lower()] if found else 0.0
    if not 1e6 <= size <= 1e16:
        raise InputError(
            f"--memory is {text[:40]!r}; expected a number and a unit, as 40GB or 24GiB, from 1MB to 10000TB"
        )
    return int(size)


RecipeOrRuns = Annotated[
    Path | None,
    typer.Argument(
        parser=parse_path, help="a recipe file; with --history a folder of runs", metavar="[RECIPE]"
    ),
]
GpuName = Annotated[
    str | None,
    typer.Option(
        "--gpu", metavar="NAME", help="take the published rate of a GPU, as h100", autocompletion=complete_gpu
    ),
]
Memory = Annotated[
    int | None,
    typer.Option("--memory", parser=parse_size, metavar="SIZE", help="memory of a device, as 40GB"),
]
Price = Annotated[
    float | None, typer.Option("--price-per-hour", metavar="X", help="price of a device and hour")
]
Rows = Annotated[
    int | None,
    typer.Option(
        "--rows", min=1, max=2**40, help="training rows: of data that are not here, or of a run projected"
    ),
]
Claimed = Annotated[
    float | None,
    typer.Option("--tokens-per-second", metavar="X", help="take this rate, if the device can reach it"),
]
Devices = Annotated[
    int | None, typer.Option("--devices", min=1, max=4096, help="ranks of the run, each on a GPU of its own")
]
PerMachine = Annotated[
    int | None, typer.Option("--per-machine", min=1, max=72, help="GPUs of a machine; with --gpu (default 8)")
]
Network = Annotated[
    float | None,
    typer.Option("--network", metavar="GBITS", help="link of a GPU to other machines, in Gb/s (default 400)"),
]
Quick = Annotated[bool, typer.Option("--quick", help="try no steps; arithmetic only")]
Source = Annotated[
    str | None,
    typer.Option(
        "--from",
        parser=parse_name,
        metavar="RUN",
        help="project the pace of a run",
        autocompletion=complete_run,
    ),
]
Steps = Annotated[int | None, typer.Option("--steps", min=1, max=2**40, help="steps of the run projected")]
OfRuns = Annotated[
    bool, typer.Option("--history", help="forecasts of the runs in RECIPE or --runs beside what they took")
]


def estimate(
    recipe: RecipeOrRuns = None,
    overrides: Overrides = None,
    memory: Memory = None,
    gpu: GpuName = None,
    price: Price = None,
    devices: Devices = None,
    per_machine: PerMachine = None,
    network: Network = None,
    rows: Rows = None,
    claimed: Claimed = None,
    quick: Quick = False,
    source: Source = None,
    steps: Steps = None,
    history: OfRuns = False,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Tell how large a run is, how long it takes, what it costs and whether it fits, before it begins."""
    limits = (("--price-per-hour", price, 1e-6, 1e9), ("--tokens-per-second", claimed, 1e-3, 1e15))
    for name, value, least, most in limits:
        if value is not None and not least <= value < most:
            raise InputError(f"{name} is {value:g}; expected a number from {least:g} to below {most:g}")
    given = {
        "--gpu": gpu, "--memory": memory, "--tokens-per-second": claimed, "--quick": quick or None,
        "--devices": devices, "--per-machine": per_machine, "--network": network,
    }  # fmt: skip
    if history:
        _refuse("--history", {**given, "--price-per-hour": price, "--rows": rows, "--steps": steps})
        return _show_history(recipe or runs, as_json)
    if source is not None:
        if recipe is not None:
            raise InputError("--from projects a run and takes no recipe; leave one out")
        _refuse("--from", given)
        return _project(source, runs, rows, steps, price, as_json)
    if recipe is None:
        raise InputError("RECIPE is missing; give a recipe, or --from RUN, or --history")
    if steps is not None:
        raise InputError("--steps is for a run (--from RUN); of a recipe set train.steps=N")
    from etude.data.listing import require_rows

    loaded = load(recipe, overrides, devices)
    if gpu is None and per_machine is None and network is None:  # which are judged first
        require_rows(loaded, rows)  # before torch is loaded, which takes seconds
    with without_collection():  # a tenth of the time, which is half of that of a GPU elsewhere
        from etude.estimate import estimate as make
        from etude.gpus import find_gpu

    found = None if gpu is None else find_gpu(gpu)
    cluster = _choose_cluster(found, per_machine, network)
    made = make(
        loaded, gpu=found, cluster=cluster, rows=rows, price=price, tokens_per_second=claimed, is_quick=quick,
        memory=memory, tell=say if sys.stderr.isatty() else lambda line: None,
    )  # fmt: skip
    made = made.corrected(_find_correction(runs, made)) if made.is_of_here else made
    print_rows(made.rows(), made.values(), as_json)
    if made.room is not None and made.room.is_hopeless:
        raise typer.Exit(1)


def _choose_cluster(gpu: "Gpu | None", per_machine: int | None, network: float | None) -> "Cluster | None":
    """The machines of a GPU. Raises: InputError without a GPU, or for a link that nobody sells."""
    from etude.links import INFINIBAND, MOST_GBITS, Cluster, Link

    if gpu is None:
        if per_machine is not None or network is not None:
            raise InputError("--per-machine and --network are for machines with GPUs; give --gpu h100, too")
        return None
    if network is None:
        return Cluster(gpu.link, INFINIBAND, per_machine or 8)
    if not 0.1 <= network <= MOST_GBITS:
        raise InputError(
            f"--network is {network:g} Gb/s of a GPU; expected 0.1 to {MOST_GBITS:g} (InfiniBand XDR)"
        )
    return Cluster(gpu.link, Link("a network of", network / 8 * 1e9, "as given"), per_machine or 8)


def _refuse(mode: str, given: Mapping[str, object]) -> None:
    """Refuse options that a mode would not heed. Raises: InputError."""
    if unheeded := [name for name, value in given.items() if value is not None]:
        raise InputError(
            f"{mode} does not take {' or '.join(unheeded)}; leave it out, or give a recipe instead"
        )


def _find_correction(runs: Path, made: "Estimate") -> "Correction | None":
    from etude.records.environment import describe_machine
    from etude.report.grades import conditions, correction_of, grade_runs

    like = conditions(describe_machine(), made.plan.device.type, made.plan.recipe.train.objective)
    kind = "after" if made.costs and made.costs.tried else "before"
    return correction_of(grade_runs(runs)[0], like, kind) if runs.is_dir() else None


def _show_history(folder: Path, as_json: bool) -> None:
    from etude.report.grades import grade_runs, grade_table

    if not folder.is_dir():
        raise InputError(f"{folder} is no folder of runs; give one, as etude estimate --history runs")
    grades, problems = grade_runs(folder)
    for problem, names in itertools.groupby(sorted(problems, key=problems.__getitem__), problems.get):
        say(f"left out, as {problem}: {shorten(', '.join(sorted(names)), _NAMES_WIDTH)}")
    if as_json:
        return print_json([asdict(grade) for grade in grades])
    if not grades:
        return print_text(f"no run in {folder} finished in one attempt with a forecast")
    print_table(grade_table(grades))


def _project(
    source: str, runs: Path, rows: int | None, steps: int | None, price: float | None, as_json: bool
) -> None:
    from etude.records.store import open_run
    from etude.report.history import read_history
    from etude.report.projection import project

    history = read_history(open_run(source, runs))
    projected = project(history, rows=rows, steps=steps)
    shown, values = list(projected.table()), projected.values()
    if price is not None:
        each = price * history.run.recipe.train.devices / 3600
        low, high = projected.interval
        shown.append(("cost", rough_price(each * projected.seconds, (each * low, each * high), price)))
        values["cost"] = each * projected.seconds
    print_rows(shown, values, as_json)
