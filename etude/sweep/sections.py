"""The report of a sweep as Markdown: its verdict, the four deliverables, and the sources of the figures."""

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from etude.report.markdown import code, prose, table
from etude.report.wording import NOTHING, duration, jumps_text, metric_title, number, short, size
from etude.sweep.cells import Cell, cell_text, test_text
from etude.sweep.decisions import FILE
from etude.sweep.deliverables import Deliverables, forecast_errors
from etude.sweep.layout import layout, values_text
from etude.sweep.recommend import Candidate
from etude.sweep.repeats import shrinkage_text
from etude.sweep.standing import Standing, gain_text, likeness_text
from etude.text import plural, verb

_NAMED = 5  # trials, where many are like the best
_APART = "do not hold out the same rows by the same metric (of losses of tokens: with the same tokenizer)"


def write_sections(made: Deliverables, charts: Sequence[str]) -> str:
    """The report as Markdown. charts: names of those that were drawn."""
    parts: list[str] = [f"# {prose(made.sweep.file.name)}: results", prose(made.sweep.file.purpose)]
    parts += [_states(made), *_verdict(made)]
    sections = [
        ("1. Optimal configurations", _configurations(made)),
        ("2. Benchmarks", _benchmarks(made, charts)),
        ("3. Resources", _resources(made)),
        ("4. Recommendations", _recommendations(made, charts)),
        ("5. The best again, with new seeds", _again(made)),
        ("All trials", _trials(made)),
        ("Sources of the figures", _sources(made)),
    ]
    for heading, section in sections:
        if body := [part for part in section if part]:
            parts += [f"## {heading}", *body]
    return "\n\n".join(part for part in parts if part) + "\n"


def result_rows(made: Deliverables) -> list[tuple[str, str]]:
    """The result in a few rows for the terminal."""
    counts = Counter(cell.state for cell in made.cells)
    rows = [
        ("sweep", made.sweep.file.name),
        ("trials", ", ".join(f"{count:,} {state}" for state, count in counts.most_common())),
        ("metric", f"{metric_title(made.metric)}, {_better(made)} is better, on validation rows"),
    ]
    if (best := made.overall.best) is not None:
        rows += [("best", f"{best.name}: {_value(best)}{test_text(best)}"), ("", likeness_text(made.overall))]
        rows.append(("", made.worth))
    if made.shrinkage is not None and made.shrinkage.mean is not None:
        rows.append(("again", shrinkage_text(made.shrinkage)))
    rows.append(("device time", duration(made.costs.measured)))
    return [row for row in rows if row[1]]


def standing_rows(made: Deliverables) -> list[list[str]]:
    """The best trial of each model as a table for the terminal."""
    rows = [["model", "best trial", "value", "others like it", "ended"]]
    for model, standing in made.standings.items():
        ended = _ended(made.of_model(model))
        if standing.best is None:
            rows.append([model, _APART if standing.apart else NOTHING, NOTHING, NOTHING, ended])
        else:
            like = number(len(standing.like)) if standing.is_known else "not known"
            rows.append([model, standing.best.name, _value(standing.best), like, ended])
    return rows


def _ended(cells: Sequence[Cell]) -> str:
    """The number of trials that ended, and of those that were left at rungs."""
    censored = sum(cell.state == "censored" for cell in cells)
    ended = f"{sum(cell.is_final for cell in cells)} of {len(cells)}"
    return f"{ended}, {censored} censored" if censored else ended


def _states(made: Deliverables) -> str:
    counts = Counter(cell.state for cell in made.cells)
    states = ", ".join(f"{count:,} {state}" for state, count in counts.most_common())
    what = prose(metric_title(made.metric))
    return (
        f"{plural(len(made.cells), 'trial')}: {states}. The metric is {what}, {_better(made)} is better, on "
        "validation rows at the best checkpoint of each trial; test rows had no part in any choice."
    )


def _better(made: Deliverables) -> str:
    return "lower" if made.cells[0].metric.lower_is_better else "higher"


def _verdict(made: Deliverables) -> Iterator[str]:
    standing = made.overall
    if made.same_rows is False:
        yield f"Trials {_APART}, so no best of all is named."
    elif made.same_rows is None and standing.best is not None:
        yield "It is not known for all trials that they hold out the same rows."
    if standing.best is None:
        if made.same_rows is not False:
            yield "No trial has ended yet, so none is recommended."
        return
    best = standing.best
    what = f"{prose(best.trial.model)}, {prose(values_text(best))}"
    lead = f"**Best: {what}**: {prose(_value(best))}{test_text(best)}."
    yield " ".join(filter(None, [lead, prose(likeness_text(standing)), prose(made.worth)]))
    yield _halving(made)
    if open_ := [cell for cell in made.cells if not cell.is_final]:
        yield (
            f"{plural(len(open_), 'trial')} {verb(len(open_), 'have')} no final value and "
            f"{verb(len(open_), 'count')} as neither better nor worse."
        )


