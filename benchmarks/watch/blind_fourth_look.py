"""Proof, with the watch off, that the faults of the fourth blind test are in their runs."""

import logging
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional

from etude import Options, Training
from etude.recipe.load import change, recipe_from
from watch.blind import Setup
from watch.blind_fourth_losses import IGNORED, plain, rows_of
from watch.blind_rows import Rows
from watch.grid import quick

Values = Callable[[Setup, str, int, Path], dict[str, Any]]


def look(setup: Setup, cause: str, shape: str, seed: int, is_twin: bool, values: Values) -> dict[str, Any]:
    """Figures of the rows and of the first batch of a run; cause says which of them is to be off."""
    found: dict[str, Any] = {"cause": cause, "case": f"{shape}-{seed}", "twin": is_twin}
    if cause == "rows repeated":
        found |= _repeats(setup.rows)
    elif cause == "answer in the prompt":
        found |= _leaks(setup.rows)
    first, seen = list[Any](), setup.loss

    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        first[:] = [model, batch]
        return (seen or plain())(model, batch)

    logging.disable()  # tests before step 0 run with the watch off, too, and are not to be heard here
    losses = list[float]()
    is_brought = setup.loss is not None or cause == "future visible"
    with quick(), tempfile.TemporaryDirectory() as home, setup.broken():
        recipe = recipe_from(
            change(values(setup, shape, seed, Path(home)), setup.values | {"watch.policy": "off"})
        )
        options = Options(Path(home) / "runs", new=True, loss=loss if is_brought else None, model=setup.model)
        for step in Training(recipe, options):
            losses.append(round(float(step.measured[0] / step.measured[1]), 3))
            if step.number == 20:
                break
        if first:
            found |= _of_batch(seen or plain(), *first)
    return found | {"loss": losses[::5]}


def _of_batch(loss: Callable[[nn.Module, Any], Any], model: Any, batch: Any) -> dict[str, Any]:
    """Places of targets, share of scored places without a target, loss by hand, and sight of the future."""
    logits, targets, (total, count) = _caught(loss, model, batch)
    scored, given = targets != IGNORED, torch.cat(rows_of(batch)[1]) if batch.classes is None else None
    each = functional.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORED)
    found: dict[str, Any] = {
        "scored": int(scored.sum()),
        "loss_over_mean": round(float(total / count) / float(each[scored].mean()), 3),
    }
    if given is not None:
        found["targets_of_batch"] = int((given != IGNORED).sum())
        found["first_targets"] = targets[scored][:4].tolist()
        found["first_tokens"] = rows_of(batch)[0][0][:6].tolist()
        found["first_labels"] = rows_of(batch)[1][0][:6].tolist()
        found["sees_future"] = _sees_future(loss, model, batch)
    return found


def _caught(loss: Callable[[nn.Module, Any], Any], model: Any, batch: Any) -> tuple[Tensor, Tensor, Any]:
    """Logits and targets that a loss gives to cross entropy."""
    kept, true = list[tuple[Tensor, Tensor]](), functional.cross_entropy

    def entropy(logits: Tensor, targets: Tensor, *given: Any, **named: Any) -> Tensor:
        kept.append((logits.detach(), targets))
        return true(logits, targets, *given, **named)

    with patch.object(functional, "cross_entropy", entropy), torch.no_grad():
        if hasattr(model, "config") and hasattr(model, "loss_function"):
            model.loss_function = lambda logits, labels, *given, **named: entropy(
                logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED
            )
        result = loss(model, batch)
    return torch.cat([logits for logits, _ in kept]), torch.cat([targets for _, targets in kept]), result


def _sees_future(loss: Callable[[nn.Module, Any], Any], model: Any, batch: Any) -> float:
    """Largest change of logits of places before the last token of the first sample, when that is another."""
    from dataclasses import replace

    tokens, labels = rows_of(batch)
    if batch.target_lengths is None:
        last = len(tokens[0]) - 1
        changed = batch.tokens.clone()
        changed[0, last] = (changed[0, last] + 1) % 500
        other = replace(batch, tokens=changed)
    else:  # the target before the last is an input at the last place
        last = len(labels[0]) - 1
        changed = batch.labels.clone()
        changed[0, last - 1] = (changed[0, last - 1] + 1) % 500
        other = replace(batch, labels=changed)
    before, after = (_caught(loss, model, each)[0] for each in (batch, other))
    places = min(last, len(before))
    return round(float((before[:places] - after[:places]).abs().max()), 6)


def _repeats(rows: Rows) -> dict[str, Any]:
    """Rows, those that are another's exactly, and those whose letters and digits in the middle are another's."""

    def text(row: Any) -> str:
        return str(
            row.get("text") or row.get("output") or row.get("target") or row.get("code") or row["messages"][1]
        )

    exact = Counter(text(row) for row in rows)
    loose = Counter(re.sub(r"\W|[A-Z]", "", text(row))[-40:] for row in rows)
    return {"rows": len(rows), "distinct": len(exact), "distinct_loosely": len(loose)}


def _leaks(rows: Rows) -> dict[str, Any]:
    """Share of rows whose answer stands in what is read before it, but for white space and escapes."""

    def bare(text: str) -> str:
        return re.sub(r"[\s\\]", "", text.replace("\\n", "\n").replace("\\t", "\t"))

    inside = 0
    for row in rows:
        if "messages" in row:
            asked, answer = (
                str([turn["content"] for turn in row["messages"][:-1]]),
                row["messages"][-1]["content"],
            )
        else:
            asked = row.get("prompt") or row.get("instruction") or row.get("source") or row["code"]
            answer = row.get("completion") or row.get("output") or row.get("target") or row["label"]
        if "label" in row:
            answer = "bad" if row["label"] == "1" else "good"
        inside += bare(answer) in bare(asked)
    return {"rows": len(rows), "answers_inside": round(inside / len(rows), 3)}
