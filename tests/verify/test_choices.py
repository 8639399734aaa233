"""Values that a quantity may have beside a figure."""

from etude.verify.choices import choices
from etude.verify.facts import Facts
from etude.verify.find import find_facts
from etude.verify.reading import read_lines


def facts_of(text: str) -> Facts:
    return find_facts(read_lines("a.md", text.splitlines()))


def test_a_value_in_the_sentence_comes_before_others_and_is_beyond_doubt() -> None:
    facts = facts_of("Batch 32 is the usual one.\n\nWith a batch of 64 an epoch has 292 steps per epoch.")
    (claimed,) = facts.named("steps_per_epoch")
    found = choices(facts, claimed, "batch")
    assert [(each.reading.text, each.is_firm, each.is_near) for each in found] == [
        ("64", True, True),
        ("32", False, False),
    ]


def test_two_values_as_near_are_both_in_doubt() -> None:
    facts = facts_of("- batch size: 32\n- batch size: 64\n- steps per epoch: 10")
    (claimed,) = facts.named("steps_per_epoch")
    assert {each.is_firm for each in choices(facts, claimed, "batch")} == {False}


def test_a_change_and_a_factor_are_no_values() -> None:
    facts = facts_of("The loss fell by 0.17. Then 16 x 8 = 128 is the batch. The perplexity is 5.0.")
    (claimed,) = facts.named("perplexity")
    assert choices(facts, claimed, "loss") == []
