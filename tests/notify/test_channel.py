"""Channels: a web address, a program, and what apprise knows."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from etude.notify.channel import Apprise, Program, Webhook, open_channels
from etude.notify.message import Message
from etude.recipe.notify import Notify
from tests.notify.server import Service, serving

MESSAGE = Message(
    "fault",
    "error",
    "fault",
    "run",
    3,
    "run: it failed",
    "details; $(touch x)",
    {"loss": 1.5},
    ["etude resume run"],
)


def test_a_webhook_posts_the_message_as_json_with_one_key_for_each_try() -> None:
    with serving(Service(["500", "301", "401", "400"])) as service:
        channel = Webhook(Notify(channel="webhook"), {"URL": service.url + "/in?x=1"}, seconds=5)
        states = [channel.send(MESSAGE, "key").state for _ in range(4)]
        assert states == ["later", "off", "off", "refused"]
        assert service.asked == ["POST /in?x=1"] * 4
        assert {each["Idempotency-Key"] for each in service.headers} == {"key"}
        body = service.bodies[0]
        assert body["text"] == MESSAGE.full and body["figures"] == {"loss": 1.5}
        assert (body["run"], body["step"], body["kind"], body["severity"]) == ("run", 3, "fault", "error")


def program(code: str, seconds: float = 30.0) -> Program:
    words = f"{sys.executable} -c '{code}'"
    return Program(Notify(channel="command"), {"PROGRAM": words}, seconds=seconds)


def test_a_program_gets_the_message_on_its_input_and_no_shell_reads_it(tmp_path: Path) -> None:
    told = tmp_path / "told"
    assert (
        program(f'import sys; open("{told}", "w").write(sys.stdin.read())').send(MESSAGE, "").state == "sent"
    )
    assert told.read_text() == MESSAGE.full + "\n"
    assert program("exit(3)").send(MESSAGE, "").why == "it ended with exit code 3"


def test_a_program_that_does_not_end_is_ended_with_what_it_started() -> None:
    outcome = program("import os, time; os.fork(); time.sleep(99)", seconds=0.3).send(MESSAGE, "")
    assert (outcome.state, outcome.why) == ("refused", "it was ended after 0.3 s")


def test_a_program_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    words = f"""sh -c 'exec 3>{alive}; echo x >&3; sleep 99'"""
    code = (
        "import threading\nfrom etude.notify.channel import Program\nfrom etude.recipe.notify import Notify\n"
        "from tests.notify.test_channel import MESSAGE\n"
        f"sender = Program(Notify(channel='command'), {{'PROGRAM': {words!r}}})\n"
        "threading.Thread(target=sender.send, args=(MESSAGE, ''), daemon=True).start()\n"
        f"pipe = open({str(alive)!r}, 'rb', buffering=0)\nassert pipe.read(1) == b'x'"
    )
    keeper = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    os.set_blocking(keeper, True)
    while os.read(keeper, 10):  # the end of the file comes once no process has it open to write
        pass
    os.close(keeper)


def test_apprise_sends_to_each_address_once_also_where_another_fails() -> None:
    with serving(Service(["400", "400", "400", "400"])) as failing, serving(Service()) as sound:
        urls = " ".join(each.url.replace("http://", "json://") for each in (failing, sound))
        channel = Apprise(Notify(channel="apprise"), {"URLS": urls})
        outcomes = [channel.send(MESSAGE, "one") for _ in range(2)]
        assert [each.why for each in outcomes] == ["1 of 2 did not take it"] * 2
        assert len(sound.bodies) == 1 and len(failing.bodies) == 2
        failing.faults.clear()
        assert channel.send(MESSAGE, "one").state == "sent" and len(sound.bodies) == 1


def test_apprise_without_its_package_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etude.notify.channel.find_spec", lambda name: None)
    monkeypatch.setenv("ETUDE_APPRISE_URLS", "json://localhost")
    with pytest.raises(Exception, match=r'pip install "etude-workbench\[notify\]"'):
        open_channels([Notify(channel="apprise")])
