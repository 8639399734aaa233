"""Runs as they were when a file told of them, by the heads of their journals that it holds."""

import contextlib
from dataclasses import dataclass, field, replace
from typing import Any

from etude import durable
from etude.errors import InputError
from etude.records.head import Head, hash_until
from etude.records.store import Run
from etude.report.deviations import Deviation
from etude.report.history import History
from etude.report.summary import summarize_history
from etude.report.verifying import Verification


@dataclass
class Moments:
    """Goes back to the moment of a file.

    made     takes what does not follow
    went_on  names of the runs that had not ended then, and have gone on
    """

    file: str
    made: Verification
    went_on: list[str] = field(default_factory=list)

    def take_code(self, stated: dict[str, Any], follows: dict[str, Any]) -> None:
        """Take out the checksum of the code that wrote the file, and say so if it is another."""
        if stated.pop("code", None) != follows.pop("code"):
            self.made.open.append(
                f"{self.file} was written by other rules than those here; values may differ for that"
            )

    def run(self, run: Run, head: Any) -> Run:
        """A run with its journal of then; with that of now where the head of it is none.

        head: as it stands in the file
        """
        path, known, found = run.path / "journal.jsonl", None, dict[int, str]()
        size = path.stat().st_size if durable.is_plain(path, follow=False) else 0
        with contextlib.suppress(InputError, ValueError):
            known = Head.read(head)
            found = hash_until(path, [known.bytes]) if known else {}
        self.made.count("heads of journals")
        if known is None:
            rule = f"it holds no head of the journal of {run.name}"
            self.made.deviations.append(Deviation(self.file, "chain", str(head)[:80], run.name, rule))
        elif found.get(known.bytes) != known.sha256:
            what = "was changed" if known.bytes in found else "was cut off"
            rule = f"the journal of {run.name} {what} since, or the head was"
            stated = f"{known.sha256[:16]} of {known.bytes:,} bytes"
            follows = found.get(known.bytes, "")[:16] or f"{size:,} bytes"
            self.made.deviations.append(Deviation(self.file, "chain", stated, follows, rule))
        elif known.bytes < size:
            then = replace(run, until=known.bytes)
            status = summarize_history(History(then, then.ledger())).figure("status")
            if any(source.kind == "lease.json" for source in status.source):
                self.went_on.append(run.name)
            return then
        return replace(run, until=size)
