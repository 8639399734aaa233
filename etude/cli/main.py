"""`etude`: the table of its commands. Results go to stdout, progress and errors to stderr."""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from etude import __version__
from etude.cli import (
    average,
    data,
    estimate,
    evaluate,
    fork,
    improve,
    model,
    notify,
    read,
    recipes,
    room,
    selftest,
    serve,
    steer,
    sweep,
    sweep_report,
    train,
    ui,
    verify,
    watch,
)
from etude.cli.completion import join_words
from etude.cli.examples import example_text
from etude.cli.printing import (
    is_reader_gone,
    lasting_output,
    print_json,
    print_json_line,
    print_text,
    ready_streams,
    say,
)
from etude.control.ranks import FOLDER, follow_launcher
from etude.control.signals import leave_before_start, one_interrupt
from etude.durable import write_file
from etude.errors import EtudeError, FaultError, LostRankError, Problem
from etude.interruption import Abandoned
from etude.text import shorten

COMMANDS: dict[str, Callable[..., None]] = {
    "train": train.train,
    "resume": train.resume,
    "check": train.check,
    "estimate": estimate.estimate,
    "prepare": data.prepare,
    "schema": train.schema,
    "demo": train.demo,
    "init": train.init,
    "import": model.import_model,
    "export": model.export_model,
    "average": average.average_runs,
    "generate": model.generate,
    "chat": model.chat,
    "serve": serve.serve,
    "show": read.show,
    "compare": read.compare,
    "evaluate": evaluate.evaluate,
    "improve": improve.improve_run,
    "fork": fork.fork_run,
    "ensemble": read.ensemble,
    "rate": read.rate,
    "note": read.note,
    "stop": steer.stop,
    "pause": steer.pause,
    "set": steer.set_value,
    "checkpoint": steer.checkpoint,
    "sample": steer.sample,
    "report": read.report,
    "verify": verify.verify,
    "watch": watch.watch,
    "guard": notify.guard,
    "ui": ui.ui,
    "selftest": selftest.selftest,
    "doctor": selftest.doctor,
}
DATA_COMMANDS: dict[str, Callable[..., None]] = {"page": data.data_page, "show": data.show_data}
NOTIFY_COMMANDS: dict[str, Callable[..., None]] = {"test": notify.test}
RECIPE_COMMANDS: dict[str, Callable[..., None]] = {"show": recipes.show_recipe, "copy": recipes.copy_recipe}
RUN_COMMANDS: dict[str, Callable[..., None]] = {"rm": room.remove_run}
SWEEP_COMMANDS: dict[str, Callable[..., None]] = {
    "plan": sweep.plan,
    "run": sweep.run,
    "report": sweep_report.report,
    "stage": sweep.stage,
}
# click's error for a command line that it cannot read; newer versions of typer hold a click of their own.
_UsageError: Any = typer.BadParameter.__base__
_TRAINING = (["train"], ["resume"], ["demo"], ["fork"])  # commands that go on with a run
_MOST_PROBLEMS = 20


