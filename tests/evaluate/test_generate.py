"""Continuing prompts."""

from typing import Any

import pytest
import torch

from etude.errors import InputError
from etude.evaluate import generate as evaluate_generate
from etude.models.decoder import Decoder
from etude.models.decoder_config import DecoderConfig
from etude.models.t5 import T5
from etude.models.t5_config import T5Config

CONFIG = DecoderConfig(
    vocab_size=61,
    n_layer=2,
    n_head=4,
    n_kv_head=2,
    n_embd=32,
    n_ffn=64,
    head_dim=8,
    context=32,
    sliding_window=9,
)
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [3], [40, 2, 40, 2, 40]]


def generate(model: torch.nn.Module, prompts: list[list[int]], **settings: Any) -> list[list[int]]:
    """The tokens alone."""
    return [row.ids for row in evaluate_generate.generate(model, prompts, **settings)]


@pytest.fixture(scope="module")
def model() -> Decoder:
    model = Decoder(CONFIG)
    model.init_weights(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    return model


def test_prompts_of_unequal_length_continue_as_if_alone(model: Decoder) -> None:
    together = generate(model, PROMPTS, max_tokens=12, end_ids=[])
    assert together == [generate(model, [prompt], max_tokens=12, end_ids=[])[0] for prompt in PROMPTS]


def test_greedy_tokens_are_those_of_whole_passes(model: Decoder) -> None:
    tokens = list(PROMPTS[0])
    model.eval()
    for _ in range(12):
        tokens.append(int(model.logits(torch.tensor([tokens]))[0, -1].argmax()))
    assert generate(model, [PROMPTS[0]], max_tokens=12, end_ids=[]) == [tokens[len(PROMPTS[0]) :]]


def test_top_k_of_one_and_a_tiny_top_p_are_greedy(model: Decoder) -> None:
    greedy = generate(model, PROMPTS, max_tokens=8, end_ids=[])
    assert generate(model, PROMPTS, max_tokens=8, end_ids=[], temperature=1.0, top_k=1, seed=4) == greedy
    assert generate(model, PROMPTS, max_tokens=8, end_ids=[], temperature=1.0, top_p=1e-6, seed=4) == greedy


def test_a_seed_repeats_its_tokens_and_touches_no_other_randomness(model: Decoder) -> None:
    before = torch.get_rng_state()
    first, again, other = (
        generate(model, PROMPTS, max_tokens=10, end_ids=[], temperature=1.0, seed=s) for s in (1, 1, 2)
    )
    assert first == again != other
    assert torch.equal(before, torch.get_rng_state())


def test_tokens_are_drawn_with_their_probabilities(model: Decoder) -> None:
    model.eval()
    expected = (model.logits(torch.tensor([[3]]))[0, -1] / 2.0).softmax(-1).detach()
    drawn = torch.tensor(generate(model, [[3]] * 4000, max_tokens=1, end_ids=[], temperature=2.0))[:, 0]
    assert (drawn.bincount(minlength=61) / 4000 - expected).abs().max() < 0.03
    likeliest = set(expected.topk(3).indices.tolist())
    kept = generate(model, [[3]] * 200, max_tokens=1, end_ids=[], temperature=2.0, top_k=3)
    assert {row[0] for row in kept} == likeliest
    nucleus = generate(
        model, [[3]] * 200, max_tokens=1, end_ids=[], temperature=2.0, top_p=float(expected.max()) + 1e-4
    )
    assert {row[0] for row in nucleus} == set(expected.topk(2).indices.tolist())


def test_the_end_token_stops_a_row_and_is_left_out(model: Decoder) -> None:
    greedy = generate(model, PROMPTS, max_tokens=12, end_ids=[])
    end = greedy[0][4]
    stopped = generate(model, PROMPTS, max_tokens=12, end_ids=[end])
    assert stopped == [row[: row.index(end)] if end in row else row for row in greedy]
    assert len(stopped[0]) <= 4
    rows = evaluate_generate.generate(model, PROMPTS, max_tokens=12, end_ids=[end])
    assert [row.stopped for row in rows] == [end in row for row in greedy]


def test_a_model_of_transformers_continues_as_its_own_generate() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=61, n_positions=64, n_embd=32, n_layer=2, n_head=4)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(4)
    for prompt, ours in zip(PROMPTS, generate(theirs, PROMPTS, max_tokens=12, end_ids=[])):
        expected = theirs.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, pad_token_id=0)
        assert ours == expected[0, len(prompt) :].tolist()


