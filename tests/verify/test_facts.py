from etude.verify.facts import Fact, Facts
from etude.verify.find import find_facts
from etude.verify.reading import read_lines


def read(text: str) -> Facts:
    return find_facts(read_lines("a.md", text.splitlines()))


def only(facts: Facts, name: str) -> Fact:
    (fact,) = facts.named(name)
    return fact


def test_a_setting_that_several_versions_have_is_tied_within_its_column_only() -> None:
    facts = read(
        "| | V1 | V2 |\n|---|---|---|\n| Rank | 8 | 16 |\n| Trainable parameters | 80 | 160 |\n\nThe rank was chosen."
    )
    first, second = facts.by_name["trainable_parameters"]
    ranks = [facts.near(each, "lora_rank") for each in (first, second)]
    assert [rank.value for rank in ranks if rank] == [8, 16]
    assert facts.named("lora_rank") == []


def test_sections_of_several_models_do_not_share_figures() -> None:
    facts = read("# A\n\n## Model small\n\nBatch size: 32\n\n## Model large\n\nSteps: 100")
    assert facts.near(only(facts, "steps") if facts.named("steps") else facts.facts[-1], "batch") is None


def test_several_values_of_a_name_are_tied_to_nothing() -> None:
    facts = read("Batch size: 32\n\nBatch size: 64\n\nMax steps: 100")
    assert facts.near(only(facts, "max_steps"), "batch") is None
