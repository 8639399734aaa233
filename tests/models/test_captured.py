"""Decoding by a graph: its fixed step as a trace on the CPU, and the graph itself on a machine with a GPU."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from etude.evaluate.generate import generate
from etude.models import captured, packed
from etude.models.cache import Cache
from etude.models.captured import GraphReader
from etude.models.decoder import Decoder
from etude.models.decoder_config import DecoderConfig
from etude.models.lora import add_adapter
from etude.recipe.model import Adapter
from tests.models.decoders import CONFIGS, assert_equal_logits, random_decoder, random_tokens

EVERY = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
LENGTHS = (9, 1, 14)


def trace(step: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """As a graph: the operations of one call, in which every number of the host is a constant."""
    step()
    traced = make_fx(lambda unused: step())(torch.zeros(1))
    return lambda: traced(torch.zeros(1))  # type: ignore[no-any-return]


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Generation by traces in place of graphs, each for rows that are at most twice as long as now."""
    made: list[int] = []
    monkeypatch.setattr(captured, "FEWEST_KEYS", 16)
    monkeypatch.setattr(captured, "capture", lambda step, device: (made.append(1), trace(step, device))[1])
    monkeypatch.setattr(captured, "is_worth_it", lambda model, max_tokens: True)
    monkeypatch.setattr(packed, "is_worth_it", lambda model, rows: False)
    return made


def adapted(config: DecoderConfig, *, dora: bool = False) -> Decoder:
    model = random_decoder(config)
    recipe = Adapter(rank=2, alpha=4.0, dora=dora)
    add_adapter(model, {f"model.layers.{layer}.self_attn.q_proj": recipe for layer in range(3)}, seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    return model.eval()


def prompts_of(config: DecoderConfig) -> list[list[int]]:
    return [row[:length].tolist() for row, length in zip(random_tokens(config, 3, 24), LENGTHS)]


@EVERY
def test_logits_of_a_repeated_step_are_those_of_one_pass(config: DecoderConfig, traces: list[int]) -> None:
    model, tokens = random_decoder(config), random_tokens(config, 3, 60)
    cache = Cache(config, 3, 64, dtype=torch.float32, device=torch.device("cpu"))
    with torch.inference_mode():
        expected = model.logits(tokens)
        prompts = torch.cat([row[:length] for row, length in zip(tokens, LENGTHS)])[None]
        positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
        model(prompts, positions=positions, lengths=LENGTHS, cache=cache)
        reader = GraphReader(model, cache)
        for step in range(24):
            places = torch.tensor(LENGTHS) + step
            logits = reader(tokens.gather(1, places[:, None])[:, 0])
            assert_equal_logits(logits, expected[torch.arange(3), places])
    assert len(traces) == 3 and not reader.failure  # of 16, 32 and 64 places
    assert cache.lengths == [length + 24 for length in LENGTHS]


@EVERY
def test_tokens_are_those_of_transformers(config: DecoderConfig, traces: list[int], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = random_decoder(config)
    prompts = prompts_of(config)
    ours = [row.ids for row in generate(model, prompts, max_tokens=22, end_ids=[])]
    assert traces
    _save(model, tmp_path)
    theirs: Any = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    longest = max(LENGTHS)
    padded = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    continued = theirs.generate(
        padded, attention_mask=mask, max_new_tokens=22, min_new_tokens=22, do_sample=False, pad_token_id=0
    )
    assert ours == continued[:, longest:].tolist()


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.8, "top_k": 20, "seed": 3}], ids=["greedy", "drawn"]
)
def test_adapters_and_draws_give_the_tokens_of_plain_steps(
    dora: bool, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, traces: list[int]
) -> None:
    model = adapted(CONFIGS["qwen2"], dora=dora)
    prompts = prompts_of(CONFIGS["qwen2"])
    ours = generate(model, prompts, max_tokens=40, end_ids=[5], **settings)
    assert traces
    monkeypatch.setattr(captured, "is_worth_it", lambda model, max_tokens: False)
    assert ours == generate(model, prompts, max_tokens=40, end_ids=[5], **settings)


