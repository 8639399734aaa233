"""Names of figures in sentences of several writers."""

import pytest

from etude.verify.find import find_facts
from etude.verify.reading import read_lines


def names(text: str) -> list[tuple[str, str]]:
    return [(each.name, each.figure.text) for each in find_facts(read_lines("a.md", [text])).facts]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Every optimiser update consumes 256 sequences.", ("global_batch", "256")),
        ("At 1,024 tokens a sequence it is short.", ("seq_len", "1,024")),
        ("It has a 32,000-entry vocabulary.", ("vocab_size", "32,000")),
        ("Each update took 0.58 s.", ("step_seconds", "0.58 s")),
        ("One step covers 1,048,576 tokens.", ("tokens_per_step", "1,048,576")),
        ("Validation loss was lowest at step 1,500, with 1.79.", ("validation_loss", "1.79")),
        ("Trainable parameters: 3,145,728 (0.24 %).", ("trainable_share", "0.24 %")),
        ("The rate climbs for 1,000 updates (5 % of training).", ("warmup_ratio", "5 %")),
        ("We evaluate every 200 steps.", ("eval_steps", "200")),
        ("Peak memory on each 80 GB card was 71 GB.", ("memory_bytes", "71 GB")),
        ("16 heads of 64 dimensions", ("head_dim", "64")),
    ],
)
def test_a_figure_is_named_by_the_words_around_it_or_by_what_the_sentence_speaks_of(
    text: str, wanted: tuple[str, str]
) -> None:
    assert wanted in names(text)


@pytest.mark.parametrize(
    "text", ["Accuracy had a gain of 2.5.", "The loss used a weight of 0.25.", "The last epoch ends at 67.7."]
)
def test_a_difference_or_another_setting_is_not_the_metric_itself(text: str) -> None:
    assert names(text) == []
