"""Scores of a classifier from each other and from its counts."""

import pytest

from tests.verify.checked import contradicted, verdicts

MATRIX = """
| | predicted defect | predicted clean |
| --- | --- | --- |
| defect | 450 | 50 |
| clean | 113 | 637 |

"""


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("Precision 0.80, recall 0.90 and so F1 is 0.85.", []),
        ("Precision 0.80, recall 0.90 and so F1 is 0.87.", ["F1 0.87"]),
        ("Precision 80.0 %, recall 90.0 %, F1 84.7 %.", []),
        ("Precision 80.0 %, recall 90.0 %, F1 86.7 %.", ["F1 86.7 %"]),
        ("Macro precision 0.80, macro recall 0.90, macro F1 0.87.", []),
        ("| model | precision | recall | F1 |\n|---|---|---|---|\n| a | 0.80 | 0.90 | 0.87 |\n| b | 0.70 | 0.70 | 0.70 |\n", ["F1 0.87"]),
        (MATRIX + "Accuracy: 0.870. The recall is 0.90 and the precision 0.80.", []),
        (MATRIX + "Accuracy: 0.890.", ["Accuracy 0.890"]),
        (MATRIX + "A recall of 0.95 was reached.", ["recall 0.95"]),
        ("It has 450 true positives, 113 false positives, 50 false negatives and 637 true negatives. The accuracy is 0.91.", ["accuracy 0.91"]),
    ],
)  # fmt: skip
def test_scores_that_do_not_follow_are_contradicted(text: str, wrong: list[str]) -> None:
    assert contradicted(text) == wrong


def test_a_score_that_always_guesses_is_not_of_the_matrix() -> None:
    assert verdicts(MATRIX + 'A classifier that always says "clean" has an accuracy of 0.60.', "scores") == []
