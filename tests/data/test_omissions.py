"""Turns, contents and fields that a template does not write are refused or counted; each by hand."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from etude.data.omissions import Judge, Verdict, find_missing
from etude.data.renderer import Renderer
from etude.data.turns import Message
from etude.errors import InputError

# As most published ones: three roles, of which the first message alone may be the system's.
THREE_ROLES = (
    "{% for m in messages %}{% if m.role in ('user', 'assistant') or (m.role == 'system' and loop.first) %}"
    "{{ m.role + ':' + m.content + '|' }}{% endif %}{% endfor %}"
)
STRICT = THREE_ROLES.replace(
    "{% endif %}{% endfor %}", "{% else %}{{ raise_exception('no role') }}{% endif %}{% endfor %}"
)
# As those of Qwen3 and its like do: thoughts of the last answer only, and the name of a tool.
THINKING = (
    "{% for m in messages %}{{ m.role }}{% if m.role == 'tool' and m.name is defined %}{{ m.name }}{% endif %}"
    "{% if loop.last and m.role == 'assistant' and m.thinking is string %}{{ m.thinking }}{% endif %}"
    "{% if m.code is defined and m.code | length != 9 %}{{ raise_exception('nine') }}{% endif %}"
    "{{ m.content }}{% endfor %}"
)


@contextmanager
def judging(template: str) -> Iterator[Judge]:
    renderer = Renderer(template, {}, limit_seconds=20, today=None)
    try:
        yield Judge(renderer)
    finally:
        renderer.close()


def verdict(template: str, *messages: Message) -> Verdict:
    with judging(template) as judge:
        return judge.judge(list(messages), "a.jsonl:1", is_added=False)[1]


def turn(role: str, content: str, **fields: str) -> Message:
    return {"role": role, "content": content, **fields}


HI, HO = turn("user", "Hi"), turn("assistant", "Ho")


def test_a_turn_is_missed_though_its_content_stands_elsewhere() -> None:
    with pytest.raises(InputError, match=r"a.jsonl:1: .* leaves out message 2, of role 'tool'"):
        verdict(THREE_ROLES, HI, turn("tool", "Ho"), HO)
    with pytest.raises(InputError, match=r"leaves out message 3, of role 'system'"):
        verdict(THREE_ROLES, turn("system", "A"), HI, turn("system", "A"), HO)
    without = THREE_ROLES.replace("system", "other")
    with judging(without) as judge, pytest.raises(InputError, match=r"leaves out data.system"):
        judge.judge([turn("system", "A"), HI, HO], "x", is_added=True)


@pytest.mark.parametrize("template", [THREE_ROLES, STRICT])
def test_a_developer_turn_becomes_a_system_turn_where_that_is_written(template: str) -> None:
    with judging(template) as judge:
        messages, found = judge.judge([turn("developer", "Be brief."), HI, HO], "x", is_added=False)
    assert [message["role"] for message in messages] == ["system", "user", "assistant"] and found.is_mapped
    assert verdict(THREE_ROLES + "{{ 'developer' }}", HI, HO) == Verdict()


@pytest.mark.parametrize(
    "field", ["reasoning_content", "thinking", "reasoning", "refusal", "images", "audio"]
)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_part_of_a_turn_that_the_template_does_not_write_is_refused(field: str, place: int) -> None:
    row = [dict(message) for message in (HI, HO, turn("user", "He"), turn("assistant", "Ha"))]
    row[place][field] = "Ho"  # which stands elsewhere
    with pytest.raises(InputError, match=rf"does not write '{field}' of message {place + 1}, so it"):
        verdict(THREE_ROLES, *row)
    row[place][field] = " "
    assert verdict(THREE_ROLES, *row) == Verdict()


def test_a_field_that_the_end_of_a_conversation_has_is_written_and_changed_elsewhere() -> None:
    row = [HI, turn("assistant", "Ho", thinking="hm")]
    assert verdict(THINKING, *row) == Verdict()
    assert verdict(THINKING, *row, HI, HO) == Verdict(is_changed=True)


def test_other_fields_that_the_template_does_not_write_are_known() -> None:
    tool = turn("tool", "1", name="f", code="123456789", id="i", weight="0")
    assert verdict(THINKING, HI, tool, HO).unread == ("id",)
    assert verdict(THINKING, turn("user", "Hi", name="Bo"), tool, HO).unread == ("name", "id")
    assert verdict(THREE_ROLES, turn("developer", "S", stamp="noon"), HI, HO).unread == ("stamp",)
    many = turn("user", "Hi", **{f"f{number}": "x" for number in range(33)})
    with pytest.raises(InputError, match="33 fields beside role and content, over 32"):
        verdict(THREE_ROLES, many, HO)


def test_a_content_is_found_whatever_its_case_and_blanks() -> None:
    assert find_missing([turn("user", " HI\n"), turn("assistant", "Ho"), turn("user", "")], "hi") == [1]
