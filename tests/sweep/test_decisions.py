"""What a sweep decided is read as it was written, a line that a kill left half-written was not decided."""

from pathlib import Path

import pytest

from etude.errors import InputError
from etude.sweep.decisions import FILE, Arrival, Choice, Decisions


def test_a_choice_is_read_as_it_was_made(tmp_path: Path) -> None:
    assert Decisions.read(tmp_path).best is None
    Decisions.read(tmp_path).choose("net", ["net-seed18", "net-seed19"])
    found = Decisions.read(tmp_path)
    assert found.best == "net" and found.added == {"net-seed18", "net-seed19"}


def test_a_torn_last_line_was_not_decided_and_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_text('{"kind": "best", "tri')
    assert Decisions.read(tmp_path).best is None
    Decisions.read(tmp_path).choose("a")
    assert Decisions.read(tmp_path).best == "a" and len(path.read_text().splitlines()) == 1


_CHOICE = '{"kind": "search", "study": "net", "number": %s, "trial": "a", "values": %s, "problem": ""}'


@pytest.mark.parametrize(
    "line",
    [
        "no json", "[]", "{}", '{"kind": "best"}', '{"kind": "other"}', "[" * 100_000 + "]" * 100_000,
        '{"kind": "best", "trial": null, "again": []}', '{"kind": "best", "trial": "a", "again": "abc"}',
        '{"kind": "budget", "beyond": {"a": 1}}', _CHOICE % ("1e999", "{}"), _CHOICE % ("-1", "{}"),
        '{"kind": "rung", "trial": "a", "step": 4, "value": "x", "rank": 1, "of": 1}',
        '{"kind": "goes on", "trial": "a", "step": null}', _CHOICE % ("0.5", "{}"), _CHOICE % ("true", "{}"), _CHOICE % ("0", '[["a", 1]]'),
    ],
)  # fmt: skip
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / FILE).write_text(f'{line}\n{{"kind": "best", "trial": "a", "again": []}}\n')
    with pytest.raises(InputError, match="line 1 is damaged"):
        Decisions.read(tmp_path)


def test_what_the_budget_leaves_out_is_that_of_the_last_time(tmp_path: Path) -> None:
    Decisions.read(tmp_path).leave_out(["a", "b"])
    Decisions.read(tmp_path).leave_out(["b", "a"])
    assert Decisions.read(tmp_path).beyond == {"a", "b"}
    assert len((tmp_path / FILE).read_text().splitlines()) == 1
    Decisions.read(tmp_path).leave_out([])
    assert not Decisions.read(tmp_path).beyond


def test_choices_of_searches_are_read_in_their_order_and_are_no_repeats(tmp_path: Path) -> None:
    made = [
        Choice("net", 0, "net-search0", {"optim.learning_rate": 1e-3, "model.dropout": 0.1}),
        Choice("net", 1, "net-search1", {"optim.learning_rate": 1.0}, "it is too large"),
    ]
    for choice in made:
        Decisions.read(tmp_path).add(choice)
    found = Decisions.read(tmp_path)
    assert found.found == made and not found.added


def test_a_number_that_a_search_gave_stands_once(tmp_path: Path) -> None:
    Decisions.read(tmp_path).add(Choice("net", 0, "net-search0", {"optim.learning_rate": 1e-3}))
    path = tmp_path / FILE
    path.write_text(path.read_text() * 2)
    with pytest.raises(InputError, match="line 2 is damaged"):
        Decisions.read(tmp_path)


def test_trials_at_rungs_are_read_in_their_order(tmp_path: Path) -> None:
    came = [Arrival("b", 4, 0.5, 1, 1), Arrival("a", 4, None, 2, 2)]
    for arrival in came:
        Decisions.read(tmp_path).arrive(arrival)
    Decisions.read(tmp_path).go_on("b", 4, rank=1, of=2)
    found = Decisions.read(tmp_path)
    assert found.came == came and found.gone_on == {("b", 4)}


def test_decisions_about_what_is_no_trial_are_named(tmp_path: Path) -> None:
    decisions = Decisions.read(tmp_path)
    decisions.choose("a", ["a-seed18"])
    decisions.leave_out(["a"])
    decisions.arrive(Arrival("a", 4, 1.0, 1, 1))
    decisions.go_on("a", 4, 1, 1)
    decisions.arrive(Arrival("a-seed18", 4, 1.0, 1, 1))
    assert decisions.doubts(["a"]) == []
    decisions.go_on("a", 8, 1, 1)
    decisions.add(Choice("net", 0, "b", {}))
    decisions.arrive(Arrival("c\x1b[31m", 4, 1.0, 1, 1))
    said = Decisions.read(tmp_path).doubts(["a"])
    assert len(said) == 3 and all(str(tmp_path / FILE) in each and "\x1b" not in each for each in said)
    assert "came to a rung is c" in said[0] and "a search chose is b" in said[1]
    assert "a goes on from step 8, where it did not come" in said[2]
