"""Tokens/s of greedy generation with the 50M Qwen2 shape, against transformers' generate(), at batch 1 and
16.

Both sides load the same folder and continue the same prompts by the same number of tokens, in turn; the share
of tokens that agree is told.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from lora import HOME, TOKENIZERS, pretrained_base
from measure import median, take_turns, write_result

CLAIM = "Generated tokens/s with a Qwen2 shape, 512 wide x 8 layers, against transformers' generate(), fp32"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True, help="codealpaca_new.jsonl")
    parser.add_argument("--tokenizers", type=Path, required=True, help="a folder that holds gpt2 and qwen2")
    parser.add_argument("--vocabulary", type=int, choices=TOKENIZERS, default=50_304)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--tokens", type=int, default=128, help="new tokens of each prompt")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--pretrain-steps", type=int, default=20, help="of the base, if there is none yet")
    parser.add_argument(
        "--tiny", action="store_true", help="a toy shape, to try the script; writes no result"
    )
    asked = parser.parse_args()
    HOME.mkdir(parents=True, exist_ok=True)
    base = pretrained_base(asked.vocabulary, asked.tokenizers, asked.pretrain_steps, tiny=asked.tiny)
    results: dict[str, Any] = {}
    table: list[list[Any]] = [["batch", "etude tokens/s", "generate() tokens/s", "ratio", "same tokens"]]
    for batch in asked.batch:
        result = _compare(base, _prompts(base, asked.rows, batch), asked.tokens, asked.turns)
        results[f"batch {batch}"] = result
        table.append([batch, *(result[key] for key in ("etude", "transformers", "ratio", "same_tokens"))])
    if asked.tiny:
        print(json.dumps(results, indent=1))
        return
    write_result("generate", CLAIM, {"new_tokens": asked.tokens, "turns": asked.turns, **results}, table)


def _prompts(base: Path, rows: Path, count: int) -> list[list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    lines = rows.read_text("utf-8").splitlines()[:count]
    return [tokenizer.encode(json.loads(line)["instruction"], add_special_tokens=False).ids for line in lines]


def _compare(base: Path, prompts: list[list[int]], tokens: int, turns: int) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM

    from etude.evaluate.generate import generate
    from etude.models.pretrained import inspect_model, load_pretrained

    ours = load_pretrained(inspect_model(base), dtype=torch.float32, dropout=0.0)[0].eval()
    theirs: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    longest = max(map(len, prompts))
    padded = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    said: dict[str, list[list[int]]] = {}

    def run_etude() -> None:
        said["etude"] = [entry.ids for entry in generate(ours, prompts, max_tokens=tokens, end_ids=())]

    @torch.inference_mode()
    def run_transformers() -> None:
        output = theirs.generate(
            input_ids=padded, attention_mask=mask, max_new_tokens=tokens, min_new_tokens=tokens,
            do_sample=False, pad_token_id=0,
        )  # fmt: skip
        said["transformers"] = output[:, longest:].tolist()

    def timed(work: Any) -> dict[str, Any]:
        started = time.perf_counter()
        work()
        return {"seconds": time.perf_counter() - started}

    sides = {"etude": run_etude, "transformers": run_transformers}
    for work in sides.values():  # not timed: the first call of each
        work()
    taken = take_turns({side: lambda work=work: timed(work) for side, work in sides.items()}, turns)  # type: ignore[misc]
    made = tokens * len(prompts)
    speeds = {side: made / median([turn["seconds"] for turn in turns]) for side, turns in taken.items()}
    same = sum(a == b for left, right in zip(*said.values()) for a, b in zip(left, right)) / made
    return {
        **{side: round(speed, 1) for side, speed in speeds.items()},
        "ratio": round(speeds["etude"] / speeds["transformers"], 3),
        "same_tokens": round(same, 4),
        "seconds": {side: [round(turn["seconds"], 3) for turn in turns] for side, turns in taken.items()},
    }


if __name__ == "__main__":
    main()
