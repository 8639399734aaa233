"""A server as the public client sees it, and as those that mean no good do."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from etude.cli.generate import Sampling, generate_texts
from tests.bases import write_qwen2
from tests.processes import wait_for
from tests.serve.serving import Served, serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen2(tmp_path_factory.mktemp("qwen2"))


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with serving(folder) as found:
        yield found
    assert not found.faults


def test_a_hundred_clients_at_once_get_what_generate_gives(served: Served, folder: Path) -> None:
    prompts = [f"total = {at} + value\nprint(" for at in range(100)]
    texts = generate_texts(str(folder), prompts, Sampling(max_tokens=12, temperature=0.0), runs=folder)
    client = served.client()

    def ask(prompt: str) -> str:
        values = {"model": served.name, "prompt": prompt, "max_tokens": 12, "temperature": 0}
        return str(client.completions.create(**values).choices[0].text)

    with ThreadPoolExecutor(100) as pool:
        assert list(pool.map(ask, prompts)) == [each["text"] for each in texts]


def test_a_chat_answers_through_the_template_whole_and_as_a_stream(served: Served, folder: Path) -> None:
    sampling = Sampling(max_tokens=20, temperature=0.0)
    (expected,) = generate_texts(str(folder), ["Add 3 to value."], sampling, runs=folder, is_instruction=True)
    client, turns = served.client(), [{"role": "user", "content": "Add 3 to value."}]
    values = {"model": served.name, "messages": turns, "max_tokens": 20, "temperature": 0}
    whole = client.chat.completions.create(**values)
    assert whole.choices[0].message.content == expected["text"]
    assert whole.usage.completion_tokens == expected["tokens"]
    assert whole.choices[0].finish_reason == ("stop" if expected["stopped"] else "length")
    parts = list(
        client.chat.completions.create(**values, stream=True, stream_options={"include_usage": True})
    )
    assert "".join(part.choices[0].delta.content or "" for part in parts[:-1]) == expected["text"]
    assert parts[-1].usage.total_tokens == whole.usage.total_tokens


def test_choices_follow_the_seed_and_stop_sequences_end_them(served: Served) -> None:
    client, values = served.client(), {"model": served.name, "prompt": "total", "max_tokens": 24}
    drawn = client.completions.create(**values, n=3, seed=5).choices
    again = client.completions.create(**values, n=3, seed=5).choices
    assert [each.text for each in drawn] == [each.text for each in again]
    assert len({each.text for each in drawn}) == 3
    stop = drawn[0].text[5:8]
    cut = client.completions.create(**values, seed=5, stop=[stop]).choices[0]
    assert cut.text == drawn[0].text.split(stop)[0] and cut.finish_reason == "stop"
    assert client.models.list().data[0].id == served.name


def test_errors_are_of_the_kinds_that_the_client_knows(served: Served) -> None:
    client, values = served.client(), {"model": served.name, "prompt": "total"}
    with pytest.raises(openai.NotFoundError, match="there is no model 'other'"):
        client.completions.create(model="other", prompt="total")
    with pytest.raises(openai.BadRequestError, match="shorten the prompt"):
        client.completions.create(model=served.name, prompt="total " * 300)
    with pytest.raises(openai.BadRequestError, match="has room for"):
        client.completions.create(**values, max_tokens=256)
    with pytest.raises(openai.BadRequestError, match="an id that is no token"):
        client.completions.create(model=served.name, prompt=[999_999])
    stranger = openai.OpenAI(base_url=served.url, api_key="0" * 64, max_retries=0)
    with pytest.raises(openai.AuthenticationError, match="api_key that etude serve printed"):
        stranger.completions.create(**values)


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 10_000, b"\x00\xff", b'{"prompt": {}}'])
def test_a_malformed_body_is_one_line(served: Served, body: bytes) -> None:
    status, answer = served.post("/completions", body)
    assert status == 400 and answer["error"]["type"] == "invalid_request_error"
    assert "\n" not in answer["error"]["message"]


def test_what_is_too_large_or_comes_from_elsewhere_is_refused(served: Served) -> None:
    ask = {"prompt": "total", "max_tokens": 1}
    for headers, status in (
        ({"authorization": "Basic x"}, 401),
        ({"host": "evil.example"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"x-other": "1"}, 200),
    ):
        assert served.post("/completions", ask, **headers)[0] == status
    large = b'{"prompt": "' + b"total " * 200_000 + b'"}'
    assert served.post("/completions", large)[0] == 413
    assert served.post("/completions", large[:1_000_000] + b'"}')[0] == 400  # over the context
    assert served.post("/nowhere", ask)[0] == 404
    assert httpx.get(f"{served.url}/models").status_code == 401


def raw(served: Served, **values: object) -> socket.socket:
    """A client that has asked and reads nothing."""
    body = json.dumps({"prompt": "total", "temperature": 0, **values}).encode()
    client = socket.create_connection(("127.0.0.1", served.port))
    head = f"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {served.token}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body)
    return client


@pytest.mark.parametrize("stream", [True, False])
def test_clients_that_leave_or_do_not_read_stop_no_others(served: Served, stream: bool) -> None:
    left = [raw(served, max_tokens=200, n=8, seed=1, stream=stream) for _ in range(8)]
    slow = raw(served, max_tokens=200, stream=True)
    for each in left:
        each.close()
    status, answer = served.post("/completions", {"prompt": "total", "max_tokens": 3, "temperature": 0})
    assert status == 200 and answer["usage"]["completion_tokens"] <= 3
    wait_for(lambda: served.engine is not None and served.engine.is_idle)
    slow.close()


def test_too_many_that_wait_are_told_to_come_again(folder: Path) -> None:
    with serving(folder, rows=1, waiting=2) as few:
        status, answer = few.post("/completions", {"prompt": "total", "n": 3})
        assert (status, answer["error"]["type"]) == (429, "rate_limit_error")


def test_an_answer_that_takes_too_long_is_an_error_also_in_a_stream(folder: Path) -> None:
    with serving(folder, seconds=0.0) as hurried:
        ask = {"prompt": "total", "max_tokens": 200}
        assert hurried.post("/completions", ask)[0] == 504
        with pytest.raises(openai.APIError, match="took over"):
            list(hurried.client().completions.create(model=hurried.name, **ask, stream=True))


def test_nothing_of_a_request_is_printed(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    served.post("/completions", {"prompt": "canary-4711", "max_tokens": 2})
    served.post("/completions", {"prompt": "canary-4711", "max_tokens": 0})
    assert capfd.readouterr() == ("", "")
