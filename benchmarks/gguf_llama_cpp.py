"""Hold GGUF exports of a run against llama.cpp: loss on the same ids, ids of the same texts, tokens a second.

    python benchmarks/gguf_llama_cpp.py RUN... --runs runs --out results/gguf.json

Each form is exported, and read by llama.cpp through `llama-cpp-python`, which is built from source by
`pip install llama-cpp-python` (LLAMA_CPP_LIB_PATH names a folder with a built libllama.so). Beside its loss
stands that of etude with the numbers of the same file, and that of the original in fp32. Ids of the
validation texts are compared with those of the way to split that the export named.
"""

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from etude.engine.device import choose_device
from etude.errors import EtudeError
from etude.evaluate.generate import generate
from etude.export import export, load_model
from etude.models.lora import ADAPTER_FILE
from etude.quantize.export import export_quantized
from etude.quantize.gguf import GgufSettings
from etude.quantize.gguf_tokens import encode, find_splits
from etude.quantize.gguf_types import FORMS
from etude.quantize.scoring import Examiner
from etude.records.store import open_run
from etude.report.quantized import Gguf
from etude.start import find_weights

TEXTS, ROWS, WRITTEN = 64, 48, 64  # texts, samples and tokens written
TURNS = 3
THREADS = 1  # llama.cpp's threads wait for each other by spinning, which a busy machine punishes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="+")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--forms", nargs="+", default=list(FORMS))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {}
    for run in given.run:
        with tempfile.TemporaryDirectory() as folder:
            for form in given.forms:
                found.setdefault(run, {})[form] = measure(run, form, Path(folder) / form, given.runs)
                print(run, form, json.dumps(found[run][form]), flush=True)
    if given.out:
        given.out.write_text(json.dumps(found, indent=2))


def measure(run: str, form: str, out: Path, runs: Path) -> dict[str, Any]:
    """One form: what the export says, and what llama.cpp computes; or why it was refused."""
    settings = GgufSettings(form=form, most_loss=9.0)
    try:
        result = export_quantized(run, settings, out, runs=runs)
    except EtudeError as error:
        return {"refused": str(error)}
    assert isinstance(result.form, Gguf)
    examiner = Examiner(open_run(run, runs), choose_device("cpu"))
    kind = "merged" if (find_weights(run, runs).parent / ADAPTER_FILE).is_file() else "hf"
    whole = export(run, kind, out.with_name(f"{form}-whole"), runs=runs)
    rows = [batch.tokens.flatten().tolist() for batch in examiner.validation_batches(ROWS)]
    read = settings.read(out, whole, None)
    original = loss_of_etude(load_model(whole, dtype=torch.float32), rows)
    ours = loss_of_etude(read, rows)
    theirs = LlamaCpp(out / settings.file, max(map(len, rows)) + WRITTEN)
    loss = theirs.loss(rows)
    texts = examiner.validation_texts(TEXTS)
    splits = find_splits(examiner.corpus.tokenizer, texts)
    prompts = [row[:32] for row in rows[:8]]
    mine = [each.ids for each in generate(read, prompts, max_tokens=WRITTEN, end_ids=())]
    written = [theirs.write(prompt) for prompt in prompts]
    equal = [sum(1 for _ in takewhile_equal(a, b)) for a, b in zip(mine, written)]
    return {
        "loss": {"fp32": original, "etude": ours, "llama.cpp": loss},
        "perplexity": {"etude": math.exp(ours), "llama.cpp": math.exp(loss), "fp32": math.exp(original)},
        "perplexity_share": math.exp(loss - original) - 1,
        "export_loss": result.loss, "gain_kept": result.gain, "base_loss": result.base_loss,
        "bytes": result.file_bytes, "instead": len(result.form.instead), "splits": splits.name,
        "same_splits": splits.same, "texts": result.form.texts, "bits_per_byte": result.form.bits_per_byte,
        "texts_with_our_ids": sum(
            theirs.ids(text) == ids for text, ids in zip(texts, encode(splits.inner, texts))
        ),
        "of_texts": len(texts), "equal_greedy_tokens": equal, "of_greedy": WRITTEN,
        "tokens_per_second": theirs.speeds(rows) | {"etude reads": result.tokens_per_second[1]},
    }  # fmt: skip


def takewhile_equal(ours: list[int], theirs: list[int]) -> Any:
    """The tokens up to the first that differs."""
    for a, b in zip(ours, theirs):
        if a != b:
            return
        yield a


@torch.no_grad()
def loss_of_etude(model: Any, rows: list[list[int]]) -> float:
    """The mean loss of each token of rows by those before it, in nats."""
    total = sum(
        float(
            functional.cross_entropy(
                model.logits(torch.tensor([row[:-1]]))[0].double(), torch.tensor(row[1:]), reduction="sum"
            )
        )
        for row in rows
    )
    return total / sum(len(row) - 1 for row in rows)


class LlamaCpp:
    """A file in llama.cpp."""

    def __init__(self, file: Path, context: int) -> None:
        import llama_cpp  # type: ignore[import-not-found, unused-ignore]

        self.model = llama_cpp.Llama(
            str(file), n_ctx=context, n_batch=context, n_ubatch=context, n_threads=THREADS, n_threads_batch=THREADS,
            logits_all=True, verbose=False, use_mmap=True,
        )  # fmt: skip

    def loss(self, rows: list[list[int]]) -> float:
        """As `loss_of_etude`."""
        total = 0.0
        for row in rows:
            self.model.reset()
            self.model.eval(row[:-1])
            logits = torch.tensor(self.model.scores[: len(row) - 1]).double()
            total += float(functional.cross_entropy(logits, torch.tensor(row[1:]), reduction="sum"))
        return total / sum(len(row) - 1 for row in rows)

    def write(self, prompt: list[int]) -> list[int]:
        """The likeliest token, one after another."""
        self.model.reset()
        self.model.eval(prompt)
        ids: list[int] = []
        while len(ids) < WRITTEN:
            ids.append(int(self.model.scores[self.model.n_tokens - 1].argmax()))
            self.model.eval(ids[-1:])
        return ids

    def ids(self, text: str) -> list[int]:
        """The ids of a text, in which special tokens are text."""
        return list(self.model.tokenize(text.encode(), add_bos=False, special=False))

    def speeds(self, rows: list[list[int]]) -> dict[str, float]:
        """Tokens a second that are read and written, at their fastest."""
        read, wrote = float("inf"), float("inf")
        for _ in range(TURNS):
            begin = time.perf_counter()
            for row in rows[:8]:
                self.model.reset()
                self.model.eval(row)
            middle = time.perf_counter()
            self.write(rows[0][:8])
            read, wrote = min(read, middle - begin), min(wrote, time.perf_counter() - middle)
        tokens = sum(map(len, rows[:8]))
        return {"reads": tokens / read, "writes": WRITTEN / wrote}


if __name__ == "__main__":
    main()
