"""Our own records held against each other: a journal against its heads, what is told against the journal.

A report is a function of its run folder, so it is made again and compared, sentence by sentence.
"""

import contextlib
import math
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from etude import durable
from etude.errors import DamageError, InputError, MissingError
from etude.records.events import Attempt, CheckpointSaved, DataUsed, Evaluation, Step
from etude.records.folder import checkpoint_name, list_checkpoints
from etude.records.head import Head, hash_until
from etude.records.manifest import check_files, read_manifest
from etude.records.store import Run
from etude.report.deviations import MOST, Deviation, Known, compare_texts, compare_values
from etude.report.figures import Figure
from etude.report.history import History
from etude.report.html import to_html
from etude.report.sources import NAME, Written, read_written
from etude.report.summary import summarize_history
from etude.report.wording import moment, short
from etude.report.write import Report, make_report
from etude.text import plural

_MOST_BYTES = 16 << 20  # of a report or a page of it
NO_REPORT = "there is no report; etude report RUN writes it"
_NO_CHAIN = (
    "the journal has no heads, as it is of an older etude: an edit with its checksum made anew is not seen "
    "in it"
)
_CLOCKS = 600.0  # seconds by which two clocks of a run may differ
_DISK_SHARE = 0.1  # of the disk of a run, by which its measurements at two moments may differ


@dataclass
class Verification:
    """The outcome of a verification.

    examined    numbers of the things that were held against the records
    deviations  those that do not follow, the first `MOST` of each file
    open        sentences on what cannot be settled, and why
    """

    name: str
    examined: dict[str, int] = field(default_factory=dict)
    deviations: list[Deviation] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def count(self, what: str, number: int = 1) -> None:
        """Count things that are examined."""
        self.examined[what] = self.examined.get(what, 0) + number

    def add(self, found: Iterator[Deviation]) -> None:
        """Take deviations of one file, the first of very many."""
        for number, each in enumerate(found):
            if number == MOST:
                self.open.append(f"{each.file} has more than {MOST} deviations, and the rest is not told")
                return
            self.deviations.append(each)

    def take(self, other: "Verification") -> None:
        """Join what another verification of the same found."""
        for what, number in other.examined.items():
            self.count(what, number)
        self.deviations += other.deviations
        self.open += other.open

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        deviations = [each.to_dict() for each in self.deviations]
        return {"name": self.name, "examined": self.examined, "deviations": deviations, "open": self.open}


def verify_run(path: Path) -> Verification:
    """Hold the report, checkpoints and files of a run against its journal, and that against its heads.

    Raises: InputError if the folder cannot be read as a run.
    """
    run = Run(path)
    made = Verification(run.info["id"])
    history = History(run, run.ledger())
    made.add(_check_journal(history, made))
    made.add(_check_times(history, made))
    made.add(_check_checkpoints(history, made))
    made.add(_check_files(history, made))
    made.add(_check_report(history, made))
    return made


def compare_reports(
    file: str, stated: str, report: Report, history: History, made: Verification
) -> Iterator[Deviation]:
    """Deviations of the text of a report from that which follows."""
    made.count(
        "sentences and cells", len(re.findall(r"[^\s|][^|\n]*?(?:[.;](?= |$)|\||$)", report.text, re.M))
    )
    yield from compare_texts(file, stated, report.text, known_figures(report, history))


def known_figures(report: Report, history: History) -> list[Known]:
    """The figures that a report tells, and those of its run that it might have told in their place."""
    known = [
        Known(report.text[place.start : place.end], _name_of(figure), figure.value)
        for place in report.places
        for figure in place.figures
    ]
    for figure in summarize_history(history).figures:
        if isinstance(figure.value, float):
            known.append(Known(short(figure.value), figure.name, figure.value))
    for each in history.evaluations:
        known += [Known(short(each.loss, digits), "validation_loss", each.loss) for digits in (3, 4)]
    for window in history.windows:
        known += [Known(short(window.loss, digits), "training_loss", window.loss) for digits in (3, 4)]
    return known


