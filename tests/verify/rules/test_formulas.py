"""Functions, totals of lists, counts beside shares."""

import pytest

from tests.verify.checked import contradicted


@pytest.mark.parametrize(
    ("true", "false"),
    [
        ("A guess costs ln(16,384) = 9.70 nats.", "A guess costs ln(16,384) = 8.70 nats."),
        ("That is exp(2.0) = 7.39.", "That is exp(2.0) = 8.39."),
        ("Crawl 2.5 h, training 72.0 h, tests 1.5 h; altogether 76.0 h.", "Crawl 2.5 h, training 72.0 h, tests 1.5 h; altogether 86.0 h."),
        ("We kept 90 % for training (877,500) and 5 % for tests (48,750).", "We kept 90 % for training (877,500) and 5 % for tests (97,500)."),
        ("Of 164 problems the model solved 41, a pass rate of 25.0 %.", "Of 164 problems the model solved 51, a pass rate of 25.0 %."),
        ("24 x 2 x 16 x (2,048 + 2,048) = 3,145,728", "24 x 2 x 16 x (2,048 + 2,048) = 6,145,728"),
        ("It used 8 GPUs x 24 hours = 192 GPU-hours.", "It used 8 GPUs x 24 hours = 182 GPU-hours."),
    ],
)  # fmt: skip
def test_what_follows_is_not_contradicted_and_what_does_not_is(true: str, false: str) -> None:
    assert (contradicted(true), len(contradicted(false))) == ([], 1)


def test_parts_that_are_no_plain_list_have_no_total() -> None:
    assert (
        contradicted("It took 3 h. A pause of 1 h is not counted, of the week a total of 9 h went there.")
        == []
    )
