"""Models that transformers builds: found, loaded and refused."""

import json
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.errors import InputError
from etude.models.families.foreign import read_config
from etude.models.foreign import scored_logits
from etude.models.pretrained import inspect_model, load_pretrained
from tests.bases import write_gpt2, write_model
from tests.models.folders import THEIRS, change, draw_tokens


@pytest.mark.parametrize("model_type", ["roberta", "bert-generation", "xlnet", "bart"])
def test_a_model_that_sees_what_it_predicts_is_refused(model_type: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    if model_type in ("bart", "xlnet"):
        sizes = {
            "vocab_size": 61,
            "d_model": 32,
            "n_layer": 1,
            "n_head": 2,
            "encoder_layers": 1,
            "decoder_layers": 1,
        }
    config, published = (AutoConfig.for_model(model_type, **sizes, pad_token_id=0) for _ in range(2))
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    published.save_pretrained(tmp_path)  # Bart's causal class has made its own one a decoder's
    with pytest.raises(InputError, match="does not predict the next token"):
        inspect_model(tmp_path)


def test_an_encoder_made_a_decoder_is_a_causal_model(tmp_path: Path) -> None:
    sizes = {
        "vocab_size": 61,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "is_decoder": True,
    }
    write_model(tmp_path, "roberta", sizes)
    model = load_pretrained(inspect_model(tmp_path), dtype=torch.float32, dropout=0.0)[0].eval()
    tokens = draw_tokens()
    other = tokens.clone()
    other[:, -1] = (other[:, -1] + 1) % 61
    with torch.no_grad():
        assert torch.equal(model(tokens).logits[:, :-1], model(other).logits[:, :-1])


@pytest.mark.parametrize(("model_type", "changes"), THEIRS.values(), ids=THEIRS)
def test_other_families_run_through_transformers_and_keep_samples_apart(
    model_type: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    theirs = write_model(tmp_path, model_type, changes)
    pretrained = inspect_model(tmp_path)
    assert pretrained.reason
    model = load_pretrained(pretrained, dtype=torch.float32, dropout=0.0)[0].eval()
    lengths, tokens = (9, 4, 7), draw_tokens()[:1]
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    scored = torch.tensor([0, 5, 8, 9, 12, 13, 19])
    with torch.no_grad():
        alone = torch.cat([theirs(part).logits[0] for part in tokens.split(lengths, dim=1)])
        ours = scored_logits(model, tokens, positions, lengths, scored)
        assert (ours - alone[scored]).abs().max() < 1e-5 * alone.abs().max()
        rows = scored_logits(model, draw_tokens(), None, None, None)
        assert (rows - theirs(draw_tokens()).logits.flatten(0, 1)).abs().max() < 1e-5 * rows.abs().max()
    assert pretrained.parameters["total"] == sum(parameter.numel() for parameter in theirs.parameters())


def test_dropout_is_the_recipes_and_not_the_files(tmp_path: Path) -> None:
    write_model(tmp_path, *THEIRS["gpt2"])
    for dropout in (0.0, 0.3):
        model = load_pretrained(inspect_model(tmp_path), dtype=torch.float32, dropout=dropout)[0].train()
        once, again = (scored_logits(model, draw_tokens(), None, None, None) for _ in range(2))
        assert torch.equal(once, again) is (dropout == 0.0)


@pytest.mark.parametrize(
    "key", ["_attn_implementation", "attn_implementation", "_attn_implementation_internal"]
)
def test_a_file_does_not_choose_the_code_that_runs(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path, *THEIRS["gpt2"])
    change(tmp_path, dict.fromkeys((key, "_experts_implementation"), "kernels-community/canary"))
    asked: list[Any] = []
    monkeypatch.setattr(
        "transformers.modeling_utils.lazy_import_flash_attention", lambda *given, **_: asked.append(given)
    )
    model: Any = load_pretrained(inspect_model(tmp_path), dtype=torch.float32, dropout=0.0)[0]
    assert not asked and model.config._attn_implementation in ("sdpa", "eager")
    classifier = replace(inspect_model(tmp_path, "classification"), labels=2)
    load_pretrained(classifier, dtype=torch.float32, dropout=0.0, seed=1)
    assert not asked


def test_shapes_of_other_families_are_checked_before_anything_is_loaded(tmp_path: Path) -> None:
    write_model(tmp_path, *THEIRS["gpt2"])
    change(tmp_path, {"n_positions": 32})
    with pytest.raises(InputError, match=r"wpe.weight is \[64, 32\], but config.json says \[32, 32\]"):
        inspect_model(tmp_path, "causal")


def test_a_configuration_that_libraries_would_fill_the_memory_with_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etude.models.families.foreign._CONFIG_BYTES", 1 << 28)
    folder = write_gpt2(tmp_path / "model")
    values = json.loads((folder / "config.json").read_text())
    odd = {"model_type": "gpt_neo", "attention_types": [[["global", "local"], 10**9]], "num_layers": 2}
    for said in (values | {"num_labels": 10**9}, odd):
        (folder / "config.json").write_text(json.dumps(said))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(InputError, match=r"cannot read config\.json .it takes more than 256 MiB"):
            read_config(folder)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20
        assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
