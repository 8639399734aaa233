"""Training on pairs of texts: the loss, answers to held-out sources, and their scores beside baselines."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import nn

from etude import durable
from etude.data.batch import Batch, NumpyBatch
from etude.data.corpus import Corpus
from etude.data.examples import Example
from etude.data.secrets import redact
from etude.engine.batch import DeviceBatch, to_device
from etude.engine.cross_entropy import CHUNK_ROWS, linear_cross_entropy
from etude.engine.out_of_memory import batches_in_parts
from etude.errors import InputError
from etude.evaluate.answers import as_answer, greedy
from etude.evaluate.exam import Exam
from etude.evaluate.generate import Continuation
from etude.interruption import interruption_point
from etude.models.packing import shift_right
from etude.models.t5 import T5
from etude.objectives.kind import Kind, Measured, count_targets
from etude.objectives.writing import measure_texts, names_of_texts
from etude.recipe.schema import Recipe
from etude.records import events
from etude.records.folder import read_rows
from etude.records.shape import Object
from etude.scores.answers import BLEU_SETTINGS, CHRF_SETTINGS, FIGURES, Answer
from etude.scores.baselines import most_frequent, nearest_neighbour
from etude.scores.systems import of_answers, score_systems
from etude.text import plural, verb

_SHOWN = ("exact_match", "bleu", "chrf", "edit_similarity", "parse_rate")
_BASELINE_ROWS = 50_000
_ROWS_AT_ONCE = 32
_KEPT = Object({"text": str, "reference": str, "stopped": bool, "capability": str | None})


@dataclass(frozen=True)
class Seq2Seq(Kind):
    """Write a target, token by token, given its source.

    Source: arXiv:1409.3215; label smoothing: arXiv:1512.00567.
    """

    writes_text = True
    label_smoothing: float = 0.0

    def loss_sum(self, model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, labels = self.read(model, batch), batch.labels.flatten()
        head: torch.Tensor = model.head_weight()  # type: ignore[operator]
        smoothing, weights = self.label_smoothing, batch.weights
        loss = linear_cross_entropy(hidden, head, labels, label_smoothing=smoothing, weights=weights)
        return loss, count_targets(labels, weights)

    def read(self, model: nn.Module, batch: DeviceBatch) -> torch.Tensor:
        """Hidden states (T, C) that predict each label from the source and the labels before it."""
        assert batch.lengths is not None and batch.target_lengths is not None
        given = shift_right(batch.labels, batch.target_lengths, cast(T5, model).config.start_id)
        hidden: torch.Tensor = model(
            batch.tokens, given, source_lengths=batch.lengths, target_lengths=batch.target_lengths
        )
        return hidden[0]

    def plain(self) -> "Seq2Seq":
        return Seq2Seq()

    def figures(self, recipe: Recipe, corpus: Corpus) -> set[str]:
        return {"perplexity"} | names_of_texts(recipe, corpus)

    def measure(self, exam: Exam) -> Measured:
        return measure_texts(exam, self.score(exam))

    def keep_before(self, exam: Exam) -> None:
        """Keep the answers of a pretrained model to the held-out sources before training.

        One from scratch only repeats itself to the length allowed, which takes minutes and says nothing.
        """
        for use in () if exam.is_fresh else exam.held_out():
            examples = exam.corpus.examples_of[use]
            continued = _write(exam, examples)
            if exam.world.is_main:
                durable.make_folder(exam.folder)
                answers = [as_answer(*each, exam.corpus) for each in zip(examples, continued)]
                _keep(exam, f"before-{use}", (asdict(_without_secrets(answer)) for answer in answers))

    def is_compared(self, corpus: Corpus) -> bool:
        return bool(corpus.validation or corpus.test)

    def compare(self, exam: Exam, step: int) -> events.Scores | None:
        """Score the model beside itself before training and baselines, on the rows of `exam.scored()`.

        Every figure has its interval, and every answer is kept. Rank 0 has the scores, the others None.
        """
        after = {use: _answer(exam, self, use) for use in exam.held_out()}
        if not exam.world.is_main:
            return None
        use = exam.scored()
        examples, written = exam.corpus.examples_of[use], after[use]
        notes = [
            *exam.notes(),
            f"BLEU is {BLEU_SETTINGS}, chrF {CHRF_SETTINGS}, by sacrebleu, both from 0 to 100",
        ]
        before = _read_before(exam, use)
        if before is None and exam.is_fresh:
            notes.append("trained from scratch, so it is not scored before training")
        elif before and (hidden := sum(redact(each.reference) != each.reference for each in examples)):
            notes.append(
                f"before training, the secrets in {plural(hidden, 'reference')} "
                f"{verb(hidden, 'are')} scored as one word each"
            )
        train = exam.corpus.examples_of["train"]
        places = np.linspace(0, len(train) - 1, min(len(train), _BASELINE_ROWS)).astype(int)
        if len(places) < len(train):
            notes.append(
                f"the nearest neighbour is among {len(places):,} evenly spaced rows of {len(train):,}"
            )
        known, sources = [train[place] for place in places], [example.prompt for example in examples]
        nearest = nearest_neighbour(
            [each.prompt for each in known], [each.reference for each in known], sources
        )
        frequent = most_frequent([each.reference for each in known])
        same = [] if frequent is None else _as_answers([frequent] * len(examples), examples)
        systems: dict[str, Sequence[Answer]] = {
            "after": written,
            **({"before": before} if before else {}),
            **({"most frequent target": same} if same else {}),
            "nearest neighbour": _as_answers(nearest, examples),
            "copied source": _as_answers(sources, examples),
        }
        metric = wanted if (wanted := exam.main_figure()) in FIGURES else "bleu"
        names = dict.fromkeys((*_SHOWN, metric))
        shown = [name for name in names if not math.isnan(FIGURES[name](written))]
        standing = score_systems(of_answers(shown, metric), systems, [each.capability for each in examples])
        return events.Scores(
            step=step, rows=len(examples), split=f"{exam.task} {use}".strip(), metric=metric,
            **vars(standing), notes=notes, distinct=len({answer.text for answer in written}),
        )  # fmt: skip


def _read_before(exam: Exam, use: str) -> list[Answer] | None:
    """The answers that `keep_before` kept, if it did. Raises: InputError if no run writes them so."""
    path, count = exam.folder / f"before-{use}.jsonl", len(exam.corpus.examples_of[use])
    if not os.path.lexists(path):
        return None
    rows = read_rows(path, _KEPT)
    if len(rows) != count:
        raise InputError(f"{path} is damaged: it has {len(rows):,} rows of {count:,}; restore it from a copy")
    return [Answer(row["text"], row["reference"], row["stopped"], row["capability"]) for row in rows]


def _as_answers(texts: Sequence[str], examples: Sequence[Example]) -> list[Answer]:
    """Texts of a system that writes nothing itself as answers to examples."""
    return [Answer(text, each.reference, True, each.capability) for text, each in zip(texts, examples)]


def _answer(exam: Exam, objective: Seq2Seq, use: str) -> list[Answer]:
    """Answers to the sources of a held-out set; rank 0 keeps them with their probabilities, row by row."""
    examples = exam.corpus.examples_of[use]
    continued = _write(exam, examples)
    log_probabilities = _log_probabilities(exam, objective, examples, continued)
    answers = [as_answer(*each, exam.corpus) for each in zip(examples, continued)]
    rows = (
        {
            "id": name,
            "answer": redact(answer.text),
            "reference": redact(answer.reference),
            "stopped": answer.stopped,
            "capability": answer.capability,
            "log_probability": value,
            "tokens": len(part.ids) + part.stopped,
        }
        for name, answer, part, value in zip(
            exam.corpus.ids[use], answers, continued, log_probabilities, strict=True
        )
    )
    if exam.world.is_main:
        durable.make_folder(exam.folder)
        _keep(exam, use, rows)
    return answers


def _write(exam: Exam, examples: Sequence[Example]) -> list[Continuation]:
    """Write an answer to each source; every rank writes its part of them, and has all."""
    most, world = exam.recipe.evaluate.answer_tokens, exam.world
    mine = range(world.rank, len(examples), world.size)
    with exam.precision.autocast():
        continued = greedy(exam.model, exam.corpus, [examples[row].prompt_ids for row in mine], most)
    if world.size == 1:
        return continued
    everything = torch.zeros(len(examples), most + 2, dtype=torch.int32)  # length, end token + 1 or 0, ids
    for row, part in zip(mine, continued):
        end = 0 if part.end is None else part.end + 1
        everything[row, : len(part.ids) + 2] = torch.tensor([len(part.ids), end, *part.ids])
    world.total([everything])
    return [Continuation(ids[:length], end - 1 if end else None) for length, end, *ids in everything.tolist()]


def _without_secrets(answer: Answer) -> Answer:
    """As it is kept: secrets hidden on both sides, so that a copied one still counts as right."""
    return replace(answer, text=redact(answer.text), reference=redact(answer.reference))


def _keep(exam: Exam, name: str, rows: Iterator[Mapping[str, object]]) -> None:
    lines = ((json.dumps(row, ensure_ascii=False) + "\n").encode() for row in rows)
    durable.write_file(exam.folder / f"{name}.jsonl", lines)


@torch.no_grad()
def _log_probabilities(
    exam: Exam, objective: Seq2Seq, examples: Sequence[Example], continued: Sequence[Continuation]
) -> list[float]:
    """Log-probabilities of answers, each a sum over its tokens in nats; the ranks deal out the rows."""
    model, world = cast(T5, exam.model.eval()), exam.world
    sums = torch.zeros(len(examples), dtype=torch.float64)

    def score(pairs: NumpyBatch) -> torch.Tensor:
        batch = to_device(pairs, world.device)
        with exam.precision.autocast():
            hidden, ids = objective.read(model, batch), batch.labels[0]
            chunks = zip(torch.split(hidden, CHUNK_ROWS), torch.split(ids, CHUNK_ROWS))
            return torch.cat(
                [
                    model.head(rows).float().log_softmax(dim=1).gather(1, some[:, None])[:, 0]
                    for rows, some in chunks
                ]
            )

    parts = batches_in_parts()
    for low in range(world.rank * _ROWS_AT_ONCE, len(examples), world.size * _ROWS_AT_ONCE):
        interruption_point()
        sources = [example.prompt_ids for example in examples[low : low + _ROWS_AT_ONCE]]
        targets = [
            part.ids if part.end is None else [*part.ids, part.end]
            for part in continued[low:][:_ROWS_AT_ONCE]
        ]
        read, written = (np.concatenate(side).astype(np.int64)[None] for side in (sources, targets))
        lengths = tuple(map(len, targets))
        pairs = Batch(tokens=read, labels=written, lengths=tuple(map(len, sources)), target_lengths=lengths)
        each = torch.split(torch.cat(parts.do(pairs, score)).cpu().double(), list(lengths))
        sums[low : low + len(each)] = torch.stack([part.sum() for part in each])
    world.total([sums])
    values: list[float] = sums.tolist()
    return values
