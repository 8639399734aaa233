"""The program that renders chat templates: what transformers renders, within limits, in a process of its own."""

import json
import signal
import subprocess
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from etude.data.turns import GENERATION
from etude.processes import python_command, python_environment

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1 < 2?"},
    {"role": "assistant", "content": "  yes\n"},
]
TEMPLATE = """
{%- for message in messages %}
    {%- if message.role == 'tool' %}{% continue %}{% endif %}
    {{- bos_token if loop.first }}<{{ message.role }}>{{ message | tojson }}
    {{- '\\n' }}{% generation %}{{ message.content | trim }}{% endgeneration %}
{%- endfor %}
{%- if add_generation_prompt %}<assistant>{% endif %}"""


def ask(template: str, *requests: Any, **more: Any) -> tuple[list[dict[str, Any]], int]:
    """The answers of the program, and how it ended."""
    first = {
        "template": template,
        "variables": {"bos_token": "<s>"},
        "today": None,
        "limit_seconds": 5,
        **more,
    }
    done = subprocess.run(
        python_command("etude.data.sandbox"), env=python_environment(), capture_output=True, text=True, check=False,
        input="".join(json.dumps(line) + "\n" for line in (first, *requests)),
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()], done.returncode


def request(*parts: tuple[int | None, bool]) -> dict[str, Any]:
    return {"messages": MESSAGES, "parts": parts}


@pytest.mark.parametrize("prompt", [False, True])
def test_a_conversation_is_rendered_as_transformers_renders_it(prompt: bool) -> None:
    expected, _ = render_jinja_template(
        [MESSAGES], None, None, TEMPLATE, False, False, prompt, bos_token="<s>"
    )
    (answer,), code = ask(TEMPLATE, request((None, prompt)))
    assert code == 0 and answer["parts"] == []
    assert answer["text"].translate(dict.fromkeys(map(ord, GENERATION))) == expected[0]
    marked = f"{GENERATION[0]}yes{GENERATION[1]}"
    assert answer["text"].count(GENERATION[0]) == len(MESSAGES) and marked in answer["text"]


def test_parts_are_told_by_where_they_leave_the_whole() -> None:
    requests = [request((count, prompt)) for count, prompt in ((None, False), (2, True), (1, False))]
    alone = [answer["text"] for answer in ask(TEMPLATE, *requests)[0]]
    (answer,), _ = ask(TEMPLATE, request((None, False), (2, True), (1, False)))
    assert [answer["text"][:shared] + rest for shared, rest in answer["parts"]] == alone[1:]


def test_the_day_is_that_of_the_request() -> None:
    (answer,), _ = ask("{{ strftime_now('%d %B %Y') }}", request((None, False)), today="2024-02-29")
    assert answer["text"] == "29 February 2024"


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{{ raise_exception('no tools') }}", "TemplateError: no tools"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{% for x in %}", "TemplateSyntaxError"),
        ("{{ 'x' * 2000000000 }}", "MemoryError"),
        ("{% include '/etc/passwd' %}", "TypeError: no loader"),
    ],
)
def test_a_template_that_fails_or_reaches_out_is_answered_with_its_error(template: str, error: str) -> None:
    answers, code = ask(template, request((None, False)), request((None, False)))
    assert code == 0 and len(answers) == 2 and all(answer["error"].startswith(error) for answer in answers)


def test_a_template_that_does_not_end_is_killed() -> None:
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    assert ask(endless, request((None, False)), limit_seconds=0.3) == ([], -signal.SIGALRM)