class DataGroup(TyperGroup):
    """`etude data RECIPE` is the page of `etude data page RECIPE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        is_page = bool(args) and not args[0].startswith("-") and args[0] not in self.commands
        return super().parse_args(ctx, ["page", *args] if is_page else args)


app = typer.Typer(
    help="Train code language models: one recipe, one run, a record anybody can check.",
    epilog=example_text(""),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(
    help="Look at the data of a recipe: `etude data RECIPE` writes a page on it.",
    epilog=example_text("data"),
    no_args_is_help=True,
    cls=DataGroup,
)
recipes_app = typer.Typer(invoke_without_command=True, epilog=example_text("recipes"))
recipes_app.callback()(recipes.list_recipes)
runs_app = typer.Typer(invoke_without_command=True, epilog=example_text("runs"))
runs_app.callback()(read.list_runs)
sweep_app = typer.Typer(
    help="Train many trials of one base recipe, and what they share only once.",
    epilog=example_text("sweep"),
    no_args_is_help=True,
)
notify_app = typer.Typer(
    help="Messages to people about a run, as its recipe says under notify.",
    epilog=example_text("notify"),
    no_args_is_help=True,
)
app.add_typer(notify_app, name="notify")
app.add_typer(recipes_app, name="recipes")
app.add_typer(runs_app, name="runs")
app.add_typer(sweep_app, name="sweep")
app.add_typer(data_app, name="data")
for _app, _group, _commands in (
    (app, "", COMMANDS), (data_app, "data", DATA_COMMANDS), (recipes_app, "recipes", RECIPE_COMMANDS),
    (sweep_app, "sweep", SWEEP_COMMANDS), (notify_app, "notify", NOTIFY_COMMANDS),
    (runs_app, "runs", RUN_COMMANDS),
):  # fmt: skip
    for _name, _command in _commands.items():
        _app.command(_name, epilog=example_text(f"{_group} {_name}".strip()))(_command)


def main() -> None:
    """Run a command; an error for the user is one line, and only a fault of etude has a traceback."""
    # Threads that wait by spinning stop each other when something else wants a core: with one busy neighbour
    # on two cores a step took 5.1 s instead of 0.38. Alone, waiting this short costs up to 9 % (dev/LOG.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # transformers quotes what a config.json says, whole; etude says itself what matters.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
    leaving = leave_before_start() if sys.argv[1:2] in (*_TRAINING, ["sweep"]) else contextlib.nullcontext()
    with lasting_output() as output, one_interrupt() as interrupts, leaving:
        try:
            code = _run()
        except (KeyboardInterrupt, typer.Abort):  # also of one that came while an error was told
            code = 128 + signal.SIGINT
        except Abandoned as left:
            from etude.launch.ranks import RESUMABLE

            if os.environ.get("RANK", "0") == "0":
                say(f"{left} came while no step was under way; the same command goes on")
            code = RESUMABLE
        except Exception:
            if not interrupts:  # else it came of it, as from an import that was broken off
                say(traceback.format_exc().rstrip())
            code = 1
        if (interrupts and code) or code == 128 + signal.SIGINT:
            again = "; the same command continues from the last checkpoint"
            say(f"stopped at once{again if sys.argv[1:2] in _TRAINING else ''}")
            code = 128 + signal.SIGINT
        output.flush()
        # A run is worth more than what it prints; of other commands the output is all.
        if output.error and not code and sys.argv[1:2] not in _TRAINING:
            if not is_reader_gone(output.error):
                say(f"error: the output cannot be written: {output.error.strerror}")
            code = 128 + signal.SIGPIPE if is_reader_gone(output.error) else 1
    if code == 128 + signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the rest of a burst, while Python ends
    if code:
        sys.exit(code)


def _run() -> int:
    ready_streams()
    join_words()
    try:
        follow_launcher()
        return app(standalone_mode=False, prog_name="etude") or 0  # however Python was started
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except EtudeError as error:
        _tell(error)
        return error.exit_code
    except MemoryError:
        _tell(FaultError("there is no memory left for this command; give it more, or less to do at once"))
        return FaultError.exit_code
    except _UsageError as error:
        _say_usage(error)
        return 2


@app.callback(invoke_without_command=True)
def _print_version(
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
) -> None:
    if version:
        print_text(f"etude {__version__}")
        raise typer.Exit


def _tell(error: EtudeError) -> None:
    """Print an error once for all ranks: a rank that etude started leaves its own to the launcher."""
    problems = getattr(error, "problems", [error])
    lines = _error_lines(problems)
    rank, folder = os.environ.get("RANK", "0") if "WORLD_SIZE" in os.environ else "0", os.environ.get(FOLDER)
    if rank == "0" and not (folder and isinstance(error, LostRankError)):
        for line in lines:
            say(line)
        _print_json_of(problems, error.exit_code)
    elif folder and Path(folder).is_dir():
        write_file(Path(folder) / f"error-{rank}", "\n".join(lines).encode())
    else:
        say(f"rank {rank[:8]}: {' '.join(lines)}")


def _print_json_of(problems: list[Any], exit_code: int) -> None:
    """Print an error as JSON too where a script waits for that: a further line, or the one value."""
    if "--json" not in sys.argv:
        return
    told = [shorten(str(problem)) for problem in problems]
    places = [each.to_dict() for each in problems if isinstance(each, Problem)]
    value = {
        "error": told[0],
        "problems": told,
        "exit_code": exit_code,
        **({"places": places} if places else {}),
    }
    if sys.argv[1] in ("train", "resume"):
        print_json_line({"type": "error", **value})
    elif not getattr(sys.stdout, "is_used", False):
        print_json(value)


def _error_lines(problems: list[Any]) -> list[str]:
    """A line for each problem, the first of them if there are many."""
    lines = [shorten(f"error: {problem}") for problem in problems[:_MOST_PROBLEMS]]
    left = len(problems) - _MOST_PROBLEMS
    return [*lines, f"and {left:,} more"] if left > 0 else lines


def _say_usage(error: Any) -> None:
    """Print the fault of a command line and where its help is; for an empty one, the help itself."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        what = error.format_message().rstrip(".").replace("Value error, ", "")
        problems = [f"{what}; see {error.ctx.command_path} --help" if error.ctx else what]
        (line,) = _error_lines(problems)
        say(line)
        _print_json_of(problems, 2)
