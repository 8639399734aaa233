"""A model, loss and metrics of one's own get what they are promised; what would not be measured
is refused."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import etude as api
from etude.engine.batch import DeviceBatch
from etude.errors import InputError
from etude.recipe.schema import Recipe
from etude.records.events import Control, Evaluation
from etude.records.store import Run, list_runs
from etude.run import Training, run_recipe
from etude.start import Options
from tests.bases import write_encoder, write_gptj, write_labelled, write_qwen2
from tests.bigram import Bigram, accuracy, bigram_loss

Make = Callable[..., Recipe]


def evaluations(run: Run) -> list[Evaluation]:
    return [entry.event for entry in run.ledger().entries if isinstance(entry.event, Evaluation)]


def wrong(model: nn.Module, batches: Iterable[DeviceBatch]) -> float:
    """The share of wrong tokens: of the model as it is used."""
    assert not model.training and not torch.is_grad_enabled()
    return 1 - accuracy(model, batches)


def labelled(make_recipe: Make, rows: Path, changes: dict[str, Any] | None = None) -> Recipe:
    return make_recipe({
        "model": {"kind": "encoder", "n_layer": 1, "n_embd": 32, "n_head": 2},
        "train.objective": "classification", "data.train": [{"path": str(rows), "label": "label"}],
        "train.steps": 2, **(changes or {}),
    })  # fmt: skip


def label_loss(model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, int]:
    raise AssertionError("never called: the plan is refused before")


def test_a_metric_gets_what_a_loss_gets_and_says_which_way_is_better(
    tmp_path: Path, make_recipe: Make
) -> None:
    recipe = make_recipe({"evaluate.metric": "wrong", "optim.learning_rate": 0.1, "evaluate.every_steps": 3})
    torch.manual_seed(0)
    options = Options(
        runs=tmp_path, model=Bigram(), loss=bigram_loss,
        metrics={"wrong": api.Metric(wrong, lower_is_better=True), "accuracy": accuracy},
    )  # fmt: skip
    run = run_recipe(recipe, options).run
    found = [evaluation.metrics for evaluation in evaluations(run)]
    assert all(each["wrong"] == pytest.approx(1 - each["accuracy"]) for each in found)
    values = [each["wrong"] for each in found]
    assert values[-1] < values[0] and run.best is not None and run.best["value"] == min(values)
    assert run.environment["own_code"]["metric wrong"].startswith("tests.test_own.wrong ")


def broken_loss(model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, int]:
    return model(batch.tokens).nonsense, 1  # line of the user


def mean_loss(model: nn.Module, batch: DeviceBatch) -> torch.Tensor:
    return model(batch.tokens).mean()  # type: ignore[no-any-return]


def rows_loss(model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, int]:
    return model(batch.tokens).sum(dim=(1, 2)), 1


def detached_loss(model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, int]:
    return model(batch.tokens).sum().detach(), 1


def no_number(model: nn.Module, batches: Iterable[DeviceBatch]) -> Any:
    return None


class Broken(Bigram):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        raise ValueError("not yet written")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"loss": broken_loss},
            r"your loss broken_loss failed at test_own.py:\d+: AttributeError: .*nonsense",
        ),
        ({"loss": mean_loss}, r"your loss mean_loss failed at test_own.py:\d+: "),
        (
            {"loss": rows_loss},
            r"your loss rows_loss failed at test_own.py:\d+: TypeError: .* expected a sum and a number",
        ),
        ({"loss": detached_loss}, "without gradient"),
        (
            {"model": Broken()},
            r"your loss bigram_loss failed at test_own.py:\d+: ValueError: not yet written",
        ),
        (
            {"metrics": {"none": no_number}},
            r"your metric none no_number failed at test_own.py:\d+: .* not a number",
        ),
    ],
)
def test_own_code_is_tried_before_anything_is_written(
    tmp_path: Path, make_recipe: Make, given: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says) as caught:
        run_recipe(
            make_recipe(),
            Options(**{"runs": tmp_path / "runs", "model": Bigram(), "loss": bigram_loss, **given}),
        )
    assert (
        not (tmp_path / "runs").exists() and len(str(caught.value)) <= 300 and "\n" not in str(caught.value)
    )


class FewPlaces(Bigram):
    """A module that has 64 places, and takes what lies end to end for one text."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().forward(tokens) + 0 * torch.zeros(64)[torch.arange(tokens.shape[1])][:, None]