def _name_of(figure: Figure) -> str:
    """The name of a figure, which tells that it is of validation rows."""
    is_told = "validation" in figure.name or "metric" in figure.name
    is_held_out = any(source.kind == "evaluation" for source in figure.source)
    return f"validation_{figure.name}" if is_held_out and not is_told else figure.name


def _check_journal(history: History, made: Verification) -> Iterator[Deviation]:
    """The lines by their checksums, and the journal by the heads that others hold of it."""
    path = history.run.path / "journal.jsonl"
    made.count("records", len(history.ledger.all))
    for line in history.ledger.damaged:
        rule = "its checksum does not hold, or its record is none that a run writes"
        yield Deviation("journal.jsonl", "line", "a damaged line", "", rule, line)
    heads = dict(_heads(history))
    made.count("heads of the journal", len(heads))
    if not heads:
        made.open.append(_NO_CHAIN)
        return
    found = hash_until(path, [head.bytes for head in heads.values()])
    good = max((h.bytes for h in heads.values() if found.get(h.bytes) == h.sha256), default=0)
    wrong = [(h.bytes, where, h) for where, h in heads.items() if found.get(h.bytes) != h.sha256]
    for place, where, head in sorted(wrong)[:1]:
        lines = _lines_of(path, min(good, place), place)
        what = "they were changed, put in or left out" if place in found else "the journal was cut off"
        rule = f"lines {lines[0]:,} to {lines[1]:,} are not those of which {where} holds the head: {what}"
        rule += f"; so say {plural(len(wrong), 'head')} in all"
        stated = found.get(place, "")[:16] or f"{path.stat().st_size:,} bytes"
        yield Deviation("journal.jsonl", "chain", stated, f"{head.sha256[:16]} of {place:,} bytes", rule)


def _check_times(history: History, made: Verification) -> Iterator[Deviation]:
    """Times of the records of training, between those of run.json and lease.json."""
    run = history.run
    times = [time for event, time, _ in history.ledger.all if isinstance(event, Attempt | Step | Evaluation)]
    with contextlib.suppress(ValueError):
        created = datetime.fromisoformat(run.info["created"]).timestamp()
        made.count("dates", len(times))
        if times and times[0] < created - _CLOCKS:
            rule = "a record of a run cannot be older than its run"
            yield Deviation("journal.jsonl", "date", moment(times[0]), f"after {moment(created)}", rule)
    end = run.lease["heartbeat"]
    if times and times[-1] > end + _CLOCKS:
        rule = "no record of training comes after the process of the run wrote lease.json at its end"
        yield Deviation("journal.jsonl", "date", moment(times[-1]), f"until {moment(end)}", rule)


def _heads(history: History) -> Iterator[tuple[str, Head]]:
    """The heads of the journal of a run, by where they stand."""
    run = history.run
    for entry in history.ledger.all:
        if isinstance(entry.event, CheckpointSaved) and entry.event.journal:
            with contextlib.suppress(ValueError):
                if head := Head.read(entry.event.journal):
                    yield f"the record of {entry.event.name}, attempt {entry.attempt}", head
    for path in list_checkpoints(run.checkpoints):
        with contextlib.suppress(DamageError, InputError):  # of which `_check_checkpoints` tells
            if head := Head.read(read_manifest(path).get("journal")):
                yield f"the manifest of {path.name}", head
    if head := Head.read(run.lease.get("journal")):
        yield "lease.json", head
    with contextlib.suppress(InputError, ValueError):  # of which `_check_report` tells
        head = read_written(run.path / "report").journal
        if head.bytes:
            yield f"report/{NAME}", head


def _lines_of(path: Path, start: int, end: int) -> tuple[int, int]:
    """Numbers of the first and the last line between two places of a journal."""
    with durable.open_plain(path, follow=False) as file:
        before = sum(
            block.count(b"\n") for block in iter(lambda: file.read(min(1 << 20, start - file.tell())), b"")
        )
        within = sum(
            block.count(b"\n") for block in iter(lambda: file.read(min(1 << 20, end - file.tell())), b"")
        )
    return before + 1, before + max(within, 1)


