"""`etude`: parses, calls, prints. Results go to stdout, progress and errors to stderr."""

import os
import signal
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from etude import __version__
from etude.cli.printing import (
    is_reader_gone,
    lasting_output,
    print_json,
    print_rows,
    print_table,
    print_text,
    ready_streams,
    say,
)
from etude.cli.train import start_ranks, train_here
from etude.control.ranks import FOLDER, follow_launcher, read_place
from etude.control.signals import one_interrupt
from etude.durable import check_name, write_file
from etude.errors import EtudeError, InputError, LostRankError
from etude.text import printable, shorten

if TYPE_CHECKING:
    from etude.recipe.schema import Recipe
    from etude.records.store import Run

app = typer.Typer(
    help="Train code language models: one recipe, one run, a record anybody can check.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class DataGroup(TyperGroup):
    """`etude data RECIPE` is the page of `etude data page RECIPE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        is_page = bool(args) and not args[0].startswith("-") and args[0] not in self.commands
        return super().parse_args(ctx, ["page", *args] if is_page else args)


data_app = typer.Typer(help="Look at the data of a recipe.", no_args_is_help=True, cls=DataGroup)
app.add_typer(data_app, name="data")


_LONGEST_MADE = 200  # bytes: a hidden name beside it, with a process number, has to fit too


def _path(text: str) -> Path:
    """A path of the command line. Raises: InputError if no file can have that name."""
    check_name(text)
    return Path(text)


def _folder(text: str) -> Path:
    """A folder that is there or can be made. Raises: InputError."""
    if (path := _path(text)).exists() and not path.is_dir():
        raise InputError(f"{path} is not a folder; give another")
    return path


def _output(text: str) -> Path:
    """A path to write, which lies in no run folder. Raises: InputError."""
    from etude.records.folder import require_outside_runs

    path = _path(text)
    if len(os.fsencode(path.name)) > _LONGEST_MADE:
        raise InputError(f"{path} is a longer name than can be written; give a shorter one")
    require_outside_runs(path)
    return path


def _output_folder(text: str) -> Path:
    """A folder to write into, which lies in no run folder. Raises: InputError."""
    _folder(text)
    return _output(text)


def _new_file(text: str) -> Path:
    """A file to write into a folder that is there. Raises: InputError."""
    _output(text)
    if (path := _path(text)).is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"{path} is a folder, or lies in none; give a file in a folder that is there")
    return path


def _name(text: str) -> str:
    """The name or path of a run or model. Raises: InputError if it can be neither."""
    check_name(text)
    return text


RecipePath = Annotated[
    Path, typer.Argument(parser=_path, help="a recipe file", metavar="RECIPE", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="changes such as optim.learning_rate=2e-4", metavar="[KEY=VALUE]..."),
]
RunName = Annotated[
    str, typer.Argument(parser=_name, help="a run: folder, id, start of an id, or recipe name", metavar="RUN")
]
Runs = Annotated[
    Path, typer.Option("--runs", parser=_folder, metavar="PATH", help="folder that holds the runs")
]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Speaking = Annotated[
    str,
    typer.Argument(
        parser=_name, help="RUN (its best), RUN@last, RUN@step-200, or a folder", metavar="RUN|FOLDER"
    ),
]
MaxTokens = Annotated[int, typer.Option("--max-tokens", help="tokens of each answer at most")]
Temperature = Annotated[float, typer.Option("--temperature", help="0 takes the likeliest token")]
TopK = Annotated[int | None, typer.Option("--top-k", help="draw among this many tokens")]
TopP = Annotated[float | None, typer.Option("--top-p", help="draw among the likeliest of this mass")]
Seed = Annotated[int, typer.Option("--seed", help="of the draws")]
Devices = Annotated[int | None, typer.Option("--devices", min=1, help="ranks to start")]


class NoteSection(StrEnum):
    """Headings of the report that a person fills."""

    lessons = "lessons"
    next = "next"
    problem = "problem"


# The error of click for a command line that it cannot read; newer versions of typer hold a click of their
# own.
_UsageError: Any = typer.BadParameter.__base__
_MOST_PROBLEMS = 20


def main() -> None:
    """Run a command; errors for the user are one line each, without a traceback, which only a fault of etude
    has.
    """
    # Threads that wait by spinning stop each other when something else wants a core: with one busy neighbour
    # on two cores a step took 5.1 s instead of 0.38. Alone, waiting this short costs up to 9 % (dev/LOG.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # transformers quotes what a config.json says, whole; etude says itself what matters.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
    with lasting_output() as output, one_interrupt() as interrupts:
        try:
            code = _run()
        except Exception:
            if not interrupts:  # else it came of it, as from an import that was broken off
                say(traceback.format_exc().rstrip())
            code = 1
        if (interrupts and code) or code == 128 + signal.SIGINT:
            say("stopped at once; the same command continues from the last checkpoint")
            code = 128 + signal.SIGINT
        output.flush()
        # A run is worth more than what it prints; of other commands the output is all.
        if output.error and not code and sys.argv[1:2] not in (["train"], ["resume"], ["demo"]):
            if not is_reader_gone(output.error):
                say(f"error: the output cannot be written: {output.error.strerror}")
            code = 128 + signal.SIGPIPE if is_reader_gone(output.error) else 1
    if code == 128 + signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the rest of a burst, while Python ends
    if code:
        sys.exit(code)


def _run() -> int:
    ready_streams()
    try:
        follow_launcher()
        return app(standalone_mode=False) or 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except EtudeError as error:
        _tell(error)
        return error.exit_code
    except _UsageError as error:
        _say_usage(error)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 128 + signal.SIGINT


@app.command()
def train(
    recipe: RecipePath,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    new: Annotated[bool, typer.Option("--new", help="start a run even if one is unfinished")] = False,
    weights: Annotated[
        str | None,
        typer.Option("--from", parser=_name, metavar="TEXT", help="first weights: RUN@best or a folder"),
    ] = None,
    devices: Devices = None,
    repeat: Annotated[
        int | None, typer.Option("--repeat", min=2, help="train so many seeds, one after another")
    ] = None,
) -> None:
    """Train as a recipe says; continues an unfinished run of the same recipe."""
    from etude.recipe.load import read_recipe_text

    loaded = _load(recipe, overrides, devices)
    if repeat is None and loaded.train.devices > 1 and read_place().size == 1:
        start_ranks(loaded.train.devices)
    from etude.start import Options

    options = Options(runs=runs, new=new, weights=weights, recipe_text=read_recipe_text(recipe))
    if repeat is None:
        train_here(loaded, options)
    else:
        from etude.cli.repeat import train_repeatedly

        train_repeatedly(loaded, options, repeat, ["train", str(recipe), *(overrides or [])])


@app.command()
def resume(run: RunName, runs: Runs = Path("runs")) -> None:
    """Continue a run that was stopped or killed."""
    from etude.records.store import open_run

    found = open_run(run, runs)
    if not found.is_unfinished:
        raise InputError(
            f"run {found.name} is finished; start another with etude train, see etude show {found.name}"
        )
    found.require_own_recipe()
    recipe = found.recipe
    if recipe.train.devices > 1 and read_place().size == 1:
        start_ranks(recipe.train.devices)
    from etude.start import Options

    train_here(recipe, Options(runs=found.path.parent, resume=found))


@app.command()
def check(
    recipe: RecipePath,
    overrides: Overrides = None,
    deep: Annotated[bool, typer.Option("--deep", help="also with data, device and parameters")] = False,
    as_json: Json = False,
) -> None:
    """Find every problem of a recipe before anything runs."""
    from etude.recipe.load import flatten

    loaded = _load(recipe, overrides, None)
    if not deep:
        print_rows(
            [(key, str(value)) for key, value in flatten(loaded.to_dict()).items()], loaded.to_dict(), as_json
        )
        if published := _describe_published(loaded):
            say(published)
        say(f"{recipe} is a valid recipe; --deep also looks at data and device")
        return
    from etude.data.prepared import check_whole as check_sources
    from etude.models.weights import check_whole as check_weights
    from etude.plan import make_plan
    from etude.plan.rows import plan_rows
    from etude.records.trackers import require_trackers

    require_trackers(loaded)
    plan = make_plan(loaded)
    for task in plan.tasks:
        check_sources(task.recipe, task.corpus)
    if plan.pretrained is not None:
        check_weights(plan.pretrained.path)
    rows = plan_rows(plan)
    print_rows(rows, {**dict(rows), "parameters": plan.parameters, "steps": plan.steps}, as_json)


@app.command()
def prepare(
    recipe: RecipePath,
    overrides: Overrides = None,
    again: Annotated[bool, typer.Option("--again", help="also if it is prepared already")] = False,
    as_json: Json = False,
) -> None:
    """Tokenise the data of a recipe into the cache that runs share."""
    from etude.cli.data import open_corpus
    from etude.recipe.load import flatten

    parts = _load(recipe, overrides, None).by_task()
    summaries = {task: open_corpus(part, again=again).summary for task, part in parts.items()}
    summary = summaries.get("", summaries)
    print_rows([(key, str(value)) for key, value in flatten(summary).items()], summary, as_json)


@data_app.command("page")
def data_page(
    recipe: RecipePath,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", parser=_new_file, metavar="PATH", help="where to write it (default: NAME-data.md)"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Look for duplicates, leaks and what cleaning finds; print it and write it down."""
    from etude.cli.data import make_page, page_text, print_page
    from etude.errors import RecipeError
    from etude.records.folder import require_outside_runs

    loaded = _load(recipe, overrides, None)
    made = {task: make_page(part) for task, part in loaded.by_task().items()}
    text = "\n".join(page_text(loaded, task, *each) for task, each in made.items())
    pages = {task: page for task, (page, _) in made.items()}
    path = out or Path(f"{loaded.name}-data.md")
    require_outside_runs(path)
    write_file(path, text.encode())
    if as_json:
        print_json(pages.get("", pages))
    else:
        for task, each in made.items():
            print_page(loaded, task, *each)
    say(f"written to {path}")
    if problems := [
        f"task {task}: {why}" if task else str(why) for task, (_, why) in made.items() if why is not None
    ]:
        raise RecipeError(problems)


@data_app.command("show")
def show_data(
    recipe: RecipePath,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="how many")] = 3,
    as_json: Json = False,
) -> None:
    """Show samples as they are trained on, and which of their tokens are scored."""
    from etude.cli.data import print_samples, show_notes, show_samples

    loaded = _load(recipe, overrides, None)
    print_samples(show_samples(loaded, rows), as_json=as_json)
    for note in show_notes(loaded):
        say(f"note: {note}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a recipe, for editors."""
    from etude.recipe.schema import Recipe

    print_json(Recipe.model_json_schema(by_alias=True))


@app.command()
def demo(
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    new: Annotated[bool, typer.Option("--new", help="start a run even if one is unfinished")] = False,
) -> None:
    """Train a small model of Python code on this Python's standard library, in minutes."""
    from etude.cli.demo import print_outcome, shipped_recipe
    from etude.recipe.load import read_recipe_text

    path = shipped_recipe("demo")
    from etude.start import Options

    ended = train_here(
        _load(path, overrides, None), Options(runs=runs, new=new, recipe_text=read_recipe_text(path))
    )
    assert ended.run is not None
    print_outcome(ended.run)


@app.command()
def init(
    data: Annotated[
        Path, typer.Option("--data", parser=_path, metavar="PATH", help="a file of rows, or a folder")
    ],
    model: Annotated[
        str, typer.Option("--model", parser=_name, metavar="TEXT", help="a folder with a model, or a hub id")
    ],
    out: Annotated[
        Path, typer.Option("--out", parser=_output, metavar="PATH", help="the recipe to write")
    ] = Path("recipe.toml"),
    as_json: Json = False,
) -> None:
    """Write a recipe for fine-tuning, after a look at the data and this machine."""
    from etude.cli.init import write_recipe

    rows = write_recipe(data, model, out)
    print_rows(rows, dict(rows), as_json)


@app.command("import")
def import_model(
    model: Annotated[
        str,
        typer.Argument(parser=_name, help="a folder with pytorch_model.bin, or a hub id", metavar="MODEL"),
    ],
    out: Annotated[
        Path | None,
        typer.Argument(
            parser=_output, help="the folder to write (default: NAME-safetensors)", metavar="[OUT]"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn a model published as a pickle into safetensors, without running anything of it."""
    from etude.convert import convert
    from etude.models.hub import find_model

    folder = find_model(model)
    files = [str(path) for path in convert(folder, out or Path(f"{Path(model).name}-safetensors"))]
    print_rows([("wrote", file) for file in files], files, as_json)


@app.command()
def export(
    run: Annotated[
        str, typer.Argument(parser=_name, help="RUN, RUN@best, RUN@last or RUN@step-200", metavar="RUN")
    ],
    out: Annotated[Path, typer.Argument(parser=_output, help="the folder to write", metavar="OUT")],
    kind: Annotated[str, typer.Option("--to", help="peft, merged or hf")],
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Write a model that transformers and PEFT load as it is, with a card of the record's figures."""
    from etude.cli.export import run_export

    rows = run_export(run, kind, out, runs=runs)
    print_rows(rows, dict(rows), as_json)


@app.command()
def generate(
    model: Speaking,
    prompt: Annotated[
        list[str], typer.Option("--prompt", help="what to continue; may be given more than once")
    ],
    instruction: Annotated[
        bool, typer.Option("--instruction", help="the prompt is an instruction to answer")
    ] = False,
    max_tokens: MaxTokens = 128,
    temperature: Temperature = 0.8,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = 17,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Continue prompts with the model of a run, or one in a folder."""
    from etude.cli.generate import Sampling, generate_texts, print_texts

    sampling = Sampling(max_tokens, temperature, top_k, top_p, seed)
    texts = generate_texts(model, prompt, sampling, runs=runs, is_instruction=instruction)
    if as_json:
        print_json(texts)
    else:
        print_texts(texts)


@app.command()
def chat(
    model: Speaking,
    system: Annotated[str | None, typer.Option("--system", help="a system message")] = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.8,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = 17,
    runs: Runs = Path("runs"),
) -> None:
    """Talk with the model of a run, or one in a folder."""
    from etude.cli.generate import Sampling
    from etude.cli.generate import chat as talk

    talk(model, Sampling(max_tokens, temperature, top_k, top_p, seed), runs=runs, system=system)


@app.command("runs")
def list_runs(runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """List the runs, oldest first."""
    from etude.records.store import read_runs
    from etude.report.summary import summarize_all

    whole, damaged = read_runs(runs)
    summaries, unread = summarize_all(whole)
    for name, problem in sorted({**damaged, **unread}.items()):
        say(f"{name} is left out: {problem}")
    if as_json:
        print_json([summary.to_dict() for summary in summaries])
        return
    from etude.report.summary import run_table

    if not (summaries or damaged or unread):
        say(f"no runs in {runs}; start one with etude train RECIPE, or try etude demo")
    print_table(run_table(summaries))


@app.command()
def show(run: RunName, runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """Show how a run went."""
    from etude.records.store import open_run
    from etude.report.summary import describe, summarize

    found = open_run(run, runs)
    _warn_of_edits(found)
    summary = summarize(found)
    print_rows(describe(summary), summary.to_dict(), as_json)


@app.command()
def compare(
    run: Annotated[list[str], typer.Argument(parser=_name, help="two or more runs", metavar="RUN RUN...")],
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Set runs side by side: what differs in the recipes, and in the results."""
    from etude.records.store import open_run
    from etude.report.compare import compare_runs

    if len(run) < 2:
        raise InputError("compare needs two runs or more; see etude runs")
    found = [open_run(name, runs) for name in run]
    _warn_of_edits(*found)
    comparison = compare_runs(found)
    if as_json:
        print_json(comparison.to_dict())
        return
    print_table(comparison.rows())
    print_text()
    if noise := comparison.noise_rows():
        print_table(noise)
        print_text()
    print_table(comparison.progression.rows())
    print_text("\n".join(["", *map(printable, comparison.progression.lines())]))


@app.command()
def ensemble(
    run: Annotated[
        list[str], typer.Argument(parser=_name, help="two or more runs of one task", metavar="RUN RUN...")
    ],
    by: Annotated[
        str | None, typer.Option("--by", help="mean (default) or vote of labels, consensus of answers")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", parser=_output_folder, metavar="PATH", help="folder for predictions.jsonl and report.md"
        ),
    ] = None,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Join what finished runs said of the same rows, and score that beside each of them."""
    from etude.ensemble import make_ensemble
    from etude.records.store import open_run

    found = make_ensemble([open_run(name, runs) for name in run], by)
    if as_json:
        print_json(found.to_dict())
    else:
        print_table(found.table())
        print_text("\n".join(["", *map(printable, found.lines())]))
        if by_capability := found.capability_table():
            print_text()
            print_table(by_capability)
    if out is not None:
        found.write(out)
        say(f"written to {out}: predictions.jsonl, report.md")


@app.command()
def rate(
    run: Annotated[
        list[str], typer.Argument(parser=_name, help="a run, or two to compare blind", metavar="RUN [RUN]")
    ],
    rater: Annotated[str, typer.Option("--rater", help="who rates")],
    scores: Annotated[
        str | None, typer.Option("--scores", help="answers of a script, as 4,5,s or a,b,=")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="of the hidden order")] = 17,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Rate what a run said, or which of two said it better without knowing which is which."""
    from etude.cli import rate as rating
    from etude.records.store import open_run

    found = [open_run(name, runs) for name in run]
    if as_json and scores is None:  # what a script is to answer
        asked = rating.questions(found, rater=rater, seed=seed)
        print_json([question.to_dict() for question in asked])
        return
    rows = rating.rate(
        found, rater=rater, scores=scores.split(",") if scores is not None else None, seed=seed
    )
    print_rows(rows, dict(rows), as_json)


@app.command()
def note(
    run: RunName,
    text: Annotated[str, typer.Argument(help="what to note")],
    section: Annotated[NoteSection, typer.Option("--section", help="heading of the report")],
    author: Annotated[str | None, typer.Option("--author", help="who says so")] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Add your words to the record of a run."""
    from etude.records.events import Note
    from etude.records.store import append_note, open_run

    if not text.strip():
        raise InputError("the note is empty; give what to note, in quotes")
    found = open_run(run, runs)
    append_note(found, Note(section.value, text, author))
    say(f"noted under {section.value} of {found.name}; etude report {found.name} writes it into the report")


@app.command()
def report(run: RunName, runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """Write the report of a run, also of one that goes on or was killed."""
    from etude.records.store import open_run
    from etude.report.write import write_report

    path = write_report(open_run(run, runs))
    print_json({"report": str(path)}) if as_json else print_text(path)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        print_text(f"etude {__version__}")
        raise typer.Exit


def _tell(error: EtudeError) -> None:
    """Say an error once for all ranks: one that etude started leaves its own to the launcher."""
    lines = _error_lines(getattr(error, "problems", [error]))
    rank, folder = os.environ.get("RANK", "0") if "WORLD_SIZE" in os.environ else "0", os.environ.get(FOLDER)
    if rank == "0" and not (folder and isinstance(error, LostRankError)):
        for line in lines:
            say(line)
    elif folder:
        write_file(Path(folder) / f"error-{rank}", "\n".join(lines).encode())
    else:
        say(f"rank {rank[:8]}: {' '.join(lines)}")


def _say_errors(problems: list[Any]) -> None:
    for line in _error_lines(problems):
        say(line)


def _error_lines(problems: list[Any]) -> list[str]:
    """A line for each problem, the first of them if there are many."""
    lines = [shorten(f"error: {problem}") for problem in problems[:_MOST_PROBLEMS]]
    left = len(problems) - _MOST_PROBLEMS
    return [*lines, f"and {left:,} more"] if left > 0 else lines


def _say_usage(error: Any) -> None:
    """What is wrong with a command line, and where its help is; where nothing is given, the help itself."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        what = error.format_message().rstrip(".")
        _say_errors([f"{what}; see {error.ctx.command_path} --help" if error.ctx else what])


def _warn_of_edits(*runs: "Run") -> None:
    """Say of which runs the recipe was edited after the fact: their figures belong to another one."""
    for run in runs:
        try:
            run.require_own_recipe()
        except EtudeError as error:
            say(f"warning: {shorten(str(error))}")


def _describe_published(recipe: "Recipe") -> str | None:
    """What a recipe trains of a published model, known without its files."""
    from etude.models.catalogue import STORIES
    from etude.models.cost import trainable_line

    story = STORIES.get(recipe.model.from_ or "")
    if story is None:
        return None
    adapter = story.count_lora(recipe.adapter.rank, recipe.adapter.targets) if recipe.adapter else 0
    return f"{recipe.model.from_}: {trainable_line(adapter or story.total, story.total + adapter)}"


def _load(path: Path, overrides: list[str] | None, devices: int | None) -> "Recipe":
    """The recipe of a command; among ranks its devices are their number."""
    from etude.recipe.load import load_recipe

    place = read_place()
    if place.size > 1 and devices not in (None, place.size):
        raise InputError(
            f"--devices is {devices}, but {place.size} ranks were started (WORLD_SIZE); leave one out"
        )
    ranks = place.size if place.size > 1 else devices
    return load_recipe(path, [*(overrides or []), *([f"train.devices={ranks}"] if ranks else [])])
