"""What is left of a whole in prose, and the parts that make one."""

import pytest

from tests.verify.checked import contradicted, fits, verdicts


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("Of the 50,000 samples, 15 % were duplicates. We removed these 7,500 and went on with 42,500 samples.", []),
        ("Of the 50,000 samples, 15 % were duplicates. We removed these 7,500 and went on with 43,500 samples.", ["43,500"]),
        ("The corpus has 12,408 files. We dropped 1,108 of them, which leaves 11,300.", []),
        ("The corpus has 12,408 files. We dropped 1,108 of them, which leaves 11,400.", ["11,400"]),
        ("From 9,012 rows we filtered out 512 and kept 8,500.", []),
        ("From 9,012 rows we filtered out 512 and kept 8,600.", ["8,600"]),
        ("Of 200 answers, 124 were right, 46 were wrong and 30 did not parse.", []),
        ("Of 200 answers, 124 were right, 46 were wrong, 22 did not parse and 14 did not stop.", ["200"]),
        ("Of 200 answers, 124 were right, 46 wrong and 44 of these also long.", []),
    ],
)  # fmt: skip
def test_counts_that_do_not_add_up_are_contradicted(text: str, wrong: list[str]) -> None:
    assert contradicted(text) == wrong


def test_what_is_left_of_the_whole_is_told() -> None:
    assert fits("We had 50,000 rows, removed 7,500 and went on with 43,500.") == ["42,500"]


def test_parts_that_leave_something_over_are_not_settled() -> None:
    assert verdicts("Of 200 answers, 124 were right, 46 were wrong and 20 did not parse.") == [
        ("cannot be settled", "200")
    ]
