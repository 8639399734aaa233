"""Rows that are there more than once: within training, and in training and held-out sets."""

from collections.abc import Iterator

from etude.data.listing import USES
from etude.objectives.task import Task
from etude.records.events import Finding
from etude.text import one_line, plural

_MANY, _LEAST_COPIES = 0.1, 8
_LEAK, _LEAST_LEAKS = 0.05, 3


def find_duplicates(task: Task) -> Iterator[Finding]:
    """Training rows that repeat others, where the recipe leaves them in."""
    repeats = task.corpus.repeats
    if task.recipe.data.deduplicate != "off" or repeats.share < _MANY or repeats.copies < _LEAST_COPIES:
        return
    yield Finding(
        0, "rows of training are there more than once",
        f"{repeats.copies:,} of {plural(repeats.rows, 'row')} ({repeats.share:.0%}) are equal to one before "
        f"them; the commonest is there {repeats.most:,} times",
        'set data.deduplicate = "exact"; `etude data RECIPE` names the rows. If they repeat to weigh more, '
        "leave it",
        window=[0, 0], causes=["rows that were joined or exported twice", "rows repeated to weigh more"],
        changes={"data.deduplicate": "exact"}, kind="duplicates", confidence=1.0,
        decided_by="hashes of the texts of all rows", not_tested=["rows that are nearly equal"],
    )  # fmt: skip


def find_contamination(task: Task) -> Iterator[Finding]:
    """Held-out rows that are among those of training: equal ones, and nearly equal ones."""
    corpus = task.corpus
    near = {each["of"]: each for each in corpus.summary.get("leaks", ()) if each["also_in"] == "train"}
    for use, split in (("validation", corpus.validation), ("test", corpus.test)):
        exact, all_of = corpus.leaked.get(use, 0), int((corpus.uses == USES.index(use)).sum())
        alike = max(near[use]["documents"] if use in near else 0, exact)
        if split is None or not alike:
            continue
        examples = near[use]["examples"][:1] if use in near else []
        shown = "".join(f", as {one_line(each, 100)}" for each in examples)
        is_much = exact >= max(_LEAK * all_of, _LEAST_LEAKS)
        yield Finding(
            0, f"{use} rows are among those of training",
            f"of {plural(all_of, f'{use} row')} {exact:,} ({exact / all_of:.1%}) are there word for word, "
            f"{alike - exact:,} are nearly equal to some{shown}",
            f'set data.leakage.action = "drop", which leaves these rows out of training: else figures of '
            f"{use} tell what is remembered",
            severity="warning" if is_much else "info", window=[0, 0],
            causes=[f"{use} rows that are trained on" if exact else "rows of one origin on both sides"],
            changes={"data.leakage.action": "drop"} if task.recipe.data.validation is not None else {},
            kind="contamination", confidence=1.0, decided_by="hashes and shingles of the texts of all rows",
        )  # fmt: skip
