"""Texts that a model writes during an evaluation: continuations of prompts, and answers that are scored."""

import math
from collections.abc import Iterator, Sequence

from etude.data.corpus import Corpus
from etude.evaluate.answers import answer, continue_prompts
from etude.evaluate.exam import Exam
from etude.evaluate.tasks import Score
from etude.objectives.kind import Measured
from etude.recipe.schema import Recipe
from etude.records import events
from etude.scores.answers import FIGURES, Answer, score
from etude.scores.intervals import answer_bootstrap
from etude.scores.systems import of_answers
from etude.text import plural


def names_of_texts(recipe: Recipe, corpus: Corpus) -> set[str]:
    """The figures of answers, where held-out instructions or sources are answered."""
    return set(FIGURES) if is_answered(recipe, corpus) else set()


def is_answered(recipe: Recipe, corpus: Corpus) -> bool:
    """True if an evaluation answers held-out instructions or sources."""
    return bool(recipe.evaluate.answers and corpus.examples)


def measure_texts(exam: Exam, loss: Score) -> Measured:
    """Continue the prompts, answer validation rows, and score the answers beside the loss.

    Rank 0 writes; the other ranks learn the figure that says which moment is the best.
    """
    texts: list[events.Generation] = []
    answers: list[Answer] = []
    findings: list[events.Finding] = []
    if exam.writes_text and exam.world.is_main:
        with exam.precision.autocast():
            texts = continue_prompts(exam.model, exam.corpus, exam.recipe, exam.step)
            if is_answered(exam.recipe, exam.corpus):
                recorded, answers = answer(exam.model, exam.corpus, exam.recipe, exam.step)
                texts, findings = texts + recorded, list(_find_little_room(exam, recorded))

    def standard_error(metric: str) -> float:
        known = metric in FIGURES and answers
        return answer_bootstrap(answers, [metric])[metric].standard_error if known else math.nan

    figures = score(answers) if answers else {}
    if exam.world.size > 1:
        figures |= exam.world.agree(
            {name: value for name, value in figures.items() if name == exam.metric.name}
        )
    measure_of = of_answers if answers else None
    return Measured(loss, figures, texts, findings, standard_error, predicted=answers, measure_of=measure_of)


def _find_little_room(exam: Exam, answered: Sequence[events.Generation]) -> Iterator[events.Finding]:
    """An answer that the context ends is scored as one that did not stop, which is not the model's fault."""
    most = exam.recipe.evaluate.answer_tokens
    rooms = [answer.settings["max_tokens"] for answer in answered]
    if short := sum(room < most for room in rooms):
        evidence = (
            f"behind {short:,} of {plural(len(rooms), 'question')} the model's context leaves room for fewer "
            f"than evaluate.answer_tokens ({most:,}), at least {min(rooms):,}; these answers end there"
        )
        advice = "lower evaluate.answer_tokens, or ask shorter questions"
        yield events.Finding(exam.step, "little room for answers", evidence, advice)
