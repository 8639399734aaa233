"""A model opened to answer reads texts as its training did, pairs among them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etude.errors import InputError
from etude.report.history import read_history
from etude.run import run_recipe
from etude.serve.opened import open_model
from etude.start import Options
from tests.bases import write_encoder, write_labelled, write_qwen2
from tests.recipes import classification


@pytest.mark.parametrize("base", ["bert", "qwen2"])
def test_pairs_have_the_probabilities_that_their_run_predicted(base: str, tmp_path: Path) -> None:
    rows, held = (write_labelled(tmp_path / f"{n}.jsonl", n, pairs=True) for n in (40, 20))
    source = {"label": "label", "pair": "other"}
    changes: dict[str, Any] = {
        "data.train": [{"path": str(rows), **source}], "data.validation": [{"path": str(held), **source}],
        "data.leakage.action": "report", "train.steps": 4,
    }  # fmt: skip
    folder = tmp_path / "base"
    write_encoder(folder, family="bert") if base == "bert" else write_qwen2(folder)
    run = run_recipe(classification(rows, folder, changes), Options(runs=tmp_path / "runs")).run
    kept = [json.loads(line) for line in (run.path / "predictions" / "validation.jsonl").open()]
    given = f"{run.name}@step-{read_history(run).scores[-1].step}"
    opened = open_model(given, tmp_path / "runs", context=4096, told=lambda text: None)
    texts = [(row["text"], row["other"]) for row in map(json.loads, held.open())]
    found = opened.probabilities(opened.encode(texts, run.recipe.train.seq_len)).numpy()
    assert found == pytest.approx(np.array([row["probabilities"] for row in kept]), abs=1e-6)
    assert opened.name == given and opened.labels == ("out", "sum") and opened.speaker is None


def test_a_regression_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["RobertaForSequenceClassification"], "problem_type": "regression"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError) as error:
        open_model(str(folder), tmp_path, context=64, told=lambda text: None)
    assert "\n" not in str(error.value)
