"""Marks of chat templates that stand in rows as text."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from etude.audit.samples import decoded
from etude.data.samples.sample import Sample
from etude.objectives.task import Task
from etude.records.events import Finding
from etude.text import one_line, plural

_MANY, _FEW, _LEAST = 0.5, 0.06, 4  # shares of the rows, and rows
# What templates put around turns; two different ones in a row are a conversation, not code that names one.
_TEMPLATES: dict[str, tuple[str, ...]] = {
    "Llama 2 and Mistral": ("[INST]", "[/INST]", "<<SYS>>"),
    "ChatML": ("<|im_start|>", "<|im_end|>"),
    "Llama 3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "Gemma": ("<start_of_turn>", "<end_of_turn>"),
    "Phi and Zephyr": ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>"),
    "gpt-oss": ("<|start|>assistant", "<|start|>user", "<|message|>", "<|channel|>"),
    "DeepSeek": ("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"),
    "Command R": ("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
    "Alpaca": ("### Instruction:", "### Response:", "### Input:"),
    "Vicuna": ("USER: ", "ASSISTANT: "),
}


def find_marks(samples: Sequence[Sample], task: Task) -> Iterator[Finding]:
    """Marks of the model's own template, which should be tokens, and those of others."""
    tokenizer, template = task.corpus.tokenizer, _template_of(task)
    texts = decoded(samples, tokenizer)
    own = [each for each in tokenizer.special_tokens if each in (tokenizer.chat_template or "")]
    held = [mark for mark in own if _is_often(sum(mark in text for text in texts), texts, _MANY)]
    both = sum(_distinct(text, own) > 1 for text in texts)
    if held or _is_often(both, texts, _FEW):
        shown = held or [mark for mark in own if any(mark in text for text in texts)]
        yield _finding(
            "marks of the chat template are read as text",
            f"{', '.join(one_line(mark, 30) for mark in shown[:3])} stand as text in "
            f"{max(both, *(sum(mark in text for text in texts) for mark in shown)):,} of "
            f"{plural(len(texts), 'sample')}, so the tokens that the model was trained with are missing",
            "give the rows as messages or as instruction and output, and the template is put around them",
            "conversations that were written into one text",
        )  # fmt: skip
    if template is None:
        return
    for name, marks in _TEMPLATES.items():
        is_used = sum(mark in template for mark in marks) > 1
        marked = [text for text in texts if (_is_doubled if is_used else _has_two)(text, marks)]
        if set(marks) & set(own) or not _is_often(len(marked), texts, _FEW):
            continue
        shown = [mark.strip() for mark in marks if any(mark in text for text in marked)]
        yield _finding(
            "the marks of a template are put around the rows twice" if is_used
            else "rows hold the marks of another chat template",
            f"{', '.join(dict.fromkeys(shown))} ({name}) stand in {len(marked):,} of "
            f"{plural(len(texts), 'sample')}, within the turns that the template of this model marks",
            "take them out, and give the rows as messages or as instruction and output: the template of the "
            "model is put around them",
            "rows that were written with a template before",
        )  # fmt: skip


def _template_of(task: Task) -> str | None:
    """The template around the rows, or that of the model for rows without one; None if there is none."""
    corpus, kind = task.corpus, task.recipe.kind
    if not kind.writes_text or kind.model != "decoder":
        return None
    if len(corpus.examples_of.get("train", ())):
        return corpus.chat.source
    return corpus.tokenizer.chat_template


def _distinct(text: str, marks: Sequence[str]) -> int:
    return sum(mark in text for mark in marks)


def _has_two(text: str, marks: Sequence[str]) -> bool:
    return _distinct(text, marks) > 1


def _is_doubled(text: str, marks: Sequence[str]) -> bool:
    """True if a mark stands twice without another between, as no turn after a turn has it."""
    found = re.findall("|".join(map(re.escape, marks)), text)
    return any(first == second for first, second in pairwise(found))


def _is_often(count: int, texts: Sequence[str], share: float) -> bool:
    return count >= min(_LEAST, len(texts)) and count > share * len(texts)


def _finding(what: str, evidence: str, advice: str, cause: str) -> Finding:
    return Finding(
        0, what, evidence, advice, window=[0, 0], causes=[cause], kind="template_marks_missing",
        confidence=1.0, decided_by="the prepared samples",
    )  # fmt: skip
