"""Hold the memory that is foreseen of a training step against what it takes.

On a CPU the truth is the most bytes of tensors in three real steps, by the allocator's own events (torch's
profiler); torch's MemTracker counts along in a second run, and the growth of the process is told. On a GPU it
is `torch.cuda.max_memory_allocated` of the cases in results/gpu.json. Beside it what others foresee:
accelerate's estimate-memory and DeepSpeed's estimators (by their formulas), and MemTracker on fake tensors.
"""

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_models import causal, draw_rows, draw_samples, end_to_end, memory_cases
from measure import FOLDER, describe_machine

LORA: dict[str, Any] = {"adapter": {"rank": 8, "targets": "all-linear"}, "model": {"from": "none"}}
LENGTHS = [100, 50, 200, 30, 120, 77]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER / "results" / "estimate.json")
    parser.add_argument("--case", help="one case, in this process; its numbers are printed")
    asked = parser.parse_args()
    if asked.case:
        print("@" + json.dumps(_measure(*asked.case.split(":"))))
        return
    result: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "machine": describe_machine(), "cpu": {}}
    for name in cpu_cases():
        case = _in_process(f"cpu:{name}")
        case["error"] = case["foreseen"] / case["measured"] - 1
        result["cpu"][name] = case
        print(f"{name}: {100 * case['error']:+.3f} % of {case['measured']:,}", flush=True)
    result["gpu"] = gpu()
    result["seven_billion"] = _in_process("seven:cuda"), _in_process("seven:cpu")
    result["summary"] = {part: summarize(result[part]) for part in ("cpu", "gpu")}
    print(json.dumps(result["summary"], indent=1))
    asked.out.write_text(json.dumps(result, indent=1) + "\n")


def cpu_cases() -> dict[str, Callable[[], Any]]:
    """Steps of decoder, encoder and encoder-decoder: full and LoRA, recomputed, accumulated, with labels."""
    from etude.objectives.classification import Classification
    from etude.objectives.masked import Masked
    from etude.objectives.seq2seq import Seq2Seq

    again: dict[str, Any] = {"train": {"activation_checkpointing": True}}
    masked = {"train": {"objective": "masked"}, "model": {"kind": "encoder"}}
    pairs = {"train": {"objective": "seq2seq"}, "model": {"kind": "encoder-decoder"}}
    return {
        "decoder 4M": lambda: subject_of(_decoder(), causal(), rows_of(8, 128)),
        "decoder 4M, recomputed": lambda: subject_of(_decoder(), causal(), rows_of(16, 128), again),
        "decoder 4M, accumulated": lambda: subject_of(_decoder(), causal(), rows_of(4, 128), accumulates=True),
        "decoder 4M, muon": lambda: subject_of(
            _decoder(), causal(), rows_of(8, 128), {"optim": {"kind": "muon", "learning_rate": 1e-3}}
        ),
        "decoder 30M": lambda: subject_of(
            _decoder(vocab_size=32_000, n_embd=448, n_ffn=1216, n_head=7, n_kv_head=7, head_dim=64, n_layer=6),
            causal(), rows_of(4, 256, 32_000),
        ),
        "decoder 30M, packed, bf16": lambda: subject_of(
            _decoder(vocab_size=32_000, n_embd=448, n_ffn=1216, n_head=7, n_kv_head=7, head_dim=64, n_layer=6),
            causal(), end_to_end_of(), precision="bf16",
        ),
        "decoder, LoRA": lambda: subject_of(_decoder(n_kv_head=2, tied=False), causal(), rows_of(8, 128), LORA),
        "decoder, LoRA, packed, bf16": lambda: subject_of(
            _decoder(n_kv_head=2, qkv_bias=True), causal(), end_to_end_of(), LORA, precision="bf16"
        ),
        "decoder, LoRA, recomputed": lambda: subject_of(_decoder(), causal(), rows_of(16, 128), LORA | again),
        "decoder, window": lambda: subject_of(_decoder(sliding_window=32), causal(), rows_of(8, 128)),
        "decoder, labels": lambda: subject_of(_decoder(), Classification(False), rows_of(8, 128, labels=3), labels=3),
        "encoder, masked": lambda: subject_of(_encoder(), Masked(), end_to_end_of(every=7), masked),
        "encoder, labels, recomputed": lambda: subject_of(
            _encoder(), Classification(True), rows_of(8, 128, labels=3), again, labels=3
        ),
        "encoder, labels, LoRA": lambda: subject_of(
            _encoder(), Classification(False), rows_of(8, 128, labels=3),
            LORA | {"model": {"from": "none", "dropout": 0.1}}, labels=3,
        ),
        "encoder-decoder": lambda: subject_of(_t5(), Seq2Seq(), pairs_of(), pairs),
        "encoder-decoder, accumulated": lambda: subject_of(_t5(), Seq2Seq(), pairs_of(), pairs, accumulates=True),
    }  # fmt: skip


