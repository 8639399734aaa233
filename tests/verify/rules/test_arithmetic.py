"""Results beside what they are made of."""

import pytest

from tests.verify.checked import check, contradicted, verdicts


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('Batch 512 (128 per GPU x 4).', []),
        ('Batch 512 (64 per GPU x 4).', ['512']),
        ('It is 32 × 4 × 4 = 500.', ['500']),
        ('2.5 + 3.5 = 6.0 and 7 - 3 = 5', ['5']),
        ('10 h / 4 = 2.5 h', []),
        ('20 % x 500 = 100', []),
        ('20 % x 500 = 90', ['90']),
        ('7,500 of 50,000 samples (15 %)', []),
        ('7,500 of 50,000 samples (16 %)', ['16 %']),
        ('15 % of the 50,000 samples (5,700)', ['5,700']),
        ('67 % (268 of 400)', []),
        ('76 % (268 of 400)', ['76 %']),
        ('95/10 split', ['95/10']),
        ('80/10/10 split', []),
        ('Accuracy rose from 72.0 % to 81.0 %, up 9.0 points.', []),
        ('Accuracy rose from 72.0 % to 81.0 %, up 12.5 points.', ['12.5 points']),
        ('Loss fell from 3.64 to 0.005 (-99.9 %).', []),
        ('Time went from 10.0 h to 5.0 h, 3x faster.', ['3x']),
        ('6,000 of 5,064 steps were run.', ['6,000 of 5,064']),
        ('Run 3 had 4 x A100 and 5 models.', []),
        ('The kernel is 3x3, see figure 2.', []),
    ],
)  # fmt: skip
def test_what_does_not_follow_is_contradicted_and_what_does_is_not(text: str, wrong: list[str]) -> None:
    assert contradicted(text) == wrong


def test_a_change_in_percent_of_percent_has_two_readings() -> None:
    ((verdict, _),) = verdicts("Accuracy rose from 72.0 % to 81.0 %, up 9.0 %.")
    assert verdict == "cannot be settled"
    (found,) = check("Accuracy rose from 72.0 % to 81.0 %, up 9.0 %.").findings
    assert "in points" in found.why and found.fits == "about 12.5 %"


def test_a_count_of_steps_may_hold_a_last_part_and_a_list_is_no_share() -> None:
    assert (
        contradicted("50,000 / 32 = 1,563 steps. It took 288 / 180 / 201.6 epochs, 37.5 % of them saved.")
        == []
    )