def _halving(made: Deliverables) -> str:
    """Sentences on trials that were left at rungs."""
    given = made.sweep.file.halving
    if given is None:
        return ""
    rungs = f"{_listed([f'{rung:,}' for rung in given.rungs])} {given.unit}"
    return (
        f"Trials of a model paused at {rungs}, and about one of {given.reduction_factor} went on from there: "
        f"{plural(len(made.censored), 'trial')} {verb(len(made.censored), 'are')} censored. The figure of "
        "such a trial is that at its rung, of an unfinished schedule; it might have become the best."
    )


def _value(cell: Cell) -> str:
    """The metric of a trial with its standard error; without spread the reason of that."""
    error, value = cell.error[0], short(cell.value, 4)
    if error == 0:
        return f"{value} ({cell.constant or 'the same on every resample of the rows'})"
    return value if error is None else f"{value} ± {short(error, 2)}"


def _configurations(made: Deliverables) -> Iterator[str]:
    title = prose(metric_title(made.metric))
    rows = []
    for model, standing in made.standings.items():
        best, ended = standing.best, _ended(made.of_model(model))
        if best is None:
            said = f"its trials {_APART}" if standing.apart else "no trial has ended"
            rows.append([prose(model), said, *4 * [NOTHING], ended])
            continue
        like = number(len(standing.like)) if standing.is_known else "not known"
        test = NOTHING if best.test is None else short(best.test[0], 4)
        rows.append([
            prose(model), prose(values_text(best)), prose(_value(best)), test, _baseline(best), like, ended,
        ])  # fmt: skip
    head = ["model", "best settings", f"{title} ± error", "test", "best baseline", "others like it", "ended"]
    yield table(head, rows)
    yield (
        "± is one standard error from the choice of validation rows. *Others like it*: trials of the same "
        "model that the noise does not tell from the best; any of them may be as good. *Best baseline*: of "
        "those that take no training of a network, on the rows of the final scores; without such the loss of "
        "one who knows how frequent each token is. *Not beaten*: the lead over it is within the noise."
    )
    lines = [_like_line(model, standing) for model, standing in made.standings.items() if standing.like]
    if lines:
        yield (
            "Trials like the best of their model (~ below), and how far the best is above the next:\n\n"
            + "\n".join(lines)
        )


def _baseline(best: Cell) -> str:
    """The best baseline beside a trial, marked where that is not beyond it."""
    found = best.baseline
    if found is None:
        return NOTHING
    mark = " (not beaten)" if found.is_beaten is False else ""
    return f"{prose(found.name)}: {short(found.value, 4)}{mark}"


def _like_line(model: str, standing: Standing) -> str:
    """The distances of the best trial of a model from those like it."""
    like = [each for each in standing.others if each.is_like_best]
    by = "paired by row" if all(each.basis == "rows" for each in like) else "by their standard errors"
    first = f"{prose(values_text(like[0].cell))}, {prose(gain_text(like[0]))}"
    return f"- {prose(model)}, {by}: {plural(len(like), 'trial')}, the next best {first}"


def _benchmarks(made: Deliverables, charts: Sequence[str]) -> Iterator[str]:
    yield (
        f"{prose(metric_title(made.metric)).capitalize()} of every trial. Bold: the best of the model; ~: "
        "not distinguishable from it; *early*: its own rule ended it. A value with another state is "
        "that of an unfinished trial, and no result."
    )
    for place, (model, standing) in enumerate(made.standings.items()):
        rows, columns, grid = layout(made.of_model(model))
        like = {cell.name for cell in standing.like}
        body = []
        for row in rows:
            line = [prose(row) or prose(metric_title(made.metric))]
            for column in columns:
                cell = grid.get((row, column))
                text = "" if cell is None else cell_text(cell, short(cell.value, 4))
                if cell is not None and cell is standing.best:
                    text = f"**{text}**"
                line.append(f"{text} ~" if cell is not None and cell.name in like else text)
            body.append(line)
        yield f"### {prose(model)}"
        yield table(["", *map(prose, columns)], body)
        yield _chart(f"heat-{place + 1}.svg", f"Metric over the grid of {model}", charts)
    yield _chart("parallel.svg", "Every trial over the keys of the grids, coloured by the metric", charts)
    yield _chart(
        "convergence.svg", "Time to the first evaluation within one standard error of the best", charts
    )