def _check_checkpoints(history: History, made: Verification) -> Iterator[Deviation]:
    """Every checkpoint by its manifest, and that by the record that it was saved."""
    run = history.run
    saved = {each.name: each for each in history.events(CheckpointSaved)}
    for path in list_checkpoints(run.checkpoints):
        file = f"checkpoints/{path.name}"
        try:
            manifest = check_files(path, read_manifest(path), run.info["id"])
        except DamageError as error:
            yield Deviation(file, "checkpoint", "files that are not as written", "", str(error))
            continue
        made.count("files of checkpoints", len(manifest["files"]))
        record = saved.get(path.name)
        if record is None:
            made.open.append(f"no record says that {path.name} was saved, as after a kill just then")
        elif manifest.get("journal") != record.journal:
            rule = "its manifest and the record that it was saved hold different heads of the journal"
            stated, follows = str(manifest.get("journal")), str(record.journal)
            yield Deviation(f"{file}/manifest.json", "chain", stated, follows, rule)


def _check_files(history: History, made: Verification) -> Iterator[Deviation]:
    """Recipe, data and best checkpoint as the other files of the folder have them."""
    run, data = history.run, history.data
    try:
        run.require_own_recipe()
    except InputError as error:
        yield Deviation("resolved.toml", "value", "another recipe", run.info["recipe_hash"], str(error))
    made.count("files of the run", 1)
    if data:
        rule = "the data record of the journal has another fingerprint of the data"
        said: dict[str, Any] = {}
        try:
            said["environment.json"] = run.environment["data_fingerprint"]
        except MissingError:
            made.open.append("environment.json is missing, as in a run that was killed before its first step")
        for path in list_checkpoints(run.checkpoints):
            with contextlib.suppress(InputError):
                state = durable.read_json_object(path / "state.json", follow=False)
                said[f"checkpoints/{path.name}/state.json"] = state.get("data_fingerprint")
        made.count("data fingerprints", len(said))
        for file, fingerprint in said.items():
            if fingerprint != data.fingerprint:
                yield Deviation(file, "data", str(fingerprint)[:16], data.fingerprint[:16], rule)
        if len(history.events(DataUsed)) > 1:
            yield Deviation(
                "journal.jsonl", "data", "several data records", "one", "a run uses its data once"
            )
    if run.best and (follows := _best_of(history)):
        made.count("files of the run", 1)
        rule = "the last evaluation that was the best so far says otherwise"
        stated = {key: run.best.get(key) for key in follows}
        yield from compare_values("best.json", stated, follows, rule)


def _best_of(history: History) -> dict[str, Any]:
    """The best checkpoint as the evaluations give it; empty where they do not."""
    best = history.best
    value = summarize_history(history)["metric_best"] if best else None
    if best is None or value is None or not math.isfinite(value):
        return {}
    return {"checkpoint": checkpoint_name(best.step), "value": value}


def _check_report(history: History, made: Verification) -> Iterator[Deviation]:
    """The report as it stands: Markdown, JSON, page and charts."""
    run, folder = history.run, history.run.path / "report"
    try:
        stated = durable.read_text(folder / "report.md", most_bytes=_MOST_BYTES, follow=False)
    except MissingError:
        made.open.append(NO_REPORT)
        return
    except InputError as error:
        yield Deviation("report/report.md", "words", "a file that cannot be read", "", str(error))
        return
    written: Written | None = None
    try:
        written = read_written(folder)
    except MissingError:
        made.open.append(
            f"report/{NAME} is missing, so the report is held against the records as they are now"
        )
    except (InputError, ValueError) as error:
        yield Deviation(f"report/{NAME}", "value", "a file that no report writes", "", str(error))
    if written:
        size = min(written.journal.bytes, history.ledger.size)
        yield from _check_then(history, written, made)
        history = History(run, run.ledger(until=size), written.then)
    report = make_report(history)
    made.count("figures of the report", sum(len(place.figures) for place in report.places))
    yield from compare_reports("report/report.md", stated, report, history, made)
    if written:
        yield from _check_values(written, report, made)
    yield from _check_page(folder, history, report)
    for name, svg in report.charts.items():
        made.count("charts")
        yield from check_chart(folder, name, svg, made)


