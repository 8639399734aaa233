"""Real steps of tiny models, and the memory that they take by torch's own count."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.autograd.profiler import profile

from etude.data.batch import NO_TARGET, Batch, NumpyBatch, find_targets
from etude.data.loader import StepBatches
from etude.engine.loop import TrainState, train
from etude.engine.optim import Optimizer
from etude.engine.precision import choose_precision
from etude.engine.world import World
from etude.models.build import adapt
from etude.models.decoder_config import DecoderConfig
from etude.models.encoder_config import EncoderConfig
from etude.models.families.table import family_of
from etude.models.parts import head_modules, quantize
from etude.models.t5_config import T5Config
from etude.models.weights import keeps_fp32
from etude.plan.memory import Subject
from etude.recipe.course import Course
from etude.recipe.load import recipe_from
from etude.recipe.schema import Recipe

CPU = torch.device("cpu")
VOCABULARY = 500
LORA: dict[str, Any] = {"adapter": {"rank": 4, "targets": "all-linear"}, "model": {"from": "none"}}
RECOMPUTED: dict[str, Any] = {"train": {"activation_checkpointing": True}}


def recipe_of(**changes: Any) -> Recipe:
    train = {"steps": 9, "global_batch_size": 8, "micro_batch_size": 8, "seq_len": 64}
    values: dict[str, Any] = {
        "name": "memory", "data": {"train": [{"path": "none"}]}, "optim": {"learning_rate": 1e-4},
        "schedule": {"kind": "constant"}, **changes, "train": train | changes.get("train", {}),
    }  # fmt: skip
    if "from" not in values.get("model", {}):
        values["tokenizer"] = {"train_vocab_size": 300}
    return recipe_from(values)


def decoder(**changes: Any) -> DecoderConfig:
    sizes = {
        "vocab_size": VOCABULARY, "n_layer": 3, "n_head": 4, "n_kv_head": 4, "n_embd": 64, "n_ffn": 160,
        "head_dim": 16, "context": 256,
    }  # fmt: skip
    return DecoderConfig(**{**sizes, **changes})


def encoder(**changes: Any) -> EncoderConfig:
    sizes = {"vocab_size": VOCABULARY, "n_layer": 3, "n_head": 4, "n_embd": 64, "n_ffn": 160, "context": 256}
    return EncoderConfig(**{**sizes, "dropout": 0.0, "attention_dropout": 0.0, **changes})


def encoder_decoder(**changes: Any) -> T5Config:
    sizes = {"vocab_size": VOCABULARY, "n_layer": 2, "n_decoder_layer": 3, "n_head": 4, "n_embd": 64}
    return T5Config(**{**sizes, "n_ffn": 160, "head_dim": 16, **changes})


def rows(count: int, length: int, labels: int = 0) -> NumpyBatch:
    drawn = np.random.default_rng(1).integers(2, VOCABULARY, (count, length + 1), dtype=np.int64)
    classes = np.eye(labels, dtype=np.float32)[np.arange(count) % labels] if labels else None
    return Batch(tokens=drawn[:, :-1].copy(), labels=drawn[:, 1:].copy(), classes=classes)


def end_to_end(lengths: tuple[int, ...], *, every: int = 1) -> NumpyBatch:
    """Samples in one row, of whose tokens one in `every` is a target."""
    tokens = np.random.default_rng(1).integers(2, VOCABULARY, (1, sum(lengths)), dtype=np.int64)
    labels = np.where(np.arange(sum(lengths)) % every == 0, tokens, NO_TARGET)
    positions = np.concatenate([np.arange(length) for length in lengths])[None]
    return find_targets(Batch(tokens=tokens, labels=labels, positions=positions, lengths=lengths))


def pairs(sources: tuple[int, ...], targets: tuple[int, ...]) -> NumpyBatch:
    draw = np.random.default_rng(1)
    read, written = (draw.integers(2, VOCABULARY, (1, sum(each))) for each in (sources, targets))
    return Batch(tokens=read, labels=written, lengths=sources, target_lengths=targets)


def subject(recipe: Recipe, model: Any, objective: Any, batch: NumpyBatch, **values: Any) -> Subject:
    given = {"labels": 0, "accumulates": False, "device": CPU, "precision": "fp32", **values}
    return Subject(recipe=recipe, model=model, objective=objective, batch=batch, **given)


def build(subject: Subject) -> Any:
    """The model of a subject, with drawn weights."""
    family = family_of(subject.model)
    model: Any = family.make(subject.model, subject.labels)
    model.init_weights(1)
    if subject.recipe.adapter is not None and subject.precision == "bf16":
        heads = tuple(head_modules(model))
        for name, parameter in model.named_parameters():
            is_head = bool(heads) and name.startswith(heads)
            if not (is_head or keeps_fp32(name, torch.bfloat16)):
                parameter.data = parameter.data.bfloat16()
    if subject.recipe.model.quantize is not None:
        quantize(model, {"fp32": torch.float32, "bf16": torch.bfloat16}[subject.precision], CPU)
    adapt(subject.recipe, model)
    return model


def measured_peak(subject: Subject, load: Callable[[], Any] | None = None) -> int:
    """The most bytes of tensors in three real steps, by the events of torch's profiler."""
    with profile(profile_memory=True) as profiled:
        model = load() if load else build(subject)
        state = TrainState(
            model, Optimizer(model, subject.recipe.optim),
            choose_precision(subject.precision, CPU, targets_per_step=1), Course(subject.recipe, 9),
        )  # fmt: skip
        batches = [subject.batch] * (2 if subject.accumulates else 1)
        step = StepBatches(0, 0, 1, np.zeros(1, dtype=np.int64), batches)
        for _ in train(state, [step] * 3, subject.objective, World(CPU)):
            pass
    return peak_of(profiled)


def peak_of(profiled: profile, held: int = 0) -> int:
    """The most bytes of tensors by the events of a profile, where so many were there at its beginning."""
    events = [event for event in profiled.kineto_results.events() if event.name() == "[memory]"]
    total = most = held
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        most = max(most, total)
    return most
