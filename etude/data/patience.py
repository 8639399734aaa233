"""Native code that never comes back is left alone after a time that no honest tokenizer needs."""

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from etude.errors import InputError

Made = TypeVar("Made")

# Of the processor. The slowest tokenizer we know reads 300 kB a second on one core.
_SECONDS, _SECONDS_A_MEGABYTE = 60.0, 20.0


def read_in_time(read: Callable[[], Made], texts: list[Any]) -> Made:
    """What `read` makes of texts, or pairs of them; it works in a thread, and releases the interpreter.

    A pattern can take milliseconds for each place of a text, which adds up to hours, and cannot be stopped
    from within this process: its thread runs on until the process ends.

    Raises: what `read` raises; InputError if it takes too long.
    """
    made: list[Made] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            made.append(read())
        except BaseException as error:  # a panic of native code is no Exception
            failed.append(error)

    size = sum(len(text) if isinstance(text, str) else sum(map(len, text)) for text in texts)
    seconds = _SECONDS + _SECONDS_A_MEGABYTE * size / 1e6
    thread, started = threading.Thread(target=work, daemon=True), time.process_time()
    thread.start()
    thread.join(seconds)
    while thread.is_alive():
        # A process that was stopped, or shares its cores, has only waited.
        if time.process_time() - started > seconds:
            begins = next((text if isinstance(text, str) else text[0] for text in texts), "")
            raise InputError(
                f"the tokenizer takes over {seconds:.0f} s of the processor for {size:,} characters of text "
                f"that begin {begins[:60]!r}; its pattern may be broken or hostile: use another one"
            )
        thread.join(1.0)
    if failed:
        raise failed[0]
    return made[0]
