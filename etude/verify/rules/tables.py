"""Tables whose rows and columns follow from each other: totals, means, changes, counts that grow in step."""

import itertools
import re
from collections.abc import Iterator, Sequence

from etude.verify.facts import Cell, Fact, Facts, Table
from etude.verify.names import LOSSES, SCORES, name_of
from etude.verify.ranges import Range, exactly
from etude.verify.rules.arithmetic import change_readings
from etude.verify.verdicts import CONFIRMED, CONTRADICTS, Finding, Reading, judge, note

_TOTAL = re.compile(r"^(?:grand )?(?:total|all$|sum|all together|in total|overall)\b(?! loss)", re.I)
_MEAN = re.compile(r"^(?:mean|average|avg\.?|macro avg)\b", re.I)
_TOGETHER = re.compile(r"\b(?:together|altogether|in total|in all|combined)\b", re.I)
_TIED = re.compile(r"\b(?:tied|shared|shares|same matrix)\b", re.I)
_PARTS = re.compile(r"\b(?:of which|thereof|including|subtotal|incl\.)", re.I)
_DELTA = re.compile(
    r"^(?:Δ|δ|delta|change|diff\w*|improvement|gain|increase|reduction|relative \w+|absolute \w+)\b"
    r"|^\+/-$|^Δ",
    re.I,
)
_SHARE = re.compile(r"%|\b(?:share|percent\w*|fraction|proportion|part|portion)\b", re.I)
_RATE = re.compile(r"accura|score|rate|pass|f1|recall|precision|util|mfu|growth|change|win", re.I)
_BEFORE = re.compile(
    r"\b(?:before|baseline|base|initial|old|v1|start|pre|original|untrained|without)\b", re.I
)
_AFTER = re.compile(r"\b(?:after|final|new|v2|end|post|fine-?tuned|trained|tuned|ours|with)\b", re.I)
_NOT_ADDED = LOSSES | SCORES | {
    "perplexity", "learning_rate", "tokens_per_second", "samples_per_second", "mfu", "gpu_utilisation",
    "memory_bytes", "dropout", "weight_decay", "batch", "lora_rank", "epochs",
    "validation_perplexity", "train_perplexity",
}  # fmt: skip


def check_tables(facts: Facts) -> Iterator[Finding]:
    """Figures of tables that other cells of theirs decide, and sums of their rows."""
    yield from _sums_of_rows(facts)
    for table in facts.tables:
        if len(table.rows) <= 5_000:
            yield from _totals(table)
            yield from _proportions(facts, table)
            yield from _deltas(table)
            yield from _growth(table)
            yield from _order(table)


def _sums_of_rows(facts: Facts) -> Iterator[Finding]:
    """`All three together took 128 GPU hours`: the sum of the row, or the column, of that name."""
    for sentence in facts.sentences if facts.tables else ():
        figures = [each for each in sentence.figures if each.is_usable]
        if len(figures) != 1 or not _TOGETHER.search(sentence.text):
            continue
        claimed, noun = figures[0], sentence.text[figures[0].end :].strip(" .")[:30].lower()
        for table in facts.tables:
            if len(noun) < 4 or len(table.rows) > 40 or table.scope[:-1] != sentence.scope[:-2]:
                continue
            lines = [(row[0].text, row[1:]) for row in table.rows if row]
            lines += [
                (head, tuple(row[at] for row in table.rows if at < len(row)))
                for at, head in enumerate(table.header)
                if at
            ]
            for label, cells in lines:
                inputs = [fact_of(table, cell, label) for cell in cells if cell.figure]
                if (
                    noun in label.lower()
                    and len(inputs) > 1
                    and all(each.figure.unit == claimed.unit for each in inputs)
                ):
                    ranges = [each.figure.tight for each in inputs], [each.figure.loose for each in inputs]
                    shown = " + ".join(each.figure.text for each in inputs)
                    made = Reading(shown, _sum(ranges[0]), _sum(ranges[1]), tuple(inputs))
                    yield judge("total", Fact("", claimed, sentence.line_of(claimed), sentence.scope), [made])


def fact_of(table: Table, cell: Cell, label: str) -> Fact:
    """A cell as a figure that can be judged."""
    assert cell.figure is not None
    return Fact("", cell.figure, cell.line, (*table.scope, f"row {cell.line}"), label=label)


def column(table: Table, name: str) -> int | None:
    """The place of the only column with a name, None if there is none or several."""
    places = [at for at, each in enumerate(table.names) if each == name] if table.by_row else []
    return places[0] if len(places) == 1 else None


