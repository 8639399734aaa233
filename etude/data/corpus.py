"""The samples that a recipe trains on and is judged by: prepared data, opened and split by arithmetic."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from etude.data.examples import Example
from etude.data.labels import Labels, Layout, listed
from etude.data.listing import USES, list_sources
from etude.data.page import describe_lengths
from etude.data.render import ChatTemplate
from etude.data.repeats import Repeats, count_repeats
from etude.data.samples.labelled import Labelled
from etude.data.samples.sample import Flags, Ints, Samples
from etude.data.samples.shape import Arrays, Part, Prepared, Shape
from etude.data.split import hold_out, number_texts
from etude.data.stored import read_prepared
from etude.data.tokenize import Tokenizer
from etude.errors import InputError
from etude.recipe.schema import Recipe


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The samples of a recipe, and what they were made from.

    fingerprint   depends on texts, split and tokenizer, not on where or when files were written
    held_out      hash of the rows of each held-out use, the same for other tokenizers and training rows
    chat          makes a prompt of an instruction
    end_ids       ids that end an answer, first that which ends a text
    examples_of   samples of each use, in their order, as prompts with their answers, if they can be asked
    capabilities  of the labelled texts of each use
    ids           of the held-out samples of each use whose predictions are kept
    uses          (n,) the use of each prepared document, as an index of gate.USES
    token_bytes   (vocabulary,) bytes that each id stands for; None if the tokenizer is not byte-level
    repeats       training documents that are equal to others
    leaked        documents of each held-out use that are equal to one of training
    """

    train: Samples
    validation: Samples | None
    test: Samples | None
    tokenizer: Tokenizer
    fingerprint: str
    summary: dict[str, Any]
    chat: ChatTemplate
    end_ids: tuple[int, ...]
    held_out: dict[str, str] = field(default_factory=dict)
    examples_of: dict[str, Sequence[Example]] = field(default_factory=dict)
    labels: Labels | None = None
    capabilities: dict[str, list[str | None]] = field(default_factory=dict)
    ids: dict[str, list[str]] = field(default_factory=dict)
    uses: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    token_bytes: Ints | None = None
    repeats: Repeats = field(default_factory=Repeats)
    leaked: dict[str, int] = field(default_factory=dict)

    @property
    def examples(self) -> Sequence[Example]:
        """The prompts and answers of the validation samples."""
        return self.examples_of.get("validation", ())


def open_prepared(recipe: Recipe, folder: Path, today: str | None = None) -> Corpus:
    """Check the files of a prepared folder and split what they hold.

    Raises: InputError if a split comes to nothing, or if sets share a group that is to stay in one.
    """
    shape, prepared = read_prepared(recipe, folder)
    manifest, arrays = prepared.manifest, prepared.arrays
    _refuse_shared(recipe, manifest["shared_groups"])
    uses, cut = choose_uses(recipe, arrays, cuts_documents=shape.cuts_documents)
    places = {use: np.flatnonzero(uses == number) for number, use in enumerate(USES)}
    parts = {use: shape.take(recipe, prepared, use, rows, cut) for use, rows in places.items()}
    splits = {use: part.split for use, part in parts.items()}
    if recipe.data.validation != "none" and not len(splits["validation"]):
        raise InputError(
            f"data.validation: {len(prepared.texts.tokens) - len(uses)} tokens are too few to hold out a "
            f'share of {recipe.data.validation_ratio}; give more text, or set data.validation = "none"'
        )
    labels = manifest["labels"]
    corpus = Corpus(
        train=splits["train"],
        validation=splits["validation"] if len(splits["validation"]) else None,
        test=splits["test"] if len(splits["test"]) else None,
        tokenizer=prepared.tokenizer,
        fingerprint=_fingerprint(recipe, shape, prepared, splits.values()),
        summary=_summarize(recipe, prepared, uses, parts),
        chat=ChatTemplate(
            prepared.tokenizer, prepared.tokenizer.chat_template, system=recipe.data.system, today=today
        ),
        end_ids=tuple(manifest["end_ids"]),
        held_out=dict(_name_held_out(recipe, prepared, uses, cut)),
        examples_of={use: part.examples for use, part in parts.items()},
        labels=Labels(tuple(labels["names"]), labels["multi"], tuple(labels["notes"])) if labels else None,
        capabilities={use: part.capabilities for use, part in parts.items()},
        ids={use: part.ids for use, part in parts.items()},
        uses=uses,
        token_bytes=prepared.texts.token_bytes,
        repeats=_count_repeats(arrays, places["train"]),
        leaked=_count_leaks(arrays, uses),
    )
    if notes := label_notes(corpus):
        corpus.summary["notes on labels"] = [{"note": note} for note in notes]
    return corpus


