"""Parts of `gpu.py` on training: waits, recompilations, large presets, precisions, windows, lack of memory."""

import random
import statistics
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, repeat
from pathlib import Path
from typing import Any

from gpu_models import (
    choose_device,
    choose_dtype,
    config_300m,
    count,
    decoder_of,
    draw_rows,
    draw_samples,
    end_to_end,
    small_decoder,
    steps_of,
    train_speed,
    write_recipe,
)


def unwatched(tiny: bool) -> dict[str, Any]:
    """Steps in which the host never waits for the device, on rows and on packed samples, plain and adapted.

    torch raises at a wait on a GPU; a CPU has none.
    """
    import torch

    from etude.engine.world import synchronize
    from etude.models.lora import add_adapter
    from etude.recipe.model import Adapter

    device = choose_device()
    lengths = [9, 30, 17, 40] if tiny else [300, 900, 64, 512, 37]
    result: dict[str, Any] = {}
    for name in ("rows", "packed", "adapter, packed"):
        model = small_decoder(tiny)
        if name.startswith("adapter"):
            target = "model.layers.0.self_attn.q_proj"
            add_adapter(model, {target: Adapter(rank=4, alpha=8.0)}, 17)
        model.to(device)
        rows = draw_rows(replace(model.config, context=64), 4)
        batches = rows if name == "rows" else [end_to_end(draw_samples(512, lengths))]
        steps = steps_of(model, repeat(batches * 2), device)
        for _ in range(2):  # the first ones make what is kept
            next(steps)
        synchronize(device)
        try:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("error")
            for _ in range(3):
                next(steps)
            result[name] = "no wait"
        except RuntimeError as error:
            result[name] = str(error)[:300]
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
    return {"passed": set(result.values()) == {"no wait"}, **result}


def recompilations(tiny: bool) -> dict[str, Any]:
    """Graphs that are compiled for packed samples of other lengths in each batch, and what compiling gains."""
    import torch

    from etude.engine.world import synchronize

    device, draw = choose_device(), random.Random(17)
    batches = []
    for _ in range(12):
        lengths = [draw.randint(5, 40) if tiny else draw.randint(60, 900) for _ in range(draw.randint(3, 12))]
        batches.append([end_to_end(draw_samples(512, lengths))])
    result: dict[str, Any] = {}
    for compiled in (False, True):
        model = small_decoder(tiny).to(device)
        graphs: list[int] = []
        if compiled:
            torch._dynamo.reset()
            model.compile(backend=_counting(graphs, "aot_eager" if tiny else "inductor"))
        steps = steps_of(model, cycle(batches), device)
        seen, times = [], []
        for _ in range(2 * len(batches)):
            started = time.perf_counter()
            next(steps)
            synchronize(device)
            times.append(time.perf_counter() - started)
            seen.append(len(graphs))
        name = "compiled" if compiled else "eager"
        result[name] = {"seconds_a_step": statistics.median(times[len(batches) :]), "graphs": seen[-1]}
        if compiled:
            result["passed"] = 0 < seen[3] == seen[-1]
            result["graphs_by_step"] = seen
    return result