def _check_values(written: Written, report: Report, made: Verification) -> Iterator[Deviation]:
    """report.json by its values; rules of another etude may have made others."""
    left_out = set()
    if not written.is_of_this_code:
        version = str(written.values["etude"])[:40]
        made.open.append(
            f"the report was written by etude {version}, by other rules than those here; sentences may "
            "differ for that; etude report RUN writes it anew"
        )
        left_out = {"code", "etude"}
    stated, follows = (
        {key: value for key, value in values.items() if key not in left_out}
        for values in (written.values, report.values)
    )
    yield from compare_values(f"report/{NAME}", stated, follows, "the records give another value")


def _check_then(history: History, written: Written, made: Verification) -> Iterator[Deviation]:
    """The folder as it was by report.json, held against the journal as far as that knows it."""
    file, then, run = f"report/{NAME}", written.then, history.run
    words = shlex.split(then["argument"]) if "\n" not in then["argument"] else []
    if len(words) != 1 or Path(words[0]).name != run.name:
        yield Deviation(file, "run", str(then["argument"])[:80], run.name, "it names another run")
        then["argument"] = ""
    now = summarize_history(History(run, history.ledger))
    saved = {entry.event.name for entry in history.ledger.all if isinstance(entry.event, CheckpointSaved)}
    saved |= {path.name for path in list_checkpoints(run.checkpoints)}
    if lost := sorted({*then["checkpoints"]} - saved):
        yield Deviation(file, "value", lost[0], "", "no record says that this checkpoint was saved")
    measured, said = now["disk_bytes"], then["disk_bytes"] or 0
    is_over = written.journal.bytes == history.ledger.size and then["checkpoints"] == now["checkpoints"]
    if is_over and abs(said - measured) > _DISK_SHARE * measured + (1 << 20):
        yield Deviation(
            file, "value", f"disk_bytes = {said:,}", f"{measured:,}", "the folder has another size"
        )
    if not is_over:
        made.open.append(
            f"the run went on after its report, or a checkpoint was removed: {said:,} bytes on disk and the "
            "checkpoints of then cannot be measured again"
        )
    best = {name.removeprefix("best_"): then[name] for name in ("best_checkpoint", "best_value")}
    earlier = History(run, run.ledger(until=min(written.journal.bytes, history.ledger.size)))
    if best["checkpoint"] and (follows := _best_of(earlier)):
        rule = "the last evaluation that was the best so far says otherwise"
        yield from compare_values(file, best, follows, rule, "folder.best")


def _check_page(folder: Path, history: History, report: Report) -> Iterator[Deviation]:
    """report.html, where it was written."""
    try:
        stated = durable.read_text(folder / "report.html", most_bytes=_MOST_BYTES, follow=False)
    except MissingError:
        return
    except InputError as error:
        yield Deviation("report/report.html", "words", "a file that cannot be read", "", str(error))
        return
    recipe = history.run.recipe
    title = recipe.records.title or recipe.name
    page = to_html(report.text, title, report.charts, report.places, report.values)
    yield from compare_texts("report/report.html", stated, page)


def check_chart(folder: Path, name: str, svg: bytes, made: Verification) -> Iterator[Deviation]:
    """A chart, byte by byte if the same program drew it."""
    file = f"report/{name}"
    try:
        stated = durable.read_bytes(folder / name, most_bytes=_MOST_BYTES, follow=False)
    except InputError:
        yield Deviation(file, "missing", "", name, "the records give it, and it is not there")
        return
    if stated != svg:
        drawn = [re.findall(rb"Matplotlib v[\w.]{1,20}", each[:4000]) for each in (stated, svg)]
        if drawn[0] == drawn[1]:
            yield Deviation(file, "chart", "another drawing", name, "the records draw another one")
        else:
            made.open.append(f"{file} was drawn by another version of matplotlib")
