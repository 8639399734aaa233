"""Each rule of the loop has an advice, and its finding says what was checked."""

from etude.engine.broken import ADVICE, Broken, finding, first_few, first_numbers


def test_a_broken_rule_becomes_a_finding_of_its_step() -> None:
    kind = next(iter(ADVICE))
    told = finding(7, Broken(kind, "what", "evidence", ADVICE[kind]))
    assert (told.step, told.kind, told.window, told.severity) == (7, kind, [7, 7], "error")


def test_long_lists_are_cut() -> None:
    assert (first_few(["a", "b"]), first_few(list("abcde"))) == ("a, b", "a, b, c and 2 more")
    assert (first_numbers([1, 2]), first_numbers(range(5))) == ("1, 2", "0, 1, 2 ...")
