"""The tables of docs/scaling.md: steps of decoders of 0.3 to 70 billion parameters on 8 to 4,096 GPUs, by arithmetic.

    python benchmarks/scaling.py --gpu h100

Nothing is trained: each line is what `etude estimate --gpu h100 --devices N` says of such a recipe.
"""

import argparse
from pathlib import Path
from typing import Any

from etude.estimate import Estimate, estimate
from etude.gpus import find_gpu
from etude.recipe.load import recipe_from
from etude.text import rough_size

MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # [model], and [train] with rows of a GPU
    "300m": ({"preset": "300m"}, {"micro_batch_size": 8}),
    "1b": ({"preset": "1b"}, {"micro_batch_size": 8}),
    "8b": (
        {"n_layer": 32, "n_head": 32, "n_embd": 4096, "n_ffn": 14_336, "vocab_size": 128_256, "n_kv_head": 8},
        {"micro_batch_size": 4, "activation_checkpointing": True},
    ),
    "70b": (
        {"n_layer": 80, "n_head": 64, "n_embd": 8192, "n_ffn": 28_672, "vocab_size": 128_256, "n_kv_head": 8},
        {"micro_batch_size": 2, "activation_checkpointing": True},
    ),
}
HEAD = (
    "model", "GPUs", "way", "memory of a GPU", "sent a step", "exchanges, ms", "hops, ms", "step, s",
    "million tokens/s", "share of the peak",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", default="h100")
    parser.add_argument("--devices", type=int, nargs="+", default=[8, 64, 512, 1024, 4096])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    given = parser.parse_args()
    print(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}")
    for name in given.models:
        for devices in given.devices:
            print(f"| {' | '.join(row_of(name, devices, given.gpu))} |", flush=True)


def row_of(name: str, devices: int, gpu: str) -> list[str]:
    """A line of the table; what lies between no and full overlap is written as a range."""
    made = make(name, devices, gpu)
    values = made.values()
    traffic, memory = values["traffic"], values["memory"]
    steps, rates = traffic["step_seconds"], traffic["tokens_per_second"]
    operations = made.plan.cost.operations(values["tokens_per_step"], values["targets_per_step"])
    peak = devices * find_gpu(gpu).peak(made.plan.precision)
    shares = [100 * operations / steps[which] / peak for which in ("no_overlap", "full_overlap")]
    return [
        name, f"{devices:,}", values["parallel"],
        rough_size(memory["device_bytes"]) + ", too large" * (not memory["fits"]),
        rough_size(traffic["sent_bytes"]), f"{1e3 * traffic['link_seconds']:,.0f}",
        f"{1e3 * traffic['hop_seconds']:,.0f}", f"{steps['no_overlap']:.3g} to {steps['full_overlap']:.3g}",
        f"{rates['no_overlap'] / 1e6:,.3g} to {rates['full_overlap'] / 1e6:,.3g}",
        f"{shares[0]:.0f} to {shares[1]:.0f} %",
    ]  # fmt: skip


def make(name: str, devices: int, gpu: str) -> Estimate:
    """The estimate of a model on so many GPUs, each with as many rows of a step however many they are."""
    model, train = MODELS[name]
    batch = devices * train["micro_batch_size"]
    values = {
        "name": name, "model": model, "data": {"train": [{"path": "not-here"}], "validation": "none"},
        "tokenizer": {"train_vocab_size": 50_257},
        "train": {"steps": 1000, "seq_len": 2048, "global_batch_size": batch, "devices": devices, **train},
    }  # fmt: skip
    assert not Path("not-here").exists()
    return estimate(recipe_from(values), gpu=find_gpu(gpu), rows=1000 * batch)


if __name__ == "__main__":
    main()