def cell_at(row: Sequence[Cell], at: int) -> Cell | None:
    """The cell of a row that holds a figure in a column."""
    return row[at] if at < len(row) and row[at].figure else None


def _totals(table: Table) -> Iterator[Finding]:
    marked = [
        (n, row[0].text)
        for n, row in enumerate(table.rows)
        if row and (_TOTAL.search(row[0].text) or _MEAN.search(row[0].text))
    ]
    if len(marked) != 1 or any(row and _PARTS.search(row[0].text) for row in table.rows):
        return
    at, label = marked[0]
    parts = table.rows[:at] if at == len(table.rows) - 1 else table.rows[1:] if at == 0 else ()
    is_mean = bool(_MEAN.search(label)) or label.lower().startswith("overall")
    for place in range(1, len(table.header)):
        total, cells = cell_at(table.rows[at], place), [cell_at(row, place) for row in parts]
        heading = table.header[place]
        name = (table.names[place] if table.by_row else None) or name_of(heading, "any") or ""
        if total is None or len(cells) < 2 or any(cell is None for cell in cells):
            continue
        inputs = [fact_of(table, cell, "") for cell in cells if cell]
        figures, claimed = [fact.figure for fact in inputs], fact_of(table, total, label)
        is_usable = all(each.is_usable and each.text[:1] not in "+-−" for each in figures)
        if len({each.unit for each in (*figures, claimed.figure)}) > 1 or not is_usable:
            continue
        if not is_mean and (
            name in _NOT_ADDED
            or re.search(r"\b(?:lr|rate|avg|average|mean|per|/|ratio|score|max|peak)\b", heading, re.I)
        ):
            continue
        if label.lower().startswith("overall") and name not in SCORES:
            continue
        tight, loose = exactly(sum(each.value for each in figures)), _sum([each.tight for each in figures])
        shown = " + ".join(each.text for each in figures[:8]) + (" + ..." if len(figures) > 8 else "")
        if is_mean:
            tight, loose, shown = tight / len(figures), loose / len(figures), f"mean of {shown}"
        made = Reading(shown, tight, loose, tuple(inputs))
        tied = [at for at, row in enumerate(parts) if any(_TIED.search(cell.text) for cell in row)]
        if len(tied) == 1 and not is_mean and _counts_parameters(table, place):
            inputs.pop(tied[0])
            shared = [each.figure for each in inputs]
            shown = f"{' + '.join(each.text for each in shared)}, what is tied counted once"
            once = Reading(
                shown,
                _sum([each.tight for each in shared]),
                _sum([each.loose for each in shared]),
                tuple(inputs),
            )
            if once.loose.meets(claimed.figure.loose) or made.loose.meets(claimed.figure.loose):
                made = once
        yield judge("total", claimed, [made])


def _counts_parameters(table: Table, place: int) -> bool:
    """True if a column, or what the table is of, is a number of parameters."""
    return bool(re.search(r"param|weight|count|size", f"{table.header[place]} {' '.join(table.scope)}", re.I))


def _proportions(facts: Facts, table: Table) -> Iterator[Finding]:
    """A column of shares of one whole: a row whose share does not follow where those of its neighbours do."""
    places = [at for at, head in enumerate(table.header) if _SHARE.search(head) and not _RATE.search(head)]
    for place, counted in itertools.product(places, range(len(table.header))):
        pairs = [
            (fact_of(table, a, table.header[counted]), fact_of(table, b, table.header[place]))
            for row in table.rows
            if not _TOTAL.search(row[0].text) and (a := cell_at(row, counted)) and (b := cell_at(row, place))
        ]
        is_share = all(a.figure.unit == "" and a.value >= 1 and b.figure.unit == "%" for a, b in pairs)
        if place == counted or len(pairs) < 3 or not is_share:
            continue
        most = max(count.value for count, _ in pairs)
        wholes = facts.named("parameters", "samples", "train_samples", "tokens")[:50]
        choices = [(each.figure.text, each.figure.loose) for each in wholes if each.value >= most]
        choices.append(("the sum of the column", exactly(sum(count.value for count, _ in pairs))))
        fits = [
            [share.figure.loose.meets(count.figure.loose / whole * 100) for count, share in pairs]
            for _, whole in choices
        ]
        best = max(range(len(choices)), key=lambda at: sum(fits[at]))
        if sum(fits[best]) != len(pairs) - 1:
            continue
        count, claimed = pairs[fits[best].index(False)]
        text, whole = choices[best]
        shown = f"{count.figure.text} / {text}, as in the other rows"
        tight, loose = count.figure.tight / whole * 100, count.figure.loose / whole * 100
        yield judge("share", claimed, [Reading(shown, tight, loose, (count,))])


