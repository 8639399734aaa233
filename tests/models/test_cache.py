"""Logits of one token after another, by a cache, against those of one pass."""

import pytest
import torch

from etude.models.cache import Cache
from etude.models.decoder_config import DecoderConfig
from tests.models.decoders import CONFIGS, assert_equal_logits, random_decoder, random_tokens


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_cached_logits_equal_those_of_one_pass(config: DecoderConfig) -> None:
    """Prompts of unequal length are read end to end, then each row goes on by a token at a time."""
    model, tokens, lengths = random_decoder(config), random_tokens(config, 3, 24), (9, 1, 14)
    cache = Cache(config, 3, 24, dtype=torch.float32, device=torch.device("cpu"))
    with torch.no_grad():
        expected = model.logits(tokens)
        prompts = torch.cat([row[:length] for row, length in zip(tokens, lengths)])[None]
        positions = torch.cat([torch.arange(length) for length in lengths])[None]
        read = model.logits(prompts, positions=positions, lengths=lengths, cache=cache)[0]
        for row, part in enumerate(read.split(lengths)):
            assert_equal_logits(part, expected[row, : lengths[row]])
        for step in range(10):
            places = torch.tensor(lengths) + step
            logits = model.logits(tokens.gather(1, places[:, None]), cache=cache)[:, 0]
            assert_equal_logits(logits, expected[torch.arange(3), places])
    assert cache.lengths == [19, 11, 24]


@pytest.mark.parametrize("lengths", [(30, 6, 7), (5, 5, 5), (1, 40, 2), (6, 6, 6)])
@pytest.mark.parametrize("name", ["mistral", "qwen3 sliding", "qwen2 sliding in some layers"])
def test_a_cache_keeps_a_window_of_each_layer_and_gives_the_logits_of_one_pass(
    name: str, lengths: tuple[int, ...]
) -> None:
    """Prompts are shorter and longer than the window and of its size; then each row goes on past it."""
    config = CONFIGS[name]
    model, tokens = random_decoder(config), random_tokens(config, len(lengths), 64)
    cache = Cache(config, len(lengths), 64, dtype=torch.float32, device=torch.device("cpu"))
    rooms = [keys.shape[2] for keys in cache.keys]
    assert rooms == [config.window(layer) or 64 for layer in range(config.n_layer)]
    with torch.no_grad():
        expected = model.logits(tokens)
        prompts = torch.cat([row[:length] for row, length in zip(tokens, lengths)])[None]
        positions = torch.cat([torch.arange(length) for length in lengths])[None]
        model(prompts, positions=positions, lengths=lengths, cache=cache)
        for step in range(24):
            places = torch.tensor(lengths) + step
            logits = model.advance(tokens.gather(1, places[:, None])[:, 0], cache)
            assert_equal_logits(logits, expected[torch.arange(len(lengths)), places])
    assert [keys.shape[2] for keys in cache.keys] == rooms