def test_the_longest_batch_of_an_epoch_is_tried_too(tmp_path: Path, make_recipe: Make) -> None:
    options = Options(runs=tmp_path / "runs", model=FewPlaces(), loss=bigram_loss)
    says = (
        r"your loss bigram_loss failed at test_own.py:\d+: IndexError: .*; in step \d+ samples of other lengths "
        r"lie end to end in one row of \d{3} tokens: part it by batch.lengths"
    )
    with pytest.raises(InputError, match=says):
        run_recipe(make_recipe(), options)
    assert not (tmp_path / "runs").exists()
    run_recipe(make_recipe({"train.micro_batch_size": 1}), options)


class Failing:
    """A loss, or a metric, that fails when training, or evaluation, calls it for the third time."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *given: Any) -> Any:
        self.calls += given[0].training == (self.function is bigram_loss)
        return {}["gone"] if self.calls == 3 else self.function(*given)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"loss": Failing(bigram_loss)}, "your loss Failing failed at "),
        ({"metrics": {"m": Failing(accuracy)}}, "your metric m Failing failed at "),
        ({"metrics": {"Failing": Failing(accuracy)}}, "your metric Failing failed at "),
    ],
)
def test_own_code_that_fails_in_a_run_is_named_and_the_same_call_goes_on(
    bad: dict[str, Any], says: str, tmp_path: Path, make_recipe: Make
) -> None:
    good: dict[str, Any] = {"model": Bigram(), "loss": bigram_loss, "metrics": dict.fromkeys(
        bad.get("metrics", {}), accuracy
    )}  # fmt: skip
    recipe = make_recipe({"train.steps": 8, "evaluate.every_steps": 3, "checkpoint.every_steps": 1})
    with pytest.raises(InputError, match=rf"^{says}test_own.py:\d+: KeyError: 'gone'$"):
        run_recipe(recipe, Options(runs=tmp_path, **good | bad))
    (run,) = list_runs(tmp_path)
    (failure,) = (entry.event for entry in run.ledger().entries if isinstance(entry.event, Control))
    assert run.state == "failed" and failure.action == "fail" and failure.reason.startswith(says)
    assert run_recipe(recipe, Options(runs=tmp_path, **good)).run.state == "finished"
    assert len(list_runs(tmp_path)) == 1


def test_the_trial_changes_no_bit_of_a_run(tmp_path: Path, make_recipe: Make) -> None:
    runs = []
    for name, metrics in (("with", {"accuracy": accuracy}), ("without", {})):
        torch.manual_seed(0)
        options = Options(runs=tmp_path / name, model=Bigram(), loss=bigram_loss, metrics=metrics)  # type: ignore[arg-type]
        runs.append(run_recipe(make_recipe({"train.steps": 3}), options).run)
    first, second = ((run.checkpoints / "step-000003" / "model.safetensors").read_bytes() for run in runs)
    assert first == second


@pytest.mark.parametrize(
    ("changes", "given", "says"),
    [
        ({"evaluate.metric": "f1"}, {"loss": label_loss}, 'evaluate.metric is "f1"; this run knows loss'),
        ({"evaluate.metric": "accuracy"}, {"loss": label_loss}, 'evaluate.metric is "accuracy"; this run knows loss'),
        ({"loss.label_smoothing": 0.1}, {"loss": label_loss}, "loss.label_smoothing has no effect beside a loss of"),
        ({}, {"metrics": {"f1": accuracy}}, "metric f1 of your own has the name of a figure of the run"),
        ({}, {"metrics": {"mine": 3}}, "metric mine of your own is a number; give a function"),
        ({"data.validation": "none"}, {"metrics": {"mine": accuracy}}, "metrics of your own need data for validation"),
        (
            {"evaluate.metric": "my_loss"}, {"metrics": {"my_loss": accuracy}},
            r"evaluate.metric is my_loss, .* as Metric\(accuracy, lower_is_better=True\)",
        ),
    ],
)  # fmt: skip
def test_what_would_not_be_measured_is_refused_before_the_first_step(
    tmp_path: Path, make_recipe: Make, changes: dict[str, Any], given: dict[str, Any], says: str
) -> None:
    rows = write_labelled(tmp_path / "rows.jsonl", 60)
    with pytest.raises(InputError, match=says):
        run_recipe(labelled(make_recipe, rows, changes), Options(runs=tmp_path / "runs", **given))
    assert not (tmp_path / "runs").exists()


def test_text_of_a_model_of_ones_own_is_refused(tmp_path: Path, make_recipe: Make) -> None:
    recipe = make_recipe({"evaluate.prompts": ["def "]})
    with pytest.raises(
        InputError, match=r"evaluate\.prompts and answers need a model that writes, not one of your own"
    ):
        run_recipe(recipe, Options(runs=tmp_path / "runs", model=Bigram(), loss=bigram_loss))


def test_a_loss_of_ones_own_beside_tasks_is_refused_and_a_metric_sees_all_tasks(
    tmp_path: Path, make_recipe: Make
) -> None:
    encoder = write_encoder(tmp_path / "encoder", masked=True)
    rows = write_labelled(tmp_path / "rows.jsonl", 60)
    recipe = make_recipe({
        "model": {"from": str(encoder)}, "tokenizer": {}, "train.steps": 2, "data.sample": "document",
        "tasks": {"kinds": {"objective": "classification"}, "text": {"objective": "masked"}},
        "data.train": [{"path": str(rows), "label": "label", "task": "kinds"}, {"path": str(rows), "task": "text"}],
    })  # fmt: skip
    with pytest.raises(InputError, match=r"a loss of your own is for one task, but the recipe has \[tasks\]"):
        run_recipe(recipe, Options(runs=tmp_path / "runs", loss=label_loss))
    seen: set[str] = set()

    def count(model: nn.Module, batches: Iterable[DeviceBatch]) -> float:
        names = [batch.task for batch in batches]
        seen.update(names)
        return len(names)

    run_recipe(recipe, Options(runs=tmp_path / "runs", metrics={"count": count}))
    assert seen == {"kinds", "text"}


def own_loss(model: nn.Module, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """As docs/quickstart.md shows it."""
    scored = batch.labels != -100
    logits = api.logits(model, batch)[scored].float()
    return nn.functional.cross_entropy(logits, batch.labels[scored], reduction="sum"), scored.sum()


def error_rate(model: nn.Module, batches: Iterable[DeviceBatch]) -> float:
    wrong = targets = 0
    for batch in batches:
        scored = batch.labels != -100
        wrong += int((api.logits(model, batch).argmax(-1) != batch.labels)[scored].sum())
        targets += int(scored.sum())
    return wrong / targets


@pytest.mark.parametrize("sample", ["row", "document"])
@pytest.mark.parametrize("base", [None, write_qwen2, write_gptj])
def test_the_loss_of_the_docs_is_the_loss_of_the_run(
    base: Callable[[Path], Path] | None, sample: str, tmp_path: Path, make_recipe: Make
) -> None:
    changes: dict[str, Any] = {"train.steps": 4, "data.sample": sample, "evaluate.every_steps": 4}
    if base is not None:
        changes |= {"model": {"from": str(base(tmp_path / "base"))}, "tokenizer": {}}
    recipe = make_recipe(changes)
    mine = Options(runs=tmp_path / "own", loss=own_loss, metrics={"error_rate": error_rate})
    ours, theirs = (
        [float(step.measured[0] / step.measured[1]) for step in Training(recipe, options)]
        for options in (mine, Options(runs=tmp_path / "plain"))
    )
    assert ours == pytest.approx(theirs, rel=1e-5)
    (run,) = list_runs(tmp_path / "own")
    assert 0.0 < evaluations(run)[-1].metrics["error_rate"] <= 1.0


def test_a_model_that_answers_otherwise_is_told_to_bring_a_loss(tmp_path: Path, make_recipe: Make) -> None:
    with pytest.raises(
        InputError,
        match=r"your model Linear failed .*without Options\(loss=...\) it must be a model of transformers",
    ):
        run_recipe(make_recipe(), Options(runs=tmp_path, model=nn.Linear(3, 3)))
