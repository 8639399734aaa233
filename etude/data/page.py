"""The data page: what a recipe's documents are, what was wrong with them, and what became of them, as plain
values.
"""

from typing import Any

import numpy as np

from etude.data.clean import FILTERS
from etude.data.gate import Gate, count_removed
from etude.data.listing import USES
from etude.data.samples.sample import Ints
from etude.text import plural

_EXAMPLES = 3
_LARGEST = 5


def describe_gate(gate: Gate, uses: Ints | None = None) -> dict[str, list[dict[str, Any]]]:
    """What the gate found, as tables of rows; those that would be empty are left out.

    uses: which of USES each document is for that was not removed, where a share of a source was held out.
    """
    tables = {
        "removed": _removed(gate),
        "filters": _filters(gate),
        "duplicates": _duplicates(gate),
        "largest clusters": _clusters(gate),
        "leaks": [*_split_leaks(gate, uses), *_leaks(gate)],
        "benchmarks": _benchmarks(gate),
    }
    return {name: rows for name, rows in tables.items() if rows}


def list_notes(summary: dict[str, Any]) -> list[str]:
    """What a person should know of how the rows of each source were read, a line each."""
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
            way = (
                ""
                if is_chat
                else "; for conversations, give rows with messages instead of text rendered already"
            )
            notes.append(
                f"{name}: {special:,} of {source['documents']:,} texts hold special tokens{such} which are "
                f"read as plain letters{way}"
            )
    if lost := summary.get("lost_bytes"):
        notes.append(
            f"{lost:,} bytes of the texts ({summary['lost_ratio']:.2%}) stand for no token of the tokenizer "
            "and are left out, so bits per byte are not told; use a byte-level tokenizer to keep them"
        )
    if share := summary.get("unknown_ratio"):
        notes.append(f"{share:.2%} of the tokens stand for what the tokenizer does not know")
    return notes


def describe_lengths(lengths: Ints, limit: int) -> list[dict[str, Any]]:
    """How many documents have how many tokens, in doublings; `limit` is the longest sample."""
    if not len(lengths):
        return []
    powers = np.maximum(np.ceil(np.log2(np.maximum(lengths, 1))).astype(np.int64), 4)
    rows = []
    for power in range(int(powers.min()), int(powers.max()) + 1):
        count = int((powers == power).sum())
        low = 0 if power == 4 else (1 << (power - 1)) + 1
        rows.append(
            {"tokens": f"{low:,} to {1 << power:,}", "documents": count, "share": count / len(lengths)}
        )
    longer = int((lengths > limit).sum())
    return [
        *rows,
        {"tokens": f"more than train.seq_len {limit:,}", "documents": longer, "share": longer / len(lengths)},
    ]


def _removed(gate: Gate) -> list[dict[str, Any]]:
    rows = []
    for number, use in enumerate(USES):
        documents = int((gate.uses == number).sum())
        for reason, count in count_removed(gate, number).items():
            rows.append({"use": use, "reason": reason, "documents": count, "share": count / documents})
    return rows


def _filters(gate: Gate) -> list[dict[str, Any]]:
    clean = gate.recipe.data.clean
    rows = []
    for bit, name in enumerate(FILTERS):
        policy = getattr(clean, name)
        if policy != "off":
            hits = int((gate.failed >> bit & 1).sum())
            shown = [f"{gate.name(index)}: {text}" for index, text in gate.manifest["examples"].get(name, [])]
            rows.append({"filter": name, "policy": policy, "documents": hits, "examples": shown})
    if clean.undecodable != "off":
        files = gate.manifest["undecodable"]
        rows.append(
            {
                "filter": "undecodable",
                "policy": clean.undecodable,
                "documents": len(files),
                "examples": files[:_EXAMPLES],
            }
        )
    return rows


def _duplicates(gate: Gate) -> list[dict[str, Any]]:
    documents = max(int((gate.uses == 0).sum()), 1)
    again = gate.same_as >= 0
    kinds = {
        "exact": again & (gate.similarity >= 1),
        f"near (Jaccard from {gate.recipe.data.near_threshold})": again & (gate.similarity < 1),
    }
    rows = []
    for kind, flags in kinds.items():
        at = np.flatnonzero(flags)
        shown = [
            f"{gate.name(index)} repeats {gate.name(int(gate.same_as[index]))} ({gate.similarity[index]:.2f})"
            for index in at[:_EXAMPLES].tolist()
        ]
        rows.append({"kind": kind, "documents": len(at), "share": len(at) / documents, "examples": shown})
    return rows


def _clusters(gate: Gate) -> list[dict[str, Any]]:
    """The documents that most others repeat."""
    kept, counts = np.unique(gate.same_as[gate.same_as >= 0], return_counts=True)
    rows = []
    for at in np.lexsort((kept, -counts))[:_LARGEST].tolist():
        others = np.flatnonzero(gate.same_as == kept[at])[:_EXAMPLES].tolist()
        shown = ", ".join(gate.name(index) for index in others) + (" ..." if counts[at] > _EXAMPLES else "")
        rows.append({"kept": gate.name(int(kept[at])), "repeated": int(counts[at]), "by": shown})
    return rows


def _leaks(gate: Gate) -> list[dict[str, Any]]:
    rows = []
    for into, of in (("validation", "train"), ("test", "train"), ("test", "validation")):
        documents = int(((gate.uses == USES.index(into)) & ~gate.removed).sum())
        if documents and (gate.uses == USES.index(of)).any():
            pairs = gate.leaking(into, of)
            shown = [f"{gate.name(a)} = {gate.name(b)}" for a, b in pairs[:_EXAMPLES].tolist()]
            rows.append(
                {
                    "of": into,
                    "also in": of,
                    "documents": len(pairs),
                    "share": len(pairs) / documents,
                    "examples": shown,
                }
            )
    return rows


def _split_leaks(gate: Gate, uses: Ints | None) -> list[dict[str, Any]]:
    """Held-out documents that are near a training document of the same source; equal ones are held out
    together.
    """
    if uses is None or gate.recipe.data.validation is not None or not (uses == 1).any():
        return []
    known = np.full(len(gate.removed), -1)
    known[~gate.removed] = uses
    at = np.flatnonzero(
        (gate.same_as >= 0) & (known >= 0) & (known[gate.same_as] >= 0) & (known != known[gate.same_as])
    )
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
    share = len(leaking) / int((uses == 1).sum())
    return [
        {"of": "validation", "also in": "train", "documents": len(leaking), "share": share, "examples": shown}
    ]


def _benchmarks(gate: Gate) -> list[dict[str, Any]]:
    rows = []
    for number, benchmark in enumerate(gate.manifest["benchmarks"]):
        mine = gate.planted[gate.planted[:, 1] == number]
        problems = np.unique(mine[:, 2], return_index=True)
        shown = [
            f"{benchmark['problems'][problem]} in {gate.name(int(mine[at, 0]))}"
            for problem, at in zip(problems[0].tolist(), problems[1].tolist())
        ]
        rows.append(
            {
                "benchmark": benchmark["name"],
                "problems": len(benchmark["problems"]),
                "looked_for": benchmark["looked_for"],
                "found": len(shown),
                "documents": len(np.unique(mine[:, 0])),
                "examples": shown,
            }
        )
    return rows
