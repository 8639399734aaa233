"""The commands that make a recipe, check it and train it."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli.completion import complete_checkpoint, complete_run
from etude.cli.detached import Detach, detach
from etude.cli.execute import describe_rest, start_ranks, tell_finished, train_here
from etude.cli.options import (
    Guarded,
    Json,
    JsonLines,
    New,
    Overrides,
    RecipePath,
    Restarts,
    Runs,
    load,
    parse_name,
    parse_output,
    parse_path,
)
from etude.cli.printing import print_json, print_rows, say
from etude.control.ranks import began_torchrun, read_place
from etude.errors import InputError
from etude.text import plural

if TYPE_CHECKING:
    from etude.recipe.schema import Recipe
    from etude.records.store import Run
    from etude.start import Options

Replayed = Annotated[
    str | None,
    typer.Option(
        "--replay",
        parser=parse_name,
        metavar="RUN",
        autocompletion=complete_run,
        help="make this run again, with the changes that were made while it went on",
    ),
]


def train(
    recipe: RecipePath,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    new: New = False,
    weights: Annotated[
        str | None,
        typer.Option(
            "--from",
            parser=parse_name,
            metavar="RUN|FOLDER",
            help="first weights: RUN@best or a folder",
            autocompletion=complete_checkpoint,
        ),
    ] = None,
    devices: Annotated[
        int | None, typer.Option("--devices", min=1, help="processes to start, one a device")
    ] = None,
    repeat: Annotated[
        int | None, typer.Option("--repeat", min=2, help="number of seeds to train, one after another")
    ] = None,
    replayed: Replayed = None,
    detached: Detach = False,
    guard: Guarded = False,
    restarts: Restarts = 0,
    as_json: JsonLines = False,
) -> None:
    """Train as a recipe says, or continue the unfinished run of it; a finished one is only shown."""
    from etude.recipe.load import read_recipe_text

    loaded = load(recipe, overrides, devices)
    new = new and not _is_begun(loaded, runs)
    if replayed is not None and repeat is not None:
        raise InputError("--replay is for one run; leave it out, or leave out --repeat")
    if repeat is None:
        if not (new or replayed) and tell_finished(loaded, runs, weights, as_json=as_json):
            return
        if detached:
            detach(runs)
        start_ranks(loaded)
    elif detached:
        raise InputError("--detach is for one run; leave it out, or leave out --repeat")
    from etude.start import Options

    options = Options(
        runs=runs, new=new, weights=weights, recipe_text=read_recipe_text(recipe),
        guard=restarts if guard or restarts else None,
    )  # fmt: skip
    if replayed is not None:
        loaded, options = _replay(loaded, replayed, options)
    if repeat is None:
        train_here(loaded, options, as_json=as_json)
    else:
        from etude.cli.repeat import train_repeatedly

        words = ["train", str(recipe), *(overrides or []), *(["--json"] if as_json else [])]
        train_repeatedly(loaded, options, repeat, words, as_json=as_json)


def _is_begun(recipe: "Recipe", runs: Path) -> bool:
    """True if this torchrun has begun a run of the recipe: it starts failed ranks again with --new, too."""
    from datetime import UTC, datetime

    from etude.records.store import find_runs

    began = began_torchrun()
    if began is None:
        return False
    moment = datetime.fromtimestamp(began, UTC).isoformat(timespec="microseconds")
    return any(run.info["created"] > moment for run in find_runs(runs, recipe))


def _replay(recipe: "Recipe", name: str, options: "Options") -> tuple["Recipe", "Options"]:
    """The recipe and the options that make a run again; its name is said."""
    from etude.records.store import open_run
    from etude.replay import replay

    run = open_run(name, options.runs)
    recipe, options = replay(recipe, run, options)
    if read_place().rank == 0:
        say(f"makes {run.name} again, with the {plural(len(options.changes), 'change')} made to it")
    return recipe, options


def resume(
    run: Annotated[
        str,
        typer.Argument(
            parser=parse_name,
            help="a run: folder, id, start of an id, or recipe name; or its mirror",
            metavar="RUN|MIRROR",
            autocompletion=complete_run,
        ),
    ],
    runs: Runs = Path("runs"),
    guard: Guarded = False,
    restarts: Restarts = 0,
    detached: Detach = False,
    as_json: JsonLines = False,
) -> None:
    """Continue a run that was paused, stopped or killed, or make it again from its mirror and continue it."""
    from etude.cli import steer
    from etude.control.restore import is_mirror
    from etude.records.folder import as_argument
    from etude.records.store import open_run

    is_copied = is_mirror(run)
    found = _open_copied(run, runs) if is_copied else open_run(run, runs)
    if read_place().size == 1 and steer.resume(found, as_json=as_json):
        return
    if not found.is_unfinished:
        advice = f"start another with etude train, see etude show {as_argument(found.path)}"
        raise InputError(f"run {found.name} is finished; {advice}")
    found.require_own_recipe()
    recipe = found.recipe
    if is_copied:
        life = recipe.run.model_copy(update={"mirror": _mirror_of(run, found)})
        recipe = recipe.model_copy(update={"run": life})
    if detached:
        detach(found.path.parent)
    start_ranks(recipe)
    if read_place().rank == 0 and (left := describe_rest(found)):
        say(left)
    from etude.start import Options

    guarded = restarts if guard or restarts else None
    train_here(recipe, Options(runs=found.path.parent, resume=found, guard=guarded), as_json=as_json)


def _open_copied(mirror: str, runs: Path) -> "Run":
    """The run of a mirror, made again unless its folder is here; what was wrong with newer copies is said."""
    from etude.control.restore import find_copied, restore

    if found := find_copied(mirror, runs):
        if read_place().folder is None:
            say(f"{found.path} is here, and goes on as it is; the copies in {mirror} are left alone")
        return found
    found, problems = restore(mirror, runs)
    for problem in problems:
        say(f"a newer copy is left out: {problem}")
    say(f"{found.path} was made again from {mirror}")
    return found


def _mirror_of(given: str, run: "Run") -> str:
    """The mirror whose folder of this run, or which itself, was given."""
    from etude.recipe.section import is_address

    if is_address(given):
        return given.rstrip("/").removesuffix(f"/{run.name}")
    path = Path(given).resolve()
    return str(path.parent if path.name == run.name else path)


def demo(
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    new: New = False,
) -> None:
    """Train a small model of Python code on this Python's standard library, in minutes."""
    from etude.cli.demo import print_outcome
    from etude.cli.recipes import shipped_recipe
    from etude.recipe.load import read_recipe_text

    path = shipped_recipe("demo")
    recipe = load(path, overrides, None)
    if not new and tell_finished(recipe, runs):
        return
    from etude.start import Options

    ended = train_here(recipe, Options(runs=runs, new=new, recipe_text=read_recipe_text(path)))
    assert ended.run is not None
    print_outcome(ended.run)


