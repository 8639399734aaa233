"""`etude notify test`, and bad input of [[notify]]."""

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.notify import line
from etude.notify.channel import _end, _programs
from tests.conftest import Outcome
from tests.notify.server import TOKEN, USER, Service, serving

Etude = Callable[..., Outcome]
Write = Callable[..., Path]
LINE = {"channel": "line", "on": ["fault", "finished"]}


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETUDE_LINE_TOKEN", TOKEN)
    monkeypatch.setenv("ETUDE_LINE_TO", USER)


@pytest.mark.usefixtures("account")
def test_it_sends_one_message_of_each_kind_and_says_what_came_of_it(
    write_recipe: Write, etude: Etude, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    monkeypatch.setenv(
        "ETUDE_COMMAND_PROGRAM",
        shlex.join([sys.executable, "-c", f"open({str(told)!r}, 'a').write(input())"]),
    )
    recipe = write_recipe({"notify": [LINE, {"channel": "command", "on": ["stopped"]}]})
    with serving(Service()) as service:
        monkeypatch.setattr(line, "API", service.url)
        ended = etude("notify", "test", recipe)
        assert ended.code == 0, ended.err
        assert [each.split() for each in ended.out.splitlines()] == [
            ["line:", "fault", "sent"], ["line:", "finished", "sent"], ["command:", "stopped", "sent"],
        ]  # fmt: skip
        assert len(service.delivered) == 2 and told.read_text() == "etude notify test: stopped"
        service.faults.append("401")
        ended = etude("notify", "test", recipe, "--json")
        rows = json.loads(ended.out)
        assert ended.code == 1 and [row["state"] for row in rows] == ["off", "off", "sent"]
        assert "refused the token" in rows[0]["why"] and TOKEN not in ended.out + ended.err


@pytest.mark.usefixtures("account")
def test_a_dry_run_sends_nothing(write_recipe: Write, etude: Etude) -> None:
    ended = etude("notify", "test", write_recipe({"notify": [LINE]}), "--dry-run")
    assert ended.code == 0 and ended.out.count("--dry-run") == 2


@pytest.mark.parametrize(
    ("notify", "environment", "says"),
    [
        ([], {}, "has no [[notify]]; add one"),
        ([{"channel": "line"}], {}, "channel line needs the variable ETUDE_LINE_TOKEN, not set"),
        ([{"channel": "line", "name": "a-b"}], {"ETUDE_A_B_TOKEN": "t"}, "the variable ETUDE_A_B_TO, not"),
        ([{"channel": "line"}], {"ETUDE_LINE_TOKEN": "a b"}, "the variable ETUDE_LINE_TOKEN holds a"),
        ([{"channel": "webhook"}], {"ETUDE_WEBHOOK_URL": "ftp://secret"}, "must be as https://name/path"),
        ([{"channel": "webhook"}], {"ETUDE_WEBHOOK_URL": "https://"}, "the variable ETUDE_WEBHOOK_URL is"),
        ([{"channel": "command"}], {"ETUDE_COMMAND_PROGRAM": "no-such-program"}, "names no program"),
        ([{"channel": "apprise"}], {"ETUDE_APPRISE_URLS": "json://localhost secret://x"}, "address 2 of the"),
    ],
)  # fmt: skip
def test_what_the_environment_lacks_is_named_by_its_variable_and_never_shown(
    write_recipe: Write, etude: Etude, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    notify: list[dict[str, str]], environment: dict[str, str], says: str,
) -> None:  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    recipe = write_recipe({"notify": notify})
    commands = [("notify", "test", recipe)]
    if notify:
        commands.append(("train", recipe, "--runs", str(tmp_path / "runs")))
    for command in commands:
        ended = etude(*command)
        lines = [each for each in ended.err.splitlines() if each.startswith("error: ")]
        assert ended.code == 2 and len(lines) == 1 and says in lines[0]
        assert not any(value in lines[0] for value in environment.values() if "secret" in value)
    assert not (tmp_path / "runs").exists()


def test_a_channel_that_hangs_keeps_no_other_waiting(
    write_recipe: Write, etude: Etude, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "hang").write_text("#!/bin/sh\nsleep 600\n")
    (tmp_path / "hang").chmod(0o700)
    kinds = ["fault", "stopped", "finished"]
    notify = [{"channel": "command", "name": f"hangs{each}", "on": kinds} for each in range(6)]
    for channel in notify:
        monkeypatch.setenv(f"ETUDE_{str(channel['name']).upper()}_PROGRAM", str(tmp_path / "hang"))
    monkeypatch.setenv("ETUDE_COMMAND_PROGRAM", "true")
    monkeypatch.setattr("etude.cli.notify._MOST_SECONDS", 2.0)
    recipe = write_recipe({"notify": [*notify, {"channel": "command", "on": kinds}]})
    ended = etude("notify", "test", recipe, "--json")
    rows = json.loads(ended.out)
    assert ended.code == 1 and [row["state"] for row in rows] == ["off"] * 18 + ["sent"] * 3
    assert {row["why"] for row in rows[:18]} == {"no answer within 2 s"}
    for process in list(_programs):  # which end with the process
        _end(process)
