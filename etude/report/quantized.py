"""A quantised model beside the original: what it costs on the same rows, and what it saves."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from etude.records.events import plain
from etude.report.markdown import code, prose, table
from etude.report.program import load_gguf, load_quantized
from etude.report.wording import metric_title, number, percent, size, with_interval
from etude.text import plural

Interval = list[float]  # value, low and high at 95 %
_METHODS = {"gptq": "GPTQ", "round": "round to nearest"}
_LEAST_LOSS = 1e-6  # nats a target; a smaller loss is none, and has no share
_COSTLIEST = 4  # parts named in a card
_LISTED = 8  # tensors named in a row


def share_of_loss(loss: float, original: float) -> float:
    """The share of the original's loss by which another one is larger."""
    return (loss - original) / max(original, _LEAST_LOSS)


@dataclass(frozen=True)
class Beside:
    """A figure of a model and of the one made of it, and the latter less the former.

    original    of the model, or of the best of several
    made        of the quantised model, or of their mean
    difference  None where rows do not pair
    """

    original: Interval
    made: Interval
    difference: Interval | None

    def cells(self, samples: int) -> tuple[str, str, str]:
        """The three in words; samples: how many they are of."""
        original, made = (with_interval(*value, rows=samples) for value in (self.original, self.made))
        if self.difference is None:
            return original, made, "not paired"
        value, low, high = self.difference
        return original, made, f"{value:+.2g} [{low:.2g}, {high:.2g}]"


class Form(Protocol):
    """A form of a model with fewer bits, as it was made."""

    @property
    def name(self) -> str:
        """The form within a sentence."""
        ...

    @property
    def title(self) -> str:
        """The scheme in words."""
        ...

    def rows(self) -> Iterator[tuple[str, str]]:
        """The form in rows of a name and a value."""
        ...

    def facts(self) -> Iterator[tuple[str, str]]:
        """The same in Markdown, for a card."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        ...

    def program(self, auto: str) -> list[str]:
        """Lines of Python that load it. auto: the class of transformers."""
        ...


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Weights of 4 or 8 bits as compressed-tensors packs them.

    group        inputs that share a scale; None: all of an output
    method       gptq or round
    calibration  training samples that it was calibrated with, 0 without
    layers       quantised linear layers
    kept         layers of blocks that were left whole, as they cost too much
    costs        share of the loss that each part costs alone, on calibration samples
    """

    bits: int
    group: int | None
    method: str
    calibration: int
    layers: int
    kept: list[str]
    costs: Mapping[str, float]

    @property
    def name(self) -> str:
        return f"{self.bits} bits"

    @property
    def title(self) -> str:
        per = f"groups of {self.group} inputs" if self.group else "each output"
        how = f"{_METHODS[self.method]}"
        if self.calibration:
            how += f" on {plural(self.calibration, 'training sample')}"
        return f"weights of {self.bits} bits, a scale for {per}, {how}"

    def rows(self) -> Iterator[tuple[str, str]]:
        yield "scheme", self.title
        yield "layers", f"{self.layers} quantised, {len(self.kept)} of blocks left whole"

    def facts(self) -> Iterator[tuple[str, str]]:
        costliest = sorted(self.costs, key=lambda name: -self.costs[name])[:_COSTLIEST]
        listed = ", ".join(f"{code(name)} {self.costs[name]:+.2%}" for name in costliest)
        whole = ", ".join(map(code, self.kept)) or "none of the blocks"
        yield "Scheme", prose(f"{self.title}; symmetric, as compressed-tensors packs them")
        yield "Quantised", f"{plural(self.layers, 'linear layer')} of the blocks"
        yield "Left whole", f"embedding, norms, head; {whole}"
        yield "Loss that a part costs alone", f"{listed} on calibration samples"

    def to_dict(self) -> dict[str, Any]:
        return {
            "bits": self.bits, "group": self.group, "method": self.method, "calibration": self.calibration,
            "layers": self.layers, "left_whole": self.kept,
            "costs": {name: plain(value) for name, value in self.costs.items()},
        }  # fmt: skip

    def program(self, auto: str) -> list[str]:
        return load_quantized(auto)


