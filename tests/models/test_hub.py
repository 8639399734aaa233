"""Pretrained models: found, looked at, loaded, and refused."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from etude.errors import InputError
from etude.models.decoder import Decoder
from etude.models.foreign import scored_logits
from etude.models.hub import find_model
from etude.models.parts import find_targets
from etude.models.pretrained import count_lora, inspect_model, load_pretrained
from etude.models.t5_config import T5Config
from tests.bases import SMALL, write_model, write_t5

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("qwen2", {}),
    "qwen2 tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2 mixed windows": (
        "qwen2",
        {
            "use_sliding_window": True,
            "sliding_window": 6,
            "layer_types": ["full_attention", "sliding_attention"],
        },
    ),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "qwen3 biased": ("qwen3", {"head_dim": 16, "attention_bias": True}),
    "llama": ("llama", {"head_dim": 12}),
    "llama biased": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama3 scaling": ("llama", {"rope_parameters": LLAMA3}),
    "yarn scaling": ("qwen2", {"rope_parameters": YARN}),
    "yarn with mscale": ("llama", {"rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 0.5}}),
    "linear scaling": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
    ),
    "mistral": ("mistral", {"sliding_window": 7}),
}
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"vocab_size": 61, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}),
    "gptj": (
        "gptj",
        {"vocab_size": 61, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4},
    ),
    "gpt_neox": ("gpt_neox", SMALL),
    "starcoder2": ("starcoder2", SMALL),
    "gemma": ("gemma", SMALL | {"head_dim": 8}),
    "phi": ("phi", SMALL),
    "starcoder2 with a window": ("starcoder2", SMALL | {"sliding_window": 3}),
    "gemma2": ("gemma2", SMALL | {"head_dim": 8, "sliding_window": 3}),
    "mixtral with a window": ("mixtral", SMALL | {"num_local_experts": 2, "sliding_window": 3}),
    "llama with another activation": ("llama", SMALL | {"hidden_act": "gelu"}),
    "llama with dynamic scaling": (
        "llama",
        SMALL | {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
    ),
}


@pytest.mark.parametrize(("model_type", "changes"), OURS.values(), ids=OURS)
def test_logits_of_a_loaded_decoder_are_those_of_transformers(
    model_type: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    theirs = write_model(tmp_path, model_type, SMALL | changes)
    pretrained = inspect_model(tmp_path)
    assert pretrained.reason is None
    model = load_pretrained(pretrained, dtype=torch.float32, dropout=0.0)[0].eval()
    assert isinstance(model, Decoder)
    tokens = _tokens()
    with torch.no_grad():
        ours, expected = model.logits(tokens), theirs(tokens).logits
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()
    total = sum(parameter.numel() for parameter in model.parameters())
    assert (
        pretrained.parameters["total"] == total == sum(parameter.numel() for parameter in theirs.parameters())
    )


@pytest.mark.parametrize(
    ("model_type", "ignored"),
    [
        ("llama", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}),
        (
            "llama",
            {"use_sliding_window": True, "sliding_window": 4, "layer_types": ["sliding_attention"] * 2},
        ),
        ("mistral", {"sliding_window": None, "attention_bias": True}),
        ("qwen2", {"attention_bias": False, "quantization_config": None, "unheard_of": None}),
    ],
)
def test_keys_that_a_family_does_not_read_change_nothing(
    model_type: str, ignored: dict[str, Any], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    write_model(tmp_path, model_type, SMALL | {key: None for key in ignored if key == "sliding_window"})
    _config(**ignored)(tmp_path)
    pretrained = inspect_model(tmp_path)
    assert pretrained.reason is None
    model = load_pretrained(pretrained, dtype=torch.float32, dropout=0.0)[0].eval()
    assert isinstance(model, Decoder)
    with torch.no_grad():
        ours = model.logits(_tokens())
        expected = AutoModelForCausalLM.from_pretrained(tmp_path).eval()(_tokens()).logits
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_decoder_is_loaded_without_transformers(tmp_path: Path) -> None:
    write_model(tmp_path, "qwen2", SMALL)
    code = (
        "import sys, torch; from pathlib import Path; from etude.models.pretrained import *; "
        f"load_pretrained(inspect_model(Path({str(tmp_path)!r})), dtype=torch.float32, dropout=0.0)[0]; "
        "assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_weights_stored_in_half_precision_become_what_is_asked(
    stored: torch.dtype, family: str, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "exact", *(("qwen2", SMALL) if family == "qwen2" else THEIRS["gpt2"]))
    model.to(stored).save_pretrained(tmp_path)
    loaded = load_pretrained(inspect_model(tmp_path), dtype=torch.float32, dropout=0.0)[0]
    wanted = model.state_dict()
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, wanted[name].float()), name


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
    tokens = _tokens()
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
    lengths, tokens = (9, 4, 7), _tokens()[:1]
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    scored = torch.tensor([0, 5, 8, 9, 12, 13, 19])
    with torch.no_grad():
        alone = torch.cat([theirs(part).logits[0] for part in tokens.split(lengths, dim=1)])
        ours = scored_logits(model, tokens, positions, lengths, scored)
        assert (ours - alone[scored]).abs().max() < 1e-5 * alone.abs().max()
        rows = scored_logits(model, _tokens(), None, None, None)
        assert (rows - theirs(_tokens()).logits.flatten(0, 1)).abs().max() < 1e-5 * rows.abs().max()
    assert pretrained.parameters["total"] == sum(parameter.numel() for parameter in theirs.parameters())


def test_dropout_is_the_recipes_and_not_the_files(tmp_path: Path) -> None:
    write_model(tmp_path, *THEIRS["gpt2"])
    for dropout in (0.0, 0.3):
        model = load_pretrained(inspect_model(tmp_path), dtype=torch.float32, dropout=dropout)[0].train()
        once, again = (scored_logits(model, _tokens(), None, None, None) for _ in range(2))
        assert torch.equal(once, again) is (dropout == 0.0)


def test_parts_of_a_model_and_half_precision_load(tmp_path: Path) -> None:
    theirs = write_model(tmp_path, "qwen2", SMALL, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    model = load_pretrained(inspect_model(tmp_path), dtype=torch.bfloat16, dropout=0.0)[0]
    wanted = theirs.state_dict()
    for name, tensor in model.state_dict().items():
        kept = torch.float32 if name.endswith("norm.weight") else torch.bfloat16
        assert tensor.dtype == kept and torch.equal(tensor, wanted[name].to(kept))


def test_a_digest_names_the_weights_and_is_remembered(tmp_path: Path) -> None:
    write_model(tmp_path / "one", "qwen2", SMALL)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = inspect_model(tmp_path / "one").digest, inspect_model(tmp_path / "two").digest
    assert one == two == inspect_model(tmp_path / "one").digest
    file = tmp_path / "two" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert inspect_model(tmp_path / "two").digest != one


def test_a_hub_id_is_found_in_the_cache_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    entry = tmp_path / "models--acme--tiny"
    write_model(entry / "snapshots" / "abc123", "qwen2", SMALL)
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text("abc123")
    for revision in (None, "main", "abc123"):
        assert find_model("acme/tiny", revision) == entry / "snapshots" / "abc123"
    with pytest.raises(InputError, match="did you mean acme/tiny"):
        find_model("acme/tinny")
    with pytest.raises(InputError, match=f"looked for {tmp_path}.*did you mean Qwen/Qwen2.5-Coder-1.5B"):
        find_model("Qwen/Qwen2.5-Coder-1.5")
    with pytest.raises(InputError, match=r"revision v2 of acme/tiny is not in .*acme--tiny; there is abc123"):
        find_model("acme/tiny", "v2")
    for odd in (b"../../other", b"a\0b", b"\xff", b"a" * 5000):
        (entry / "refs" / "main").write_bytes(odd)
        with pytest.raises(InputError, match="refs/main"):
            find_model("acme/tiny")
    (entry / "refs" / "main").write_text("abc123")
    (entry / "snapshots" / "abc123" / "config.json").unlink()
    with pytest.raises(InputError, match=r"no snapshot there has a config\.json"):
        find_model("acme/tiny")
    for given in ("../../etc", "a/b/c", "", "acme/../x", "./nowhere"):
        with pytest.raises(InputError, match=r"model\.from"):
            find_model(given)


def test_targets_are_found_by_name_and_counted_without_weights(tmp_path: Path) -> None:
    write_model(tmp_path / "qwen2", "qwen2", SMALL)
    write_model(tmp_path / "gpt2", *THEIRS["gpt2"])
    qwen2, gpt2 = inspect_model(tmp_path / "qwen2"), inspect_model(tmp_path / "gpt2")
    model = load_pretrained(qwen2, dtype=torch.float32, dropout=0.0)[0]
    names = find_targets(model, ["q_proj", "layers.1.mlp.up_proj"])
    assert names == [
        "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "model.layers.1.mlp.up_proj",
    ]  # fmt: skip
    assert len(find_targets(model, "all-linear")) == 14
    assert count_lora(qwen2, 4, ["q_proj", "v_proj"]) == 2 * 4 * (32 + 32 + 32 + 16)
    assert count_lora(qwen2, 4, ["v_proj"], dora=True) == 2 * (4 * (32 + 16) + 16)
    assert count_lora(gpt2, 4, ["c_attn"]) == 2 * 4 * (32 + 96)
    with pytest.raises(InputError, match=r"'q_prj'; did you mean q_proj\? there are down_proj, gate_proj"):
        find_targets(model, ["q_prj"])


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _lose_a_part(folder: Path) -> None:
    next(iter(sorted(folder.glob("model-0000*")))).unlink()


def _pickle_instead(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04canary")


def _config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_cut, "model.safetensors is not a safetensors file, or is damaged"),
        (_pickle_instead, "etude import"),
        (_config(auto_map={"AutoModelForCausalLM": "canary.Canary"}), "auto_map"),
        (_config(hidden_size=64), "config.json says"),
        (_config(num_hidden_layers=3, layer_types=None), "lacks model.layers.2"),
        (_config(num_hidden_layers=1, layer_types=None), "has model.layers.1"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no JSON object"),
        (_config(num_hidden_layers=1_000_000, layer_types=None), "is 1000000, but the files hold 27 tensors"),
        (_config(vocab_size=10**30), "cannot"),
        (_config(rope_parameters={"rope_type": [1]}), "cannot"),
        (_config(rope_parameters={"rope_type": "yarn", "factor": "4"}), "cannot"),
        (_config(layer_types=3), "cannot"),
        (_config(tie_word_embeddings=1), "cannot"),
        (_config(model_type=["qwen2"]), "cannot"),
        (_config(quantization_config={"quant_method": "gptq"}), "quantised"),
        (_config(model_type="t5", architectures=None), "does not predict the next token"),
        (_config(model_type="no-such"), "cannot read config.json"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_one_line(
    damage: Callable[[Path], None], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path, "qwen2", SMALL)
    canary = tmp_path / "ran"
    (tmp_path / "canary.py").write_text(f"open({str(canary)!r}, 'w')\nclass Canary: pass\n")
    damage(tmp_path)
    with pytest.raises(InputError, match=said) as caught:
        inspect_model(tmp_path, "causal")
    assert "\n" not in str(caught.value) and not canary.exists()


@pytest.mark.parametrize(
    ("tied", "scaled", "said"),
    [
        (False, None, None),  # as transformers 4 writes T5 1.1
        (True, False, None),  # the same by transformers 5, which always writes true
        (False, True, None),
        (None, None, "but it is another matrix"),
        (True, None, "but it is another matrix"),
        (True, True, "but it is another matrix"),
    ],
)
def test_a_head_of_its_own_is_taken_where_every_transformers_takes_it(
    tied: bool | None, scaled: bool | None, said: str | None, tmp_path: Path
) -> None:
    from transformers import T5ForConditionalGeneration

    base = write_t5(tmp_path)
    tensors = load_file(base / "model.safetensors")
    say(base, tie_word_embeddings=tied, scale_decoder_outputs=scaled)
    save_file(
        tensors | {"lm_head.weight": tensors["shared.weight"].flip(0).clone()},
        base / "model.safetensors", metadata={"format": "pt"},
    )  # fmt: skip
    if said is not None:
        with pytest.raises(InputError, match=said):
            inspect_model(base)
        return
    tokens, targets = torch.arange(5, 30)[None], torch.arange(40, 50)[None]
    ours: Any = load_pretrained(inspect_model(base), dtype=torch.float32, dropout=0.0)[0].eval()
    theirs: Any = T5ForConditionalGeneration.from_pretrained(base).eval()
    with torch.no_grad():
        expected = theirs(input_ids=tokens, decoder_input_ids=targets).logits
        logits = ours.head(ours(tokens, targets, source_lengths=(25,), target_lengths=(10,)))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_a_head_that_is_the_embedding_may_stand_in_the_file_and_one_of_its_own_must(tmp_path: Path) -> None:
    base = write_t5(tmp_path)
    tensors = load_file(base / "model.safetensors")
    head = {"lm_head.weight": tensors["shared.weight"].clone()}
    save_file(tensors | head, base / "model.safetensors", metadata={"format": "pt"})
    pretrained = inspect_model(base)
    assert isinstance(pretrained.config, T5Config) and pretrained.config.tied
    load_pretrained(pretrained, dtype=torch.float32, dropout=0.0)[0]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    say(base, tie_word_embeddings=False, scale_decoder_outputs=None)
    with pytest.raises(
        InputError, match=r"tie_word_embeddings is false, but the files have no lm_head\.weight"
    ):
        inspect_model(base)


def say(base: Path, **changes: bool | None) -> None:
    """Change keys of a config.json; None leaves one out."""
    values = json.loads((base / "config.json").read_text()) | changes
    (base / "config.json").write_text(
        json.dumps({key: each for key, each in values.items() if each is not None})
    )


def test_weights_that_the_model_would_not_use_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "gpt2", *THEIRS["gpt2"])
    bare = load_file(tmp_path / "gpt2" / "model.safetensors")
    _config(n_layer=1)(tmp_path / "gpt2")
    for prefix in ("transformer.", ""):
        tensors = {prefix + name.removeprefix("transformer."): tensor for name, tensor in bare.items()}
        save_file(tensors, tmp_path / "gpt2" / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(InputError, match=rf"has {prefix}h\.1\..*unlike its config.json"):
            load_pretrained(inspect_model(tmp_path / "gpt2"), dtype=torch.float32, dropout=0.0)[0]
    write_model(tmp_path / "qwen2", "qwen2", SMALL | {"tie_word_embeddings": True})
    file = tmp_path / "qwen2" / "model.safetensors"
    tensors = load_file(file)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, file, metadata={"format": "pt"})
    inspect_model(tmp_path / "qwen2")
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lm_head\.weight is the embedding .* but it is another matrix"):
        inspect_model(tmp_path / "qwen2")


@pytest.mark.parametrize(
    "key", ["_attn_implementation", "attn_implementation", "_attn_implementation_internal"]
)
def test_a_file_does_not_choose_the_code_that_runs(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path, *THEIRS["gpt2"])
    _config(**{key: "kernels-community/canary"}, _experts_implementation="kernels-community/canary")(tmp_path)
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
    _config(n_positions=32)(tmp_path)
    with pytest.raises(InputError, match=r"wpe.weight is \[64, 32\], but config.json says \[32, 32\]"):
        inspect_model(tmp_path, "causal")


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    write_model(tmp_path, "qwen2", SMALL, max_shard_size="20KB")
    _lose_a_part(tmp_path)
    with pytest.raises(
        InputError, match=r"lacks model-00001-of-\d+.safetensors \(\d+ of \d+ parts are there\)"
    ):
        inspect_model(tmp_path, "causal")


def _tokens() -> torch.Tensor:
    return torch.randint(61, (2, 20), generator=torch.Generator().manual_seed(1))
