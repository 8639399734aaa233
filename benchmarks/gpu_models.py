"""Models and batches for `gpu.py`: toy sizes, or the sizes of real runs with random weights."""

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

SEQ_LEN = 2048


def choose_device() -> Any:
    from etude.engine import device

    return device.choose_device("auto")


def choose_dtype(device: Any) -> Any:
    import torch

    from etude.engine.precision import has_native_bf16

    return torch.bfloat16 if has_native_bf16(device) else torch.float32


def _config(**changes: Any) -> Any:
    from etude.models.decoder_config import DecoderConfig

    sizes = {
        "vocab_size": 512, "n_layer": 2, "n_head": 4, "n_kv_head": 2, "n_embd": 64, "n_ffn": 128,
        "head_dim": 16, "context": SEQ_LEN,
    }  # fmt: skip
    return DecoderConfig(**{**sizes, **changes})


def config_300m(tiny: bool) -> Any:
    from etude.models.catalogue import decoder_config
    from etude.recipe.model import Model

    if tiny:
        return _config(context=64)
    return decoder_config(Model.model_validate({"preset": "300m"}), vocab_size=50_257, seq_len=SEQ_LEN)


def config_qwen(tiny: bool) -> Any:
    if tiny:
        return _config(qkv_bias=True)
    return _config(
        vocab_size=151_936, n_layer=28, n_head=12, n_kv_head=2, n_embd=1536, n_ffn=8960, head_dim=128,
        context=32_768, qkv_bias=True, rope_theta=1e6,
    )  # fmt: skip


def count(config: Any) -> int:
    from etude.models.cost import count_parameters

    return count_parameters(config)["total"]


def small_decoder(tiny: bool) -> Any:
    from etude.models.decoder import Decoder

    shape = (
        {}
        if tiny
        else {"n_layer": 4, "n_head": 8, "n_embd": 512, "n_ffn": 1408, "head_dim": 64, "vocab_size": 8192}
    )
    model = Decoder(_config(qk_norm=True, **shape))
    model.init_weights(17)
    return model


def decoder_of(config: Any, device: Any) -> Any:
    from etude.models.decoder import Decoder

    model = Decoder(config)
    model.init_weights(17)
    return model.to(device)


def empty_decoder(config: Any) -> Any:
    from etude.models.decoder import Decoder

    return Decoder(config)


def draw_weights(model: Any) -> None:
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0) if name.endswith("norm.weight") else parameter.normal_(std=0.02)


def causal() -> Any:
    from etude.objectives.causal import Causal

    return Causal()


