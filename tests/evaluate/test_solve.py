"""Programs for exercises are drawn by seed, step and exercise, whatever else is drawn."""

from pathlib import Path

import pytest
import torch

from etude.errors import InputError
from etude.evaluate.execute import Exercise
from etude.evaluate.sandbox import Problem
from etude.evaluate.solve import encode_exercises, require_room, write_programs
from etude.export import load_model, open_chat
from etude.report.judged import Sampled
from tests.bases import write_qwen2

_EXERCISES = [
    Exercise(name=f"p{n}", prompt=f"x{n} = {n}\n" * (n + 1), asked=f"set x{n}", problem=Problem(tests=f"assert x{n} == {n}"))
    for n in range(3)
]  # fmt: skip


def test_an_exercise_alone_is_solved_as_among_others(tmp_path: Path) -> None:
    base = write_qwen2(tmp_path / "base")
    model, chat = load_model(base, dtype=torch.float32), open_chat(base)

    def write(some: list[Exercise], sampled: Sampled, step: int = 0) -> list[list[str]]:
        return write_programs(model, chat.tokenizer, chat, some, sampled, end_ids=[0], step=step)

    for sampled in (Sampled(samples=1, temperature=0.0, max_tokens=5), Sampled(samples=18, max_tokens=5)):
        whole = write(_EXERCISES, sampled)
        assert write(_EXERCISES[::2], sampled) == whole[::2]
        assert [len(each) for each in whole] == [sampled.samples] * 3
        assert all(text.startswith(each.prompt) for each, texts in zip(_EXERCISES, whole) for text in texts)
    assert len({*whole[0]}) > 1 and whole != write(_EXERCISES, sampled, step=1)


def test_an_exercise_without_room_is_named(tmp_path: Path) -> None:
    chat = open_chat(write_qwen2(tmp_path / "base"))
    prompts = encode_exercises(_EXERCISES, chat.tokenizer, None)
    with pytest.raises(InputError, match="p2 has"):
        require_room(_EXERCISES, prompts, max(map(len, prompts)))
    require_room([], [], 1)
