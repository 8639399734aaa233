"""The data page of a run: counts as its record has them, samples as it was trained on them, and faults."""

from typing import Any

from etude.errors import EtudeError, InputError
from etude.records.store import Run
from etude.report.conditions import count_tables
from etude.ui.programs import Program, Programs, problem_of
from etude.ui.readings import Readings
from etude.ui.trim import trim

_ROWS = 6


def data_page(
    readings: Readings, programs: Programs, run: Run, *, thorough: bool = False, rows: int = _ROWS
) -> dict[str, Any]:
    """The counts of the data of a run, and the first samples with the parts that are scored.

    thorough: look through the data again for duplicates, leaks and what cleaning finds, which takes long.
    rows: number of samples; without any, the answer is of the record alone and comes at once.

    What cannot be had any more, as of data that are gone, `problem` says.
    """
    from etude.data.page import list_notes

    used = readings.told(run).data
    summary: dict[str, Any] = used.summary if used else {}
    problem, shown = None, list[dict[str, Any]]()
    recipe = str((run.path / "resolved.toml").absolute())
    try:
        if thorough:
            summary = _ask(programs.data, "data", "page", recipe, "--out", "data.md")
        if rows:
            shown = _ask(programs.rows, "data", "show", recipe, "--rows", str(rows))
    except EtudeError as error:
        problem = str(error)
    parts = {
        "tables": tables_of(summary), "notes": list_notes(summary), "samples": shown, "problem": problem,
        "refused": summary.get("refused"), "thorough": thorough,
        "fingerprint": used.fingerprint if used else None, "tokenizer": used and used.tokenizer,
    }  # fmt: skip
    return trim(parts)


def tables_of(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Counts of data as tables of texts: title, columns, rows and examples."""
    shown = {name: value for name, value in summary.items() if name not in ("samples", "refused")}
    return [
        {
            "name": each.name or "", "title": each.title, "columns": each.headings, "rows": each.texts(),
            "examples": each.examples,
        }
        for each in count_tables(shown)
    ]  # fmt: skip


def _ask(program: Program, *words: str) -> Any:
    code, answer = program.ask(*words)
    if code and (not isinstance(answer, dict) or "error" in answer):
        raise InputError(problem_of(answer))
    return answer
