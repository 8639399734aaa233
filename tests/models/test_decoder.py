"""The decoder against transformers, and against itself by other ways."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from etude.evaluate.generate import generate
from etude.models.cache import Cache
from etude.models.decoder import Decoder
from etude.models.decoder_config import DecoderConfig
from tests.models.decoders import CONFIGS, LLAMA, assert_equal_logits, random_decoder, random_tokens

EVERY = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@EVERY
def test_folder_loads_in_transformers_with_equal_logits_and_greedy_tokens(
    config: DecoderConfig, tmp_path: Path
) -> None:
    model, tokens = random_decoder(config), random_tokens(config, 3, 40)
    theirs = _load_in_transformers(model, tmp_path)
    assert type(theirs).__name__ == config.to_hf(eos_id=None)["architectures"][0]
    with torch.no_grad():
        ours, expected = model.logits(tokens), theirs(tokens).logits
    assert_equal_logits(ours, expected)
    prompts = tokens[:, :9]
    continued = theirs.generate(
        prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=12, do_sample=False
    )
    ours_continued = generate(model, prompts.tolist(), max_tokens=12, end_ids=[])
    assert [row.ids for row in ours_continued] == continued[:, 9:].tolist()


@EVERY
def test_sequences_end_to_end_do_not_see_each_other(config: DecoderConfig) -> None:
    model, tokens, lengths = random_decoder(config), random_tokens(config, 1, 24), (11, 1, 12)
    alone = [model.logits(piece) for piece in tokens.split(lengths, dim=1)]
    counted = torch.cat([torch.arange(length) for length in lengths])[None]
    assert_equal_logits(model.logits(tokens, positions=counted, lengths=lengths), torch.cat(alone, dim=1))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_checkpointed_activations_give_identical_gradients(dropout: float) -> None:
    model = random_decoder(replace(LLAMA, dropout=dropout)).train()
    tokens = random_tokens(LLAMA, 2, 16)
    gradients = []
    for checkpointed in (False, True):
        model.checkpoint_activations = checkpointed
        model.zero_grad()
        torch.manual_seed(5)
        model.logits(tokens).logsumexp(-1).sum().backward()
        gradients.append(
            [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        )
    assert len(gradients[0]) == len(list(model.parameters()))
    assert all(torch.equal(plain, again) for plain, again in zip(*gradients, strict=True))


def test_dropout_acts_only_while_training() -> None:
    model, tokens = random_decoder(replace(LLAMA, dropout=0.3)), random_tokens(LLAMA, 1, 8)
    assert torch.equal(model.logits(tokens), model.logits(tokens))
    model.train()
    assert not torch.equal(model.logits(tokens), model.logits(tokens))


def test_state_holds_parameters_alone_and_a_tied_head_once() -> None:
    tied, untied = Decoder(replace(LLAMA, tied=True)), Decoder(LLAMA)
    assert set(untied.state_dict()) - set(tied.state_dict()) == {"lm_head.weight"}
    assert set(tied.state_dict()) == {name for name, _ in tied.named_parameters()}
    assert tied.head_weight() is tied.model.embed_tokens.weight


def test_new_weights_follow_the_seed_and_leave_other_randomness_alone() -> None:
    model = Decoder(replace(LLAMA, qkv_bias=True, n_embd=96, head_dim=24))
    before = torch.get_rng_state()
    model.init_weights(1)
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.init_weights(2)
    assert not torch.equal(first["lm_head.weight"], model.state_dict()["lm_head.weight"])
    model.init_weights(1)
    assert all(torch.equal(first[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(before, torch.get_rng_state())
    assert first["model.embed_tokens.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert first["model.layers.0.mlp.down_proj.weight"].std().item() == pytest.approx(0.02 / 6**0.5, rel=0.05)
    assert (
        first["model.norm.weight"].eq(1).all() and first["model.layers.1.self_attn.q_proj.bias"].eq(0).all()
    )


def test_zero_init_makes_every_block_the_identity() -> None:
    model = Decoder(replace(LLAMA, zero_init=True)).eval()
    model.init_weights(0)
    tokens = random_tokens(LLAMA, 1, 8)
    torch.testing.assert_close(
        model(tokens), model.model.norm(model.model.embed_tokens(tokens)), rtol=0, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("config", [LLAMA, CONFIGS["qwen3 sliding"]], ids=["llama", "qwen3 sliding"])
def test_half_precision_stays_near_full(config: DecoderConfig, dtype: torch.dtype) -> None:
    model, tokens = random_decoder(config), random_tokens(config, 2, 16)
    exact = model.logits(tokens)
    with torch.autocast("cpu", dtype=dtype):
        mixed = model.logits(tokens)
        mixed.float().logsumexp(-1).sum().backward()
    assert mixed.dtype == dtype and (mixed - exact).abs().max() < 0.03 * exact.abs().max()
    assert model.to(dtype).logits(tokens).sub(exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("window", [None, 5])
def test_compiled_model_computes_the_same(window: int | None) -> None:
    config = replace(LLAMA, n_layer=1, qk_norm=True, sliding_window=window)
    model, tokens = random_decoder(config), random_tokens(LLAMA, 2, 16)
    # aot_eager traces forward and backward without a C++ compiler.
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(tokens), model(tokens), rtol=0, atol=1e-5)


def _load_in_transformers(model: Decoder, folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(model.config.to_hf(eos_id=None)))
    loaded, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return loaded.eval()


def test_a_compiled_model_keeps_sequences_apart_and_is_not_compiled_again() -> None:
    """Sequences of other lengths and of another sum in each batch, forward and backward."""
    config = replace(LLAMA, n_layer=3, qk_norm=True)
    model, compiled = random_decoder(config), random_decoder(config)
    graphs: list[int] = []

    def count(graph: torch.fx.GraphModule, inputs: Sequence[object]) -> object:
        graphs.append(len(inputs))
        return graph.forward

    torch._dynamo.reset()  # type: ignore[no-untyped-call]
    compiled.compile(backend=count)
    seen: list[int] = []
    for batch in range(10):
        lengths = tuple(1 + (7 * batch + 5 * index) % 23 for index in range(1 + batch % 5))
        tokens = random_tokens(config, 1, sum(lengths) + 64 * (batch % 3))
        lengths = (*lengths, tokens.shape[1] - sum(lengths)) if batch % 3 else lengths
        positions = torch.cat([torch.arange(length) for length in lengths])[None]
        states = [each(tokens, positions=positions, lengths=lengths) for each in (model, compiled)]
        torch.testing.assert_close(states[1], states[0], rtol=0, atol=1e-5)
        for each in states:
            each.square().sum().backward()
        seen.append(len(graphs))
    prompts = random_tokens(config, 1, 9)
    caches = [Cache(config, 2, 8, dtype=torch.float32, device=torch.device("cpu")) for _ in range(2)]
    read = [each(prompts, lengths=(4, 5), cache=cache) for each, cache in zip((model, compiled), caches)]
    assert read[0].equal(read[1]) and len(graphs) == seen[-1]
    assert seen[0] and seen[3:] == [seen[3]] * 7, seen
    slopes = [each.model.layers[0].mlp.up_proj.weight.grad for each in (model, compiled)]  # type: ignore[union-attr]
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("with_lengths", [False, True])
def test_a_compiled_forward_copies_nothing_from_the_host(with_lengths: bool) -> None:
    # Such a copy goes through pinned memory on a GPU, which torch.compile cannot trace.
    graphs: list[set[str]] = []

    def remember(graph: torch.fx.GraphModule, inputs: object) -> object:
        graphs.append({str(getattr(node.target, "__name__", node.target)) for node in graph.graph.nodes})
        return graph.forward

    model, tokens = random_decoder(replace(LLAMA, n_layer=1)), random_tokens(LLAMA, 1, 20)
    model.compile(backend=remember)
    model(tokens, lengths=(9, 11)) if with_lengths else model(tokens)
    assert graphs and not {"tensor", "pin_memory"} & set().union(*graphs)
