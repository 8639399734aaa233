"""The notifier of a run: it takes the records, and threads of its own send messages while the run goes on."""

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from etude.errors import EtudeError
from etude.notify.channel import open_channels
from etude.notify.compose import Composer
from etude.notify.message import Message
from etude.notify.outbox import FILE, Outbox
from etude.notify.outcome import Channel, Outcome
from etude.notify.quota import Quota
from etude.recipe.notify import Notify
from etude.records.events import SEVERITIES, Event
from etude.records.journal import Reader
from etude.records.ledger import Ledger
from etude.records.store import Run, RunWriter
from etude.text import one_line, plural

END_SECONDS = 10.0  # for what is under way at the end of a process
_MOST_WAITING = 64
_KEY_SECONDS = 24 * 3600.0  # LINE knows a retry key so long; a later try could be a second message
_DIGEST_SECONDS = 24 * 3600.0
_MOST_IN_DIGEST = 40
_DIGEST = "digest "  # the cause of a message of those that were held


@dataclass(frozen=True)
class Pace:
    """The tries of one message: how many, and the pause after the first, which doubles up to the longest."""

    tries: int = 8
    pause: float = 1.0
    longest: float = 60.0


class Notifier:
    """A tracker that tells people of a run through its channels.

    It never fails and never waits but at its end: 10 seconds for what is under way.
    """

    def __init__(
        self, run: Run, ledger: Ledger, settings: list[Notify], channels: list[Channel],
        warn: Callable[[str], None], *, pace: Pace = Pace(),
    ) -> None:  # fmt: skip
        """Raises: InputError or StorageError if the outbox cannot be written."""
        self.composer = Composer(run, ledger)
        self._outbox, self._warn = Outbox(run.path / FILE), warn
        self._senders = [
            Sender(each, channel, self._outbox, warn, pace) for each, channel in zip(settings, channels)
        ]
        for entry in self._outbox.entries.values():
            for sender in self._senders:
                sender.take_over(entry.message, *entry.states.get(sender.name, ("", "")))

    def write(self, event: Event) -> None:
        for message in self.composer.take(event):
            self.tell(message)

    def tell(self, message: Message) -> None:
        """Give a message to the channels that want it, once a cause."""
        senders = [each for each in self._senders if each.wants(message)]
        try:
            if not senders or not self._outbox.add(message, [each.name for each in senders]):
                return
        except (EtudeError, OSError) as error:
            self._warn(f"a message is sent, but cannot be written down: {error}")
        for sender in senders:
            sender.put(message)

    def close(self, seconds: float | None = None) -> None:
        """Send what is left, for a limited time; what is not sent then stays so in the outbox."""
        deadline = time.monotonic() + (END_SECONDS if seconds is None else seconds)
        for sender in self._senders:
            sender.finish(deadline)
        for sender in self._senders:
            sender.wait(deadline)
        self._outbox.close()


def open_notifier(settings: list[Notify], writer: RunWriter, reader: Reader) -> None:
    """Let the channels of a recipe follow a run; a failure is named, and the run goes on without them."""
    if not settings:
        return
    try:
        channels = open_channels(settings)
        writer.trackers.append(Notifier(writer.run, reader.read(), settings, channels, writer.warn))
    except (EtudeError, OSError) as error:
        writer.warn(f"nothing is told of this run: {error}")


