"""What a run is asked for while it goes on is answered and done, and changes no bit that was not asked for."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.control.mailbox import FILE, post
from etude.recipe.schema import Recipe
from etude.records.ending import Ending
from etude.records.events import CheckpointSaved, Control, Evaluation, Finding, Generation, Judgement, Step
from etude.records.store import Run, list_runs
from etude.run import Training, run_recipe
from etude.start import Options
from tests import recipes
from tests.bases import write_corpus, write_instructions, write_labelled, write_qwen2
from tests.programs import run_program
from tests.steered import steer

Make = Callable[..., Recipe]
STEPS = 10
HARMLESS: list[list[dict[str, Any]]] = [
    [{"action": "checkpoint"}], [{"action": "evaluate"}, {"action": "evaluate"}],
    [{"action": "pause"}, {"action": "evaluate"}, {"action": "generate", "text": "def "}, {"action": "resume"}],
    [{"action": "generate", "text": "def add"}], [{"action": "note", "text": "odd"}],
]  # fmt: skip


def pretraining(folder: Path) -> Recipe:
    return recipes.recipe_from(recipes.tiny(write_corpus(folder / "corpus.jsonl"), {"model.dropout": 0.1}))


def lora(folder: Path) -> Recipe:
    rows = write_instructions(folder / "rows.jsonl", 40)
    adapter = {"rank": 4, "alpha": 8.0, "targets": ["q_proj", "v_proj"], "dropout": 0.1}
    return recipes.finetuning(rows, write_qwen2(folder / "base"), {"adapter": adapter})


def labels(folder: Path) -> Recipe:
    return recipes.classification(write_labelled(folder / "rows.jsonl", 60), changes={"model.dropout": 0.1})


def short(recipe: Recipe) -> Recipe:
    changes = {
        "train.steps": STEPS,
        "evaluate.every_steps": 4,
        "evaluate.patience": 2,
        "checkpoint.every_steps": 5,
    }
    return recipes.recipe_from(recipes.change(recipe.to_dict(), {"records.log_every_steps": 1, **changes}))


def events(run: Run, kind: type) -> list[Any]:
    return [entry.event for entry in run.ledger().entries if isinstance(entry.event, kind)]


def answers(run: Run) -> list[tuple[str, int]]:
    """Actions and steps of what was done for requests."""
    return [
        (each.action, each.step) for each in events(run, Control) if each.request and each.action != "accept"
    ]


def outcome(run: Run) -> tuple[Any, ...]:
    """What a run comes to: its last weights and optimizer, the best, and what it measured and judged on its way."""
    last = max(run.checkpoints.iterdir(), key=lambda path: path.name)
    names = sorted(path.name for path in last.iterdir() if path.suffix == ".safetensors")
    measured = [(each.step, each.loss, each.best) for each in events(run, Evaluation) if not each.asked]
    losses = {each.step: (each.loss, each.grad_norm, each.learning_rate) for each in events(run, Step)}
    return [(last / name).read_bytes() for name in names], run.best, measured, losses, events(run, Judgement)


@pytest.mark.parametrize("build", [pretraining, lora, labels])
def test_a_run_that_is_asked_at_any_step_is_the_run_that_is_not(
    tmp_path: Path, build: Callable[[Path], Recipe]
) -> None:
    recipe, draw = short(build(tmp_path)), random.Random(build.__name__)
    whole = run_recipe(recipe, Options(runs=tmp_path / "whole")).run
    asked = {step: draw.choice(HARMLESS) for step in draw.sample(range(1, STEPS), 6)}
    stops = sorted(draw.sample(range(1, STEPS), 2))
    for turn, stop in enumerate(stops):
        how = {"action": "stop"} if turn else {"action": "pause", "release": True}
        now = {step: values for step, values in asked.items() if step <= stop}
        training = steer(recipe, tmp_path / "asked", {**now, stop: [*now.get(stop, ()), how]})
        if training.ending.state == "finished":  # its patience was at an end
            break
        assert training.ending.is_resumable and training.run.state == ("stopped" if turn else "paused")
        asked = {step: values for step, values in asked.items() if step > stop}
    run = steer(recipe, tmp_path / "asked", asked).run
    assert run.state == "finished" and outcome(run) == outcome(whole)
    # A stop that waits leaves an evaluation that was asked for before it.
    refused = [each.reason for each in events(run, Control) if each.action in ("refuse", "void")]
    assert all("writes no text" in each or "the run ends here" in each for each in refused), refused


def test_two_ranks_do_together_what_one_is_asked(tmp_path: Path, cache: Path) -> None:
    """They are stopped too, and go on in the same processes, which meet again for it."""
    recipe = short(pretraining(tmp_path))
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"devices": 2})})
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    every = {str(2 + turn): values for turn, values in enumerate([*HARMLESS, [{"action": "stop"}]])}
    words = [
        str(tmp_path / "recipe.json"),
        str(tmp_path / "whole"),
        "{}",
        str(tmp_path / "asked"),
        json.dumps(every),
    ]
    done = run_program("steered", words, cache, ranks=2)
    assert done.code == 0, done.err[-2000:]
    (whole,), (run,) = list_runs(tmp_path / "whole"), list_runs(tmp_path / "asked")
    assert outcome(run) == outcome(whole)
    assert answers(run) == [
        ("checkpoint", 2), ("evaluate", 3), ("evaluate", 3), ("pause", 4), ("evaluate", 4), ("generate", 4),
        ("resume", 4), ("generate", 5), ("note", 6), ("stop", 7),
    ]  # fmt: skip


def test_what_was_asked_for_is_in_the_record(tmp_path: Path, make_recipe: Make) -> None:
    asked = {
        2: [{"action": "checkpoint", "channel": "cli"}], 3: [{"action": "evaluate"}, {"action": "note", "text": "odd"}],
        4: [{"action": "generate", "text": "def add"}], 6: [{"action": "evaluate"}],
    }  # fmt: skip
    run = steer(make_recipe({"train.steps": 8, "checkpoint.keep": "all"}), tmp_path, asked).run
    assert answers(run) == [("checkpoint", 2), ("evaluate", 3), ("note", 3), ("generate", 4), ("evaluate", 6)]
    assert [each.step for each in events(run, CheckpointSaved)] == [2, 4, 6, 8]
    # After step 6 an evaluation was due: the figures are those.
    assert [(each.step, each.asked) for each in events(run, Evaluation)] == [
        (3, True),
        (6, False),
        (8, False),
    ]
    (text,) = events(run, Generation)
    controls = {each.step: each for each in events(run, Control) if each.action != "accept"}
    assert (text.step, text.prompt, text.text) == (4, "def add", controls[4].reason)
    assert controls[2].reason == "saved as step-000002" and controls[2].channel == "cli"
    assert "validation loss" in controls[6].reason and "@" in controls[2].who


def test_a_prompt_longer_than_the_context_costs_the_sample_and_no_step(
    tmp_path: Path, make_recipe: Make
) -> None:
    recipe = make_recipe()
    whole = run_recipe(recipe, Options(runs=tmp_path / "whole")).run
    long = {"action": "generate", "text": "a" * 9000}
    asked = {
        2: [long],
        4: [{"action": "pause"}, long, {"action": "resume"}],
        5: [{"action": "back", "key": "optim.learning_rate", "value": 1e-3, "step": 3}],
    }
    run = steer(recipe, tmp_path / "asked", asked).run
    refused = [each for each in events(run, Control) if each.action == "refuse"]
    assert [each.step for each in refused] == [2, 4, 5] and "shorten the prompt" in refused[1].reason
    assert outcome(run) == outcome(whole)


def test_without_validation_a_checkpoint_that_was_asked_for_judges_nothing(
    tmp_path: Path, make_recipe: Make
) -> None:
    recipe = make_recipe({"data.validation": "none"})
    whole = run_recipe(recipe, Options(runs=tmp_path / "whole")).run
    run = steer(recipe, tmp_path / "asked", {step: [{"action": "checkpoint"}] for step in range(1, 12)}).run
    assert outcome(run) == outcome(whole)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"action": "set", "key": "optim.learning_rate", "value": -1}, "it must be above 0; try 0.0002"),
        (
            {"action": "set", "key": "seed", "value": 3},
            "cannot be changed while a run goes on; etude train RECIPE seed=VALUE --from RUN@last",
        ),
        ({"action": "evaluate"}, "it has no validation samples"),
        ({"action": "resume"}, "the run is not paused"),
    ],
)
def test_what_a_run_cannot_do_is_refused_with_its_reason(
    tmp_path: Path, make_recipe: Make, values: dict[str, Any], says: str
) -> None:
    recipe = make_recipe({"data.validation": "none", "train.steps": 4})
    run = steer(recipe, tmp_path, {2: [values]}).run
    refused = next(each for each in events(run, Control) if each.action == "refuse")
    assert says in refused.reason and run.state == "finished"


def test_a_request_that_a_killed_attempt_accepted_is_void_and_the_same_id_acts_once(
    tmp_path: Path, make_recipe: Make
) -> None:
    recipe = make_recipe()
    training = Training(recipe, Options(runs=tmp_path))
    for step in training:
        if step.number == 5:
            break  # the caller stops iterating, and with that the run
    line = json.dumps({"id": "again", "action": "checkpoint"}) + "\n"
    (training.run.path / FILE).write_text(line)
    run = steer(recipe, tmp_path, {7: [{"action": "note", "text": "x"}]}).run
    with (run.path / FILE).open("a") as file:
        file.write(line)
    assert answers(run) == [("void", 5), ("note", 7)]


def test_a_mailbox_full_of_rubbish_costs_no_step(tmp_path: Path, make_recipe: Make) -> None:
    recipe = make_recipe()
    whole = run_recipe(recipe, Options(runs=tmp_path / "whole")).run
    training = Training(recipe, Options(runs=tmp_path / "asked"))
    rubbish = {
        2: b"".join(b'{"id": "r-%d", "action": "note", "text": "x"}\n' % each for each in range(10_000)),
        4: b"stop\n" + b'{"id": "x", "action": "rm -rf"}\n', 6: b"x" * 10_000_000 + b"\n",
    }  # fmt: skip
    for step in training:
        path = training.run.path / FILE
        if step.number in rubbish:
            with path.open("ab") as file:
                file.write(rubbish[step.number])
        if step.number == 8:
            path.unlink()
            path.symlink_to(tmp_path / "elsewhere")
    run = training.run
    assert training.ending == Ending("finished") and outcome(run) == outcome(whole)
    actions = [each.action for each in events(run, Control)]
    assert (actions.count("note"), actions.count("refuse")) == (100, 9_900)
    said = [each.evidence for each in events(run, Finding) if each.what == "a request cannot be read"]
    assert len(said) == 4 and all(
        any(words in each for each in said)
        for words in ("valid JSON", "'rm -rf'", "65,536 bytes", "is a link")
    )
    log = (run.path / "log.txt").read_text()
    assert all(each.partition(":")[0] in log for each in said)


def test_nobody_can_ask_a_run_that_waits_to_be_resumed_elsewhere(tmp_path: Path, make_recipe: Make) -> None:
    run = steer(make_recipe(), tmp_path, {3: [{"action": "pause", "release": True}]}).run
    assert run.state == "paused"
    with pytest.raises(Exception, match="is paused; only a run that is going on takes requests"):
        post(run, "resume")
