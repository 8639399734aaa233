"""The commands that read runs, and add what people say of them."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli import steer
from etude.cli.completion import complete_run
from etude.cli.detached import follow
from etude.cli.options import Json, RunName, Runs, parse_name, parse_new_file, parse_output_folder, parse_path
from etude.cli.printing import page_width, print_json, print_rows, print_table, print_text, say
from etude.cli.room import print_room
from etude.errors import EtudeError, InputError
from etude.text import plural, printable, shorten

if TYPE_CHECKING:
    from etude.records.store import Run


def list_runs(
    ctx: typer.Context,
    runs: Runs = Path("runs"),
    disk: Annotated[bool, typer.Option("--disk", help="the room that each takes")] = False,
    as_json: Json = False,
) -> None:
    """List the runs, oldest first, or remove one."""
    if ctx.invoked_subcommand is not None:
        return
    from etude.records.store import read_runs
    from etude.report.summary import run_table, summarize_all

    whole, damaged = read_runs(runs)
    if disk:
        print_room(whole, as_json=as_json)
        return
    summaries, unread = summarize_all(whole)
    for name, problem in sorted({**damaged, **unread}.items()):
        say(f"{name} is left out: {problem}")
    if as_json:
        print_json([summary.to_dict() for summary in summaries])
        return
    if not (summaries or damaged or unread):
        say(f"no runs in {runs}; start one with etude train RECIPE, or try etude demo")
    print_table(run_table(summaries))


def show(
    run: RunName,
    runs: Runs = Path("runs"),
    followed: Annotated[
        bool, typer.Option("--follow", help="show a run that goes on as its own terminal does, until it ends")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show how a run went, or how it goes."""
    from etude.records.store import open_run
    from etude.report.summary import describe, summarize

    found = open_run(run, runs)
    if followed and as_json:
        raise InputError("--follow draws for a person; leave it out for --json, or read journal.jsonl")
    if followed:
        follow(found)
        return
    _warn_of_edits(found)
    summary = summarize(found)
    print_rows(describe(summary), summary.to_dict(), as_json)


def compare(
    run: Annotated[
        list[str],
        typer.Argument(
            parser=parse_name, help="two or more runs", metavar="RUN RUN...", autocompletion=complete_run
        ),
    ],
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            parser=parse_name,
            metavar="RUN",
            autocompletion=complete_run,
            help="the run to compare the others with (default: the first)",
        ),
    ] = None,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Set runs side by side, worst to best: what differs in recipes and results, and which is the best."""
    from etude.records.store import open_run
    from etude.report.compare import compare_runs

    if len(run) + bool(baseline) < 2:
        raise InputError("compare needs two runs or more; see etude runs")
    found = [open_run(name, runs) for name in run]
    held_against = open_run(baseline, runs) if baseline else found[0]
    if held_against.path not in [each.path for each in found]:
        found.insert(0, held_against)
    _warn_of_edits(*found)
    comparison = compare_runs(found, [each.path for each in found].index(held_against.path))
    if as_json:
        print_json(comparison.to_dict())
    else:
        print_text("\n".join(map(printable, comparison.lines(page_width()))))


class JoinedBy(StrEnum):
    """Ways to join what runs predict."""

    mean = "mean"
    vote = "vote"
    consensus = "consensus"


def ensemble(
    run: Annotated[
        list[str],
        typer.Argument(
            parser=parse_name,
            help="two or more runs of one task",
            metavar="RUN RUN...",
            autocompletion=complete_run,
        ),
    ],
    by: Annotated[
        JoinedBy | None, typer.Option("--by", help="mean (default) or vote of labels, consensus of answers")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            parser=parse_output_folder,
            metavar="PATH",
            help="folder for predictions.jsonl and report.md",
        ),
    ] = None,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Combine what finished runs predicted for the same rows, and score it beside each run."""
    from etude.ensemble import make_ensemble
    from etude.records.store import open_run

    found = make_ensemble([open_run(name, runs) for name in run], by.value if by else None)
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


class Level(StrEnum):
    """Ways in which ratings differ, for their agreement."""

    nominal = "nominal"
    ordinal = "ordinal"
    interval = "interval"


