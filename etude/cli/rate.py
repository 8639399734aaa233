"""`etude rate`: a person rates the texts of a run, or chooses between those of two runs."""

import getpass
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from etude.cli.printing import say
from etude.errors import InputError
from etude.records.events import Generation, Rating
from etude.records.store import Run, append_note
from etude.report.history import History, read_history
from etude.report.ratings import Ratings, count_ratings
from etude.text import clean, plural

_DUEL = {"a": (1.0, 0.0), "b": (0.0, 1.0), "=": (0.5, 0.5)}


@dataclass(frozen=True)
class Question:
    """A prompt and the text of one run, or of two in an order that the rater does not know.

    runs   to which each of the texts belongs
    """

    prompt: str
    texts: list[Generation]
    runs: list[Run]

    @property
    def answers(self) -> tuple[str, ...]:
        """The answers that are taken."""
        return tuple(_DUEL) if len(self.texts) > 1 else ("1", "2", "3", "4", "5")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a script, without the names of the runs."""
        return {
            "prompt": self.prompt,
            "texts": [text.text for text in self.texts],
            "answers": list(self.answers),
        }

    def ratings(self, answer: str, rater: str) -> list[tuple[Run, Rating]]:
        """The records that an answer makes, one for each run."""
        scores = _DUEL[answer] if len(self.texts) > 1 else (float(answer),)
        others = [run.name for run in reversed(self.runs)] if len(self.runs) > 1 else [None]
        return [
            (run, Rating(text.step, self.prompt, text.text, rater, score, other))
            for run, text, score, other in zip(self.runs, self.texts, scores, others)
        ]


def rate(
    runs: Sequence[Run],
    *,
    rater: str,
    scores: Sequence[str] | None = None,
    seed: int = 17,
    ask: Callable[[str], str] = input,
) -> dict[str, Ratings]:
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
    return {run.name: count_ratings(read_history(run).ratings) for run in runs}


def user_name() -> str:
    """The name of the person at this machine. Raises: InputError if it has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an account of no name, as in a container
        raise InputError("this account has no name; give who rates with --rater NAME") from None


def questions(runs: Sequence[Run], *, rater: str, seed: int = 17, with_rated: bool = False) -> list[Question]:
    """The texts to rate, in the order of seed and rater. Raises: InputError if there are none.

    with_rated: those too that the rater has rated.
    """
    if not rater.strip():
        raise InputError("the rater has no name; expected who rates; give --rater NAME")
    if not 1 <= len(runs) <= 2 or len({run.path.resolve() for run in runs}) < len(runs):
        raise InputError("expected one run, or two different ones to set side by side; see etude runs")
    histories = [read_history(run) for run in runs]
    latest = [_latest(history) for history in histories]
    shared = [prompt for prompt in latest[0] if all(prompt in texts for texts in latest)]
    if not shared:
        what = "texts" if len(runs) == 1 else "texts to equal prompts"
        names = " and ".join(run.name for run in runs)
        advice = "set evaluate.prompts or evaluate.answers in the recipe"
        raise InputError(f"there are no {what} of {names}; {advice}")
    draw = random.Random(clean(f"{seed} {rater}"))  # a name that is no UTF-8 cannot be hashed
    asked = []
    for prompt in shared:
        texts = [texts[prompt] for texts in latest]
        # Drawn before any is left out, so that the order of the others does not depend on what was rated.
        order = draw.sample(range(len(runs)), len(runs))
        if with_rated or not _is_rated(histories, texts, rater):
            asked.append(Question(prompt, [texts[at] for at in order], [runs[at] for at in order]))
    return asked


def _latest(history: History) -> dict[str, Generation]:
    """The texts of the best checkpoint, or of the last moment with texts, by prompt."""
    steps = {generation.step for generation in history.generations}
    best = (history.run.best or {}).get("step")
    step = best if best in steps else max(steps, default=None)
    return {generation.prompt: generation for generation in history.generations if generation.step == step}


def _is_rated(histories: Sequence[History], texts: Sequence[Generation], rater: str) -> bool:
    """True if all of the runs have the rating: a kill may come between two records."""
    others = [history.run.name for history in reversed(histories)] if len(histories) > 1 else [None]
    return all(
        any(
            (rating.rater, rating.step, rating.prompt, rating.text, rating.against)
            == (rater, text.step, text.prompt, text.text, other)
            for rating in history.ratings
        )
        for history, text, other in zip(histories, texts, others)
    )


def _require_fit(asked: Sequence[Question], scores: Sequence[str]) -> None:
    if len(scores) != len(asked):
        what = (
            f"--scores has {plural(len(scores), 'score')} but there are {plural(len(asked), 'text')} to rate"
        )
        raise InputError(f"{what}; give one for each, or s to leave one out; --json lists them")
    for index, (question, score) in enumerate(zip(asked, scores)):
        if score not in (*question.answers, "s"):
            expected = f"expected one of {', '.join(question.answers)}, or s to skip"
            raise InputError(f"score {index + 1} of --scores is {score!r}; {expected}")


def _ask(question: Question, which: str, ask: Callable[[str], str]) -> str:
    """Show a question on stderr and ask until there is an answer; the end of the input is q."""
    say(f"\n--- {which}, prompt:\n{question.prompt}")
    for name, text in zip("ab" if len(question.texts) > 1 else [""], question.texts):
        say(f"\n--- {f'text {name}' if name else 'text'}:\n{text.text}")
    words = "a or b is better, = as good" if len(question.texts) > 1 else "1 (bad) to 5 (good)"
    while True:
        try:
            answer = ask(f"\n{words}, s skips, q ends: ").strip().lower()
        except EOFError:
            return "q"
        if answer in (*question.answers, "s", "q"):
            return answer