@dataclass(frozen=True, kw_only=True)
class Gguf:
    """A GGUF file.

    form           F16, Q8_0, Q6_K, Q5_K_M or Q4_K_M
    file           its name
    formats        of each tensor by its name there
    instead        the format that the form asks for, of tensors whose shape does not allow it
    splits         name of the way in which llama.cpp splits text
    texts          validation texts that were encoded in both ways, and those with other ids; None where the
                   two ways are the same
    bits_per_byte  of the original on these texts, as its tokenizer splits them and as llama.cpp does
    head_dim       numbers of a head, where transformers' reader takes another number
    """

    form: str
    file: str
    formats: Mapping[str, str]
    instead: Mapping[str, str]
    splits: str
    texts: tuple[int, int] | None
    bits_per_byte: tuple[float, float] | None
    head_dim: int | None = None

    @property
    def name(self) -> str:
        return f"GGUF {self.form}"

    @property
    def title(self) -> str:
        return f"GGUF {self.form}"

    def rows(self) -> Iterator[tuple[str, str]]:
        counts = Counter(self.formats.values()).most_common()
        yield "scheme", self.title
        yield "tensors", ", ".join(f"{count} {name}" for name, count in counts)
        if self.instead:
            named = [f"{name} {self.formats[name]} for {asked}" for name, asked in self.instead.items()]
            more = f", and {len(named) - _LISTED} more" if len(named) > _LISTED else ""
            yield "other formats", f"{', '.join(named[:_LISTED])}{more}: rows that no block divides"
        yield "text in llama.cpp", self._reading

    def facts(self) -> Iterator[tuple[str, str]]:
        rows = dict(self.rows())
        yield "Scheme", prose(rows["scheme"])
        yield "Tensors", prose(rows["tensors"])
        if self.instead:
            named = (f"{code(name)} {self.formats[name]} for {asked}" for name, asked in self.instead.items())
            yield "Other formats", f"{', '.join(named)}: rows that no block divides"
        yield "Text in llama.cpp", prose(rows["text in llama.cpp"])

    def to_dict(self) -> dict[str, Any]:
        return {
            "form": self.form, "file": self.file, "formats": dict(self.formats),
            "instead": dict(self.instead), "splits": self.splits, "texts": self.texts and list(self.texts),
            "bits_per_byte": self.bits_per_byte and [plain(each) for each in self.bits_per_byte],
        }  # fmt: skip

    def program(self, auto: str) -> list[str]:
        return load_gguf(auto, self.file, self.head_dim)

    @property
    def _reading(self) -> str:
        if self.texts is None or self.bits_per_byte is None:
            return f"split as {self.splits}, as the tokenizer does"
        texts, others = self.texts
        own, theirs = self.bits_per_byte
        cost = f"bits per byte {own:.4f}, there {theirs:.4f} ({share_of_loss(theirs, own):+.2%})"
        said = f"split as {self.splits}, the nearest that it knows"
        return f"{said}: {others} of {plural(texts, 'text')} get other ids; {cost}"


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """The result of one quantised export.

    form              the form it was written in
    figures           on the validation samples, by name
    samples           how many these are
    most_loss         share of the original's loss that it may cost
    base_loss         of the model that it was tuned from, on the same samples, where there is one
    file_bytes        of the weights' file: the original's and the quantised one's
    tokens_per_second that pass through the original and through the quantised model, read back, here
    """

    form: Form
    figures: Mapping[str, Beside]
    samples: int
    most_loss: float
    base_loss: float | None = None
    file_bytes: tuple[int, int]
    tokens_per_second: tuple[float, float]
    heading = "Quantisation"
    whose = "before it was quantised"
    asks = True

    @property
    def said(self) -> str:
        """A sentence on the form."""
        return f"Quantised: {prose(self.form.title)}."

    def program(self, auto: str) -> list[str]:
        """Lines of Python that load it. auto: the class of transformers."""
        return self.form.program(auto)

    @property
    def loss(self) -> float:
        """The share of the original's loss that the quantised model costs; below 0 it is better."""
        loss = self.figures["loss"]
        return share_of_loss(loss.made[0], loss.original[0])

    @property
    def gain(self) -> float | None:
        """The share of what tuning took from the base's loss that is left; None where it took nothing."""
        loss = self.figures["loss"]
        if self.base_loss is None or not self.base_loss - loss.original[0] > _LEAST_LOSS:
            return None
        return (self.base_loss - loss.made[0]) / (self.base_loss - loss.original[0])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        figures = {
            name: {
                "original": plain(each.original),
                "quantized": plain(each.made),
                "difference": plain(each.difference),
            }
            for name, each in self.figures.items()
        }
        before, after = self.file_bytes
        return {
            **self.form.to_dict(),
            "loss": plain(self.loss), "most_loss": self.most_loss,
            "base_loss": plain(self.base_loss), "gain_kept": plain(self.gain),
            "samples": self.samples, "figures": figures,
            "file_bytes": {"original": before, "quantized": after},
            "tokens_per_second": dict(zip(("original", "quantized"), self.tokens_per_second)),
        }  # fmt: skip

    def rows(self) -> Iterator[tuple[str, str]]:
        """The result in rows of a name and a value."""
        before, after = self.file_bytes
        yield from self.form.rows()
        yield "file", f"{size(after)}, {percent(after / before)} of {size(before)}"
        yield "loss", f"{self.loss:+.2%} (at most {self.most_loss:.2%}) on {plural(self.samples, 'sample')}"
        if self.gain is not None:
            yield "gain kept", self._gain_kept
        for name, each in self.figures.items():
            original, quantized, difference = each.cells(self.samples)
            yield metric_title(name), f"{quantized}, original {original}, difference {difference}"

    def section(self) -> str:
        """The section of a model card."""
        before, after = self.file_bytes
        slow, fast = (number(round(each)) for each in self.tokens_per_second)
        rows = [[prose(metric_title(name)), *each.cells(self.samples)] for name, each in self.figures.items()]
        header = ("on validation samples", "original", "quantised", "difference")
        facts = [
            *self.form.facts(),
            ("Weights in the file", f"{size(after)}, {percent(after / before)} of {size(before)}"),
            (
                "Tokens a second read by etude here",
                f"original {slow}, quantised {fast}; the same arithmetic, as it makes "
                "numbers of the codes when it loads them: a difference is noise",
            ),
            ("Loss", f"{self.loss:+.2%} of the original's, {self.most_loss:.2%} at most was allowed"),
            *([("Gain kept", self._gain_kept)] if self.gain is not None else []),
        ]
        said = "Read back from these files, beside the original on the same samples, intervals of 95 %:"
        return "\n\n".join([table(("", ""), facts), said, table(header, rows)])

    @property
    def _gain_kept(self) -> str:
        assert self.base_loss is not None
        return f"{self.gain:.2%} of what tuning took from the loss of its base, {self.base_loss:.4g}"
