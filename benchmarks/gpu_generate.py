"""Generation for `gpu.py`: by CUDA graphs, by plain steps and by transformers, in one process."""

import itertools
import json
import statistics
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from gpu_models import (
    choose_device,
    choose_dtype,
    config_qwen,
    draw_samples,
    draw_weights,
    empty_decoder,
    small_decoder,
)


def generate(tiny: bool) -> dict[str, Any]:
    """Greedy generation of 64 tokens with Qwen2.5-Coder-1.5B's shape at batch 1 and 16: by graphs, by
    plain steps and by transformers' generate().
    """
    import torch

    device = choose_device()
    result: dict[str, Any] = {}

    def add(name: str, figures: dict[str, Any]) -> None:  # what is there already stays if time runs out
        result[name] = {**figures, "at_seconds": round(time.perf_counter() - begun, 1)}
        print("@" + json.dumps(result), flush=True)

    begun = time.perf_counter()
    with torch.device(device):
        model = empty_decoder(config_qwen(tiny)).to(choose_dtype(device)).eval()
    draw_weights(model)
    model.requires_grad_(False)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    tokens = 8 if tiny else 64
    theirs: dict[str, Any] = {}
    for batch in (1, 4) if tiny else (1, 16):
        prompts = _prompts(model, [50 + i for i in range(batch)])
        sides: dict[str, Callable[[], dict[str, Any]]] = {
            "plain": lambda: _write(model, prompts, tokens, captures=False),  # noqa: B023
            "graph": lambda: _write(model, prompts, tokens, captures=True),  # noqa: B023
            "transformers": lambda: _write_in_transformers(theirs["model"], prompts, tokens),  # noqa: B023
        }
        said: dict[str, Any] = {}
        for side, work in sides.items():
            if side == "transformers" and not theirs:
                theirs = _attempt(lambda: {"model": _in_transformers(model)})
            figures = theirs if side == "transformers" and "error" in theirs else _attempt(work)
            said[side] = figures.pop("ids", None) if "error" not in figures else None
            if "tokens_per_second" in figures:
                speed = figures["tokens_per_second"]
                figures["weight_bytes_per_second"] = round(weights * speed / batch)
            add(f"batch {batch}, {side}", figures)
        pairs = {side: (said["plain"], said[side]) for side in ("graph", "transformers")}
        shares = {side: _share(*pair) for side, pair in pairs.items() if all(pair)}
        add(f"batch {batch}, same tokens as plain", shares)
        if batch == 1:
            add("equal", _attempt(lambda: _compare_ways(tiny)))
    return {"passed": result["equal"].get("passed", False), **result}


def _compare_ways(tiny: bool) -> dict[str, Any]:
    """Tokens by graphs against those of plain steps, over the border of a graph: all equal in fp32."""
    import torch

    device = choose_device()
    model = small_decoder(tiny).to(device).eval()
    with torch.no_grad():
        for name, part in model.named_parameters():  # new weights say the same token again and again
            part *= 1 if name.endswith("norm.weight") else 4
    prompts = _prompts(model, [5, 60, 33])
    tokens = 40 if tiny else 300
    result: dict[str, Any] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16 autocast", torch.bfloat16)):
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            plain = _write(model, prompts, tokens, captures=False, turns=1)
            graph = _write(model, prompts, tokens, captures=True, turns=1)
        ids = plain.pop("ids"), graph.pop("ids")
        different = len({token for row in ids[0] for token in row})
        result[name] = {"same": _share(*ids), "different": different, "plain": plain, "graph": graph}
    return {"passed": result["fp32"]["same"] == 1.0, **result}


def _write(
    model: Any, prompts: list[list[int]], tokens: int, *, captures: bool, turns: int = 3
) -> dict[str, Any]:
    """Tokens/s of whole calls, the best one after the first, and the usual time of a token once it runs."""
    from etude.evaluate import generate as generation
    from etude.models import captured

    device, whole, between = choose_device(), [], []
    worth = captured.is_worth_it if captures else lambda model, max_tokens: False
    capture, made = captured.capture, []

    def count(step: Any, on: Any) -> Any:  # a mock would keep its arguments, and with them the memory
        made.append(1)
        return capture(step, on)

    with (
        warnings.catch_warnings(),
        patch.object(captured, "is_worth_it", worth),
        patch.object(captured, "capture", count),
    ):
        warnings.filterwarnings("error", message="text is written without a CUDA graph")
        _reset_peak(device)
        held = _memory(device)
        for _ in range(turns):
            times, steps = [time.perf_counter()], []
            for step in generation.generate_steps(model, prompts, max_tokens=tokens, end_ids=()):
                steps.append(step)
                times.append(time.perf_counter())
            whole.append(times[-1] - times[0])
            between = [b - a for a, b in itertools.pairwise(times)][len(steps) // 2 :]
    return {
        "tokens_per_second": round(len(prompts) * tokens / min(whole[1:] or whole), 1),
        "milliseconds_a_token": round(1e3 * statistics.median(between), 3),
        "seconds_a_call": [round(seconds, 3) for seconds in whole],
        "graphs_a_call": len(made) / turns,
        "bytes_held_after": _memory(device) - held,
        "peak_bytes": _peak(device),
        "ids": [list(row) for row in zip(*steps)],
    }


def _in_transformers(model: Any) -> Any:
    """The same weights in transformers' own class."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values = {
        key: value
        for key, value in model.config.to_hf(eos_id=None).items()
        if key not in ("architectures", "torch_dtype", "dtype", "transformers_version")
    }
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device(choose_device()):
        theirs = AutoModelForCausalLM.from_config(
            config, dtype=model.head_weight().dtype, attn_implementation="sdpa"
        )
    lacking = theirs.load_state_dict(model.state_dict(), strict=False)
    assert set(lacking.missing_keys) <= {"lm_head.weight"} and not lacking.unexpected_keys, lacking
    theirs.tie_weights()
    return theirs.eval()


def _write_in_transformers(theirs: Any, prompts: list[list[int]], tokens: int) -> dict[str, Any]:
    import torch

    from etude.engine.world import synchronize

    device, longest, whole = choose_device(), max(map(len, prompts)), []
    padded = [[0] * (longest - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    given = {"input_ids": padded, "attention_mask": mask}
    arguments = {name: torch.tensor(rows, device=device) for name, rows in given.items()}
    for _ in range(3):
        synchronize(device)
        started = time.perf_counter()
        with torch.inference_mode():
            output = theirs.generate(
                **arguments, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0
            )
        synchronize(device)
        whole.append(time.perf_counter() - started)
    return {
        "tokens_per_second": round(len(prompts) * tokens / min(whole[1:]), 1),
        "seconds_a_call": [round(seconds, 3) for seconds in whole],
        "ids": output[:, longest:].tolist(),
    }


def _prompts(model: Any, lengths: list[int]) -> list[list[int]]:
    return [sample.tolist() for sample in draw_samples(model.config.vocab_size, lengths)]


def _share(left: list[list[int]], right: list[list[int]]) -> float:
    pairs = [(a, b) for ours, theirs in zip(left, right) for a, b in zip(ours, theirs)]
    return round(sum(a == b for a, b in pairs) / len(pairs), 4)


def _attempt(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Figures of some work, or the end of its traceback, so that the others still come."""
    try:
        return work()
    except Exception:
        return {"error": traceback.format_exc()[-3000:]}


def _memory(device: Any) -> int:
    import torch

    return torch.cuda.memory_allocated() if device.type == "cuda" else 0


def _peak(device: Any) -> int:
    import torch

    return torch.cuda.max_memory_allocated() if device.type == "cuda" else 0


def _reset_peak(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
