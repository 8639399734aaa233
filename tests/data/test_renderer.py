"""A template runs in a process that ends when it should, and whose refusals are one line."""

import os
import subprocess
import sys
import threading

import pytest

from etude.confine.room import strongest
from etude.data.renderer import Renderer, split_generation
from etude.errors import InputError
from tests.data.confined import confinement

LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
HI = [{"role": "user", "content": "Hi"}]


def renderer(template: str, seconds: float = 20.0, today: str | None = None) -> Renderer:
    return Renderer(template, {"eos_token": "</s>"}, limit_seconds=seconds, today=today)


def test_parts_are_the_length_they_share_with_the_whole_and_their_rest() -> None:
    template = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    wrapped = template + "{% if add_generation_prompt %}>{% endif %}"
    room = renderer(wrapped)
    text, parts = room.render([*HI, {"role": "assistant", "content": "Ho"}], [(None, False), (1, True)], "x")
    assert text == "Hi</s>Ho</s>" and parts == [(6, ">")]
    assert text[:6] + ">" == room.render(HI, [(None, True)], "x")[0]
    room.close()


@pytest.mark.skipif(not strongest().confines, reason="this kernel confines nothing")
def test_a_template_has_a_room_of_the_kernel_that_outlives_the_thread_that_asked() -> None:
    made = renderer("{{ messages[0].content }}")
    thread = threading.Thread(target=lambda: made.try_render(HI, "x"))
    thread.start()
    thread.join()
    assert made.process is not None and confinement(made.process.pid) == ("2", "1")
    first = made.process.pid
    assert made.try_render(HI, "x") == "Hi" and made.process.pid == first


def test_the_day_is_the_one_that_is_given() -> None:
    assert renderer("{{ strftime_now('%d.%m.%Y') }}", today="2024-02-29").try_render(HI, "x") == "29.02.2024"


@pytest.mark.parametrize("template", [LOOP, "{{ 9 ** (9 ** 9) }}"], ids=["loop", "power"])
def test_a_template_that_never_ends_is_stopped_in_any_thread(template: str) -> None:
    problems: list[str] = []

    def try_it() -> None:
        try:
            renderer(template, 0.3).try_render(HI, "a.jsonl:1")
        except InputError as error:
            problems.append(str(error))

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    (problem,) = problems
    assert "takes over 0.3 s on a.jsonl:1" in problem and "\n" not in problem


def test_a_template_is_rendered_again_after_a_refusal_and_after_its_end() -> None:
    room = renderer(
        "{{ raise_exception('no') if messages[0]['content'] == 'Hi' else messages[0]['content'] }}"
    )
    for _ in range(2):
        assert room.try_render(HI, "x") is None
        with pytest.raises(InputError, match=r"x: the chat template refuses it \(.*no"):
            room.render(HI, [(None, False)], "x")
        assert room.try_render([{"role": "user", "content": "c"}], "x") == "c"
        room.close()


def test_no_process_outlives_its_template() -> None:
    program = (
        "from etude.data.renderer import Renderer\n"
        "room = Renderer('a', {}, limit_seconds=9, today=None)\n"
        "room.try_render([{'role': 'user', 'content': 'x'}], 'x'); print(room.process.pid)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_places_between_marks_are_those_of_the_text_without_them() -> None:
    text, places = split_generation("ab\ufdd2cd\ufdd3e\ufdd2\ufdd3f")
    assert text == "abcdef" and [text[begin:end] for begin, end in places] == ["cd", ""]
