"""Test etude on a GPU: first whether it is right, then how fast it is, then where it waits.

Each part is a process of its own with a time limit; `gpu.json` is written after each, so that a machine that
goes away leaves what was done. No network is needed. `--tiny` runs every part on any device, with toy sizes.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

from gpu_generate import generate
from gpu_models import (
    MemoryCase,
    causal,
    choose_device,
    choose_dtype,
    config_300m,
    config_qwen,
    count,
    decoder_of,
    draw_rows,
    draw_samples,
    draw_weights,
    empty_decoder,
    end_to_end,
    families,
    memory_cases,
    small_decoder,
    steps_of,
    train_speed,
    write_recipe,
)
from gpu_training import out_of_memory, precisions, presets, recompilations, unwatched, windows
from measure import FOLDER, describe_machine

# Dense bf16 peak in FLOP/s. Source: NVIDIA's data sheets of H100 SXM and H200 (both 989.4) and A100 (312).
PEAKS = {"H100": 989.4e12, "H200": 989.4e12, "A100": 312e12}
LIMIT_SECONDS = 240.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to try the script on any device")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=FOLDER / "results" / "gpu.json")
    parser.add_argument(
        "--seconds", type=float, default=460.0, help="of all parts together; what is left out is named"
    )
    asked = parser.parse_args()
    end = time.monotonic() + asked.seconds
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "tiny": asked.tiny,
        "machine": describe_machine(),
    }
    for name in asked.only:
        left = end - time.monotonic()
        result[name] = (
            _in_process(name, asked.tiny, min(LIMIT_SECONDS, left)) if left > 5 else {"skipped": "no time"}
        )
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"{name}: {json.dumps(result[name])[:2000]}", flush=True)
    failed = [name for name in asked.only if not result[name].get("passed", True) or "error" in result[name]]
    print(f"failed: {', '.join(failed)}" if failed else "no part failed")
    sys.exit(bool(failed))


def _in_process(name: str, tiny: bool, limit_seconds: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "part", name, *(["--tiny"] if tiny else [])]
    started = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=limit_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        so_far = json.loads(([line[1:] for line in out.splitlines() if line.startswith("@")] or ["{}"])[-1])
        return {**so_far, "error": f"not done after {limit_seconds:.0f} s"}
    lines = [line[1:] for line in out.splitlines() if line.startswith("@")]
    if process.returncode or not lines:
        return {"error": "\n".join(err.strip().splitlines()[-12:]), "code": process.returncode}
    return {**json.loads(lines[-1]), "seconds": round(time.monotonic() - started, 1)}


# Whether it is right


def losses(tiny: bool) -> dict[str, Any]:
    """Loss and gradient of the three own families on this device, in fp32 and bf16, against fp32
    on the CPU."""
    import torch

    from etude.engine.batch import to_device
    from etude.engine.precision import choose_precision

    device, passed = choose_device(), True
    result: dict[str, Any] = {}
    for name, (model, objective, batch) in families(tiny).items():
        truth_loss, truth = _loss_and_gradient(model, objective, to_device(batch, torch.device("cpu")), None)
        model.to(device)
        for precision in ("fp32", "bf16"):
            try:
                context = choose_precision(precision, device, targets_per_step=1)
            except Exception as error:  # a device that only emulates bf16
                result[f"{name} {precision}"] = {"skipped": str(error)[:80]}
                continue
            loss, gradient = _loss_and_gradient(model, objective, to_device(batch, device), context)
            loss_error = abs(loss - truth_loss) / truth_loss
            slope = float((gradient - truth).norm() / truth.norm())
            most = (1e-5, 1e-3) if precision == "fp32" else (5e-3, 5e-2)
            result[f"{name} {precision}"] = {"loss": loss, "loss_error": loss_error, "gradient_error": slope}
            passed &= loss_error < most[0] and slope < most[1]
    return {"passed": bool(passed), **result}


def packed(tiny: bool) -> dict[str, Any]:
    """Loss and gradient of samples that lie end to end, against one call for each of them."""
    import torch

    from etude.engine.batch import to_device
    from etude.engine.precision import choose_precision

    device, passed = choose_device(), True
    result: dict[str, Any] = {}
    model, objective = small_decoder(tiny), causal()
    model.to(device)
    samples = draw_samples(model.config.vocab_size, [37, 5, 300, 64, 128, 1, 90][: 4 if tiny else None])
    for precision in ("fp32", "bf16"):
        try:
            context = choose_precision(precision, device, targets_per_step=1)
        except Exception as error:
            result[precision] = {"skipped": str(error)[:80]}
            continue
        together, slope = _loss_and_gradient(
            model, objective, to_device(end_to_end(samples), device), context
        )
        alone = [
            _loss_and_gradient(model, objective, to_device(end_to_end([sample]), device), context)
            for sample in samples
        ]
        truth_loss, truth = sum(loss for loss, _ in alone), torch.stack([part for _, part in alone]).sum(0)
        errors = abs(together - truth_loss) / truth_loss, float((slope - truth).norm() / truth.norm())
        most = (1e-5, 1e-3) if precision == "fp32" else (5e-3, 5e-2)
        passed &= errors[0] < most[0] and errors[1] < most[1]
        result[precision] = {"loss_error": errors[0], "gradient_error": errors[1]}
    return {"passed": bool(passed), **result}


def resume(tiny: bool) -> dict[str, Any]:
    """A deterministic run that is killed and resumed, against one that is not: the same bits."""
    from etude.records.store import list_runs

    with tempfile.TemporaryDirectory() as folder:
        recipe = write_recipe(Path(folder), tiny)
        hashes = []
        for name, kills in (("whole", 0), ("killed", 1 if tiny else 2)):
            runs = Path(folder) / name
            command = [sys.executable, "-m", "etude", "train", str(recipe), "--runs", str(runs)]
            for kill in range(kills + 1):
                process = subprocess.Popen(
                    command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
                )
                if kill < kills:
                    _wait_for_step(runs, 9 + 10 * kill, process)
                    process.kill()
                _, err = process.communicate()
                if kill == kills and process.returncode:
                    return {"passed": False, "error": err[-600:]}
            (run,) = list_runs(runs)
            last = max(run.checkpoints.iterdir())
            hashes.append({
                file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in last.glob("*.safetensors")
            })  # fmt: skip
        return {"passed": hashes[0] == hashes[1], "whole": hashes[0], "killed": hashes[1]}


# How fast it is


def pretrain(tiny: bool) -> dict[str, Any]:
    """Training of the 300M decoder on rows of 2,048 tokens, with and without torch.compile."""
    config = config_300m(tiny)
    rows = (2, 4) if tiny else (8, 64)
    result: dict[str, Any] = {
        "parameters": count(config),
        "rows_a_micro_batch": rows[0],
        "rows_a_step": rows[1],
    }
    for compiled in (False, True):
        result["compiled" if compiled else "eager"] = _train_decoder(config, rows, tiny, compiled=compiled)
    return result


def lora(tiny: bool) -> dict[str, Any]:
    """LoRA, rank 16 on attention, of Qwen2.5-Coder-1.5B's shape with random weights; samples lie
    end to end."""
    import torch

    from etude.models.lora import add_adapter
    from etude.recipe.model import Adapter

    device = choose_device()
    with torch.device(device):  # drawn there: 1.5 billion numbers take a minute on a CPU
        model = empty_decoder(config_qwen(tiny)).to(choose_dtype(device))
    draw_weights(model)
    targets = [
        f"model.layers.{layer}.self_attn.{name}"
        for layer in range(model.config.n_layer)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj")
    ]
    add_adapter(model, dict.fromkeys(targets, Adapter(rank=16, alpha=32.0)), 17)
    model.to(device)
    draw = random.Random(17)
    lengths = [draw.randint(40, 80) if tiny else draw.randint(60, 900) for _ in range(4 if tiny else 32)]
    result = train_speed(model, [end_to_end(draw_samples(model.config.vocab_size, lengths))], *_steps(tiny))
    cost = _cost(
        model.config,
        round(sum(lengths) / len(lengths)),
        sum(p.numel() for p in model.parameters() if p.requires_grad),
    )
    return {"tokens_a_step": sum(lengths), **_shares(result, cost, scored=1.0)}


def memory(tiny: bool) -> dict[str, Any]:
    """Peak bytes of three steps, allocated and reserved: the truth for forecasts of memory."""
    import torch

    device = choose_device()
    result: dict[str, Any] = {}
    for name, case in memory_cases(tiny).items():
        try:
            result[name] = _peak(case, device)
        except torch.OutOfMemoryError as error:
            result[name] = {"error": str(error)[:120]}
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info()
        result["context"] = {"used_outside": total - free - torch.cuda.memory_reserved()}
    return result


def _peak(case: MemoryCase, device: Any) -> dict[str, int]:
    import torch

    from etude.models.lora import add_adapter
    from etude.recipe.model import Adapter

    is_cuda = device.type == "cuda"
    if is_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if is_cuda else 0
    with torch.device(device):
        model = empty_decoder(case.config)
    draw_weights(model)
    if case.rank:
        model.to(choose_dtype(device))
        layers = range(case.config.n_layer)
        targets = [f"model.layers.{layer}.{part}" for layer in layers for part in case.targets]
        add_adapter(model, dict.fromkeys(targets, Adapter(rank=case.rank, alpha=32.0)), 17)
        model.to(device)
    model.checkpoint_activations = case.recompute
    if is_cuda:
        torch.cuda.empty_cache()  # weights in fp32, which an adapter's base had at first, are no part of a step
        torch.cuda.reset_peak_memory_stats()
    steps = steps_of(model, repeat(case.batches()), device)
    for _ in range(3):
        next(steps)
    return {
        "before": before,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "allocated": torch.cuda.max_memory_allocated() if is_cuda else 0,
        "reserved": torch.cuda.max_memory_reserved() if is_cuda else 0,
    }


# Where it waits


def profile(tiny: bool) -> dict[str, Any]:
    """The five largest waits of each: what the host waited for, and what kept the device busiest."""
    import torch

    from etude.evaluate import generate as generation

    device = choose_device()
    result: dict[str, Any] = {}
    config = config_300m(tiny)
    for compiled in (False, True):
        trained = decoder_of(config, device)
        if compiled:
            _compile(trained, tiny)
        steps = steps_of(trained, repeat(draw_rows(config, 2 if tiny else 8)), device)
        result["compiled pretrain" if compiled else "pretrain"] = _waits(steps.__next__, device)
    model = empty_decoder(config_qwen(True) if tiny else replace(config_qwen(False), n_layer=6)).to(
        choose_dtype(device)
    )
    draw_weights(model)
    model.to(device)
    samples = draw_samples(model.config.vocab_size, [40, 70, 90] if tiny else [200, 500, 700, 350, 60, 900])
    steps = steps_of(model, repeat([end_to_end(samples)]), device)
    result["packed fine-tuning"] = _waits(lambda: next(steps), device)
    prompts = [sample.tolist() for sample in samples]
    model.eval()
    with torch.inference_mode():
        result["generation"] = _waits(
            lambda: generation.generate(model, prompts, max_tokens=8, end_ids=()), device
        )
    return result


PARTS: dict[str, Callable[[bool], dict[str, Any]]] = {
    part.__name__: part
    for part in (
        losses,
        packed,
        unwatched,
        pretrain,
        lora,
        recompilations,
        presets,
        memory,
        generate,
        profile,
        resume,
        windows,
        precisions,
        out_of_memory,
    )
}


def _loss_and_gradient(model: Any, objective: Any, batch: Any, precision: Any) -> tuple[float, Any]:
    """The loss of a batch, and its gradient as one fp64 vector on the CPU."""
    import torch

    model.zero_grad()
    with precision.autocast() if precision else contextlib.nullcontext():
        loss, _ = objective.loss_sum(model, batch)
    loss.backward()
    parts = [p.grad.detach().cpu().double().flatten() for p in model.parameters() if p.grad is not None]
    return float(loss), torch.cat(parts)


def _steps(tiny: bool) -> tuple[int, int]:
    """Steps to warm up, and timed ones."""
    return (1, 2) if tiny else (4, 12)


def _train_decoder(config: Any, rows: tuple[int, int], tiny: bool, *, compiled: bool) -> dict[str, Any]:
    import torch

    device = choose_device()
    model = decoder_of(config, device)
    if compiled:
        _compile(model, tiny)
    micro_batches = rows[1] // rows[0]
    result = train_speed(model, draw_rows(config, rows[0]) * micro_batches, *_steps(tiny))
    del model
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return _shares(result, _cost(config, config.context, None), scored=1.0)


def _compile(model: Any, tiny: bool) -> None:
    model.compile(**({"backend": "aot_eager"} if tiny else {}))  # inductor takes half a minute on a CPU


def _cost(config: Any, seq_len: int, adapter: int | None) -> Any:
    from etude.models.cost import training_cost

    return training_cost(config, seq_len, adapter=adapter)


def _shares(result: dict[str, float], cost: Any, *, scored: float) -> dict[str, Any]:
    """A training's figures with its share of the datasheet's peak and of the measured rate of matrix
    products.
    """
    import torch

    from etude.engine.world import measure_matrix_rate

    device = choose_device()
    rate = measure_matrix_rate(device, choose_dtype(device))
    operations = result["tokens_per_second"] * cost.operations(1, scored)
    name = torch.cuda.get_device_name() if device.type == "cuda" else ""
    peak = next((value for kind, value in PEAKS.items() if kind in name), None)
    return {
        **{key: round(value, 4) for key, value in result.items()},
        "share_of_measured_rate": round(operations / rate, 4),
        "measured_flops_per_second": round(rate),
        "share_of_datasheet_peak": round(operations / peak, 4) if peak else None,
    }


def _waits(work: Callable[[], object], device: Any) -> dict[str, Any]:
    """Profile three calls: the busy share of the device, the host's waits, the longest kernels."""
    import torch
    from torch.profiler import ProfilerActivity

    from etude.engine.world import synchronize

    for _ in range(2):
        work()
    synchronize(device)
    is_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    with torch.profiler.profile(activities=activities) as profiler:
        started = time.perf_counter()
        for _ in range(3):
            work()
        synchronize(device)
        seconds = time.perf_counter() - started
    rows = profiler.key_averages()

    def largest(key: str, rows: Any) -> list[dict[str, Any]]:
        ordered = sorted(rows, key=lambda row: -getattr(row, key))[:5]
        return [
            {"name": row.key[:90], "calls": row.count, "share": round(getattr(row, key) / seconds / 1e6, 3)}
            for row in ordered
        ]

    waits = [
        row
        for row in rows
        if any(word in row.key for word in ("Synchronize", "cudaMemcpy", "item", "_local_scalar"))
    ]
    kernels = [
        row for row in rows if getattr(row, "self_device_time_total", 0) and not row.key.startswith("aten::")
    ]
    busy = sum(row.self_device_time_total for row in kernels) / 1e6 if is_cuda else None
    return {
        "seconds_a_call": round(seconds / 3, 4),
        "device_busy_share": round(busy / seconds, 3) if busy is not None else None,
        "host_waits": largest("self_cpu_time_total", waits),
        "kernels": largest("self_device_time_total", kernels) if is_cuda else [],
        "host": largest("self_cpu_time_total", rows),
    }


def _wait_for_step(runs: Path, step: int, process: "subprocess.Popen[str]") -> None:
    """Return once the journal of the only run has the record of a step, or the process has ended."""
    wanted = b'"type": "step"'
    while process.poll() is None:
        for journal in runs.glob("*/journal.jsonl"):
            if journal.read_bytes().count(wanted) >= step:
                return
        time.sleep(0.02)


if __name__ == "__main__":
    if sys.argv[1:2] == ["part"]:
        answered = PARTS[sys.argv[2]]("--tiny" in sys.argv)
        print("@" + json.dumps(answered), flush=True)
    else:
        main()
