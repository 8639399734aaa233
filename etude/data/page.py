"""The data page: the documents of a recipe, their faults, and what became of them, as plain values."""

from typing import Any

import numpy as np

from etude.data.clean import FILTERS
from etude.data.gate import Gate, count_removed
from etude.data.listing import USES
from etude.data.samples.sample import Ints
from etude.text import plural

_EXAMPLES = 3
_LARGEST = 5
Rows = list[dict[str, Any]]


def describe_gate(gate: Gate, uses: Ints | None = None) -> dict[str, Rows]:
    """The findings of the gate, as tables of rows; those that would be empty are left out.

    uses: which of USES each document is for that was not removed, where a share of a source was held out.
    """
    tables = {
        "removed": _removed(gate),
        "filters": _filters(gate),
        "duplicates": _duplicates(gate),
        "largest_clusters": _clusters(gate),
        "leaks": [*_split_leaks(gate, uses), *_leaks(gate)],
        "benchmarks": _benchmarks(gate),
    }
    return {name: rows for name, rows in tables.items() if rows}


def list_notes(summary: dict[str, Any]) -> list[str]:
    """Notes on how the rows of each source were read, a line each."""
    notes = []
    for source in summary.get("sources", ()):
        name, is_chat = source["name"], "blank_rows" in source
        if unread := source.get("unread_columns"):
            notes.append(f"{name}: columns that are not read: {', '.join(unread)}")
        if no_values := source.get("cells_without_value"):
            notes.append(
                f"{name}: cells that look empty as pandas writes them (nan, NA, None ...) are read as that "
                f"text: {', '.join(no_values)}; leave such rows out, or write the cells empty"
            )
        if wholes := source.get("files_of_rows_read_as_texts"):
            notes.append(
                f"{name}: {plural(wholes, 'file')} of rows that hold no text, such as "
                f"{', '.join(source['such_files'])}, read whole, as the other files are; to read rows, "
                "choose their files with glob"
            )
        if special := source.get("special_tokens_read_as_text"):
            such = f", such as {', '.join(source['such_as'])}," if source["such_as"] else ""
            way = "; for conversations, give rows with messages instead of text rendered already"
            notes.append(
                f"{name}: {special:,} of {source['documents']:,} texts hold special tokens{such} which are "
                f"read as plain letters{'' if is_chat else way}"
            )
    for use, word in (("train", "training"), ("validation", "validation"), ("test", "test")):
        counts = summary.get(use) or {}
        if cut := counts.get("truncated"):
            rows = f"{cut:,} of {plural(counts['documents'], f'{word} row')}"
            notes.append(
                f"{rows} {'is' if cut == 1 else 'are'} longer than a sample, and cut (data.too_long)"
            )
    if lost := summary.get("lost_bytes"):
        notes.append(
            f"{lost:,} bytes of the texts ({summary['lost_ratio']:.2%}) stand for no token of the tokenizer "
            "and are left out, so bits per byte are not told; use a byte-level tokenizer to keep them"
        )
    if share := summary.get("unknown_ratio"):
        notes.append(f"{share:.2%} of the tokens stand for what the tokenizer does not know")
    return notes


def describe_lengths(lengths: Ints, limit: int) -> Rows:
    """The numbers of documents by tokens, in doublings; `limit` is the longest sample.

    Of texts that are cut as they are read, only that they are longer than `limit` is known: `limit` + 1.
    """
    if not len(lengths):
        return []
    longer = lengths > limit
    known = lengths[~longer] if (lengths[longer] == limit + 1).all() else lengths
    powers = np.maximum(np.ceil(np.log2(np.maximum(known, 1))).astype(np.int64), 4)
    counts = {}
    for power in range(int(powers.min()), int(powers.max()) + 1) if len(powers) else ():
        low = 0 if power == 4 else (1 << (power - 1)) + 1
        counts[f"{low:,} to {1 << power:,}"] = int((powers == power).sum())
    counts[f"more than train.seq_len {limit:,}"] = int(longer.sum())
    return [_row(count, len(lengths), tokens=tokens) for tokens, count in counts.items()]


def _row(documents: int, total: int, examples: list[str] | None = None, /, **named: str) -> dict[str, Any]:
    """A row: its names, the documents, their share of the total, and examples if there may be any."""
    shown = {} if examples is None else {"examples": examples}
    return {**named, "documents": documents, "share": documents / total, **shown}


def _removed(gate: Gate) -> Rows:
    return [
        _row(count, int((gate.uses == number).sum()), use=use, reason=reason)
        for number, use in enumerate(USES)
        for reason, count in count_removed(gate, number).items()
    ]


