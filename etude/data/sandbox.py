"""The program that renders chat templates, which come with models and are foreign code.

They run in a process of their own that can be killed, in Jinja's sandbox, and that within a room of the
kernel's: with little memory, and no way to files, network or other processes where the kernel is Linux with
Landlock and seccomp; elsewhere with little memory and no way to write files.

stdin: a line of JSON with the template, its variables and how long a conversation may take; then a line for
each conversation. stdout: a line of JSON for each of them. `renderer.py` is the other end.
"""

import functools
import json
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from etude.confine.room import Room, enter_strongest
from etude.data.turns import GENERATION

_MEMORY_BYTES = 1 << 30


def main() -> None:
    """Answer until stdin ends."""
    # The first `strptime` of a process reads files; so does the first date.
    datetime.now().strftime("%d %b %Y")
    enter_strongest(Room(cpu_seconds=None, memory_bytes=_MEMORY_BYTES))
    first = json.loads(sys.stdin.readline())
    render = _prepare(first["template"], first["variables"], first["today"])
    for line in sys.stdin:
        # Nobody catches this signal: it ends the process wherever it is, also if nobody waits any more.
        signal.setitimer(signal.ITIMER_REAL, first["limit_seconds"])
        answer = render(json.loads(line))
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _prepare(
    source: str, variables: dict[str, str], today: str | None
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function that renders a conversation, or says why the template cannot.

    It answers with the text of the first part, and of each other part with the number of characters that it
    shares with the first, and the rest. A template has the surroundings that transformers gives it, but that
    `today` (YYYY-MM-DD) stands in for the clock.
    """

    def now(form: str) -> str:
        return (datetime.fromisoformat(today) if today else datetime.now()).strftime(form)

    extensions = [_Generation, loopcontrols]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _raise, "strftime_now": now}

    @functools.cache
    def compiled() -> Template:
        return environment.from_string(source)

    def render(conversation: dict[str, Any]) -> dict[str, Any]:
        def text(count: int | None, prompt: bool) -> str:
            messages = conversation["messages"][:count]
            given = {"messages": messages, "add_generation_prompt": prompt, "tools": None, "documents": None}
            return compiled().render(**given, **variables)

        try:
            first, *others = conversation["parts"]
            whole = text(*first)
            return {"text": whole, "parts": [_compare(whole, text(*other)) for other in others]}
        except Exception as error:  # whatever foreign code raises
            return {"error": f"{type(error).__name__}: {error}"[:500]}

    return render


def _compare(whole: str, text: str) -> tuple[int, str]:
    if whole.startswith(text):
        return len(text), ""
    shared = next((place for place, (a, b) in enumerate(zip(whole, text)) if a != b), len(whole))
    return shared, text[shared:]


class _Generation(Extension):
    """`{% generation %} ... {% endgeneration %}`: what the model is to learn."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own interface

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Macro) -> str:
        return GENERATION[0] + caller() + GENERATION[1]


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


if __name__ == "__main__":
    main()
