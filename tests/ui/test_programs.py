import threading
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.ui.programs import Limits, Program, SupersededError, problem_of, run_command
from tests.processes import wait_for


def test_a_command_answers_with_its_json_and_its_exit_code(tmp_path: Path) -> None:
    code, answer = run_command("recipes")
    assert code == 0
    assert "demo" in answer
    code, answer = run_command("show", str(tmp_path / "no"))
    assert code == 2
    assert "there is no run" in problem_of(answer)


def test_what_takes_too_long_or_too_much_is_ended() -> None:
    with pytest.raises(InputError, match="took over 0 s"):
        run_command("recipes", limits=Limits(seconds=0.0))
    with pytest.raises(InputError, match="GB and was ended"):
        run_command("recipes", limits=Limits(memory_bytes=1))


def test_a_command_without_json_is_a_problem() -> None:
    with pytest.raises(InputError, match="no JSON"):
        run_command("show", "--help")


def test_the_newest_question_ends_the_one_before_it() -> None:
    program, ended, begun = Program(), [], threading.Event()

    def ask_first() -> None:
        try:
            begun.set()
            program.ask("estimate", "--history", "/")
        except SupersededError as error:
            ended.append(str(error))
        except InputError:
            pass

    thread = threading.Thread(target=ask_first)
    thread.start()
    begun.wait(60)
    wait_for(lambda: program._count)
    assert program.ask("recipes")[0] == 0
    thread.join(60)
    assert ended == ["a newer question was asked"]


def test_a_problem_without_words_is_said_as_such() -> None:
    assert problem_of([]) == "the command ended without a word"
    assert len(problem_of({"error": "x" * 10_000})) == 400
