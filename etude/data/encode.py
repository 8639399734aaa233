"""From texts and conversations to token ids, each document noted on the way."""

import itertools
from collections.abc import Iterator

import numpy as np

from etude.data.pieces import BATCH_BYTES, cut_text
from etude.data.render import ChatTemplate
from etude.data.samples.sample import Ints
from etude.data.sources import Document
from etude.data.tally import Tally
from etude.data.tokenize import Tokenizer
from etude.data.turns import count_unlearnt

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
    pieces: list[str] = []
    ends: list[bool] = []
    special: list[bool] = []  # of the documents that end
    waiting = 0
    eos = np.array([tokenizer.eos_id])
    opening = [] if not are_examples or tokenizer.bos_id is None else [np.array([tokenizer.bos_id])]
    is_first, length = True, 0  # of a document, whose pieces may come in several batches

    def flush() -> Ints:
        nonlocal is_first, length
        parts: list[Ints] = []
        for ids, end in zip(tokenizer.encode_batch(pieces), ends):
            new = [*(opening if is_first else []), ids, *([eos] if end else [])]
            parts += new
            length += sum(map(len, new))
            if end:
                tally.add(length, [(0, length)] if are_examples else [], has_special=special.pop(0))
                length = 0
            is_first = end
        return np.concatenate(parts)

    for document in documents:
        special.append(tally.find_special([document.text], tokenizer))
        for piece, end in cut_text(document.text, tokenizer, name=document.name):
            size = len(piece.encode())
            if pieces and waiting + size > BATCH_BYTES:
                yield flush()
                pieces, ends, waiting = [], [], 0
            pieces.append(piece)
            ends.append(end)
            waiting += size
    if pieces:
        yield flush()


def batch_documents(
    documents: Iterator[Document], characters_each: int = CONVERSATION_CHARACTERS
) -> Iterator[list[Document]]:
    """Documents in batches that end when they have so many characters."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.content)
        if characters >= characters_each:
            yield batch
            batch, characters = [], 0
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
            tally.within.update(
                *(specials.intersection(each.ids[begin : end - 1]) for begin, end in each.answers)
            )
            counts["special_tokens_read_as_text"] += each.has_special
            counts["answers_apart_from_prompts"] += each.is_parted
            counts["without_bos"] += tokenizer.bos_id is not None and each.ids[0] != tokenizer.bos_id
            counts["developer_read_as_system"] += verdict.is_mapped
            counts["content_changed_by_template"] += verdict.is_changed
        yield np.array(list(itertools.chain.from_iterable(each.ids for each in encoded)), dtype=np.int64)
