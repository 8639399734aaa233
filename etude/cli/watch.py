"""`etude watch`: faults of a run by its figures, of one of etude or from the log of any other tool."""

import contextlib
import math
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli.completion import complete_run
from etude.cli.options import Json, Runs, parse_name
from etude.cli.printing import page_width, print_json, print_text, print_wrapped, say
from etude.errors import InputError
from etude.text import one_line, plural, printable, shorten

if TYPE_CHECKING:
    from etude.records.events import Finding
    from etude.watch.look import Look

    Found = dict[tuple[str, int, str], Finding]

_LEAD = 13  # columns before what is said
_CHART_LINES, _WIDEST_CHART = 4, 80
_FEWEST_SHOWN = 30  # points of a chart
_MOST_MEDIAN, _MOST_KINDS = 25, 50
_POLL_SECONDS, _LINE_SECONDS = 1.0, 10.0
_POLL_SHARE = 20  # times as long as a look took is waited before the next
_KEYS = (
    r"\b(?:model|tokenizer|adapter|data|train|loss|optim|schedule|evaluate|checkpoint|records)\.(?=[a-z_])"
)
_STYLES = {"error": "bold red", "warning": "yellow", "info": ""}


def watch(
    run: Annotated[
        str,
        typer.Argument(
            parser=parse_name,
            help="a run, or a log of any tool: a file, or a folder that holds one",
            metavar="RUN|FILE",
            autocompletion=complete_run,
        ),
    ],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="go on as the log grows, until Ctrl-C")
    ] = False,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Tell what is wrong with a run, since when, why, and what its figures cannot tell."""
    if follow and as_json:
        raise InputError("--follow prints text; leave out --follow or --json")
    look, is_over = _find(run, runs)
    if follow:
        _follow(look, is_over)
    elif as_json:
        print_json(look().to_dict())
    else:
        _print(look())


def _find(name: str, runs: Path) -> tuple[Callable[[], "Look"], Callable[[], bool]]:
    """Two functions for what a name stands for: one looks at it, one tells if it will not go on."""
    from etude.records.store import open_run
    from etude.watch.look import look_at_log, look_at_run

    path = Path(name)
    if path.exists() and not (path / "run.json").is_file():
        return lambda: look_at_log(path), lambda: False
    try:
        found = open_run(name, runs)
    except InputError as error:
        if "there is no run" not in str(error):
            raise
        raise InputError(f"{shorten(name, 80)} is no file, and {error}") from None
    return lambda: look_at_run(found), lambda: found.state not in ("running", "paused")


def _follow(look: Callable[[], "Look"], is_over: Callable[[], bool]) -> None:
    """Print a look, and then what is new in each of those that follow."""
    seen: Found = {}
    last, is_first, said = -1, True, -math.inf
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            ended, started = is_over(), time.monotonic()
            now = _try(look, is_first=is_first)
            if now and is_first:
                _print(now)
                say("following; Ctrl-C ends it")
            found = {(each.kind, each.step, each.what): each for each in now.findings} if now else seen
            if now and not is_first:
                _print_changes(now, seen, found)
            sys.stdout.flush()
            if now and now.points[-1].step != last and time.monotonic() - said > _LINE_SECONDS:
                last, said = now.points[-1].step, time.monotonic()
                say(_place(now))
            is_first, seen = is_first and now is None, found
            if ended:
                return
            time.sleep(max(_POLL_SECONDS, _POLL_SHARE * (time.monotonic() - started)))


def _print_changes(look: "Look", seen: "Found", found: "Found") -> None:
    """Print findings that are new, and name conditions of which none is left."""
    kinds = {kind for kind, *_ in found}
    for kind, step, what in seen:
        if kind not in kinds:
            print_text(f"no longer: {printable(what)}, since training went back before step {step:,}")
    for key, finding in found.items():
        if key not in seen:
            _print_finding(look, finding)


def _try(look: Callable[[], "Look"], *, is_first: bool) -> "Look | None":
    """A look; None of a log that has no figures yet, or is being written again."""
    try:
        return look()
    except InputError as error:
        if is_first and not re.search(
            "is empty|no row|no step yet|white space|no loss was found", str(error)
        ):
            raise
        return None


def _place(look: "Look") -> str:
    """The last step and its losses on one line."""
    from etude.report.wording import short

    loss = next((point.loss for point in reversed(look.points) if point.loss is not None), None)
    held = next((point.eval_loss for point in reversed(look.points) if point.eval_loss is not None), None)
    losses = [("loss", loss), ("validation loss", held)]
    shown = "  ".join(f"{name} {short(value, 4)}" for name, value in losses if value is not None)
    return f"{look.unit} {look.points[-1].step:,}  {shown}"


def _print(look: "Look") -> None:
    for lead, text in _summary(look):
        print_wrapped(f"{lead:<{_LEAD}}", text, indent=_LEAD)
    by_kind: dict[str, list[Finding]] = {}
    for finding in look.findings:
        by_kind.setdefault(finding.kind, []).append(finding)
    for first, *again in [*by_kind.values()][:_MOST_KINDS]:
        _print_finding(look, first)
        if again:
            times = "once more" if len(again) == 1 else f"{len(again):,} more times"
            print_wrapped(
                f"  {'again':<{_LEAD - 2}}",
                f"{times}, last found at {look.unit} {again[-1].step:,}",
                indent=_LEAD,
            )
    if (more := len(by_kind) - _MOST_KINDS) > 0:
        print_text()
        print_text(f"{plural(more, 'more condition')} found; --json lists all")
    if not look.findings:
        print_text()
        print_text("Nothing wrong is seen in these figures.")
    if look.unknown:
        print_text()
        print_text("These figures cannot tell")
        for about, why in look.unknown:
            print_wrapped("  ", f"{about}: {why}", indent=4)


def _summary(look: "Look") -> Iterator[tuple[str, str]]:
    """The log in a few rows: what it is, its length, its losses."""
    from etude.report.wording import short

    kind = f", {look.format}" if look.format else ""
    yield "run" if not look.format else "log", one_line(look.name, 300) + kind
    first, last, unit = look.points[0].step, look.points[-1].step, look.unit
    of = f" of {look.facts.steps:,}" if look.facts.steps and look.facts.steps > last else ""
    epoch = next((point.epoch for point in reversed(look.points) if point.epoch is not None), None)
    epochs = f", {short(epoch)} epochs" if epoch and unit != "epoch" else ""
    yield (
        "points",
        f"{len({point.step for point in look.points}):,}, {unit} {first:,} to {last:,}{of}{epochs}",
    )
    yield "figures", ", ".join(_figure(look, name) for name in look.figures)
    for title, name in (("loss", "loss"), ("validation", "eval_loss")):
        if text := _course([(p.step, v) for p in look.points if (v := getattr(p, name)) is not None], unit):
            yield title, text
    if look.others:
        yield "other runs", f"{look.others:,} before this one in the same log; this is about the last"
    for note in look.notes:
        yield "note", note


def _figure(look: "Look", name: str) -> str:
    own = look.columns.get(name, name)
    return name if own == name else f"{name} ({one_line(own, 40)})"


def _course(values: Sequence[tuple[int, float]], unit: str) -> str:
    """The first and the last level of a figure, and its lowest value."""
    from etude.report.wording import short

    finite = [(step, value + 0.0) for step, value in values if math.isfinite(value)]  # 0 in place of -0
    if not finite:
        return f"{values[0][1]} at all {len(values)} points" if values else ""
    if len(values) == 1:
        return f"{short(finite[0][1], 4)} at {unit} {finite[0][0]:,}"
    count = min(max(len(finite) // 20, 1), _MOST_MEDIAN)
    begin, end = (statistics.median(value for _, value in part) for part in (finite[:count], finite[-count:]))
    step, lowest = min(finite, key=lambda each: each[1])
    by = f" (medians of {count} points)" if count > 1 else ""
    broken = f"; {plural(len(values) - len(finite), 'point')} not finite" if len(finite) < len(values) else ""
    return f"{short(begin, 4)} to {short(end, 4)}{by}, lowest {short(lowest, 4)} at {unit} {step:,}{broken}"


def _print_finding(look: "Look", finding: "Finding") -> None:
    first, last = finding.window or [finding.step, finding.step]
    since = f"{look.unit} {first:,}"
    since += f", found at {look.unit} {finding.step:,}" if finding.step > first else ""
    print_text()
    print_wrapped(
        f"{finding.severity:<{_LEAD}}", f"{finding.what}, since {since}", indent=_LEAD,
        style=_STYLES.get(finding.severity, ""),
    )  # fmt: skip
    causes = [f"{place}. {cause}" for place, cause in enumerate(finding.causes, 1)]
    rows = [
        ("evidence", finding.evidence),
        (
            "causes" if len(causes) > 1 else "cause",
            "; ".join(causes) if len(causes) > 1 else "".join(finding.causes),
        ),
        ("decided by", finding.decided_by),
        ("do", finding.advice),
        ("changes", ", ".join(f"{key} = {value}" for key, value in finding.changes.items())),
        ("confidence", "" if finding.confidence is None else f"{finding.confidence:.0%} of the first cause"),
        ("not tested", "; ".join(finding.not_tested)),
        ("source", finding.source),
    ]
    for lead, text in rows:
        if text:
            shown = re.sub(_KEYS, "", text) if look.format else text  # no recipe belongs to it
            print_wrapped(f"  {lead:<{_LEAD - 2}}", shorten(shown, 1000), indent=_LEAD)
    for line in _chart(look, first, last):
        print_text(" " * _LEAD + line.rstrip())


def _chart(look: "Look", first: int, last: int) -> list[str]:
    """The losses about a window; nothing where the terminal has no such characters."""
    from etude.report.braille import Mark, braille_curve
    from etude.report.wording import short

    losses = [(point.step, point.loss) for point in look.points if point.loss is not None]
    inside = [place for place, (step, _) in enumerate(losses) if first <= step <= last]
    if not inside or len(losses) < 2 or not (sys.stdout.encoding or "").lower().startswith("utf"):
        return []
    room = max(len(inside), _FEWEST_SHOWN // 2)
    shown = losses[max(inside[0] - room, 0) : inside[-1] + room + 1]
    begin = max(shown[0][0] - 1, 0)
    held = [(p.step, p.eval_loss) for p in look.points if p.eval_loss is not None]
    marks = [Mark(step - begin, value, "●") for step, value in held if shown[0][0] <= step <= shown[-1][0]]
    width = min(page_width() - _LEAD - 1, _WIDEST_CHART)
    ends = [step - begin for step, _ in shown]
    curve = braille_curve([loss for _, loss in shown], width, _CHART_LINES, ends=ends, marks=marks)
    if math.isnan(curve.high):
        return []
    legend = f"{short(curve.high)}  ⠒ loss" + ("  ● validation loss" if marks else "")
    return [legend, *curve.lines, f"{short(curve.low)}  {look.unit} {shown[0][0]:,} to {shown[-1][0]:,}"]
