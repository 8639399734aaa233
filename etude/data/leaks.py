"""Problems of benchmarks among training documents: one contains enough of a question or an answer."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from etude import durable
from etude.data.cache import to_npy
from etude.data.samples.sample import Ints
from etude.data.shingles import Hashes, shingle_sets
from etude.data.sources import read_all_rows
from etude.errors import InputError

# What a benchmark may call its fields.
_ANSWERS = (
    "canonical_solution", "solution", "code", "completion", "answer", "output", "response", "target",
    "reference",
)  # fmt: skip
_QUESTIONS = (
    "prompt", "text", "question", "instruction", "problem", "description", "source", "query", "input",
)  # fmt: skip
_NAMES = ("task_id", "id", "name", "question_id", "problem_id")
CONTAINED = 0.8  # share of the shingles of a question or an answer from which it counts as found
_FEW = 8  # shingles; of so few all must be there
_FEWEST = 5  # fewer say too little: many a program has `return a + b`
_QUESTION_WORDS = 20  # "Write a function to add two numbers" is asked everywhere


@dataclass(frozen=True)
class Problems:
    """Questions and answers of benchmarks, p parts in all, as sets of shingles.

    parts    (p, 3) int64: number of the benchmark, of the problem, and how many shingles a document must
             contain
    hashes   (h,) uint64, ascending: a shingle, as many times as there are parts that have it
    owners   (h,) int64: the part
    """

    parts: Ints
    hashes: Hashes
    owners: Ints

    def looked_for(self, benchmark: int) -> int:
        """The number of problems of a benchmark that have a part long enough to tell."""
        return len(np.unique(self.parts[self.parts[:, 0] == benchmark, 1]))

    def save(self, folder: Path) -> None:
        for name in ("parts", "hashes", "owners"):
            durable.write_file(folder / f"problem-{name}.npy", to_npy(getattr(self, name)))

    @staticmethod
    @functools.lru_cache(maxsize=1)
    def load(folder: Path) -> "Problems":
        names = ("parts", "hashes", "owners")
        return Problems(*(np.load(folder / f"problem-{name}.npy", allow_pickle=False) for name in names))


def read_problems(paths: Sequence[str]) -> tuple[Problems, list[list[str]]]:
    """Read the problems of JSONL files as shingles, and their names for each file. Raises: InputError."""
    owners: list[tuple[int, int]] = []
    texts: list[str] = []
    names: list[list[str]] = []
    for benchmark, path in enumerate(paths):
        names.append([])
        for number, (place, row) in enumerate(read_all_rows(Path(path)), 1):
            parts = list(_parts(row, place))
            owners += [(benchmark, len(names[-1]))] * len(parts)
            texts += parts
            names[-1].append(str(next((row[name] for name in _NAMES if name in row), number)))
        if not names[-1]:
            raise InputError(f"{path} holds no evaluation problem; give a JSONL file such as HumanEval.jsonl")
    hashes, sizes = shingle_sets(texts)
    needed = np.where(sizes < _FEW, sizes, np.ceil(CONTAINED * sizes)).astype(np.int64)
    is_long = sizes >= _FEWEST
    parts = np.c_[np.array(owners, dtype=np.int64).reshape(-1, 2), needed][is_long]
    hashes, owner = hashes[is_long.repeat(sizes)], np.arange(len(parts)).repeat(sizes[is_long])
    order = hashes.argsort(kind="stable")
    return Problems(parts, hashes[order], owner[order]), names


def find_planted(hashes: Hashes, offsets: Ints, problems: Problems) -> Ints:
    """Find documents that contain enough of a problem: (k, 3) of document, benchmark and problem, ascending.

    hashes, offsets: the shingles of the documents, as `shingle` gives them.
    """
    low, high = (problems.hashes.searchsorted(hashes, side=side) for side in ("left", "right"))
    at = np.flatnonzero(high > low)
    # Each hit once for each part that has the shingle.
    counts = (high - low)[at]
    hits = np.repeat(low[at] - np.r_[0, np.cumsum(counts)[:-1]], counts) + np.arange(int(counts.sum()))
    document = np.repeat(offsets.searchsorted(at, side="right") - 1, counts)
    pairs = np.unique(np.stack([document, problems.owners[hits], hits], axis=1), axis=0)[:, :2]
    matched, shared = np.unique(pairs, axis=0, return_counts=True)
    document, part = matched[shared >= problems.parts[matched[:, 1], 2]].T
    return np.unique(np.c_[document, problems.parts[part, :2]], axis=0)


def _parts(row: dict[str, Any], place: str) -> Iterator[str]:
    """The question and the answer; an answer that is the body of a function only also with its first line."""
    question, answer = _text(row, _QUESTIONS), _text(row, _ANSWERS)
    if question is None and answer is None:
        raise InputError(
            f"{place} is no evaluation problem: it has none of the fields "
            f"{', '.join(_QUESTIONS + _ANSWERS)}; name a benchmark such as HumanEval.jsonl under "
            "data.leakage.benchmarks"
        )
    head = f"def {row.get('entry_point')}("
    begin = next((line for line in (question or "").splitlines() if line.startswith(head)), "")
    if question is not None and (begin or len(question.split()) >= _QUESTION_WORDS):
        yield question
    if answer is not None:
        yield answer
        if begin:
            yield f"{begin}\n{answer}"


def _text(row: dict[str, Any], names: Sequence[str]) -> str | None:
    return next((row[name] for name in names if isinstance(row.get(name), str) and row[name].strip()), None)
