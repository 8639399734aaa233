"""Questions to raters as a file, and the answers in it: `etude rate --export` and `--import`."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from etude import durable
from etude.cli.rate import Question, questions
from etude.data.sources import read_all_rows
from etude.errors import InputError
from etude.records.store import Run, append_note
from etude.text import plural


def export_questions(runs: Sequence[Run], path: Path, *, rater: str, seed: int) -> int:
    """Write what a rater has not rated yet, blind, in the order of seed and rater; returns how many.

    Raises: InputError if there is nothing to rate.
    """
    asked = questions(runs, rater=rater, seed=seed)
    if not asked:
        raise InputError(f"{rater} has rated all texts; there is nothing to export")
    rows = [
        {"id": _name(each), **each.to_dict(), "rater": rater, "seed": seed, "answer": ""} for each in asked
    ]
    durable.write_file(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return len(rows)


def import_answers(runs: Sequence[Run], path: Path) -> tuple[int, int]:
    """Keep the answers of a file; returns those that are new, and those that are empty or were kept before.

    Raises: InputError if a row is none of the questions, or its answer none of those that are taken; nothing
    is kept then.
    """
    known: dict[tuple[str, int], dict[str, Question]] = {}
    answers: dict[tuple[str, str], tuple[Question, str]] = {}
    done: set[tuple[str, str]] = set()
    left = 0
    for place, row in read_all_rows(path):
        name, rater, seed, answer = (row.get(field) for field in ("id", "rater", "seed", "answer"))
        if not isinstance(name, str) or not isinstance(rater, str) or not isinstance(seed, int):
            raise InputError(
                f"{place} is no question of etude rate --export; expected id, rater, seed, answer"
            )
        if (rater, seed) not in known:
            asked = questions(runs, rater=rater, seed=seed, with_rated=True)
            known[rater, seed] = {_name(each): each for each in asked}
            left_to_rate = {_name(each) for each in questions(runs, rater=rater, seed=seed)}
            done |= {(rater, key) for key in known[rater, seed] if key not in left_to_rate}
        question = known[rater, seed].get(name)
        if question is None:
            raise InputError(
                f"{place}: its question is none of these runs; give the runs of --export, in order"
            )
        given = str("" if answer is None else answer).strip().lower()
        if given not in (*question.answers, "", "s"):
            expected = ", ".join(question.answers)
            raise InputError(f"{place}: answer is {given[:20]!r}; expected one of {expected}, or nothing")
        if given in ("", "s") or (rater, name) in done or (rater, name) in answers:
            left += 1
        else:
            answers[rater, name] = question, given
    for (rater, _), (question, given) in answers.items():
        for run, rating in question.ratings(given, rater):
            append_note(run, rating)
    if not answers and not left:
        raise InputError(
            f"{path} has no rows; expected {plural(1, 'question')} or more of etude rate --export"
        )
    return len(answers), left


def _name(question: Question) -> str:
    """A name that says nothing of the runs, but is that of the texts in their order."""
    told = json.dumps([question.prompt, *(text.text for text in question.texts)])
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:24]
