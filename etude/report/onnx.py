"""An ONNX file of a run's encoder: how it was checked, and how it is used."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from etude.records.events import plain
from etude.report.markdown import table
from etude.report.program import run_onnx
from etude.report.wording import size
from etude.text import plural


@dataclass(frozen=True, kw_only=True)
class Onnx:
    """The result of an export as ONNX.

    file        its name
    bytes       of it
    samples     validation samples on which onnxruntime was held against etude
    difference  the largest one of a logit, in units of the largest logit where that is above 1
    """

    file: str
    bytes: int
    samples: int
    difference: float
    heading = "ONNX"
    said = "As an ONNX file, for onnxruntime."
    whose = "this model"
    asks = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "file": self.file, "bytes": self.bytes, "samples": self.samples,
            "difference": plain(self.difference),
        }  # fmt: skip

    def rows(self) -> Iterator[tuple[str, str]]:
        """The result in rows of a name and a value."""
        yield "file", size(self.bytes)
        yield "check", self._check

    def section(self) -> str:
        """The section of a model card."""
        return table(("", ""), [("File", size(self.bytes)), ("Check", self._check)])

    def program(self, auto: str) -> list[str]:
        """Lines of Python that use it."""
        return run_onnx(self.file, is_classifier=auto == "AutoModelForSequenceClassification")

    @property
    def _check(self) -> str:
        on = plural(self.samples, "validation sample")
        return f"logits of onnxruntime within {self.difference:.1g} of etude's on {on}, padded to each other"