def gpu() -> dict[str, Any]:
    """The cases of `gpu.py`, whose weights below an adapter are all bf16."""
    import torch

    from etude.plan import memory

    measured = json.loads((FOLDER / "results" / "gpu.json").read_text()).get("memory", {})
    memory._dtype_of = lambda subject, model, name, tensor: (  # type: ignore[assignment]
        torch.bfloat16 if subject.recipe.adapter else tensor.dtype
    )
    result = {}
    for name, case in memory_cases(False).items():
        changes: dict[str, Any] = {"train": {"activation_checkpointing": case.recompute, "seq_len": 2048}}
        if case.rank:
            targets = [target.rpartition(".")[2] for target in case.targets]
            adapter = {"rank": case.rank, "alpha": 32.0, "targets": targets}
            changes |= {"model": {"from": "none"}, "adapter": adapter}
        batches = case.batches()
        made = memory.estimate_memory(
            subject_of(
                case.config, causal(), batches[0], changes, precision="bf16", device="cuda",
                accumulates=len(batches) > 1,
            )
        )  # fmt: skip
        told = {"foreseen": made.peak, "foreseen_reserved": made.reserved, "parts": made.parts}
        if true := measured.get(name):
            told |= {"measured": true["allocated"], "measured_reserved": true["reserved"]}
            told["error"] = made.peak / true["allocated"] - 1
        result[name] = told
    return result


def summarize(cases: dict[str, Any]) -> dict[str, float]:
    """Median and worst tenth of the errors without sign, and the lowest with it; so of each peer."""
    told: dict[str, float] = {}
    for name in ("foreseen", "accelerate", "deepspeed_zero2", "deepspeed_zero3", "fake_tracker"):
        signed = [
            case[name] / case["measured"] - 1
            for case in cases.values()
            if case.get(name) and "measured" in case
        ]
        if signed:
            errors = sorted(map(abs, signed))
            told |= {
                f"{name} median": statistics.median(errors),
                f"{name} worst tenth": errors[min(int(0.9 * len(errors)), len(errors) - 1)],
                f"{name} lowest": min(signed),
                f"{name} cases": float(len(errors)),
            }
    return told


