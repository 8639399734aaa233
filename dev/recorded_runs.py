"""Train twelve tiny runs of all kinds and record their bits, to show that a change of structure changes
nothing.

    python dev/recorded_runs.py before.json     # at one commit
    python dev/recorded_runs.py after.json      # at another, on the same machine
    python dev/recorded_runs.py before.json after.json     # what differs; exit code 1 if anything does

Bits are those of the last checkpoint's weights and optimizer, and of every evaluation, text and score in the
journal.
"""

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))
TIMES = ("seconds", "time")


def main() -> None:
    given = [Path(name) for name in sys.argv[1:]]
    if len(given) == 2:
        before, after = (json.loads(path.read_text()) for path in given)
        differing = [
            f"{name}: {key}"
            for name in before
            for key in before[name]
            if before[name][key] != after[name][key]
        ]
        print("\n".join(differing) or f"{len(before)} runs are equal, bit for bit")
        sys.exit(bool(differing))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ETUDE_CACHE"] = f"{folder}/cache"
        bits = {name: record(Path(folder), name, *case) for name, case in cases(Path(folder)).items()}
    given[0].write_text(json.dumps(bits, indent=1) + "\n")
    print(f"{len(bits)} runs recorded in {given[0]}")


def cases(folder: Path) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Changes of the tiny recipe of the tests, and options, for each kind of training."""
    from tests import bases

    chat, plain, other = (
        bases.write_qwen2(folder / "qwen2"),
        bases.write_llama(folder / "llama"),
        bases.write_gpt2(folder / "gpt2"),
    )
    encoder, translator = bases.write_encoder(folder / "encoder", masked=True), bases.write_t5(folder / "t5")
    rows, pairs = (
        bases.write_instructions(folder / "rows.jsonl", 60),
        bases.write_pairs(folder / "pairs.jsonl", 60),
    )
    labelled, several = (
        bases.write_labelled(folder / "one.jsonl"),
        bases.write_labelled(folder / "several.jsonl", multi=True),
    )
    two_texts = bases.write_labelled(folder / "two.jsonl", pairs=True)
    answers = {"evaluate.answers": 3, "evaluate.answer_tokens": 6, "train.seq_len": 64, "tokenizer": {}}
    labels = {
        "train.objective": "classification",
        "train.seq_len": 32,
        "evaluate.metric": "f1",
        "tokenizer": {},
    }
    one = {"data.train": [{"path": str(labelled), "label": "label"}]}
    chatting = {"data.train": [{"path": str(rows)}], **answers}
    new = {"model": {"kind": "encoder", "n_layer": 2, "n_embd": 32, "n_head": 2, "dropout": 0.1}}
    translating = {
        "train.objective": "seq2seq", "train.seq_len": 32, "evaluate.answers": 2, "evaluate.answer_tokens": 4,
        "data.train": [{"path": str(pairs), "field": "source", "target": "target"}],
        "loss.label_smoothing": 0.1,
    }  # fmt: skip
    return {
        "text": ({"model.dropout": 0.1, "evaluate.prompts": ["def "], "evaluate.sample_tokens": 6}, {}),
        "muon": ({"optim.kind": "muon", "data.sample": "document"}, {}),
        "lora": ({
            "model": {"from": str(chat)}, "adapter": {"rank": 4, "dropout": 0.1}, "evaluate.metric": "bleu", **chatting
        }, {}),
        "dora": ({"model": {"from": str(plain)}, "adapter": {"rank": 2, "dora": True}, **chatting}, {}),
        "transformers": ({"model": {"from": str(other)}, **chatting}, {}),
        "classes": ({"model": {"from": str(encoder)}, **labels, **one, "loss.class_weights": "balanced"}, {}),
        "multi-label": ({
            **new, **labels, "tokenizer": {"train_vocab_size": 300},
            "data.train": [{"path": str(several), "label": "label"}],
        }, {}),
        "pairs": ({
            "model": {"from": str(chat)}, "adapter": {"rank": 2}, **labels,
            "data.train": [{"path": str(two_texts), "field": "text", "pair": "other", "label": "label"}],
        }, {}),
        "seq2seq": ({
            "model": {"from": str(translator)}, "tokenizer": {}, "evaluate.metric": "chrf", **translating
        }, {}),
        "masked": ({**new, "train.objective": "masked", "train.seq_len": 32}, {}),
        "tasks": ({
            "model": {"from": str(encoder), "dropout": 0.1}, "tokenizer": {}, "train.seq_len": 32,
            "data.sample": "document",
            "tasks": {"kinds": {"objective": "classification"}, "text": {"objective": "masked", "ratio": 2.0}},
            "data.train": [{**one["data.train"][0], "task": "kinds"}, {"path": str(labelled), "task": "text"}],
            "evaluate.metric": "kinds:f1",
        }, {}),
        "own": ({"evaluate.metric": "entropy"}, {"loss": own_loss, "metrics": {"entropy": entropy}}),
    }  # fmt: skip


def own_loss(model: Any, batch: Any) -> tuple[Any, int]:
    from torch.nn import functional

    import etude

    logits = etude.logits(model, batch).flatten(0, 1)
    labels = batch.labels.flatten()
    return functional.cross_entropy(logits, labels, reduction="sum", ignore_index=-100), int(
        (labels >= 0).sum()
    )


def entropy(model: Any, batches: Any) -> float:
    import etude

    parts = [etude.logits(model, batch).softmax(-1) for batch in batches]
    return -sum(float((part * part.log()).sum()) for part in parts) / sum(
        part[..., 0].numel() for part in parts
    )


def record(folder: Path, name: str, changes: dict[str, Any], options: dict[str, Any]) -> dict[str, str]:
    from dataclasses import asdict

    from etude.recipe.load import recipe_from
    from etude.records import events
    from etude.run import run_recipe
    from etude.start import Options
    from tests.bases import write_corpus
    from tests.recipes import tiny

    corpus = write_corpus(folder / "corpus.jsonl")
    run = run_recipe(recipe_from(tiny(corpus, changes)), Options(runs=folder / name, **options)).run
    last = max(run.checkpoints.iterdir())
    bits = {path.name: _hash(path.read_bytes()) for path in last.iterdir() if path.suffix == ".safetensors"}
    for kind in (events.Step, events.Evaluation, events.Generation, events.Scores):
        events_of = [entry.event for entry in run.ledger().entries if isinstance(entry.event, kind)]
        found = [event._asdict() if isinstance(event, tuple) else asdict(event) for event in events_of]
        lines = [{key: value for key, value in each.items() if not key.endswith(TIMES)} for each in found]
        if lines:
            bits[kind.__name__] = _hash(json.dumps(lines, sort_keys=True, default=str).encode())
    print(f"{name}: {', '.join(sorted(bits))}", flush=True)
    return bits


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


if __name__ == "__main__":
    main()
