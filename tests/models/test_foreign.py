"""What a model of transformers says of a sample is the same alone and beside any others."""

from functools import cache
from typing import Any

import pytest
import torch

from etude.evaluate.generate import generate
from etude.models.foreign import (
    MASKABLE,
    PADDABLE_DECODERS,
    PADDABLE_ENCODERS,
    label_logits,
    scored_logits,
)

# Each family takes the names that it knows.
SIZES: dict[str, Any] = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "n_embd": 32,
    "n_layer": 2, "n_head": 4, "d_model": 32, "n_heads": 4, "n_layers": 2, "n_positions": 64, "dim": 32,
    "hidden_dim": 48, "ffn_dim": 48, "head_dim": 8, "word_embed_proj_dim": 32, "embedding_size": 32,
    "num_local_experts": 2, "rotary_dim": 4, "local_attention": 8, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "num_labels": 3,
}  # fmt: skip
WINDOWED = ("gemma2", "gemma3_text", "mistral", "mixtral", "phi3")
# These see a padding behind a text, or turn by the longest of a call: they get a call for each sample.
UNPADDABLE = ("convbert", "fnet", "mobilebert", "nystromformer", "yoso")
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
LONG = {
    "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 16,
    "short_factor": [1.0, 1.0, 1.0, 1.0], "long_factor": [1.0, 2.0, 4.0, 8.0],
}  # fmt: skip
BY_LENGTH: dict[str, dict[str, Any]] = {
    "llama dynamic": {"family": "llama", "max_position_embeddings": 16, "rope_parameters": DYNAMIC},
    "llama longrope": {"family": "llama", "rope_parameters": LONG},
    "qwen2 longrope": {"family": "qwen2", "rope_parameters": LONG},
    "phi3 longrope": {"family": "phi3", "rope_parameters": LONG, "original_max_position_embeddings": 16},
}
# Around the switch at 16, and such that a state that the longest call leaves behind would show.
LENGTHS = (20, 15, 16, 17, 19, 3)


@cache
def build(family: str, classifier: bool = False, **changes: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    torch.manual_seed(0)
    kind: Any = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
    window = {"sliding_window": 6} if family in WINDOWED and not changes else {}
    model = kind.from_config(AutoConfig.for_model(family, **SIZES | window | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
    return model


def build_by_length(name: str, **settings: Any) -> Any:
    changes = dict(BY_LENGTH[name])
    build.cache_clear()  # a model of its own, that no call has changed yet
    return build.__wrapped__(changes.pop("family"), **settings, **changes)


def rows(lengths: tuple[int, ...] = LENGTHS) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randint(3, 60, (length,), generator=draw) for length in lengths]


def assert_close(ours: torch.Tensor, expected: torch.Tensor) -> None:
    assert (ours - expected).abs().max() < 2e-5 * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("family", sorted({*MASKABLE, *PADDABLE_DECODERS}))
def test_the_logits_of_a_sample_are_the_same_alone_and_beside_others(family: str) -> None:
    model, samples = build(family), rows()
    alone = torch.cat([model(input_ids=sample[None], use_cache=False).logits[0] for sample in samples])
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    assert_close(scored_logits(model, torch.cat(samples)[None], positions, LENGTHS, None), alone)


@torch.no_grad()
@pytest.mark.parametrize(
    "family", sorted({*PADDABLE_ENCODERS, *UNPADDABLE, "gemma", "gpt2", "gpt_neox", "opt", "phi3"})
)
def test_the_labels_of_a_sample_are_the_same_alone_and_beside_others(family: str) -> None:
    model, samples = build(family, classifier=True), rows()
    alone = torch.cat([model(input_ids=sample[None]).logits for sample in samples])
    assert_close(label_logits(model, torch.cat(samples)[None], LENGTHS, None), alone)


@pytest.mark.parametrize("family", sorted(PADDABLE_DECODERS))
def test_a_text_goes_on_the_same_alone_and_beside_others(family: str) -> None:
    model = build(family)
    prompts = [row.tolist() for row in rows((9, 2, 5))]
    beside = generate(model, prompts, end_ids=[2], max_tokens=5)
    alone = [generate(model, [prompt], end_ids=[2], max_tokens=5)[0] for prompt in prompts]
    assert beside == alone


def test_a_decoder_that_counts_positions_from_its_padding_goes_on_as_transformers_does() -> None:
    model = build("roberta", is_decoder=True)
    prompts = [row.tolist() for row in rows((9, 2, 5))]
    for prompt, text in zip(prompts, generate(model, prompts, end_ids=[2], max_tokens=5)):
        ids = list(prompt)
        with torch.no_grad():
            for _ in range(5):
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert text.ids == ids[len(prompt) :][: len(text.ids)]


@torch.no_grad()
@pytest.mark.parametrize("name", BY_LENGTH)
def test_frequencies_that_follow_the_length_are_those_of_each_sample(name: str) -> None:
    samples = rows()
    alone = torch.cat(
        [build_by_length(name)(input_ids=row[None], use_cache=False).logits[0] for row in samples]
    )
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    model = build_by_length(name)
    for _ in range(2):  # the second time after calls that were longer
        assert_close(scored_logits(model, torch.cat(samples)[None], positions, LENGTHS, None), alone)
    short = scored_logits(model, torch.stack([samples[0][:17], samples[4][:17]]), None, None, None)
    fresh = build_by_length(name)(
        input_ids=torch.stack([samples[0][:17], samples[4][:17]]), use_cache=False
    ).logits
    assert_close(short, fresh.flatten(0, 1))


@torch.no_grad()
@pytest.mark.parametrize("name", BY_LENGTH)
def test_labels_and_texts_follow_the_length_of_their_own_sample(name: str) -> None:
    samples = rows()
    alone = torch.cat([build_by_length(name, classifier=True)(input_ids=row[None]).logits for row in samples])
    model = build_by_length(name, classifier=True)
    for _ in range(2):
        assert_close(label_logits(model, torch.cat(samples)[None], LENGTHS, None), alone)
    if name == "llama dynamic":  # a text ends where its context does
        return
    prompts = [row.tolist() for row in rows((20, 14, 3))]
    for prompt, text in zip(prompts, generate(build_by_length(name), prompts, end_ids=[2], max_tokens=4)):
        ids = list(prompt)
        for _ in range(4):
            fresh = build_by_length(name)
            ids.append(int(fresh(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        assert text.ids == ids[len(prompt) :][: len(text.ids)]
