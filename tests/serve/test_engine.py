"""Answers of an engine, whatever comes beside them, against those of `generate` for one prompt."""

import random
from pathlib import Path
from typing import Any

import pytest

from etude.errors import EtudeError
from etude.evaluate.generate import generate
from etude.serve.engine import BusyError, Draw
from etude.speaker import Speaker, open_speaker
from tests.bases import write_gptj, write_qwen2, write_t5
from tests.serve.serving import collecting


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> Speaker:
    folder = write_qwen2(tmp_path_factory.mktemp("qwen2"))
    return open_speaker(str(folder), folder)


def alone(speaker: Speaker, prompt: list[int], draw: Draw) -> list[int]:
    (found,) = generate(speaker.model, [prompt], **vars(draw), vocab_size=speaker.tokenizer.vocab_size)
    return found.ids


def make_requests(speaker: Speaker, draw: random.Random, count: int) -> list[tuple[list[int], Draw]]:
    """Prompts of which many begin alike, with settings of which half draw."""
    start = [draw.randrange(5, 290) for _ in range(48)]
    requests = []
    for _ in range(count):
        shared = start[: draw.randrange(1, 48)] if draw.random() < 0.6 else []
        prompt = shared + [draw.randrange(5, 290) for _ in range(draw.randrange(1, 50))]
        values: dict[str, Any] = {"seed": draw.randrange(99)}
        if draw.random() < 0.5:
            values |= {"temperature": draw.choice([0.7, 1.5]), "top_k": draw.choice([None, 20])}
            values["top_p"] = draw.choice([None, 0.9])
        requests.append((prompt, Draw(draw.randrange(1, 40), speaker.end_ids, **values)))
    return requests


@pytest.mark.parametrize("seed", range(2))
def test_answers_have_the_tokens_of_generate_in_any_order_of_arrival(qwen2: Speaker, seed: int) -> None:
    draw = random.Random(seed)
    requests = make_requests(qwen2, draw, 24)
    with collecting(qwen2, rows=3 + 5 * seed) as engine:
        answers = []
        waited = 0
        for request in requests:
            answers.append(engine.ask(*request))
            if draw.random() < 0.3:  # one has ended, and others are being written
                engine.wait()
                waited += 1
        engine.wait(len(requests) - waited)
        found = [engine.tokens.get(answer, []) for answer in answers]
        assert sum(answer.shared for answer in answers) > 100
    assert found == [alone(qwen2, *request) for request in requests]


@pytest.mark.parametrize("write", [write_gptj, write_t5])
def test_models_without_rows_that_join_answer_side_by_side_all_the_same(write: Any, tmp_path: Path) -> None:
    write(tmp_path)
    speaker = open_speaker(str(tmp_path), tmp_path)
    requests = make_requests(speaker, random.Random(1), 6)
    with collecting(speaker, rows=4) as engine:
        answers = [engine.ask(*request) for request in requests]
        engine.wait(len(requests))
        assert [engine.tokens.get(each, []) for each in answers] == [
            alone(speaker, *each) for each in requests
        ]


def test_what_is_dropped_frees_its_row_and_leaves_the_others_as_they_are(qwen2: Speaker) -> None:
    requests = [([9, 8, 7 + at], Draw(40, ())) for at in range(4)]
    with collecting(qwen2, rows=2) as engine:
        answers = [engine.ask(*request) for request in requests]
        engine.engine.drop(answers[:1] + answers[2:3])
        engine.wait(4)
        assert engine.engine.is_idle
        for at in (1, 3):
            assert engine.tokens[answers[at]] == alone(qwen2, *requests[at])
            assert engine.ends[answers[at]].reason == "length"


def test_too_many_that_wait_are_refused_and_too_long_ones_end(qwen2: Speaker) -> None:
    with collecting(qwen2, rows=1, waiting=2, seconds=0.0) as engine:
        with pytest.raises(BusyError, match="try again later"):
            engine.engine.ask([([5], Draw(200, ()))] * 3, lambda answer, event: None)
        answer = engine.ask([5], Draw(200, ()))
        engine.wait()
        assert engine.ends[answer].reason == "time" and "over 0 s" in engine.ends[answer].text
    assert issubclass(BusyError, EtudeError)
