"""The series of a run as columns in a cache, each line of its journal read once.

Memory does not grow with a run: blocks of the journal become rows of tables, and a range of them is read when
it is drawn. A cache that is damaged, or not of the journal as it is, is made anew.
"""

import contextlib
import functools
import hashlib
import itertools
import math
import os
import threading
import time
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from etude import durable
from etude.errors import DamageError, EtudeError, InputError
from etude.records import flat
from etude.records.events import Attempt, Evaluation, Event, Resource, Step
from etude.records.journal import Lines, check_lines, parse_line
from etude.records.shape import Object, fit
from etude.records.store import Run
from etude.records.window import mean_steps
from etude.ui.cleaning import mark_used
from etude.ui.tables import MISSING, Array, Table

FORMAT = 1
AXES = ("step", "tokens", "seconds", "epoch")
END = len(AXES)  # the column with the byte of the journal behind the record
_FIRST = [*AXES, "end"]
_STEPS = [*_FIRST, "train/loss", "learning_rate", "grad_norm", "step_seconds", "loss_scale", "weight"]
_RESOURCES = [
    *_FIRST, "tokens_per_second", "mfu", "wait_ratio", "cpu_percent", "rss_bytes", "gpu_percent",
    "gpu_memory_bytes",
]  # fmt: skip
_EVALUATIONS = [*_FIRST, "validation/loss", "gap", "validation/perplexity", "validation/bits_per_byte"]
_LOSS, _WEIGHT = _STEPS.index("train/loss"), _STEPS.index("weight")
_MOST_METRICS, _MOST_NAMED = 400, 100  # names of metrics that are kept, and of those left out that are told
_EDGE_BYTES = 1 << 12  # at the start and the end of what was read, by which a journal is known again
_SAVE_BYTES, _SAVE_MORE_BYTES = 4 << 20, 64 << 20  # of a journal, after which its columns are made durable
_MOST_OPEN = 512
_MARK_SECONDS = 3600.0  # between two marks of use on a folder of columns
_HEAD = Object({
    "format": int, "size": int, "lines": int, "damaged": int, "start": int, "end": int, "per_epoch": int,
    "window": int, "in_window": int, "counts": list[int], "metrics": list[str], "left_out": list[str],
})  # fmt: skip


