"""Calls of native tokenizers, which may refuse a text, or never come back from it."""

import threading
import time
from collections.abc import Callable
from typing import Any

from etude.errors import InputError

# Of the processor. The slowest tokenizer we know reads 300 kB a second on one core.
_SECONDS, _SECONDS_A_MEGABYTE = 60.0, 20.0
_MOST_GROWTH = 64  # tokens for each byte of a text


def encode_in_time(encode: Callable[..., list[Any]], texts: list[Any], **settings: Any) -> list[Any]:
    """The encodings of texts, or of pairs of texts, by a function of the native library.

    Raises: InputError that names the text which the tokenizer cannot read, takes too long for, or makes far
    too many tokens of.
    """
    try:
        encodings = _call_in_time(lambda: encode(texts, **settings), list(map(_whole, texts)))
    except BaseException as error:
        if isinstance(error, TypeError) and (torn := next(filter(_is_torn, texts), None)):
            raise InputError(
                f"the text that begins {str(torn)[:60]!r} holds half of a surrogate pair; mend it"
            ) from None
        if not _is_native(error):
            raise
        refusals = filter(None, (_refusal(encode, text, settings) for text in texts))
        text, reason = next(refusals, ("", str(error)))
        raise InputError(
            f"the tokenizer cannot read the text that begins {text[:60]!r} "
            f"({' '.join(reason.split())[:100]}); use a tokenizer that has a token for it"
        ) from None
    for text, encoding in zip(map(_whole, texts), encodings):
        most = len(encoding) / _MOST_GROWTH - 1
        if most > len(text) and most > len(text.encode()):
            raise InputError(
                f"the tokenizer makes {len(encoding):,} tokens of the text that begins {text[:60]!r}; "
                "it may be broken or hostile: use another one"
            )
    return encodings


def _call_in_time(call: Callable[[], list[Any]], texts: list[str]) -> list[Any]:
    """Call native code for texts in a thread; it releases the interpreter.

    A pattern can take milliseconds for each place of a text, which adds up to hours, and cannot be stopped
    from within this process: its thread runs on until the process ends.

    Raises: what the call raises; InputError if it takes longer than any honest tokenizer.
    """
    made: list[list[Any]] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            made.append(call())
        except BaseException as error:  # a panic of native code is no Exception
            failed.append(error)

    size = sum(map(len, texts))
    seconds = _SECONDS + _SECONDS_A_MEGABYTE * size / 1e6
    thread, started = threading.Thread(target=work, daemon=True), time.process_time()
    thread.start()
    thread.join(seconds)
    while thread.is_alive():
        # A process that was stopped, or shares its cores, has only waited.
        if time.process_time() - started > seconds:
            raise InputError(
                f"the tokenizer takes over {seconds:.0f} s of the processor for {size:,} characters of text "
                f"that begin {next(iter(texts), '')[:60]!r}; its pattern may be broken or hostile: use "
                "another one"
            )
        thread.join(1.0)
    if failed:
        raise failed[0]
    return made[0]


def _whole(text: Any) -> str:
    """A text, or both of a pair."""
    return text if isinstance(text, str) else "".join(text)


def _is_torn(text: Any) -> bool:
    """True for half of a surrogate pair, which is no text."""
    return any("\ud800" <= sign <= "\udfff" for sign in _whole(text))


def _refusal(encode: Callable[..., list[Any]], text: Any, settings: dict[str, Any]) -> tuple[str, str] | None:
    try:
        encode([text], **settings)
    except BaseException as error:
        if not _is_native(error):
            raise
        return text if isinstance(text, str) else " ".join(text), str(error)
    return None


def _is_native(error: BaseException) -> bool:
    """True for errors of the library: nothing more precise than Exception, or a panic of its code."""
    return type(error) is Exception or type(error).__name__ == "PanicException"