def presets(tiny: bool) -> dict[str, Any]:
    """Training of the presets 500m and 1b on rows of 2,048 tokens, weights in fp32: speed and peak memory."""
    import torch

    from etude.models.catalogue import decoder_config
    from etude.recipe.model import Model

    device, result = choose_device(), {}
    for preset in ("500m", "1b"):
        chosen = Model.model_validate({"preset": preset})
        config = decoder_config(chosen, vocab_size=50_257, seq_len=2048)
        if tiny:
            config = replace(config_300m(True), n_kv_head=config.n_kv_head * 4 // config.n_head)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        model = decoder_of(config, device)
        rows = draw_rows(config, 2 if tiny else 4)
        warm_up, timed = (1, 1) if tiny else (2, 5)
        result[preset] = {"parameters": count(config), **train_speed(model, rows, warm_up, timed)}
        del model
    return result


def precisions(tiny: bool) -> dict[str, Any]:
    """Losses of 200 steps in bf16 and fp16 against fp32, each the mean of ten steps; at most 1 % apart."""
    from etude.errors import InputError
    from etude.recipe.load import recipe_from
    from etude.run import Training
    from etude.start import Options

    steps = 20 if tiny else 200
    losses: dict[str, list[float]] = {}
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        values = tomllib.loads(write_recipe(Path(folder), tiny).read_text())
        values["model"]["dropout"], values["train"]["steps"] = 0.0, steps
        values["train"]["deterministic"] = False
        values["data"]["train"][0]["path"] = str(Path(folder) / "rows.jsonl")
        values["evaluate"] = {"every_steps": steps}
        values["checkpoint"] = {"every_steps": 10**6}
        for precision in ("fp32", "bf16", "fp16"):
            values["train"]["precision"] = precision
            try:
                training = Training(recipe_from(values), Options(runs=Path(folder) / precision))
                losses[precision] = [step.loss for step in training]
            except InputError as error:
                result[precision] = {"skipped": str(error)[:120]}
    for precision, found in losses.items():
        means = [
            [statistics.mean(each[low : low + 10]) for low in range(0, steps, 10)]
            for each in (losses["fp32"], found)
        ]
        apart = max(abs(theirs / ours - 1) for ours, theirs in zip(*means))
        result[precision] = {"last": means[1][-1], "largest_difference": apart}
    return {"passed": all(each.get("largest_difference", 0) < 0.01 for each in result.values()), **result}


def windows(tiny: bool) -> dict[str, Any]:
    """Attention within a window against causal attention, forward and backward, and against a mask."""
    import torch

    from etude.engine.world import synchronize
    from etude.models.attention import attend

    device, dtype = choose_device(), choose_dtype(choose_device())
    result: dict[str, Any] = {}
    for length, window in ((256, 32),) if tiny else ((4096, 256), (8192, 1024), (32_768, 1024)):
        shape = (1, length, 2, 16) if tiny else (1, length, 16, 64)
        q, k, v = (torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3))
        times: dict[str, float] = {}
        for name, reach in (("causal", None), ("window", window)):
            spent = []
            for _ in range(2 if tiny else 8):
                started = time.perf_counter()
                out = attend(q, k, v, window=reach, dropout=0.0)
                torch.autograd.grad(out.float().square().sum(), (q, k, v))
                synchronize(device)
                spent.append(time.perf_counter() - started)
            times[name] = statistics.median(spent[1:])
        found: dict[str, Any] = {**times, "times_causal": times["causal"] / times["window"]}
        if length <= 4096:
            at = torch.arange(length, device=device)
            seen = (at[:, None] >= at) & (at[:, None] - at < window)
            query, key, value = (heads.detach().transpose(1, 2).float() for heads in (q, k, v))
            masked = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
            found["difference"] = float((out.detach().float() - masked.transpose(1, 2)).abs().max())
        result[f"length {length}, window {window}"] = found
    most = 1e-4 if dtype == torch.float32 else 3e-2
    return {"passed": all(found.get("difference", 0) < most for found in result.values()), **result}


def out_of_memory(tiny: bool) -> dict[str, Any]:
    """A run that is given too little memory for its micro-batch, which it makes smaller; the losses of one
    with enough.
    """
    import torch

    from etude.recipe.load import recipe_from
    from etude.run import Training
    from etude.start import Options

    device, losses, result = choose_device(), {}, {}
    with tempfile.TemporaryDirectory() as folder:
        values = tomllib.loads(write_recipe(Path(folder), tiny).read_text())
        values["data"]["train"][0]["path"] = str(Path(folder) / "rows.jsonl")
        values["model"]["dropout"] = 0.0
        values["train"] |= {"steps": 4, "deterministic": False, "micro_batch_size": 16, "precision": "fp32"}
        if not tiny:
            values["train"] |= {"global_batch_size": 256, "micro_batch_size": 256}
        for name in ("enough", "short"):
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            training = Training(recipe_from(values), Options(runs=Path(folder) / name))
            losses[name] = [step.loss for step in training if not step.is_void]
            if device.type != "cuda":
                return {"skipped": "the memory of a CPU has no limit to set", "losses": losses[name]}
            total = torch.cuda.get_device_properties(0).total_memory
            result[name] = {"peak_bytes": torch.cuda.max_memory_reserved()}
            torch.cuda.set_per_process_memory_fraction(0.6 * torch.cuda.max_memory_reserved() / total)
    apart = max(abs(one / other - 1) for one, other in zip(losses["enough"], losses["short"]))
    is_smaller = result["short"]["peak_bytes"] < result["enough"]["peak_bytes"]
    return {"passed": apart < 1e-4 and is_smaller, "largest_difference": apart, **result}


def _counting(graphs: list[int], backend: str) -> Callable[..., Any]:
    """A backend of torch.compile that notes each graph."""
    import torch
    from torch._dynamo import lookup_backend

    compile_graph = lookup_backend(backend)

    def compile_counted(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(len(inputs))
        return compile_graph(graph, inputs)

    return compile_counted