def _resources(made: Deliverables) -> Iterator[str]:
    costs = made.costs
    alone = sum(costs.alone.values())
    shared = sum(part.seconds for part in costs.parts if len(part.trials) > 1)
    rows = [
        ["device time, measured", duration(costs.measured)],
        ["of it used by several trials", duration(shared)],
        ["had each trial been trained alone", duration(alone)],
    ]
    again = {cell.name for cell in (made.shrinkage.again if made.shrinkage else ())}
    if spent := sum(costs.charged.get(name, 0.0) for name in again):
        rows.append(["of it the best again with new seeds", duration(spent)])
    if spent := sum(costs.charged.get(name, 0.0) for name in made.censored):
        rows.append(["of it trials that were left at rungs", duration(spent)])
    yield table(["", ""], rows)
    body = []
    for model in made.standings:
        cells = [cell for cell in made.of_model(model) if cell.history is not None]
        time = sum(costs.charged.get(cell.name, 0.0) for cell in cells)
        peaks = [peak for cell in cells if (peak := cell["peak_gpu_memory_bytes"] or cell["peak_rss_bytes"])]
        speeds = [speed for cell in cells if (speed := cell["tokens_per_second"])]
        body.append([
            prose(model), duration(time), size(max(peaks, default=None)),
            number(statistics.median(speeds), 0) if speeds else NOTHING,
            *(_error(made, cells, name) for name in ("seconds", "memory_bytes")),
        ])  # fmt: skip
    header = ["model", "device time", "peak memory", "tokens/s", "time forecast", "memory forecast"]
    yield table(header, body)
    yield (
        "Steps that several trials use are charged once, in equal parts to these trials, so that the device "
        "times add up to the measured one. It counts from the first record of each attempt to the last; "
        "loading before that is in no journal. Where trials share a device, each has its own time. "
        "Memory is that of the GPU, else of the process. Forecasts are median "
        "errors of trials that were trained in one piece, with the number of these. No journal holds energy, "
        "so none is given."
    )
    for cell in made.cells:
        if text := jumps_text(cell.history.ledger.jumps if cell.history else ()):
            yield f"{code(cell.name)}: {text[:1].lower()}{text[1:]}, and its times are without that."
    if costs.unknown:
        known = f"{plural(len(costs.unknown), 'trial')} {verb(len(costs.unknown), 'continue')} runs"
        yield f"{known} that are not here; what these took is not known: {_codes(costs.unknown)}."


def _error(made: Deliverables, cells: Sequence[Cell], name: str) -> str:
    found = [each[name] for cell in cells if name in (each := forecast_errors(cell, made.costs))]
    errors = [said / took - 1 for said, took in found if took]
    return f"{100 * statistics.median(errors):+.0f} % ({len(errors)})" if errors else NOTHING


def _recommendations(made: Deliverables, charts: Sequence[str]) -> Iterator[str]:
    if not made.candidates:
        return
    if made.advice:
        rows = [
            [prose(each.need), prose(each.candidate.cell.trial.model), prose(each.why),
             code(each.candidate.cell.run)]
            for each in made.advice
        ]  # fmt: skip
        yield table(["need", "model", "why", "run"], rows)
    header = [
        "model", prose(metric_title(made.metric)), "ms a row", "peak memory", "weights", "training", "front",
    ]  # fmt: skip
    yield table(header, [_candidate(each, made) for each in made.candidates])
    if made.censored:
        left = plural(len(made.censored), "censored trial")
        yield f"Chosen among trials that ended; {left} {verb(len(made.censored), 'are')} no candidates."
    yield (
        "The best trial of each model. *ms a row*: median evaluation time over its validation rows, in "
        "batches on the device of the training; no journal holds the latency of single requests. *peak "
        "memory*: of training; that of inference is in no journal, and is above the weights, here in fp32. "
        "*training*: device time of that trial alone. *front*: no other is as good in metric, ms a row and "
        "size at once."
    )
    yield _chart("cost.svg", "Metric against device time, with the Pareto front", charts)


def _candidate(each: Candidate, made: Deliverables) -> list[str]:
    return [
        prose(each.cell.trial.model), prose(_value(each.cell)),
        NOTHING if each.row_seconds is None else short(1000 * each.row_seconds),
        size(each.memory_bytes), size(each.weights_bytes), duration(each.train_seconds),
        "yes" if each in made.front else "",
    ]  # fmt: skip