def _in_process(case: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--case", case]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    lines = [line[1:] for line in done.stdout.splitlines() if line.startswith("@")]
    return (
        dict(json.loads(lines[-1]))
        if lines
        else {f"{case} failed": done.stderr.strip().splitlines()[-1][:300]}
    )


def _measure(part: str, name: str) -> dict[str, Any]:
    if part == "seven":
        return _seven_billion(name)
    subject = cpu_cases()[name]()
    told = foresee(subject) | profile_steps(subject)
    for count in (_track, _track_fake):
        try:
            told |= count(subject)
        except Exception as error:  # it takes no frozen weights, nor what is computed again
            told[f"{count.__name__.lstrip('_')} failed"] = " ".join(str(error).split())[:120]
    return told


def foresee(subject: Any) -> dict[str, Any]:
    from etude.plan.memory import estimate_memory

    started = time.process_time()
    made = estimate_memory(subject)
    seconds = time.process_time() - started
    return {
        "foreseen": made.peak,
        "phase": made.phase,
        "parts": made.parts,
        "cpu_seconds": seconds,
    } | _formulas(subject)


def _formulas(subject: Any) -> dict[str, int]:
    """Source: accelerate/commands/estimate.py; deepspeed/runtime/zero/stage_1_and_2.py and stage3.py, one GPU."""
    from etude.models.families.table import family_of

    model = family_of(subject.model).empty(subject.model, subject.labels)
    count = sum(parameter.numel() for parameter in model.parameters())
    own = [sum(part.numel() for part in module.parameters(recurse=False)) for module in model.modules()]
    return {
        "parameters": count, "accelerate": 4 * count * (4 if subject.precision == "fp32" else 2),
        "deepspeed_zero2": 4 * count + 16 * count, "deepspeed_zero3": 4 * max(own) + 18 * count,
    }  # fmt: skip


def profile_steps(subject: Any, load: Callable[[], Any] | None = None) -> dict[str, Any]:
    """Events of the allocator of three real steps, and the growth of the process.

    The model is there before: to build weights in fp32 that are then held in bf16 takes more than small steps.
    """
    from torch.autograd.profiler import profile

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = load() if load else _build(subject)
    gc.collect()
    storages = {each.untyped_storage()._cdata: each.untyped_storage() for each in model.state_dict().values()}
    storages |= {each.untyped_storage()._cdata: each.untyped_storage() for each in model.buffers()}
    total = most = sum(each.nbytes() for each in storages.values())
    with profile(profile_memory=True) as profiled:
        _train(subject, model)
    growth = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    results = profiled.kineto_results
    assert results is not None
    for event in sorted(results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            total += event.nbytes()
            most = max(most, total)
    return {"measured": most, "process_growth": growth}


def _track(subject: Any) -> dict[str, Any]:
    """torch's MemTracker on the real steps: it counts storages, and sees no memory inside of operations."""
    from torch.distributed._tools.mem_tracker import MemTracker

    tracker = MemTracker()
    with tracker:
        _train(subject, _build(subject), tracker.reset_mod_stats)
    peak = tracker.get_tracker_snapshot("peak")
    return {"tracker": max(device["Total"] for device in peak.values())}


def _track_fake(subject: Any) -> dict[str, Any]:
    """MemTracker on fake tensors, which is what torch has to foresee a step."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker

    tracker, started = MemTracker(), time.process_time()
    with FakeTensorMode(allow_non_fake_inputs=True), tracker:
        _train(subject, _build(subject, drawn=False), tracker.reset_mod_stats)
    peak = tracker.get_tracker_snapshot("peak")
    seconds = time.process_time() - started
    return {"fake_tracker": max(device["Total"] for device in peak.values()), "fake_cpu_seconds": seconds}


def _seven_billion(device: str) -> dict[str, Any]:
    from etude.models.decoder_config import DecoderConfig
    from etude.plan.memory import estimate_memory

    config = DecoderConfig(
        vocab_size=152_064, n_layer=28, n_head=28, n_kv_head=4, n_embd=3584, n_ffn=18_944, head_dim=128,
        context=32_768, qkv_bias=True, rope_theta=1e6, tied=False,
    )  # fmt: skip
    told: dict[str, Any] = {"device": device}
    for name, changes in {"full": {}, "lora": LORA}.items():
        subject = subject_of(config, causal(), rows_of(2, 1024), changes, precision="bf16", device=device)
        started = time.process_time()
        made = estimate_memory(subject)
        told[name] = {"cpu_seconds": time.process_time() - started, "peak": made.peak, "parts": made.parts}
    return told


def _build(subject: Any, *, drawn: bool = True) -> Any:
    import torch

    from etude.models.build import adapt
    from etude.models.families.table import family_of
    from etude.plan.memory import _dtype_of

    model: Any = family_of(subject.model).make(subject.model, subject.labels)
    if drawn:
        model.init_weights(1)
    for name, parameter in model.named_parameters():
        if (dtype := _dtype_of(subject, model, name, parameter)) != torch.float32:
            parameter.data = parameter.data.to(dtype)
    adapt(subject.recipe, model)
    return model


def _train(subject: Any, model: Any, at_step: Callable[[], None] = lambda: None) -> None:
    """Three steps."""
    import numpy as np

    from etude.data.loader import StepBatches
    from etude.engine.loop import TrainState, train
    from etude.engine.optim import Optimizer
    from etude.engine.precision import choose_precision
    from etude.engine.world import World
    from etude.recipe.course import Course

    precision = choose_precision(subject.precision, subject.device, targets_per_step=1)
    state = TrainState(model, Optimizer(model, subject.recipe.optim), precision, Course(subject.recipe, 9))
    batches = [subject.batch] * (2 if subject.accumulates else 1)
    step = StepBatches(0, 0, 1, np.zeros(1, dtype=np.int64), batches)
    for _ in train(state, [step] * 3, subject.objective, World(subject.device)):
        at_step()


def subject_of(
    model: Any, objective: Any, batch: Any, changes: dict[str, Any] | None = None, *, device: str = "cpu",
    precision: str = "fp32", accumulates: bool = False, labels: int = 0,
) -> Any:  # fmt: skip
    import torch

    from etude.plan.memory import Subject
    from etude.recipe.load import recipe_from

    changes = changes or {}
    train = {"steps": 9, "global_batch_size": 8, "micro_batch_size": 8, "seq_len": 128}
    values: dict[str, Any] = {
        "name": "estimate", "data": {"train": [{"path": "none"}]}, "optim": {"learning_rate": 1e-4},
        "schedule": {"kind": "constant"}, **changes, "train": train | changes.get("train", {}),
    }  # fmt: skip
    if "from" not in values.get("model", {}):
        values["tokenizer"] = {"train_vocab_size": 300}
    return Subject(
        recipe=recipe_from(values), model=model, labels=labels, objective=objective, batch=batch,
        accumulates=accumulates, device=torch.device(device), precision=precision,
    )  # fmt: skip


def _decoder(**changes: Any) -> Any:
    from etude.models.decoder_config import DecoderConfig

    sizes: dict[str, Any] = {
        "vocab_size": 2000, "n_layer": 4, "n_head": 8, "n_kv_head": 8, "n_embd": 256, "n_ffn": 704,
        "head_dim": 32, "context": 1024,
    }  # fmt: skip
    return DecoderConfig(**(sizes | changes))


def _encoder() -> Any:
    from etude.models.encoder_config import EncoderConfig

    return EncoderConfig(2000, 4, 8, 256, 1024, 256, dropout=0.1, attention_dropout=0.1)


def _t5() -> Any:
    from etude.models.t5_config import T5Config

    return T5Config(2000, 3, 3, 8, 256, 1024, 32, dropout=0.1)


def rows_of(count: int, length: int, vocabulary: int = 2000, labels: int = 0) -> Any:
    from dataclasses import replace

    import numpy as np

    batch = draw_rows(_decoder(vocab_size=vocabulary, context=length), count)[0]
    return (
        replace(batch, classes=np.eye(labels, dtype=np.float32)[np.arange(count) % labels])
        if labels
        else batch
    )


def end_to_end_of(vocabulary: int = 2000, *, every: int = 1, labels: int = 0) -> Any:
    from dataclasses import replace

    import numpy as np

    from etude.data.batch import NO_TARGET, find_targets

    batch = end_to_end(draw_samples(vocabulary, LENGTHS))
    if labels:
        classes = np.eye(labels, dtype=np.float32)[np.arange(len(LENGTHS)) % labels]
        return replace(batch, labels=np.full_like(batch.labels, NO_TARGET), classes=classes)
    scored = np.where(np.arange(batch.labels.size) % every == 0, batch.labels, NO_TARGET)
    return find_targets(replace(batch, labels=scored))


def pairs_of(vocabulary: int = 2000) -> Any:
    import numpy as np

    from etude.data.batch import Batch

    lengths = LENGTHS[::-1]
    sources, targets = (np.concatenate(draw_samples(vocabulary, each))[None] for each in (LENGTHS, lengths))
    return Batch(tokens=sources, labels=targets, lengths=tuple(LENGTHS), target_lengths=tuple(lengths))


if __name__ == "__main__":
    main()
