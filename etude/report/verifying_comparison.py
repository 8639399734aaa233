"""A comparison of runs, as `etude compare --json` gave it, held against their journals."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etude import durable
from etude.errors import InputError
from etude.records.shape import Object, fit
from etude.records.store import open_run
from etude.report.compare import compare_runs
from etude.report.deviations import compare_values
from etude.report.moments import Moments
from etude.report.verifying import Verification

_MOST_BYTES = 64 << 20
_COMPARISON = Object({"runs": list[str], "baseline": str, "results": Object()}, {"journals": list[Any]})
_OF_HERE = ("commands",)  # which name runs by the folder that they are asked for from


def is_comparison(path: Path) -> bool:
    """True if a file is a comparison of runs."""
    return path.suffix == ".json" and _read(path) is not None


def verify_comparison(path: Path, runs: Path) -> Verification:
    """Compare the runs again, as they were, and hold every value against those of a file.

    Raises: InputError if the file is no comparison, or one of its runs is not under `runs`.
    """
    stated = _read(path)
    if stated is None or stated["baseline"] not in stated["runs"]:
        raise InputError(f"{path} is no comparison of runs; etude compare RUN RUN --json writes one")
    made = Verification(path.name)
    moments = Moments(path.name, made)
    heads = [*stated.get("journals", []), *[None] * len(stated["runs"])]
    found = [moments.run(open_run(name, runs), head) for name, head in zip(stated["runs"], heads)]
    if moments.went_on:
        made.open.append(f"{moments.went_on[0]} went on after the comparison; etude compare makes it anew")
        return made
    again = compare_runs(found, stated["runs"].index(stated["baseline"])).to_dict()
    again = json.loads(json.dumps({key: value for key, value in again.items() if key not in _OF_HERE}))
    made.count("values of the comparison", sum(1 for _ in _leaves(again)))
    moments.take_code(stated, again)
    mine = {key: value for key, value in stated.items() if key not in _OF_HERE}
    made.add(compare_values(path.name, mine, again, "the records give another value"))
    return made


def _read(path: Path) -> dict[str, Any] | None:
    try:
        values = durable.read_json_object(path, most_bytes=_MOST_BYTES)
        fit(values, _COMPARISON)
    except (InputError, ValueError):
        return None
    return values


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _leaves(each)
    else:
        yield value
