"""Faults of prepared samples that need no model: nothing scored, padding, no end, known answers."""

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from etude.audit.answers import find_answers
from etude.audit.belonging import find_shuffled
from etude.audit.copies import find_contamination, find_duplicates
from etude.audit.lengths import find_cut
from etude.audit.marks import find_marks
from etude.audit.near import find_near_duplicates
from etude.audit.overlaps import find_overlaps
from etude.audit.samples import DECODED, choose_samples
from etude.data.samples.sample import NO_TARGET, Flags, Sample
from etude.objectives.task import Task
from etude.records.events import Finding
from etude.text import one_line, plural, verb

LOOKED_AT = 256
_RUN = 8  # tokens in a row
_HARDLY, _FEW, _SOME, _MANY = 0.01, 0.05, 0.2, 0.5
# Marks of padding, that of SentencePiece for the unknown token, and NUL, which stands in no text.
_PADDING = re.compile(r"(?:(?:<pad>|<\|pad\|>|\[PAD\]|<unk>|<\|endoftext\|>|</s>|\u2047)\s*){4,}|\0{8,}")


def find_in_rows(task: Task) -> Iterator[Finding]:
    """Faults of evenly spaced training samples of a task."""
    yield from find_contamination(task)
    copies = list(find_duplicates(task)) or list(find_near_duplicates(task)) or list(find_overlaps(task))
    yield from copies
    yield from _find_unknown(task)
    found = list(_find_in_samples(task))
    yield from found
    if all(each.severity == "info" for each in found):  # what changes rows changes what their words tell
        yield from find_shuffled(task)


def _find_in_samples(task: Task) -> Iterator[Finding]:
    samples = choose_samples(task.corpus.train, LOOKED_AT)
    if samples and samples[0].classes is None:
        checks: list[Callable[[Sequence[Sample], Task], Iterator[Finding]]] = [
            _find_empty, _find_shift, _find_padding, _find_no_end,
        ]  # fmt: skip
        for check in checks:
            yield from check(samples, task)
    yield from find_cut(task)
    yield from find_marks(samples, task)
    yield from find_answers(task.corpus)


def _find_unknown(task: Task) -> Iterator[Finding]:
    share = float(task.corpus.summary.get("unknown_ratio", 0.0))
    if share > _FEW:
        yield _finding(
            "unknown_tokens", "the tokenizer does not know the text",
            f"{share:.0%} of all tokens are its token for unknown text, {task.corpus.tokenizer.unk_id}",
            "take a model or a tokenizer that knows this language, or one that spells unknown text in bytes: "
            "what stands behind these tokens cannot be learnt or written",
            causes=["text in a language or an encoding that the tokenizer was not made for",
                    "texts that hold the mark of the unknown token as padding"],
        )  # fmt: skip


def _scored(sample: Sample) -> Flags:
    is_target: Flags = sample.labels != NO_TARGET
    return is_target if sample.weights is None else is_target & (sample.weights > 0)


def _find_empty(samples: Sequence[Sample], task: Task) -> Iterator[Finding]:
    empty = [not _scored(sample).any() for sample in samples]
    if sum(empty) > _FEW * len(samples):
        yield _finding(
            "rows_without_targets", "rows have nothing to score",
            f"{sum(empty):,} of {plural(len(samples), 'sample')} "
            f"{verb(sum(empty), 'have')} no target that counts",
            "give these rows answers, raise train.seq_len so that answers fit, or weigh more kinds of token",
            causes=["answers cut away or empty", "loss.token_weights of 0 for all that a row holds"],
            severity="error" if all(empty) else "warning",
        )  # fmt: skip


def _find_shift(samples: Sequence[Sample], task: Task) -> Iterator[Finding]:
    """Labels of the next token stand where that token is read one place later."""
    kind = task.recipe.kind
    if not kind.writes_text or kind.model != "decoder":
        return
    pairs = [(each.labels[:-1], each.tokens[1:], each.tokens[:-1]) for each in samples]
    labels, following, read = (np.concatenate(parts) for parts in zip(*pairs))
    is_target = labels != NO_TARGET
    right = (labels == following)[is_target]
    if is_target.any() and not right.all():
        copied = (labels == read)[is_target].mean()
        yield _finding(
            "labels_not_shifted" if copied > 1 - _FEW else "labels_misplaced",
            "the targets are not the tokens that follow",
            f"{right.mean():.1%} of {is_target.sum():,} targets are the next token, {copied:.1%} the token "
            "itself",
            "run etude prepare RECIPE --again; if it stays so, report this",
            causes=["prepared data that is damaged"], severity="error",
        )  # fmt: skip


