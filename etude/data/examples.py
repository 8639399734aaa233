"""Samples as prompts with a reference answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Example:
    """A prompt, as ids and as text, and the whole answer to it, without its end token."""

    prompt_ids: list[int]
    prompt: str
    reference: str
    capability: str | None


@dataclass(frozen=True)
class Examples(Sequence[Example]):
    """The examples of a split, each made from prepared data when it is asked for."""

    size: int
    make: Callable[[int], Example]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Any) -> Any:
        chosen = range(self.size)[index]
        return [self.make(each) for each in chosen] if isinstance(index, slice) else self.make(chosen)