def _sum(ranges: Sequence[Range]) -> Range:
    total = exactly(0.0)
    for each in ranges:
        total = total + each
    return total


def _deltas(table: Table) -> Iterator[Finding]:
    """A column of changes beside the two columns that it is between."""
    places = [at for at, head in enumerate(table.header) if at and _DELTA.search(head)]
    for place in places:
        others = [
            at for at in range(len(table.header))
            if at not in places and at
            and sum(cell_at(row, at) is not None for row in table.rows) * 2 > len(table.rows)
        ]  # fmt: skip
        if len(others) != 2 or not (
            _BEFORE.search(table.header[others[0]]) or _AFTER.search(table.header[others[1]])
        ):
            continue
        if _AFTER.search(table.header[others[0]]) and _BEFORE.search(table.header[others[1]]):
            others.reverse()
        for row in table.rows:
            first, second, claimed = (cell_at(row, at) for at in (*others, place))
            if (
                first is None
                or second is None
                or claimed is None
                or not claimed.figure
                or not first.figure
                or not first.figure.value
            ):
                continue
            made = change_readings(
                fact_of(table, first, ""),
                fact_of(table, second, ""),
                claimed.figure,
                table.header[place].lower(),
            )
            if made:
                yield judge(
                    "change",
                    fact_of(table, claimed, row[0].text),
                    made,
                    any_confirms=claimed.figure.unit == "x",
                )


def _growth(table: Table) -> Iterator[Finding]:
    """Tokens, samples and epochs that grow in proportion to the steps."""
    steps = column(table, "steps")
    if steps is None:
        return
    for name in ("tokens", "epochs", "samples"):
        place = column(table, name)
        if place is None:
            continue
        rows = [
            (row, a, b)
            for row in table.rows
            if (a := cell_at(row, steps)) and (b := cell_at(row, place)) and a.figure and a.figure.value > 0
        ]
        ratios = [b.figure.loose / a.figure.tight for _, a, b in rows if a.figure and b.figure]
        if len(ratios) < 3:
            continue
        middle = sorted(each.middle for each in ratios)[len(ratios) // 2]
        for (_, a, b), ratio in zip(rows, ratios):
            assert a.figure and b.figure
            if not (ratio.low <= middle * 1.02 and middle * 0.98 <= ratio.high):
                made = Reading(
                    f"{a.figure.text} steps at {middle:.5g} {name} a step",
                    a.figure.tight * middle,
                    a.figure.tight * middle,
                )
                yield judge("growth", fact_of(table, b, table.header[place]), [made])


def _order(table: Table) -> Iterator[Finding]:
    """Steps and elapsed time go forward together."""
    steps = column(table, "steps") if column(table, "steps") is not None else column(table, "epochs")
    place = column(table, "total_seconds")
    if steps is None or place is None or re.search(r"\bper\b|/", table.header[place]):
        return
    pairs = [(a, b) for row in table.rows if (a := cell_at(row, steps)) and (b := cell_at(row, place))]
    is_elapsed = bool(re.search(r"elapsed|wall|total|cumul", table.header[place], re.I))
    good = 0
    for (a, b), (c, d) in itertools.pairwise(pairs):
        assert a.figure and b.figure and c.figure and d.figure
        good += d.figure.value > b.figure.value
        if is_elapsed and c.figure.value > a.figure.value and d.figure.value < b.figure.value:
            why = (
                f"step {c.figure.text} comes after step {a.figure.text}, whose elapsed time is "
                f"{b.figure.text}"
            )
            facts = (fact_of(table, d, ""), fact_of(table, b, ""))
            yield note(
                CONTRADICTS,
                "growth",
                d.line,
                f"{table.header[place]} {d.figure.text}",
                why,
                fits=f"more than {b.figure.text}",
                facts=facts,
            )
    if is_elapsed and good and good == len(pairs) - 1:
        last = pairs[-1][1]
        yield note(
            CONFIRMED,
            "growth",
            last.line,
            table.header[place],
            "elapsed time grows with the steps",
            facts=[fact_of(table, b, "") for _, b in pairs],
        )
