"""Services that show the figures of runs: TensorBoard, Weights & Biases, MLflow, Trackio.

Each is a tracker that begins with the records so far: what a kill kept from it is sent again.
"""

import contextlib
import math
import os
import queue
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from etude.recipe.load import flatten
from etude.records import events
from etude.records.ending import Ending
from etude.records.events import Event
from etude.records.ledger import Ledger
from etude.records.store import Run, Tracker
from etude.records.window import OpenWindow
from etude.text import plural, shorten

_MOST_WAITING = 100_000  # records: those of a long run come at once when it is resumed
_END_SECONDS = 10.0
_END = object()
_NO_NOTICE = ("finish", events.ACCEPT, *events.REFUSALS)  # a flood of requests is no flood of alerts
_LONGEST_PARAM, _MOST_PARAMS = 6000, 100  # of MLflow, and in one request
_LONGEST_NOTICE, _MOST_NOTICES = 500, 50


class TensorBoard:
    """Event files under `tensorboard/` that `tensorboard --logdir` reads.

    A kill loses what waits in memory, so each attempt writes all that counts again, and hides what earlier
    ones wrote.
    """

    def __init__(self, run: Run, ledger: Ledger) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._window = OpenWindow()
        folder = run.path / "tensorboard"
        # Readers take the files by name, which begins with the second of the start; ".10" comes before ".9".
        if list(folder.glob(f"events.out.tfevents.{int(time.time()):010d}.*")):
            time.sleep(1)
        self._writer = SummaryWriter(str(folder), purge_step=0 if folder.exists() else None)
        for entry in ledger.entries:
            self._write(entry.event, entry.time)

    def write(self, event: Event) -> None:
        self._write(event, None)

    def close(self) -> None:
        self._writer.close()

    def _write(self, event: Event, when: float | None) -> None:
        for name, value in scalars(event, self._window).items():
            self._writer.add_scalar(name, value, event.step, when)  # type: ignore[union-attr]
        if isinstance(event, events.Generation):
            self._writer.add_text(event.prompt[:40] or "sample", event.text, event.step, when)
        if notice := notice_of(event):
            self._writer.add_text("notices", f"**{notice.title}** {notice.text}", notice.step, when)


class WeightsAndBiases:
    """A run at Weights & Biases, continued under the same id; WANDB_MODE, WANDB_PROJECT and so on hold.

    A kill loses what was not sent or written yet, so each attempt sends again what W&B does not have. Its
    steps are those of the run; one that a restart repeats has the same figures, and W&B keeps the first. Its
    summary has the last figures, and under best/ those of the best evaluation by the metric of the recipe.
    """

    def __init__(self, run: Run, ledger: Ledger) -> None:
        import wandb

        self._window = OpenWindow()
        # Without git, which would run what the .git/config of the current folder names; the record has the
        # commit.
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "etude"), name=run.name, id=run.info["id"],
            resume="allow", dir=str(run.path), config=run.recipe.to_dict(), tags=run.recipe.records.tags,
            settings=wandb.Settings(disable_git=True, disable_code=True),
        )  # fmt: skip
        # The next step that W&B takes: offline the first, so that each folder to sync holds the whole run.
        self._next_step = self._run.step
        for entry in ledger.entries:
            self._log(entry.event)

    def write(self, event: Event) -> None:
        self._log(event)
        if (notice := notice_of(event)) and notice.severity != "info":  # a mail each, where one set that up
            levels = {"warning": "WARN", "error": "ERROR"}
            self._run.alert(notice.title, f"step {notice.step:,}: {notice.text}", levels[notice.severity])

    def close(self) -> None:
        self._run.finish()

    def _log(self, event: Event) -> None:
        values = {name: value for name, value in scalars(event, self._window).items() if math.isfinite(value)}
        step: int = getattr(event, "step", 0)
        if values and step >= self._next_step:
            self._run.log({**values, "step": step}, step=step)
        if isinstance(event, events.Evaluation) and event.best:
            figures = {name.replace("validation/", "best/"): value for name, value in values.items()}
            self._run.summary.update({**figures, "best/step": step})


