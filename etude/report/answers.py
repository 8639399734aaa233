"""Answers of a run over time as Markdown: each prompt once, and each different answer once."""

from collections.abc import Iterator, Sequence

from etude.records.events import Generation
from etude.report.figures import spread
from etude.report.history import History
from etude.report.markdown import code, fence
from etude.text import plural

_PROMPTS, _MOMENTS = 3, 3
_PROMPT_CHARACTERS = 200
_LINES, _CHARACTERS = 6, 400  # of a text


def answers_over_time(history: History) -> Iterator[str]:
    """The first prompts, each with its texts of some moments: the first, the best and the last among them."""
    best = history.best.step if history.best else None
    prompts = by_prompt(history)
    for (prompt, reference), texts in list(prompts.items())[:_PROMPTS]:
        cut = "..." if len(prompt) > _PROMPT_CHARACTERS else ""
        yield f"**Prompt:** {code(cut + prompt[-_PROMPT_CHARACTERS:])}"
        if reference is not None:
            yield f"Reference:\n\n{_shorten(reference)}"
        kept = [*spread(texts, _MOMENTS), *(text for text in texts if text.step == best)]
        different: dict[tuple[str, bool | None], list[Generation]] = {}
        for each in sorted({text.step: text for text in kept}.values(), key=lambda text: text.step):
            different.setdefault((each.text, each.stopped), []).append(each)
        for said in different.values():
            text, when = said[0].text, _when(said, best)
            yield f"{when}:\n\n{_shorten(text)}" if text.strip() else f"{when}: {_blank(text)}."
    if (left := len(prompts) - _PROMPTS) > 0:
        yield f"The journal has {plural(left, 'more prompt')}."


def by_prompt(history: History) -> dict[tuple[str, str | None], list[Generation]]:
    """Texts by prompt and reference, since equal instructions may have different ones."""
    texts: dict[tuple[str, str | None], list[Generation]] = {}
    for generation in history.generations:
        texts.setdefault((generation.prompt, generation.reference), []).append(generation)
    return texts


def _when(said: Sequence[Generation], best: int | None) -> str:
    """The moments of one text, and how it ended."""
    first, *others = [f"{each.step:,}{' ★' if each.step == best else ''}" for each in said]
    moments = f"Step {first}" if said[0].step else "Before training"
    if others:
        moments += f", same at step{'' if len(others) == 1 else 's'} {', '.join(others)}"
    last = said[-1]
    most = last.settings.get("max_tokens")
    cut = f", cut off after {plural(most, 'token')}" if last.stopped is False and most else ""
    return f"{moments}{', ended by itself' if last.stopped else cut}"


def _blank(text: str) -> str:
    return f"{plural(len(text), 'character')} of white space" if text else "no text"


def _shorten(text: str) -> str:
    """The first lines of a text as a block, and how much is left out."""
    text = text.strip("\n")
    short = "\n".join(text.splitlines()[:_LINES])[:_CHARACTERS]
    left = len(text) - len(short)
    return fence(f"{short}\n... ({plural(left, 'character')} more)" if left > 0 else short)