def _filters(gate: Gate) -> Rows:
    clean, rows = gate.recipe.data.clean, []
    for bit, name in enumerate(FILTERS):
        hits = int((gate.failed >> bit & 1).sum())
        shown = [f"{gate.name(index)}: {text}" for index, text in gate.manifest["examples"].get(name, [])]
        rows.append({"filter": name, "policy": getattr(clean, name), "documents": hits, "examples": shown})
    files = gate.manifest["undecodable"]
    undecodable = {"filter": "undecodable", "policy": clean.undecodable, "documents": len(files)}
    rows.append({**undecodable, "examples": files[:_EXAMPLES]})
    return [row for row in rows if row["policy"] != "off"]


def _duplicates(gate: Gate) -> Rows:
    documents = max(int((gate.uses == 0).sum()), 1)
    again = gate.same_as >= 0
    kinds = {
        "exact": again & (gate.similarity >= 1),
        f"near (Jaccard from {gate.recipe.data.near_threshold})": again & (gate.similarity < 1),
    }
    rows = []
    for kind, flags in kinds.items():
        shown = [
            f"{gate.name(index)} repeats {gate.name(int(gate.same_as[index]))} ({gate.similarity[index]:.2f})"
            for index in np.flatnonzero(flags)[:_EXAMPLES].tolist()
        ]
        rows.append(_row(int(flags.sum()), documents, shown, kind=kind))
    return rows


def _clusters(gate: Gate) -> Rows:
    """The documents that most others repeat."""
    kept, counts = np.unique(gate.same_as[gate.same_as >= 0], return_counts=True)
    rows = []
    for at in np.lexsort((kept, -counts))[:_LARGEST].tolist():
        others = np.flatnonzero(gate.same_as == kept[at])[:_EXAMPLES].tolist()
        shown = ", ".join(gate.name(index) for index in others) + (" ..." if counts[at] > _EXAMPLES else "")
        rows.append({"kept": gate.name(int(kept[at])), "repeated": int(counts[at]), "by": shown})
    return rows


def _leaks(gate: Gate) -> Rows:
    rows = []
    for into, of in (("validation", "train"), ("test", "train"), ("test", "validation")):
        documents = int(((gate.uses == USES.index(into)) & ~gate.removed).sum())
        if documents and (gate.uses == USES.index(of)).any():
            pairs = gate.leaking(into, of)
            shown = [f"{gate.name(a)} = {gate.name(b)}" for a, b in pairs[:_EXAMPLES].tolist()]
            rows.append(_row(len(pairs), documents, shown, of=into, also_in=of))
    return rows


def _split_leaks(gate: Gate, uses: Ints | None) -> Rows:
    """Held-out documents near a training document of the same source; equal ones are held out together."""
    if uses is None or gate.recipe.data.validation is not None or not (uses == 1).any():
        return []
    known = np.full(len(gate.removed), -1)
    known[~gate.removed] = uses
    same = np.where(gate.same_as >= 0, known[gate.same_as], -1)
    at = np.flatnonzero((known >= 0) & (same >= 0) & (known != same))
    pairs = np.stack([at, gate.same_as[at]], axis=1)
    held_out, other = np.where(known[pairs[:, :1]] > 0, pairs, pairs[:, ::-1]).T
    partner = np.full(len(known), -1)
    partner[held_out] = other
    # Of equal texts, which are on one side, the first stands for all.
    partner = partner[gate.first_of_equals]
    leaking = np.flatnonzero((known == 1) & (partner >= 0))
    shown = [
        f"{gate.name(index)} = {gate.name(int(partner[index]))}" for index in leaking[:_EXAMPLES].tolist()
    ]
    return [_row(len(leaking), int((uses == 1).sum()), shown, of="validation", also_in="train")]


def _benchmarks(gate: Gate) -> Rows:
    rows = []
    for number, benchmark in enumerate(gate.manifest["benchmarks"]):
        mine = gate.planted[gate.planted[:, 1] == number]
        problems, first = np.unique(mine[:, 2], return_index=True)
        shown = [
            f"{benchmark['problems'][problem]} in {gate.name(int(mine[at, 0]))}"
            for problem, at in zip(problems.tolist(), first.tolist())
        ]
        counts = {"problems": len(benchmark["problems"]), "looked_for": benchmark["looked_for"]}
        documents = len(np.unique(mine[:, 0]))
        found = {"found": len(shown), "documents": documents, "examples": shown}
        rows.append({"benchmark": benchmark["name"], **counts, **found})
    return rows