def _again(made: Deliverables) -> Iterator[str]:
    found = made.shrinkage
    if found is None:
        return
    yield (
        "The best of many is best in part by luck, so its value is too good on average. The same recipe with "
        "new seeds tells by how much."
    )
    states = [[str(cell.trial.recipe.seed), cell_text(cell, _value(cell)),
               NOTHING if cell.test is None else short(cell.test[0], 4),
               code(cell.run) if cell.run else NOTHING] for cell in found.again]  # fmt: skip
    if not any(cell.history for cell in found.again):
        seeds = f"{plural(len(found.again), 'new seed')} {verb(len(found.again), 'are')} planned"
        yield f"It has not been trained again yet; {seeds}."
        return
    yield table(["seed", "value", "test", "run"], states)
    if found.mean is None or found.lost is None:
        return
    yield f"It was {shrinkage_text(found)}. Expect the mean, not that value."
    if found.chosen is not made.overall.best:
        yield f"{code(found.chosen.name)} was the best when it was chosen; now another one is."
    if found.same_rows is False:
        yield "A new seed also drew other validation rows, so part of the difference is theirs."


def _trials(made: Deliverables) -> Iterator[str]:
    title = prose(metric_title(made.metric))
    rows = []
    for cell in made.cells:
        late = cell.converged
        per_epoch = cell.attempt.steps_per_epoch if cell.attempt else None
        at = f"{late[0].step / per_epoch:.2f} ({duration(late[1])})" if late and per_epoch else NOTHING
        best = f"{cell.best.step / per_epoch:.2f}" if cell.best and per_epoch else NOTHING
        charged = duration(made.costs.charged.get(cell.name))
        test = NOTHING if cell.test is None else short(cell.test[0], 4)
        state = f"{cell.state}, {cell.progress}" if cell.progress and not cell.is_final else cell.state
        rows.append([code(cell.name), state, prose(_value(cell)), test, best, at, charged])
    yield table(["trial", "state", f"{title} ± error", "test", "best at epoch", "converged", "charged"], rows)
    yield (
        "*converged*: epoch, and training time, of the first evaluation within one standard error of the "
        "best; only trials that ended have one. A shared step counts as often as it is used there, and "
        "once in *charged*."
    )
    whys = {cell.name: why for cell in made.cells if (why := _why_open(cell, made))}
    strange = {FILE: "; ".join(made.doubts)} if made.doubts else {}
    for title, found in (
        ("Why trials have not ended", whys),
        ("Records that are damaged", made.damaged),
        ("Decisions that this sweep did not make", strange),
    ):
        lines = [f"- {code(name)}: {prose(text)}" for name, text in found.items()]
        yield "\n".join([f"{title}:", "", *lines]) if lines else ""


def _why_open(cell: Cell, made: Deliverables) -> str:
    """The reason why a trial has not ended; of one that was left at a rung its rank there."""
    if (at := made.censored.get(cell.name)) is not None:
        return (
            f"{short(cell.value, 4)} is {at.rank:,} of {at.of:,} at step {at.step:,}, from where "
            f"{at.gone_on:,} went on"
        )
    return "" if cell.is_final else cell["reason"] or ""


def _sources(made: Deliverables) -> Iterator[str]:
    yield table(["figure", "records of the run's journal"], [
        ["metric of a trial", "`evaluation` marked best, the last of them"],
        ["its error", "`predictions/` of the validation rows; else `evaluation.loss_error`, or `scores`"],
        ["test", "`scores`, on test rows"],
        ["best baseline", "`scores`; the frequencies of tokens: `data`, `entropy`"],
        ["not distinguishable", "1,000 paired resamples of `predictions/` rows; else both errors"],
        ["converged", "`evaluation`; time over all attempts up to it"],
        ["device time", "first to last record of each `attempt`, times its devices"],
        ["peak memory", "`resource`"],
        ["tokens/s", "`step`"],
        ["ms a row", "`evaluation.seconds`, and the rows of `data`"],
        ["forecast", "the first `forecast`"],
    ])  # fmt: skip
    yield "`report.json` beside this file has every figure with its run and the steps of its records."


def _chart(name: str, title: str, charts: Sequence[str]) -> str:
    return f"![{prose(title)}]({name})" if name in charts else ""


def _listed(names: Sequence[str]) -> str:
    kept = list(dict.fromkeys(names))
    return kept[0] if len(kept) == 1 else f"{', '.join(kept[:-1])} and {kept[-1]}"


def _codes(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(code(name) for name in names[:_NAMED]) + more
