"""From a recipe's [model] to a decoder."""

import subprocess
import sys
from typing import Any

import pytest

from etude.errors import InputError
from etude.models.catalogue import STORIES, decoder_config
from etude.models.cost import count_parameters
from etude.models.parts import find_targets
from etude.recipe.model import Model


def test_defaults_are_those_of_the_schema() -> None:
    config = decoder_config(Model(), vocab_size=4096, seq_len=256)
    assert (config.n_layer, config.n_head, config.n_kv_head, config.n_embd) == (6, 6, 6, 384)
    assert (config.n_ffn, config.head_dim, config.vocab_size, config.context) == (1024, 64, 4096, 256)
    assert (config.tied, config.qk_norm, config.qkv_bias, config.sliding_window) == (True, False, False, None)


@pytest.mark.parametrize(
    ("preset", "total"), [("300m", 303_171_584), ("500m", 500_528_640), ("1b", 999_538_688)]
)
def test_presets_have_their_size(preset: str, total: int) -> None:
    config = decoder_config(Model.model_validate({"preset": preset}), vocab_size=50_257, seq_len=512)
    assert (count_parameters(config)["total"], config.context) == (total, 2048)


@pytest.mark.parametrize(
    ("pattern", "windows"),
    [
        ([8], [8] * 6),
        ([8, 8, 0], [8, 8, None] * 2),
        ([0, 8, 8, 8], [None, 8, 8, 8, None, 8]),
        ([0], [None] * 6),
    ],
)
def test_a_pattern_of_windows_repeats_over_the_layers(pattern: list[int], windows: list[int | None]) -> None:
    config = decoder_config(Model(layer_window=pattern, qk_norm=True), vocab_size=300, seq_len=64)
    assert [config.window(layer) for layer in range(6)] == windows
    kinds = ["full_attention" if window is None else "sliding_attention" for window in windows]
    assert config.to_hf(eos_id=None)["layer_types"] == kinds


def test_single_keys_override_a_preset() -> None:
    config = decoder_config(Model(preset="300m", n_layer=2, tied=False), vocab_size=1000, seq_len=4096)
    assert (config.n_layer, config.n_embd, config.tied, config.context) == (2, 1024, False, 4096)


