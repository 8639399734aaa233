"""A byte-level BPE suited to code, trained on documents."""

from collections.abc import Iterable

from etude.data.tokenize import TRAINED_EOS, TRAINED_MASKS, Tokenizer

# Words with the sign before them (so `self._name` splits at the dot and the underscore), digits by threes,
# signs with the line end and the indentation that follow, blank lines with the indentation that follows.
# Measured on held-out standard library, vocabulary 4,096, bytes a token: this 4.02; line ends apart from
# signs 3.83; the pattern of Qwen2 with digits by threes 3.77; of GPT-2 3.69. Whole identifiers give 4.03,
# which is no gain.
_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+(?:(?:[ \t]*\r?\n)+[ \t]*)?"
    r"|(?:[ \t]*\r?\n)+[ \t]*|[ \t]+(?!\S)|\s+"
)


def train_tokenizer(documents: Iterable[str], vocab_size: int, *, is_masked: bool = False) -> Tokenizer:
    """Train a tokenizer, with a mask token if `is_masked`; the same documents give the same.

    Any text comes back unchanged from its ids. A small text gives fewer tokens than `vocab_size`; id 0 ends a
    document.
    """
    from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Inner

    inner = Inner(models.BPE())
    split = pre_tokenizers.Split(Regex(_PATTERN), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[TRAINED_EOS, *(TRAINED_MASKS.values() if is_masked else ())],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(documents, trainer)
    return Tokenizer(inner.to_str(), TRAINED_EOS)
