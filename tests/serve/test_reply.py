"""The choices of a request as they grow."""

import asyncio
from pathlib import Path

import pytest

from etude.serve.engine import Draw, Engine, Limits
from etude.serve.reply import AnswerError, Reply
from etude.speaker import open_speaker
from tests.bases import write_qwen2


def test_choices_grow_to_their_texts_and_a_stop_sequence_frees_the_row(tmp_path: Path) -> None:
    speaker = open_speaker(str(write_qwen2(tmp_path)), tmp_path)
    engine = Engine(speaker, Limits(), print)

    async def run(stops: list[str]) -> Reply:
        reply = Reply(engine, [([5, 6], Draw(30, (), seed=1)), ([7], Draw(5, (), seed=1))], stops)
        async for _ in reply.grow():
            pass
        return reply

    try:
        whole = asyncio.run(run([]))
        first, second = whole.choices
        assert [first.reason, second.reason, first.tokens, second.tokens] == ["length", "length", 30, 5]
        assert whole.usage(1) | {"prompt_tokens_details": 0} == {
            "prompt_tokens": 3, "completion_tokens": 35, "total_tokens": 38, "prompt_tokens_details": 0,
        }  # fmt: skip
        stop = first.text[4:7]
        cut = asyncio.run(run([stop])).choices[0]
        assert cut.reason == "stop" and cut.text == first.text[: first.text.index(stop)]
    finally:
        engine.close()


def test_an_answer_that_takes_too_long_is_an_error(tmp_path: Path) -> None:
    engine = Engine(open_speaker(str(write_qwen2(tmp_path)), tmp_path), Limits(seconds=0.0), print)

    async def run() -> None:
        async for _ in Reply(engine, [([5], Draw(9, ()))], []).grow():
            pass

    with pytest.raises(AnswerError, match="took over 0 s") as caught:
        asyncio.run(run())
    assert caught.value.status == 504
    engine.close()
