"""Story 3: a loss that falls far too low has a cause, and a test names it before step 25."""

import json
import random
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch

from etude import first_findings
from etude.audit import Audit
from etude.causes import NO_FAULT, Diagnosis, explain, find_causes, name_repeats
from etude.engine.invariants import Invariants
from etude.engine.loop import TrainState
from etude.models.decoder import Decoder
from etude.plan import make_plan
from etude.recipe.load import recipe_from
from etude.recipe.schema import Recipe
from etude.records.events import Finding
from etude.records.store import Run
from etude.run import run_recipe
from etude.start import Options
from etude.watch.detectors import collapse
from tests import parallel, recipes
from tests.objectives.sessions import begun

Make = Callable[..., Recipe]
WORDS = ("total", "value", "left", "right", "node", "count", "index", "item", "print", "result")


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def code(number: int) -> str:
    """A text of its own for each number."""
    draw = random.Random(number)
    names = draw.choices(WORDS, k=12)
    return f"def f{draw.randint(0, 999)}({names[0]}):\n    {' + '.join(names[1:])} * {draw.randint(0, 999)}\n"


def noise(number: int) -> str:
    return "".join(random.Random(number).choices("abcdefghijklmnopqrstuvwxyz", k=40))


def recipe(path: Path, changes: dict[str, Any] | None = None) -> Recipe:
    values = {
        "train.steps": 24, "train.seq_len": 64, "data.sample": "document", "evaluate.every_steps": 24,
        "optim.learning_rate": 1e-2, "train.global_batch_size": 16, "schedule.kind": "constant",
    }  # fmt: skip
    return recipe_from(recipes.tiny(path, {**values, **(changes or {})}))


def diagnose(
    given: Recipe, runs: Path, loss: parallel.Loss = parallel.right, *, is_causal: bool = True
) -> tuple[Diagnosis, float]:
    """The causes after 24 steps, all within the first epoch, and the last loss."""
    model = parallel.Parallel(512, is_causal=is_causal)
    with begun(given, runs, model=model, loss=loss) as session:
        steps = list(session.steps())
        before = {name: value.clone() for name, value in session.state.model.state_dict().items()}
        draws = torch.get_rng_state()
        found = find_causes(session.plan, session.state, session.options.own)
        assert all(before[name].equal(each) for name, each in session.state.model.state_dict().items())
        assert torch.get_rng_state().equal(draws) and session.state.model.training
    total, targets = steps[-1].measured[:2].tolist()
    return found, total / targets


@pytest.mark.parametrize(
    ("loss", "is_causal", "name"),
    [
        (parallel.unshifted, True, "labels_not_shifted"),
        (parallel.padding_scored, True, "padding_scored"),
        (parallel.right, False, "future_visible"),
        (parallel.mean_of_many, True, "loss_mis_scaled"),
    ],
)
def test_a_fault_of_loss_or_model_is_named_before_step_25(
    tmp_path: Path, loss: parallel.Loss, is_causal: bool, name: str
) -> None:
    rows = write(tmp_path / "rows.jsonl", [code(number) for number in range(600)])
    found, _ = diagnose(recipe(rows), tmp_path, loss, is_causal=is_causal)
    assert found.causes[0].name == name and found.causes[0].confidence >= 0.9


@pytest.mark.parametrize("validation", [None, "none"])
def test_rows_that_repeat_are_named_before_step_25(tmp_path: Path, validation: str | None) -> None:
    texts = [noise(number % 8) for number in range(600)] + [noise(number) for number in range(8, 12)]
    rows = write(tmp_path / "rows.jsonl", texts)
    changes: dict[str, Any] = {"data.validation": validation}
    if validation is None:
        held = write(tmp_path / "held.jsonl", [noise(number) for number in range(700, 730)])
        changes = {"data.validation": [{"path": str(held)}]}
    found, last = diagnose(recipe(rows, changes), tmp_path)
    assert last < 1
    assert [each.name for each in found.causes] == ["repeated_rows"]
    assert found.causes[0].changes == {"data.deduplicate": "exact"}
    assert found.causes[0].evidence.startswith("592 of 604 rows are copies of others; ")


def test_an_answer_in_its_prompt_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"instruction": f"Copy: {code(each)[:30]}", "output": code(each)[:30]} for each in range(600)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found, _ = diagnose(recipe(path, {"train.seq_len": 128}), tmp_path)
    assert found.causes[0].name == "answer_in_prompt"


@pytest.mark.parametrize("kind", ["counting", "one word", "two texts"])
def test_data_that_is_merely_easy_is_no_fault(tmp_path: Path, kind: str) -> None:
    texts = {
        "counting": ["".join(chr(97 + (n + place) % 26) for place in range(40 + n % 20)) for n in range(600)],
        "one word": [f"{n} " + "spam " * 20 for n in range(600)],
        "two texts": [f"{n}: " + ("abcdefghij" if n % 2 else "jihgfedcba") * 4 for n in range(600)],
    }[kind]
    changes = {"data.validation_ratio": 0.1, "tokenizer.train_vocab_size": 270}
    found, last = diagnose(recipe(write(tmp_path / "rows.jsonl", texts), changes), tmp_path)
    assert last < 1.4
    assert [each.name for each in found.causes] == [NO_FAULT]