@pytest.mark.parametrize(
    ("given", "tokens", "rows"), [({"preset": "300m"}, 4096, 50_257), ({"preset": "300m"}, 60_000, 60_000),
                                  ({}, 300, 300), ({"vocab_size": 512}, 300, 512)],
)  # fmt: skip
def test_embedding_has_a_row_for_every_token(given: dict[str, object], tokens: int, rows: int) -> None:
    assert decoder_config(Model.model_validate(given), vocab_size=tokens, seq_len=64).vocab_size == rows


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"vocab_size": 256}, "model.vocab_size is 256 but the tokenizer has 300"),
        ({"preset": "300m", "n_head": 12}, "model.n_embd is 1024"),
        ({"preset": "300m", "n_head": 8}, "model.n_kv_head is 16"),
        ({"preset": "300m", "head_dim": 33}, "model.head_dim is 33"),
        ({"preset": "1b", "qk_norm": True, "qkv_bias": True}, "model.qkv_bias"),
        ({"sliding_window": 65}, "model.sliding_window has a window of 65 tokens, but the context is 64"),
        ({"layer_window": [65, 0], "qk_norm": True}, "model.layer_window has a window of 65 tokens"),
        ({"layer_window": [8] * 7}, "model.layer_window is for 7 layers, but the model has 6"),
        ({"layer_window": [8, 0]}, "set qk_norm = true"),
    ],
)
def test_keys_that_do_not_fit_are_refused(given: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        decoder_config(Model.model_validate(given), vocab_size=300, seq_len=64)


def test_catalogue_and_cost_do_not_import_torch() -> None:
    code = (
        "import sys, etude.models.catalogue, etude.models.cost; assert not {'torch', 'numpy'} & "
        "set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# The totals were counted apart from this package, by formula and by instantiation.
PUBLISHED = {
    "Qwen/Qwen2.5-Coder-0.5B": 494_032_768,
    "Qwen/Qwen2.5-Coder-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-Coder-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-Coder-3B": 3_085_938_688,
    "Qwen/Qwen2.5-Coder-7B": 7_615_616_512,
    "openai-community/gpt2": 124_439_808,
    "openai-community/gpt2-medium": 354_823_168,
    "EleutherAI/gpt-j-6b": 6_050_882_784,
    "microsoft/codebert-base": 124_645_632,
    "Salesforce/codet5-small": 60_492_288,
    "Salesforce/codet5-base": 222_882_048,
    "Salesforce/codet5p-220m": 222_882_048,
    "Salesforce/codet5-large": 737_639_424,
    "Salesforce/codet5p-770m": 737_639_424,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M": 361_821_120,
}


@pytest.mark.parametrize(("name", "total"), PUBLISHED.items())
def test_published_models_have_their_total(name: str, total: int) -> None:
    assert STORIES[name].total == total


def test_published_models_and_their_adapters_are_those_of_transformers() -> None:
    """Counted module by module on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    def decoder(kind: str, width: int, layers: int, heads: int, kv_heads: int, ffn: int, vocab: int) -> Any:
        return AutoConfig.for_model(
            kind, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
            num_key_value_heads=kv_heads, intermediate_size=ffn, vocab_size=vocab,
            tie_word_embeddings=vocab != 152_064,
        )  # fmt: skip

    configs = {
        "Qwen/Qwen2.5-Coder-0.5B": decoder("qwen2", 896, 24, 14, 2, 4864, 151_936),
        "Qwen/Qwen2.5-Coder-1.5B-Instruct": decoder("qwen2", 1536, 28, 12, 2, 8960, 151_936),
        "Qwen/Qwen2.5-Coder-7B": decoder("qwen2", 3584, 28, 28, 4, 18_944, 152_064),
        "openai-community/gpt2": AutoConfig.for_model("gpt2"),
        "meta-llama/Llama-3.2-1B": decoder("llama", 2048, 16, 32, 8, 8192, 128_256),
        "HuggingFaceTB/SmolLM2-135M": decoder("llama", 576, 30, 9, 3, 1536, 49_152),
        "EleutherAI/gpt-j-6b": AutoConfig.for_model("gptj"),
        "microsoft/codebert-base": AutoConfig.for_model(
            "roberta", vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1
        ),
        "Salesforce/codet5-base": AutoConfig.for_model(
            "t5", vocab_size=32_100, d_model=768, d_ff=3072, num_layers=12, num_heads=12
        ),
    }  # fmt: skip
    for name, config in configs.items():
        story = STORIES[name]
        is_causal = config.model_type in ("qwen2", "llama", "gptj", "gpt2")
        with torch.device("meta"):
            model = (AutoModelForCausalLM if is_causal else AutoModel).from_config(config)
        model.tie_weights()
        assert story.total == sum(parameter.numel() for parameter in model.parameters()), name
        targets = find_targets(model, "all-linear")
        for rank in (4, 8, 16, 64):
            counted = sum(rank * sum(model.get_submodule(path).weight.shape) for path in targets)
            assert story.count_lora(rank, "all-linear") == counted, (name, rank)
        for target in story.linears:
            counted = sum(
                8 * sum(model.get_submodule(path).weight.shape) for path in find_targets(model, [target])
            )
            assert story.count_lora(8, [target]) == counted, (name, target)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_config_of_a_story_is_its_model_in_transformers_and_here(name: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    from etude.models.hub import find_config
    from etude.models.pretrained import count_lora, inspect_model

    story = STORIES[name]
    config = AutoConfig.for_model(**story.config)
    is_text = config.model_type not in ("roberta", "t5")
    with torch.device("meta"):
        model = (AutoModelForCausalLM if is_text else AutoModel).from_config(config)
    model.tie_weights()
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED[name]
    if config.model_type == "roberta":  # etude's has a head besides
        return
    found = inspect_model(find_config(name), needs_weights=False)
    assert found.parameters["total"] == PUBLISHED[name]
    shapes = [model.get_submodule(path).weight.shape for path in find_targets(model, "all-linear")]
    is_transposed = config.model_type == "gpt2"
    outputs = sum(shape[1 if is_transposed else 0] for shape in shapes)
    for rank in (4, 8, 16, 64):
        counted = rank * sum(map(sum, shapes))
        assert count_lora(found, rank, "all-linear") == counted == story.count_lora(rank, "all-linear")
        assert count_lora(found, rank, "all-linear", dora=True) == counted + outputs


def test_the_adapter_of_a_published_model_is_counted_without_its_files() -> None:
    story, targets = STORIES["Qwen/Qwen2.5-Coder-1.5B"], ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert story.count_lora(8, targets) == 2_179_072 and story.count_lora(16, targets) == 4_358_144
    assert story.total + story.count_lora(8, targets) == 1_545_893_376
    with pytest.raises(InputError, match="there are q_proj"):
        story.count_lora(8, ["query"])