def _refuse_shared(recipe: Recipe, shared: dict[str, Any]) -> None:
    if shared["count"] and recipe.data.leakage.action != "report":
        are = "1 group is" if shared["count"] == 1 else f"{shared['count']:,} groups are"
        raise InputError(
            f"{are} in more than one of data.train, data.validation and data.test, though group_by keeps "
            f"them apart ({', '.join(shared['first'])}); take their rows out of all but one, or set "
            'data.leakage.action = "report" to use them as they are'
        )


def lay_out(corpus: Corpus, layout: Layout) -> Corpus:
    """A labelled corpus with its labels over the classes of a model; its fingerprint tells their order."""
    assert corpus.labels is not None
    notes = (*corpus.labels.notes, *([layout.note] if layout.note else ()))
    labels = replace(corpus.labels, names=layout.names, notes=notes)
    if layout.columns == tuple(range(len(layout.names))):
        return replace(corpus, labels=labels)

    def lay(split: Samples) -> Samples:
        assert isinstance(split, Labelled)
        classes = np.zeros((len(split.classes), len(layout.names)), dtype=np.uint8)
        classes[:, list(layout.columns)] = split.classes
        return replace(split, classes=classes)

    made = json.dumps([corpus.fingerprint, layout.columns, len(layout.names)])
    return replace(
        corpus,
        train=lay(corpus.train),
        validation=corpus.validation and lay(corpus.validation),
        test=corpus.test and lay(corpus.test),
        labels=labels,
        fingerprint=hashlib.sha256(made.encode()).hexdigest(),
    )


def label_notes(corpus: Corpus) -> list[str]:
    """Notes on the labels of a corpus: how they were read, and which have no rows in a split."""
    if corpus.labels is None:
        return []
    splits = {"training": corpus.train, "validation": corpus.validation, "test": corpus.test}
    labelled = {use: split for use, split in splits.items() if split and isinstance(split, Labelled)}
    held: dict[str, Flags] = {use: split.classes.sum(axis=0) > 0 for use, split in labelled.items()}
    notes = list(corpus.labels.notes)
    for use, flags in held.items():
        missing = [name for name, flag in zip(corpus.labels.names, flags) if not flag]
        s, they = ("", "it") if len(missing) == 1 else ("s", "each")
        if use != "training" and missing:
            notes.append(
                f"no {use} row has the label{s} {listed(missing)}; {they} counts as 0 in macro figures "
                f"on {use} rows"
            )
        elif missing and any(other[~flags].any() for other in held.values()):
            notes.append(f"no training row has the label{s} {listed(missing)}, as all such rows are held out")
    return notes


def choose_uses(recipe: Recipe, arrays: Arrays, *, cuts_documents: bool = True) -> tuple[Ints, Flags]:
    """The use (n,) of each document as an index of USES, and flags (n,) of those that are cut in two.

    A document is cut if it is all that its source has and no other belongs with it.
    """
    sources, units = arrays["sources"], arrays["units"]
    uses = np.array([USES.index(use) for use, _ in list_sources(recipe)], dtype=np.int64)[sources]
    cut = np.zeros(len(units), dtype=np.bool_)
    if recipe.data.validation is not None:
        return uses, cut
    if cuts_documents:
        cut = (np.bincount(sources)[sources] == 1) & (np.bincount(units)[units] == 1) & (uses == 0)
    rest = ~cut & (uses == 0)
    if rest.any() and (not cut.any() or len(np.unique(units[rest])) > 1):
        uses[rest] = hold_out(arrays["hashes"][rest], units[rest], recipe.data.validation_ratio)
    return uses, cut


