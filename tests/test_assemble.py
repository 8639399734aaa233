"""A model is put together with the weights that were asked for, and described so that others load it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from etude.assemble import model_files
from etude.errors import InputError
from etude.recipe.schema import Recipe
from etude.records.store import Run
from etude.run import run_recipe
from etude.start import Options
from tests.bases import write_qwen2
from tests.objectives.sessions import begun

Make = Callable[..., Recipe]
SHORT = {"train.steps": 4, "evaluate.every_steps": 4}


@pytest.fixture
def run(tmp_path: Path, make_recipe: Make) -> Run:
    return run_recipe(make_recipe(SHORT), Options(runs=tmp_path / "runs")).run


def test_a_run_begins_with_the_weights_of_another(run: Run, tmp_path: Path, make_recipe: Make) -> None:
    folder = run.checkpoints / "step-000004"
    options = {"weights": str(folder)}
    with begun(make_recipe({**SHORT, "seed": 5}), tmp_path / "other", **options) as session:
        weights = session.state.model.state_dict()
        saved = load_file(folder / "model.safetensors")
        assert saved and all(weights[name].equal(tensor) for name, tensor in saved.items())
        assert session.state.step == 0 and not session.examiner.is_fresh
    with begun(make_recipe({**SHORT, "seed": 5}), tmp_path / "fresh") as session:
        assert any(not session.state.model.state_dict()[name].equal(each) for name, each in saved.items())


def test_a_whole_model_is_no_adapter(run: Run, tmp_path: Path, make_recipe: Make) -> None:
    changes = {
        "model": {"from": str(write_qwen2(tmp_path / "base"))},
        "adapter": {"rank": 2},
        "tokenizer": {},
    }
    options = Options(runs=tmp_path / "tuned", weights=str(run.checkpoints / "step-000004"))
    with pytest.raises(
        InputError, match=r"holds a whole model, but it trains \[adapter\]; give weights of the"
    ):
        run_recipe(make_recipe({**SHORT, **changes}), options)
    assert not (tmp_path / "tuned").exists()


def test_the_files_beside_the_weights_make_a_model_that_transformers_loads(run: Run) -> None:
    folder = run.checkpoints / "step-000004"
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    saved = load_file(folder / "model.safetensors")
    state = loaded.state_dict()
    assert all(state[name].equal(tensor) for name, tensor in saved.items())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("def f(x):", return_tensors="pt").input_ids
    assert loaded(ids).logits.isfinite().all() and int(ids.max()) < loaded.config.vocab_size


def test_a_module_of_ones_own_has_the_files_of_its_tokenizer_only(tmp_path: Path, make_recipe: Make) -> None:
    model = torch.nn.Embedding(300, 300)

    def loss(model: torch.nn.Module, batch: object) -> tuple[torch.Tensor, int]:
        return model.weight.sum(), 1  # type: ignore[union-attr,operator]

    with begun(make_recipe(SHORT), tmp_path, model=model, loss=loss) as session:
        files = model_files(session.plan, session.state.model)
    assert "config.json" not in files and json.loads(files["tokenizer.json"])["model"]["type"] == "BPE"
