"""The findings of a run in its report: what was found, on which evidence, why, and what to change."""

from collections.abc import Collection, Iterator, Mapping

from etude.recipe.toml import toml_text
from etude.records.events import Finding
from etude.report.history import History
from etude.report.markdown import code, prose, table
from etude.report.wording import numbers

_ROWS = 50
_MOST_SHOWN = 6
_COLUMNS = ("step", "finding", "evidence", "advice")


def charted(history: History) -> dict[str, Finding]:
    """The findings of the watch that are told at length, by the names of their charts, the worst first."""
    found = [each for each in history.events(Finding) if each.window and each.kind]
    first = {each.kind: each for each in reversed(found)}
    ordered = sorted(first.values(), key=lambda each: (each.severity != "error", each.step))
    return {f"finding-{number}.svg": each for number, each in enumerate(ordered[:_MOST_SHOWN], 1)}


def describe_findings(
    history: History, told: Mapping[str, Finding], charts: Collection[str]
) -> Iterator[str]:
    """Findings of the watch, each kind once at length with its chart, then a table of all others.

    told: by the names of their charts; charts: names of those that were drawn.
    """
    findings = history.events(Finding)
    for name, finding in told.items():
        times = sum(each.kind == finding.kind for each in findings)
        yield from _at_length(name if name in charts else None, finding, times)
    shown = list(told.values())
    steps: dict[tuple[str, ...], list[int]] = {}
    for each in findings:
        if not any(each is other for other in shown):
            steps.setdefault((each.what, each.evidence, each.advice), []).append(each.step)
    rows = [(numbers(found), *map(prose, texts)) for texts, found in [*steps.items()][:_ROWS]]
    if rows:
        yield table(_COLUMNS, rows)
        if (more := len(steps) - _ROWS) > 0:
            yield f"and {more:,} more in the journal"


def where(finding: Finding) -> str:
    """The steps that a finding rests on, in words."""
    first, last = (finding.window or [finding.step, finding.step])[:2]
    if not last:
        return "before the first step"
    return f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"


def cause_text(finding: Finding) -> str:
    """The causes of a finding in sentences, with how sure the first is and the test that told it."""
    if not finding.causes:
        return ""
    first, *others = map(prose, finding.causes)
    sure = 1.0 if finding.confidence is None else finding.confidence
    known = [f"{100 * sure:.0f} % sure"] if sure < 1 else []
    known += [f"shown by {prose(finding.decided_by)}"] if finding.decided_by else []
    by = f" ({'; '.join(known)})" if known else ""
    less = f" Less likely: {'; '.join(others)}." if others else ""
    return f"{'Likely cause' if sure < 1 else 'Cause'}{by}: {first}.{less}"


def _at_length(chart: str | None, finding: Finding, times: int) -> Iterator[str]:
    again = f", {times:,} times in all" if times > 1 else ""
    yield f"### {prose(finding.what[:1].upper() + finding.what[1:])}"
    yield f"{prose(finding.severity.capitalize())}, {where(finding)}{again}: {prose(finding.evidence)}."
    if chart:
        yield f"![The figure that this rests on, with {where(finding)} shaded]({chart})"
    if causes := cause_text(finding):
        yield causes
    changes = ", ".join(code(f"{key} = {_value(value)}") for key, value in finding.changes.items())
    in_recipe = f" In the recipe: {changes}." if changes else ""
    source = f" Source: {prose(finding.source)}." if finding.source else ""
    yield f"To do: {prose(finding.advice)}.{in_recipe}{source}"
    if finding.not_tested:
        yield f"Not tested: {'; '.join(prose(each) for each in finding.not_tested)}."


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else toml_text(value)