@pytest.mark.parametrize("error", [RuntimeError("not permitted"), torch.OutOfMemoryError("out of memory")])
def test_a_capture_that_fails_leaves_the_plain_steps_and_says_so(
    error: RuntimeError, monkeypatch: pytest.MonkeyPatch, traces: list[int]
) -> None:
    model, prompts = random_decoder(CONFIGS["qwen3"]), prompts_of(CONFIGS["qwen3"])
    expected = generate(model, prompts, max_tokens=30, end_ids=[])
    captures = len(traces)

    def fail(step: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
        step()
        if len(traces) == captures:  # the first graph is made, the second is not
            traces.append(1)
            return trace(step, device)
        raise error

    monkeypatch.setattr(captured, "capture", fail)
    with pytest.warns(UserWarning, match="written without a CUDA graph") as said:
        assert generate(model, prompts, max_tokens=30, end_ids=[]) == expected
    assert len(said) == 1


def test_a_graph_is_made_where_enough_tokens_follow(traces: list[int]) -> None:
    model, prompts = random_decoder(CONFIGS["llama"]), [[4, 5, 6]]
    generate(model, prompts, max_tokens=61, end_ids=[])
    assert len(traces) == 3  # of 16, 32 and 64 places; the last 15 of 64 need none of their own


@pytest.mark.parametrize("change", ["hook", "bytes", "foreign"])
def test_a_model_with_parts_of_others_is_not_captured(change: str) -> None:
    model = random_decoder(CONFIGS["llama"])
    assert captured.is_plain(model) and captured.is_plain(adapted(CONFIGS["llama"]))
    assert not captured.is_worth_it(model, 1000)  # on a CPU
    layer: Any = model.model.layers[0]
    if change == "hook":
        layer.register_forward_hook(lambda *_: None)
    elif change == "bytes":
        layer.mlp.up_proj.weight = nn.Parameter(torch.empty(4, dtype=torch.uint8), requires_grad=False)
    else:
        layer.mlp = type("Foreign", (nn.Module,), {"__module__": "bitsandbytes.nn"})()
    assert not captured.is_plain(model)


@GPU
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", ["llama uneven", "qwen2 sliding", "qwen3"])
def test_a_graph_gives_the_logits_of_plain_steps_and_frees_its_memory(
    config: str, precision: torch.dtype
) -> None:
    model, device = adapted(CONFIGS[config]).cuda(), torch.device("cuda", torch.cuda.current_device())
    tokens, lengths = random_tokens(model.config, 3, 60).to(device), LENGTHS
    prompts = torch.cat([row[:length] for row, length in zip(tokens, lengths)])[None]
    positions = torch.cat([torch.arange(length) for length in lengths])[None].to(device)

    def read(captures: bool) -> Tensor:
        cache = Cache(model.config, 3, 64, dtype=precision, device=device)
        model(prompts, positions=positions, lengths=lengths, cache=cache)
        reader = GraphReader(model, cache)
        advance = reader if captures else lambda chosen: model.advance(chosen, cache)
        said = [
            advance(tokens.gather(1, torch.tensor(lengths, device=device)[:, None] + step)[:, 0]).clone()
            for step in range(40)
        ]
        assert not reader.failure, reader.failure
        return torch.stack(said)

    with torch.inference_mode(), torch.autocast("cuda", precision, enabled=precision != torch.float32):
        expected, _ = read(False), read(True)  # working memory of matrix products is kept
        before = torch.cuda.memory_allocated()
        error = float((read(True) - expected).abs().max() / expected.abs().max())
        assert error < (1e-5 if precision == torch.float32 else 3e-2)
        assert torch.cuda.memory_allocated() == before
    trained = [part for part in model.parameters() if part.requires_grad]
    with torch.no_grad():  # an optimizer's step between two evaluations
        for part in trained:
            part += 0.05
    with torch.inference_mode():
        assert torch.allclose(read(True), read(False), rtol=1e-3, atol=1e-3)


def _save(model: Decoder, folder: Path) -> None:
    values = model.config.to_hf(eos_id=None)
    (folder / "config.json").write_text(json.dumps(values))
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
