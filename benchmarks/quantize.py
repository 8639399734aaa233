"""Measure what weights of 8 and 4 bits cost and save, and whether transformers computes the same with them.

    python benchmarks/quantize.py RUN... --runs runs --out quantize.json

Each run is exported in five ways: 8 bits; 4 bits rounded and by GPTQ, in groups of 32, and one scale an
output. With `compressed-tensors` installed, transformers loads each folder, and its logits are held
against etude's.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from etude.errors import EtudeError
from etude.export import load_model
from etude.models.compressed import Scheme
from etude.quantize.export import export_quantized
from etude.quantize.packed import Settings
from etude.report.quantized import Packed

FORMS: dict[str, dict[str, Any]] = {
    "int8 round, output": {"bits": 8},
    "int4 round, 32": {"bits": 4, "method": "round", "group": 32},
    "int4 gptq, 32": {"bits": 4, "method": "gptq", "group": 32},
    "int4 round, output": {"bits": 4, "method": "round", "group": 0},
    "int4 gptq, output": {"bits": 4, "method": "gptq", "group": 0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="+")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {}
    for run in given.run:
        for form, settings in FORMS.items():
            with tempfile.TemporaryDirectory() as folder:
                found.setdefault(run, {})[form] = measure(run, settings, Path(folder) / "out", given.runs)
            print(run, form, json.dumps(found[run][form].get("short") or found[run][form]), flush=True)
    if given.out:
        given.out.write_text(json.dumps(found, indent=2))


def measure(run: str, settings: dict[str, Any], out: Path, runs: Path) -> dict[str, Any]:
    """One export, with its time; or why it was refused."""
    begin = time.perf_counter()
    try:
        result = export_quantized(run, Settings(most_loss=1.0, **settings), out, runs=runs)
    except EtudeError as error:
        return {"refused": str(error)}
    seconds = time.perf_counter() - begin
    assert isinstance(result.form, Packed)
    arithmetic = bytes_by_arithmetic(out, Scheme(result.form.bits, result.form.group))
    values = result.to_dict() | {"seconds": seconds, "arithmetic_bytes": arithmetic, "foreign": compare(out)}
    loss = result.figures["loss"]
    short = {
        "loss": f"{result.loss:+.3%}", "difference": loss.difference,
        "bytes": result.file_bytes, "arithmetic": arithmetic, "left whole": len(result.form.kept),
        "others": {
            name: (each.original[0], each.made[0], each.difference)
            for name, each in result.figures.items()
            if name in ("bits_per_byte", "f1", "stop_rate", "bleu")
        },
        "tokens a second": [round(each) for each in result.tokens_per_second], "seconds": round(seconds, 1),
        "foreign": values["foreign"],
    }  # fmt: skip
    return values | {"short": short}


def bytes_by_arithmetic(out: Path, scheme: Scheme) -> int:
    """Bytes that the tensors of a file take: of the shapes that packed ones stand for, and of all others."""
    tensors = load_file(out / "model.safetensors")
    total = sum(tensor.nbytes for name, tensor in tensors.items() if ".weight_" not in name)
    for name, tensor in tensors.items():
        if name.endswith("weight_shape"):
            scale = tensors[name.replace("_shape", "_scale")]
            outputs, inputs = tensor.tolist()
            total += scheme.stored_bytes(outputs, inputs, scale.element_size())
    return total


def compare(out: Path) -> Any:
    """The largest difference of logits between transformers and etude, and the largest logit."""
    try:
        import compressed_tensors  # type: ignore[import-not-found, unused-ignore]  # noqa: F401
    except ImportError:
        return "compressed-tensors is not installed"
    import transformers

    config = json.loads((out / "config.json").read_text())
    tokens = torch.randint(5, config["vocab_size"] - 5, (2, 24), generator=torch.Generator().manual_seed(0))
    model: Any = load_model(out, dtype=torch.float32)
    kind = "ForSequenceClassification" in str(config["architectures"])
    is_pair = config.get("is_encoder_decoder")
    name = "AutoModelForSequenceClassification" if kind else "AutoModelForCausalLM"
    auto: Any = getattr(transformers, "AutoModelForSeq2SeqLM" if is_pair else name)
    theirs = auto.from_pretrained(
        out, dtype=torch.float32,
        quantization_config=transformers.CompressedTensorsConfig(dequantize=True),
    ).eval()  # fmt: skip
    with torch.no_grad():
        if is_pair:
            return answers(model, theirs, tokens)
        logits = theirs(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
        lengths = (24, 24)
        ours = (
            model.classify(model(tokens.view(1, -1), lengths=lengths), lengths)
            if kind
            else model.logits(tokens)
        )
    return {"difference": float((ours - logits).abs().max()), "largest": float(logits.abs().max())}


def answers(model: Any, theirs: Any, tokens: torch.Tensor) -> Any:
    """Greedy answers of an encoder-decoder, as many tokens as are equal of how many."""
    from etude.evaluate.generate import generate

    ours = generate(model, tokens.tolist(), max_tokens=24, end_ids=())
    made = theirs.generate(tokens, max_new_tokens=24, min_new_tokens=24, do_sample=False)[:, 1:]
    same = sum(a == b for row, other in zip(ours, made.tolist()) for a, b in zip(row.ids, other))
    return {"equal_tokens": same, "of": made.numel()}


if __name__ == "__main__":
    main()