class Columns:
    """The columns of one run, which follow its journal. Any thread may ask; one at a time reads.

    size        bytes of the journal that were taken in
    part        share of the journal that the last update came to, 1 if it had the time for all
    generation  changes when rows became void, so that what was sent before no longer holds
    damaged     lines that are none that a run writes
    left_out    metrics beyond the most that are kept
    """

    def __init__(self, run: Run) -> None:
        self._journal = run.path / "journal.jsonl"
        self._folder = _folder_of(self._journal)
        self._has_gap = functools.cache(lambda: _is_loss_plain(run))
        self.turn = threading.RLock()
        self.generation, self.part = 0, 1.0
        self._begin_anew()
        self._is_loaded, self._marked = False, -_MARK_SECONDS

    def update(self, seconds: float = math.inf) -> None:
        """Take in what was appended since, for about so many seconds; the next update goes on from there.

        Raises: InputError if the journal cannot be one; StorageError.
        """
        with self.turn:
            deadline = time.monotonic() + seconds
            try:
                self._update(deadline)
            except DamageError:
                self._begin_anew()
                self._update(deadline)

    @property
    def tables(self) -> list[Table]:
        return [self.steps, self.resources, self.evaluations]

    def find(self, name: str) -> tuple[Table, int] | None:
        """The table of a series and its column; None if the run has none of that name."""
        for table in self.tables:
            if name in table.columns[len(_FIRST) :] and name != "weight":
                return table, table.columns.index(name)
        return None

    def names(self) -> list[str]:
        """The series that the run has records of."""
        with self.turn:
            return [
                name
                for table in self.tables
                if table.count
                for name in table.columns[len(_FIRST) :]
                if name != "weight"
            ]

    @property
    def loss_window(self) -> int:
        """The number of last steps whose mean is the training loss, as the figures of a run take it."""
        return mean_steps(self._window, self.steps.count)

    def mean_loss(self, step: float = math.inf) -> float | None:
        """Mean loss over the targets of the last `loss_window` steps up to one."""
        self.steps.flush()
        count = self.steps.find(0, step, right=True)
        first = max(count - self.loss_window, 0)
        near = self.steps.rows(first, count)[:, [_LOSS, _WEIGHT]]
        kept = near[near[:, 1] > 0]
        with np.errstate(invalid="ignore", over="ignore"):  # of losses that are not finite there is no mean
            return float(np.average(kept[:, 0], weights=kept[:, 1])) if len(kept) else None

    def _begin_anew(self) -> None:
        """Forget all rows; files are overwritten as rows come."""
        self.size = self.lines = self.damaged = self._saved = 0
        self._edges = (0, 0)
        self._per_epoch, self._window, self._in_window = 0, 0, 0
        self.steps = Table(self._folder, "steps", _STEPS)
        self.resources = Table(self._folder, "resources", _RESOURCES)
        self.evaluations = self._table_of_evaluations(_EVALUATIONS)
        self.left_out: list[str] = []
        self._tokens = self._seconds = 0.0
        self.generation += 1

    def _update(self, deadline: float) -> None:
        if not self._is_loaded:
            self._load()
            self._is_loaded = True
        if time.monotonic() - self._marked > _MARK_SECONDS:
            self._marked = time.monotonic()
            mark_used(self._folder)
        try:
            size = self._journal.lstat().st_size
        except OSError:
            size = 0
        self.part = 1.0
        if size < self.size or (size > self.size and self._edges != _edges(self._journal, self.size)):
            self._begin_anew()
        if size == self.size:
            return
        if not self._folder.is_dir():  # to make it waits for the disk, as a training beside it does
            durable.make_folder(self._folder)
        lines = Lines(self._journal, self.size)
        try:
            for block in lines.read():
                self._take_block(block)
                self.size = lines.size
                if time.monotonic() > deadline:
                    break
        finally:
            for table in self.tables:
                table.flush()
        self._edges = _edges(self._journal, self.size)
        self.part = min(self.size / size, 1.0) if time.monotonic() > deadline else 1.0
        if self.size - self._saved >= (_SAVE_BYTES if self.part == 1 else _SAVE_MORE_BYTES):
            self._save()

    def _take_block(self, block: list[bytes]) -> None:
        lengths = np.fromiter(map(len, block), np.float64, len(block)) + 1
        ends = (self.size + np.cumsum(lengths)).tolist()
        start = 0
        for other in flat.others(block):
            self._take_flat(block[start:other], ends[start:other])
            self._take(block[other], ends[other])
            start = other + 1
        self._take_flat(block[start:], ends[start:])
        self.lines += len(block)

    def _take_flat(self, lines: list[bytes], ends: list[float]) -> None:
        """Take in steps and resources at once; where a line is odd, by halves."""
        if len(lines) < 2:
            for line, end in zip(lines, ends):
                self._take(line, end)
            return
        try:
            check_lines(lines)
            kinds = list(map(flat.is_step, lines))
            steps = flat.read_values(list(itertools.compress(lines, kinds)), Step)
            others = [not kind for kind in kinds]
            resources = flat.read_values(list(itertools.compress(lines, others)), Resource)
        except ValueError:
            half = len(lines) // 2
            self._take_flat(lines[:half], ends[:half])
            self._take_flat(lines[half:], ends[half:])
            return
        axes = self._now
        if steps:
            rows = self._add_steps(steps, list(itertools.compress(ends, kinds)))
            axes = np.concatenate([axes, rows[:, :3]])
        if resources:
            self._close_window(kinds)
            self._add_resources(resources, list(itertools.compress(ends, others)), axes)
        else:
            self._in_window += len(steps)

    def _take(self, line: bytes, end: float) -> None:
        try:
            found = parse_line(line, self._journal)
            if found is not None:
                self._take_event(found[0], end)
        except (ValueError, KeyError, RecursionError, OverflowError):
            self.damaged += 1

    def _take_event(self, event: Event, end: float) -> None:
        if isinstance(event, Attempt):
            self._cut(event.from_step)
            self._per_epoch = event.steps_per_epoch
        elif isinstance(event, Step):
            self._add_steps([tuple(event)], [end])
            self._in_window += 1
        elif isinstance(event, Resource):
            self._close_window([False])
            self._add_resources([tuple(event)], [end], self._now)
        elif isinstance(event, Evaluation):
            self._add_evaluation(event, end)

    def _cut(self, from_step: int) -> None:
        """Make void what is beyond the step that an attempt begins from, as readers of the journal do."""
        for table in self.tables:
            table.flush()
            count = table.find(0, from_step, right=True) if from_step else 0
            self.generation += count < table.count
            table.cut(count)
        self._take_sums()
        self._in_window = 0
        self._window = self._window if self.steps.count else 0

    def _close_window(self, kinds: list[bool]) -> None:
        """Note the number of steps of the first log window, over which a gap is measured."""
        if not self._window:
            self._window = self._in_window + kinds.index(False)
        self._in_window = kinds[::-1].index(False)

    def _add_steps(self, values: list[tuple[Any, ...]], ends: list[float]) -> Array:
        """Add rows of steps, whose values are in the order of `Step`; returns them."""
        place = {name: index for index, name in enumerate(Step._fields)}
        found = np.array(values, np.float64).T  # None becomes NaN
        step, epoch, targets = found[place["step"]], found[place["epoch"]], found[place["targets"]]
        tokens, scales = found[place["tokens"]], [each[place["loss_scale"]] for each in values]
        rows = np.empty((len(values), len(_STEPS)))
        rows[:, 0] = step
        rows[:, 1] = self._tokens + np.cumsum(np.where(np.isnan(tokens), targets, tokens))
        rows[:, 2] = self._seconds + np.cumsum(found[place["seconds"]])
        rows[:, 3] = np.clip(step / max(self._per_epoch, 1), epoch, epoch + 1)
        rows[:, END] = ends
        for column, name in enumerate(("loss", "learning_rate", "grad_norm", "seconds"), _LOSS):
            rows[:, column] = found[place[name]]
        rows[:, _WEIGHT - 1] = MISSING if not any(scales) else [MISSING if s is None else s for s in scales]
        rows[:, _WEIGHT] = np.where(found[place["skipped"]] != 0, 0.0, targets)
        self._tokens, self._seconds = rows[-1, 1:3].tolist()
        self.steps.append(rows)
        return rows

    def _add_resources(self, values: list[tuple[Any, ...]], ends: list[float], axes: Array) -> None:
        """Add rows of resources; `axes` are step, tokens and seconds of what came before and among them."""
        place = {name: index for index, name in enumerate(Resource._fields)}
        rows = np.empty((len(values), len(_RESOURCES)))
        rows[:, 0] = [each[0] for each in values]
        rows[:, 1:3] = axes[np.maximum(np.searchsorted(axes[1:, 0], rows[:, 0], "right"), 0), 1:3]
        rows[:, 3] = rows[:, 0] / max(self._per_epoch, 1)
        rows[:, END] = ends
        for column, name in enumerate(_RESOURCES[len(_FIRST) :], len(_FIRST)):
            rows[:, column] = [MISSING if each[place[name]] is None else each[place[name]] for each in values]
        self.resources.append(rows)

    @property
    def _now(self) -> Array:
        """Step (of no meaning), tokens and seconds after the last step, as a row."""
        return np.array([[0.0, self._tokens, self._seconds]])

    def _add_evaluation(self, event: Evaluation, end: float) -> None:
        named: dict[str, float | None] = {
            **{f"validation/{name}": value for name, value in event.metrics.items()},
            "validation/loss": event.loss, "validation/perplexity": event.perplexity,
            "validation/bits_per_byte": event.bits_per_byte, "gap": self._gap(event),
        }  # fmt: skip
        known = set(self.evaluations.columns)
        new = [name for name in named if name not in known and name not in self.left_out]
        room = max(_MOST_METRICS - len(known), 0)
        self.left_out += new[room : room + max(_MOST_NAMED - len(self.left_out), 0)]
        if new[:room]:
            self._widen(new[:room])
        row = [named.get(name) for name in self.evaluations.columns[len(_FIRST) :]]
        values = [MISSING if value is None else value for value in row]
        axes = [event.step, self._tokens, self._seconds, event.step / max(self._per_epoch, 1)]
        self.evaluations.append(np.array([[*axes, end, *values]], np.float64))

    def _widen(self, names: list[str]) -> None:
        """Write the evaluations anew with more columns, in which the earlier ones have no value."""
        self.evaluations.flush()
        rows = self.evaluations.rows(0, self.evaluations.count)
        self.evaluations = self._table_of_evaluations([*self.evaluations.columns, *names])
        if len(rows):
            self.evaluations.append(np.hstack([rows, np.full((len(rows), len(names)), MISSING)]))

    def _table_of_evaluations(self, columns: list[str]) -> Table:
        """An empty table; each width has a file of its own, so that an old head never counts other rows."""
        return Table(self._folder, f"evaluations-{len(columns)}", list(columns))

    def _gap(self, event: Evaluation) -> float | None:
        """Validation loss less the mean training loss of the steps before it, as the figure of a run."""
        if not self.steps.count or not self._has_gap():
            return None
        mean = self.mean_loss(event.step)
        return None if mean is None else event.loss - mean

    def _load(self) -> None:
        """Take the columns of the cache, if they are of this journal and this version.

        Raises: InputError if the folder is another user's.
        """
        with contextlib.suppress(FileNotFoundError):
            if self._folder.lstat().st_uid != os.geteuid():
                raise InputError(f"{self._folder} belongs to another user; set ETUDE_CACHE to one of yours")
        try:
            head = fit(durable.read_json_object(self._folder / "head.json", follow=False), _HEAD)
            is_ours = head["format"] == FORMAT and len(head["counts"]) == len(self.tables)
            is_sane = min([head["size"], *head["counts"]]) >= 0 and len(head["metrics"]) <= _MOST_METRICS
            if is_ours and is_sane and (head["start"], head["end"]) == _edges(self._journal, head["size"]):
                self._restore(head)
        except (DamageError, InputError, ValueError, OSError):  # it is made again
            self._begin_anew()

    def _restore(self, head: dict[str, Any]) -> None:
        self.evaluations = self._table_of_evaluations([*_EVALUATIONS, *head["metrics"]])
        for table, count in zip(self.tables, head["counts"]):
            table.count = count
            table.check()
        self._take_sums()
        self.size = self._saved = head["size"]
        self._edges = head["start"], head["end"]
        self.lines, self.damaged, self.left_out = head["lines"], head["damaged"], head["left_out"]
        self._per_epoch, self._window = head["per_epoch"], head["window"]
        self._in_window = head["in_window"]

    def _take_sums(self) -> None:
        """Tokens and seconds up to the last step."""
        count = self.steps.count
        last = self.steps.rows(count - 1, count)[0, 1:3].tolist() if count else (0.0, 0.0)
        self._tokens, self._seconds = last

    def _save(self) -> None:
        for path in itertools.chain.from_iterable(table.files() for table in self.tables):
            durable.sync_file(path)
        metrics = self.evaluations.columns[len(_EVALUATIONS) :]
        start, end = self._edges
        head = {
            "format": FORMAT, "size": self.size, "lines": self.lines, "damaged": self.damaged, "start": start,
            "end": end, "per_epoch": self._per_epoch, "window": self._window, "in_window": self._in_window,
            "counts": [table.count for table in self.tables], "metrics": metrics, "left_out": self.left_out,
        }  # fmt: skip
        durable.write_json(self._folder / "head.json", head)
        self._saved = self.size


_open: OrderedDict[Path, Columns] = OrderedDict()
_opening = threading.Lock()


def open_columns(run: Run) -> Columns:
    """The columns of a run, the same object for all who ask; not up to date before `update`."""
    with _opening:
        found = _open.pop(run.path, None) or Columns(run)
        _open[run.path] = found
        while len(_open) > _MOST_OPEN:
            _open.popitem(last=False)
        return found


def _folder_of(journal: Path) -> Path:
    name = hashlib.sha256(os.fsencode(os.path.realpath(journal))).hexdigest()[:32]
    return durable.cache_folder("columns") / f"{os.geteuid()}-{name}"


def _edges(journal: Path, size: int) -> tuple[int, int]:
    """Checksums of the first and the last bytes of a part of a journal. Raises: MissingError, InputError."""
    with durable.open_plain(journal, follow=False) as file:
        start = zlib.crc32(file.read(min(_EDGE_BYTES, size)))
        file.seek(max(size - _EDGE_BYTES, 0))
        return start, zlib.crc32(file.read(min(_EDGE_BYTES, size)))


def _is_loss_plain(run: Run) -> bool:
    try:
        return run.recipe.is_loss_plain
    except EtudeError:
        return False
