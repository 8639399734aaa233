"""Models judged by the code that they write, from the command line to the table."""

import json
from pathlib import Path

import pytest

from etude.confine.room import Tier, strongest
from etude.errors import InputError
from etude.evaluate import sandbox
from etude.judging import judge_models
from etude.report.judged import Sampled
from tests.bases import write_encoder, write_qwen2

_TIER = strongest()
needs_kernel = pytest.mark.skipif(not _TIER.confines, reason=f"this kernel confines nothing ({_TIER})")
# The second is solved by whatever is written behind a comment sign.
_ROWS = [
    {"task_id": "never", "prompt": "def f(x):\n", "tests": ["assert f(1) == 2"], "entry_point": "f"},
    {"task_id": "always", "prompt": "x = 1\n# ", "tests": "pass"},
]


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("problems") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in _ROWS))
    return path


@needs_kernel
def test_two_models_are_judged_on_the_same_problems(problems: Path, tmp_path: Path) -> None:
    models = [str(write_qwen2(tmp_path / name, seed=seed)) for name, seed in (("a", 3), ("b", 4))]
    sampled = Sampled(ks=(1, 2), samples=3, max_tokens=8, seed=5)
    found = judge_models(models, problems, sampled)
    values = found.to_dict(with_samples=True)
    assert values["sandbox"] == str(_TIER) and values["problems"] == 2
    for system in values["systems"]:
        never, always = system["by_problem"]
        assert never["passed"] == 0 and always["samples"] == 3
        expected = always["passed"] / 3 / 2
        assert system["figures"]["pass@1"][0] == pytest.approx(expected)
        assert len(always["programs"]) == 3 and all(
            each["program"].startswith("x = 1\n# ") for each in always["programs"]
        )
        assert sum(system["outcomes"].values()) == 6
    text = " ".join(" ".join(found.lines(100)).split())
    assert "within the noise" in text and "pass@2" in text
    again = judge_models(models[:1], problems, sampled)
    assert again.to_dict()["systems"][0]["figures"] == values["systems"][0]["figures"]


@needs_kernel
def test_a_chat_model_is_asked_by_its_template(problems: Path, tmp_path: Path) -> None:
    sampled = Sampled(samples=1, temperature=0.0, max_tokens=4, instruction=True)
    found = judge_models([str(write_qwen2(tmp_path / "a"))], problems, sampled)
    assert sum(found.to_dict()["systems"][0]["outcomes"].values()) == 2


def test_a_classifier_and_a_kernel_that_confines_nothing_are_refused(
    problems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "strongest", Tier)
    with pytest.raises(InputError, match="cannot confine"):
        judge_models([str(tmp_path)], problems, Sampled())
    monkeypatch.undo()
    with pytest.raises(InputError):
        judge_models([str(write_encoder(tmp_path / "encoder"))], problems, Sampled())