def families(tiny: bool) -> dict[str, tuple[Any, Any, Any]]:
    """A model, an objective and a batch of each own family."""
    import numpy as np

    from etude.data.batch import Batch, find_targets
    from etude.models.encoder import Encoder
    from etude.models.encoder_config import EncoderConfig
    from etude.models.t5 import T5
    from etude.models.t5_config import T5Config
    from etude.objectives.masked import Masked
    from etude.objectives.seq2seq import Seq2Seq

    width, layers = (32, 2) if tiny else (256, 4)
    decoder = small_decoder(tiny)
    encoder = Encoder(
        EncoderConfig(512, layers, 4, width, 2 * width, 256, dropout=0.0, attention_dropout=0.0)
    )
    translator = T5(T5Config(512, layers, layers, 4, width, 2 * width, width // 4))
    for model in (encoder, translator):
        model.init_weights(17)
    lengths = [17, 60, 33, 128]
    sources, targets = draw_samples(512, lengths), draw_samples(512, lengths[::-1])
    hidden = end_to_end(sources)
    labels = np.where(np.arange(hidden.labels.size) % 7 == 0, hidden.labels, -100).reshape(
        hidden.labels.shape
    )
    pairs = Batch(
        tokens=np.concatenate(sources)[None], labels=np.concatenate(targets)[None],
        lengths=tuple(lengths), target_lengths=tuple(lengths[::-1]),
    )  # fmt: skip
    rows = draw_rows(replace(decoder.config, context=64), 4)[0]
    return {
        "decoder": (decoder, causal(), rows),
        "encoder": (encoder, Masked(), find_targets(replace(hidden, labels=labels))),
        "t5": (translator, Seq2Seq(), pairs),
    }


def draw_samples(vocabulary: int, lengths: list[int]) -> list[Any]:
    import numpy as np

    generator = np.random.default_rng(len(lengths))
    return [generator.integers(2, vocabulary, length, dtype=np.int64) for length in lengths]


def end_to_end(samples: list[Any]) -> Any:
    """Samples in one row; each token but the last of a sample has the next one as its label."""
    import numpy as np

    from etude.data.batch import NO_TARGET, Batch, find_targets

    labels = [np.append(sample[1:], NO_TARGET) for sample in samples]
    positions = np.concatenate([np.arange(len(sample)) for sample in samples])
    lengths = tuple(len(sample) for sample in samples)
    return find_targets(
        Batch(
            tokens=np.concatenate(samples)[None],
            labels=np.concatenate(labels)[None],
            positions=positions[None],
            lengths=lengths,
        )
    )


def draw_rows(config: Any, rows: int) -> list[Any]:
    import numpy as np

    from etude.data.batch import Batch

    drawn = np.random.default_rng(rows).integers(
        2, config.vocab_size, (rows, config.context + 1), dtype=np.int64
    )
    return [Batch(tokens=drawn[:, :-1].copy(), labels=drawn[:, 1:].copy())]


@dataclass(frozen=True)
class MemoryCase:
    """A training whose peak memory is measured: all weights in fp32, or an adapter over bf16."""

    config: Any
    batches: Callable[[], list[Any]]
    rank: int = 0
    targets: tuple[str, ...] = ()
    recompute: bool = False


def memory_cases(tiny: bool) -> dict[str, MemoryCase]:
    """Full training and LoRA, rows and packed samples, with and without activation checkpointing."""
    attention = tuple(f"self_attn.{name}_proj" for name in "qkvo")
    everywhere = (*attention, *(f"mlp.{name}_proj" for name in ("gate", "up", "down")))
    small, large = replace(config_300m(tiny), n_layer=2 if tiny else 12), config_qwen(tiny)
    middle = replace(large, n_layer=2 if tiny else 14)
    draw = random.Random(17)
    lengths = [draw.randint(20, 40) if tiny else draw.randint(60, 900) for _ in range(16)]

    def rows(config: Any, number: int, times: int = 1) -> Callable[[], list[Any]]:
        return lambda: draw_rows(replace(config, context=64 if tiny else SEQ_LEN), number) * times

    def packed(config: Any) -> Callable[[], list[Any]]:
        return lambda: [end_to_end(draw_samples(config.vocab_size, lengths))]

    return {
        "full, 4 rows": MemoryCase(small, rows(small, 4)),
        "full, 2 times 4 rows": MemoryCase(small, rows(small, 4, 2)),
        "full, 16 rows": MemoryCase(small, rows(small, 16)),
        "full, 16 rows, recompute": MemoryCase(small, rows(small, 16), recompute=True),
        "full, packed": MemoryCase(small, packed(small)),
        "full, grouped heads": MemoryCase(replace(small, n_kv_head=2 if tiny else 4), rows(small, 4)),
        "lora on attention, packed": MemoryCase(middle, packed(middle), 16, attention),
        "lora everywhere, packed": MemoryCase(middle, packed(middle), 16, everywhere),
        "lora everywhere, packed, recompute": MemoryCase(middle, packed(middle), 8, everywhere, True),
        "lora everywhere, 2 rows": MemoryCase(middle, rows(middle, 2), 8, everywhere),
    }


def write_recipe(folder: Path, tiny: bool) -> Path:
    draw = random.Random(17)
    lines = [
        json.dumps(
            {
                "text": f"def f{n}(a, b):\n    return a * {draw.randint(0, 999)} + b - {draw.randint(0, 99)}\n"
                * 3
            }
        )
        for n in range(400)
    ]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    width = 32 if tiny else 256
    recipe = folder / "recipe.toml"
    recipe.write_text(f"""
name = "resume"
[model]
n_layer = 2
n_head = 4
n_embd = {width}
dropout = 0.1
[tokenizer]
train_vocab_size = 400
[[data.train]]
path = "rows.jsonl"
[data]
validation_ratio = 0.1
[train]
steps = 30
seq_len = 64
global_batch_size = 16
micro_batch_size = 8
deterministic = true
[evaluate]
every_steps = 10
[checkpoint]
every_steps = 5
[records]
log_every_steps = 1
""")
    return recipe


def steps_of(model: Any, batches: Iterable[list[Any]], device: Any) -> Iterator[Any]:
    """The steps of a training; batches: of each step."""
    import numpy as np

    from etude.data.loader import StepBatches
    from etude.engine.loop import TrainState, train
    from etude.engine.optim import Optimizer
    from etude.engine.precision import choose_precision
    from etude.engine.world import World
    from etude.recipe.course import Course
    from etude.recipe.load import recipe_from

    steps = (StepBatches(0, 0, 1, np.zeros(1, dtype=np.int64), each) for each in batches)
    precision = choose_precision("auto", device, targets_per_step=1)
    optim, schedule = {"learning_rate": 1e-4}, {"kind": "constant"}
    section = {"steps": 10**6, "global_batch_size": 1}
    recipe = recipe_from({
        "name": "gpu", "data": {"train": [{"path": "none"}]}, "tokenizer": {"train_vocab_size": 300},
        "train": section, "optim": optim, "schedule": schedule,
    })  # fmt: skip
    state = TrainState(model, Optimizer(model, recipe.optim), precision, Course(recipe, 10**6))
    return train(state, steps, causal(), World(device))


def train_speed(model: Any, batches: list[Any], warm_up: int, timed: int) -> dict[str, float]:
    """Tokens/s and seconds of a step, means of the timed steps; peak memory and the loss of the last one."""
    import torch

    from etude.engine.world import synchronize

    device = choose_device()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    steps = steps_of(model, repeat(batches), device)
    for _ in range(warm_up):
        step = next(steps)
    synchronize(device)
    started = time.perf_counter()
    for _ in range(timed):
        step = next(steps)
    synchronize(device)
    seconds = (time.perf_counter() - started) / timed
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    return {
        "tokens_per_second": float(step.measured[2]) / seconds,
        "seconds_a_step": seconds,
        "peak_bytes": peak,
        "loss": float(step.measured[0] / step.measured[1]),
    }
