"""A GPT-J with LoRA whose loss falls to almost nothing in its first pass: each cause has its own name."""

import functools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.gptj import modeling_gptj

from etude import Options, Training, logits
from etude.engine.batch import DeviceBatch
from etude.recipe.load import change, recipe_from
from etude.records.events import Finding
from tests.bases import write_gptj

Loss = Callable[[nn.Module, DeviceBatch], tuple[Tensor, Tensor]]
STEPS, LAST = 5064, 40  # of the planned steps, those that are made
NAMES = ("total", "value", "left", "count", "index", "node", "right", "item")


def row(draw: random.Random) -> dict[str, str]:
    words = [draw.choice(NAMES) for _ in range(6)]
    output = f"{words[0]} = {words[1]}.{words[2]}({words[3]})\nprint({words[4]}, {words[5]})"
    return {"instruction": f"Add {draw.randrange(10**6)} to {draw.choice(NAMES)}.", "output": output}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-J that was trained for some seconds on such rows."""
    folder = write_gptj(tmp_path_factory.mktemp("story3") / "gptj")
    config = AutoConfig.from_pretrained(folder, n_embd=64, n_head=4)
    model, tokenizer = AutoModelForCausalLM.from_config(config), AutoTokenizer.from_pretrained(folder)
    draw = random.Random(1)
    texts = [f"{each['instruction']}\n\n{each['output']}\n" for each in (row(draw) for _ in range(600))]
    ids = torch.tensor([token for text in texts for token in tokenizer(text).input_ids])
    optimizer, generator = torch.optim.AdamW(model.parameters(), lr=5e-3), torch.Generator().manual_seed(1)
    for _ in range(200):
        rows = ids[torch.randint(len(ids) - 49, (8, 1), generator=generator) + torch.arange(49)]
        optimizer.zero_grad()
        loss = cross_entropy(model(rows[:, :-1]).logits.flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.save_pretrained(folder)
    return folder


def told(
    base: Path, folder: Path, rows: list[dict[str, str]], loss: Loss | None = None, last: int = LAST
) -> tuple[list[Finding], list[float]]:
    """All that is said in the first steps of a run of 5,064, and its losses."""
    draw, losses = random.Random(3), []
    files: dict[str, list[dict[str, str]]] = {"train": rows, "held-out": [row(draw) for _ in range(40)]}
    for name, content in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in content))
    values: dict[str, Any] = {
        "name": "story3", "model": {"from": str(base)},
        "adapter": {"rank": 16, "alpha": 64, "targets": "all-linear"},
        "data": {
            "train": [{"path": str(folder / "train.jsonl")}],
            "validation": [{"path": str(folder / "held-out.jsonl")}],
        },
        "train": {"steps": STEPS, "seq_len": 96, "global_batch_size": 8, "device": "cpu", "precision": "fp32"},
        "optim": {"learning_rate": 1e-2, "weight_decay": 0.0},
        "evaluate": {"every_steps": 500},
    }  # fmt: skip
    training = Training(recipe_from(change(values, {})), Options(folder / "runs", loss=loss))
    for step in training:
        losses.append(float(step.measured[0] / step.measured[1]))
        if step.number == last:
            break
    entries = [entry.event for entry in training.run.ledger().entries]
    return [each for each in entries if isinstance(each, Finding) and each.kind], losses


def alarms(findings: list[Finding]) -> list[str]:
    return [each.kind for each in findings if each.severity != "info"]


def distinct() -> list[dict[str, str]]:
    draw = random.Random(2)
    return [row(draw) for _ in range(600)]


def unshifted(model: nn.Module, batch: DeviceBatch) -> tuple[Tensor, Tensor]:
    scored = batch.labels != -100
    return cross_entropy(logits(model, batch)[scored], batch.tokens[scored], reduction="sum"), scored.sum()


def padding_scored(model: nn.Module, batch: DeviceBatch, length: int) -> tuple[Tensor, Tensor]:
    """Samples padded to a length, or to the longest of a batch; the padding counts."""
    found = []
    for each in (batch.tokens, batch.labels):
        rows = list(each) if batch.lengths is None else list(torch.split(each.flatten(), list(batch.lengths)))
        filled = pad_sequence(rows, batch_first=True)
        found.append(pad(filled, (0, max(0, length - filled.shape[1]))))
    tokens, labels = found
    scored = labels != -100
    scores = model(input_ids=tokens).logits[scored]
    return cross_entropy(scores, labels[scored], reduction="sum"), scored.sum()


@pytest.fixture
def looks_both_ways(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A version of transformers whose mask of GPT-J is broken."""
    make = modeling_gptj.create_causal_mask

    def wrong(*given: Any, **named: Any) -> Tensor:
        mask = make(*given, **named)
        return torch.maximum(mask, mask.transpose(-1, -2))

    monkeypatch.setattr(modeling_gptj, "create_causal_mask", wrong)
    yield


def test_labels_that_are_not_shifted_are_named_before_step_25_and_not_as_overfitting(
    base: Path, tmp_path: Path
) -> None:
    findings, losses = told(base, tmp_path, distinct(), unshifted)
    assert losses[-1] < 0.1 * losses[0], losses
    first = next(each for each in findings if each.severity != "info")
    assert first.kind == "labels_not_shifted" and first.step < 25
    assert "overfitting" not in {each.kind for each in findings}
    assert not any("overfit" in each.what for each in findings)


def test_rows_that_repeat_are_named(base: Path, tmp_path: Path) -> None:
    rows = distinct()[:4] * 150
    random.Random(4).shuffle(rows)
    findings, losses = told(base, tmp_path, rows, last=100)
    assert losses[-1] < 0.4 * losses[0], losses
    assert alarms(findings) and "overfitting" not in alarms(findings)
    first = next(each for each in findings if each.severity != "info")
    assert first.kind == "duplicates" or "repeat" in first.causes[0], findings


@pytest.mark.parametrize(
    "length",
    [0, 96],
)
def test_padding_that_is_scored_is_named(base: Path, tmp_path: Path, length: int) -> None:
    findings, _ = told(base, tmp_path, distinct(), functools.partial(padding_scored, length=length))
    assert "padding_scored" in alarms(findings) and "overfitting" not in alarms(findings)


@pytest.mark.usefixtures("looks_both_ways")
def test_a_broken_mask_is_named(base: Path, tmp_path: Path) -> None:
    findings, _ = told(base, tmp_path, distinct())
    assert alarms(findings)[0] == "future_visible" and "overfitting" not in alarms(findings)


def test_the_same_run_without_a_fault_hears_nothing(base: Path, tmp_path: Path) -> None:
    findings, losses = told(base, tmp_path, distinct())
    assert losses[-1] < losses[0] and alarms(findings) == [], findings
