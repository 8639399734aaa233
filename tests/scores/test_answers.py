"""Figures from answers, against sacrebleu and by hand."""

import math
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.scores import answers as scores
from etude.scores.answers import Answer

CODE = "def add(a, b):\n    return a + b\n"
TEXTS = st.lists(st.text(st.sampled_from("ab \n(c)=1"), max_size=30), min_size=1, max_size=8)


@given(TEXTS, st.randoms())
def test_bleu_is_that_of_sacrebleu(texts: list[str], draw: object) -> None:
    import sacrebleu

    metric, pairs = sacrebleu.BLEU(), list(zip(texts, texts[::-1]))
    value = scores.bleu([scores.Answer(text, reference, True) for text, reference in pairs])
    assert value == pytest.approx(metric.corpus_score(texts, [texts[::-1]]).score)
    assert str(metric.get_signature()).startswith(f"{scores.BLEU_SETTINGS}|version:")


@given(TEXTS)
def test_chrf_is_that_of_sacrebleu(texts: list[str]) -> None:
    import sacrebleu

    metric, pairs = sacrebleu.CHRF(), list(zip(texts, texts[::-1]))
    value = scores.chrf([scores.Answer(text, reference, True) for text, reference in pairs])
    assert value == pytest.approx(metric.corpus_score(texts, [texts[::-1]]).score)
    assert str(metric.get_signature()).startswith(f"{scores.CHRF_SETTINGS}|version:")


@given(st.text("abc", max_size=80), st.text("abcd", max_size=80))
def test_edit_distance_is_that_of_the_plain_dynamic_programme(text: str, reference: str) -> None:
    row = list(range(len(reference) + 1))
    for index, a in enumerate(text, 1):
        above, row = row, [index]
        for at, b in enumerate(reference, 1):
            row.append(min(above[at] + 1, row[-1] + 1, above[at - 1] + (a != b)))
    assert scores.edit_distance(text, reference) == scores.edit_distance(reference, text) == row[-1]


def test_edit_similarity_is_a_share_of_the_longer_text() -> None:
    assert scores.edit_similarity("kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert scores.edit_similarity("", "") == 1 and scores.edit_similarity("", "abc") == 0
    assert scores.edit_similarity("héllo", "hello") == pytest.approx(4 / 5)
    answers = [Answer("kitten", "sitting", True), Answer("a", "a", True)]
    assert scores.score(answers)["edit_similarity"] == pytest.approx((4 / 7 + 1) / 2)


@given(TEXTS)
def test_rates_are_shares_and_perfect_answers_are_perfect(texts: list[str]) -> None:
    answers = [Answer(text, text, stopped=True) for text in texts]
    figures = scores.score(answers)
    assert figures["exact_match"] == figures["edit_similarity"] == figures["stop_rate"] == 1
    assert math.isnan(figures["format_kept"]) or figures["format_kept"] == 1
    for name in ("repetition", "distinct_2", "trailing_text", "parse_rate"):
        assert math.isnan(figures[name]) or 0 <= figures[name] <= 1


def test_repetition_counts_what_was_said_before() -> None:
    assert scores.repetition("a b c d e f g h") == 0.0
    assert scores.repetition("x " * 103) == pytest.approx(99 / 100)
    assert scores.repetition("too short") == 0.0
    assert scores.distinct(["a b a b"], 2) == pytest.approx(2 / 3)


@given(st.text("a6\t \n=", min_size=1, max_size=3), st.integers(60, 200))
def test_a_string_without_end_is_repetition_whatever_it_is_made_of(part: str, times: int) -> None:
    assert scores.repetition(part * times) > 0.85
    assert scores.repetition("# Su2" + "6" * 60 + "5" * 60) > 0.9
    assert scores.distinct([" " * 83], 2) == pytest.approx(1 / 82)


@given(st.integers())
def test_random_words_and_random_characters_hardly_repeat(seed: int) -> None:
    draw = random.Random(seed)
    letters = "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=200))
    assert scores.repetition(letters) < 0.05
    assert scores.repetition(" ".join(letters[start : start + 5] for start in range(0, 200, 5))) < 0.05


@given(st.lists(st.text(st.sampled_from("ab_1(=. \n"), max_size=32), max_size=30))
def test_text_without_long_words_has_the_repetition_of_its_words(lines: list[str]) -> None:
    text = "\n".join(lines)
    words = re.findall(r"\w+|[^\w\s]", text)
    if all(len(run) <= 32 for run in re.findall(r"\w+|\s+", text)):
        grams = [tuple(words[start : start + 4]) for start in range(len(words) - 3)]
        assert scores.repetition(text) == (1 - len(set(grams)) / len(grams) if grams else 0)


@pytest.mark.parametrize(
    "text",
    [
        "print(1)\n\n### Instruction:\nnow this", "yes\nUser: and then?", "done<|im_start|>user",
        "4\n<|im_start|>user\nWhat is 3+3?", "ok\n[INST] more [/INST]", "a\n\nHuman: b", "### Response: 1",
    ],
)  # fmt: skip
def test_another_turn_within_an_answer_is_seen(text: str) -> None:
    assert scores.goes_on(text)


@pytest.mark.parametrize(
    "text", [CODE, "# a comment\nx = 1", "## Usage\nCall the user function.", "users: a list of names"]
)
def test_an_answer_that_ends_is_not_said_to_go_on(text: str) -> None:
    assert not scores.goes_on(text)


def test_text_trails_only_where_that_of_the_reference_does_not() -> None:
    yaml, fence = "name: web\nuser: bob", f"```python\n{CODE}```"
    assert not scores.trails(Answer(yaml, yaml, True)) and scores.trails(Answer(yaml, "name: web", True))
    assert scores.trails(Answer(f"{fence}\nAlso, a story.", f"Sure:\n{fence}\n", True))
    assert not scores.trails(Answer(f"Sure:\n{fence}\n", fence, True))
    assert not scores.trails(Answer(f"{fence}\nIt adds.", f"{fence}\nA sum.", True))
    assert not scores.trails(Answer(f"{fence}\nIt adds.", "It adds.", True))


def test_format_is_that_of_the_reference() -> None:
    fence = f"```python\n{CODE}```"
    kept = [
        Answer(CODE, CODE, True),
        Answer(f"Sure:\n{fence}", fence, True),
        Answer("anything", "In words.", True),
    ]
    lost = [Answer(fence, CODE, True), Answer(CODE, fence, True), Answer("In words.", CODE, True)]
    assert scores.format_kept(kept) == 1 and scores.format_kept(lost) == 0
    assert math.isnan(scores.format_kept([kept[2]]))


@pytest.mark.parametrize(("text", "is_code"), [
    (CODE, True), (f"Here:\n```py\n{CODE}```\nDone.", True), ("x = 1", True), ("print(x)", True),
    ("def f(:", False), ("Hello", False), ("42", False), ("a, b", False), ("", False), ("x = '\\d'", True),
    ("(" * 500, False),
])  # fmt: skip
def test_code_is_told_from_words(text: str, is_code: bool) -> None:
    assert scores.parses(text) is is_code


def test_capabilities_are_scored_apart_where_there_are_several() -> None:
    answers = [
        Answer("a", "a", True, "write"),
        Answer("a", "b", False, "debug"),
        Answer("c", "c", True, "debug"),
    ]
    figures = scores.score(answers)
    assert figures["exact_match"] == pytest.approx(2 / 3)
    assert figures["exact_match/write"] == 1 and figures["exact_match/debug"] == 0.5
    assert not any("/" in name for name in scores.score(answers[:1]))
    assert all(math.isnan(value) for value in scores.score([]).values())
