"""The text of an answer, as its tokens come, up to the first of its stop sequences."""

from collections.abc import Sequence

from etude.data.tokenize import ENOUGH_BEFORE, Tokenizer

_UNFINISHED = "\ufffd"


class Pieces:
    """A text that grows by tokens; half a character, or what may begin a stop sequence, is held back.

    Only the last tokens are decoded anew, so that a long text takes no longer for a token than a short one.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = (), before: Sequence[int] = ()) -> None:
        """before: ids of the text that this one goes on from."""
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._ids = list(before[-ENOUGH_BEFORE:])  # since the token before the last piece
        self._shown = len(self._ids)  # of them that are part of the text already
        self._held = ""
        self.is_stopped = False

    def add(self, token: int) -> str:
        """The text that is sure after one more token."""
        self._ids.append(token)
        before, text = self._texts()
        if len(text) <= len(before) or text.endswith(_UNFINISHED):
            return ""
        self._ids, self._shown = self._ids[self._shown :], len(self._ids) - self._shown
        return self._release(text[len(before) :])

    def end(self) -> str:
        """The text that was held back, as no token follows."""
        if self.is_stopped:
            return ""
        before, text = self._texts()
        piece = self._release(text[len(before) :])
        return piece if self.is_stopped else piece + self._held

    def _texts(self) -> tuple[str, str]:
        return self._tokenizer.decode(self._ids[: self._shown]), self._tokenizer.decode(self._ids)

    def _release(self, piece: str) -> str:
        text = self._held + piece
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.is_stopped, self._held = True, ""
            return text[: min(found)]
        most = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - most :]
        return text[: len(text) - most]


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of a text that a stop sequence begins with."""
    lengths = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((length for length in lengths if text.endswith(stop[:length])), 0)