class Sender:
    """One channel with a thread of its own, which sends what matters most first."""

    def __init__(
        self, settings: Notify, channel: Channel, outbox: Outbox, warn: Callable[[str], None], pace: Pace
    ) -> None:
        self.name = settings.title
        self._settings, self._channel, self._outbox, self._warn = settings, channel, outbox, warn
        self._pace = pace
        self._quota = Quota(channel.identity, settings.per_day, settings.per_month)
        self._waiting: list[Message] = []
        self._held: list[Message] = []
        self._current: Message | None = None
        self._off = ""
        self._digested = time.monotonic()
        self._deadline: float | None = None
        self._is_given_up = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"notify {self.name}", daemon=True)
        self._thread.start()

    def wants(self, message: Message) -> bool:
        """True if the channel is set up to send messages of this kind and severity."""
        least = SEVERITIES.index(self._settings.severity)
        is_enough = message.kind != "finding" or SEVERITIES.index(message.severity) <= least
        return message.kind in self._settings.on and is_enough

    def take_over(self, message: Message, state: str, why: str) -> None:
        """Take over a message of an earlier process, if it matters and its retry key is still known."""
        if time.time() - message.time > _KEY_SECONDS:
            return
        if state == "held" and not message.cause.startswith(_DIGEST):
            with self._news:
                self._held.append(message)
        elif state in ("held", "not sent") and message.rank < 3:
            self.put(message)

    def put(self, message: Message) -> None:
        """Let a message wait for its turn; of too many, the one that matters least is left out."""
        with self._news:
            self._waiting.append(message)
            left_out = None
            if len(self._waiting) > _MOST_WAITING:
                left_out = max(self._waiting, key=lambda each: (each.rank, each.time))
                self._waiting.remove(left_out)
            self._news.notify()
        if left_out is not None:
            self._note(left_out, "not sent", f"{_MOST_WAITING} others were waiting")

    def finish(self, deadline: float) -> None:
        """Send what is left until a moment of the monotonic clock, and end."""
        with self._news:
            self._deadline = deadline
            self._news.notify()

    def wait(self, deadline: float) -> None:
        """Wait for that end; what is not sent by then is noted so."""
        self._thread.join(max(deadline - time.monotonic(), 0))
        with self._news:
            self._is_given_up = True
            left = [*self._waiting, *([self._current] if self._current else [])]
            self._waiting = []
            self._news.notify()
        for message in left:
            self._outbox.note(message, self.name, "not sent", "the process ended before it went through")

    def _run(self) -> None:
        while (message := self._next()) is not None:
            try:
                self._send(message)
            except Exception as error:  # of a package such as apprise: anything
                self._note(message, "not sent", f"{type(error).__name__}: {one_line(error, 100)}")
            with self._news:
                self._current = None

    def _next(self) -> Message | None:
        """The message that matters most, once there is one; at the end and each day, those held in one."""
        with self._news:
            while not self._waiting:
                age = time.monotonic() - self._digested
                is_ending = self._deadline is not None
                if self._held and not self._off and (is_ending or age > _DIGEST_SECONDS):
                    self._digested = time.monotonic()
                    self._current = self._digest()
                    return self._current
                if is_ending:
                    return None
                self._news.wait(max(_DIGEST_SECONDS - age, 1.0) if self._held else None)
            self._current = min(self._waiting, key=lambda each: (each.rank, each.time))
            self._waiting.remove(self._current)
            return self._current

    def _digest(self) -> Message:
        held, self._held = self._held, []
        shown = [one_line(each.title, 100) for each in held[-_MOST_IN_DIGEST:]]
        more = [f"and {len(held) - len(shown):,} more"] if len(held) > len(shown) else []
        first = held[0]
        message = Message(
            kind="finished", severity="info", cause=f"{_DIGEST}{held[-1].id}", run=first.run,
            step=held[-1].step, title=f"{first.run}: {plural(len(held), 'message')} in one",
            text="\n".join([*shown, *more]), commands=held[-1].commands,
        )  # fmt: skip
        self._outbox.add(message, [self.name])
        for each in held:
            self._note(each, "joined", f"in message {message.id}")
        return message

    def _send(self, message: Message) -> None:
        if self._off:
            return self._note(message, "not sent", self._off)
        if why := self._quota.take(message.rank, self._channel.room()):
            return self._hold(message, why)
        key, pause = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{message.id} {self.name}")), self._pace.pause
        for tries in range(1, self._pace.tries + 1):
            outcome = self._channel.send(message, key)
            if outcome.state != "later":
                return self._settle(message, outcome, tries)
            self._note(message, "not sent", f"{outcome.why}; it is tried again", tries)
            if not self._pause(max(pause, outcome.pause_seconds)):
                break
            pause = min(pause * 2, self._pace.longest)
        self._settle(message, outcome, tries)
        return None

    def _pause(self, seconds: float) -> bool:
        """Wait before another try; False if the process ends before."""
        until = time.monotonic() + seconds
        with self._news:
            while not self._is_given_up:
                if self._deadline is not None:  # the last try is a second before it
                    until = min(until, self._deadline - 1)
                if (left := until - time.monotonic()) <= 0:
                    return self._deadline is None or time.monotonic() < self._deadline
                self._news.wait(left)
        return False

    def _settle(self, message: Message, outcome: Outcome, tries: int) -> None:
        if outcome.state == "held":
            return self._hold(message, outcome.why)
        states = {"sent": "sent", "refused": "refused"}
        self._note(message, states.get(outcome.state, "not sent"), outcome.why, tries)
        if outcome.state == "off":
            self._off = outcome.why
        if outcome.state != "sent":
            self._warn(f"channel {self.name} did not send a message: {outcome.why}; see {FILE} of the run")
        return None

    def _hold(self, message: Message, why: str) -> None:
        self._note(message, "held", why)
        if not message.cause.startswith(_DIGEST):
            with self._news:
                self._held.append(message)

    def _note(self, message: Message, state: str, why: str = "", tries: int = 0) -> None:
        self._outbox.note(message, self.name, state, why, tries)
