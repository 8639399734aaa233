"""Requests in the form of OpenAI's, and those that are none."""

import json
from typing import Any

import pytest

from etude.errors import InputError
from etude.serve.asked import ChatAsked, CompletionAsked, read_request


def test_prompts_are_texts_or_ids_one_or_many() -> None:
    for given, count in (("a", 1), (["a", "b"], 2), ([1, 2], 1), ([[1], [2, 3]], 2)):
        asked = read_request(CompletionAsked, json.dumps({"prompt": given}).encode())
        assert len(asked.prompts) == count and asked.length == 16


def test_messages_may_have_parts_and_settings_without_effect_are_taken() -> None:
    content = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    values = {"messages": [{"role": "user", "content": content}], "frequency_penalty": 0, "tools": []}
    asked = read_request(ChatAsked, json.dumps({**values, "stop": "x", "max_completion_tokens": 3}).encode())
    assert [each.turn for each in asked.messages] == [{"role": "user", "content": "ab"}]
    assert (asked.stops, asked.length) == (["x"], 3)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "the body"),
        (b"\xff\xfe", "the body"),
        (b"[]", "the body"),
        (b"[" * 100_000, "the body"),
        (b'{"prompt": "\\ud800"}', "the body"),
        ({}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": []}, "prompt has 0 prompts"),
        ({"prompt": ["a"] * 65}, "prompt has 65 prompts"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": "a", "temperature": -1}, "temperature"),
        (b'{"prompt": "a", "temperature": NaN}', "temperature"),
        ({"prompt": "a", "temperature": "0"}, "temperature"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "n": 17}, "n"),
        ({"prompt": "a", "seed": 2**70}, "seed"),
        ({"prompt": "a", "stop": [""]}, "stop has an empty text"),
        ({"prompt": "a", "logprobs": 5}, "logprobs has no effect"),
        ({"prompt": "a", "max_token": 5}, "'max_token' is no key"),
    ],
)
def test_a_wrong_request_is_refused_by_the_name_of_its_key_in_one_line(body: Any, named: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(InputError) as caught:
        read_request(CompletionAsked, content)
    assert str(caught.value).startswith(named) and "\n" not in str(caught.value)
