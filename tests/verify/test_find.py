from etude.verify.facts import Facts
from etude.verify.find import find_facts
from etude.verify.reading import read_lines


def read(text: str) -> Facts:
    return find_facts(read_lines("a.md", text.splitlines()))


def test_a_sentence_ties_its_figures_to_their_names() -> None:
    facts = read("We trained for 10 epochs with a batch size of 32 on 50,000 samples, on four A100 GPUs.")
    values = {fact.name: fact.value for fact in facts.facts}
    assert values == {"epochs": 10, "batch": 32, "samples": 50_000, "devices": 4}


def test_a_plan_and_a_mark_are_no_settings() -> None:
    facts = read(
        "Next we would use a batch size of 64. At step 200 it was saved. It was evaluated every 500 steps."
    )
    assert facts.named("batch", "steps") == []


def test_a_part_of_the_embeddings_and_a_list_of_choices_are_no_settings() -> None:
    facts = read("24 blocks, tied embeddings of 51,463,168 parameters. The layers are [12, 1024].")
    assert [fact.name for fact in facts.named("parameters", "embedding_parameters")] == [
        "embedding_parameters"
    ]
    assert [fact.value for fact in facts.named("layers")] == [24]
