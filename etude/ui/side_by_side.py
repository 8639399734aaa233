"""Runs side by side, as `etude compare` sets them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from etude.errors import InputError
from etude.records.events import plain
from etude.records.store import Run
from etude.report.compare import compare_runs
from etude.ui.programs import Programs, problem_of
from etude.ui.readings import is_large
from etude.ui.recipes import unit_of, why_of
from etude.ui.trim import trim

if TYPE_CHECKING:
    from etude.ui.library import Library

_MOST_RUNS = 200


def compare(
    library: "Library", programs: Programs, ids: Sequence[str], baseline: str | None = None
) -> dict[str, Any]:
    """The comparison of runs by id, with its table and the meaning of each key that differs.

    baseline: the id of one of them, by default the first; it joins them if it is none of them.

    Raises: InputError if there is but one, or a folder is damaged; MissingError.
    """
    chosen = list(dict.fromkeys([*ids, *([baseline] if baseline else [])]))
    if not 2 <= len(chosen) <= _MOST_RUNS:
        raise InputError(f"{len(chosen):,} runs were given; compare takes from 2 to {_MOST_RUNS}")
    runs = [library.run(identity) for identity in chosen]
    place = chosen.index(baseline) if baseline else 0
    if any(map(is_large, runs)):
        code, found = programs.compare.ask("compare", *_words(runs, place))
        if code:
            raise InputError(problem_of(found))
    else:
        found = compare_runs([Run(run.path) for run in runs], place).to_dict()
    return trim(plain({
        **found, "ids": chosen, "names": found["runs"], "place": place, "rows": found.pop("table"),
        "keys": {key: {"why": why_of(key), "unit": unit_of(key)} for key in found["recipe"]},
    }))  # fmt: skip


def _words(runs: Sequence[Run], place: int) -> list[str]:
    paths = [str(run.path.absolute()) for run in runs]
    return [*paths, "--baseline", paths[place]]
