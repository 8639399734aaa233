import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.cli.printing import print_json, print_rows, print_table, print_text, say
from etude.text import (
    clean,
    command,
    expected,
    one_line,
    parse_duration,
    plural,
    printable,
    rough_price,
    shorten,
    verb,
)

PLURALS = {0: "0 steps", 1: "1 step", 2: "2 steps", 1001: "1,001 steps"}
ODD = "a\x1b[2Jb\x00\x7f\x9bc\u200bd\u202ee\ud800f\ue000"


def test_clean_text_shows_what_could_drive_a_terminal_or_hide_in_it() -> None:
    assert clean(ODD) == r"a\x1b[2Jb\x00\x7f\x9bc\u200bd\u202ee\ud800f\ue000"
    assert clean("a\r\nb\rc\td\u2028e") == "a\nb\\rc\td\ne"
    assert clean("日本語\u3000é \xa0 שלום 👍🏽") == "日本語\u3000é \xa0 שלום 👍🏽"
    assert printable("a\nb\u3000c\x85") == r"a b c\x85"
    assert one_line(" a\n\n b\t" + "x" * 300, 10) == "a b xxxxx…"


@given(st.text(st.characters(), max_size=50))
def test_printable_text_is_printable_and_hides_nothing(text: str) -> None:
    assert printable(text).isprintable()
    assert all(c in "\n\t" or unicodedata.category(c)[0] not in "C" for c in clean(text))
    kept = [c for c in text if c.isprintable() and not c.isspace()]
    rest = iter(printable(text))
    assert all(c in rest for c in kept)


@pytest.mark.parametrize(
    "text", ["x" * 10**6, "\x1b" * 10**6, "word " * 10**5, "a = " + "y" * 5000 + " is not b"]
)
def test_a_message_keeps_its_start_and_its_advice(text: str) -> None:
    line = shorten(f"recipe {text} does not exist; give the path of a .toml file")
    assert len(line) <= 300 and line.isprintable()
    assert line.startswith("recipe ") and line.endswith(" does not exist; give the path of a .toml file")


def test_a_long_value_is_cut_before_the_words_around_it() -> None:
    line = shorten(f"data.train.0.path is {'v' * 400} and is not there; give another")
    assert line == f"data.train.0.path is {'v' * 47}...{'v' * 30} and is not there; give another"


def test_everything_printed_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    print_text(ODD)
    say(ODD)
    print_rows([(ODD, ODD)], None, False)
    print_table([[ODD, "b"], [ODD, ODD]])
    shown = capsys.readouterr()
    for text in (shown.out, shown.err):
        assert r"a\x1b[2Jb" in text and all(c == "\n" or c.isprintable() for c in text)


def test_json_holds_every_text_and_no_constant_that_json_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    value = {ODD: [ODD, "日本", "\U000e0041"], "nan": float("nan"), "inf": [-float("inf")], "path": Path("x")}
    print_json(value)
    shown = capsys.readouterr().out
    assert "日本" in shown and all(c == "\n" or c.isprintable() for c in shown)
    assert json.loads(shown, parse_constant=pytest.fail) == {
        ODD: [ODD, "日本", "\U000e0041"], "nan": "nan", "inf": ["-inf"], "path": "x",
    }  # fmt: skip


# Processes apart that speak to their parent, and the log of a run, which cleans what it says on stderr.
APART = (
    "cli/printing.py",
    "convert.py",
    "data/sandbox.py",
    "data/vet.py",
    "notebook.py",
    "probe.py",
    "records/store.py",
)


def test_commands_print_through_one_module_only() -> None:
    package = Path(sys.modules["etude"].__file__ or "").parent
    ways = (" print(", "Console(", "echo(", "stdout.write", "stderr.write")
    for path in package.rglob("*.py"):
        if str(path.relative_to(package)) not in APART:
            text = path.read_text(encoding="utf-8")
            assert not [way for way in ways if way in text], path


@pytest.mark.parametrize(("count", "text"), PLURALS.items())
def test_only_one_is_singular(count: int, text: str) -> None:
    assert plural(count, "step") == text


def test_a_verb_follows_its_count() -> None:
    words = ("are", "have", "were", "hold")
    assert [verb(1, word) for word in words] == ["is", "has", "was", "holds"]
    assert [verb(count, word) for count in (0, 2) for word in words] == [*words, *words]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0.0 kB"),
        (994, "1.0 kB"),
        (999_000, "1.0 MB"),
        (345_200_000, "350 MB"),
        (1.06e9, "1.1 GB"),
        (2e13, "20,000 GB"),
    ],
)
def test_bytes_of_a_forecast_have_two_digits_in_the_unit_that_the_measured_ones_have(
    count: float, text: str
) -> None:
    assert expected(60, count, 0) == f"about 60 s, {text} of memory, 0.0 kB on disk"


@pytest.mark.parametrize("name", ["$(touch gone)", "`touch gone`", "a b", "a;touch gone", "a'b", "*", "a\nb"])
def test_a_shell_takes_the_words_of_a_command_as_they_stand(name: str, tmp_path: Path) -> None:
    shown = subprocess.run(
        ["sh", "-c", command("printf", "%s", name)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert shown.stdout == name and not list(tmp_path.iterdir())


def test_a_price_has_its_interval_and_one_below_a_cent_is_said_to_be() -> None:
    assert (
        rough_price(3.21, (1.93, 6.5), 2.5) == "about 3.20 (1.90 to 6.50), at 2.5 for an hour of one device"
    )
    assert rough_price(0.001, (0.0005, 0.002), 0.1).startswith("below 0.01, ")


def test_a_duration_is_read_as_people_write_it() -> None:
    written = {"11h30m": 41400, "90s": 90, "2d": 172800, "1h1min1s": 3661, "45m": 2700}
    assert {text: parse_duration(text) for text in written} == written
    for text in ("", "0s", "30", "1.5h", "30s1h", "h", "-1s", "1h 30m", "9999999s", "٣s", "1h\n"):
        with pytest.raises(ValueError, match="11h30m"):
            parse_duration(text)
