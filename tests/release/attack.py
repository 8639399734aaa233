"""A command that is attacked at any of its calls to a disk, and what its folder has to hold on the way and at last."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.forking import Answer, Server
from tests.release.disk import FAULTS, Call

_SECONDS = 600.0


@dataclass
class Attack:
    """A command that changes `folder/disk`, which at first is as `folder/start`.

    has_part   checks a disk that the command was broken off on
    has_whole  checks a disk on which it ended; False for what may be missing where a disk failed for good
    """

    folder: Path
    words: list[str]
    has_part: Callable[[Path], None]
    has_whole: Callable[[Path, bool], None]
    calls: list[Call] = field(default_factory=list)

    def count(self, server: Server) -> None:
        """Note the calls of the command where nobody disturbs it."""
        self._begin()
        answer = self._run(server, "from tests.release.armed import note; note('disk', 'calls')")
        assert answer.code == 0, answer
        self.calls = [Call.from_json(line) for line in (self.folder / "calls").read_text().splitlines()]
        self.has_whole(self.folder / "disk", True)

    def points(self, fault: str) -> Iterator[int]:
        """The calls that a fault is tried at; of writes of one file in turn the first and the last, but for kills."""
        for at, call in enumerate(self.calls):
            is_taken = call.name == "write" or fault not in ("torn", "short")
            if is_taken and (fault == "kill" or self._is_turn(at)):
                yield at

    def survives(self, server: Server, at: int, fault: str) -> bool:
        """Run the command through a fault, and once more to its end; False if it made fewer calls than that."""
        told, disk = self.folder / "told", self.folder / "disk"
        self._begin()
        told.unlink(missing_ok=True)
        answer = self._run(
            server, f"from tests.release.armed import arm; arm('disk', {at}, {fault!r}, 'told')"
        )
        said = told.read_text() if told.exists() else ""
        try:
            _require_answer(answer, fault if said else "short")
            self.has_part(disk)
            if answer.code:
                again = self._run(server)
                assert again.code == 0, again
            self.has_whole(disk, not (FAULTS[fault].lasting and answer.code == 0))
        except BaseException as error:
            error.add_note(f"{fault} at call {at} of {len(self.calls)}, {said}; answered {answer}")
            raise
        return bool(said)

    def _begin(self) -> None:
        shutil.rmtree(self.folder / "disk", ignore_errors=True)
        shutil.copytree(self.folder / "start", self.folder / "disk", symlinks=True)

    def _run(self, server: Server, first: str = "") -> Answer:
        environment = {"ETUDE_CACHE": str(self.folder / "cache")}
        return server.run(self.folder, self.words, seconds=_SECONDS, first=first, environment=environment)

    def _is_turn(self, at: int) -> bool:
        beside = [self.calls[each] for each in (at - 1, at + 1) if 0 <= each < len(self.calls)]
        mine = self.calls[at].name, self.calls[at].path
        return any((call.name, call.path) != mine for call in beside)


def _require_answer(answer: Answer, fault: str) -> None:
    """Check that a command was killed, or ended well, or said in one line why not."""
    if fault in ("kill", "torn"):
        assert answer.code == -9
        return
    lines = answer.err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert answer.code in ((0,) if fault == "short" else (0, 1))
    assert len(errors) == answer.code and "Traceback" not in answer.err + answer.out
    assert not errors or (errors[0] == lines[-1] and len(errors[0]) < 400)
