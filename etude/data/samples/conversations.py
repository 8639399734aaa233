"""Conversations, and texts that begin as a pretrained model expects them: answers are the targets."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from etude.data.cache import require_whole
from etude.data.encode import encode
from etude.data.examples import Example, Examples
from etude.data.samples.hidden import hide_tokens
from etude.data.samples.sample import NO_TARGET, Flags, Ints, Sample, Spans, Stretches, Texts
from etude.data.samples.shape import Building, Columns, Part, Prepared, Shape
from etude.data.samples.weighted import weigh_tokens
from etude.data.sources import Document
from etude.data.tally import Tally
from etude.data.tokenize import Tokenizer
from etude.errors import InputError
from etude.recipe.schema import Recipe


@dataclass(frozen=True)
class Conversations(Stretches):
    """A sample begins with the first token of its own span.

    answers: (m, 2) stretches of the tokens that are targets, ascending; None if all tokens but the first are.
    """

    eos_id: int
    answers: Ints | None = None

    @property
    def tokens_per_sample(self) -> float:
        """Mean length of a sample; the last token of a span is a target alone."""
        lengths = np.minimum(self.spans.ends - self.spans.starts - 1, self.seq_len)
        return float(lengths.mean()) if len(self) else 0.0

    def at_labels(self, index: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        start, end = self.place(index)
        return values[start + 1 : end]

    def at_text(self, index: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        start, end = self.place(index)
        return values[start:end][: self.seq_len]

    def sample(self, index: int, epoch: int = 0) -> Sample:
        start, end = self.place(index)
        window = self.spans.tokens[start:end].astype(np.int64)
        labels = window[1:]
        if self.answers is not None:
            labels = np.full(len(window) - 1, NO_TARGET, dtype=np.int64)
            mine = self.answers[slice(*self.answers[:, 0].searchsorted((start, end)))] - (start + 1)
            for first, last in mine:
                labels[max(first, 0) : last] = window[1:][max(first, 0) : last]
        documents = np.zeros(len(labels), dtype=np.int64)
        return Sample(window[:-1], labels, documents, np.arange(len(labels), dtype=np.int64))


@dataclass(frozen=True)
class Left:
    """Flags (n,) of rows.

    kept      became a sample
    dropped   too long
    cut_away  lost all targets to seq_len
    cut       lost only the end to seq_len
    """

    kept: Flags
    dropped: Flags
    cut_away: Flags
    cut: Flags


def cut_conversations(
    texts: Texts, rows: Ints, answers: Ints, seq_len: int, *, answers_only: bool = True, drop: bool = False
) -> tuple[Conversations, Left]:
    """Documents `rows` as samples, longer ones than seq_len cut or dropped; none without a target.

    answers: (m, 2) stretches of the tokens that are targets, ascending. Tokens behind the last target are
    left out, as nothing depends on them.
    """
    starts, wholes = texts.offsets[rows], texts.offsets[rows + 1]
    mine = answers[:, 0].searchsorted(starts), answers[:, 0].searchsorted(wholes)
    counts = mine[1] - mine[0]
    row = np.repeat(np.arange(len(rows)), counts)  # of each answer in any of the rows
    index = np.repeat(mine[0] - np.r_[0, np.cumsum(counts)[:-1]], counts) + np.arange(len(row))
    begins, stops = np.maximum(answers[index, 0], starts[row] + 1), answers[index, 1]
    if answers_only:
        wholes = starts.copy()
        np.maximum.at(wholes, row, stops)
    ends = np.minimum(wholes, starts + seq_len + 1)
    cut = ends < wholes
    dropped = cut & drop
    if answers_only:
        stops = np.minimum(stops, ends[row])
        scored = np.maximum(stops - begins, 0)
        targets = np.bincount(row, scored, minlength=len(rows)).astype(np.int64)
        ends = starts.copy()
        np.maximum.at(ends, row[scored > 0], stops[scored > 0])
    else:
        targets = np.maximum(ends - starts - 1, 0)
    kept = (targets > 0) & ~dropped
    if answers_only:
        used = kept[row] & (scored > 0)
        text_bytes = texts.count_bytes(begins[used], stops[used])
    else:
        text_bytes = texts.count_bytes(starts[kept] + 1, ends[kept])
    spans = Spans(
        tokens=texts.tokens, starts=starts[kept], ends=ends[kept], documents=int(kept.sum()),
        targets=int(targets[kept].sum()), bytes=text_bytes, truncated=int((cut & kept).sum()),
    )  # fmt: skip
    samples = Conversations(spans, seq_len, texts.eos_id, answers if answers_only else None)
    return samples, Left(kept, dropped, ~kept & ~dropped, cut & kept)


class ConversationShape(Shape):
    """Each conversation as its chat template writes it; each text as the tokenizer begins and ends one."""

    name = "examples"
    files = ("tokens.bin", "answers.npy")
    renders = True

    def encode(
        self, recipe: Recipe, documents: Iterator[Document], tally: Tally, tokenizer: Tokenizer, today: str
    ) -> Iterator[Ints]:
        return encode(documents, tally, tokenizer, system=recipe.data.system, today=today)

    def finish(self, building: Building) -> Columns:
        arrays = building.tally.example_arrays()
        answers = arrays["answers"]
        is_answer = ~np.isin(answers[:, 0], building.arrays["offsets"][:-1])
        return Columns(arrays=arrays, code=answers, is_answer=is_answer)

    def take(self, recipe: Recipe, prepared: Prepared, use: str, rows: Ints, cut: Flags) -> Part:
        """Samples of the rows that have an answer within train.seq_len."""
        data, seq_len, texts = recipe.data, recipe.train.seq_len, prepared.texts
        answers = prepared.arrays["answers"]
        # Hidden tokens are those of a whole row.
        answers_only = data.answers_only and not recipe.kind.hides_tokens
        if not answers_only:
            _refuse_marked(recipe, prepared)
        settings = {"answers_only": answers_only, "drop": data.too_long == "drop"}
        samples, left = cut_conversations(texts, rows, answers, seq_len, **settings)
        if data.too_long == "refuse":
            is_long = left.dropped | left.cut | left.cut_away
            prepared.keep_short(use, data.too_long, rows, is_long, f"train.seq_len {seq_len:,}")
        lengths = np.diff(texts.offsets)[rows]
        if len(rows) and not len(samples):
            raise InputError(
                f"data.{use} has nothing to score: none of {len(rows):,} rows has an answer within "
                f"train.seq_len {seq_len} (cut away: {prepared.count_rows(rows[left.cut_away])}; dropped: "
                f"{prepared.count_rows(rows[left.dropped])}; the longest row has {int(lengths.max()):,} "
                "tokens); raise it"
            )
        summary: dict[str, Any] = {}
        for name, lost in (("dropped", rows[left.dropped]), ("cut_away", rows[left.cut_away])):
            summary |= {name: len(lost), f"{name}_rows": prepared.name_rows(lost)}
        split = weigh_tokens(hide_tokens(samples, recipe, prepared.tokenizer), recipe, prepared.built, use)
        examples = _ask(prepared, rows[left.kept], samples.spans.ends)
        return Part(split=split, lengths=lengths, summary=summary, examples=examples)

    def settings(self, recipe: Recipe) -> list[str]:
        return ["answers" if recipe.data.answers_only else "all"]


def _refuse_marked(recipe: Recipe, prepared: Prepared) -> None:
    marked = (prepared.manifest["conversations"] or {}).get("answers_marked_not_to_learn", 0)
    if marked:
        key = "train.objective" if recipe.data.answers_only else "data.answers_only"
        raise InputError(
            f"{marked:,} answers are marked as not to be learnt, but {key} of this recipe learns all of a "
            "conversation; take the marks out, or learn answers alone"
        )


def _ask(prepared: Prepared, rows: Ints, ends: Ints) -> Examples:
    """The conversations among the samples of documents `rows`, each up to its last answer before `ends`.

    An answer of a text, which is no conversation, begins where the text does.
    """
    texts, answers, tokenizer = prepared.texts, prepared.arrays["answers"], prepared.tokenizer
    starts = texts.offsets[rows]
    is_conversation = answers[answers[:, 0].searchsorted(starts), 0] > starts
    rows, starts, ends = rows[is_conversation], starts[is_conversation], ends[is_conversation]

    def make(index: int) -> Example:
        require_whole(texts.tokens)
        first, behind = answers[:, 0].searchsorted((starts[index], ends[index])).tolist()
        begin, end = answers[max(first, behind - 1)].tolist()
        prompt = texts.tokens[int(starts[index]) : begin].tolist()
        return Example(
            prompt_ids=prompt,
            prompt=tokenizer.decode(prompt, skip_special=False),
            reference=tokenizer.decode(texts.tokens[begin:end].tolist()),
            capability=prepared.capability(int(rows[index])),
        )

    return Examples(len(rows), make)
