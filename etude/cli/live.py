"""stub"""

import sys
from typing import Any

from etude.records.events import Event
from etude.records.trackers import Window, describe


class View:
    def __init__(self) -> None:
        self._window = Window()

    def show_plan(self, plan: Any, run: Any) -> None:
        for name, value in plan.rows():
            print(f"{name}: {value}", file=sys.stderr)

    def write(self, event: Event) -> None:
        if line := describe(event, self._window):
            print(line, file=sys.stderr)

    def close(self) -> None:
        pass


def open_view() -> View:
    return View()
