"""A decoder with windows against a full one at equal tokens: loss by position of text, and retrieval by distance.

Text: the standard library of Python, through `etude.train`, with the loss by position of its last evaluation.
Retrieval: pairs of a key and a value, then keys again in any order, each to be followed by its value; the share of
values that are the most likely token, by the distance of the pair. Same seed, order, steps and rate for all forms.
"""

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from measure import write_result
from torch.nn import functional

from etude.models.decoder import Decoder
from etude.models.decoder_config import DecoderConfig
from etude.recipe.load import recipe_from
from etude.records.events import Evaluation
from etude.run import run_recipe
from etude.start import Options

CLAIM = "Loss by position and retrieval by distance of decoders with windows, at equal tokens"
FORMS: dict[str, list[int]] = {"full": [0], "two of three": [1, 1, 0], "all": [1]}  # times the window
WINDOW, SEQ_LEN, LAYERS = 128, 1024, 6
KEYS, PAIRS, RECALL_WINDOW, RECALL_LAYERS = 64, 48, 32, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--recall-steps", type=int, default=600)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    recall = {form: retrieve(form, asked.recall_steps) for form in FORMS}
    print(recall, file=sys.stderr, flush=True)
    text = {}
    for form in FORMS:
        text[form] = train_on_text(form, asked.steps)
        print(form, text[form], file=sys.stderr, flush=True)
    ranges = list(text["full"]["by_position"])
    table: list[list[Any]] = [
        ["form", "seconds", "loss", *ranges, *(f"retrieved {name}" for name in recall["full"])]
    ]
    for form in FORMS:
        found = [f"{value:.3f}" for value in (text[form]["loss"], *text[form]["by_position"].values())]
        table.append(
            [
                form,
                f"{text[form]['seconds']:.0f}",
                *found,
                *(f"{value:.2f}" for value in recall[form].values()),
            ]
        )
    write_result("window_loss", CLAIM, {"steps": vars(asked), "text": text, "retrieval": recall}, table)


def train_on_text(form: str, steps: int) -> dict[str, Any]:
    """The last evaluation of a run, and the processor seconds of the whole run."""
    values = {
        "name": "windows",
        "model": {"n_layer": LAYERS, "n_head": 4, "n_embd": 128, "qk_norm": True, "zero_init": True,
                  "layer_window": [WINDOW * each for each in FORMS[form]]},
        "tokenizer": {"train_vocab_size": 2048},
        "data": {"train": [{"source": "python-stdlib"}]},
        "train": {"steps": steps, "seq_len": SEQ_LEN, "global_batch_size": 4, "micro_batch_size": 4, "device": "cpu",
                  "precision": "fp32"},
        "optim": {"kind": "muon", "learning_rate": 2e-3},
        "schedule": {"kind": "linear", "warmup_steps": 5},
        "evaluate": {"every_steps": steps, "max_samples": 96},
        "checkpoint": {"every_steps": steps},
    }  # fmt: skip
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = run_recipe(recipe_from(values), Options(runs=Path(folder))).run
        events = [entry.event for entry in run.ledger().entries]
    last = [each for each in events if isinstance(each, Evaluation)][-1]
    by_position = {name: value for name, value in last.metrics.items() if name.startswith("loss/")}
    return {"loss": last.loss, "loss_error": last.loss_error, "by_position": by_position, "tokens": 4 * SEQ_LEN * steps,
            "seconds": time.process_time() - started}  # fmt: skip


def retrieve(form: str, steps: int) -> dict[str, float]:
    """The share of values that a model finds again, of pairs within the window and of those further back."""
    config = DecoderConfig(
        vocab_size=2 * KEYS, n_layer=RECALL_LAYERS, n_head=2, n_kv_head=2, n_embd=64, n_ffn=128, head_dim=32,
        context=4 * PAIRS, qk_norm=True, zero_init=True,
    )  # fmt: skip
    pattern = (FORMS[form] * RECALL_LAYERS)[:RECALL_LAYERS]
    if any(pattern):
        full = tuple(layer for layer, each in enumerate(pattern) if not each)
        config = dataclasses.replace(config, sliding_window=RECALL_WINDOW, full_layers=full)
    model = Decoder(config)
    model.init_weights(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 20, (steps - step) / (steps / 2))
        tokens, places, _ = pairs(16, generator)
        logits = model.logits(tokens)[:, places]
        loss = functional.cross_entropy(logits.flatten(0, 1), tokens[:, places + 1].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    tokens, places, distance = pairs(200, torch.Generator().manual_seed(2))
    with torch.no_grad():
        is_found = model.logits(tokens)[:, places].argmax(-1) == tokens[:, places + 1]
    within, reach = distance < RECALL_WINDOW, RECALL_LAYERS * (RECALL_WINDOW - 1)
    return {
        "within the window": is_found[within].float().mean().item(),
        "beyond it": is_found[~within].float().mean().item(),
        f"beyond {reach}": is_found[distance > reach].float().mean().item(),
    }


def pairs(rows: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens (rows, T), the places of keys that are asked (n,), and the distance of their values (rows, n)."""
    keys = torch.stack([torch.randperm(KEYS, generator=generator)[:PAIRS] for _ in range(rows)])
    values = torch.randint(KEYS, (rows, PAIRS), generator=generator) + KEYS
    order = torch.stack([torch.randperm(PAIRS, generator=generator) for _ in range(rows)])
    first = torch.stack((keys, values), dim=2).flatten(1)
    asked = torch.stack((keys.gather(1, order), values.gather(1, order)), dim=2).flatten(1)
    places = torch.arange(2 * PAIRS, 4 * PAIRS, 2)
    return torch.cat((first, asked), dim=1), places, places - (2 * order + 1)


if __name__ == "__main__":
    main()
