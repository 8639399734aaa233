"""A model that is ready to answer: one that writes text, or one that only reads it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from etude.data.batch import collate
from etude.data.samples.sample import NO_TARGET, Ints, Sample
from etude.data.tokenize import Tokenizer
from etude.engine.batch import to_device
from etude.engine.precision import Precision
from etude.errors import InputError
from etude.evaluate.answers import encode_prompts
from etude.evaluate.generate import context_of
from etude.export import classifier_config, find_end_ids, open_tokenizer
from etude.models.families.table import family_of
from etude.models.hf_config import default_names, label_names
from etude.models.packing import find_lasts
from etude.models.parts import head_modules
from etude.objectives.classification import Classification
from etude.speaker import Speaker, load_for_use, make_speaker

Pooling = Literal["mean", "last"]


@dataclass(frozen=True)
class Opened:
    """A model, and the ways in which it answers.

    context    tokens of a text at most
    speaker    of a model that writes text
    chat_ends  ids that end an answer of a chat
    labels     of a classifier, in the order of its outputs
    is_multi   true if a text may have several labels
    """

    name: str
    model: nn.Module
    tokenizer: Tokenizer
    precision: Precision
    context: int
    pooling: Pooling = "mean"
    speaker: Speaker | None = None
    chat_ends: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    is_multi: bool = False

    def encode(self, texts: Sequence[tuple[str, str | None]], cut: int | None = None) -> list[Sample]:
        """Texts, or pairs of them, as the model was trained to read them.

        cut: tokens that a longer one is cut to. Raises: InputError if one is longer than the model reads.
        """
        if self.speaker is not None:
            prompts = encode_prompts(
                [text for text, _ in texts], self.tokenizer, None,
                is_source=family_of(self.model).has_source,
            )  # fmt: skip
            return self.from_ids([ids[:cut] for ids in prompts])
        encoded = self.tokenizer.encode_joined(texts, cut)
        return [self._sample(ids, second) for ids, second, *_ in encoded]

    def from_ids(self, rows: Sequence[Sequence[int]]) -> list[Sample]:
        """Texts by their token ids; an empty one is the end token. Raises: InputError."""
        most = self.tokenizer.vocab_size
        if any(token >= most for row in rows for token in row):
            raise InputError(f"input has an id that is no token; give ids below {most:,}")
        arrays = [np.array(row or [self.tokenizer.eos_id], dtype=np.int64) for row in rows]
        return [self._sample(ids, len(ids)) for ids in arrays]

    @torch.no_grad()
    def probabilities(self, samples: Sequence[Sample]) -> Tensor:
        """(n, labels) fp32 on the CPU."""
        kind = Classification(self.is_multi)
        batch = to_device(collate(samples, False), self._device)
        return kind.probabilities(kind.logits(self.model, batch)).cpu()

    @torch.no_grad()
    def vectors(self, samples: Sequence[Sample]) -> Tensor:
        """(n, C) fp32 on the CPU, of length 1: the mean of a text's hidden states, or the last one."""
        batch = to_device(collate(samples, False), self._device)
        states, lengths = (
            family_of(self.model).states(self.model, batch),
            [len(each.tokens) for each in samples],
        )
        if self.pooling == "last":
            pooled = states[find_lasts(lengths, self._device)].float()
        else:
            pooled = torch.stack([part.float().mean(dim=0) for part in torch.split(states, lengths)])
        return functional.normalize(pooled, dim=1).cpu()

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _sample(self, ids: Ints, second: int) -> Sample:
        if len(ids) > self.context:
            raise InputError(
                f"a text has {len(ids):,} tokens, and the model reads {self.context:,} here; shorten it, or "
                "have it cut by truncate_prompt_tokens"
            )
        places, nothing = np.arange(len(ids)), np.full(len(ids), NO_TARGET)
        return Sample(
            tokens=ids, labels=nothing, documents=np.zeros_like(ids), positions=places, second=second,
            classes=np.zeros(max(len(self.labels), 1), dtype=np.uint8),
        )  # fmt: skip


def open_model(
    given: str, runs: Path, *, context: int, pooling: Pooling = "mean", told: Callable[[str], None]
) -> Opened:
    """The model of a run or of a folder, on the best device.

    context: tokens of a text at most, unless the model reads fewer.
    Raises: InputError if there is none, or its files cannot be used.
    """
    loaded = load_for_use(given, runs, takes_encoders=True, told=told)
    folder, model = loaded.folder, loaded.model
    # A run by its name, a folder by its own.
    name = given if loaded.run else folder.resolve().name
    shared: dict[str, Any] = {
        "name": name, "model": model, "precision": loaded.precision, "pooling": pooling,
        "context": min(context, context_of(model)),
    }  # fmt: skip
    if head_modules(model):
        return Opened(**shared, tokenizer=open_tokenizer(folder), **_labels_of(folder, model))
    if family_of(model).name == "encoder":
        return Opened(**shared, tokenizer=open_tokenizer(folder))
    speaker = make_speaker(loaded, told=told)
    ends = find_end_ids(folder, speaker.chat, is_chat=True)
    return Opened(**shared, tokenizer=speaker.tokenizer, speaker=speaker, chat_ends=ends)


def _labels_of(folder: Path, model: Any) -> dict[str, Any]:
    """Names of the labels of a classifier, and whether a text may have several."""
    values = classifier_config(folder)
    names, count = label_names(values), int(getattr(model, "labels", 0) or model.config.num_labels)
    if values.get("problem_type") == "regression":
        raise InputError(f"{folder} gives a number for a text, and no label; give a classifier")
    return {
        "labels": names if len(names) == count else default_names(count),
        "is_multi": values.get("problem_type") == "multi_label_classification",
    }
