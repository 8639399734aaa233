"""The adapter layer against PEFT, both ways."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from etude.errors import InputError
from etude.models import lora
from etude.models.adapter_files import adapted_modules, read_adapter_config
from etude.models.decoder import Decoder
from etude.models.decoder_config import DecoderConfig
from etude.models.parts import quantize
from etude.recipe.model import Adapter
from tests.models.decoders import LLAMA, random_decoder, random_tokens

QWEN2 = DecoderConfig(
    vocab_size=97,
    n_layer=2,
    n_head=4,
    n_kv_head=2,
    n_embd=48,
    n_ffn=80,
    head_dim=12,
    context=64,
    qkv_bias=True,
)
KINDS = {
    "plain": Adapter(rank=4, alpha=8.0, targets=["q_proj", "down_proj"]),
    "rank stabilised": Adapter(rank=4, alpha=8.0, targets=["v_proj"], rank_stabilized=True),
    "dora": Adapter(rank=4, alpha=8.0, targets=["q_proj", "o_proj"], dora=True),
}
EVERY = pytest.mark.parametrize("recipe", KINDS.values(), ids=KINDS)


@EVERY
def test_peft_loads_the_files_with_equal_logits(recipe: Adapter, tmp_path: Path) -> None:
    from peft import PeftModel

    base, tokens = _write_base(tmp_path), _tokens()
    model = _adapted(base, recipe)
    _write_adapter(model, recipe, tmp_path / "adapter", base)
    theirs = PeftModel.from_pretrained(_load_in_transformers(base), tmp_path / "adapter").eval()
    with torch.no_grad():
        _assert_equal(model.eval().logits(tokens), theirs(tokens).logits)
        assert not torch.allclose(model.logits(tokens), _decoder(base).logits(tokens))


@EVERY
def test_an_adapter_of_peft_loads_here_with_equal_logits(recipe: Adapter, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base, tokens = _write_base(tmp_path), _tokens()
    settings = LoraConfig(
        r=recipe.rank, lora_alpha=8, target_modules=list(recipe.targets), use_rslora=recipe.rank_stabilized,
        use_dora=recipe.dora, task_type="CAUSAL_LM",
    )  # fmt: skip
    theirs = get_peft_model(_load_in_transformers(base), settings).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    theirs.save_pretrained(tmp_path / "adapter")
    saved = read_adapter_config(tmp_path / "adapter")
    assert saved.base == str(base)
    tensors = load_file(tmp_path / "adapter" / lora.ADAPTER_FILE)
    model = _decoder(base)
    recipes = adapted_modules(tmp_path / "adapter", saved, tensors, model)
    lora.add_adapter(model, recipes, seed=1)
    own = lora.adapter_tensors(model)
    assert set(own) == set(tensors)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
        _assert_equal(model.eval().logits(tokens), theirs(tokens).logits)


@EVERY
def test_gradients_are_those_of_peft(recipe: Adapter, tmp_path: Path) -> None:
    from peft import PeftModel

    base, tokens = _write_base(tmp_path), _tokens()
    model = _adapted(base, recipe)
    _write_adapter(model, recipe, tmp_path / "adapter", base)
    theirs = PeftModel.from_pretrained(_load_in_transformers(base), tmp_path / "adapter", is_trainable=True)
    model.train().logits(tokens).logsumexp(-1).sum().backward()
    theirs(tokens).logits.logsumexp(-1).sum().backward()
    expected = {
        name.replace(".default", ""): p.grad for name, p in theirs.named_parameters() if p.requires_grad
    }
    expected = {
        name.removesuffix(".weight") if "magnitude" in name else name: g for name, g in expected.items()
    }
    ours = {name: tensor.grad for name, tensor in lora.adapter_tensors(model).items()}
    assert set(ours) == set(expected)
    for name, grad in ours.items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-4, atol=1e-5)
    frozen = [name for name, p in model.named_parameters() if p.grad is not None and "lora_" not in name]
    assert frozen == []


@EVERY
def test_the_merged_model_computes_what_the_adapted_one_did(recipe: Adapter, tmp_path: Path) -> None:
    base, tokens = _write_base(tmp_path), _tokens()
    model = _adapted(base, recipe).eval()
    before = model.logits(tokens)
    names = set(_decoder(base).state_dict())
    lora.merge(model)
    assert set(model.state_dict()) == names
    torch.testing.assert_close(model.logits(tokens), before, rtol=1e-4, atol=1e-4)


def test_a_transposed_layer_of_gpt2_is_adapted_as_peft_does(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=61, n_positions=32, n_embd=32, n_layer=2, n_head=2)).eval()
    model.save_pretrained(tmp_path / "base")
    recipe = Adapter(rank=4, alpha=4.0, targets=["c_attn"])
    names = [f"transformer.h.{layer}.attn.c_attn" for layer in range(2)]
    lora.add_adapter(model, dict.fromkeys(names, recipe), seed=1)
    _randomise_b(model)
    _write_adapter(model, recipe, tmp_path / "adapter", tmp_path / "base")
    plain = GPT2LMHeadModel.from_pretrained(tmp_path / "base")
    theirs = PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        expected = theirs(tokens).logits
        _assert_equal(model(tokens).logits, expected)
        lora.merge(model)
        torch.testing.assert_close(model(tokens).logits, expected, rtol=1e-4, atol=1e-4)


def test_an_adapter_on_a_base_of_4_bits_is_that_on_what_the_bits_say(tmp_path: Path) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="the extra quant is not installed")
    recipe, exact = KINDS["plain"], _decoder(_write_base(tmp_path))
    model = _decoder(tmp_path / "base")
    quantize(model, torch.float32, torch.device("cpu"))
    small = model.get_submodule("model.layers.0.mlp.up_proj")
    with torch.autocast("cpu", torch.bfloat16):  # as a layer of 16 bits, whose activations take half
        assert small(torch.ones(2, small.in_features)).dtype == torch.bfloat16
    assert small(torch.ones(2, small.in_features)).dtype == torch.float32
    with torch.no_grad():
        for name, module in exact.named_modules():
            if isinstance(small := model.get_submodule(name), bitsandbytes.nn.Linear4bit):
                module.weight.copy_(
                    bitsandbytes.functional.dequantize_4bit(small.weight.data, small.weight.quant_state)
                )
    names = [name for name, _ in exact.named_modules() if name.rpartition(".")[2] in recipe.targets]
    for each in (model, exact):
        lora.add_adapter(each, dict.fromkeys(names, recipe), seed=1)
        _randomise_b(each)
        each.train().logits(_tokens()).logsumexp(-1).sum().backward()
    _assert_equal(model.logits(_tokens()), exact.logits(_tokens()))
    for ours, wanted in zip(
        lora.adapter_tensors(model).values(), lora.adapter_tensors(exact).values(), strict=True
    ):
        torch.testing.assert_close(ours.grad, wanted.grad, rtol=1e-4, atol=1e-5)


def test_one_block_alone_is_named_in_full(tmp_path: Path) -> None:
    from peft import PeftModel

    base, tokens = _write_base(tmp_path), _tokens()
    model = _decoder(base)
    lora.add_adapter(model, {"model.layers.1.mlp.up_proj": KINDS["plain"]}, seed=1)
    _randomise_b(model)
    _write_adapter(model, KINDS["plain"], tmp_path / "adapter", base)
    theirs = PeftModel.from_pretrained(_load_in_transformers(base), tmp_path / "adapter").eval()
    assert sum("lora_A" in name for name, _ in theirs.named_parameters()) == 1
    with torch.no_grad():
        _assert_equal(model.eval().logits(tokens), theirs(tokens).logits)


def test_a_new_adapter_changes_nothing_and_follows_its_seed(tmp_path: Path) -> None:
    base, tokens = _write_base(tmp_path), _tokens()
    plain = _decoder(base).logits(tokens)
    adapted = [_decoder(base) for _ in range(3)]
    for model, seed in zip(adapted, (1, 1, 2)):
        lora.add_adapter(model, {"model.layers.0.self_attn.q_proj": KINDS["plain"]}, seed)
        assert torch.equal(model.logits(tokens), plain)
    first, again, other = (model.model.layers[0].self_attn.q_proj.lora_A.weight for model in adapted)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_checkpointed_activations_give_the_adapter_identical_gradients(tmp_path: Path) -> None:
    recipe = Adapter(rank=4, alpha=8.0, dropout=0.2, targets=["q_proj", "up_proj"])
    model, gradients = _adapted(_write_base(tmp_path), recipe).train(), []
    for checkpointed in (False, True):
        model.checkpoint_activations = checkpointed
        model.zero_grad()
        torch.manual_seed(5)
        model.logits(_tokens()).logsumexp(-1).sum().backward()
        gradients.append([tensor.grad.clone() for tensor in lora.adapter_tensors(model).values()])
    assert all(torch.equal(plain, again) and plain.any() for plain, again in zip(*gradients, strict=True))


def test_a_compiled_model_computes_the_same(tmp_path: Path) -> None:
    model = _adapted(_write_base(tmp_path), KINDS["plain"])
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(_tokens()), model(_tokens()), rtol=0, atol=1e-5)


def test_a_frozen_base_in_bf16_stays_near_full_precision(tmp_path: Path) -> None:
    base = _write_base(tmp_path)
    model = _adapted(base, KINDS["plain"]).eval()
    exact = model.logits(_tokens())
    for name, parameter in model.named_parameters():
        if "lora_" not in name and "norm" not in name:
            parameter.data = parameter.data.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model.logits(_tokens())
    assert (mixed - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "IA3"}, "only LORA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"r": "eight"}, "does not describe"),
        (
            {"init_lora_weights": "pissa_niter_4"},
            "init_lora_weights = 'pissa_niter_4', which changed the base",
        ),
        ({"init_lora_weights": "OLoRA"}, "init_lora_weights"),
        ({"init_lora_weights": "loftq"}, "init_lora_weights"),
        ({"base_model_name_or_path": 5}, "base_model_name_or_path = 5"),
    ],
)
def test_an_adapter_with_more_than_this_layer_has_is_refused(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    values = lora.adapter_config(Decoder(QWEN2), KINDS["plain"], base="x", revision=None)
    values |= {"target_modules": ["q_proj"]} | change
    (tmp_path / lora.CONFIG_FILE).write_text(json.dumps(values))
    with pytest.raises(InputError, match=said) as caught:
        read_adapter_config(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("start", [True, False, None, "gaussian", "eva", "orthogonal"])
def test_an_adapter_that_left_its_base_as_it_was_is_read(start: bool | str | None, tmp_path: Path) -> None:
    values = lora.adapter_config(Decoder(QWEN2), KINDS["plain"], base="x", revision=None)
    values |= {"init_lora_weights": start, "target_modules": ["q_proj"]}
    del values["bias"]
    (tmp_path / lora.CONFIG_FILE).write_text(json.dumps(values))
    assert read_adapter_config(tmp_path).base == "x"


def _write_base(folder: Path) -> Path:
    """Random weights at which every part moves the logits, as a folder that transformers loads."""
    model = Decoder(replace(QWEN2, tied=True))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if name.endswith("norm.weight") else 0.0
            parameter.copy_(centre + 0.15 * torch.randn(parameter.shape, generator=generator))
    base = folder / "base"
    base.mkdir()
    save_file(model.state_dict(), base / "model.safetensors", metadata={"format": "pt"})
    (base / "config.json").write_text(json.dumps(model.config.to_hf(eos_id=None)))
    return base


def _decoder(base: Path) -> Decoder:
    model = Decoder(replace(QWEN2, tied=True))
    model.load_state_dict(load_file(base / "model.safetensors"))
    return model


def _adapted(base: Path, recipe: Adapter) -> Decoder:
    model = _decoder(base)
    names = [name for name, _ in model.named_modules() if name.rpartition(".")[2] in recipe.targets]
    lora.add_adapter(model, dict.fromkeys(names, recipe), seed=1)
    _randomise_b(model)
    return model


def _randomise_b(model: nn.Module) -> None:
    torch.manual_seed(3)
    with torch.no_grad():
        for layer in lora.find_layers(model).values():
            layer.lora_B.weight.normal_(std=0.1)


def _write_adapter(model: nn.Module, recipe: Adapter, folder: Path, base: Path) -> None:
    folder.mkdir()
    tensors = {name: tensor.detach().clone() for name, tensor in lora.adapter_tensors(model).items()}
    save_file(tensors, folder / lora.ADAPTER_FILE)
    values = lora.adapter_config(model, recipe, base=str(base), revision=None)
    (folder / lora.CONFIG_FILE).write_text(json.dumps(values))


def _load_in_transformers(base: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base)


def _tokens() -> torch.Tensor:
    return torch.randint(97, (2, 16), generator=torch.Generator().manual_seed(1))


def _assert_equal(logits: torch.Tensor, expected: torch.Tensor) -> None:
    assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()


def test_nothing_below_the_lowest_adapter_is_kept_for_gradients() -> None:
    model = random_decoder(LLAMA)
    lora.add_adapter(model, {"model.layers.2.mlp.up_proj": Adapter(rank=2)}, 0)
    made: dict[int, bool] = {}
    for number, block in enumerate(model.model.layers):
        block.register_forward_hook(lambda _, given, out, at=number: made.update({at: out.requires_grad}))
    kept: list[torch.Tensor] = []

    def keep(each: torch.Tensor) -> torch.Tensor:
        kept.append(each)
        return each

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda each: each):
        model.train()(random_tokens(LLAMA, 2, 16))
    assert made == {0: False, 1: False, 2: True}
    # Behind the adapter: its products and those of the rest of the last feed-forward layer and norm.
    assert kept and len(kept) < 20


def test_no_gradient_is_made_below_the_lowest_adapter() -> None:
    model = random_decoder(replace(LLAMA, n_layer=3))
    lora.add_adapter(model, {"model.layers.1.self_attn.o_proj": KINDS["plain"]}, 0)
    has_gradient: dict[str, bool] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda _, __, out, name=name: has_gradient.update({name: out.requires_grad})  # type: ignore[misc]
        )
    model(random_tokens(LLAMA, 1, 8))
    blocks = [has_gradient[f"model.layers.{layer}"] for layer in range(3)]
    assert blocks == [False, True, True] and not has_gradient["model.layers.1.self_attn.v_proj"]
    assert not has_gradient["model.embed_tokens"] and has_gradient["model.layers.1.self_attn"]
