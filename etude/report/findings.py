"""The findings of a run in its report: what was found, on which evidence, why, and what to change."""

from collections.abc import Iterator, Mapping

from etude.records.events import Finding
from etude.report.history import History
from etude.report.markdown import code, prose, table
from etude.report.wording import numbers, percent

_ROWS = 50
_MOST_SHOWN = 6
_COLUMNS = ("step", "finding", "evidence", "advice")


def charted(history: History) -> dict[str, Finding]:
    """The findings of the watch that have a chart of their window, by the names of the files, worst first."""
    found = [each for each in history.events(Finding) if each.window and each.kind]
    first = {each.kind: each for each in reversed(found)}
    ordered = sorted(first.values(), key=lambda each: (each.severity != "error", each.step))
    return {f"finding-{number}.svg": each for number, each in enumerate(ordered[:_MOST_SHOWN], 1)}


def describe_findings(history: History, charts: Mapping[str, Finding]) -> Iterator[str]:
    """Findings of the watch, each kind once at length with its chart, then a table of all findings."""
    findings = history.events(Finding)
    for name, finding in charts.items():
        times = sum(each.kind == finding.kind for each in findings)
        yield from _at_length(name, finding, times)
    shown = list(charts.values())
    steps: dict[tuple[str, ...], list[int]] = {}
    for each in findings:
        if not any(each is other for other in shown):
            steps.setdefault((prose(each.what), prose(each.evidence), prose(each.advice)), []).append(
                each.step
            )
    rows = [(numbers(found), *texts) for texts, found in steps.items()]
    if rows:
        yield table(_COLUMNS, rows[:_ROWS])
        if (more := len(rows) - _ROWS) > 0:
            yield f"and {more:,} more in the journal"


def _at_length(name: str, finding: Finding, times: int) -> Iterator[str]:
    first, last = (finding.window or [finding.step, finding.step])[:2]
    where = f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"
    again = f", {times:,} times in all" if times > 1 else ""
    yield f"### {prose(finding.what[:1].upper() + finding.what[1:])}"
    yield f"{prose(finding.severity.capitalize())}, {where}{again}: {prose(finding.evidence)}."
    yield f"![{prose(finding.what)}]({name})"
    causes = [prose(cause) for cause in finding.causes]
    if causes:
        sure = f", {percent(finding.confidence)} sure" if finding.confidence is not None else ""
        by = f"; set apart by {prose(finding.decided_by)}" if finding.decided_by else ""
        others = f" Then, less likely: {'; '.join(causes[1:])}." if causes[1:] else ""
        yield f"Likely cause{sure}{by}: {causes[0]}.{others}"
    changes = [f"{code(key)} = {code(_value(value))}" for key, value in finding.changes.items()]
    source = f" Source: {prose(finding.source)}." if finding.source else ""
    yield f"To do: {'; '.join([prose(finding.advice), *changes])}.{source}"
    if finding.not_tested:
        yield f"Not tested: {'; '.join(prose(each) for each in finding.not_tested)}."


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
