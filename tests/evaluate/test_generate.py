"""Continuing prompts."""

import pytest
import torch

from etude.errors import InputError
from etude.evaluate.generate import generate
from etude.models.config import DecoderConfig
from etude.models.decoder import Decoder

CONFIG = DecoderConfig(
    vocab_size=61, n_layer=2, n_head=4, n_kv_head=2, n_embd=32, n_ffn=64, head_dim=8, context=32, sliding_window=9
)
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [3], [40, 2, 40, 2, 40]]


@pytest.fixture(scope="module")
def model() -> Decoder:
    model = Decoder(CONFIG)
    model.init_weights(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    return model


def test_prompts_of_unequal_length_continue_as_if_alone(model: Decoder) -> None:
    together = generate(model, PROMPTS, max_tokens=12, eos_id=None)
    assert together == [generate(model, [prompt], max_tokens=12, eos_id=None)[0] for prompt in PROMPTS]


def test_greedy_tokens_are_those_of_whole_passes(model: Decoder) -> None:
    tokens = list(PROMPTS[0])
    model.eval()
    for _ in range(12):
        tokens.append(int(model.logits(torch.tensor([tokens]))[0, -1].argmax()))
    assert generate(model, [PROMPTS[0]], max_tokens=12, eos_id=None) == [tokens[len(PROMPTS[0]) :]]


def test_top_k_of_one_and_a_tiny_top_p_are_greedy(model: Decoder) -> None:
    greedy = generate(model, PROMPTS, max_tokens=8, eos_id=None)
    assert generate(model, PROMPTS, max_tokens=8, eos_id=None, temperature=1.0, top_k=1, seed=4) == greedy
    assert generate(model, PROMPTS, max_tokens=8, eos_id=None, temperature=1.0, top_p=1e-6, seed=4) == greedy


def test_a_seed_repeats_its_tokens_and_touches_no_other_randomness(model: Decoder) -> None:
    before = torch.get_rng_state()
    first, again, other = (
        generate(model, PROMPTS, max_tokens=10, eos_id=None, temperature=1.0, seed=s) for s in (1, 1, 2)
    )
    assert first == again != other
    assert torch.equal(before, torch.get_rng_state())


def test_tokens_are_drawn_with_their_probabilities(model: Decoder) -> None:
    model.eval()
    expected = (model.logits(torch.tensor([[3]]))[0, -1] / 2.0).softmax(-1).detach()
    drawn = torch.tensor(generate(model, [[3]] * 4000, max_tokens=1, eos_id=None, temperature=2.0))[:, 0]
    assert (drawn.bincount(minlength=61) / 4000 - expected).abs().max() < 0.03
    likeliest = set(expected.topk(3).indices.tolist())
    kept = generate(model, [[3]] * 200, max_tokens=1, eos_id=None, temperature=2.0, top_k=3)
    assert {row[0] for row in kept} == likeliest
    nucleus = generate(
        model, [[3]] * 200, max_tokens=1, eos_id=None, temperature=2.0, top_p=float(expected.max()) + 1e-4
    )
    assert {row[0] for row in nucleus} == set(expected.topk(2).indices.tolist())


def test_the_end_token_stops_a_row_and_is_left_out(model: Decoder) -> None:
    greedy = generate(model, PROMPTS, max_tokens=12, eos_id=None)
    end = greedy[0][4]
    stopped = generate(model, PROMPTS, max_tokens=12, eos_id=end)
    assert stopped == [row[: row.index(end)] if end in row else row for row in greedy]
    assert len(stopped[0]) <= 4


def test_prompt_and_continuation_fit_the_context(model: Decoder) -> None:
    long = [token % 61 for token in range(100)]
    assert generate(model, [long], max_tokens=10, eos_id=None) == generate(
        model, [long[-22:]], max_tokens=10, eos_id=None
    )
    assert len(generate(model, [long], max_tokens=500, eos_id=None)[0]) == CONFIG.context - 1


def test_rows_without_a_token_are_never_drawn(model: Decoder) -> None:
    rows = generate(model, PROMPTS, max_tokens=20, eos_id=None, temperature=5.0, vocab_size=10)
    assert max(max(row) for row in rows) < 10


def test_an_empty_prompt_starts_after_an_end_token(model: Decoder) -> None:
    assert generate(model, [[]], max_tokens=3, eos_id=60) == generate(model, [[60]], max_tokens=3, eos_id=60)
    with pytest.raises(InputError, match="prompt 2 is empty"):
        generate(model, [[1], []], max_tokens=3, eos_id=None)


def test_the_mode_of_the_model_is_restored(model: Decoder) -> None:
    for training in (True, False):
        model.train(training)
        generate(model, PROMPTS, max_tokens=2, eos_id=None)
        assert model.training is training
