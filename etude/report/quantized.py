"""A quantised model beside the original: what it costs on the same rows, and what it saves."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from etude.records.events import plain
from etude.report.markdown import code, prose, table
from etude.report.wording import metric_title, number, percent, size, with_interval
from etude.text import plural

Interval = list[float]  # value, low and high at 95 %
_METHODS = {"gptq": "GPTQ", "round": "round to nearest"}
_LEAST_LOSS = 1e-6  # nats a target; a smaller loss is none, and has no share
_COSTLIEST = 4  # parts named in a card


def share_of_loss(loss: float, original: float) -> float:
    """The share of the original's loss by which another one is larger."""
    return (loss - original) / max(original, _LEAST_LOSS)


@dataclass(frozen=True)
class Beside:
    """A figure of both models, and the quantised one's less the original's; None where rows do not pair."""

    original: Interval
    quantized: Interval
    difference: Interval | None


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """The result of one quantised export.

    group             inputs that share a scale; None: all of an output
    method            gptq or round
    calibration       training samples that it was calibrated with, 0 without
    layers            quantised linear layers
    kept              layers of blocks that were left whole, as they cost too much
    costs             share of the loss that each part costs alone, on calibration samples
    figures           on the validation samples, by name
    samples           how many these are
    most_loss         share of the original's loss that it may cost
    file_bytes        of the weights' file: the original's and the quantised one's
    tokens_per_second that pass through the original and through the quantised model, read back, here
    """

    bits: int
    group: int | None
    method: str
    calibration: int
    layers: int
    kept: list[str]
    costs: Mapping[str, float]
    figures: Mapping[str, Beside]
    samples: int
    most_loss: float
    file_bytes: tuple[int, int]
    tokens_per_second: tuple[float, float]

    @property
    def loss(self) -> float:
        """The share of the original's loss that the quantised model costs; below 0 it is better."""
        loss = self.figures["loss"]
        return share_of_loss(loss.quantized[0], loss.original[0])

    @property
    def title(self) -> str:
        """The scheme in words."""
        per = f"groups of {self.group} inputs" if self.group else "each output"
        how = f"{_METHODS[self.method]}"
        if self.calibration:
            how += f" on {plural(self.calibration, 'training sample')}"
        return f"weights of {self.bits} bits, a scale for {per}, {how}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        figures = {
            name: {key: plain(value) for key, value in vars(each).items()}
            for name, each in self.figures.items()
        }
        before, after = self.file_bytes
        return {
            "bits": self.bits, "group": self.group, "method": self.method, "calibration": self.calibration,
            "layers": self.layers, "left_whole": self.kept, "loss": plain(self.loss),
            "most_loss": self.most_loss,
            "samples": self.samples, "figures": figures,
            "costs": {name: plain(value) for name, value in self.costs.items()},
            "file_bytes": {"original": before, "quantized": after},
            "tokens_per_second": dict(zip(("original", "quantized"), self.tokens_per_second)),
        }  # fmt: skip

    def rows(self) -> Iterator[tuple[str, str]]:
        """The result in rows of a name and a value."""
        before, after = self.file_bytes
        yield "scheme", self.title
        yield "layers", f"{self.layers} quantised, {len(self.kept)} of blocks left whole"
        yield "file", f"{size(after)}, {percent(after / before)} of {size(before)}"
        yield "loss", f"{self.loss:+.2%} (at most {self.most_loss:.2%}) on {plural(self.samples, 'sample')}"
        for name, each in self.figures.items():
            original, quantized, difference = self._cells(each)
            yield metric_title(name), f"{quantized}, original {original}, difference {difference}"

    def section(self) -> str:
        """The section of a model card."""
        before, after = self.file_bytes
        slow, fast = (number(round(each)) for each in self.tokens_per_second)
        rows = [[prose(metric_title(name)), *self._cells(each)] for name, each in self.figures.items()]
        header = ("on validation samples", "original", "quantised", "difference")
        costliest = sorted(self.costs, key=lambda name: -self.costs[name])[:_COSTLIEST]
        listed = ", ".join(f"{code(name)} {self.costs[name]:+.2%}" for name in costliest)
        whole = ", ".join(map(code, self.kept)) or "none of the blocks"
        facts = [
            ("Scheme", prose(f"{self.title}; symmetric, as compressed-tensors packs them")),
            ("Quantised", f"{plural(self.layers, 'linear layer')} of the blocks"),
            ("Left whole", f"embedding, norms, head; {whole}"),
            ("Loss that a part costs alone", f"{listed} on calibration samples"),
            ("Weights in the file", f"{size(after)}, {percent(after / before)} of {size(before)}"),
            (
                "Tokens a second read by etude here",
                f"original {slow}, quantised {fast}; the same arithmetic, as it makes "
                "numbers of the codes when it loads them: a difference is noise",
            ),
            ("Loss", f"{self.loss:+.2%} of the original's, {self.most_loss:.2%} at most was allowed"),
        ]
        said = "Read back from these files, beside the original on the same samples, intervals of 95 %:"
        return "\n\n".join([table(("", ""), facts), said, table(header, rows)])

    def _cells(self, each: Beside) -> tuple[str, str, str]:
        original, quantized = (
            with_interval(*value, rows=self.samples) for value in (each.original, each.quantized)
        )
        if each.difference is None:
            return original, quantized, "not paired"
        value, low, high = each.difference
        return original, quantized, f"{value:+.2g} [{low:.2g}, {high:.2g}]"
