"""report.json beside report.md: the figures of the report, the records of each, and the moment it is of."""

import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from etude import durable
from etude.records.head import HEAD, Head, hash_until
from etude.records.shape import Object, fit
from etude.report.figures import FIGURES, UNITS
from etude.report.history import History
from etude.report.summary import Summary, maker
from etude.report.told import Counts, Told, to_value, to_values

FORMAT, NAME = 1, "report.json"
# Figures that other files of the folder say than the journal, and that may be others later.
_OF_FOLDER = (
    "status", "reason", "checkpoints", "disk_bytes", "best_checkpoint", "best_metric", "best_value",
)  # fmt: skip
_MOST_BYTES = 64 << 20
_WRITTEN = Object(
    {"format": int, "run": str, "etude": str, "code": int, "journal": HEAD, "argument": str,
     "folder": Object(), "text": list[Any], "figures": list[Any]},
)  # fmt: skip


@dataclass(frozen=True)
class Written:
    """report.json as it stands: the moment that a report is of, and all its values.

    then  as of a `History`
    """

    journal: Head
    then: dict[str, Any]
    code: int
    values: dict[str, Any]

    @property
    def is_of_this_code(self) -> bool:
        """True if the rules of this etude are those that the report was written by."""
        return self.code == maker()


def head_of(history: History) -> Head:
    """The head of the journal of a run, as far as it was read."""
    size = history.ledger.size
    digest = (
        hash_until(history.run.path / "journal.jsonl", [size])[size] if size else hashlib.sha256().hexdigest()
    )
    return Head(size, digest)


def report_values(history: History, summary: Summary, text: str, places: list[Told]) -> dict[str, Any]:
    """The values of report.json: all that the report tells, and where it has it from."""
    counts = Counts(history)
    return {
        "format": FORMAT, "run": history.run.info["id"], "etude": metadata.version("etude-workbench"),
        "code": maker(), "journal": head_of(history)._asdict(), "argument": history.argument,
        "folder": {name: summary.figure(name).to_json() for name in _OF_FOLDER},
        "text": to_values(text, places, counts),
        "figures": [to_value(each, counts) for each in summary.figures],
    }  # fmt: skip


def read_written(folder: Path) -> Written:
    """The report.json of a folder. Raises: InputError or ValueError if no report writes it so."""
    values = fit(durable.read_json_object(folder / NAME, most_bytes=_MOST_BYTES, follow=False), _WRITTEN)
    kinds = {name: UNITS[unit] for name, (unit, _) in FIGURES.items() if name in _OF_FOLDER}
    then = {name: fit(values["folder"].get(name), kind) for name, kind in kinds.items()}
    head = Head.read(values["journal"])
    assert head is not None
    return Written(head, {**then, "argument": values["argument"]}, values["code"], values)