def check(
    recipe: RecipePath,
    overrides: Overrides = None,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep", help="also read data and model, test them, and forecast time, memory and disk"
        ),
    ] = False,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Find every problem of a recipe before anything runs."""
    from etude.recipe.rates import advise_rate
    from etude.recipe.settings import describe_idle, shown_settings
    from etude.recipe.toml import toml_text

    loaded = load(recipe, overrides, None)
    if not deep:
        rows = [(key, toml_text(value)) for key, value in shown_settings(loaded).items()]
        print_rows(rows, loaded.to_dict(), as_json)
        for said in (*filter(None, [advise_rate(loaded)]), *describe_idle(loaded)):
            say(f"warning: {said}")
        if published := _describe_published(loaded):
            say(published)
        say(f"{recipe} is a valid recipe; --deep also looks at data and device")
        return
    from etude.data.prepared import check_whole as check_sources
    from etude.estimate import Estimate
    from etude.models.weights import check_whole as check_weights
    from etude.notify.channel import open_channels
    from etude.plan import make_plan
    from etude.plan.disk import require_disk
    from etude.plan.forecast import forecast
    from etude.plan.room import make_room
    from etude.probe import probe
    from etude.records.trackers import require_trackers

    require_trackers(loaded)
    open_channels(loaded.notify)
    plan = make_plan(loaded)
    for task in plan.tasks:
        check_sources(task.recipe, task.corpus)
    if plan.pretrained is not None:
        check_weights(plan.pretrained.path)
    probed = probe(plan)
    tests = probed.audit
    if probed.costs is not None:
        require_disk(plan, forecast(plan, probed.costs), runs)
    room, _ = make_room(plan, None)
    made = Estimate(plan=plan, costs=probed.costs, basis=probed.basis, assumed=[], room=room)
    values = {**made.values(), "audit": tests and asdict(tests)}
    rows = [*made.rows(), ("tests", "not made" if tests is None else str(tests))]
    print_rows([*rows, *(tests.rows() if tests else [])], values, as_json)


def init(
    data: Annotated[
        Path, typer.Option("--data", parser=parse_path, metavar="PATH", help="a file of rows, or a folder")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            parser=parse_name,
            metavar="FOLDER|ID|RUN",
            help="the model to train on: a folder, a hub id, or RUN (its best), RUN@last, RUN@step-200",
            autocompletion=complete_checkpoint,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", parser=parse_output, metavar="PATH", help="the recipe to write")
    ] = Path("recipe.toml"),
    validation: Annotated[
        Path | None,
        typer.Option(
            "--validation",
            parser=parse_path,
            metavar="PATH",
            help="rows to hold out (default: some of the data)",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            "--label", metavar="FIELD", help="the field of the label, or of a list of labels: classification"
        ),
    ] = None,
    pair: Annotated[
        str | None,
        typer.Option("--pair", metavar="FIELD", help="the field of a second text, classified with the first"),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="FIELD", help="the field of the text to write: seq2seq")
    ] = None,
    field: Annotated[
        str | None, typer.Option("--field", "--source", metavar="FIELD", help="the field of the text to read")
    ] = None,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Write a recipe for fine-tuning, after a look at the data, the model and this machine."""
    from etude.cli.init import find_base, write_recipe

    if model is None:
        scratch = "for a model from scratch, etude recipes copy demo writes a recipe to begin with"
        raise InputError(f"--model is missing; give the model to train on, as --model MODEL; {scratch}")
    fields = {"field": field, "pair": pair, "target": target, "label": label}
    given = {key: name for key, name in fields.items() if name is not None}
    written = write_recipe(data, find_base(model, out, runs), out, validation, given)
    print_rows(written.rows, written.values, as_json)


def schema() -> None:
    """Print the JSON Schema of a recipe, for editors."""
    from etude.recipe.json_schema import json_schema

    print_json(json_schema())


def _describe_published(recipe: "Recipe") -> str | None:
    """The trainable share of a published model, known without its files."""
    from etude.models.catalogue import STORIES
    from etude.models.cost import trainable_line

    story = STORIES.get(recipe.model.from_ or "")
    if story is None:
        return None
    adapter = story.count_lora(recipe.adapter.rank, recipe.adapter.targets) if recipe.adapter else 0
    return f"{recipe.model.from_}: {trainable_line(adapter or story.total, story.total + adapter)}"