def test_rows_that_came_again_are_learnt_by_heart(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", [code(number) for number in range(40)])
    found, _ = diagnose(recipe(rows, {"train.steps": 90, "data.validation_ratio": 0.2}), tmp_path)
    assert [each.name for each in found.causes] == ["memorised"]


def test_a_run_that_learns_as_it_should_has_no_cause(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", [code(number) for number in range(600)])
    found, _ = diagnose(recipe(rows, {"optim.learning_rate": 1e-3}), tmp_path)
    assert found.causes == []


def test_a_finding_takes_over_its_cause(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", [code(number) for number in range(600)])
    found, _ = diagnose(recipe(rows), tmp_path, parallel.unshifted)
    finding = Finding(24, "the loss fell", "loss 0.004", "look", causes=["a", "b"], confidence=0.4)
    told = explain(finding, found)
    assert told.causes[0] == collapse.COPIED and told.confidence == found.causes[0].confidence
    assert told.evidence.startswith("loss 0.004; the loss wants the token that the model reads at 100%")
    assert told.decided_by == "targets read from the gradient of the loss by its logits"
    nothing = Diagnosis([], {}, {})
    assert explain(finding, nothing) is finding


def test_etudes_own_model_needs_no_logits(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", ["abcdefgh" * 8 + str(number) for number in range(600)])
    with begun(recipe(rows, {"train.steps": 60, "tokenizer.train_vocab_size": 260}), tmp_path) as session:
        list(session.steps())
        found = find_causes(session.plan, session.state)
    assert [each.name for each in found.causes] == [NO_FAULT]
    assert isinstance(session.state, TrainState)


def test_a_run_that_collapses_tells_the_cause_with_the_finding(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", [code(number) for number in range(600)])
    changes = {"records.log_every_steps": 1, "optim.learning_rate": 3e-2, "evaluate.every_steps": 8}
    options = Options(runs=tmp_path / "runs", model=parallel.Parallel(512), loss=parallel.unshifted)
    run = run_recipe(recipe(rows, changes), options).run
    found = [entry.event for entry in run.ledger().entries if isinstance(entry.event, Finding)]
    told = {each.kind: each for each in found}
    assert found[0].kind == "labels_not_shifted" and found[0].step == 0
    assert told["first_pass_collapse"].causes[0] == collapse.COPIED
    assert told["first_pass_collapse"].step < 25 and "overfitting" not in told


def test_a_validation_loss_that_rises_has_copies_as_its_first_cause(tmp_path: Path) -> None:
    rows = [code(number) for number in range(80)]
    rises = Finding(
        20, "validation loss rises", "0.1 above", "fewer epochs", causes=["passes"], kind="overfitting"
    )
    for copies, is_named in ((0, False), (5, False), (20, True), (100, True)):
        given = recipe(
            write(tmp_path / f"{copies}.jsonl", rows + rows[:8] * (copies // 8) + rows[: copies % 8])
        )
        named = name_repeats(rises, make_plan(given))
        assert (named.causes == [collapse.REPEATED, "passes"]) is is_named
        assert named.changes == ({"data.deduplicate": "exact"} if is_named else {})
    assert "are copies of others; 0.1 above" in named.evidence


COMPILED = {"train.compile": True, "model.n_layer": 1}


@pytest.mark.parametrize(
    ("changes", "backend"),
    [
        pytest.param({}, None, id="plain"),
        pytest.param({"model.dropout": 0.2}, None, id="dropout"),
        pytest.param({"train.precision": "fp16"}, None, id="fp16"),
        pytest.param(COMPILED, "aot_eager", id="traced"),
        pytest.param(COMPILED, "inductor", id="compiled", marks=pytest.mark.slow),  # a minute
    ],
)
def test_a_run_whose_causes_are_sought_has_the_weights_of_one_without_any_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], backend: str | None
) -> None:
    monkeypatch.setattr(Decoder, "compile", partialmethod(Decoder.compile, backend=backend))
    rows = write(tmp_path / "rows.jsonl", [noise(number % 4) for number in range(1200)])
    held = write(tmp_path / "held.jsonl", [noise(number) for number in range(700, 716)])
    values = {
        "records.log_every_steps": 1,
        "train.steps": 60,
        "data.validation": [{"path": str(held)}],
        **changes,
    }
    watched = run_recipe(recipe(rows, values), Options(runs=tmp_path / "watched")).run
    found = [entry.event for entry in watched.ledger().entries if isinstance(entry.event, Finding)]
    (fall,) = (each for each in found if each.kind == "first_pass_collapse")
    assert fall.causes[0] == collapse.REPEATED and fall.step < 60
    monkeypatch.setattr(first_findings, "audit", lambda *given, **settings: Audit())
    monkeypatch.setattr(Invariants, "check", lambda rules, step: [])
    alone = run_recipe(recipe(rows, {**values, "watch.policy": "off"}), Options(runs=tmp_path / "alone")).run
    assert not [
        entry for entry in alone.ledger().entries if isinstance(entry.event, Finding) and entry.event.kind
    ]
    assert weights(watched) == weights(alone)


def weights(run: Run) -> bytes:
    return (run.checkpoints / "step-000060" / "model.safetensors").read_bytes()
