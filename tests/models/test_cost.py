"""Counts against the modules themselves, published totals and torch's own counter."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from etude.data.loader import longest_batch
from etude.engine.batch import to_device
from etude.models.cost import count_parameters, flops_per_token
from etude.models.decoder import Decoder
from etude.models.decoder_config import DecoderConfig
from etude.models.families.foreign import FOREIGN
from etude.models.families.table import family_of
from etude.objectives.choose import join_kinds
from etude.plan.assumed import plan_without
from etude.plan.forecast import work_of_step
from etude.recipe.load import recipe_from

SEQ_LEN = 64
TINY = DecoderConfig(
    vocab_size=96, n_layer=2, n_head=4, n_kv_head=2, n_embd=32, n_ffn=80, head_dim=16, context=64, tied=False
)


@pytest.mark.parametrize(
    ("n_embd", "n_layer", "n_head", "n_kv_head", "n_ffn", "vocab_size", "tied", "qkv_bias", "total"),
    [
        pytest.param(896, 24, 14, 2, 4864, 151936, True, True, 494_032_768, id="Qwen2.5-Coder-0.5B"),
        pytest.param(1536, 28, 12, 2, 8960, 151936, True, True, 1_543_714_304, id="Qwen2.5-Coder-1.5B"),
        pytest.param(2048, 36, 16, 2, 11008, 151936, True, True, 3_085_938_688, id="Qwen2.5-Coder-3B"),
        pytest.param(3584, 28, 28, 4, 18944, 152064, False, True, 7_615_616_512, id="Qwen2.5-Coder-7B"),
        pytest.param(2048, 16, 32, 8, 8192, 128256, True, False, 1_235_814_400, id="Llama-3.2-1B"),
        pytest.param(576, 30, 9, 3, 1536, 49152, True, False, 134_515_008, id="SmolLM2-135M"),
        pytest.param(960, 32, 15, 5, 2560, 49152, True, False, 361_821_120, id="SmolLM2-360M"),
    ],
)
def test_published_models_have_their_published_size(
    n_embd: int, n_layer: int, n_head: int, n_kv_head: int, n_ffn: int, vocab_size: int, tied: bool,
    qkv_bias: bool, total: int,
) -> None:  # fmt: skip
    config = DecoderConfig(
        vocab_size, n_layer, n_head, n_kv_head, n_embd, n_ffn, n_embd // n_head, 2048, tied, qkv_bias=qkv_bias
    )
    assert count_parameters(config)["total"] == total == _count_on_meta(config)


@pytest.mark.parametrize("changes", [{}, {"tied": True}, {"qk_norm": True}, {"qkv_bias": True}])
def test_parts_are_those_of_the_modules(changes: dict[str, bool]) -> None:
    config = replace(TINY, **changes)  # type: ignore[arg-type]
    parts = count_parameters(config)
    assert parts["total"] == _count_on_meta(config)
    named = [(name, parameter.numel()) for name, parameter in Decoder(config).named_parameters()]
    assert parts["norms"] == sum(count for name, count in named if name.endswith("norm.weight"))
    assert parts["feed_forward"] == sum(count for name, count in named if "mlp" in name)
    assert parts["attention"] == sum(
        count for name, count in named if "_proj" in name and "self_attn" in name
    )


def test_flops_agree_with_torchs_counter() -> None:
    T = 48
    model = Decoder(TINY)
    model.init_weights(0)
    tokens = torch.zeros(1, T, dtype=torch.int64)
    # With a mask and MATH attention the counter sees whole products; ours counts the causal half of those.
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        model.logits(tokens).sum().backward()
    upper_half = 12 * TINY.n_layer * TINY.n_head * TINY.head_dim * T / 2
    assert counter.get_total_flops() / T == flops_per_token(TINY, T) + upper_half


@pytest.mark.parametrize(
    ("model", "objective", "half"),
    [
        # The operations of causal attention that its mask throws away, at a token; torch's counter has them.
        pytest.param("HuggingFaceTB/SmolLM2-135M", "causal", 6 * 30 * 576 * SEQ_LEN, id="decoder"),
        pytest.param("microsoft/codebert-base", "classification", 0, id="encoder"),
        pytest.param("microsoft/codebert-base", "masked", 0, id="masked"),
        pytest.param("Salesforce/codet5-small", "seq2seq", 6 * 6 * 512 * SEQ_LEN, id="encoder-decoder"),
        pytest.param("openai-community/gpt2", "causal", 6 * 12 * 768 * SEQ_LEN, id="through transformers"),
    ],
)
def test_operations_of_a_family_are_those_that_torch_counts(model: str, objective: str, half: int) -> None:
    """Counted by torch in a step of the published size that has shapes only."""
    source = {"path": "/nowhere", **({"label": "a"} if objective == "classification" else {})}
    source |= {"target": "b"} if objective == "seq2seq" else {}
    train = {"epochs": 1, "seq_len": SEQ_LEN, "global_batch_size": 2, "objective": objective, "device": "cpu"}
    data = {"train": [source], "sample": "document" if objective == "masked" else "row"}
    values = {"name": "x", "model": {"from": model}, "data": data, "train": train | {"precision": "fp32"}}
    plan, _ = plan_without(recipe_from(values), 8)
    batch = to_device(longest_batch(plan.corpus.train, 2, True), torch.device("cpu"))
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        FlopCounterMode(display=False, custom_mapping=MORE) as counter,
    ):
        assert plan.model is not None and plan.pretrained is not None
        loss, _ = join_kinds(plan.tasks).loss_sum(_make(plan.model, plan.pretrained.labels), batch)
        loss.backward()  # type: ignore[no-untyped-call]
    ours = plan.cost.operations(*work_of_step(plan)) + half * 2 * SEQ_LEN
    assert ours == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_a_sliding_window_attends_to_fewer_tokens() -> None:
    exact = [min(position + 0.5, 8 if position >= 8 else position + 0.5) for position in range(32)]
    per_token = 12 * TINY.n_layer * TINY.n_head * TINY.head_dim
    matrices = flops_per_token(TINY, 32) - per_token * 16
    assert flops_per_token(replace(TINY, sliding_window=8), 32) == matrices + per_token * sum(exact) / 32
    assert flops_per_token(replace(TINY, sliding_window=64), 32) == flops_per_token(TINY, 32)


def _attention(query: Any, keys: Any, values: Any, *others: Any, **named: Any) -> int:
    return int(sdpa_flop_count(query, keys, values))


def _attention_backward(gradient: Any, query: Any, keys: Any, values: Any, *others: Any, **named: Any) -> int:
    """Twice the forward: what is computed again is no operation of the model."""
    return 2 * int(sdpa_flop_count(query, keys, values))


def _products(total: Any, left: Any, right: Any, *others: Any, **named: Any) -> int:
    return int(2 * left[0] * left[1] * right[1])


# Operations that torch's counter passes over.
MORE = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    torch.ops.aten.addmm_: _products,
}


def _make(config: Any, labels: int) -> Any:
    """The model on the CPU, as fake tensors have it."""
    if family_of(config) is not FOREIGN:
        return family_of(config).make(config, labels)
    from transformers import AutoConfig, AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(config.path))


def _count_on_meta(config: DecoderConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Decoder(config).parameters())
