"""The verdict on a run: how it ended, whether it learnt, what that is worth, and what went wrong.

Each sentence follows from the journal alone, by rules that a reader can check.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from etude.recipe.metric import ChosenMetric
from etude.recipe.schema import Recipe
from etude.records.events import Evaluation, Finding, Scores
from etude.report.history import History, figures_of, metric_value
from etude.report.wording import (
    duration,
    is_sure,
    jumps_text,
    metric_title,
    percent,
    scale_of,
    setting,
    short,
    with_interval,
)
from etude.text import one_line, plural

BEFORE = "before"
_FEW_ROWS = 20
_MANY_PASSES = 20
_NOTHING_LEARNT = {"only_frequencies"}  # kinds of findings
_LOW_TRAINING_LOSS = 0.5  # of the validation loss
_NEARLY = 0.99
_EVIDENCE = 2  # of a kind of finding
_MOST_KINDS = 30
_AGAIN = "start again with --new"  # in reasons of failures that a resumed run would meet again


Values = Mapping[str, Any]  # of figures, by name


def judge(history: History, values: Values) -> list[str]:
    """Sentences on whether a run learnt, and how it stands beside its start and the best baseline."""
    return [_learning(history, values), *_worth(history)]


def find_problems(history: History, values: Values) -> list[str]:
    """Facts that a reader has to know before believing the figures, one sentence each."""
    problems = [*_changes(history), *_broken_steps(history), *_findings(history), *_constant(history)]
    problems += [*_answers(history), *_chance(history, values), *_memory(history, values)]
    return [*problems, *_data(history), *_clock(history)]


def describe_end(values: Values, argument: str) -> str:
    """A sentence on how far a run came, and what continues it. argument: the run as commands take it."""
    step, steps, status = values["step"], values["steps"], values["status"]
    passes = values["epochs"] and f", {plural(values['epochs'], 'epoch')}"
    of = f"step {step:,}" + (f" of {steps:,}" if steps else "")
    if status == "finished" and step == steps:
        return f"Finished {plural(step, 'step')}{passes or ''} in {duration(values['wall_seconds'])}."
    if status == "finished":
        return f"Ended early at {of}: {values['reason'] or 'the journal does not say why'}."
    if status == "unknown":
        return f"Its end is not known after {of}: {values['reason']}."
    if status == "running":
        return f"Running at {of}."
    if status == "failed":
        reason = str(values["reason"]).rstrip(".")
        again = "" if _AGAIN in reason else f" etude resume {argument} goes on from its last checkpoint."
        return f"Failed at {of}: {reason}.{again}"
    return f"Not finished: {status} at {of}; etude resume {argument} continues it."


def newest_scores(history: History) -> list[Scores]:
    """The last scores of each split and task."""
    return list({scores.split: scores for scores in history.events(Scores)}.values())


def best_baseline(scores: Scores) -> str | None:
    """The baseline that the run is ahead of by least, or behind by most."""
    sign = ChosenMetric.parse(scores.metric).sign
    gains = {name: sign * gain[0] for name, gain in scores.gains.items() if name != BEFORE}
    return min(gains, key=lambda name: gains[name], default=None)


def constant_prediction(scores: Scores) -> str | None:
    """The label that a run predicts for each of several rows that differ in theirs, or None."""
    predicted = [sum(column) for column in zip(*scores.confusion)]
    true = [sum(row) for row in scores.confusion]
    if sum(map(bool, predicted)) != 1 or sum(map(bool, true)) < 2:
        return None
    return scores.labels[max(range(len(predicted)), key=lambda index: predicted[index])]


def _learning(history: History, values: Values) -> str:
    """Compare the metric before training, at its best and at the end."""
    evaluations, best = history.evaluations, history.best
    metric, name = values["metric"], metric_title(values["metric"])
    training = f"the training loss went from {short(values['first_loss'])} to {short(values['last_loss'])}"
    if not history.steps:
        return "No step was made."
    if (lost := _first_lost_step(history)) is not None:
        kept = f"; the best checkpoint is of step {best.step:,}" if best and best.step < lost else ""
        return f"It diverged: the training loss is not finite from step {lost:,} on{kept}."
    if not evaluations:
        if _held_out(history):
            return f"It was not evaluated yet; {training}."
        return f"Nothing was held out, so its quality on other data is not known; {training}."
    if not evaluations[-1].step:
        return f"It was not evaluated since its start; {training}."
    if best is None:
        return f"It is not usable: {name} was finite at no evaluation after the first step."
    start, *others = [each for each in evaluations if _is_finite(metric_value(each, metric))] or [best]
    value, first, last = (metric_value(each, metric) for each in (best, start, evaluations[-1]))
    at, end = f"at step {best.step:,}", "" if last == value else f", but it was {short(last)} at the end"
    if not others:
        once = (
            "Evaluated once: {} {} {}" if len(evaluations) == 1 else "Finite at one evaluation only: {} {} {}"
        )
        return f"{once.format(name, short(value), at)}; {training}."
    if not start.step and not _is_better(history.metric, value, first):
        later = f"at best {short(value)} afterwards"
        return f"It did not get better: {name} was {short(first)} before training and {later}."
    if best is start:
        is_flat = short(last) == short(value)
        went, end = ("did not get better", " and at the end") if is_flat else ("got worse", end)
        return f"It {went} after its first evaluation: {name} was {short(value)} {at}{end}."
    then = f"at step {start.step:,}" if start.step else "before training"
    if short(value) == short(first):
        return f"It hardly changed: {name} was {short(first)} {then} and {short(value)} at best, {at}{end}."
    doubt = _doubt(history)
    went = f"{name} {_verb(first, value)} from {short(first)} {then} to {short(value)}{scale_of(metric)} {at}"
    went += f", the best step{end}{doubt}"
    if doubt:
        return f"It may have learnt nothing: {went}."
    learnt = "It seems to have learnt" if _few_held_out(history) is not None else "It learnt"
    faults = ["ended worse"] if _is_lost(first, value, last) else []
    faults += _faults_of_answers(history)
    return f"{learnt}{f', but {_joined(faults)}' if faults else ''}: {went}."


def _faults_of_answers(history: History) -> list[str]:
    """Reasons, shortly, why a model whose loss fell may write nothing of use."""
    found = []
    if _is_all_the_same(history):
        found.append("gives the same answer to all")
    if _never_stops(history):
        found.append("never ends an answer")
    elif any(count >= rows > 1 for key, count, rows in _lost_rows(history) if key == "truncated"):
        found.append("has seen no row to its end")
    return found


def _joined(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _doubt(history: History) -> str:
    """The reason why a better metric does not show that a run learnt, or nothing."""
    for scores in newest_scores(history):
        if BEFORE in scores.gains and not is_sure(scores.gains[BEFORE]):
            rows = plural(scores.rows, f"{scores.split} row")
            return f"; on the {rows} the change of {metric_title(scores.metric)} is within the noise"
        if constant_prediction(scores) is not None:
            return "; it predicts one label for all rows"
        if (constant := _unbeaten_constant(scores)) is not None:
            return f"; {one_line(constant)} is not behind it beyond the noise"
    findings = [each for each in history.events(Finding) if each.kind]
    wrong = [each for each in findings if not each.step and each.severity == "error"]  # in what is asked for
    found = [*(each for each in findings if each.kind in _NOTHING_LEARNT), *wrong]
    return f"; the watch found that {found[-1].what}" if found else ""


def _unbeaten_constant(scores: Scores) -> str | None:
    """The first baseline with one prediction for all rows that a run is not surely better than, or None."""
    sign = ChosenMetric.parse(scores.metric).sign
    for name, gain in scores.gains.items():
        is_constant = name == "majority class" or name.startswith("always ")
        if is_constant and not (is_sure(gain) and sign * gain[0] > 0):
            return name
    return None


def _worth(history: History) -> Iterator[str]:
    """The scores on held-out rows beside those of the model before training and of the best baseline."""
    for scores in newest_scores(history):
        name = scores.metric if scores.metric == "loss" else metric_title(scores.metric)  # of any split
        against = [BEFORE, best_baseline(scores)]
        known = scores.gains.keys() & scores.systems.keys()  # a record of elsewhere may name others
        compared = [_compared(scores, other) for other in against if other in known]
        value = with_interval(*scores.systems["after"][scores.metric], rows=scores.rows)
        rows, scale = plural(scores.rows, f"{scores.split} row"), scale_of(scores.metric)
        said = compared or ["no other score stands beside it"]
        yield f"On {rows}: {name} {'; '.join([f'{value}{scale}', *said])}."


def _compared(scores: Scores, other: str) -> str:
    gain, low, high = scores.gains[other]
    value = with_interval(*scores.systems[other][scores.metric], rows=scores.rows, interval=False)
    system = "before training" if other == BEFORE else f"the best baseline, {one_line(other)}"
    if gain == low == high == 0:
        return f"the same as {system}"
    if not is_sure([gain, low, high]):
        return f"not distinguishable from {system} ({value})"
    is_better = ChosenMetric.parse(scores.metric).gain(gain, 0) > 0
    return f"{'better' if is_better else 'worse'} than {system} ({value})"


def _constant(history: History) -> Iterator[str]:
    for scores in newest_scores(history):
        rows, label = plural(scores.rows, f"{scores.split} row"), constant_prediction(scores)
        if label is not None:
            yield f"It predicts the label {one_line(label)} for all {rows}."
        elif scores.distinct == 1 and scores.rows > 1 and not scores.confusion:
            yield f"It predicts the same for all {rows}."
        if scores.rows < _FEW_ROWS:
            yield f"The scores rest on {rows} only."


def _answers(history: History) -> Iterator[str]:
    """Faults of the answers at the best evaluation."""
    if _is_all_the_same(history):
        yield f"All {len(_answers_at_best(history))} answers shown are the same text."
    if _never_stops(history):
        most = history.run.recipe.evaluate.answer_tokens
        yield f"None of its answers ends by itself; each was cut off, after {plural(most, 'token')} at most."
    figures = figures_of(_judged(history))
    if figures.get("repetition", 0) >= 0.5:
        share = percent(figures["repetition"])
        yield f"Its answers repeat themselves: on average {share} of an answer is a repetition."
    if figures.get("bleu") == 0 and figures.get("chrf", 0) > 0:
        why = "no answer has four words, or none has a word of its reference"
        yield f"BLEU is 0 because {why}; chrF, which counts characters, is {short(figures['chrf'])}."


def _judged(history: History) -> Evaluation | None:
    """The evaluation whose answers count: the best, or else the last; that before training is none."""
    evaluation = history.best or (history.evaluations[-1] if history.evaluations else None)
    return evaluation if evaluation and evaluation.step else None


def _never_stops(history: History) -> bool:
    return figures_of(_judged(history)).get("stop_rate") == 0


def _answers_at_best(history: History) -> dict[str, str]:
    """Answers at the best evaluation by their prompts."""
    judged = _judged(history)
    return {
        each.prompt: each.text
        for each in history.generations
        if judged and each.step == judged.step and each.reference is not None
    }


def _is_all_the_same(history: History) -> bool:
    answers = _answers_at_best(history)
    return len(answers) > 2 and len(set(answers.values())) == 1


def _chance(history: History, values: Values) -> Iterator[str]:
    """A perplexity as high as that of a model that gives every token of the vocabulary the same chance."""
    size = history.data.summary.get("vocab_size") if history.data else None
    lowest = values["best_perplexity"]
    if isinstance(size, int) and lowest is not None and lowest > _NEARLY * size:
        chance = f"its lowest perplexity is {short(lowest)}, and the vocabulary has {size:,} tokens"
        yield f"It predicts tokens no better than chance: {chance}."


def _memory(history: History, values: Values) -> Iterator[str]:
    """A training loss far below the validation loss after many passes, while the latter rises."""
    losses = [evaluation.loss for evaluation in history.evaluations if evaluation.step]
    training, passes = values["last_loss"], values["epochs"] or 0
    if len(losses) < 2 or training is None or not math.isfinite(training) or values["gap"] is None:
        return
    if losses[-1] > min(losses) and training < _LOW_TRAINING_LOSS * losses[-1] and passes >= _MANY_PASSES:
        rows = (history.data.summary.get("train") or {}).get("samples") if history.data else None
        of = f" over {plural(rows, 'training sample')}" if rows else ""
        yield (
            f"It has memorised its training data: after {passes:.0f} passes{of} the training loss is "
            f"{short(training)} and the validation loss {short(losses[-1])}, up from {short(min(losses))}."
        )


def _data(history: History) -> Iterator[str]:
    """Rows that training saw cut or not at all, and a validation set too small to tell much."""
    words = {
        "truncated": "{were} cut", "cut_away": "lost {their} answer", "dropped": "{were} left out",
    }  # fmt: skip
    for key, count, rows in _lost_rows(history):
        share = "All" if count >= rows > 1 else f"{count:,} of"
        were, their = ("was", "its") if count == 1 else ("were", "their")
        said = words[key].format(were=were, their=their)
        limits = _limits(history.run.recipe)
        yield f"{share} {plural(rows, 'training row')} {said}, being longer than {limits}."
    if (samples := _few_held_out(history)) is not None:
        were = "was" if samples == 1 else "were"
        yield f"Only {plural(samples, 'sample')} {were} held out, so the validation figures say little."


def _lost_rows(history: History) -> Iterator[tuple[str, int, int]]:
    """Ways in which training rows were too long, the number of such rows, and of all, for each task."""
    for name, counts in (history.data.summary if history.data else {}).items():
        if not isinstance(counts, dict) or not name.endswith("train"):
            continue
        lost = sum(value for key in ("cut_away", "dropped") if isinstance(value := counts.get(key), int))
        rows = (counts.get("documents") or counts.get("samples") or 0) + lost
        for key in ("truncated", "cut_away", "dropped"):
            if isinstance(count := counts.get(key), int) and count > 0 and rows:
                yield key, count, rows


def _limits(recipe: Recipe) -> str:
    """Keys of the recipe that bound the length of a sample."""
    kinds = [part.kind for part in recipe.by_task().values()]
    keys = dict.fromkeys(key for kind in kinds for key in ("seq_len", *kind.train_keys))
    return " or ".join(f"train.{key}" for key in keys if key.endswith("_len"))


def _few_held_out(history: History) -> int | None:
    """The number of validation samples, if it is small and no scores tell how sure the figures are."""
    samples = _held_out(history)
    return samples if samples and samples < _FEW_ROWS and not history.events(Scores) else None


def _held_out(history: History) -> int | None:
    """The number of validation samples, as far as the journal tells it."""
    summary = history.data.summary if history.data else {}
    held_out = next((value for key, value in summary.items() if key.endswith("validation") and value), None)
    samples = held_out.get("samples") if isinstance(held_out, dict) else None
    return samples if isinstance(samples, int) else None


def _changes(history: History) -> Iterator[str]:
    for step, key, value in history.changes:
        changed = f"{one_line(key)} {one_line(setting(value))}"
        yield f"The recipe was changed after step {step:,}: {changed}."


def _broken_steps(history: History) -> Iterator[str]:
    skipped = sum(step.skipped for step in history.steps)
    if skipped:
        yield f"{plural(skipped, 'step')} changed no weight, since the loss or gradient was not finite."
    if history.ledger.damaged:
        yield f"{plural(len(history.ledger.damaged), 'damaged line')} of the journal left out."


def _clock(history: History) -> Iterator[str]:
    if text := jumps_text(history.ledger.jumps):
        yield f"{text}; times are without that, and where it jumped those of steps and evaluations alone."


def _findings(history: History) -> Iterator[str]:
    """Warnings and errors, each kind once, with its first evidence if there is much.

    Skipped steps are counted elsewhere.
    """
    counted = "non-finite step" if any(step.skipped for step in history.steps) else None
    kinds: dict[str, list[Finding]] = {}
    for finding in history.events(Finding):
        if finding.severity != "info" and finding.what != counted:
            kinds.setdefault(finding.what, []).append(finding)
    for what, (first, *others) in [*kinds.items()][:_MOST_KINDS]:
        title, different = one_line(what), {one_line(each.evidence): each for each in (first, *others)}
        shown = [*different][: _EVIDENCE if len(different) <= _EVIDENCE else 1]
        times = f" ({len(others) + 1:,} times)" if len(others) + 1 > len(shown) else ""
        yield f"{title[:1].upper()}{title[1:]}{times}: {'; '.join(shown)}."
    if (more := len(kinds) - _MOST_KINDS) > 0:
        yield f"{plural(more, 'more condition')} found, as the journal says."


def _first_lost_step(history: History) -> int | None:
    """The first of the last steps in a row whose loss is not finite, or None if the last one is."""
    lost = None
    for step in reversed(history.steps):
        if math.isfinite(step.loss):
            break
        lost = step.step
    return lost


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _is_better(metric: ChosenMetric, value: float | None, other: float | None) -> bool:
    return value is not None and other is not None and metric.gain(value, other) > 0


def _is_lost(first: float | None, best: float | None, last: float | None) -> bool:
    """True if the end lost more than half of what was gained up to the best."""
    known = [value for value in (first, best, last) if value is not None]
    return len(known) == 3 and not abs(known[2] - known[1]) <= abs(known[1] - known[0]) / 2


def _verb(first: float | None, value: float | None) -> str:
    if first is None or value is None or first == value:
        return "went"
    return "fell" if value < first else "rose"