def test_prompt_and_continuation_fit_the_context(model: Decoder) -> None:
    """A prompt is read whole, whatever room is asked for, and none shortens what follows another."""
    long, short = [token % 61 for token in range(30)], [3, 4]
    together = generate(model, [long, short, [5]], max_tokens=500, end_ids=[])
    assert [len(ids) for ids in together] == [2, 30, 31]
    assert together == [generate(model, [each], max_tokens=500, end_ids=[])[0] for each in (long, short, [5])]
    assert together[0] == generate(model, [long], max_tokens=2, end_ids=[])[0]
    with pytest.raises(InputError, match=r"a prompt has 32 tokens, .* context of 32 .* expected at most 31"):
        generate(model, [short, [token % 61 for token in range(32)]], max_tokens=1, end_ids=[])


def test_rows_without_a_token_are_never_drawn(model: Decoder) -> None:
    rows = generate(model, PROMPTS, max_tokens=20, end_ids=[], temperature=5.0, vocab_size=10)
    assert max(max(row) for row in rows) < 10


def test_an_empty_prompt_starts_after_an_end_token(model: Decoder) -> None:
    assert generate(model, [[]], max_tokens=3, end_ids=[60]) == generate(
        model, [[60]], max_tokens=3, end_ids=[60]
    )
    with pytest.raises(InputError, match="prompt 2 is empty"):
        generate(model, [[1], []], max_tokens=3, end_ids=[])


def test_the_mode_of_the_model_is_restored(model: Decoder) -> None:
    for training in (True, False):
        model.train(training)
        generate(model, PROMPTS, max_tokens=2, end_ids=[])
        assert model.training is training


@pytest.mark.parametrize("at_once", [1, 3, 8, 64])
def test_answers_are_the_same_however_many_wait(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config = T5Config(
        vocab_size=300, n_layer=1, n_decoder_layer=2, n_head=2, n_embd=16, n_ffn=32, head_dim=8, start_id=0
    )
    model = T5(config)
    model.init_weights(3)
    with torch.no_grad():  # new weights say the same token again and again
        for name, parameter in model.decoder.named_parameters():
            parameter *= 10 if name.endswith((".wo.weight", ".o.weight")) else 1
    draw = torch.Generator().manual_seed(1)
    sources = [torch.randint(300, (2 + 5 * index % 13,), generator=draw).tolist() for index in range(20)]
    free = evaluate_generate.generate(model, sources, end_ids=[], max_tokens=70, vocab_size=290)
    firsts = [
        [token for place, token in enumerate(part.ids) if token not in part.ids[:place]] for part in free
    ]
    ends = sorted({found[-1] for found in firsts[:6] if len(found) > 3})
    settings: dict[str, Any] = {"max_tokens": 70, "end_ids": ends, "vocab_size": 290}
    expected = [evaluate_generate.generate(model, [source], **settings)[0] for source in sources]
    monkeypatch.setattr(evaluate_generate, "_ROWS_AT_ONCE", at_once)
    assert evaluate_generate.write_answers(model, sources, **settings) == expected
    assert len({len(part.ids) for part in expected}) > 3
    assert evaluate_generate.write_answers(model, [], **settings) == []


def test_the_likeliest_is_the_first_of_the_highest() -> None:
    for width in (5, 128, 300, 1000):
        logits = torch.randint(4, (50, width), generator=torch.Generator().manual_seed(width)).float()
        assert torch.equal(
            evaluate_generate._likeliest(logits[:, : width - 1]), logits[:, : width - 1].argmax(dim=1)
        )


@pytest.mark.parametrize("temperature", [0.0, 1e-4, 0.8])
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@pytest.mark.parametrize("width", [5, 300])
def test_logits_that_are_not_finite_choose_no_token(temperature: float, wrong: float, width: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for place in (0, width // 2, width - 1):
        logits = torch.randn(3, width, generator=generator)
        logits[0, 1] = -torch.inf  # a token that is never drawn
        evaluate_generate.choose(logits, temperature, 2, 0.9, generator)
        logits[1, place] = wrong
        with pytest.raises(InputError, match="are NaN or infinite"):
            evaluate_generate.choose(logits, temperature, 2, 0.9, generator)
