"""From texts and conversations to token ids, each document noted on the way."""

import itertools
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from etude.data.pieces import BATCH_BYTES, cut_text
from etude.data.render import ChatTemplate
from etude.data.samples.sample import Ints
from etude.data.sources import Document
from etude.data.tally import Tally
from etude.data.tokenize import Tokenizer
from etude.data.turns import count_unlearnt

Item = TypeVar("Item")

CONVERSATION_CHARACTERS = 1 << 18  # less, as where each token starts takes memory


def encode(
    documents: Iterator[Document], tally: Tally, tokenizer: Tokenizer, *, system: str | None, today: str
) -> Iterator[Ints]:
    """The ids of conversations as the chat template of the tokenizer writes them, and of texts as examples.

    system: message for conversations without one; today: day (YYYY-MM-DD) that a template may write.
    """
    chat = ChatTemplate(tokenizer, tokenizer.chat_template, system=system, today=today)
    try:
        for is_text, group in itertools.groupby(documents, key=lambda document: document.messages is None):
            if is_text:
                yield from encode_texts(group, tally, tokenizer, are_examples=True)
            else:
                yield from _encode_conversations(group, tally, tokenizer, chat)
    finally:
        chat.close()


def encode_texts(
    documents: Iterator[Document], tally: Tally, tokenizer: Tokenizer, *, are_examples: bool = False
) -> Iterator[Ints]:
    """The ids of each text and the end token; an example also begins as the tokenizer begins a text.

    They come in pieces of a few MB of text, whatever the length of a document.
    """
    eos = np.array([tokenizer.eos_id])
    opening = [] if not are_examples or tokenizer.bos_id is None else [np.array([tokenizer.bos_id])]

    def pieces() -> Iterator[tuple[str, bool, bool]]:
        for document in documents:
            has_special = tally.find_special([document.text], tokenizer)
            for piece, is_last in cut_text(document.text, tokenizer, name=document.name):
                yield piece, is_last, has_special

    is_first, length = True, 0  # of a document, whose pieces may come in several batches
    for batch in _batch(pieces(), lambda piece: len(piece[0].encode()), BATCH_BYTES):
        parts: list[Ints] = []
        encoded = tokenizer.encode_batch([piece for piece, *_ in batch])
        for ids, (_, is_last, has_special) in zip(encoded, batch):
            new = [*(opening if is_first else []), ids, *([eos] if is_last else [])]
            parts += new
            length += sum(map(len, new))
            if is_last:
                tally.add(length, [(0, length)] if are_examples else [], has_special=has_special)
                length = 0
            is_first = is_last
        yield np.concatenate(parts)


def batch_documents(
    documents: Iterator[Document], characters_each: int = CONVERSATION_CHARACTERS
) -> Iterator[list[Document]]:
    """Documents in batches of so many characters at most, but for a single document."""
    yield from _batch(documents, lambda document: len(document.content), characters_each)


def _batch(items: Iterator[Item], size: Callable[[Item], int], most: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    total = 0
    for item in items:
        total += (new := size(item))
        if batch and total > most:
            yield batch
            batch, total = [], new
        batch.append(item)
    if batch:
        yield batch


def _encode_conversations(
    documents: Iterator[Document], tally: Tally, tokenizer: Tokenizer, chat: ChatTemplate
) -> Iterator[Ints]:
    specials, counts = frozenset(tokenizer.special_ids), tally.conversations
    for batch in batch_documents(documents):
        conversations = [document.messages or [] for document in batch]
        encoded = chat.encode(conversations, [document.name for document in batch])
        counts["answers_marked_not_to_learn"] += sum(map(count_unlearnt, conversations))
        for each in encoded:
            verdict = each.verdict
            tally.add(len(each.ids), each.answers, has_special=each.has_special, unread=verdict.unread)
            tally.ends |= {each.ids[end - 1] for _, end in each.answers}
            for begin, end in each.answers:
                tally.within |= specials.intersection(each.ids[begin : end - 1])
            counts["special_tokens_read_as_text"] += each.has_special
            counts["answers_apart_from_prompts"] += each.is_parted
            counts["without_bos"] += tokenizer.bos_id is not None and each.ids[0] != tokenizer.bos_id
            counts["developer_read_as_system"] += verdict.is_mapped
            counts["content_changed_by_template"] += verdict.is_changed
        yield np.array(list(itertools.chain.from_iterable(each.ids for each in encoded)), dtype=np.int64)