class MLflow:
    """A run of MLflow, found again by its tag `etude.run`; MLFLOW_TRACKING_URI and so on hold.

    Without that variable it is kept in the folder `mlflow` of the run. Findings and interventions are the
    description of the run. A server that hangs makes no step wait: the records are sent in a thread.
    """

    def __init__(self, run: Run, ledger: Ledger) -> None:
        self._run, self._window = run, OpenWindow()
        self._client: Any = None
        self._id, self._status = "", "KILLED"
        self._sent: dict[str, int] = {}  # the last step that MLflow has, by figure
        self._notices: list[str] = []
        self._sender = _Sender(self._send)
        for entry in ledger.entries:
            self._sender.put((entry.event, entry.time))

    def write(self, event: Event) -> None:
        self._sender.put((event, time.time()))

    def close(self) -> None:
        self._sender.put(None)
        self._sender.close()

    def _open(self) -> None:
        """Find the run there, with what it has; make it if it is new."""
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        where = os.environ.get("MLFLOW_TRACKING_URI")
        if not where:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            where = (self._run.path / "mlflow").absolute().as_uri()
        client = MlflowClient(where)
        info, recipe = self._run.info, self._run.recipe
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "etude")
        experiment = client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else client.create_experiment(name)
        if found := client.search_runs([place], f"tags.`etude.run` = '{info['id']}'", max_results=1):
            self._id = found[0].info.run_id
            client.update_run(self._id, status="RUNNING")
            for figure in found[0].data.metrics:
                points = client.get_metric_history(self._id, figure)
                self._sent[figure] = max((point.step for point in points), default=-1)
        else:
            tags = {"etude.run": info["id"], **{f"etude.tag.{tag}": tag for tag in recipe.records.tags}}
            self._id = client.create_run(place, tags=tags, run_name=self._run.name).info.run_id
            values = flatten(recipe.to_dict()).items()
            params = [Param(key, str(value)[:_LONGEST_PARAM]) for key, value in values if value is not None]
            for first in range(0, len(params), _MOST_PARAMS):
                client.log_batch(self._id, params=params[first : first + _MOST_PARAMS])
        self._client = client

    def _send(self, item: tuple[Event, float] | None) -> None:
        from mlflow.entities import Metric

        if self._client is None:
            self._open()
        if item is None:
            self._client.set_terminated(self._id, self._status)
            return
        event, when = item
        if isinstance(event, events.Control):
            state = ending.state if (ending := Ending.of(event)) else ""
            self._status = {"finished": "FINISHED", "failed": "FAILED"}.get(state, "KILLED")
        step, stamp = getattr(event, "step", 0), round(when * 1000)
        # MLflow refuses other characters, as in pass@1.
        values = {
            re.sub(r"[^/\w.\- :]", "_", name.replace("@", "_at_")): value
            for name, value in scalars(event, self._window).items()
        }
        new = {name: value for name, value in values.items() if step > self._sent.get(name, -1)}
        self._sent.update(dict.fromkeys(new, step))
        if isinstance(event, events.Evaluation) and event.best:
            new.update({name.replace("validation/", "best/"): value for name, value in values.items()})
        if new:
            metrics = [Metric(name, value, stamp, step) for name, value in new.items()]
            self._client.log_batch(self._id, metrics=metrics)
        if notice := notice_of(event):
            said = f"- step {notice.step:,}: **{notice.title}** {notice.text}"
            self._notices = [*self._notices, shorten(said, _LONGEST_NOTICE)][-_MOST_NOTICES:]
            self._client.set_tag(self._id, "mlflow.note.content", "\n".join(self._notices))