def _summarize(recipe: Recipe, prepared: Prepared, uses: Ints, parts: dict[str, Part]) -> dict[str, Any]:
    manifest, arrays, tokens = prepared.manifest, prepared.arrays, len(prepared.texts.tokens)
    prompts, lost = arrays["prompts"], manifest["lost_bytes"]
    summary = {
        "sources": manifest["sources"],
        **({"conversations": manifest["conversations"]} if manifest["conversations"] else {}),
        **{use: _summarize_part(part) if len(part.split) else None for use, part in parts.items()},
        "lengths": describe_lengths(parts["train"].lengths, recipe.train.seq_len),
        **({"shared_groups": shared} if (shared := manifest["shared_groups"]["count"]) else {}),
        "overlap": int(np.isin(prompts[uses > 0], prompts[uses == 0]).sum()),
        "vocab_size": manifest["vocab_size"],
        "unknown_ratio": manifest["unknown_tokens"] / tokens,
        **({"lost_bytes": lost, "lost_ratio": lost / max(int(arrays["sizes"].sum()), 1)} if lost else {}),
    }
    if not arrays.get(
        "cuts", np.zeros(0)
    ).any():  # of texts that are cut as they are read, the rest has no tokens
        summary["bytes_per_token"] = int(arrays["sizes"].sum()) / max(tokens - len(uses), 1)
    if len(rows := _find_conflicts(arrays)):
        summary["same_text_other_labels"] = len(rows)
        summary["same_text_other_labels_rows"] = ", ".join(prepared.name_rows(rows))
    return summary


def _summarize_part(part: Part) -> dict[str, Any]:
    spans = part.split.spans
    counts = {"documents": spans.documents, "samples": len(part.split), "tokens": spans.targets}
    return counts | {"bytes": spans.bytes, "truncated": spans.truncated} | part.summary


def _count_repeats(arrays: Arrays, rows: Ints) -> Repeats:
    labels, lengths = arrays.get("labels"), np.diff(arrays["offsets"])[rows]
    return count_repeats(arrays["hashes"][rows], None if labels is None else labels[rows], lengths)


def _count_leaks(arrays: Arrays, uses: Ints) -> dict[str, int]:
    numbers = number_texts(arrays["hashes"])
    again = np.isin(numbers, numbers[uses == 0])
    return {use: int((again & (uses == number)).sum()) for number, use in enumerate(USES) if number}


def _find_conflicts(arrays: Arrays) -> Ints:
    """The rows whose text another row has with other labels."""
    prompts = arrays["prompts"]
    if "labels" not in arrays:
        return prompts[:0]
    pairs = np.unique(np.column_stack([prompts, arrays["labels"]]), axis=0)
    texts, labellings = np.unique(pairs[:, 0], return_counts=True)
    return np.flatnonzero(np.isin(prompts, texts[labellings > 1]))


def _name_held_out(recipe: Recipe, prepared: Prepared, uses: Ints, cut: Flags) -> Iterator[tuple[str, str]]:
    """A hash of the texts and labels of each held-out set, in any order."""
    labels, arrays = prepared.manifest["labels"], prepared.arrays

    def name(row: int) -> bytes:
        part = f" {recipe.data.validation_ratio}" if cut[row] else ""
        flags = arrays["labels"][row] if labels else ()
        known = [label for label, flag in zip(labels["names"], flags) if flag] if labels else ""
        return bytes(arrays["hashes"][row]) + f"{part} {json.dumps(known)}\n".encode()

    for number, use in enumerate(USES):
        rows = np.flatnonzero((uses == number) | cut if use == "validation" else uses == number)
        if use != "train" and len(rows):
            yield use, hashlib.sha256(b"".join(sorted(name(row) for row in rows.tolist()))).hexdigest()


def _fingerprint(recipe: Recipe, shape: Shape, prepared: Prepared, splits: Iterable[Samples]) -> str:
    manifest = prepared.manifest
    files = [*shape.files, *(["code.npy"] if recipe.model.wants_code else [])]
    made = [manifest["files"][name]["sha256"] for name in files]
    made[len(shape.files) : len(shape.files)] = shape.settings(recipe)
    digest = hashlib.sha256("".join([manifest["tokenizer"], *made]).encode())
    digest.update(prepared.arrays["hashes"].tobytes())
    for split in splits:
        digest.update(np.stack([split.spans.starts, split.spans.ends]).astype("<i8").tobytes() + b"split")
    return digest.hexdigest()