def rate(
    run: Annotated[
        list[str],
        typer.Argument(
            parser=parse_name,
            help="a run, or two to compare blind",
            metavar="RUN [RUN]",
            autocompletion=complete_run,
        ),
    ],
    rater: Annotated[
        str | None, typer.Option("--rater", help="who rates (default: your name on this machine)")
    ] = None,
    scores: Annotated[
        str | None, typer.Option("--scores", help="answers of a script, as 4,5,s or a,b,=")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="of the hidden order")] = 17,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export", parser=parse_new_file, metavar="FILE", help="write what is to be rated there"
        ),
    ] = None,
    answered: Annotated[
        Path | None,
        typer.Option("--import", parser=parse_path, metavar="FILE", help="take the answers of such a file"),
    ] = None,
    agreement: Annotated[
        Level | None, typer.Option("--agreement", help="how far raters agree, and the verdict if they do")
    ] = None,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Rate the answers of a run, or compare those of two runs blind."""
    from etude.cli import rate as rating
    from etude.cli import rate_file
    from etude.records.store import open_run

    found = [open_run(name, runs) for name in run]
    if agreement is not None:
        _show_agreement(found, agreement, as_json=as_json)
        return
    if answered is not None:
        new, left = rate_file.import_answers(found, answered)
        say(f"{answered}: {plural(new, 'answer')} kept, {left:,} empty or kept before")
        return
    rater = rating.user_name() if rater is None else rater
    if export is not None:
        count = rate_file.export_questions(found, export, rater=rater, seed=seed)
        asked = f"{plural(count, 'question')} for {printable(rater)}"
        say(f"{asked} written to {export}; fill in answer, then --import")
        return
    if as_json and scores is None:  # what a script is to answer
        print_json([question.to_dict() for question in rating.questions(found, rater=rater, seed=seed)])
        return
    given = None if scores is None else scores.split(",")
    rated = rating.rate(found, rater=rater, scores=given, seed=seed)
    rows = [(name, str(ratings) or "no ratings") for name, ratings in rated.items()]
    print_rows(rows, {name: asdict(ratings) for name, ratings in rated.items()}, as_json)


def _show_agreement(runs: list["Run"], level: Level, *, as_json: bool) -> None:
    """Print how far the raters of a run agree, or of two side by side. Raises: InputError without ratings."""
    from etude.report.history import read_history
    from etude.report.raters import compare_raters

    against = runs[1].name if len(runs) > 1 else None
    found = compare_raters(read_history(runs[0]).ratings, against=against, level=level.value)
    if not found.raters:
        raise InputError(f"nobody has rated {' beside '.join(run.name for run in runs)}; use etude rate")
    if as_json:
        print_json(found.to_dict())
    else:
        print_text("\n".join(map(printable, found.lines())))


class NoteSection(StrEnum):
    """Headings of the report that a person fills."""

    lessons = "lessons"
    next = "next"
    problem = "problem"


def note(
    run: RunName,
    text: Annotated[str, typer.Argument(help="what to note", metavar="TEXT")],
    section: Annotated[
        NoteSection | None,
        typer.Option("--section", help="heading of the report; without one, the step of a run that goes on"),
    ] = None,
    author: Annotated[str | None, typer.Option("--author", help="who says so")] = None,
    wait: steer.Wait = True,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Add your words to the record of a run: under a heading of its report, or at its step."""
    from etude.control.mailbox import is_going_on
    from etude.records.events import Note
    from etude.records.folder import as_argument
    from etude.records.store import append_note, open_run

    if not text.strip():
        raise InputError("the note is empty; give what to note, in quotes")
    found = open_run(run, runs)
    if section is None:
        if not is_going_on(found):
            sections = ", ".join(NoteSection)
            raise InputError(f"run {found.name} is {found.state}, at no step; give a --section: {sections}")
        steer.ask(found, "note", wait=wait, as_json=as_json, text=text)
        return
    append_note(found, Note(section.value, text, author))
    command = f"etude report {as_argument(found.path)}"
    say(f"noted under {section.value} of {found.name}; {command} writes it into the report")
    if as_json:
        print_json({"run": found.name, "section": section.value, "text": text, "author": author})


def report(
    run: RunName,
    html: Annotated[bool, typer.Option("--html", help="one HTML file too, to mail or to print")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            parser=parse_output_folder,
            metavar="PATH",
            help="folder to write to (default: `report` in the run folder)",
        ),
    ] = None,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Write the report of a run, even while it runs or after it was killed."""
    from etude.records.store import open_run
    from etude.report.write import write_report

    path = write_report(open_run(run, runs), html=html, folder=out)
    print_json({"report": str(path)}) if as_json else print_text(path)


def _warn_of_edits(*runs: "Run") -> None:
    """Warn of runs whose recipe was edited after the fact: their figures belong to another one."""
    for run in runs:
        try:
            run.require_own_recipe()
        except EtudeError as error:
            say(f"warning: {shorten(str(error))}")