class Trackio:
    """A run of Trackio under the id of ours; TRACKIO_DIR, TRACKIO_PROJECT, TRACKIO_SPACE_ID and so on hold.

    Findings and interventions are its alerts. What a kill lost is sent again where its database is local.
    """

    def __init__(self, run: Run, ledger: Ledger) -> None:
        import trackio
        from trackio.sqlite_storage import SQLiteStorage

        for module in (trackio, trackio.run, trackio.utils):
            module.print = lambda *_, **__: None  # its lines would run through the view of the run
        project, self._window = os.environ.get("TRACKIO_PROJECT", "etude"), OpenWindow()
        self._run = trackio.init(
            project, name=run.info["id"], config=flatten(run.recipe.to_dict()), resume="allow", embed=False,
            auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip
        self._sent: dict[str, int] = {}
        for row in SQLiteStorage.get_logs(project, run.info["id"]):
            self._sent.update(dict.fromkeys(row, row["step"]))
        known = set()
        with contextlib.suppress(ValueError):  # there is no such project yet
            alerts = trackio.Api().alerts(project, run=run.info["id"])
            known = {(each["title"], each["step"]) for each in alerts}
        for entry in ledger.entries:
            self._log(entry.event)
            if (notice := notice_of(entry.event)) and (notice.title, notice.step) not in known:
                self._alert(notice)

    def write(self, event: Event) -> None:
        self._log(event)
        if notice := notice_of(event):
            self._alert(notice)

    def close(self) -> None:
        self._run.finish()

    def _log(self, event: Event) -> None:
        step: int = getattr(event, "step", 0)
        values = scalars(event, self._window)
        new = {name: value for name, value in values.items() if step > self._sent.get(name, -1)}
        self._sent.update(dict.fromkeys(new, step))
        if new:
            self._run.log(new, step=step)

    def _alert(self, notice: "Notice") -> None:
        import trackio

        level = {"info": "INFO", "warning": "WARN", "error": "ERROR"}[notice.severity]
        self._run.alert(notice.title, notice.text, level=trackio.AlertLevel[level], step=notice.step)


SERVICES: dict[str, Callable[[Run, Ledger], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
    "trackio": Trackio,
}


class _Sender:
    """A thread that sends what it is given, in its order, to a service for which no step waits.

    Raises: what sending raised, at the next `put` or at the end; TimeoutError if too much waits, or the end
    takes too long.
    """

    def __init__(self, send: Callable[[Any], None]) -> None:
        self._send = send
        self._error: Exception | None = None
        self._waiting: queue.Queue[Any] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
        self._thread.start()

    def put(self, item: Any) -> None:
        if self._error:
            raise self._error
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            raise TimeoutError(f"{_MOST_WAITING:,} records wait to be sent") from None

    def close(self) -> None:
        """Send what waits, for some seconds at most."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(_END)
        self._thread.join(_END_SECONDS)
        if self._thread.is_alive():
            raise TimeoutError(
                f"{plural(self._waiting.qsize(), 'record')} could not be sent in {_END_SECONDS:.0f} s"
            )
        if self._error:
            raise self._error

    def _work(self) -> None:
        while (item := self._waiting.get()) is not _END:
            try:
                self._send(item)
            except Exception as error:
                self._error = error
                return


@dataclass(frozen=True)
class Notice:
    """A finding or an intervention in a run, for where a service has alerts or notes."""

    step: int
    title: str
    text: str
    severity: str


def notice_of(event: Event) -> Notice | None:
    """The notice that a record is worth; None for one that holds figures, or the usual end."""
    if isinstance(event, events.Finding):
        return Notice(event.step, event.what, f"{event.evidence}; {event.advice}", event.severity)
    if isinstance(event, events.Control) and event.action not in _NO_NOTICE:
        severity = "error" if event.action == "fail" else "info"
        return Notice(event.step, event.action, event.reason, severity)
    return None


def scalars(event: Event, window: OpenWindow) -> dict[str, float]:
    """The figures of a record under the names that charts are grouped by."""
    if ended := window.add(event):
        assert isinstance(event, events.Resource)
        named = {
            "train/loss": ended.loss, "train/grad_norm": ended.grad_norm,
            "train/learning_rate": ended.learning_rate, "train/skipped_steps": ended.skipped,
            "speed/tokens_per_second": event.tokens_per_second, "speed/mfu": event.mfu,
            "speed/wait_ratio": event.wait_ratio, "machine/cpu_percent": event.cpu_percent,
            "machine/rss_bytes": event.rss_bytes, "machine/gpu_percent": event.gpu_percent,
            "machine/gpu_memory_bytes": event.gpu_memory_bytes,
        }  # fmt: skip
        return {name: float(value) for name, value in named.items() if value is not None}
    if isinstance(event, events.Evaluation):
        named = {
            "validation/loss": event.loss, "validation/perplexity": event.perplexity,
            "validation/bits_per_byte": event.bits_per_byte,
            **{f"validation/{name}": value for name, value in event.metrics.items()},
        }  # fmt: skip
        return {name: float(value) for name, value in named.items() if value is not None}
    return {}
