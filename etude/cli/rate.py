"""What `etude rate` does: a person rates what a run said, or says which of two runs said it better."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from etude.cli.printing import say
from etude.errors import InputError
from etude.records.events import Generation, Rating
from etude.records.store import Run, append_note
from etude.report.history import History, read_history
from etude.report.ratings import count_ratings
from etude.text import clean, plural

_DUEL = {"a": (1.0, 0.0), "b": (0.0, 1.0), "=": (0.5, 0.5)}


@dataclass(frozen=True)
class Question:
    """A prompt and what was said: by one run, or by two in an order that the rater does not know.

    runs   to which each of the texts belongs
    """

    prompt: str
    texts: list[Generation]
    runs: list[Run]

    @property
    def answers(self) -> tuple[str, ...]:
        """What may be answered."""
        return tuple(_DUEL) if len(self.texts) > 1 else ("1", "2", "3", "4", "5")

    def to_dict(self) -> dict[str, Any]:
        """For a script, which does not learn either which run said what."""
        return {
            "prompt": self.prompt,
            "texts": [said.text for said in self.texts],
            "answers": list(self.answers),
        }

    def ratings(self, answer: str, rater: str) -> list[tuple[Run, Rating]]:
        """The records that an answer makes, one for each run."""
        scores = _DUEL[answer] if len(self.texts) > 1 else (float(answer),)
        others = [run.name for run in reversed(self.runs)] if len(self.runs) > 1 else [None]
        return [
            (run, Rating(said.step, self.prompt, said.text, rater, score, other))
            for run, said, score, other in zip(self.runs, self.texts, scores, others)
        ]


def rate(
    runs: Sequence[Run],
    *,
    rater: str,
    scores: Sequence[str] | None = None,
    seed: int = 17,
    ask: Callable[[str], str] = input,
) -> list[tuple[str, str]]:
    """Ask for a rating of each text of one run, or of two side by side, and keep each at once.

    Texts are those of the best checkpoint, or the last that there are; what `rater` has rated is not asked
    again. scores: the answers of a script, in the order of `questions`, instead of asking. Returns the
    ratings of each run so far.

    Raises: InputError if there is nothing to rate, or the scores do not fit; nothing is kept then.
    """
    asked = questions(runs, rater=rater, seed=seed)
    if scores is not None:
        _require_fit(asked, scores)
    given = iter(scores or ())
    for index, question in enumerate(asked):
        answer = next(given) if scores is not None else _ask(question, f"{index + 1} of {len(asked)}", ask)
        if answer == "q":
            break
        for run, rating in question.ratings(answer, rater) if answer != "s" else ():
            append_note(run, rating)
    return [(run.name, str(count_ratings(read_history(run).ratings)) or "no ratings") for run in runs]


def questions(runs: Sequence[Run], *, rater: str, seed: int = 17) -> list[Question]:
    """What there is to rate, in an order that seed and rater make. Raises: InputError if there is nothing."""
    if not rater.strip():
        raise InputError("the rater has no name; expected who rates; give --rater NAME")
    if not 1 <= len(runs) <= 2 or len({run.path.resolve() for run in runs}) < len(runs):
        raise InputError("expected one run, or two different ones to set side by side; see etude runs")
    histories = [read_history(run) for run in runs]
    said = [_latest(history) for history in histories]
    shared = [prompt for prompt in said[0] if all(prompt in texts for texts in said)]
    if not shared:
        what = "texts" if len(runs) == 1 else "texts to equal prompts"
        names = " and ".join(run.name for run in runs)
        raise InputError(
            f"there are no {what} of {names}; set evaluate.prompts or evaluate.answers in the recipe"
        )
    draw = random.Random(clean(f"{seed} {rater}"))  # a name that is no UTF-8 cannot be hashed
    asked = []
    for prompt in shared:
        texts = [texts[prompt] for texts in said]
        # Drawn before any is left out, so that the order of the others does not depend on what was rated.
        order = draw.sample(range(len(runs)), len(runs))
        if not _is_rated(histories, texts, rater):
            asked.append(
                Question(prompt, [texts[place] for place in order], [runs[place] for place in order])
            )
    return asked


def _latest(history: History) -> dict[str, Generation]:
    """By prompt, what the best checkpoint said, or the last moment that said anything."""
    steps = {generation.step for generation in history.generations}
    best = (history.run.best or {}).get("step")
    step = best if best in steps else max(steps, default=None)
    return {generation.prompt: generation for generation in history.generations if generation.step == step}


def _is_rated(histories: Sequence[History], texts: Sequence[Generation], rater: str) -> bool:
    """Whether all of the runs have it: a kill may come between two records."""
    others = [history.run.name for history in reversed(histories)] if len(histories) > 1 else [None]
    return all(
        any(
            (rating.rater, rating.step, rating.prompt, rating.text, rating.against)
            == (rater, said.step, said.prompt, said.text, other)
            for rating in history.ratings
        )
        for history, said, other in zip(histories, texts, others)
    )


def _require_fit(asked: Sequence[Question], scores: Sequence[str]) -> None:
    if len(scores) != len(asked):
        raise InputError(
            f"--scores has {plural(len(scores), 'score')} but there are {plural(len(asked), 'text')} to "
            "rate; give one for each, or s to leave one out; --json lists them"
        )
    for index, (question, score) in enumerate(zip(asked, scores)):
        if score not in (*question.answers, "s"):
            expected = ", ".join(question.answers)
            raise InputError(
                f"score {index + 1} of --scores is {score!r}; expected one of {expected}, or s to skip"
            )


def _ask(question: Question, which: str, ask: Callable[[str], str]) -> str:
    """Show a question on stderr and ask until there is an answer; the end of the input is q."""
    say(f"\n--- {which}, prompt:\n{question.prompt}")
    for name, said in zip("ab" if len(question.texts) > 1 else [""], question.texts):
        say(f"\n--- {f'text {name}' if name else 'text'}:\n{said.text}")
    words = "a or b is better, = as good" if len(question.texts) > 1 else "1 (bad) to 5 (good)"
    while True:
        try:
            answer = ask(f"\n{words}, s skips, q ends: ").strip().lower()
        except EOFError:
            return "q"
        if answer in (*question.answers, "s", "q"):
            return answer