def _find_padding(samples: Sequence[Sample], task: Task) -> Iterator[Finding]:
    if task.recipe.kind.hides_tokens:  # which special tokens never are
        return
    tokenizer, ends = task.corpus.tokenizer, set(task.corpus.end_ids)
    special = {*tokenizer.special_ids, *ends}
    blank: dict[int, bool] = {}

    def is_blank(token: int) -> bool:
        if token not in blank:
            blank[token] = token in special or not tokenizer.decode([token], skip_special=False).strip()
        return blank[token]

    padded = total = spelled = 0
    for sample in samples:
        targets = sample.labels[_scored(sample)]
        total += len(targets)
        if not len(targets):
            continue
        run = next((place for place, token in enumerate(targets[::-1]) if not is_blank(token)), 0)
        is_pad = tokenizer.pad_id is not None and tokenizer.pad_id not in ends
        plain = int((targets == tokenizer.pad_id).sum()) if is_pad else 0
        padded += max(plain, run if run >= _RUN else 0)
    some = samples[:: max(len(samples) // DECODED, 1)]
    for sample in some:
        text = tokenizer.decode(sample.labels[_scored(sample)].tolist(), skip_special=False)
        spelled += bool(_PADDING.search(text))
    if padded > _FEW * total or spelled > _FEW * len(some):
        share = f"{padded / max(total, 1):.0%} of the targets are padding"
        text = f"{spelled:,} of {plural(len(some), 'sample')} {verb(spelled, 'hold')} padding as text"
        yield _finding(
            "padding_scored", "padding is scored", share if padded > _FEW * total else text,
            "take the padding out of the rows: samples of any length lie end to end here, and need none",
            causes=["rows that were padded before they were written"],
        )  # fmt: skip


def _find_no_end(samples: Sequence[Sample], task: Task) -> Iterator[Finding]:
    """Answers and documents that are a sample each end, or a model never learns to stop."""
    corpus, recipe = task.corpus, task.recipe
    is_whole = len(corpus.train) == len(corpus.train.spans.starts)
    if not recipe.kind.writes_text or not is_whole or len(samples) < 4:
        return
    ends = np.array([*corpus.end_ids, corpus.tokenizer.eos_id])
    cut, count = corpus.train.spans.truncated, len(corpus.train)
    have = sum(np.isin(sample.labels[_scored(sample)], ends).any() for sample in samples)
    is_decoder = recipe.kind.model == "decoder"  # targets of pairs keep their end when they are cut
    if have and not (is_decoder and count - cut < _HARDLY * count):
        return
    name, is_cut = one_line(corpus.tokenizer.eos_token, 40), cut > _MANY * count
    advice = "raise train.seq_len" if is_cut else "end answers with the end token in the chat template"
    yield _finding(
        "end_never_scored", f"the end of an answer is {'hardly ever' if have else 'never'} a target",
        f"{have or 'none'} of {plural(len(samples), 'sample')} has {name} among its targets; "
        f"{cut:,} of {count:,} are cut",
        f"{advice}: a model that never sees an end does not learn to stop",
        causes=["samples that are cut before their end"] if is_cut else ["a template without an end token"],
        changes={"train.seq_len": 2 * recipe.train.seq_len} if is_cut else {},
    )  # fmt: skip


def _finding(
    kind: str, what: str, evidence: str, advice: str, *, causes: list[str], severity: str = "warning",
    changes: dict[str, object] | None = None, confidence: float = 1.0,
) -> Finding:  # fmt: skip
    return Finding(
        0, what, evidence, advice, severity=severity, window=[0, 0], causes=causes, changes=changes or {},
        kind=kind, confidence=confidence, decided_by="the prepared samples",
    )  # fmt: skip
