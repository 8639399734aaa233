"""The seam between shapes of samples and prepared data: how documents become columns, and these samples."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from etude.data.cache import Built, Files
from etude.data.examples import Example
from etude.data.labels import Labels
from etude.data.rows import place_of
from etude.data.samples.sample import Flags, Ints, Samples, Texts
from etude.data.sources import Document
from etude.data.tally import NAMED_ROWS, Tally
from etude.data.tokenize import Tokenizer
from etude.errors import InputError
from etude.recipe.data import Source
from etude.recipe.schema import Recipe

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Building:
    """Prepared data that is being built, once all documents are tokenised.

    sources    (use, source) in the order of the recipe
    arrays     the columns that all shapes have
    documents  reads the documents again
    """

    folder: Path
    sources: list[tuple[str, Source]]
    tally: Tally
    arrays: Arrays
    documents: Callable[[], Iterator[Document]]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of one shape.

    arrays      by the names of their .npy files
    code        (m, 2) stretches of tokens that may be code
    is_answer   (m,) true for those that are answers in conversations; or one for all
    files       other files that were written
    """

    arrays: Arrays
    code: Ints = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    is_answer: Flags | bool = False
    files: Files = field(default_factory=dict)
    labels: Labels | None = None


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The content of a prepared folder; `arrays` by the names of its .npy files."""

    built: Built
    arrays: Arrays
    texts: Texts
    tokenizer: Tokenizer

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest of the folder."""
        return self.built.manifest

    def capability(self, row: int) -> str | None:
        """The capability of a row, if it has one."""
        number = int(self.arrays["capabilities"][row])
        name: str | None = self.manifest["capabilities"][number] if number >= 0 else None
        return name

    def ids(self, rows: Ints) -> list[str]:
        """A name for each row that depends on its text alone."""
        return [each.tobytes().hex() for each in self.arrays["hashes"][rows, :8]]

    def name_rows(self, rows: Ints) -> list[str]:
        """File and line of the first ten rows."""
        places = self.arrays["places"][rows[:NAMED_ROWS]].tolist()
        paths = self.manifest["paths"]
        return [place_of(paths[path], line) for path, line in places]

    def count_rows(self, rows: Ints) -> str:
        """The number of rows, with file and line of three."""
        names = f" ({', '.join(self.name_rows(rows)[:3])}{' ...' if len(rows) > 3 else ''})"
        return f"{len(rows):,}{names if len(rows) else ''}"

    def keep_short(
        self, use: str, too_long: str, rows: Ints, is_long: Flags, limits: str
    ) -> tuple[Ints, dict[str, Any]]:
        """The rows that data.too_long keeps, and the summary of those that it drops.

        is_long: (n,) true for rows with more tokens than `limits`. Raises: InputError if there are such rows
        and they are to be refused, or if none would be left.
        """
        long = rows[is_long]
        if too_long == "refuse" and len(long):
            raise InputError(
                f"rows with more tokens than {limits}: {self.count_rows(long)}; raise it, or set "
                'data.too_long to "cut" or "drop"'
            )
        if too_long == "drop" and len(rows) and len(long) == len(rows):
            raise InputError(
                f"all {len(rows):,} rows of data.{use} have more tokens than {limits}, and data.too_long "
                "drops them; raise it"
            )
        if too_long != "drop":
            return rows, {}
        return rows[~is_long], {"dropped": len(long), "dropped_rows": self.name_rows(long)}


@dataclass(frozen=True, kw_only=True)
class Part:
    """The samples for one use.

    lengths       (n,) tokens of each document, before any was cut or dropped
    summary       figures that this shape adds to those of every split
    examples      the samples that can be asked, as questions with their answers
    capabilities  of each sample of labelled texts
    ids           of each held-out sample whose prediction is kept
    """

    split: Samples
    lengths: Ints
    summary: dict[str, Any] = field(default_factory=dict)
    examples: Sequence[Example] = ()
    capabilities: list[str | None] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)


class Shape:
    """A shape of samples; a subclass says how it differs from one of whole rows without labels.

    name              as manifests have it
    files             of a prepared folder, which with texts, tokenizer and split make the samples
    cuts_documents    the only document of a source is cut in two, to hold out its end
    has_labels        prepared data has labels
    renders           conversations become tokens by a chat template
    """

    name: str
    files: tuple[str, ...] = ()
    cuts_documents = False
    has_labels = False
    renders = False

    def encode(
        self, recipe: Recipe, documents: Iterator[Document], tally: Tally, tokenizer: Tokenizer, today: str
    ) -> Iterator[Ints]:
        """The ids of documents, in pieces, each noted in `tally`; `today` (YYYY-MM-DD) is for templates."""
        raise NotImplementedError

    def finish(self, building: Building) -> Columns:
        """The columns of this shape."""
        raise NotImplementedError

    def read(self, recipe: Recipe, built: Built, arrays: Arrays) -> None:
        """Add the columns of this shape to `arrays`. Raises: InputError if one is damaged."""
        _read_places(built, arrays)

    def take(self, recipe: Recipe, prepared: Prepared, use: str, rows: Ints, cut: Flags) -> Part:
        """The samples of documents `rows` for a use; of those that are `cut`, (documents,), a part.

        Raises: InputError if samples are too long and that is to be refused, or if none is left.
        """
        raise NotImplementedError

    def settings(self, recipe: Recipe) -> list[str]:
        """The settings that samples depend on beside the files."""
        return []


def read_seconds(built: Built, arrays: Arrays) -> None:
    """Add where the second text of each document begins; a text has its end token at least."""
    lengths = np.diff(arrays["offsets"])
    arrays["seconds"] = built.array("seconds", np.int64, (len(lengths),), least=1)
    if (arrays["seconds"] > lengths).any():
        raise built.damaged("seconds.npy leads out of its texts")


def _read_places(built: Built, arrays: Arrays) -> None:
    """Add answers, capabilities and places."""
    count, manifest = len(arrays["sources"]), built.manifest
    answers = arrays["answers"] = built.array("answers", np.int64, (None, 2), most=int(arrays["offsets"][-1]))
    begins, ends = answers.T
    if (begins > ends).any() or (np.diff(begins) < 0).any():
        raise built.damaged("answers.npy is not ascending")
    last = len(manifest["capabilities"]) - 1
    arrays["capabilities"] = built.array("capabilities", np.int64, (count,), least=-1, most=last)
    # Rows of a JSON array have negative numbers.
    arrays["places"] = built.array("places", np.int64, (count, 2), least=-(2**62))
    files = arrays["places"][:, 0]
    if files.min() < 0 or files.max() >= len(manifest["paths"]):
        raise built.damaged("places.npy names files that there are not")
