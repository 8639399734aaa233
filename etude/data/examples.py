"""Samples as prompts with a reference answer, made from prepared data on demand."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from etude.data.samples.sample import Ints, Samples
from etude.data.tokenize import Tokenizer
from etude.errors import InputError


@dataclass(frozen=True)
class Example:
    """A prompt, as ids and as text, and the whole answer to it, without its end token."""

    prompt_ids: list[int]
    prompt: str
    reference: str
    capability: str | None


@dataclass(frozen=True, kw_only=True)
class ConversationExamples(Sequence[Example]):
    """The conversations of a split: each prompt ends where the last answer of its sample begins.

    rows, ends  (n,) documents, and where in the tokens their samples end
    answers     as in answers.npy
    """

    rows: Ints
    ends: Ints
    tokens: npt.NDArray[Any]
    offsets: Ints
    answers: Ints
    capabilities: Ints
    names: list[str]
    tokenizer: Tokenizer

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        row = int(self.rows[index])
        start = int(self.offsets[row])
        first, behind = self.answers[:, 0].searchsorted((start, int(self.ends[index]))).tolist()
        begin, end = self.answers[max(first, behind - 1)].tolist()
        prompt, capability = self.tokens[start:begin].tolist(), int(self.capabilities[row])
        return Example(
            prompt_ids=prompt,
            prompt=self.tokenizer.decode(prompt, skip_special=False),
            reference=self.tokenizer.decode(self.tokens[begin:end].tolist()),
            capability=self.names[capability] if capability >= 0 else None,
        )


@dataclass(frozen=True, kw_only=True)
class PairExamples(Sequence[Example]):
    """The sources of a split, cut as its samples are, each with the whole text of its target.

    rows        (n,) documents
    references  UTF-8 of all targets end to end
    places      (documents + 1) where the target of each begins among them
    """

    samples: Samples
    rows: Ints
    references: npt.NDArray[Any]
    places: Ints
    capabilities: Ints
    names: list[str]
    tokenizer: Tokenizer

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        row, source = int(self.rows[index]), self.samples.sample(int(index)).tokens.tolist()
        capability = int(self.capabilities[row])
        try:
            reference = self.references[self.places[row] : self.places[row + 1]].tobytes().decode()
        except UnicodeDecodeError:
            raise InputError(
                "prepared data is damaged: references.bin is not UTF-8 text; run etude prepare RECIPE --again"
            ) from None
        return Example(
            prompt_ids=source,
            prompt=self.tokenizer.decode(source),
            reference=reference,
            capability=self.names[capability] if capability >= 0 else None,
        )
