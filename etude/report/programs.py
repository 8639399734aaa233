"""Programs of a run that were run against tests: pass@k with intervals over problems, before and after."""

from collections.abc import Iterator, Sequence

from etude.records.events import Execution
from etude.report.history import History
from etude.report.markdown import prose, table
from etude.report.told import told_of
from etude.report.wording import number, with_interval
from etude.scores.intervals import Difference
from etude.scores.pass_at_k import difference, figure
from etude.text import one_line, plural


def describe_programs(history: History) -> Iterator[str]:
    """pass@k at the first, best and last evaluation, what that shows, and how it was measured."""
    executed = history.events(Execution)
    if not executed:
        return
    at, best = {each.step: each for each in executed}, history.best
    first, last = executed[0], executed[-1]
    start = "first" if first.step else "before training"
    named = [(start, first), ("best", at.get(best.step) if best else None), ("last", last)]
    moments: dict[int, tuple[list[str], Execution]] = {}
    for name, each in named:
        if each is not None:
            moments.setdefault(each.step, ([], each))[0].append(name)
    rows = [
        [
            f"{' and '.join(names)}, step {number(each.step)}",
            *(_figure(each, k) for k in each.ks),
            _outcomes(each),
        ]
        for names, each in moments.values()
    ]
    yield table(("programs", *(f"pass@{k}" for k in last.ks), "outcomes"), rows)
    end = at[best.step] if best and best.step in at else last
    if end is not first and _is_same(first, end):
        whom = f"step {number(end.step)} less step {number(first.step)}"
        yield f"pass@{end.ks[0]} of {whom}: {describe_gain(gain(end, first))}."
    yield _how(last)


def gain(one: Execution, other: Execution) -> Difference:
    """By how much the first pass@k of one is higher than that of another on the same problems."""
    return difference(_counts(one), _counts(other), one.ks[0])


def describe_gain(found: Difference) -> str:
    """A difference with its interval, and whether the problems show it."""
    sure = "within the noise" if found.is_noise else "beyond the noise"
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}], {sure}"


def compare_programs(histories: Sequence[History]) -> list[str]:
    """Sentences on the programs of runs, each at its best evaluation, less those of the first run."""
    found = [_best(history) for history in histories]
    first = found[0] if found else None
    sentences = []
    for history, each in zip(histories[1:], found[1:]):
        if first is None or each is None:
            continue
        names = f"{one_line(history.run.name)} less {one_line(histories[0].run.name)}"
        if not _is_same(each, first):
            sentences.append(f"The programs of {names} do not compare: other problems, samples or settings.")
            continue
        over = plural(len(each.passed), "problem")
        sentences.append(f"pass@{each.ks[0]} of {names}: {describe_gain(gain(each, first))}, over {over}.")
    return sentences


def _best(history: History) -> Execution | None:
    executed = history.events(Execution)
    best = history.best.step if history.best else None
    return next((each for each in executed if each.step == best), executed[-1] if executed else None)


def _is_same(one: Execution, other: Execution) -> bool:
    """True if two compare problem by problem."""
    settings = [{**each.settings, "seed": None} for each in (one, other)]
    same = (one.problems, one.samples, one.ks[0], len(one.passed), settings[0])
    return same == (other.problems, other.samples, other.ks[0], len(other.passed), settings[1])


def _counts(executed: Execution) -> list[tuple[int, int]]:
    return [(executed.samples, passed) for passed in executed.passed]


def _figure(executed: Execution, k: int) -> str:
    count = len(executed.passed)
    if k not in executed.ks:
        return "–"
    found = figure(_counts(executed), k)
    statistic = f"mean over {plural(count, 'problem')}, {plural(executed.samples, 'sample')} of each"
    text = with_interval(*found, rows=count)
    return told_of(text, f"pass@{k}", found[0], [executed], unit="share", statistic=statistic)


def _outcomes(executed: Execution) -> str:
    return prose(", ".join(f"{name} {count:,}" for name, count in sorted(executed.outcomes.items())))


def _how(executed: Execution) -> str:
    settings = executed.settings
    each = plural(executed.samples, "sample")
    drawn = (
        f"temperature {settings.get('temperature', 0):g}"
        if settings.get("temperature")
        else "the likeliest tokens"
    )
    over = plural(len(executed.passed), "problem")
    told = f"{each} of each of {over}, by {drawn}, run against its tests in a sandbox of {executed.sandbox}"
    told += "; intervals of 95 % are over problems."
    if executed.unsteady:
        unsteady = plural(executed.unsteady, "sample")
        told += f" {unsteady} ended otherwise when run again; the second verdict counts."
    return prose(told)
