"""What a recipe trains on and is judged by: prepared data, opened and split by index arithmetic."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from etude.data.cache import VERIFY_BYTES, Built, open_built
from etude.data.encode import NAMED_ROWS
from etude.data.examples import Conversations, Example, Pairs
from etude.data.gate import USES, list_sources
from etude.data.labels import Labels, Layout, listed
from etude.data.lexer import IDENTIFIER, KINDS, LEVELS
from etude.data.masking import choose_masking
from etude.data.page import describe_lengths
from etude.data.render import ChatTemplate
from etude.data.rows import place_of
from etude.data.split import (
    Flags,
    Ints,
    Split,
    Texts,
    cut_examples,
    cut_samples,
    hold_out,
    take_pairs,
    take_wholes,
)
from etude.data.tokenize import FILES, Tokenizer
from etude.errors import InputError
from etude.recipe.schema import Kind, Recipe
from etude.records import shape

PreparedKind = Literal["texts", "examples", "labelled", "pairs"]
# What prepared.py says in a manifest.
MANIFEST = shape.Object(
    {
        "kind": Annotated[str, shape.one_of(*get_args(PreparedKind))],
        "token_width_bytes": Annotated[int, shape.one_of(2, 4)],
        "vocab_size": Annotated[int, shape.at_least(1, 1 << 32)],
        "eos_token": str, "eos_id": int, "end_ids": list[int], "tokenizer": str, "unknown_tokens": int,
        "lost_bytes": int,
        "sources": [
            shape.Object(
                {
                    "name": str, "use": str, "found": str, "documents": int, "blank": int, "bytes": int,
                    "tokens": int,
                },
                {
                    "removed": int, "blank_rows": list[str], "unread_columns": list[str],
                    "special_tokens_read_as_text": int, "such_as": list[str],
                    "files_of_rows_read_as_texts": int, "such_files": list[str],
                },
            )
        ],
        "contents": dict[str, str], "shared_groups": shape.Object({"count": int, "first": list[str]}),
        "given": list[Annotated[str, shape.one_of(*FILES)]],
        "labels": (shape.Object({"names": list[str], "multi": bool, "notes": list[str]}), None),
        "paths": list[str], "capabilities": list[str], "conversations": (dict[str, int | str], None),
    }
)  # fmt: skip
# The files that, with the texts, the tokenizer and the split, make the samples.
_SAMPLE_FILES: dict[PreparedKind, tuple[str, ...]] = {
    "texts": (),
    "examples": ("tokens.bin", "answers.npy"),
    "labelled": ("tokens.bin", "labels.npy"),
    "pairs": ("tokens.bin", "seconds.npy", "references.bin"),
}


@dataclass(frozen=True)
class Corpus:
    """The samples of a recipe, and what they were made from.

    `fingerprint` depends on what the texts, the split and the tokenizer are, not on where or when files were
    written. `examples` are the conversations, or the pairs, of the validation split, in its order, `pairs`
    those of each split; `chat` makes a prompt of an instruction. `capabilities` has those of the labelled
    rows of each split, `ids` what tells held-out rows, labelled or pairs, apart. `uses`, (n,): which of
    gate.USES each prepared document is for. `end_ids` are the ids that end an answer, first that which ends a
    text. `token_bytes`, (vocabulary): bytes that each id stands for; None if the tokenizer is not byte-level.
    """

    train: Split
    validation: Split | None
    test: Split | None
    tokenizer: Tokenizer
    fingerprint: str
    summary: dict[str, Any]
    chat: ChatTemplate
    end_ids: tuple[int, ...]
    examples: Sequence[Example] = ()
    pairs: dict[str, Sequence[Example]] = field(default_factory=dict)
    labels: Labels | None = None
    capabilities: dict[str, list[str | None]] = field(default_factory=dict)
    ids: dict[str, list[str]] = field(default_factory=dict)
    uses: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    token_bytes: Ints | None = None


@dataclass(frozen=True)
class _Prepared:
    """What a prepared folder holds; `arrays` by the names of its .npy files."""

    built: Built
    manifest: dict[str, Any]
    kind: PreparedKind
    arrays: dict[str, npt.NDArray[Any]]
    texts: Texts
    tokenizer: Tokenizer


@dataclass(frozen=True)
class _Part:
    """The samples for one use, what the summary says of them, and of what is scored by its answers these."""

    split: Split
    said: dict[str, Any] = field(default_factory=dict)
    examples: Sequence[Example] = ()
    capabilities: list[str | None] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)


def open_prepared(recipe: Recipe, folder: Path, today: str | None = None) -> Corpus:
    """Check the files of a prepared folder and split what they hold.

    Raises: InputError if a split comes to nothing, or if sets share a group that is to stay in one.
    """
    prepared = _read(recipe, folder)
    manifest, arrays, kind = prepared.manifest, prepared.arrays, prepared.kind
    shared = manifest["shared_groups"]
    if shared["count"] and recipe.data.leakage.action != "report":
        are = "1 group is" if shared["count"] == 1 else f"{shared['count']:,} groups are"
        raise InputError(
            f"{are} in more than one of data.train, data.validation and data.test, though group_by keeps "
            f"them apart ({', '.join(shared['first'])}); take their rows out of all but one, or set "
            "data.leakage.action = "
            '"report" to use them as they are'
        )
    uses, cut = choose_uses(recipe, arrays, are_examples=kind != "texts")
    parts: dict[str, _Part] = {}
    for number, use in enumerate(USES):
        rows = np.flatnonzero(uses == number)
        match kind:
            case "labelled":
                part = _take_labelled(recipe, prepared, rows, use)
            case "pairs":
                part = _take_pairs(recipe, prepared, rows, use)
            case "examples":
                part = _take_examples(recipe, prepared, rows, use)
            case _:
                part = _cut_texts(recipe, prepared.texts, uses == number, cut, use)
        parts[use] = replace(part, split=_for_objective(recipe, prepared, part.split, use))
    splits = {use: part.split for use, part in parts.items()}
    if recipe.data.validation != "none" and not len(splits["validation"]):
        raise InputError(
            f"data.validation: {len(prepared.texts.tokens) - len(uses)} tokens are too few to hold out a "
            "share of "
            f'{recipe.data.validation_ratio}; give more text, or set data.validation = "none"'
        )
    made = [manifest["tokenizer"], *(manifest["files"][name]["sha256"] for name in _SAMPLE_FILES[kind])]
    if kind == "examples":
        made.append("answers" if recipe.data.answers_only else "all")
    if kind == "pairs":
        made.append(f"{recipe.train.seq_len} {recipe.train.target_len}")
    if recipe.model.wants_code:
        made.append(manifest["files"]["code.npy"]["sha256"])
    labels = manifest["labels"]
    corpus = Corpus(
        train=splits["train"],
        validation=splits["validation"] if len(splits["validation"]) else None,
        test=splits["test"] if len(splits["test"]) else None,
        tokenizer=prepared.tokenizer,
        fingerprint=_fingerprint(made, arrays["hashes"], *splits.values()),
        summary=_summarize(recipe, prepared, uses, parts),
        chat=ChatTemplate(
            prepared.tokenizer, prepared.tokenizer.chat_template, system=recipe.data.system, today=today
        ),
        end_ids=tuple(manifest["end_ids"]),
        examples=parts["validation"].examples,
        pairs={use: part.examples for use, part in parts.items()} if kind == "pairs" else {},
        labels=Labels(tuple(labels["names"]), labels["multi"], tuple(labels["notes"])) if labels else None,
        capabilities={use: part.capabilities for use, part in parts.items()} if kind == "labelled" else {},
        ids={use: part.ids for use, part in parts.items()} if kind in ("labelled", "pairs") else {},
        uses=uses,
        token_bytes=prepared.texts.token_bytes,
    )
    if notes := label_notes(corpus):
        corpus.summary["notes on labels"] = [{"note": note} for note in notes]
    return corpus


def lay_out(corpus: Corpus, layout: Layout) -> Corpus:
    """A labelled corpus with its labels laid over the classes of a model; its fingerprint tells the order,
    too.
    """
    assert corpus.labels is not None
    notes = (*corpus.labels.notes, *([layout.note] if layout.note else ()))
    labels = replace(corpus.labels, names=layout.names, notes=notes)
    if layout.columns == tuple(range(len(layout.names))):
        return replace(corpus, labels=labels)

    def lay(split: Split) -> Split:
        assert split.classes is not None
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
    """What a person should know of the labels of a corpus: how they were read, and which have no rows in a
    split.
    """
    if corpus.labels is None:
        return []
    splits = {"training": corpus.train, "validation": corpus.validation, "test": corpus.test}
    held: dict[str, Flags] = {
        use: split.classes.sum(axis=0) > 0
        for use, split in splits.items()
        if split and split.classes is not None
    }
    notes = list(corpus.labels.notes)
    for use, flags in held.items():
        missing = [name for name, flag in zip(corpus.labels.names, flags) if not flag]
        if use != "training" and missing:
            notes.append(
                f"without {use} rows: {listed(missing)}; each counts as 0 in the macro figures of {use}"
            )
        elif missing and any(other[~flags].any() for other in held.values()):
            notes.append(f"without training rows, as all of theirs are held out: {listed(missing)}")
    return notes


def choose_uses(
    recipe: Recipe, arrays: dict[str, npt.NDArray[Any]], *, are_examples: bool = False
) -> tuple[Ints, Flags]:
    """Which of gate.USES each document is for, and which documents are cut by position: both (n,).

    A document is cut if it is all that its source has and no other belongs with it; an example is not.
    """
    sources, units = arrays["sources"], arrays["units"]
    uses = np.array([USES.index(use) for use, _ in list_sources(recipe)], dtype=np.int64)[sources]
    cut = np.zeros(len(units), dtype=np.bool_)
    if recipe.data.validation is not None:
        return uses, cut
    if not are_examples:
        cut = (np.bincount(sources)[sources] == 1) & (np.bincount(units)[units] == 1) & (uses == 0)
    rest = ~cut & (uses == 0)
    if rest.any() and (not cut.any() or len(np.unique(units[rest])) > 1):
        uses[rest] = hold_out(arrays["hashes"][rest], units[rest], recipe.data.validation_ratio)
    return uses, cut


def _read(recipe: Recipe, folder: Path) -> _Prepared:
    """Raises: InputError if a file, or a number in it, is not what `prepared.py` writes for such a recipe."""
    built = open_built(folder, MANIFEST)
    manifest, sources = built.manifest, list_sources(recipe)
    kind: PreparedKind = manifest["kind"]
    known = {"classification": ("labelled",), "seq2seq": ("pairs",)}.get(
        recipe.train.objective, ("texts", "examples")
    )
    if kind not in known or (kind == "labelled") != (manifest["labels"] is not None):
        raise built.damaged(f"{kind} are no data for train.objective {recipe.train.objective}")
    last_id = manifest["vocab_size"] - 1
    ends = [manifest["eos_id"], *manifest["end_ids"]]
    if len(ends) < 2 or max(ends) > last_id or len(manifest["sources"]) != len(sources):
        raise built.damaged("manifest.json names ids or sources that there are not")
    tokens = built.numbers("tokens.bin", f"<u{manifest['token_width_bytes']}", most=last_id)
    arrays = _read_arrays(built, kind, len(tokens), len(sources))
    if recipe.model.wants_code:
        code = arrays["code"] = built.array("code", np.uint16, (len(tokens), 4), is_mapped=True)
        if (
            code.nbytes <= VERIFY_BYTES
            and (code[:, :IDENTIFIER].max(axis=0) >= [len(KINDS), LEVELS, LEVELS]).any()
        ):
            raise built.damaged("code.npy holds what is no code")
    is_train = np.array([use == "train" for use, _ in sources])
    if not is_train[arrays["sources"]].any():
        raise built.damaged("no document is of data.train")
    # A loss says nothing of bytes that are left out, or that one token for all that is unknown stands for.
    is_lossy = manifest["lost_bytes"] or manifest["unknown_tokens"]
    each = arrays["token_bytes"] if len(arrays["token_bytes"]) and not is_lossy else None
    texts = Texts(tokens, arrays["offsets"], arrays["sizes"], each, manifest["eos_id"])
    given = {name: built.read(f"given-{name}") for name in manifest["given"]}
    try:
        tokenizer = Tokenizer(built.read("tokenizer.json").decode(), manifest["eos_token"], given)
    except UnicodeDecodeError:
        raise built.damaged("tokenizer.json is not UTF-8 text") from None
    return _Prepared(built, manifest, kind, arrays, texts, tokenizer)


def _read_arrays(built: Built, kind: PreparedKind, tokens: int, sources: int) -> dict[str, npt.NDArray[Any]]:
    """The arrays by their names, as prepared.py describes them; all that is an index is one of something
    there.
    """
    manifest = built.manifest
    arrays = {"offsets": _read_offsets(built, "offsets", None, tokens)}
    count, ids = len(arrays["offsets"]) - 1, manifest["vocab_size"]
    lengths = np.diff(arrays["offsets"])
    if not count:
        raise built.damaged("it holds no document")

    def take(
        name: str, dtype: npt.DTypeLike, *sides: int | None, least: float = 0, most: float = np.inf
    ) -> None:
        arrays[name] = built.array(name, dtype, sides, least=least, most=most)

    take("hashes", np.uint8, count, 16)
    take("prompts", np.int64, count, most=count - 1)
    take("units", np.int64, count, most=count - 1)
    take("sizes", np.int64, count, most=1 << 40)
    take("sources", np.int64, count, most=sources - 1)
    take("token_bytes", np.int64, None, most=1 << 40)
    if len(arrays["token_bytes"]) not in (0, ids):
        raise built.damaged(f"token_bytes.npy is of {len(arrays['token_bytes']):,} ids, not {ids:,}")
    if kind != "texts":
        take("answers", np.int64, None, 2, most=tokens)
        begins, ends = arrays["answers"].T
        if (begins > ends).any() or (np.diff(begins) < 0).any():
            raise built.damaged("answers.npy is not ascending")
        take("capabilities", np.int64, count, least=-1, most=len(manifest["capabilities"]) - 1)
        take("places", np.int64, count, 2, least=-(2**62))  # rows of a JSON array have negative numbers
        files = arrays["places"][:, 0]
        if files.min() < 0 or files.max() >= len(manifest["paths"]):
            raise built.damaged("places.npy names files that there are not")
    if kind in ("labelled", "pairs"):
        take("seconds", np.int64, count, least=1)  # a text has its end token at least
        if (arrays["seconds"] > lengths).any():
            raise built.damaged("seconds.npy leads out of its texts")
    if kind == "labelled":
        take("labels", np.uint8, count, len(manifest["labels"]["names"]), most=1)
        take("cuts", np.uint8, count, most=1)
    if kind == "pairs":
        size = manifest["files"].get("references.bin", {"size": 0})["size"]
        arrays["reference_places"] = _read_offsets(built, "reference_places", count + 1, size)
    return arrays


def _read_offsets(built: Built, name: str, count: int | None, size: int) -> Ints:
    """Where the parts of `size` things end to end begin, and the last one ends."""
    offsets: Ints = built.array(name, np.int64, (count,), most=size)
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != size or (np.diff(offsets) < 0).any():
        raise built.damaged(f"{name}.npy does not lead from 0 to {size:,}")
    return offsets


def _for_objective(recipe: Recipe, prepared: _Prepared, split: Split, use: str) -> Split:
    """The split with what an objective wants of its samples beside their tokens."""
    if recipe.kind.hides_tokens:
        split = replace(
            split, masking=choose_masking(prepared.tokenizer, seed=recipe.seed, ratio=recipe.train.mask_ratio)
        )
    if (
        recipe.loss.token_weights and use == "train"
    ):  # the training split alone, so that scores stay comparable
        kinds = prepared.built.numbers("kinds.bin", np.uint8, most=len(get_args(Kind)) - 1)
        if len(kinds) != len(split.tokens):
            raise prepared.built.damaged("kinds.bin is not of its tokens")
        weights = np.array(
            [recipe.loss.token_weights.get(kind, 1.0) for kind in get_args(Kind)], dtype=np.float32
        )
        split = replace(split, kinds=kinds, kind_weights=weights)
    return split


def _cut_texts(recipe: Recipe, texts: Texts, mine: Flags, cut: Flags, use: str) -> _Part:
    """The samples of one split, of texts end to end or of a text each; of a cut text validation has the end.

    Raises: InputError if texts of a sample each are too long and that is to be refused, or if none is left.
    """
    starts, ends = texts.offsets[:-1], texts.offsets[1:]
    middles = ends - 1 - np.ceil(recipe.data.validation_ratio * (ends - starts - 1)).astype(np.int64)
    middles = np.where(middles > starts, middles, ends)  # too short to be cut
    parts = {"train": (starts[cut], middles[cut]), "validation": (middles[cut], ends[cut])}
    begin, end = parts.get(use, (starts[:0], ends[:0]))
    # The parts of cut documents come last, as no end token separates them from what follows.
    whole = mine & ~cut
    starts, ends = np.r_[starts[whole], begin], np.r_[ends[whole], end]
    mode, seq_len, too_long = recipe.data.sample, recipe.train.seq_len, recipe.data.too_long
    if mode == "row" or too_long == "cut":
        return _Part(cut_samples(texts, starts, ends, mode, seq_len))
    is_long = ends - starts > seq_len
    if is_long.any() and (too_long == "refuse" or is_long.all()):
        count = f"all {len(is_long):,}" if is_long.all() else f"{int(is_long.sum()):,} of {len(is_long):,}"
        raise InputError(
            f"{count} documents of data.{use} have more than train.seq_len {seq_len:,} tokens, and "
            "data.too_long is "
            f'"{too_long}"; raise train.seq_len, or set data.too_long = "cut"'
        )
    split = cut_samples(texts, starts[~is_long], ends[~is_long], mode, seq_len)
    return _Part(split, {"dropped": int(is_long.sum())})


def _take_labelled(recipe: Recipe, prepared: _Prepared, rows: Ints, use: str) -> _Part:
    """Raises: InputError if rows are too long and that is to be refused, or if none is left."""
    arrays, manifest, seq_len = prepared.arrays, prepared.manifest, recipe.train.seq_len
    named, count = _name_rows(prepared, rows)
    is_long, is_dropped = arrays["cuts"][rows] > 0, recipe.data.too_long == "drop"
    if recipe.data.too_long == "refuse":
        _refuse_long(is_long, seq_len, count)
    if is_dropped and len(rows) and is_long.all():
        raise InputError(
            f"none of the {len(rows):,} rows of data.{use} fits into train.seq_len {seq_len:,}, and "
            "data.too_long drops them; raise it"
        )
    left = {"dropped": int(is_long.sum()), "dropped_rows": named(is_long)} if is_dropped else {}
    rows = rows[~is_long] if is_dropped else rows
    split = take_wholes(
        prepared.texts, rows, arrays["labels"], arrays["seconds"], seq_len, arrays.get("code")
    )
    counts = zip(manifest["labels"]["names"], arrays["labels"][rows].sum(axis=0).tolist())
    kinds = [*manifest["capabilities"], None]  # -1 is none
    return _Part(
        replace(split, truncated=int(arrays["cuts"][rows].sum())),
        {"labels": ", ".join(f"{name} {number:,}" for name, number in counts), **left},
        capabilities=[kinds[index] for index in arrays["capabilities"][rows].tolist()],
        ids=_name_hashes(arrays["hashes"][rows]) if use != "train" else [],
    )


def _take_examples(recipe: Recipe, prepared: _Prepared, rows: Ints, use: str) -> _Part:
    """Raises: InputError if rows are too long and that is to be refused, or if nothing is left to learn."""
    data, seq_len, texts, arrays = recipe.data, recipe.train.seq_len, prepared.texts, prepared.arrays
    manifest = prepared.manifest
    answers = arrays["answers"]
    named, count = _name_rows(prepared, rows)
    answers_only = data.answers_only and not recipe.kind.hides_tokens  # which hides tokens of all of a row
    marked = (manifest["conversations"] or {}).get("answers_marked_not_to_learn", 0)
    if marked and not answers_only:
        key = "train.objective" if data.answers_only else "data.answers_only"
        raise InputError(
            f"{marked:,} answers are marked as not to be learnt, but {key} of this recipe learns all of a "
            "conversation; take the marks out, or learn answers alone"
        )
    split, left = cut_examples(
        texts, rows, answers, seq_len, answers_only=answers_only, drop=data.too_long == "drop"
    )

    is_long = left.dropped | left.cut | left.cut_away
    if data.too_long == "refuse":
        _refuse_long(is_long, seq_len, count)
    if len(rows) and not len(split):
        raise InputError(
            f"data.{use} has nothing to score: none of {len(rows):,} rows has an answer within train.seq_len "
            f"{seq_len} (cut away: {count(left.cut_away)}; dropped: {count(left.dropped)}; the longest row "
            f"has {int(np.diff(texts.offsets)[rows].max()):,} tokens); raise it"
        )
    said = {
        name: value
        for name, flags in (("dropped", left.dropped), ("cut_away", left.cut_away))
        for name, value in ((name, int(flags.sum())), (f"{name}_rows", named(flags)))
    }
    kept = rows[left.kept]
    is_conversation = answers[answers[:, 0].searchsorted(texts.offsets[kept]), 0] > texts.offsets[kept]
    places, names = (kept[is_conversation], split.ends[is_conversation]), prepared.manifest["capabilities"]
    columns = texts.tokens, arrays["offsets"], answers, arrays["capabilities"]
    return _Part(split, said, Conversations(*places, *columns, names, prepared.tokenizer))


def _refuse_long(is_long: Flags, seq_len: int, count: Callable[[Flags], str]) -> None:
    if is_long.any():
        raise InputError(
            f"rows with more than train.seq_len {seq_len:,} tokens: {count(is_long)}; "
            'raise it, or set data.too_long to "cut" or "drop"'
        )


def _take_pairs(recipe: Recipe, prepared: _Prepared, rows: Ints, use: str) -> _Part:
    """Raises: InputError if rows are too long and that is to be refused, or if none is left."""
    arrays = prepared.arrays
    longest = recipe.train.seq_len, recipe.train.target_len or recipe.train.seq_len
    is_dropped = recipe.data.too_long == "drop"
    split, too_long = take_pairs(prepared.texts, rows, arrays["seconds"], *longest, drop=is_dropped)
    named, count = _name_rows(prepared, rows)
    said = f"train.seq_len {longest[0]:,} in the source or train.target_len {longest[1]:,} in the target"
    if recipe.data.too_long == "refuse" and too_long.any():
        raise InputError(
            f"rows with more tokens than {said}: {count(too_long)}; raise them, or set data.too_long to cut "
            "or drop"
        )
    if recipe.data.too_long == "cut" and too_long.any() and prepared.tokenizer.truncation_side == "left":
        raise InputError(
            "the tokenizer cuts on the left (truncation_side), sources and targets are cut on the right "
            f"here, and {int(too_long.sum()):,} rows have more tokens than {said}; raise them, or set "
            "data.too_long to drop"
        )
    if len(rows) and not len(split):
        raise InputError(
            f"all {len(rows):,} rows have more tokens than {said}, and data.too_long drops them; raise them"
        )
    kept = rows[~too_long] if is_dropped else rows
    references = prepared.built.numbers("references.bin", np.uint8)
    names = arrays["capabilities"], prepared.manifest["capabilities"]
    pairs = Pairs(split, kept, references, arrays["reference_places"], *names, prepared.tokenizer)
    left = {"dropped": int(too_long.sum()), "dropped_rows": named(too_long)} if is_dropped else {}
    return _Part(split, left, pairs, ids=_name_hashes(arrays["hashes"][kept]) if use != "train" else [])


def _summarize(recipe: Recipe, prepared: _Prepared, uses: Ints, parts: dict[str, _Part]) -> dict[str, Any]:
    manifest, arrays, tokens = prepared.manifest, prepared.arrays, len(prepared.texts.tokens)
    same = arrays["prompts"]
    lengths = arrays["seconds"] if prepared.kind == "pairs" else np.diff(arrays["offsets"])
    if prepared.kind == "labelled":  # of a text that was cut it is only known that it was longer
        lengths = lengths + arrays["cuts"]
    lost = manifest["lost_bytes"]
    summary = {
        "sources": manifest["sources"],
        **({"conversations": manifest["conversations"]} if manifest["conversations"] else {}),
        **{
            use: _split_summary(part.split) | part.said if len(part.split) else None
            for use, part in parts.items()
        },
        "lengths": describe_lengths(lengths[uses == 0], recipe.train.seq_len),
        **({"shared_groups": shared} if (shared := manifest["shared_groups"]["count"]) else {}),
        "overlap": int(np.isin(same[uses > 0], same[uses == 0]).sum()),
        "vocab_size": manifest["vocab_size"],
        "unknown_ratio": manifest["unknown_tokens"] / tokens,
        **({"lost_bytes": lost, "lost_ratio": lost / max(int(arrays["sizes"].sum()), 1)} if lost else {}),
        "bytes_per_token": int(arrays["sizes"].sum()) / max(tokens - len(uses), 1),
    }
    if prepared.kind == "labelled" and (conflicts := _find_conflicts(arrays, same)).any():
        named = _name_rows(prepared, np.arange(len(same)))[0](conflicts)
        summary["same_text_other_labels"] = int(conflicts.sum())
        summary["same_text_other_labels_rows"] = ", ".join(named)
    return summary


def _name_rows(
    prepared: _Prepared, rows: Ints
) -> tuple[Callable[[Flags], list[str]], Callable[[Flags], str]]:
    """What names the first of flagged rows by file and line, and what counts them and names three."""

    def named(flags: Flags) -> list[str]:
        places = prepared.arrays["places"][rows[flags][:NAMED_ROWS]].tolist()
        paths = prepared.manifest["paths"]
        return [place_of(paths[path], line) for path, line in places]

    def count(flags: Flags) -> str:
        names = f" ({', '.join(named(flags)[:3])}{' ...' if flags.sum() > 3 else ''})"
        return f"{int(flags.sum()):,}{names if flags.any() else ''}"

    return named, count


def _find_conflicts(arrays: dict[str, npt.NDArray[Any]], same: Ints) -> Flags:
    """Which rows (n,) have a text that another row has with other labels."""
    kinds = np.unique(np.column_stack([same, arrays["labels"]]), axis=0)[:, 0]
    texts, labellings = np.unique(kinds, return_counts=True)
    return np.isin(same, texts[labellings > 1])


def _name_hashes(hashes: npt.NDArray[np.uint8]) -> list[str]:
    return [each.tobytes().hex() for each in hashes[:, :8]]


def _split_summary(split: Split) -> dict[str, Any]:
    return {
        "documents": split.documents,
        "samples": len(split),
        "tokens": split.targets,
        "bytes": split.bytes,
        "truncated": split.truncated,
    }


def _fingerprint(made: list[str], hashes: npt.NDArray[np.uint8], *splits: Split) -> str:
    digest = hashlib.sha256("".join(made).encode())
    digest.update(hashes.tobytes())
    for split in splits:
        digest.update(np.stack([split.starts, split.ends]).astype("<i8").tobytes() + b"split")
    return digest.hexdigest()
